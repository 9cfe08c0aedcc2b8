//! Volumes as folders of this machine: read as they are listed, and written anew. Linux alone: nowhere else are all of their kinds and attributes had.

mod clear;
mod read;
mod write;

use rustix::fs::OFlags;

pub use clear::clear;
pub use read::FolderSource;
pub use write::{FolderTarget, Restored};

/// How a folder is opened: never through a link.
pub(super) const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How a file is, to be read: it may be a pipe, which is not waited for.
pub(super) const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
