//! Reading, taking and restoring snapshots of etcd.

mod objects;
mod reading;
mod restoring;
mod running;
mod snapshots;
mod wire;
