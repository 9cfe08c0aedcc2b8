//! Who we are for Google: a service account's key, or one of the ways to short-lived tokens.
//!
//! The credentials file is JSON, and its `type` says what it is. Without one it is the file that `GOOGLE_APPLICATION_CREDENTIALS` names, then the one that
//! `gcloud auth application-default login` writes, then the metadata server of the machine (Compute Engine, and GKE's workload identity).
//! - `service_account`: its key signs tokens here; nobody is asked (<https://google.aip.dev/auth/4111>).
//! - `authorized_user`: a refresh token of a person (<https://google.aip.dev/auth/4113>).
//! - `external_account`: workload identity federation (<https://google.aip.dev/auth/4117>): a token of somebody else, in a file or at an address, is
//!   exchanged for one of Google's, and that one for a service account's where the file says so. Tokens of AWS's metadata and of programs are refused by name.
//! - other types are refused by name.
//!
//! The file says where its secrets go. That is Google or this machine, or the file is refused: it may come out of an object that somebody else wrote.
//! A token is used until four minutes before its end, since the metadata server gives no new one earlier than that; one is asked for at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody, ReqwestConnector};
use object_store::gcp::{GcpCredential, ServiceAccountKey};
use object_store::{ClientOptions, CredentialProvider};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use url::{Host, Url};

use crate::error::{Error, Result};
use crate::location::{Credentials, client};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const METADATA: &str = "metadata.google.internal";
const METADATA_ADDRESS: &str = "169.254.169.254";
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// A token that ends sooner is not used for another request.
const SPARE: Duration = Duration::from_secs(4 * 60);

/// A sign-in service answers in that time, or not at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// No answer with a token is larger.
const LARGEST: usize = 256 << 10;

/// Who we are.
pub(super) enum Who {
    /// A service account, by its key.
    Key {
        /// What object_store needs of the file.
        json: String,
        universe: Option<String>,
    },
    /// Whoever the tokens are of.
    Tokens(Tokens),
}

impl Who {
    /// The universe that the file belongs to.
    pub(super) fn universe_domain(&self) -> Option<&str> {
        match self {
            Self::Key { universe, .. } => universe.as_deref(),
            Self::Tokens(_) => None,
        }
    }
}

/// Tokens of one source, not connected yet.
pub(super) struct Tokens {
    source: Source,
}

enum Source {
    Refresh {
        client_id: String,
        client_secret: String,
        refresh_token: String,
        token_uri: Url,
    },
    Exchange(Box<Exchange>),
    Metadata {
        hosts: Vec<String>,
    },
}

struct Exchange {
    audience: String,
    subject_token_type: String,
    token_url: Url,
    subject: Subject,
    impersonate: Option<Url>,
}

enum Subject {
    File {
        path: PathBuf,
        field: Option<String>,
    },
    Url {
        url: Url,
        headers: BTreeMap<String, String>,
        field: Option<String>,
    },
}

/// Reads who we are out of a file, or of the environment.
///
/// # Errors
/// A file that can not be used, and why.
pub(super) fn who(credentials: &Credentials) -> Result<Who> {
    if let Some(file) = &credentials.file {
        let unnamed = || "the credentials file".to_owned();
        return of_file(file, &credentials.origin.clone().unwrap_or_else(unnamed));
    }
    let environment = client::environment(credentials);
    if let Some(path) = environment.get("GOOGLE_APPLICATION_CREDENTIALS") {
        let bytes = std::fs::read(path).map_err(|e| {
            Error::invalid(format!(
                "can not read {path}, which GOOGLE_APPLICATION_CREDENTIALS names"
            ))
            .because(e)
        })?;
        return of_file(&bytes, path);
    }
    let folder = environment.get("CLOUDSDK_CONFIG").map(PathBuf::from);
    let home = environment.get("HOME").map(Path::new);
    let folder = folder.or_else(|| home.map(|home| home.join(".config/gcloud")));
    if let Some(path) = folder.map(|folder| folder.join("application_default_credentials.json"))
        && let Ok(bytes) = std::fs::read(&path)
    {
        return of_file(&bytes, &path.display().to_string());
    }
    let hosts = match environment.get("GCE_METADATA_HOST") {
        Some(host) => vec![(*host).to_owned()],
        None => vec![METADATA.to_owned(), METADATA_ADDRESS.to_owned()],
    };
    Ok(Who::Tokens(Tokens {
        source: Source::Metadata { hosts },
    }))
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "type", default)]
    kind: String,
    universe_domain: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    client_email: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    token_uri: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    service_account_impersonation_url: Option<String>,
    credential_source: Option<CredentialSource>,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    format: Option<Format>,
    environment_id: Option<String>,
    executable: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type", default)]
    kind: String,
    subject_token_field_name: Option<String>,
}

