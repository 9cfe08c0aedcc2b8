//! Reading, taking and restoring snapshots of etcd. The stories of offline restores (`etcd/restoring`) are written and join this list once each
//! of them has been seen to pass.

mod objects;
mod reading;
mod running;
mod snapshots;
mod wire;
