//! Where KKP manages the clusters its controllers act on the kinds, and the launcher does not: it says so, and that is all.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use backup_core::Result;

use super::Coordinator;
use crate::run::condition;
use crate::run::event::Tone;
use crate::run::hosting::Written;

/// How long an answer holds.
const HOLDS: Duration = Duration::from_secs(60);

/// Whose the kinds were when that was asked last.
#[derive(Default)]
pub(crate) struct Whose {
    asked: Option<Instant>,
    kkps: bool,
    /// Uids of restores to which an event was written.
    told: BTreeSet<String>,
}

impl Coordinator {
    /// Whether KKP acts on the kinds here; whoever asks for a restore is told.
    pub(super) async fn is_kkps(&mut self) -> Result<bool> {
        let holds = self.pace.of(HOLDS);
        if self
            .whose
            .asked
            .is_some_and(|asked| asked.elapsed() < holds)
            && !self.whose.kkps
        {
            return Ok(false);
        }
        let managed = self.hosting.managed_by_kkp().await?;
        self.whose.asked = Some(Instant::now());
        self.whose.kkps = managed.is_some();
        let note = managed.as_ref().map(|managed| {
            format!(
                "{}: {}; restores are left to KKP",
                condition::MANAGED_BY_KKP,
                managed.why
            )
        });
        self.health.tell(|health| health.note.clone_from(&note));
        let (Some(managed), Some(note)) = (managed, note) else {
            return Ok(false);
        };
        self.say(&note);
        for restore in self.hosting.all_restores().await? {
            let reference = restore.reference();
            if restore.phase() == "Completed" || !self.whose.told.insert(reference.uid.clone()) {
                continue;
            }
            let reason = condition::MANAGED_BY_KKP;
            self.hosting
                .tell_event(&reference, Tone::Warning, reason, &note)
                .await;
            // What is KKP's is not written to at all.
            if managed.kinds_are_ours {
                let _: Result<Written> = self
                    .hosting
                    .write_status(&restore, |status| {
                        condition::set(status, reason, true, "FinalizerOfKKP", &note);
                    })
                    .await;
            }
        }
        Ok(true)
    }
}
