//! Keys that end: got from STS, from what runs a container or from what runs the machine, kept, and got again in time. Knows no store and no object.
//!
//! They are got when the first request needs them, and again when less than five minutes (of a short life: a third) are left, by one request at a
//! time. Where that fails the old ones serve to their end. Time is the wall's: a machine that slept has not stopped it. Only refusals
//! that may pass are tried again, and that is the store's business: what is told here goes to the user in [`NoKeys`].
//!
//! STS: <https://docs.aws.amazon.com/STS/latest/APIReference/>. Containers: <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>.
//! Machines: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>, second version only.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use jiff::{SignedDuration, Timestamp};
use object_store::CredentialProvider;
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::{Url, form_urlencoded};

use super::way::{Proof, Taken, Way, is_header};
use crate::error::{Kind, Result};
use crate::location::failure::{NoKeys, between, chain};

/// Keys are got again when so much is left of them.
const EARLY: SignedDuration = SignedDuration::from_mins(5);

/// Keys that are still good are not asked for more often.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// One request, its answer included.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer with keys is a few kilobytes.
const LARGEST: usize = 256 << 10;

/// A token in a file is a few kilobytes.
const LARGEST_TOKEN: u64 = 64 << 10;

const NO_ROLE: &str = "no keys were given and this machine has no role of its own: give the location a credentials file, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

/// Makes a client for one address.
pub(super) type Connect<'a> = &'a dyn Fn(&Url, Option<&Taken>) -> Result<HttpClient>;

/// Who signs: keys as they are, or a session.
///
/// # Errors
/// `Invalid`, where no client can be made.
pub(super) fn provider(way: Way, connect: Connect<'_>) -> Result<AwsCredentialProvider> {
    let source = match way {
        Way::Keys(keys) => return Ok(Arc::new(Fixed(keys))),
        Way::Nothing => return Ok(Arc::new(Nothing)),
        Way::Role { base, taken } => Source::Role {
            base: provider(*base, connect)?,
            client: connect(&taken.sts, Some(&taken))?,
            taken,
        },
        Way::Token {
            file,
            setting,
            taken,
        } => Source::Token {
            client: connect(&taken.sts, Some(&taken))?,
            file,
            setting,
            taken,
        },
        Way::Container { url, authorization } => Source::Container {
            client: connect(&url, None)?,
            url,
            authorization,
        },
        Way::Machine { url } => Source::Machine {
            client: connect(&url, None)?,
            url,
        },
    };
    Ok(Arc::new(Session {
        source,
        held: Mutex::new(None),
    }))
}

#[derive(Debug)]
struct Fixed(Arc<AwsCredential>);

#[async_trait]
impl CredentialProvider for Fixed {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(self.0.clone())
    }
}

#[derive(Debug)]
struct Nothing;

#[async_trait]
impl CredentialProvider for Nothing {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Err(told(NoKeys {
            kind: Kind::Unauthorized,
            why: "no keys were given, and AWS_EC2_METADATA_DISABLED says that this machine has no role".to_owned(),
            hint: Some(NO_ROLE.to_owned()),
            transient: false,
        }))
    }
}

fn told(refused: NoKeys) -> object_store::Error {
    object_store::Error::Generic {
        store: "S3",
        source: Box::new(refused),
    }
}

struct Session {
    source: Source,
    held: Mutex<Option<Held>>,
}

pub(super) enum Source {
    Role {
        base: AwsCredentialProvider,
        client: HttpClient,
        taken: Taken,
    },
    Token {
        client: HttpClient,
        file: String,
        setting: String,
        taken: Taken,
    },
    Container {
        client: HttpClient,
        url: Url,
        authorization: Proof,
    },
    Machine {
        client: HttpClient,
        url: Url,
    },
}

/// Without any secret.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Keys, and until when they are good.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) keys: Arc<AwsCredential>,
    got: Timestamp,
    /// When they were asked for last; later than `got` where that failed.
    asked: Timestamp,
    pub(super) ends: Option<Timestamp>,
}

