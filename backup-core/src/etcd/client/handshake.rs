//! Why a member closed a TLS connection. With TLS 1.3 it judges the client's certificate after the client's part is done, and what it says then is lost on
//! the way up through HTTP/2: so the handshake is done once more, and its end listened to. Only after a failure; sends no request.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Access;

/// A member that takes the certificate says nothing: it waits for a request.
const LISTEN: Duration = Duration::from_secs(2);

/// What the member says about the handshake; nothing where it has no complaint, or none can be heard.
pub(super) async fn complaint(url: &str, access: &Access) -> Option<String> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next()?,
        None => authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host),
    };
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let connector = TlsConnector::from(Arc::new(config(access)?));
    let listening = async {
        let stream = TcpStream::connect(authority).await.ok()?;
        let mut stream = match connector.connect(name, stream).await {
            Ok(stream) => stream,
            Err(e) => return Some(e.to_string()),
        };
        stream.read(&mut [0]).await.err().map(|e| e.to_string())
    };
    tokio::time::timeout(LISTEN, listening).await.ok()?
}

fn config(access: &Access) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(access.ca_pem.as_deref()?) {
        roots.add(root.ok()?).ok()?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots);
    let mut config = match &access.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let key = PrivateKeyDer::from_pem_slice(key).ok()?;
            builder.with_client_auth_cert(chain.ok()?, key).ok()?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Some(config)
}
