//! Reading, taking and restoring snapshots of etcd, offline and below a launcher; the objects that ask for it.

mod installed;
mod objects;
mod reading;
mod restoring;
mod rights;
mod running;
mod scheduled;
mod snapshots;
mod wire;
