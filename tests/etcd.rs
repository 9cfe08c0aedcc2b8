//! Reading, taking and restoring snapshots of etcd.

mod reading;
mod restoring;
mod snapshots;
mod wire;
