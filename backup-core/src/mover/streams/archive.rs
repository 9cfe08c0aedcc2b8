//! The program that goes straight to the store: lines go into it and come out of it, and no files.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::super::run::{Mover, lock};
use super::super::spec::MOUNT;
use super::{GOING, Owes};
use crate::error::Result;
use crate::volume::straight::run::Streams;

/// A program that nobody speaks to any more has ended by then.
const ENDS: Duration = Duration::from_secs(30);

/// Its name.
pub(super) const VERB: &str = "archive";

/// Its end.
pub(crate) struct Archiver {
    ended: oneshot::Receiver<Result<(), String>>,
}

impl Mover {
    /// Starts it on the volume.
    ///
    /// # Errors
    /// A program that can not be started.
    pub(crate) async fn archive(&self) -> Result<(Archiver, Streams)> {
        // It says how far it is, and where it says nothing for too long it hangs.
        let owes = Owes::default();
        let _ = owes.set(Box::new(|| true));
        let going = Some(mpsc::channel(GOING));
        let program = self
            .program_with(&[VERB, MOUNT], going, owes, Arc::default())
            .await?;
        let (to, from) = (program.input.to, program.output.from);
        let ended = program.ended;
        Ok((Archiver { ended }, Streams { to, from }))
    }

    /// Awaits the end of one that wrote nothing, and gives back what it said where that was a failure: it matters no more to what is tried next.
    pub(crate) async fn forget(&self, archiver: Archiver) -> Option<String> {
        let ended = tokio::time::timeout(ENDS, archiver.ended).await;
        lock(&self.broke).take();
        ended.ok()?.ok()?.err()
    }
}
