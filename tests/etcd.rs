//! Reading, taking and restoring snapshots of etcd.

mod reading;
mod restoring;
mod running;
mod snapshots;
mod wire;