impl Held {
    /// Whether nobody has to ask for new ones.
    fn serves(&self, now: Timestamp) -> bool {
        let Some(ends) = self.ends else { return true };
        let left = ends.duration_since(now);
        let early = EARLY.min(ends.duration_since(self.got) / 3);
        let pause = PAUSE.min(early / 2);
        // A clock that was set back does not keep them for ever.
        let recently = now >= self.asked && now.duration_since(self.asked) < pause;
        self.got <= now && (left > early || recently && self.lasts(now))
    }

    fn lasts(&self, now: Timestamp) -> bool {
        self.ends.is_none_or(|ends| ends > now)
    }
}

#[async_trait]
impl CredentialProvider for Session {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        // Who waits here waits for one answer that serves all.
        let mut held = self.held.lock().await;
        let now = Timestamp::now();
        if let Some(held) = held.as_ref().filter(|held| held.serves(now)) {
            return Ok(held.keys.clone());
        }
        match self.source.ask().await {
            Ok(new) => Ok(held.insert(new).keys.clone()),
            Err(refused) => match held.as_mut().filter(|held| held.lasts(now)) {
                Some(old) => {
                    old.asked = now;
                    Ok(old.keys.clone())
                }
                None => Err(told(refused)),
            },
        }
    }
}

/// Keys as all of these services write them; STS in XML, the others in JSON.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "Token")]
    session_token: Option<String>,
    expiration: Option<String>,
}

#[derive(Deserialize)]
struct OfSts {
    #[serde(rename = "AssumeRoleResult", alias = "AssumeRoleWithWebIdentityResult")]
    result: Credentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    credentials: Given,
}

impl Given {
    fn held(self, who: &str) -> std::result::Result<Held, NoKeys> {
        let odd = |what: &str| NoKeys {
            kind: Kind::Corrupt,
            why: format!("{who} answered with {what}"),
            hint: None,
            transient: false,
        };
        let token = self.session_token.filter(|token| !token.is_empty());
        let all = [&self.access_key_id, &self.secret_access_key];
        if !all
            .into_iter()
            .chain(&token)
            .all(|value| !value.is_empty() && is_header(value))
        {
            return Err(odd("keys that no request can hold"));
        }
        let ends: Option<Timestamp> = match self.expiration.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| odd("a date that is none"))?),
        };
        let now = Timestamp::now();
        Ok(Held {
            keys: Arc::new(AwsCredential {
                key_id: self.access_key_id,
                secret_key: self.secret_access_key,
                token,
            }),
            got: now,
            asked: now,
            ends,
        })
    }
}

