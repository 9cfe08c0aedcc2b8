//! The harness: real parts on loopback, for tests that talk to what users have.
//!
//! Everything here is synchronous to its users and cleans up after itself, however a test ends. It knows the
//! plugin only from outside, as a program: nothing of the product is linked in.
#![expect(
    clippy::unwrap_used,
    reason = "what the harness cannot do fails the test"
)]

pub mod audit;
pub mod azurite;
pub mod busybox;
pub mod clock;
pub mod cluster;
pub mod compare;
pub mod etcd;
pub mod exceptions;
pub mod gcs;
mod guardian;
pub mod hosted;
pub mod http_client;
mod http_server;
pub mod informer;
mod kubectl;
pub mod load;
pub mod mock;
pub mod mounts;
pub mod node;
mod permit;
pub mod pki;
pub mod ports;
pub mod proc;
pub mod process;
pub mod proxy;
pub mod repositories;
pub mod run;
pub mod served;
pub mod shop;
pub mod skip;
pub mod snapshot;
pub mod store;
pub mod sts;
pub mod terminal;
pub mod tools;
pub mod velero;

use std::thread;
use std::time::{Duration, Instant};

/// Calls `probe` until it returns something, and fails the test when that takes longer than `timeout`.
pub fn wait_for<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {timeout:?} in vain for {what}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}