fn of_file(bytes: &[u8], origin: &str) -> Result<Who> {
    let looks = "it is the JSON file that Google's console or `gcloud iam service-accounts keys create` writes";
    // Not because of serde's error: it may repeat a piece of a secret.
    let file: File = serde_json::from_slice(bytes).map_err(|e| {
        Error::invalid(format!(
            "{origin} is no credentials file of Google: line {}, column {} is not as expected",
            e.line(),
            e.column()
        ))
        .hint(looks)
    })?;
    let kind = file.kind.clone();
    let missing = |field: &str| {
        Error::invalid(format!("{origin} is of type {kind:?} and has no {field}")).hint(looks)
    };
    let need = |value: &Option<String>, field: &str| {
        let value = value.clone().filter(|value| !value.is_empty());
        value.ok_or_else(|| missing(field))
    };
    match file.kind.as_str() {
        "service_account" => {
            let private_key = need(&file.private_key, "private_key")?;
            if ServiceAccountKey::from_pem(private_key.as_bytes()).is_err() {
                return Err(
                    Error::invalid(format!("the private_key of {origin} is none")).hint(
                        "it is an RSA key in PEM, as Google's console writes it into the file",
                    ),
                );
            }
            Ok(Who::Key {
                json: serde_json::json!({
                    "private_key": private_key,
                    "private_key_id": need(&file.private_key_id, "private_key_id")?,
                    "client_email": need(&file.client_email, "client_email")?,
                })
                .to_string(),
                universe: file.universe_domain.filter(|domain| !domain.is_empty()),
            })
        }
        "authorized_user" => {
            let token_uri = file.token_uri.as_deref().unwrap_or(TOKEN_URI);
            Ok(Who::Tokens(Tokens {
                source: Source::Refresh {
                    client_id: need(&file.client_id, "client_id")?,
                    client_secret: need(&file.client_secret, "client_secret")?,
                    refresh_token: need(&file.refresh_token, "refresh_token")?,
                    token_uri: trusted(token_uri, "token_uri", origin)?,
                },
            }))
        }
        "external_account" => {
            let source = file
                .credential_source
                .as_ref()
                .ok_or_else(|| missing("credential_source"))?;
            let impersonate = file.service_account_impersonation_url.as_deref();
            let impersonate = impersonate.filter(|url| !url.is_empty());
            let impersonate = impersonate
                .map(|url| trusted(url, "service_account_impersonation_url", origin))
                .transpose()?;
            Ok(Who::Tokens(Tokens {
                source: Source::Exchange(Box::new(Exchange {
                    audience: need(&file.audience, "audience")?,
                    subject_token_type: need(&file.subject_token_type, "subject_token_type")?,
                    token_url: trusted(&need(&file.token_url, "token_url")?, "token_url", origin)?,
                    subject: subject(source, origin)?,
                    impersonate,
                })),
            }))
        }
        "" => Err(Error::invalid(format!("{origin} has no type")).hint(looks)),
        other => Err(Error::invalid(format!(
            "{origin} is of {}, which is not supported",
            named("type", other)
        ))
        .hint("service_account, authorized_user and external_account are")),
    }
}

/// A word of the file, for messages. What can be none of Google's is not repeated: a key may have been put in its place.
fn named(what: &str, word: &str) -> String {
    let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
    if word.len() <= 40 && word.bytes().all(plain) {
        format!("{what} {word:?}")
    } else {
        format!("another {what}")
    }
}

