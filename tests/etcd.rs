//! Reading, taking and restoring snapshots of etcd, offline and below a launcher; hosted control planes and their objects.

mod installed;
mod node;
mod objects;
mod reading;
mod restoring;
mod rights;
mod running;
mod scheduled;
mod snapshots;
mod wire;

// A list of names and nothing else: which steps of a restore there are is the product's to say.
#[path = "../etcd-launcher/src/restore/step.rs"]
#[allow(dead_code, reason = "only the names are needed here")]
mod step;
