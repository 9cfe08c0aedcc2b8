//! Requests to one API server, as raw bytes: what it answers is handed on undecoded, what it refuses becomes [`ApiError`].
//! Obeys 429 and 503; knows paths and verbs, not what objects mean. Discovery and lists are built on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;

use crate::credential_plugin;
use crate::error::{Error, Kind, Result};

/// No answer of an API server we collect whole is larger; a longer one is refused (see [`Cluster::get_bounded`]).
pub const LARGEST_ANSWER: usize = 256 << 20;

/// What is set aside at once for an answer of unknown length; it is not touched before it is filled.
const LARGEST_PIECE: usize = 12 << 20;

/// How long a connection may be silent before the request is given up: longer than a server takes to say so itself (60 s), whose word is better.
const SILENCE: Duration = Duration::from_secs(75);

/// How long a server that lives takes to tell its version.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Attempts of a request that the server asked to repeat, or whose connection broke.
const ATTEMPTS: u32 = 8;

/// A request that came to its end: what is known of it without what was sent and what was answered.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The verb.
    pub method: &'a Method,
    /// Path and query.
    pub path: &'a str,
    /// HTTP status; nothing where there was no answer.
    pub status: Option<StatusCode>,
    /// Until the answer was read.
    pub took: Duration,
}

/// Is told of every request.
pub type Watcher = Arc<dyn Fn(&Asked<'_>) + Send + Sync>;

/// One API server, reached as one user.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    context: String,
    server: String,
    watcher: Option<Watcher>,
    patience: Duration,
}

/// What an API server refused, or why it was not reached.
#[derive(Clone, Debug, Default)]
pub struct ApiError {
    /// HTTP status; 0 where there was no answer.
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, `Conflict`, `Forbidden`, ...
    pub reason: String,
    /// The server's sentence.
    pub message: String,
    /// The `continue` token that a 410 brings, by which a list may go on at a newer revision.
    pub continue_token: Option<String>,
    /// `Unreachable`, `Unauthorized` and so on, for errors without an answer.
    pub kind: Option<Kind>,
    /// What the user can do, where it is known.
    pub hint: Option<String>,
    /// The answer grew beyond the bound that the caller gave.
    pub too_big: bool,
    /// Nothing came for [`SILENCE`].
    pub silent: bool,
}

impl ApiError {
    /// Whether the server said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Whether an object of that name exists already.
    pub fn is_already_exists(&self) -> bool {
        self.code == 409 && self.reason == "AlreadyExists"
    }

    /// Whether the object changed in between.
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason != "AlreadyExists"
    }

    /// Whether this user may not do it.
    pub fn is_forbidden(&self) -> bool {
        self.code == 403
    }

    /// Whether an admission rule refused it, with whatever code: a ValidatingAdmissionPolicy says 422 where it says nothing else. A right that is missing counts as well.
    pub fn is_denied(&self) -> bool {
        let said = [" denied request", " denied the request"];
        self.is_forbidden() || said.iter().any(|text| self.message.contains(text))
    }

    /// Whether the revision asked for is gone.
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// Whether the revision asked for has not come yet to the server's cache.
    pub fn is_too_large_revision(&self) -> bool {
        self.code == 504 && self.message.contains("Too large resource version")
    }

    fn is_worth_repeating(&self) -> bool {
        matches!(self.code, 429 | 503) || (self.code == 504 && !self.is_too_large_revision())
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.reason.as_str()) {
            (0, _) => f.write_str(&self.message),
            (code, "") => write!(f, "error from server ({code}): {}", self.message),
            (_, reason) => write!(f, "error from server ({reason}): {}", self.message),
        }
    }
}

impl std::error::Error for ApiError {}

impl From<ApiError> for Error {
    fn from(e: ApiError) -> Self {
        let kind = e.kind.unwrap_or(match e.code {
            401 => Kind::Unauthorized,
            403 => Kind::Forbidden,
            404 => Kind::NotFound,
            409 => Kind::AlreadyExists,
            400 | 422 => Kind::Invalid,
            _ => Kind::Other,
        });
        let error = Self::new(kind, e.to_string());
        match e.hint {
            Some(hint) => error.hint(hint),
            None if e.code == 401 => {
                error.hint("the credentials of this context are not accepted; log in again or check `kubectl config view`")
            }
            None => error,
        }
    }
}

/// An error of the API as ours; what was asked for is in `doing`.
pub fn told(doing: &str, e: kube::Error) -> Error {
    let kind = match &e {
        kube::Error::Api(status) => match status.code {
            401 => Kind::Unauthorized,
            403 => Kind::Forbidden,
            404 => Kind::NotFound,
            409 => Kind::AlreadyExists,
            429 | 500.. => Kind::Unreachable,
            _ => Kind::Other,
        },
        _ => Kind::Unreachable,
    };
    Error::new(kind, format!("can not {doing}")).because(e)
}