fn subject(source: &CredentialSource, origin: &str) -> Result<Subject> {
    let refused = |what: &str| {
        Err(Error::invalid(format!(
            "{origin} takes its token from {what}, which is not supported"
        ))
        .hint("give a credential_source with `file` or `url`, or the key of a service account"))
    };
    if source.environment_id.is_some() {
        return refused("AWS (credential_source.environment_id)");
    }
    if source.executable.is_some() {
        return refused("a program (credential_source.executable)");
    }
    let format = source.format.as_ref();
    let field = match format.map(|format| format.kind.as_str()) {
        None | Some("" | "text") => None,
        Some("json") => {
            let named = format.and_then(|format| format.subject_token_field_name.clone());
            Some(named.ok_or_else(|| {
                Error::invalid(format!(
                    "{origin} has no credential_source.format.subject_token_field_name"
                ))
            })?)
        }
        Some(other) => {
            let format = named("format", other);
            return refused(&format!("{format} (credential_source.format.type)"));
        }
    };
    match (&source.file, &source.url) {
        (Some(path), None) => Ok(Subject::File {
            path: path.clone(),
            field,
        }),
        (None, Some(url)) => Ok(Subject::Url {
            url: client::endpoint_of(url).ok_or_else(|| {
                Error::invalid(format!("{origin} has a credential_source.url that is none"))
            })?,
            headers: source.headers.clone(),
            field,
        }),
        _ => refused("neither a file nor an address, or both (credential_source)"),
    }
}

/// An address that a secret may be sent to.
fn trusted(text: &str, field: &str, origin: &str) -> Result<Url> {
    let url = client::endpoint_of(text)
        .ok_or_else(|| Error::invalid(format!("{origin} has a {field} that is no address")))?;
    let is_google = match url.host() {
        Some(Host::Domain(name)) => name == "googleapis.com" || name.ends_with(".googleapis.com"),
        _ => false,
    };
    if is_google && url.scheme() == "https" || client::is_this_machine(&url) {
        return Ok(url);
    }
    Err(Error::invalid(format!(
        "{origin} has a {field} that is not Google's: its secrets are not sent to {}",
        url.host_str().unwrap_or_default()
    ))
    .hint("it is https:// and a host of googleapis.com"))
}

impl Tokens {
    /// Gets ready to ask; nothing is sent yet.
    pub(super) fn connect(self) -> Result<Signed> {
        let is_plain = |url: &Url| url.scheme() == "http";
        let plain = match &self.source {
            Source::Metadata { .. } => true,
            Source::Refresh { token_uri, .. } => is_plain(token_uri),
            Source::Exchange(exchange) => is_plain(&exchange.token_url),
        };
        let mut options = ClientOptions::new()
            .with_allow_http(true)
            .with_no_system_certificates(plain)
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(PATIENCE);
        if plain {
            // On the machine itself, or next to it: no proxy may be between.
            options = client::past_proxies(options);
        }
        let connector = ReqwestConnector::default();
        Ok(Signed {
            client: connector.connect(&options).map_err(client::unfit)?,
            source: self.source,
            token: Mutex::new(None),
        })
    }
}

/// Hands out tokens.
pub(super) struct Signed {
    source: Source,
    client: HttpClient,
    token: Mutex<Option<(Arc<GcpCredential>, Instant)>>,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for Signed {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let mut kept = self.token.lock().await;
        let now = Instant::now();
        if let Some((token, ends)) = &*kept
            && now + SPARE < *ends
        {
            return Ok(token.clone());
        }
        match self.fetch().await {
            Ok(fresh) => {
                let lasts = Duration::from_secs(fresh.expires_in.min(24 * 3600));
                let token = Arc::new(GcpCredential {
                    bearer: fresh.access_token,
                });
                *kept = Some((token.clone(), now + lasts));
                Ok(token)
            }
            Err(source) => match &*kept {
                Some((token, ends)) if now < *ends => Ok(token.clone()),
                _ => Err(object_store::Error::Generic {
                    store: "GCS",
                    source,
                }),
            },
        }
    }
}

