//! Volumes as folders of this machine: read as they are listed, and written anew. Linux alone: nowhere else are all of their kinds and attributes had.

mod clear;
mod read;
mod write;

pub use clear::clear;
pub use read::FolderSource;
pub use write::{FolderTarget, Restored};
