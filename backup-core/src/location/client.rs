//! What the providers of buckets share: how settings and variables are read, and how a store is asked over HTTP. Knows no provider and no key of
//! one; who calls names the setting.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use url::{Host, Url};

use super::Credentials;
use crate::api::BackupStorageLocation;
use crate::error::{Error, Result};

const CONNECT: Duration = Duration::from_secs(10);

/// No byte for so long: the peer is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// The same while writing: it counts from the request's first byte to the answer's, so a part on a slow line has to fit.
pub(super) const SENDING: Duration = Duration::from_secs(300);

/// Each attempt is one request: when to try again, and whether a run still may, is the store's business.
pub(super) fn once() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: Duration::ZERO,
    }
}

/// The variables that say something.
pub(super) fn environment(credentials: &Credentials) -> BTreeMap<&str, &str> {
    let all = credentials.environment.iter();
    all.map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// A setting that says something.
pub(super) fn set<'a>(config: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    config
        .get(key)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

/// A setting that is true or false.
///
/// # Errors
/// One that is neither.
pub(super) fn boolean(config: &BTreeMap<String, String>, key: &str) -> Result<Option<bool>> {
    let value = set(config, key).map(str::to_ascii_lowercase);
    match value.as_deref() {
        None => Ok(None),
        Some("true" | "1" | "t") => Ok(Some(true)),
        Some("false" | "0" | "f") => Ok(Some(false)),
        Some(other) => Err(Error::invalid(format!(
            "config.{key} {other:?} is neither true nor false"
        ))),
    }
}

/// The bucket, where it can be one's name on any provider.
///
/// # Errors
/// None, and what is more than a name.
pub(super) fn bucket_name(bucket: &str) -> Result<&str> {
    if bucket.is_empty() {
        return Err(Error::invalid("the location names no bucket").hint("set objectStorage.bucket"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if bucket.len() > 255 || !bucket.bytes().all(plain) || bucket.contains("..") {
        return Err(Error::invalid(format!(
            "objectStorage.bucket {bucket:?} is not a bucket's name"
        ))
        .hint("folders in the bucket go to objectStorage.prefix"));
    }
    Ok(bucket)
}

/// The address of a store, as `config.KEY` gives it.
///
/// # Errors
/// What is no address, or holds more than one.
pub(super) fn endpoint(key: &str, text: &str, example: &str) -> Result<Url> {
    let bad = |why: &str| {
        Error::invalid(format!("config.{key} {text:?} {why}"))
            .hint(format!("it looks like {example}"))
    };
    let url = Url::parse(text).map_err(|e| bad("is not a URL").because(e))?;
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err(bad("is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated in the message: it holds a secret.
        return Err(Error::invalid(format!("config.{key} holds a user name"))
            .hint("keys go to the credentials file, not into the URL"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("has a query or a fragment"));
    }
    Ok(url)
}

/// An address of a sign-in service, where the text is one.
pub(super) fn endpoint_of(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_http = ["http", "https"].contains(&url.scheme()) && url.host_str().is_some();
    let is_bare = url.username().is_empty() && url.password().is_none();
    (is_http && is_bare).then_some(url)
}

/// An address for messages, and as object_store wants it.
pub(super) fn shown(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// Whether a proxy of the environment can never be meant.
pub(super) fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// An explicit proxy that excludes every host: the environment's is not looked at.
pub(super) fn past_proxies(options: ClientOptions) -> ClientOptions {
    options
        .with_proxy_url("http://127.0.0.1:9")
        .with_proxy_excludes("*,127.0.0.0/8,169.254.0.0/16,::1")
}

/// How a store is asked. `silence` is how long it may say nothing.
///
/// # Errors
/// CAs that are no PEM, and what `insecureSkipTLSVerify` can not mean.
pub(super) fn options(
    spec: &BackupStorageLocation,
    credentials: &Credentials,
    endpoint: Option<&Url>,
    silence: Duration,
) -> Result<ClientOptions> {
    let is_plain = endpoint.is_some_and(|url| url.scheme() == "http");
    let mut options = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT)
        .with_read_timeout(silence)
        .with_allow_http(is_plain)
        // An image of etcd has none, and who does not ask for any should not fail for them.
        .with_no_system_certificates(is_plain);
    if endpoint.is_some_and(is_this_machine) {
        options = past_proxies(options);
    }
    let storage = &spec.spec.object_storage;
    let mut authorities: Vec<(&str, Vec<u8>)> = Vec::new();
    if let Some(text) = storage.ca_cert.as_deref().filter(|text| !text.is_empty()) {
        let packed: String = text.split_whitespace().collect();
        let pem = BASE64.decode(packed).map_err(|e| {
            Error::invalid("objectStorage.caCert is not base64")
                .because(e)
                .hint("it is the CA's PEM file in base64: `base64 -w0 ca.crt`")
        })?;
        authorities.push(("objectStorage.caCert", pem));
    }
    if let Some(pem) = &credentials.ca_pem {
        authorities.push(("--cacert", pem.clone()));
    }
    for (setting, pem) in authorities {
        let bundle = Certificate::from_pem_bundle(&pem)
            .map_err(|e| Error::invalid(format!("{setting} is not PEM")).because(e))?;
        if bundle.is_empty() {
            return Err(Error::invalid(format!("{setting} holds no certificate"))
                .hint("it begins with -----BEGIN CERTIFICATE-----"));
        }
        for certificate in bundle {
            options = options.with_root_certificate(certificate);
        }
    }
    if boolean(&spec.spec.config, "insecureSkipTLSVerify")? == Some(true) {
        options = options.with_allow_invalid_certificates(true);
    }
    Ok(options)
}

/// What a builder of object_store says of settings that it can not use.
pub(super) fn unfit(e: object_store::Error) -> Error {
    let error = Error::invalid("the location's settings do not fit together").because(e);
    if error.sentence().contains("No CA certificates") {
        return error.hint("this machine or image has no CA certificates: name a file with some in SSL_CERT_FILE, or give the store's own as objectStorage.caCert");
    }
    error
}
