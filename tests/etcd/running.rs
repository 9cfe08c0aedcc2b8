//! etcd below its launcher, and the restore of a hosted cluster.

mod bad_input;
mod crashes;
mod encrypted;
mod environment;
mod etcdutl;
mod given_up;
mod hosting_api;
mod kkp;
mod members;
mod place;
mod refused;
mod rollback;
mod slow;
mod steps;
mod story;
