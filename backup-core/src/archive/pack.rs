//! Objects -> compressed members and index rows: CPU work only, on one page of one API resource at a time, so that pages can be
//! packed in parallel. The order of members in the archive is decided by [`super::write`].

use std::sync::Arc;

use bytes::Bytes;

use super::row::Row;
use crate::discovery::ApiResource;
use crate::error::Result;

/// An object to be saved.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its JSON, with `apiVersion` and `kind`.
    pub body: Bytes,
}

/// One compressed member.
#[derive(Clone, Debug)]
pub struct Member {
    /// The gzip bytes.
    pub bytes: Bytes,
    /// Uncompressed size.
    pub size: u64,
    /// SHA-256 of `bytes`, hex.
    pub sha256: String,
}

/// A page, packed: members in their order, and rows whose `member` counts from 0 within this page.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The API resource of all its objects.
    pub resource: Arc<ApiResource>,
    /// Members in order; a large body stands twice and shares its bytes.
    pub members: Vec<Member>,
    /// A row per object.
    pub rows: Vec<Row>,
}

/// Packs objects of one resource. `mtime` is in seconds since the epoch; `level` is deflate's.
///
/// # Errors
/// `Invalid`, when a name could leave its folder in an archive; `Corrupt`, when a body is no JSON object.
pub fn pack(resource: &Arc<ApiResource>, items: &[Item], mtime: u64, level: u32) -> Result<Packed> {
    let _ = (resource, items, mtime, level);
    todo!()
}
