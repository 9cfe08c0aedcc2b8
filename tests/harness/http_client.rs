//! A blocking HTTP/1.1 client over one kept-alive connection, for talking to servers without the plugin.
//!
//! It follows nothing, retries nothing and pools nothing: what it is asked for is what is sent.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::pki::Identity;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Any byte stream, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a server is, and how to be trusted by it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub url: String,
    pub ca: Option<String>,
    pub identity: Option<Identity>,
    pub token: Option<String>,
}

impl Endpoint {
    pub fn plain(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca: None,
            identity: None,
            token: None,
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.clone())
    }

    pub(crate) fn connector(&self) -> Connector {
        let uri: Uri = self.url.parse().expect("a URL");
        let host = uri.host().expect("a URL with a host").to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        Connector {
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            tls: is_tls.then(|| (tls(self), ServerName::try_from(host.clone()).unwrap())),
            host,
        }
    }
}

/// Opens connections to one endpoint.
#[derive(Clone)]
pub(crate) struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((tls, name)) => Ok(Box::new(tls.connect(name.clone(), stream).await?)),
        }
    }
}

/// Sends one request over a connection of its own, and reads the whole answer.
pub(crate) async fn ask(
    connector: &Connector,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    exchange(connector, &mut None, request).await
}

fn tls(endpoint: &Endpoint) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &endpoint.ca {
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match &endpoint.identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
            let chain = chain.collect::<Result<_, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// One connection to one server, opened on first use and again when it was lost.
pub struct Client {
    endpoint: Endpoint,
    connector: Connector,
    connection: Option<(SendRequest<Full<Bytes>>, JoinHandle<()>)>,
    runtime: Runtime,
}

impl Client {
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            connector: endpoint.connector(),
            endpoint,
            connection: None,
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    pub fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, path, &[], Bytes::new())
    }

    pub fn post_json(&mut self, path: &str, body: impl Into<Bytes>) -> Result<Answer, Failure> {
        let headers = [("content-type", "application/json")];
        self.send(Method::POST, path, &headers, body)
    }

    /// Sends one request, with the endpoint's token where it has one, and reads the whole answer within a minute.
    pub fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.connector.authority());
        if let Some(token) = &self.endpoint.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let Self {
            connector,
            connection,
            runtime,
            ..
        } = self;
        runtime.block_on(async {
            tokio::time::timeout(
                Duration::from_secs(60),
                exchange(connector, connection, request),
            )
            .await?
        })
    }
}

async fn exchange(
    connector: &Connector,
    connection: &mut Option<(SendRequest<Full<Bytes>>, JoinHandle<()>)>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    // Lets the connection's task notice that the server has hung up since the last request.
    tokio::task::yield_now().await;
    let is_usable = match connection {
        Some((sender, _)) => sender.ready().await.is_ok(),
        None => false,
    };
    if !is_usable {
        let stream = connector.connect().await?;
        let (sender, task) = http1::handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(async move { drop(task.await) });
        *connection = Some((sender, task));
    }
    let (sender, _) = connection.as_mut().unwrap();
    let answer = sender.send_request(request).await?;
    let (parts, body) = answer.into_parts();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await?.to_bytes(),
    })
}
