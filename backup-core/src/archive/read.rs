//! Fetches objects out of an archive with the help of its index: ranges of members, coalesced, decompressed within bounds.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::index::Index;
use super::row::Row;
use crate::error::Result;

/// Where bytes come from: an object in a store, a spool file, or memory.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The store's.
    async fn len(&self) -> Result<u64>;

    /// Exactly these bytes.
    ///
    /// # Errors
    /// `Corrupt`, when it is shorter; the store's.
    async fn read(&self, range: Range<u64>) -> Result<Bytes>;

    /// All of it, in order, in chunks.
    ///
    /// # Errors
    /// The store's.
    async fn stream(&self) -> Result<BoxStream<'static, Result<Bytes>>>;
}

/// An object of the archive with its body.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its line in the index.
    pub row: Row,
    /// Its JSON, its CRC-32 checked against the row.
    pub body: Bytes,
}

/// An archive that can be read object by object.
pub struct Archive<S> {
    /// Its index.
    pub index: Index<S>,
    archive: S,
}

impl<S: Source> Archive<S> {
    /// Opens the pair.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub async fn open(archive: S, index: S) -> Result<Self> {
        Ok(Self {
            index: Index::open(index).await?,
            archive,
        })
    }

    /// One object's JSON.
    ///
    /// # Errors
    /// `Corrupt`, or the source's.
    pub async fn body(&self, row: &Row) -> Result<Bytes> {
        let _ = (row, &self.archive);
        todo!()
    }

    /// The objects of these rows (of one resource), in the rows' order; members are fetched in ranges of up to about 4 MiB, with the next
    /// range under way while one is worked on.
    pub fn objects(&self, rows: Vec<Row>) -> BoxStream<'_, Result<Object>> {
        let _ = rows;
        todo!()
    }
}
