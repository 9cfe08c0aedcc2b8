//! What a bucket's refusals mean: who should change which setting. Pure. The codes of each provider and the names of its settings are its
//! [`Words`]; those of S3 are here, the others have a file each.

mod azure;
mod gcs;

use std::error::Error as StdError;
use std::fmt;

use object_store::client::{HttpError, HttpErrorKind};

use super::backend::Failure;
use crate::error::{Error, Kind};

pub(crate) use azure::AZURE;
pub(crate) use gcs::GCS;

/// What a provider calls its settings, and what its codes mean.
#[derive(Debug)]
pub(crate) struct Words {
    /// The setting with the store's address.
    endpoint: &'static str,
    /// What else may lead to another address.
    address: &'static str,
    /// What to do about an action that is not allowed.
    rights: &'static str,
    /// What to do where nobody says who we are.
    nobody: &'static str,
    /// The meaning of a code, in its whole text.
    code: fn(code: &str, text: &str) -> Option<(Kind, String)>,
}

/// S3 and what speaks its language.
pub(crate) const S3: Words = Words {
    endpoint: "config.s3Url",
    address: "config.s3Url (or config.region)",
    rights: "the store refuses these keys or this action: check the location's credentials file and the bucket's policy",
    nobody: "no keys were given and this machine has no role of its own: give the location a credentials file, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    code: s3,
};

/// All causes of an error in one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let this = error.to_string();
        if !text.contains(&this) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&this);
        }
        next = error.source();
    }
    text
}

/// Whether a "not found" is about the bucket and not about an object.
pub(crate) fn names_missing_bucket(error: &(dyn StdError + 'static)) -> bool {
    let text = chain(error);
    text.contains("NoSuchBucket") || text.contains("ContainerNotFound")
}

/// The text between two tags of an answer in XML.
pub(super) fn between<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    let (value, _) = rest.split_once(&format!("</{tag}>"))?;
    Some(value.trim()).filter(|value| !value.is_empty() && value.len() < 500)
}

/// The HTTP status that object_store's message names; those of one answer among several in a batch as well.
fn status(text: &str) -> Option<u16> {
    let after = |words: &str| text.split_once(words).map(|(_, rest)| rest);
    let rest = after("non-2xx status code: ").or_else(|| after("(code: "))?;
    rest.get(..3)?.parse().ok()
}

/// The value of a field, where an answer is JSON, as those of sign-in services are.
fn field(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once('{')?;
    let body = format!("{{{rest}");
    let value = serde_json::Deserializer::from_str(&body)
        .into_iter::<serde_json::Value>()
        .next()?
        .ok()?;
    let found = value.get(name)?.as_str()?;
    Some(
        found
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect(),
    )
}

/// The store's own code: of its XML, or of a sign-in service's JSON.
fn code(text: &str) -> Option<String> {
    between(text, "Code")
        .map(str::to_owned)
        .or_else(|| field(text, "error"))
}

/// The first cause of this type.
fn within<T: StdError + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn http_kind(error: &object_store::Error) -> Option<HttpErrorKind> {
    within(error).map(HttpError::kind)
}

/// Why no keys could be got to sign a request with: nothing went to the store.
#[derive(Clone, Debug)]
pub(super) struct NoKeys {
    pub(super) kind: Kind,
    /// Who refused what, and why; no secret.
    pub(super) why: String,
    pub(super) hint: Option<String>,
    /// Whether it may pass.
    pub(super) transient: bool,
}

impl NoKeys {
    pub(super) fn within(error: &object_store::Error) -> Option<&Self> {
        within(error)
    }
}

impl fmt::Display for NoKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl StdError for NoKeys {}

