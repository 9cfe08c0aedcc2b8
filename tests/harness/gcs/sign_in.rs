//! Google's sign-in, as far as a client sees it: tokens for a refresh token, a foreign token, a service account and a machine; and the check of a token that a
//! service account's key has signed. <https://google.aip.dev/auth>

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

pub(super) const CLIENT: &str = "harness-client";
pub(super) const CLIENT_SECRET: &str = "harness-client-secret";
pub(super) const REFRESH_TOKEN: &str = "good-refresh-token";
pub(super) const SUBJECT: &str = "harness-subject-token";
pub(super) const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";
const EMAIL: &str = "backup@harness.iam.gserviceaccount.com";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Who is known, and the tokens that are good.
pub(super) struct Accounts {
    private: String,
    public: Vec<u8>,
    tokens: Mutex<HashMap<String, Instant>>,
    given: AtomicUsize,
    lasts: Mutex<Duration>,
}

/// Status and JSON of an answer.
pub(super) type Reply = (u16, Value);

impl Accounts {
    pub(super) fn new() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let body = STANDARD.encode(der.as_ref());
        Self {
            private: format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"),
            public: pair.public_key().as_ref().to_vec(),
            tokens: Mutex::default(),
            given: AtomicUsize::new(0),
            lasts: Mutex::new(Duration::from_secs(3600)),
        }
    }

    pub(super) fn service_account(&self) -> Value {
        json!({
            "type": "service_account", "project_id": "harness", "private_key_id": "1", "private_key": self.private,
            "client_email": EMAIL, "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
        })
    }

    pub(super) fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }

    pub(super) fn last(&self, time: Duration) {
        *self.lasts.lock().unwrap() = time;
    }

    fn give(&self) -> (String, u64) {
        let number = self.given.fetch_add(1, Ordering::SeqCst);
        let lasts = *self.lasts.lock().unwrap();
        let token = format!("harness-token-{number}");
        let mut tokens = self.tokens.lock().unwrap();
        tokens.insert(token.clone(), Instant::now() + lasts);
        (token, lasts.as_secs())
    }

    /// Whether whoever sends these headers is known.
    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        let bearer = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) else {
            return false;
        };
        let ends = self.tokens.lock().unwrap().get(token).copied();
        ends.map_or_else(|| self.has_signed(token), |ends| Instant::now() < ends)
    }

    /// <https://google.aip.dev/auth/4111>
    fn has_signed(&self, token: &str) -> bool {
        let Some((message, signature)) = token.rsplit_once('.') else {
            return false;
        };
        let (Ok(signature), Some(claims)) = (URL_SAFE_NO_PAD.decode(signature), claims(message))
        else {
            return false;
        };
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public);
        let now = jiff::Timestamp::now().as_second();
        key.verify(message.as_bytes(), &signature).is_ok()
            && claims["iss"] == EMAIL
            && claims["scope"] == SCOPE
            && claims["exp"].as_i64().is_some_and(|end| end > now)
    }

    /// Whether this address at Google is one that the service account has signed, and still holds.
    /// <https://cloud.google.com/storage/docs/authentication/canonical-requests>
    pub(super) fn has_signed_address(&self, method: &Method, target: &str) -> bool {
        let Some((path, query)) = target.split_once('?') else {
            return false;
        };
        let named = form(query.as_bytes());
        let text = |name: &str| named.get(name).map(String::as_str).unwrap_or_default();
        let (who, scope) = text("X-Goog-Credential")
            .split_once('/')
            .unwrap_or_default();
        let (date, expires) = (text("X-Goog-Date"), text("X-Goog-Expires"));
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.retain(|pair| !pair.starts_with("X-Goog-Signature="));
        pairs.sort_unstable();
        let canonical = format!(
            "{method}\n{path}\n{}\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD",
            pairs.join("&"),
            super::itself::HOST
        );
        let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{hashed}");
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public);
        let signature = unhex(text("X-Goog-Signature")).unwrap_or_default();
        let signed_at = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", date)
            .and_then(|parsed| parsed.to_datetime()?.to_zoned(jiff::tz::TimeZone::UTC));
        let holds = signed_at.is_ok_and(|at| {
            let seconds = expires.parse().unwrap_or(0);
            at.timestamp() + Duration::from_secs(seconds) > jiff::Timestamp::now()
        });
        key.verify(to_sign.as_bytes(), &signature).is_ok()
            && who == EMAIL
            && scope
                == format!(
                    "{}/auto/storage/goog4_request",
                    date.get(..8).unwrap_or_default()
                )
            && text("X-Goog-SignedHeaders") == "host"
            && holds
    }

    /// Answers what is asked of Google's sign-in; nothing for other paths.
    pub(super) fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Option<Reply> {
        let form = form(body);
        let is = |name: &str, value: &str| form.get(name).is_some_and(|one| one == value);
        let refused =
            |code: &str, why: &str| (400, json!({"error": code, "error_description": why}));
        let token = || {
            let (token, seconds) = self.give();
            let body =
                json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"});
            (200, body)
        };
        let has = |name: &str, value: &str| headers.get(name).is_some_and(|one| one == value);
        let reply = match (method, path) {
            (&Method::POST, "/sign-in/token") => {
                let is_client = is("client_id", CLIENT) && is("client_secret", CLIENT_SECRET);
                if !is_client {
                    refused("invalid_client", "The OAuth client was not found.")
                } else if is("grant_type", "refresh_token") && is("refresh_token", REFRESH_TOKEN) {
                    token()
                } else {
                    refused("invalid_grant", "Token has been expired or revoked.")
                }
            }
            (&Method::GET, "/sign-in/subject") if has("x-who", "me") => {
                (200, json!({"token": SUBJECT}))
            }
            (&Method::POST, "/sign-in/exchange") => {
                let is_exchange = is(
                    "grant_type",
                    "urn:ietf:params:oauth:grant-type:token-exchange",
                ) && is("scope", SCOPE)
                    && is(
                        "requested_token_type",
                        "urn:ietf:params:oauth:token-type:access_token",
                    );
                if is_exchange && is("audience", AUDIENCE) && is("subject_token", SUBJECT) {
                    token()
                } else {
                    refused("invalid_grant", "The given credential is rejected.")
                }
            }
            (&Method::POST, "/sign-in/impersonate") if self.knows(headers) => {
                let (token, seconds) = self.give();
                let ends = jiff::Timestamp::now() + Duration::from_secs(seconds);
                (
                    200,
                    json!({"accessToken": token, "expireTime": ends.to_string()}),
                )
            }
            (&Method::GET, "/computeMetadata/v1/instance/service-accounts/default/token")
                if has("metadata-flavor", "Google") =>
            {
                token()
            }
            _ if path.starts_with("/sign-in/") || path.starts_with("/computeMetadata/") => {
                (403, json!({"error": "access_denied"}))
            }
            _ => return None,
        };
        Some(reply)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

fn claims(message: &str) -> Option<Value> {
    let (_, payload) = message.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// A form's fields.
pub(crate) fn form(body: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(body).replace('+', " ");
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (super::front::decoded(name), super::front::decoded(value)))
        .collect()
}
