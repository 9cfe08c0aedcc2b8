//! What the state was that a completed restore replaced: read from end to end once the control plane is back, on a thread of its own, and noted for a
//! later rollback to be held against. Changes nothing but the journal.

use backup_core::Result;
use backup_core::progress::Silent;
use tokio::task::JoinHandle;

use super::Keeper;
use crate::restore::entry::Former;
use crate::restore::plan::AttemptId;
use crate::restore::proof;
use crate::restore::step::Step;

/// What is being read, and what was.
#[derive(Default)]
pub(super) struct Noting {
    reading: Option<(AttemptId, JoinHandle<Option<Former>>)>,
    /// Looked at, whatever came of it: it is not read again by this process.
    done: Vec<AttemptId>,
}

impl Keeper {
    /// Begins to read a state that nothing is noted of yet, or notes what was read. Never waits.
    ///
    /// # Errors
    /// When the journal can not be written.
    pub(super) async fn note_former(&mut self) -> Result<()> {
        if let Some((id, reading)) = self.noting.reading.take_if(|(_, task)| task.is_finished()) {
            let read = reading.await.ok().flatten();
            // What is damaged or gone is told when somebody wants it back.
            if let Some(former) = read
                && self
                    .dir
                    .attempt(&id)
                    .is_ok_and(|known| known.step == Step::Committed)
            {
                self.dir.note_former(&id, former)?;
            }
        }
        if self.noting.reading.is_some() {
            return Ok(());
        }
        let next = self.dir.attempts().iter().rev().find(|known| {
            let former = known.former.as_ref();
            known.step == Step::Committed
                && former.is_some_and(|former| former.content.is_none())
                && !self.noting.done.contains(known.id())
        });
        if let Some(id) = next.map(|known| known.id().clone()) {
            let side = self.dir.side(&id);
            let read = move || proof::seen(&side, &Silent).ok()?.former;
            self.noting.done.push(id.clone());
            self.noting.reading = Some((id, tokio::task::spawn_blocking(read)));
        }
        Ok(())
    }
}
