//! The files of volumes: copied into repositories of restic's format, one per volume, and back. docs/volumes.md says what is promised.
//!
//! [`entry`] is what a volume consists of, [`source`] how one is read, [`folder`] both ways for a folder of this machine; [`store`] is where they are kept and who may be
//! at work there, [`expiry`] how snapshots go again, [`key`] and `begin` how a repository is opened and begun, `repository` the one module that knows rustic; [`wire`] how a
//! mover speaks to whoever archives. Nothing here knows Kubernetes: which
//! volumes are copied, and by what pod, is decided by others.

mod begin;
pub mod entry;
pub mod expiry;
#[cfg(target_os = "linux")]
pub mod folder;
pub mod key;
mod rails;
mod repository;
pub mod source;
pub mod stands;
pub mod store;
#[cfg(target_os = "linux")]
pub mod straight;
mod text;
pub mod wire;

pub use bytes::Bytes;
pub use repository::{Part, Pruned, Snapshot, Target};
pub use store::VolumeStore;

#[cfg(test)]
mod tests;
