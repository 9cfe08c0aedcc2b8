//! Puts packed pages into one archive and its index, in the order in which they arrive, streaming both. It compresses only index
//! frames, and holds of the index what is not yet a full frame.

use async_trait::async_trait;
use bytes::Bytes;

use super::pack::Packed;
use super::row::ResourceRow;
use crate::error::Result;

/// Where bytes go: an upload, a spool file, or memory.
#[async_trait]
pub trait Sink: Send {
    /// Takes the next bytes; waits while too much is in flight.
    ///
    /// # Errors
    /// The store's.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;
}

#[async_trait]
impl Sink for Vec<u8> {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.extend_from_slice(&bytes);
        Ok(())
    }
}

/// What an archive came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Objects in it.
    pub objects: u64,
    /// Its compressed bytes.
    pub bytes: u64,
    /// Its members.
    pub members: u64,
}

/// Writes one archive and its index.
pub struct ArchiveWriter<A, I> {
    archive: A,
    index: I,
}

impl<A: Sink, I: Sink> ArchiveWriter<A, I> {
    /// Starts both: `metadata/version` and the index's header. `mtime` in seconds since the epoch.
    ///
    /// # Errors
    /// The sinks'.
    pub async fn start(archive: A, index: I, backup: &str, mtime: u64) -> Result<Self> {
        let _ = (backup, mtime);
        Ok(Self { archive, index })
    }

    /// Appends one page. Pages of one resource come in the order of its list; resources may interleave.
    ///
    /// # Errors
    /// The sinks'.
    pub async fn append(&mut self, page: Packed) -> Result<()> {
        let _ = page;
        todo!()
    }

    /// Ends both: tar's end, the rest of the index, the resources' rows (sorted), table of contents. Returns the sinks for their own finish.
    ///
    /// # Errors
    /// The sinks'.
    pub async fn finish(self, resources: &[ResourceRow]) -> Result<(A, I, Totals)> {
        let _ = resources;
        todo!()
    }
}
