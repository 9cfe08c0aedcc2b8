//! Rewrites a foreign archive (one gzip stream, any order, format 1.0 or 1.1) into our form, in a file that has no name: the one place
//! where the object side uses the disk. The archive is hostile: every name, size and count is checked and bounded.

use std::path::Path;

use super::read::{Archive, Source};
use crate::error::Result;
use crate::progress::Progress;

/// A file of the spool as a source: an unlinked file and a range of it.
#[derive(Clone)]
pub struct Spooled {}

/// What was seen on the way.
#[derive(Clone, Debug, Default)]
pub struct SpoolReport {
    /// Warnings, such as an object that comes twice (the last counts).
    pub warnings: Vec<String>,
}

/// Streams `archive` to its end into an unlinked 0600 file in `folder` (made when absent; free space is checked against
/// a multiple of the archive's length first) and opens it.
///
/// # Errors
/// `Corrupt` for a truncated stream, something that is not gzip or tar, names that leave their folder, absolute names, links, entries
/// too large or too many, bodies that are no JSON object.
pub async fn spool(
    archive: &dyn Source,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<(Archive<Spooled>, SpoolReport)> {
    let _ = (archive, folder, progress);
    todo!()
}
