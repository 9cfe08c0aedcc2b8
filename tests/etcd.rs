//! Reading, taking and restoring snapshots of etcd, offline and below a launcher.

mod objects;
mod reading;
mod restoring;
mod running;
mod snapshots;
mod wire;
