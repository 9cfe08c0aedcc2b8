//! Volumes as folders of this machine: read as they are listed, and written anew. Linux alone: nowhere else are all of their kinds and attributes had.

mod read;
mod write;

pub use read::FolderSource;
pub use write::{FolderTarget, Restored};
