//! What a bucket's refusals mean: who should change which setting. Pure.

use std::error::Error as StdError;
use std::fmt;

use object_store::client::{HttpError, HttpErrorKind};

use super::backend::Failure;
use crate::error::{Error, Kind};

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
    chain(error).contains("NoSuchBucket")
}

/// The text between two tags of an answer in XML.
pub(super) fn between<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    let (value, _) = rest.split_once(&format!("</{tag}>"))?;
    Some(value.trim()).filter(|value| !value.is_empty() && value.len() < 500)
}

/// The HTTP status that object_store's message names.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
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
    if let Some(code) = between(text, "Code") {
        let message = between(text, "Message").unwrap_or_default();
        let said = message.trim_end_matches('.');
        return match status(text) {
            Some(status) => format!("the store answered {status} {code}: {said}"),
            None => format!("the store answered {code}: {said}"),
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
pub(crate) fn of(doing: &str, place: &str, error: object_store::Error) -> Failure {
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
    let code = between(&text, "Code").unwrap_or_default().to_owned();
    let status = status(&text);
    let http = http_kind(&error);
    let (kind, hint) = meaning(&text, &code, status, http, &error);
    // What a handshake refuses stays refused.
    let tls = text.contains("certificate") || is_no_tls(&text);
    let transient = match status {
        Some(501) => false,
        Some(408 | 429 | 500..) => true,
        Some(_) => false,
        None => http.is_some() && !tls && kind == Kind::Unreachable,
    } || code == "SlowDown"
        || code == "InternalError";
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

fn is_no_tls(text: &str) -> bool {
    text.contains("InvalidContentType") || text.contains("corrupt message")
}

fn meaning(
    text: &str,
    code: &str,
    status: Option<u16>,
    http: Option<HttpErrorKind>,
    error: &object_store::Error,
) -> (Kind, Option<String>) {
    let say = |hint: &str| Some(hint.to_owned());
    match code {
        "SignatureDoesNotMatch" => {
            return (
                Kind::Unauthorized,
                say(
                    "the secret key is wrong: check aws_secret_access_key in the location's credentials file, or AWS_SECRET_ACCESS_KEY",
                ),
            );
        }
        "InvalidAccessKeyId" | "InvalidClientTokenId" => {
            return (
                Kind::Unauthorized,
                say(
                    "the store does not know this key: check aws_access_key_id in the location's credentials file (and config.profile), or AWS_ACCESS_KEY_ID",
                ),
            );
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            return (
                Kind::Unauthorized,
                say(
                    "the session token has expired or is wrong: renew aws_session_token in the location's credentials file, or AWS_SESSION_TOKEN",
                ),
            );
        }
        "RequestTimeTooSkewed" => {
            return (
                Kind::Unauthorized,
                say(
                    "the clocks of this machine and of the store differ by more than 15 minutes: set this machine's clock",
                ),
            );
        }
        "NoSuchBucket" => {
            return (
                Kind::NotFound,
                say(
                    "there is no such bucket: check objectStorage.bucket (and config.s3Url and config.region), or create the bucket",
                ),
            );
        }
        "InvalidBucketName" => {
            return (
                Kind::Invalid,
                say("the store allows no bucket of this name: check objectStorage.bucket"),
            );
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "IllegalLocationConstraintException" => {
            let hint = match between(text, "Region") {
                Some(region) => {
                    format!("the bucket is in another region: set config.region to {region:?}")
                }
                None => "the bucket is in another region: set config.region".to_owned(),
            };
            return (Kind::Invalid, Some(hint));
        }
        "AccessDenied" | "AllAccessDisabled" => {
            return (
                Kind::Forbidden,
                say(
                    "the keys are known but may not do this: the location's user needs s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its objects",
                ),
            );
        }
        _ => {}
    }
    if code == "InvalidRequest" && text.contains("Content-MD5") {
        return (
            Kind::Invalid,
            say(
                "the bucket locks objects and wants a checksum with each: set config.checksumAlgorithm to SHA256",
            ),
        );
    }
    if text.contains("incorrectly configured region") {
        return (
            Kind::Invalid,
            say("the bucket is in another region: set config.region"),
        );
    }
    match status {
        Some(401) => {
            return (
                Kind::Unauthorized,
                say("check the location's credentials file"),
            );
        }
        Some(403) => {
            return (
                Kind::Forbidden,
                say(
                    "the store refuses these keys or this action: check the location's credentials file and the bucket's policy",
                ),
            );
        }
        Some(404) => return (Kind::NotFound, None),
        Some(301 | 307 | 308) => {
            return (
                Kind::Invalid,
                say("the store redirects elsewhere: check config.region and config.s3Url"),
            );
        }
        _ => {}
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
            say(
                "the store's certificate does not fit: check the host in config.s3Url, the certificate's dates, and --cacert or objectStorage.caCert",
            ),
        );
    }
    if is_no_tls(text) {
        return (
            Kind::Unreachable,
            say(
                "the store does not speak TLS on this port: use http:// in config.s3Url, or the TLS port",
            ),
        );
    }
    if text.contains("dns error") || text.contains("failed to lookup address") {
        return (
            Kind::Unreachable,
            say(
                "the host's name is not known here: check config.s3Url (or config.region); an address ending in .svc works only inside its cluster",
            ),
        );
    }
    if text.contains("connection closed before message completed")
        || text.contains("HTTP request to an HTTPS server")
    {
        return (
            Kind::Unreachable,
            say(
                "who answers there hangs up: where the port is a TLS port, config.s3Url begins with https://",
            ),
        );
    }
    if http.is_some() {
        return (
            Kind::Unreachable,
            say(
                "nobody answers there: check config.s3Url, the network, the VPN and the proxy settings",
            ),
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
        let failure = of("list x", "bucket \"b\"", error);
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
        let failure = of("write x", "bucket \"b\"", error);
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
            let failure = of("read x", "b", error);
            assert_eq!(
                (failure.transient, failure.unsupported),
                (transient, unsupported),
                "{status}"
            );
        }
    }
}