#[derive(Deserialize)]
struct Fresh {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: String,
    expire_time: jiff::Timestamp,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Whom it was asked of.
#[derive(Debug, thiserror::Error)]
#[error("can not sign in at {host}")]
struct NotSigned {
    host: String,
    source: Failed,
}

impl Signed {
    async fn fetch(&self) -> Result<Fresh, Failed> {
        match &self.source {
            Source::Refresh {
                client_id,
                client_secret,
                refresh_token,
                token_uri,
            } => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret),
                    ("refresh_token", refresh_token),
                ];
                self.ask_form(token_uri, &form).await
            }
            Source::Exchange(exchange) => self.exchange(exchange).await,
            Source::Metadata { hosts } => {
                let mut failed: Failed = "no metadata server is named".into();
                for host in hosts {
                    let url = format!("http://{host}{METADATA_PATH}");
                    let request = Request::get(&url)
                        .header("metadata-flavor", "Google")
                        .body(HttpRequestBody::empty())?;
                    match self.ask(request).await {
                        Ok(fresh) => return Ok(fresh),
                        Err(e) => failed = e,
                    }
                }
                Err(failed)
            }
        }
    }

    async fn exchange(&self, exchange: &Exchange) -> Result<Fresh, Failed> {
        let subject = self.subject(&exchange.subject).await?;
        let form = [
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            ("audience", &exchange.audience),
            ("scope", SCOPE),
            (
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("subject_token_type", &exchange.subject_token_type),
            ("subject_token", &subject),
        ];
        let federated: Fresh = self.ask_form(&exchange.token_url, &form).await?;
        let Some(url) = &exchange.impersonate else {
            return Ok(federated);
        };
        let body = serde_json::json!({"scope": [SCOPE], "lifetime": "3600s"}).to_string();
        let request = Request::post(url.as_str())
            .header("content-type", "application/json")
            .header(
                "authorization",
                format!("Bearer {}", federated.access_token),
            )
            .body(HttpRequestBody::from(body))?;
        let got: Impersonated = self.ask(request).await?;
        let left = got.expire_time.as_second() - jiff::Timestamp::now().as_second();
        Ok(Fresh {
            access_token: got.access_token,
            expires_in: u64::try_from(left).unwrap_or(0),
        })
    }

    async fn subject(&self, subject: &Subject) -> Result<String, Failed> {
        let (bytes, field, from) = match subject {
            Subject::File { path, field } => {
                let named = path.display().to_string();
                let read = tokio::fs::read(path).await;
                let bytes = read.map_err(|e| format!("can not read the token in {named}: {e}"))?;
                (bytes, field, named)
            }
            Subject::Url {
                url,
                headers,
                field,
            } => {
                let mut request = Request::get(url.as_str());
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let bytes = self.bytes(request.body(HttpRequestBody::empty())?).await?;
                (bytes, field, url.to_string())
            }
        };
        let token = match field {
            None => String::from_utf8(bytes).ok(),
            Some(field) => serde_json::from_slice::<serde_json::Value>(&bytes)
                .ok()
                .and_then(|value| value.get(field)?.as_str().map(str::to_owned)),
        };
        let token = token.map(|token| token.trim().to_owned());
        token
            .filter(|token| !token.is_empty())
            .ok_or_else(|| format!("{from} holds no token").into())
    }

    async fn ask_form<T: DeserializeOwned>(
        &self,
        url: &Url,
        form: &[(&str, &str)],
    ) -> Result<T, Failed> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = Request::builder()
            .method(Method::POST)
            .uri(url.as_str())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(HttpRequestBody::from(body))?;
        self.ask(request).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: Request<HttpRequestBody>,
    ) -> Result<T, Failed> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let bytes = self.bytes(request).await?;
        // Not because of serde's error: it may repeat a piece of a token.
        serde_json::from_slice(&bytes)
            .map_err(|_| format!("{host} does not answer with a token").into())
    }

    async fn bytes(&self, request: Request<HttpRequestBody>) -> Result<Vec<u8>, Failed> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        self.answer(request)
            .await
            .map_err(|source| NotSigned { host, source }.into())
    }

    async fn answer(&self, request: Request<HttpRequestBody>) -> Result<Vec<u8>, Failed> {
        let answer = self.client.execute(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await?;
        let body = body.to_bytes();
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body).chars().take(2000).collect();
            // As object_store's own sign-ins say it.
            return Err(format!("Server returned non-2xx status code: {status}: {text}").into());
        }
        Ok(body.to_vec())
    }
}
