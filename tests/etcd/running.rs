//! etcd below its launcher, and the restore of a hosted cluster.

mod crashes;
mod ends;
mod story;
