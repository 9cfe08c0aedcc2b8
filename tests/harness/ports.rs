//! Ports on 127.0.0.1 that no other test takes: not in this process, not in another one beside it.
//!
//! A number is leased by binding an abstract socket of the same name: exclusive per network namespace, as ports are,
//! and gone with its holder. Leases come from below the ephemeral range, where no outgoing connection can sit.
//! A lease says nothing about programs that are no tests of ours, so whoever starts a server retries with new ports.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub struct Port {
    pub number: u16,
    _lease: UnixListener,
}

impl Port {
    pub fn lease() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Test processes side by side begin at different places, so that they rarely try the same number.
        let offset = (process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = FIRST + (offset + step) % COUNT;
            let name = format!("kubectl-backup-tests-port-{number}");
            let Ok(lease) = SocketAddr::from_abstract_name(name)
                .and_then(|address| UnixListener::bind_addr(&address))
            else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self {
                    number,
                    _lease: lease,
                };
            }
        }
        panic!("no free port from {FIRST} on");
    }
}
