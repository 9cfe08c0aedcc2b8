//! Buckets of Google Cloud Storage, through its XML API, by the config keys of Velero's plugin.
//!
//! - An upload in parts is one of the XML API: it has an id, by which any process may abort it. What nobody aborts stays, unseen and paid for, unless a
//!   lifecycle rule of the bucket removes it (`AbortIncompleteMultipartUpload`); `prune` aborts ours.
//! - Written only where nothing is: `x-goog-if-generation-match: 0`.
//! - `kmsKeyName` goes along with what makes an object, and with nothing else: the store refuses it elsewhere.
//! - `storeEndpoint` is the JSON API's address where Velero's plugin takes it; its `/storage/v1/` at the end is left out, the XML API is at the root.
//! - Addresses are signed with the file's own key, or by Google for `serviceAccount`; at an address of one's own they would not hold, and there are none.
//! - `credentialsFile` names a file of Velero's pod: refused.
//!
//! Who we are is [`sign_in`]'s.

mod sign_in;

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderValue, Method};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::gcp::{
    GcpSigningCredential, GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey,
};
use object_store::signer::Signer;
use object_store::{ClientOptions, StaticCredentialProvider, TagSet};

use super::Credentials;
use super::backend::Backend;
use super::bucket::Bucket;
use super::client;
use super::failure;
use super::kept::Attentive;
use crate::api::BackupStorageLocation;
use crate::error::{Error, Result};
use sign_in::Who;

/// The keys that Velero's plugin knows.
const KEYS: [&str; 5] = [
    "kmsKeyName",
    "serviceAccount",
    "credentialsFile",
    "storeEndpoint",
    "universeDomain",
];

const GOOGLE: &str = "googleapis.com";

/// Opens a bucket. Nothing is sent yet.
///
/// # Errors
/// `Invalid`, naming the setting.
pub(crate) fn open(
    spec: &BackupStorageLocation,
    credentials: &Credentials,
) -> Result<Arc<dyn Backend>> {
    let config = &spec.spec.config;
    super::known_keys("gcp", config, &KEYS)?;
    let bucket = client::bucket_name(&spec.spec.object_storage.bucket)?;
    let set = |key: &str| client::set(config, key);
    if set("credentialsFile").is_some() {
        return Err(Error::invalid("config.credentialsFile is not honoured")
            .hint("give the file with --credentials-file, or as a Secret in spec.credential"));
    }
    let endpoint = set("storeEndpoint")
        .map(|text| client::endpoint("storeEndpoint", text, "https://storage.example.com"))
        .transpose()?;
    let who = sign_in::who(credentials)?;
    let domain = set("universeDomain")
        .or_else(|| who.universe_domain())
        .unwrap_or(GOOGLE);
    let domain = universe(domain)?;
    let base = match &endpoint {
        Some(url) => {
            let shown = client::shown(url);
            shown
                .strip_suffix("/storage/v1")
                .unwrap_or(&shown)
                .to_owned()
        }
        None => format!("https://storage.{domain}"),
    };
    let place = match &endpoint {
        Some(_) => format!("bucket {bucket:?} at {base}"),
        None if domain == GOOGLE => format!("bucket {bucket:?} of Google Cloud"),
        None => format!("bucket {bucket:?} of {domain}"),
    };
    let options = |silence| client::options(spec, credentials, endpoint.as_ref(), silence);
    let (reading, writing) = (options(client::SILENCE)?, options(client::SENDING)?);

    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_base_url(&base)
        .with_retry(client::once());
    let (builder, signs) = identify(builder, who, set("serviceAccount"))?;
    let objects = builder
        .clone()
        .with_client_options(reading)
        .with_http_connector(Attentive::default());
    let objects = Arc::new(build(objects)?);
    let writes = builder
        .with_client_options(writing)
        .with_http_connector(Sealing {
            key: set("kmsKeyName").map(kms_key).transpose()?,
            ..Sealing::default()
        });
    let writes = Arc::new(build(writes)?);
    let signs = signs && base == format!("https://storage.{GOOGLE}");
    Ok(Arc::new(Bucket {
        signer: signs.then(|| objects.clone() as Arc<dyn Signer>),
        lender: Err(
            "credentials of Google that are limited to a prefix are not built yet".to_owned(),
        ),
        objects,
        parts: writes.clone(),
        writes,
        place,
        words: &failure::GCS,
        tags: TagSet::default(),
    }))
}

fn build(builder: GoogleCloudStorageBuilder) -> Result<GoogleCloudStorage> {
    builder.build().map_err(client::unfit)
}

/// Says who we are, and whether addresses can be signed in that name.
fn identify(
    builder: GoogleCloudStorageBuilder,
    who: Who,
    service_account: Option<&str>,
) -> Result<(GoogleCloudStorageBuilder, bool)> {
    Ok(match who {
        Who::Key { json, .. } => (
            builder.with_config(GoogleConfigKey::ServiceAccountKey, json),
            true,
        ),
        Who::Tokens(tokens) => {
            let builder = builder.with_credentials(Arc::new(tokens.connect()?));
            match service_account {
                Some(email) => {
                    let signing = GcpSigningCredential {
                        email: email.to_owned(),
                        private_key: None,
                    };
                    let signing = Arc::new(StaticCredentialProvider::new(signing));
                    (builder.with_signing_credentials(signing), true)
                }
                None => (builder, false),
            }
        }
    })
}

/// It becomes a part of Google's own address: what could lead elsewhere is none.
fn universe(domain: &str) -> Result<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    if domain.len() > 255 || !domain.bytes().all(plain) || domain.starts_with('.') {
        return Err(
            Error::invalid(format!("config.universeDomain {domain:?} is not a domain"))
                .hint(format!("it looks like {GOOGLE}")),
        );
    }
    Ok(domain)
}

fn kms_key(name: &str) -> Result<HeaderValue> {
    let parts: Vec<&str> = name.split('/').collect();
    let named = [
        (0, "projects"),
        (2, "locations"),
        (4, "keyRings"),
        (6, "cryptoKeys"),
    ];
    let fits = parts.len() == 8
        && parts.iter().all(|part| !part.is_empty())
        && named.iter().all(|(at, word)| parts[*at] == *word);
    HeaderValue::from_str(name)
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| {
            Error::invalid(format!("config.kmsKeyName {name:?} is not a key's name"))
                .hint("it looks like projects/P/locations/L/keyRings/R/cryptoKeys/K")
        })
}

/// Makes clients that name the key which a new object is encrypted with.
#[derive(Debug, Default)]
struct Sealing {
    connector: ReqwestConnector,
    key: Option<HeaderValue>,
}

#[derive(Debug)]
struct Client {
    inner: HttpClient,
    key: Option<HeaderValue>,
}

impl HttpConnector for Sealing {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client {
            inner: self.connector.connect(options)?,
            key: self.key.clone(),
        }))
    }
}

/// Whether a request makes an object: it is put whole, or its upload in parts begins.
fn makes_an_object(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    match *request.method() {
        Method::PUT => query.is_empty(),
        Method::POST => query
            .split('&')
            .any(|one| one == "uploads" || one == "uploads="),
        _ => false,
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(key) = &self.key
            && makes_an_object(&request)
        {
            let headers = request.headers_mut();
            headers.insert("x-goog-encryption-kms-key-name", key.clone());
        }
        self.inner.execute(request).await
    }
}

#[cfg(test)]
mod tests;