/// The server's version, as `/version` tells it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerVersion {
    /// Major, as text.
    pub major: String,
    /// Minor, as text; some providers add a `+`.
    pub minor: String,
    /// `v1.36.3`
    pub git_version: String,
}

/// A request: what is sent besides the user's credentials.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The verb.
    pub method: Method,
    /// Path and query, starting with `/`.
    pub path: &'a str,
    /// `Accept`.
    pub accept: &'a str,
    /// `Content-Type`, where there is a body.
    pub content_type: &'a str,
    /// The body.
    pub body: Bytes,
    /// May it be sent again when the connection broke and nobody knows whether it was carried out?
    pub repeatable: bool,
}

impl<'a> Call<'a> {
    /// A GET of JSON.
    pub fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            accept: "application/json",
            content_type: "",
            body: Bytes::new(),
            repeatable: true,
        }
    }

    /// A POST of JSON; not repeated when the connection breaks.
    pub fn post(path: &'a str, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            content_type: "application/json",
            body,
            repeatable: false,
            ..Self::get(path)
        }
    }

    /// A DELETE with options that hold preconditions: sent twice, it hits no other object, but may find a conflict the second time, where
    /// the object is still on its way.
    pub fn delete(path: &'a str, options: Bytes) -> Self {
        Self {
            method: Method::DELETE,
            content_type: "application/json",
            body: options,
            ..Self::get(path)
        }
    }

    /// A server-side apply.
    pub fn apply(path: &'a str, body: Bytes) -> Self {
        Self {
            content_type: "application/apply-patch+yaml",
            ..Self::merge_patch(path, body)
        }
    }

    /// A strategic merge patch: what a list of an object's own kind gets is added to it by name.
    pub fn strategic_patch(path: &'a str, body: Bytes) -> Self {
        Self {
            content_type: "application/strategic-merge-patch+json",
            ..Self::merge_patch(path, body)
        }
    }

    /// A JSON merge patch.
    pub fn merge_patch(path: &'a str, body: Bytes) -> Self {
        Self {
            method: Method::PATCH,
            content_type: "application/merge-patch+json",
            body,
            ..Self::get(path)
        }
    }
}

/// The path of a page of a list: the first one where the token is empty.
pub(crate) fn page(path: &str, limit: usize, token: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(format!("{path}?"));
    query.append_pair("limit", &limit.to_string());
    if !token.is_empty() {
        query.append_pair("continue", token);
    }
    query.finish()
}

impl Cluster {
    /// The server this client talks to. The client must not retry by itself (`Config::default_retry = false`).
    /// `context` and `server` are for messages.
    pub fn new(
        client: kube::Client,
        context: impl Into<String>,
        server: impl Into<String>,
    ) -> Self {
        Self {
            client,
            context: context.into(),
            server: server.into(),
            watcher: None,
            patience: Duration::ZERO,
        }
    }

    /// The same, that waits so long for a server that is away: who works for nobody at a keyboard has the time.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same, with somebody who is told of every request.
    pub fn watched(mut self, watcher: Watcher) -> Self {
        self.watcher = Some(watcher);
        self
    }

    /// The client itself, for what is no request with one answer.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// The kubeconfig context's name.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// GET, at most [`LARGEST_ANSWER`] bytes.
    ///
    /// # Errors
    /// What the server refuses, or why it is not reached.
    pub async fn get(&self, path: &str) -> Result<Bytes, ApiError> {
        self.send(&Call::get(path)).await
    }

    /// GET of at most so many bytes; more is an error with `too_big`, and the rest is not read.
    ///
    /// # Errors
    /// What the server refuses, why it is not reached, or that the answer is too big.
    pub async fn get_bounded(&self, path: &str, most: usize) -> Result<Bytes, ApiError> {
        self.repeat(&Call::get(path), most).await
    }

    /// Sends a request; 429, 503 and, where it may be repeated, broken connections are tried again.
    ///
    /// # Errors
    /// What the server refuses, or why it is not reached.
    pub async fn send(&self, call: &Call<'_>) -> Result<Bytes, ApiError> {
        self.repeat(call, LARGEST_ANSWER).await
    }

