//! Who signs identities in for Azure, as far as a client sees it: tokens for a client secret, for a foreign token and for a machine.
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::gcs::form;
use crate::http_server::{self, Server};
use crate::pki::Identity;

pub const TENANT: &str = "7bd33e01-6dd0-4a0c-8c9b-0e5d5c5a1a01";
pub const CLIENT: &str = "1d5a7a52-1f8d-4f5f-9a3d-7a5f0f3e2b02";
pub const CLIENT_SECRET: &str = "harness~client~secret";
pub(super) const ASSERTION: &str = "harness-federated-token";

const SCOPE: &str = "https://storage.azure.com/.default";
const RESOURCE: &str = "https://storage.azure.com";

#[derive(Default)]
pub(super) struct Entra {
    given: AtomicUsize,
    lasts: Mutex<Option<Duration>>,
}

pub(super) fn serve(entra: &Arc<Entra>, identity: &Identity) -> Server {
    let entra = Arc::clone(entra);
    Server::start_with(Some(identity), move || {
        let entra = Arc::clone(&entra);
        Box::new(move |request| {
            let entra = Arc::clone(&entra);
            Box::pin(async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let target = parts.uri.to_string();
                let (status, json) = entra.answer(&parts.method, &target, &parts.headers, &body);
                Ok(Response::builder()
                    .status(status)
                    .header("content-type", "application/json")
                    .body(http_server::full(json.to_string()))?)
            })
        })
    })
}

impl Entra {
    pub(super) fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }

    pub(super) fn last(&self, time: Duration) {
        *self.lasts.lock().unwrap() = Some(time);
    }

    /// A token as Azurite looks at it, and how many seconds it lasts.
    fn token(&self) -> (String, u64) {
        let number = self.given.fetch_add(1, Ordering::SeqCst);
        let lasts = self
            .lasts
            .lock()
            .unwrap()
            .unwrap_or(Duration::from_secs(3600));
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "aud": RESOURCE, "iss": format!("https://sts.windows.net/{TENANT}/"), "iat": now, "nbf": now - 60,
            "exp": now + lasts.as_secs() as i64, "tid": TENANT, "jti": number.to_string(),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(&json!({"typ": "JWT", "alg": "RS256"}));
        (format!("{head}.{}.c2ln", part(&claims)), lasts.as_secs())
    }

    fn answer(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let refused = |status: u16, code: &str, why: &str| {
            (status, json!({"error": code, "error_description": why}))
        };
        if path == "/identity" {
            let query = form(query.as_bytes());
            let is_asked = headers.get("metadata").is_some_and(|value| value == "true")
                && query.get("resource").is_some_and(|value| value == RESOURCE);
            let is_known = query.get("client_id").is_none_or(|client| client == CLIENT);
            if !is_asked || !is_known {
                return refused(400, "invalid_request", "Identity not found");
            }
            let (token, seconds) = self.token();
            let ends = jiff::Timestamp::now().as_second() + seconds as i64;
            return (
                200,
                json!({"access_token": token, "expires_on": ends.to_string(), "resource": RESOURCE, "token_type": "Bearer"}),
            );
        }
        let form = form(body);
        let is = |name: &str, value: &str| form.get(name).is_some_and(|one| one == value);
        if method != Method::POST || path != format!("/{TENANT}/oauth2/v2.0/token") {
            return refused(400, "invalid_request", "AADSTS90002: Tenant not found.");
        }
        if !is("client_id", CLIENT) {
            let why = "AADSTS700016: Application was not found in the directory.";
            return refused(400, "unauthorized_client", why);
        }
        let by_token = is(
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ) && is("client_assertion", ASSERTION);
        if !(is("client_secret", CLIENT_SECRET) || by_token) {
            let why = "AADSTS7000215: Invalid client secret provided.";
            return refused(401, "invalid_client", why);
        }
        if !is("grant_type", "client_credentials") || !is("scope", SCOPE) {
            return refused(400, "invalid_scope", "AADSTS70011: Invalid scope.");
        }
        let (token, seconds) = self.token();
        (
            200,
            json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"}),
        )
    }
}
