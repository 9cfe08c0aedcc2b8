//! Reading, taking and restoring snapshots of etcd.

mod snapshots;
mod wire;
