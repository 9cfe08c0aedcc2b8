//! Backups and restores of Kubernetes objects, as a library: no terminal, no environment, no exit.
//!
//! The flow is the same everywhere: gather (I/O) -> plan (pure) -> apply (I/O) -> report.
//! The bucket is the only truth: everything a restore needs lies under [`layout`]'s keys.

pub mod apart;
pub mod api;
pub mod archive;
pub mod backup;
pub mod catalog;
pub mod certificate;
pub mod cluster;
pub mod copy;
pub mod credential_plugin;
pub mod crypt;
pub mod definitions;
pub mod discovery;
pub mod error;
pub mod etcd;
pub mod files;
pub mod filter;
pub mod hooks;
pub mod layout;
pub mod lease;
pub mod location;
pub mod mirror;
pub mod mover;
pub mod name;
pub mod pod;
pub mod progress;
pub mod raw;
pub mod records;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod signature;
pub mod snapshot;
pub mod stopwatch;
pub mod volume;

pub use error::{Error, Kind, Result};
