//! A small HTTP/1.1 server in a thread of its own, for what stands in front of or in place of a real one.
//!
//! It binds its own port and keeps it, so no two ever meet.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
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
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::http_client::{Failure, Stream};
use crate::pki::Identity;

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
    is_tls: bool,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port; `connected` is asked once per connection for what answers it.
    pub(crate) fn start(connected: impl Fn() -> Answerer + Send + Sync + 'static) -> Self {
        Self::start_with(None, connected)
    }

    /// The same, with TLS where there is a certificate.
    pub(crate) fn start_with(
        identity: Option<&Identity>,
        connected: impl Fn() -> Answerer + Send + Sync + 'static,
    ) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), identity, connected)
    }

    /// The same, on an address of this machine.
    pub(crate) fn start_on(
        address: IpAddr,
        identity: Option<&Identity>,
        connected: impl Fn() -> Answerer + Send + Sync + 'static,
    ) -> Self {
        let tls = identity.map(acceptor);
        let is_tls = tls.is_some();
        let listener = TcpListener::bind((address, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, tls, connected) => {}
                }
            });
            // What a hook still does is not worth waiting for.
            runtime.shutdown_background();
        });
        Self {
            address,
            is_tls,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
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

fn acceptor(identity: &Identity) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, connected: impl Fn() -> Answerer) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let answerer = connected();
        let tls = tls.clone();
        tokio::spawn(async move {
            let stream: Box<dyn Stream> = match tls {
                None => Box::new(stream),
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => return,
                },
            };
            serve(stream, answerer).await;
        });
    }
}

fn serve(stream: Box<dyn Stream>, answerer: Answerer) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let service = service_fn(answerer);
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A connection that a rule has cut ends with an error: that is what was asked for.
    Box::pin(connection.map(drop))
}
