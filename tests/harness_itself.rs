//! The harness' own tests: what the stories rely on must work, and what checks must be able to fail.

mod cleanup;
mod comparison;
mod csi;
mod etcd;
mod faults;
mod node;
mod parts;
mod repositories;
mod witness;
