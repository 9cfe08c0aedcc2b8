//! A small HTTP/1.1 server in a thread of its own, for what stands in front of or in place of a real one.
//!
//! It binds its own port and keeps it, so no two ever meet.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::http_client::Failure;

pub(crate) type Body = UnsyncBoxBody<Bytes, Failure>;
/// An answer, or an error that closes the connection without one.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Failure>> + Send>>;
/// Answers the requests of one connection.
pub(crate) type Answerer = Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A listening server; dropping it closes every connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port; `connected` is asked once per connection for what answers it.
    pub(crate) fn start(connected: impl Fn() -> Answerer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, connected) => {}
                }
            });
            // What a hook still does is not worth waiting for.
            runtime.shutdown_background();
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, connected: impl Fn() -> Answerer) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let answerer = connected();
        let service = service_fn(answerer);
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A connection that a rule has cut ends with an error: that is what was asked for.
        tokio::spawn(connection.map(drop));
    }
}