    /// The uid of kube-system, which names the cluster; nothing where the user may not read it.
    ///
    /// # Errors
    /// Everything but Forbidden and NotFound.
    pub async fn identity(&self) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Meta,
        }
        #[derive(Deserialize)]
        struct Meta {
            uid: String,
        }
        match self.get("/api/v1/namespaces/kube-system").await {
            Ok(body) => serde_json::from_slice::<Object>(&body)
                .map(|object| Some(object.metadata.uid))
                .map_err(|e| {
                    Error::other(format!(
                        "{} answered with something that is no namespace",
                        self.server
                    ))
                    .because(e)
                }),
            Err(e) if e.is_forbidden() || e.is_not_found() => Ok(None),
            Err(e) => Err(Error::from(e).context(format!(
                "can not reach the cluster of context {:?}",
                self.context
            ))),
        }
    }

    /// The server's version.
    ///
    /// # Errors
    /// What the server refuses, or why it is not reached.
    pub async fn version(&self) -> Result<ServerVersion> {
        let body = self.get("/version").await?;
        serde_json::from_slice(&body)
            .map_err(|e| Error::other(format!("{} has no version", self.server)).because(e))
    }

    async fn repeat(&self, call: &Call<'_>, most: usize) -> Result<Bytes, ApiError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(100);
        let mut attempt = 1;
        loop {
            let (mut error, wait) = match self.once(call, most).await {
                Ok(body) => return Ok(body),
                Err(failure) => failure,
            };
            if error.silent && attempt > 1 && self.is_alive().await {
                // One path hangs, such as an aggregated API whose server is stuck: not the end of everything.
                error.kind = None;
                error.hint = None;
                return Err(error);
            }
            // A server that answers, whatever it says, is not away.
            let is_patient = began.elapsed() < self.patience;
            let broken = error.code == 0
                && error.kind == Some(Kind::Unreachable)
                && call.repeatable
                && (attempt < 4 || is_patient);
            if !(broken || attempt < ATTEMPTS && error.is_worth_repeating()) {
                return Err(error);
            }
            tokio::time::sleep(wait.unwrap_or(pause).min(Duration::from_secs(60))).await;
            pause = (pause * 2).min(Duration::from_secs(10));
            attempt += 1;
        }
    }

    async fn once(
        &self,
        call: &Call<'_>,
        most: usize,
    ) -> Result<Bytes, (ApiError, Option<Duration>)> {
        let (began, mut status) = (Instant::now(), None);
        let answer = self.exchange(call, most, &mut status).await;
        if let Some(watcher) = &self.watcher {
            watcher(&Asked {
                method: &call.method,
                path: call.path,
                status,
                took: began.elapsed(),
            });
        }
        answer
    }

    async fn exchange(
        &self,
        call: &Call<'_>,
        most: usize,
        status: &mut Option<StatusCode>,
    ) -> Result<Bytes, (ApiError, Option<Duration>)> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(call.path)
            .header(header::ACCEPT, call.accept);
        if !call.content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, call.content_type);
        }
        let request = request.body(Body::from(call.body.clone())).map_err(|e| {
            (
                ApiError {
                    message: format!("{} can not be asked for: {e}", call.path),
                    ..ApiError::default()
                },
                None,
            )
        })?;
        let answer = match tokio::time::timeout(SILENCE, self.client.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err((self.unreached(&e), None)),
            Err(_) => return Err((self.silent(call.path), None)),
        };
        let (head, body) = answer.into_parts();
        *status = Some(head.status);
        let failed = !head.status.is_success();
        let mut body = body.into_data_stream();
        // One piece of memory for a page: growing would copy it several times, and hold twice as much.
        let length = head.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        let room = match length {
            Some(length) => length.min(most),
            None if most < LARGEST_ANSWER => most.min(LARGEST_PIECE),
            None => 0,
        };
        let mut collected = BytesMut::with_capacity(room);
        loop {
            match tokio::time::timeout(SILENCE, body.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(chunk))) => {
                    if collected.len() + chunk.len() > most {
                        let message = format!("{} answers with more than {most} bytes", call.path);
                        return Err((
                            ApiError {
                                message,
                                too_big: true,
                                ..ApiError::default()
                            },
                            None,
                        ));
                    }
                    collected.extend_from_slice(&chunk);
                }
                Ok(Some(Err(e))) => return Err((self.unreached(&e), None)),
                Err(_) => return Err((self.silent(call.path), None)),
            }
        }
        let collected = collected.freeze();
        if failed {
            let wait = head
                .headers
                .get(header::RETRY_AFTER)
                .and_then(|v| v.to_str().ok()?.parse().ok())
                .map(Duration::from_secs);
            return Err((refusal(head.status, &collected), wait));
        }
        Ok(collected)
    }

    /// Whether the server still answers what costs it nothing.
    async fn is_alive(&self) -> bool {
        let asked = Call::get("/version");
        let answer = self.once(&asked, 1 << 20);
        matches!(tokio::time::timeout(SIGN_OF_LIFE, answer).await, Ok(Ok(_)))
    }

    fn silent(&self, path: &str) -> ApiError {
        let path = path.split('?').next().unwrap_or_default();
        ApiError {
            message: format!(
                "{} did not answer {path} for {} s",
                self.server,
                SILENCE.as_secs()
            ),
            kind: Some(Kind::Unreachable),
            hint: Some("check the network, the VPN and the API server's health".to_owned()),
            silent: true,
            ..ApiError::default()
        }
    }

    fn unreached(&self, cause: &(dyn std::error::Error + 'static)) -> ApiError {
        if let Some(failed) = credential_plugin::failure(cause) {
            return ApiError {
                message: format!("{} can not be reached: {failed}", self.server),
                kind: Some(failed.kind()),
                hint: failed.hint_text().map(str::to_owned),
                ..ApiError::default()
            };
        }
        let mut text = String::new();
        let mut next = Some(cause);
        while let Some(cause) = next {
            let this = cause.to_string();
            if !text.contains(&this) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(&this);
            }
            next = cause.source();
        }
        let lower = text.to_lowercase();
        let (kind, hint) = if lower.contains("certificateexpired")
            || lower.contains("certificate expired")
        {
            (
                Kind::Unauthorized,
                Some(
                    "a certificate has expired: renew the client certificate of this context, or the server's",
                ),
            )
        } else if lower.contains("unknownissuer")
            || lower.contains("unknown issuer")
            || lower.contains("unknownca")
        {
            (
                Kind::Unauthorized,
                Some(
                    "the server's certificate is of another CA than certificate-authority-data in the kubeconfig",
                ),
            )
        } else if lower.contains("auth exec")
            || lower.contains("exec-plugin")
            || lower.contains("auth error")
            || lower.contains("authexec")
        {
            (
                Kind::Unauthorized,
                Some(
                    "the credential plugin of this context failed; run `kubectl get ns` to see its own message",
                ),
            )
        } else {
            (
                Kind::Unreachable,
                Some(
                    "check the network, the VPN and `kubectl config view --minify`; the API server may be down",
                ),
            )
        };
        ApiError {
            message: format!("{} can not be reached: {text}", self.server),
            kind: Some(kind),
            hint: hint.map(str::to_owned),
            ..ApiError::default()
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("context", &self.context)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> ApiError {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Answer {
        reason: String,
        message: String,
        metadata: Meta,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Meta {
        #[serde(rename = "continue")]
        continue_token: Option<String>,
    }
    let answer = serde_json::from_slice(body).unwrap_or_else(|_| Answer {
        message: String::from_utf8_lossy(&body[..body.len().min(500)])
            .trim()
            .to_owned(),
        ..Answer::default()
    });
    ApiError {
        code: status.as_u16(),
        reason: answer.reason,
        message: answer.message,
        continue_token: answer
            .metadata
            .continue_token
            .filter(|token| !token.is_empty()),
        ..ApiError::default()
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;

    /// A server that never answers some paths, and how often it was asked for them.
    fn hanging(hangs: impl Fn(&str) -> bool + Clone + Send + 'static) -> Cluster {
        let service = tower::service_fn(move |request: Request<Body>| {
            let hang = hangs(request.uri().path());
            async move {
                if hang {
                    std::future::pending::<()>().await;
                }
                let answer = Body::from(br#"{"gitVersion":"v1.36.3"}"#.to_vec());
                Ok::<_, std::convert::Infallible>(Response::new(answer))
            }
        });
        Cluster::new(
            kube::Client::new(service, "default"),
            "test",
            "https://server",
        )
    }

    #[tokio::test(start_paused = true)]
    async fn one_path_that_hangs_is_named_and_is_not_the_whole_server() {
        let cluster = hanging(|path| path.starts_with("/apis/metrics"));
        let refused = cluster.get("/apis/metrics.k8s.io/v1/pods?limit=1").await;
        let refused = refused.unwrap_err();
        assert!(refused.kind.is_none(), "{refused:?}");
        assert_eq!(
            refused.to_string(),
            "https://server did not answer /apis/metrics.k8s.io/v1/pods for 75 s"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_for_a_while_is_awaited_by_who_has_the_time() {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = asked.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            let is_away = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 12;
            async move {
                if is_away {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                }
                Ok(Response::new(Body::from(b"{}".to_vec())))
            }
        });
        let client = kube::Client::new(service, "default");
        let cluster = Cluster::new(client, "test", "https://server");
        let refused = cluster.get("/api/v1/pods").await.unwrap_err();
        assert_eq!(refused.kind, Some(Kind::Unreachable));
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 4);
        let patient = cluster.patient(Duration::from_secs(120));
        assert!(patient.get("/api/v1/pods").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_nothing_is_unreachable() {
        let refused = hanging(|_| true).get("/api/v1/pods").await.unwrap_err();
        assert_eq!(refused.kind, Some(Kind::Unreachable));
    }
}