/// The cause as a user reads it: the server's code and sentence, or the innermost reason why nobody answered.
fn cause(text: &str, error: &object_store::Error) -> String {
    if let Some(code) = code(text) {
        let message = between(text, "Message").map(str::to_owned);
        let message = message
            .or_else(|| field(text, "error_description"))
            .unwrap_or_default();
        // Azure adds the request's id and time in further lines.
        let said = message.lines().next().unwrap_or_default();
        let said = said.trim_end_matches('.');
        let who = if between(text, "Code").is_some() {
            "the store"
        } else {
            "the sign-in service"
        };
        return match status(text) {
            Some(status) => format!("{who} answered {status} {code}: {said}"),
            None => format!("{who} answered {code}: {said}"),
        };
    }
    if let Some(status) = status(text) {
        // Not S3's XML: a gateway or a server of another kind, whose first words may tell.
        let said: String = text
            .split_once("non-2xx status code: ")
            .and_then(|(_, rest)| rest.split_once(": "))
            .map(|(_, body)| body.chars().filter(|c| !c.is_control()).take(120).collect())
            .unwrap_or_default();
        let colon = if said.trim().is_empty() { "" } else { ": " };
        return format!("the store answered {status}{colon}{}", said.trim());
    }
    let mut innermost: &(dyn StdError + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What went wrong while `doing` something ("write backups/x/y") in `place`.
pub(crate) fn of(words: &Words, doing: &str, place: &str, error: object_store::Error) -> Failure {
    if let Some(NoKeys {
        kind,
        why,
        hint,
        transient,
    }) = NoKeys::within(&error)
    {
        let said = Error::new(*kind, format!("can not {doing} in {place}")).because(why.clone());
        return Failure {
            transient: *transient,
            ..Failure::final_answer(match hint {
                Some(hint) => said.hint(hint.clone()),
                None => said,
            })
        };
    }
    let text = chain(&error);
    let code = code(&text).unwrap_or_default();
    let status = status(&text);
    let http = http_kind(&error);
    let (kind, hint) = meaning(words, &text, &code, status, http, &error);
    // What a handshake refuses stays refused.
    let tls = text.contains("certificate") || is_no_tls(&text);
    let transient = match status {
        Some(501) => false,
        Some(408 | 429 | 500..) => true,
        Some(_) => false,
        None => http.is_some() && !tls && kind == Kind::Unreachable,
    } || ["SlowDown", "InternalError", "ServerBusy"].contains(&code.as_str());
    let unsupported = status == Some(501)
        || matches!(
            error,
            object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }
        );
    // A refused connection and a failed handshake carried nothing; every other silence may have.
    let in_doubt = http.is_some_and(|kind| kind != HttpErrorKind::Connect);
    let cause = cause(&text, &error);
    let mut said = Error::new(kind, format!("can not {doing} in {place}")).because(cause);
    if let Some(hint) = hint {
        said = said.hint(hint);
    }
    Failure {
        error: said,
        transient,
        in_doubt,
        unsupported,
    }
}

/// Whether it was not the store that was asked, but who says who we are: by the words of gcp/sign_in.rs and of object_store.
fn is_sign_in(text: &str) -> bool {
    text.contains("can not sign in at") || text.contains("Error performing token request")
}

fn is_no_tls(text: &str) -> bool {
    text.contains("InvalidContentType") || text.contains("corrupt message")
}

/// The codes of S3.
fn s3(code: &str, text: &str) -> Option<(Kind, String)> {
    let say = |kind: Kind, hint: &str| Some((kind, hint.to_owned()));
    match code {
        "SignatureDoesNotMatch" => say(
            Kind::Unauthorized,
            "the secret key is wrong: check aws_secret_access_key in the location's credentials file, or AWS_SECRET_ACCESS_KEY",
        ),
        "InvalidAccessKeyId" | "InvalidClientTokenId" => say(
            Kind::Unauthorized,
            "the store does not know this key: check aws_access_key_id in the location's credentials file (and config.profile), or AWS_ACCESS_KEY_ID",
        ),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => say(
            Kind::Unauthorized,
            "the session token has expired or is wrong: renew aws_session_token in the location's credentials file, or AWS_SESSION_TOKEN",
        ),
        "RequestTimeTooSkewed" => say(
            Kind::Unauthorized,
            "the clocks of this machine and of the store differ by more than 15 minutes: set this machine's clock",
        ),
        "NoSuchBucket" => say(
            Kind::NotFound,
            "there is no such bucket: check objectStorage.bucket (and config.s3Url and config.region), or create the bucket",
        ),
        "InvalidBucketName" => say(
            Kind::Invalid,
            "the store allows no bucket of this name: check objectStorage.bucket",
        ),
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "IllegalLocationConstraintException" => {
            let hint = match between(text, "Region") {
                Some(region) => {
                    format!("the bucket is in another region: set config.region to {region:?}")
                }
                None => "the bucket is in another region: set config.region".to_owned(),
            };
            Some((Kind::Invalid, hint))
        }
        "AccessDenied" | "AllAccessDisabled" => say(
            Kind::Forbidden,
            "the keys are known but may not do this: the location's user needs s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its objects; where a policy allows one folder of the bucket, objectStorage.prefix is that folder",
        ),
        "InvalidRequest" if text.contains("Content-MD5") => say(
            Kind::Invalid,
            "the bucket locks objects and wants a checksum with each: set config.checksumAlgorithm to SHA256",
        ),
        _ if text.contains("incorrectly configured region") => say(
            Kind::Invalid,
            "the bucket is in another region: set config.region",
        ),
        _ => None,
    }
}

fn meaning(
    words: &Words,
    text: &str,
    code: &str,
    status: Option<u16>,
    http: Option<HttpErrorKind>,
    error: &object_store::Error,
) -> (Kind, Option<String>) {
    let say = |hint: &str| Some(hint.to_owned());
    let endpoint = words.endpoint;
    if let Some((kind, hint)) = (words.code)(code, text) {
        return (kind, Some(hint));
    }
    match status {
        Some(401) => {
            return (
                Kind::Unauthorized,
                say("check the location's credentials file"),
            );
        }
        Some(403) => {
            return (Kind::Forbidden, say(words.rights));
        }
        Some(404) => return (Kind::NotFound, None),
        Some(301 | 307 | 308) => {
            return (
                Kind::Invalid,
                Some(format!(
                    "the store redirects elsewhere: check {}",
                    words.address
                )),
            );
        }
        _ => {}
    }
    if text.contains("169.254.16")
        || text.contains("169.254.170.")
        || text.contains("metadata.google.internal")
    {
        return (Kind::Unauthorized, say(words.nobody));
    }
    if text.contains("UnknownIssuer")
        || text.contains("unknown issuer")
        || text.contains("UnknownCA")
    {
        return (
            Kind::Unreachable,
            say(
                "the store's certificate is of a CA that is not trusted here: give it with --cacert (etcd-launcher: --location-cacert), or as objectStorage.caCert (PEM in base64)",
            ),
        );
    }
    if text.contains("certificate") {
        return (
            Kind::Unreachable,
            Some(format!(
                "the store's certificate does not fit: check the host in {endpoint}, the certificate's dates, and --cacert or objectStorage.caCert"
            )),
        );
    }
    if is_no_tls(text) {
        return (
            Kind::Unreachable,
            Some(format!(
                "the store does not speak TLS on this port: use http:// in {endpoint}, or the TLS port"
            )),
        );
    }
    if text.contains("dns error") || text.contains("failed to lookup address") {
        return (
            Kind::Unreachable,
            Some(format!(
                "the host's name is not known here: check {}; an address ending in .svc works only inside its cluster",
                words.address
            )),
        );
    }
    if text.contains("connection closed before message completed")
        || text.contains("HTTP request to an HTTPS server")
    {
        return (
            Kind::Unreachable,
            Some(format!(
                "who answers there hangs up: where the port is a TLS port, {endpoint} begins with https://"
            )),
        );
    }
    if http.is_some() && is_sign_in(text) {
        return (
            Kind::Unreachable,
            say(
                "the sign-in service does not answer: check the network, the VPN and the proxy settings",
            ),
        );
    }
    if http.is_some() {
        return (
            Kind::Unreachable,
            Some(format!(
                "nobody answers there: check {endpoint}, the network, the VPN and the proxy settings"
            )),
        );
    }
    match error {
        object_store::Error::NotFound { .. } => (Kind::NotFound, None),
        object_store::Error::PermissionDenied { .. } => (Kind::Forbidden, None),
        object_store::Error::Unauthenticated { .. } => (Kind::Unauthorized, None),
        object_store::Error::AlreadyExists { .. } => (Kind::AlreadyExists, None),
        object_store::Error::InvalidPath { .. } => (
            Kind::Corrupt,
            say("the store's listing has a key with empty or relative parts; remove that object"),
        ),
        _ => (Kind::Other, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_s3_is_read_for_its_code_and_sentence() {
        let body = "<Error><Code>NoSuchBucket</Code><Message>It is not there.</Message></Error>";
        let text = format!("Server returned non-2xx status code: 404 Not Found: {body}");
        let error = object_store::Error::Generic {
            store: "S3",
            source: text.into(),
        };
        let failure = of(&S3, "list x", "bucket \"b\"", error);
        assert_eq!(failure.error.kind(), Kind::NotFound);
        assert!(
            failure
                .error
                .hint_text()
                .unwrap()
                .contains("objectStorage.bucket")
        );
        assert!(!failure.transient && !failure.in_doubt);
        assert!(
            chain(&failure.error).ends_with("the store answered 404 NoSuchBucket: It is not there")
        );
    }

    #[test]
    fn a_bucket_that_locks_objects_says_what_it_wants() {
        let body = "<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters</Message></Error>";
        let error = object_store::Error::Generic {
            store: "S3",
            source: format!("Server returned non-2xx status code: 400 Bad Request: {body}").into(),
        };
        let failure = of(&S3, "write x", "bucket \"b\"", error);
        assert!(
            failure
                .error
                .hint_text()
                .unwrap()
                .contains("checksumAlgorithm")
        );
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_can_not_be_done_is_not() {
        for (status, transient, unsupported) in [
            ("500 Internal Server Error", true, false),
            ("503 Slow Down", true, false),
            ("429 Too Many Requests", true, false),
            ("501 Not Implemented", false, true),
            ("400 Bad Request", false, false),
            ("403 Forbidden", false, false),
        ] {
            let error = object_store::Error::Generic {
                store: "S3",
                source: format!("Server returned non-2xx status code: {status}: ").into(),
            };
            let failure = of(&S3, "read x", "b", error);
            assert_eq!(
                (failure.transient, failure.unsupported),
                (transient, unsupported),
                "{status}"
            );
        }
    }
}
