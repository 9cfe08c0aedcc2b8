//! Long work on an object is told on the object: its progress while it goes on, and its end, unless somebody else decided that meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_core::Kind;
use backup_core::error::Result;
use backup_core::progress::Progress;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::backups::RUN;
use super::desk::Desk;
use super::objects::{Objects, Written, annotation, name, phase};

/// Progress is written at most so often.
const OFTEN: Duration = Duration::from_secs(1);

/// An end that can not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// Objects that are known and that are done.
#[derive(Default)]
pub(crate) struct Count {
    known: AtomicU64,
    done: AtomicU64,
}

impl Progress for Count {
    fn expect(&self, objects: u64) {
        self.known.fetch_add(objects, Ordering::Relaxed);
    }

    fn done(&self, objects: u64, _bytes: u64) {
        self.done.fetch_add(objects, Ordering::Relaxed);
    }
}

impl Count {
    fn told(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (self.known.load(Ordering::Relaxed).max(done), done)
    }
}

/// Which objects of the desk are meant.
pub(crate) type Of = fn(&Desk) -> &Objects;

/// Somebody who writes the progress while work goes on.
pub(crate) struct Telling {
    quiet: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Telling {
    /// Begins to tell, in this field of `status.progress`.
    pub(crate) fn begin(
        desk: &Arc<Desk>,
        of: Of,
        object: &Arc<Value>,
        count: &Arc<Count>,
        field: &'static str,
    ) -> Self {
        let (quiet, mut hush) = watch::channel(false);
        let (desk, object, count) = (Arc::clone(desk), Arc::clone(object), Arc::clone(count));
        let task = tokio::spawn(async move {
            let mut last = (0, 0);
            while tokio::time::timeout(OFTEN, hush.wait_for(|hush| *hush))
                .await
                .is_err()
            {
                let now = count.told();
                if now == last {
                    continue;
                }
                last = now;
                let patch = json!({"status": {"progress": {"totalItems": now.0, field: now.1}}});
                // The next one tells more.
                let _ = of(&desk).patch(&object, patch).await;
            }
        });
        Self { quiet, task }
    }

    /// Ends it: what is under way does not come after the end that is written next.
    pub(crate) async fn end(self) {
        self.quiet.send_replace(true);
        let _ = self.task.await;
    }
}

/// Writes how the work of this attempt ended.
///
/// # Errors
/// What the API server will refuse the next time, too.
pub(crate) async fn end(
    desk: &Desk,
    of: Of,
    object: &Value,
    attempt: &str,
    patch: &Value,
) -> Result<()> {
    let objects = of(desk);
    loop {
        let written = async {
            let Some(now) = objects.read(object).await? else {
                return Ok(Written::Yes);
            };
            if phase(&now) != "InProgress" || annotation(&now, RUN) != Some(attempt) {
                return Ok(Written::Yes);
            }
            objects.decide(&now, patch.clone()).await
        };
        match written.await {
            Ok(Written::Yes) => return Ok(()),
            Ok(Written::Changed) => {}
            Err(e) if matches!(e.kind(), Kind::Invalid | Kind::Forbidden) => return Err(e),
            Err(e) => {
                desk.ui.warn(&format!("{}: {}", name(object), e.sentence()));
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
