//! What a restore needs done by others: the snapshot fetched, the side written by etcdutl, and both looked into.

use std::future::Future;
use std::path::Path;

use backup_core::Result;

use super::entry::Snapshot;
use super::plan::Plan;

/// The three pieces of work. Each may be done again after a crash and starts over then.
pub(crate) trait Work: Send {
    /// Puts the snapshot at `spool` as a plain database, checks it whole, and that it can be restored here.
    fn fetch(&mut self, plan: &Plan, spool: &Path)
    -> impl Future<Output = Result<Snapshot>> + Send;

    /// Writes `member` into the folder `side`, which is empty.
    fn build(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        spool: &Path,
        side: &Path,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Checks that the folder `member` holds the snapshot's content at the target revision. Whose it is was checked before.
    fn prove(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        member: &Path,
    ) -> impl Future<Output = Result<()>> + Send;
}
