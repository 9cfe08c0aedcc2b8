//! Reading, taking and restoring snapshots of etcd. The stories of offline restores (`etcd/restoring`) are written and join this list once each
//! of them has been seen to pass.

mod installed;
mod objects;
mod reading;
mod rights;
mod running;
mod scheduled;
mod snapshots;
mod wire;
