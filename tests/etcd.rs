//! Reading, taking and restoring snapshots of etcd.

mod running;
mod snapshots;
mod wire;
mod reading;
