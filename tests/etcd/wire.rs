//! A line to a member of etcd that can be slow, be cut, alter a byte, or make something happen when so many bytes have come through it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens on the line when so many bytes have come from the member. Each happens once.
pub(crate) enum Event {
    /// One bit turns over.
    Flip,
    /// The line is cut.
    Cut,
    /// Something is run; it may block.
    Run(Box<dyn FnOnce() + Send>),
}

#[derive(Default)]
struct State {
    /// Bytes from the member so far.
    passed: AtomicU64,
    events: Mutex<Vec<(u64, Event)>>,
    /// Bytes a second, 0 for as many as there are.
    rate: AtomicU64,
    ended: AtomicBool,
}

/// A line that listens until it is dropped.
pub(crate) struct Wire {
    address: String,
    state: Arc<State>,
}

impl Wire {
    /// A line to what `url` names, and under the same scheme.
    pub(crate) fn to(url: &str) -> Self {
        let (scheme, upstream) = url.split_once("://").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let (upstream, shared) = (upstream.to_owned(), Arc::clone(&state));
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), Ok(member)) = (client, TcpStream::connect(&upstream)) else {
                    continue;
                };
                let (from, to) = (client.try_clone().unwrap(), member.try_clone().unwrap());
                thread::spawn(move || forward(from, to, |_| true));
                let shared = Arc::clone(&shared);
                thread::spawn(move || forward(member, client, |bytes| shared.pass(bytes)));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> &str {
        &self.address
    }

    /// Makes something happen after so many bytes from the member, all connections together.
    pub(crate) fn after(self, bytes: u64, event: Event) -> Self {
        self.state.events.lock().unwrap().push((bytes, event));
        self
    }

    /// Lets so many bytes through in a second.
    pub(crate) fn rate(self, bytes: u64) -> Self {
        self.state.rate.store(bytes, Ordering::SeqCst);
        self
    }

    pub(crate) fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, which then goes.
        let (_, address) = self.address.split_once("://").unwrap();
        drop(TcpStream::connect(address));
    }
}

impl State {
    /// Whether the line stands after these bytes.
    fn pass(&self, bytes: &mut [u8]) -> bool {
        let rate = self.rate.load(Ordering::SeqCst);
        if let Some(pause) = (bytes.len() as u64 * 1_000_000).checked_div(rate) {
            thread::sleep(Duration::from_micros(pause));
        }
        let passed =
            self.passed.fetch_add(bytes.len() as u64, Ordering::SeqCst) + bytes.len() as u64;
        let due: Vec<_> = {
            let mut events = self.events.lock().unwrap();
            events
                .extract_if(.., |(after, _)| *after <= passed)
                .collect()
        };
        for (_, event) in due {
            match event {
                Event::Flip => bytes[bytes.len() / 2] ^= 1,
                Event::Cut => return false,
                Event::Run(run) => run(),
            }
        }
        !self.ended.load(Ordering::SeqCst)
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, mut pass: impl FnMut(&mut [u8]) -> bool) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..length];
        if !pass(bytes) || to.write_all(bytes).is_err() {
            break;
        }
    }
    // Either side may be gone already.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
