//! etcd below its launcher, and the restore of a hosted cluster.

mod bad_input;
mod crashes;
mod etcdutl;
mod given_up;
mod hosting_api;
mod kkp;
mod members;
mod place;
mod refused;
mod rollback;
mod steps;
mod story;
