//! Reading, taking and restoring snapshots of etcd.

mod restoring;
mod snapshots;
mod wire;
