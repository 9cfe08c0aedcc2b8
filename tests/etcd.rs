//! Reading, taking and restoring snapshots of etcd, offline and below a launcher; hosted control planes and their objects.

mod installed;
mod objects;
mod reading;
mod restoring;
mod rights;
mod running;
mod scheduled;
mod snapshots;
mod wire;
