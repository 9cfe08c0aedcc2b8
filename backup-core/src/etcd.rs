//! Snapshots of etcd: what a database file says of itself, taking one, and where they lie in a location. Starts no program and
//! changes no database.

pub mod database;
pub mod digest;
pub mod facts;
pub mod hashkv;
pub mod stream;

pub use database::{Database, Trailer};
pub use digest::LiveDigest;
pub use facts::{Alarm, Facts, Keys, Member};
pub use hashkv::HashKv;
