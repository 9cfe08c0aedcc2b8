//! Snapshots of etcd: what a database file says of itself, taking one, and where they lie in a location. Starts no program and
//! changes no database.

pub mod names;