impl Source {
    async fn ask(&self) -> std::result::Result<Held, NoKeys> {
        match self {
            Self::Role {
                base,
                client,
                taken,
            } => Self::role(base, client, taken).await,
            Self::Token {
                client,
                file,
                setting,
                taken,
            } => Self::token(client, file, setting, taken).await,
            Self::Container {
                client,
                url,
                authorization,
            } => {
                let who = format!("the container's address {}", shown(url));
                let proof = match authorization {
                    Proof::None => None,
                    Proof::Text(text) => Some(text.clone()),
                    Proof::File(file) => {
                        Some(text_of(file, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").await?)
                    }
                };
                let headers: Vec<_> = proof
                    .iter()
                    .map(|proof| ("authorization", proof.as_str()))
                    .collect();
                let (status, body) = send(client, &who, Method::GET, url, &headers).await?;
                if status != StatusCode::OK {
                    return Err(declined(&who, status, &body).hint("check AWS_CONTAINER_CREDENTIALS_FULL_URI and its token, and that the pod or task has a role"));
                }
                json(&who, &body)
            }
            Self::Machine { client, url } => machine(client, url).await,
        }
    }
}

impl Source {
    /// Takes a role with these keys.
    pub(super) async fn role(
        base: &AwsCredentialProvider,
        client: &HttpClient,
        taken: &Taken,
    ) -> std::result::Result<Held, NoKeys> {
        let base = base.get_credential().await.map_err(inner)?;
        let id = taken.role.external_id.as_deref();
        let mut request = taken.request("AssumeRole", id.map(|id| ("ExternalId", id)))?;
        AwsAuthorizer::new(&base, "sts", &taken.region)
            .try_authorize(&mut request, None)
            .map_err(|e| taken.odd(&chain(&e)))?;
        taken.ask(client, request).await
    }

    /// The same with the token in a file.
    pub(super) async fn token(
        client: &HttpClient,
        file: &str,
        setting: &str,
        taken: &Taken,
    ) -> std::result::Result<Held, NoKeys> {
        let token = text_of(file, setting).await?;
        let token = Some(("WebIdentityToken", token.as_str()));
        let request = taken.request("AssumeRoleWithWebIdentity", token)?;
        taken.ask(client, request).await
    }
}

/// A container's or machine's answer.
fn json(who: &str, body: &Bytes) -> std::result::Result<Held, NoKeys> {
    // What is wrong with it is not repeated: it may hold keys.
    let given: Given = serde_json::from_slice(body).map_err(|_| NoKeys {
        kind: Kind::Corrupt,
        why: format!("{who} answered with no keys"),
        hint: None,
        transient: false,
    })?;
    given.held(who)
}

async fn machine(client: &HttpClient, url: &Url) -> std::result::Result<Held, NoKeys> {
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let who = format!("the machine's address {}", shown(url));
    let at = |path: &str| {
        let mut url = url.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url
    };
    let lifetime = [("x-aws-ec2-metadata-token-ttl-seconds", "600")];
    let token = at("/latest/api/token");
    let session = send(client, &who, Method::PUT, &token, &lifetime).await;
    // Where nobody is there, nobody comes.
    let (status, session) = session.map_err(|e| NoKeys {
        kind: Kind::Unauthorized,
        transient: false,
        ..e.hint(NO_ROLE)
    })?;
    let text = |body: &Bytes| {
        let text = std::str::from_utf8(body).unwrap_or_default().trim();
        Some(text.to_owned()).filter(|text| !text.is_empty() && is_header(text))
    };
    let session = match text(&session) {
        Some(session) if status == StatusCode::OK => session,
        _ => return Err(declined(&who, status, &session).hint(NO_ROLE)),
    };
    let proof = [("x-aws-ec2-metadata-token", session.as_str())];
    let (status, role) = send(client, &who, Method::GET, &at(ROLES), &proof).await?;
    let role = match text(&role) {
        Some(role) if status == StatusCode::OK => role,
        _ => return Err(declined(&who, status, &role).hint(NO_ROLE)),
    };
    let of_role = at(&format!("{ROLES}{role}"));
    let (status, body) = send(client, &who, Method::GET, &of_role, &proof).await?;
    if status != StatusCode::OK {
        return Err(declined(&who, status, &body).hint(NO_ROLE));
    }
    json(&who, &body)
}

impl Taken {
    fn request(
        &self,
        action: &str,
        besides: Option<(&str, &str)>,
    ) -> std::result::Result<HttpRequest, NoKeys> {
        let role = [
            ("RoleArn", self.role.arn.as_str()),
            ("RoleSessionName", self.name.as_str()),
        ];
        // A store that gives keys of its own knows no roles.
        let role = role.into_iter().filter(|_| !self.role.arn.is_empty());
        let policy = self.policy.as_deref().map(|policy| ("Policy", policy));
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", action)
            .append_pair("Version", "2011-06-15")
            .extend_pairs(role)
            .append_pair("DurationSeconds", &self.seconds.to_string())
            .extend_pairs(besides)
            .extend_pairs(policy)
            .finish();
        Request::builder()
            .method(Method::POST)
            .uri(self.sts.as_str())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(HttpRequestBody::from(form))
            .map_err(|e| self.odd(&e.to_string()))
    }

    fn who(&self) -> String {
        format!("STS at {}", shown(&self.sts))
    }

    fn odd(&self, why: &str) -> NoKeys {
        NoKeys {
            kind: Kind::Other,
            why: format!(
                "{} can not be asked for {}: {why}",
                self.who(),
                self.setting
            ),
            hint: None,
            transient: false,
        }
    }

    async fn ask(
        &self,
        client: &HttpClient,
        request: HttpRequest,
    ) -> std::result::Result<Held, NoKeys> {
        let who = self.who();
        let (status, body) = execute(client, &who, request).await?;
        let text = String::from_utf8_lossy(&body);
        if status != StatusCode::OK {
            return Err(self.refusal(status, &text));
        }
        // What is wrong with it is not repeated: it may hold keys.
        let answer: OfSts = quick_xml::de::from_str(&text).map_err(|_| NoKeys {
            kind: Kind::Corrupt,
            why: format!("{who} answered with no keys"),
            hint: Some(
                "check AWS_ENDPOINT_URL_STS: another kind of server seems to be there".to_owned(),
            ),
            transient: false,
        })?;
        answer.result.credentials.held(&who)
    }

    /// What STS says, and who changes what.
    fn refusal(&self, status: StatusCode, text: &str) -> NoKeys {
        let code = between(text, "Code").unwrap_or_default();
        let message = between(text, "Message").unwrap_or_default();
        let said: String = format!(
            "{} {code}: {}",
            status.as_u16(),
            message.trim_end_matches('.')
        )
        .chars()
        .filter(|c| !c.is_control())
        .collect();
        let Self { setting, role, .. } = self;
        let (kind, hint) = match code {
            "AccessDenied" => (
                Kind::Forbidden,
                format!(
                    "the role's trust policy does not let these keys take it, or the External ID is another one (STS does not tell which): compare it with `location create --print-trust-policy`, and the keys' own policy (sts:AssumeRole); the role is {setting}"
                ),
            ),
            "InvalidClientTokenId" | "UnrecognizedClientException" => (
                Kind::Unauthorized,
                format!(
                    "STS does not know the keys with which {setting} is taken: check aws_access_key_id of the source"
                ),
            ),
            "SignatureDoesNotMatch" | "IncompleteSignature" => (
                Kind::Unauthorized,
                format!(
                    "the secret key with which {setting} is taken is wrong (or this machine's clock): check aws_secret_access_key of the source"
                ),
            ),
            "ExpiredToken" | "ExpiredTokenException" => (
                Kind::Unauthorized,
                format!(
                    "the token with which {setting} is taken has expired: renew it at its source"
                ),
            ),
            "InvalidIdentityToken" | "IDPRejectedClaim" => (
                Kind::Unauthorized,
                format!(
                    "the token in the file is not accepted for {setting}: check its issuer and audience (sts.amazonaws.com), and the role's trust policy"
                ),
            ),
            "RegionDisabledException" => (
                Kind::Invalid,
                format!(
                    "this account's STS is off in {}: set config.region or AWS_ENDPOINT_URL_STS",
                    self.region
                ),
            ),
            "ValidationError" | "InvalidParameterValue" => (
                Kind::Invalid,
                format!(
                    "check {setting}, and duration_seconds, role_session_name and external_id beside it"
                ),
            ),
            _ => (
                Kind::Unauthorized,
                format!("check {setting}, config.region and AWS_ENDPOINT_URL_STS"),
            ),
        };
        let busy = code.starts_with("Throttl") || code == "IDPCommunicationError";
        let what = match role.arn.as_str() {
            "" => "keys that end".to_owned(),
            arn => format!("the role {arn}"),
        };
        NoKeys {
            kind,
            why: format!("{} did not give {what}: it answered {said}", self.who()),
            hint: Some(hint),
            transient: busy || is_busy(status),
        }
    }
}

fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || status == StatusCode::TOO_MANY_REQUESTS
}

impl NoKeys {
    fn hint(self, hint: &str) -> Self {
        Self {
            hint: Some(hint.to_owned()),
            ..self
        }
    }
}

fn declined(who: &str, status: StatusCode, body: &Bytes) -> NoKeys {
    // Of a good answer nothing is repeated: it may hold keys.
    let said = match status.is_success() {
        true => String::new(),
        false => String::from_utf8_lossy(body)
            .chars()
            .filter(|c| !c.is_control())
            .take(120)
            .collect(),
    };
    let colon = if said.trim().is_empty() { "" } else { ": " };
    NoKeys {
        kind: Kind::Unauthorized,
        why: format!("{who} answered {}{colon}{}", status.as_u16(), said.trim()),
        hint: None,
        transient: is_busy(status),
    }
}

fn shown(url: &Url) -> String {
    format!(
        "{}://{}",
        url.scheme(),
        &url[url::Position::BeforeHost..url::Position::AfterPort]
    )
}

/// The refusal of a source's own source.
fn inner(e: object_store::Error) -> NoKeys {
    match NoKeys::within(&e) {
        Some(refused) => refused.clone(),
        None => NoKeys {
            kind: Kind::Unauthorized,
            why: chain(&e),
            hint: None,
            transient: false,
        },
    }
}

/// A file's one line.
async fn text_of(file: &str, setting: &str) -> std::result::Result<String, NoKeys> {
    let unusable = |why: String| NoKeys {
        kind: Kind::Invalid,
        why: format!("the file {file} of {setting} {why}"),
        hint: Some(format!(
            "{setting} names a file with the token; whoever runs this machine or pod puts it there and renews it"
        )),
        transient: false,
    };
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(LARGEST_TOKEN + 1).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    let text = match read.await {
        Ok(read) => read.map_err(|e| unusable(format!("can not be read: {e}")))?,
        Err(e) => return Err(unusable(format!("can not be read: {e}"))),
    };
    let text = text.trim();
    if text.is_empty()
        || text.len() as u64 > LARGEST_TOKEN
        || !is_header(text.replace(' ', "").as_str())
    {
        return Err(unusable("holds no token".to_owned()));
    }
    Ok(text.to_owned())
}

async fn send(
    client: &HttpClient,
    who: &str,
    method: Method,
    url: &Url,
    headers: &[(&str, &str)],
) -> std::result::Result<(StatusCode, Bytes), NoKeys> {
    let mut request = Request::builder().method(method).uri(url.as_str());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(HttpRequestBody::empty()).map_err(|_| NoKeys {
        kind: Kind::Invalid,
        why: format!("{who} can not be asked: its address or token does not fit a request"),
        hint: None,
        transient: false,
    })?;
    execute(client, who, request).await
}

/// Sends a request and hears the whole answer, within bounds of time and size.
async fn execute(
    client: &HttpClient,
    who: &str,
    request: HttpRequest,
) -> std::result::Result<(StatusCode, Bytes), NoKeys> {
    let silent = |why: String, transient| {
        NoKeys {
        kind: Kind::Unreachable,
        why: format!("{who} {why}"),
        hint: Some(
            "check the network, the proxy settings, and AWS_ENDPOINT_URL_STS and config.region where STS is asked".to_owned(),
        ),
        transient,
    }
    };
    let unheard = |e: HttpError| {
        let text = chain(&e);
        let tls = text.contains("certificate") || text.contains("InvalidContentType");
        silent(
            format!("is not reached: {}", innermost(&e)),
            !tls && e.kind() != HttpErrorKind::Decode,
        )
    };
    let hear = async {
        let (head, body) = client
            .execute(request)
            .await
            .map_err(&unheard)?
            .into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|e| {
            match e.downcast::<HttpError>() {
                Ok(e) => unheard(*e),
                Err(_) => silent("answers with far too much".to_owned(), false),
            }
        })?;
        Ok((head.status, body.to_bytes()))
    };
    let heard = tokio::time::timeout(PATIENCE, hear).await;
    heard.unwrap_or_else(|_| {
        Err(silent(
            format!("is silent for {} s", PATIENCE.as_secs()),
            true,
        ))
    })
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
pub(super) mod tests;
