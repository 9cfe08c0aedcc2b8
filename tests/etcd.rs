//! Reading, taking and restoring snapshots of etcd.

mod objects;
mod reading;
mod snapshots;
mod wire;
