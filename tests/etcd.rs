//! Reading, taking and restoring snapshots of etcd. The stories of hosted restores (`etcd/running`) are written and join this list once
//! each of them has been seen to pass.

mod node;
mod objects;
mod reading;
mod restoring;
mod snapshots;
mod wire;

// A list of names and nothing else: which steps of a restore there are is the product's to say.
#[path = "../etcd-launcher/src/restore/step.rs"]
#[allow(dead_code, reason = "only the names are needed here")]
mod step;
