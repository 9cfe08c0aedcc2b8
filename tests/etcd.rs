//! Reading, taking and restoring snapshots of etcd.

mod reading;
mod restoring;
mod objects;
mod snapshots;
mod wire;
