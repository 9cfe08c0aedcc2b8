//! Reads an index: the table of contents, then only the frames that are needed. Everything read is bounded and checked.

use super::read::Source;
use super::row::{MemberRow, ResourceRow, Row};
use crate::error::Result;

/// An open index: its small parts in memory, object rows read frame by frame.
pub struct Index<S> {
    source: S,
    resources: Vec<ResourceRow>,
}

impl<S: Source> Index<S> {
    /// Reads header, table of contents and resource rows.
    ///
    /// # Errors
    /// `Corrupt` when it is truncated, altered or of a format we do not know.
    pub async fn open(source: S) -> Result<Self> {
        let _ = &source;
        todo!()
    }

    /// Every API resource of the backup's cluster and what became of it, sorted by `resource`.
    pub fn resources(&self) -> &[ResourceRow] {
        &self.resources
    }

    /// How many object frames a resource has.
    pub fn frames(&self, resource: &str) -> usize {
        let _ = (resource, &self.source);
        todo!()
    }

    /// The rows of one frame of a resource, in list order.
    ///
    /// # Errors
    /// `Corrupt`, or the source's.
    pub async fn rows(&self, resource: &str, frame: usize) -> Result<Vec<Row>> {
        let _ = (resource, frame);
        todo!()
    }

    /// The row of one object; reads one frame where the list order allows it.
    ///
    /// # Errors
    /// `Corrupt`, or the source's.
    pub async fn find(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Row>> {
        let _ = (resource, namespace, name);
        todo!()
    }

    /// Members `first..first + count`.
    ///
    /// # Errors
    /// `Corrupt`, or the source's.
    pub async fn members(&self, first: u64, count: u64) -> Result<Vec<MemberRow>> {
        let _ = (first, count);
        todo!()
    }
}
