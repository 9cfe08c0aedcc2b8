//! Reading, taking and restoring snapshots of etcd.

mod objects;
