//! Snapshots of etcd: what a database file says of itself, taking one, and where they lie in a location. Starts no program and
//! changes no database.

mod bolt;
mod buckets;
pub mod catalog;
pub mod client;
pub mod database;
pub mod destination;
pub mod digest;
mod entry;
pub mod facts;
pub mod hashkv;
pub mod manifest;
pub mod names;
mod newest;
pub mod readback;
mod resources;
pub mod sealed;
pub mod stream;
pub mod take;

pub use database::{Database, Examined, Trailer};
pub use digest::LiveDigest;
pub use facts::{Alarm, Facts, Keys, Member};
pub use hashkv::HashKv;
pub use manifest::Manifest;
