//! The store at Google's own address, for whoever goes through a proxy of his network: the proxy's tunnel to that address ends at our store, which has a
//! certificate of that name. Every other tunnel leads where it is asked to.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::front::{self, Front};
use crate::http_server::Server;
use crate::pki::Authority;
use crate::process::Folder;

pub(super) const HOST: &str = "storage.googleapis.com";

/// What a request's head may have.
const HEAD: usize = 8 << 10;

/// The store at Google's address; dropping it takes it from there.
pub struct Itself {
    _server: Server,
    tunnel: Tunnel,
    ca: PathBuf,
}

impl Itself {
    pub(super) fn start(front: &Arc<Front>, folder: &Folder) -> Self {
        let authority = Authority::new("google-ca");
        let identity = authority.server("google", &[HOST]);
        let server = front::serve_with(front, Some(&identity));
        Self {
            tunnel: Tunnel::start(server.address),
            _server: server,
            ca: folder.write("google.crt", authority.certificate()),
        }
    }

    /// The address of the proxy, for `HTTPS_PROXY`.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.tunnel.address)
    }

    /// The certificate to trust.
    pub fn ca_file(&self) -> &Path {
        &self.ca
    }

    /// How often it was gone to so far.
    pub fn tunnels(&self) -> usize {
        self.tunnel.state.tunnels.load(Ordering::SeqCst)
    }
}

struct State {
    store: SocketAddr,
    is_over: AtomicBool,
    tunnels: AtomicUsize,
}

/// A proxy that makes tunnels and nothing else.
struct Tunnel {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnel {
    fn start(store: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            store,
            is_over: AtomicBool::new(false),
            tunnels: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&state);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&serving);
                if let Ok(stream) = stream {
                    // A tunnel that breaks is what its user sees.
                    thread::spawn(move || drop(state.carry(stream)));
                }
            }
        });
        Self {
            address,
            state,
            thread: Some(thread),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn carry(&self, mut near: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD {
            near.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut words = head.split_whitespace();
        let (Some("CONNECT"), Some(to)) = (words.next(), words.next()) else {
            return near.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n");
        };
        let mut far = if to == format!("{HOST}:443") {
            self.tunnels.fetch_add(1, Ordering::SeqCst);
            TcpStream::connect(self.store)?
        } else {
            TcpStream::connect(to)?
        };
        near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut back, mut reader) = (near.try_clone()?, far.try_clone()?);
        let returning = thread::spawn(move || {
            let _ = io::copy(&mut reader, &mut back);
            let _ = back.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut near, &mut far);
        let _ = far.shutdown(Shutdown::Write);
        let _ = returning.join();
        Ok(())
    }
}
