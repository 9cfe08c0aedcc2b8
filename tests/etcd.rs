//! Reading, taking and restoring snapshots of etcd.

mod reading;
mod snapshots;
mod wire;
