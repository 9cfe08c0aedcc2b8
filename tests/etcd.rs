//! Reading, taking and restoring snapshots of etcd. The stories of hosted restores (`etcd/running`) are written and join this list once
//! each of them has been seen to pass.

mod objects;
mod reading;
mod restoring;
mod snapshots;
mod wire;
