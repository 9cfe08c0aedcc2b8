//! What hands out keys at Amazon: the Security Token Service, the address of a container and the one of a machine, all on one port of loopback. It
//! checks what the real ones check (signature, role, External ID, tokens) and gives out temporary keys of a MinIO, with an end of its own choice.
//!
//! Signatures are checked by Amazon's description of version 4, and not by the library with which the product makes them.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::{digest, hmac};
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;

use crate::http_server::{self, Server};
use crate::mock::Reply;
use crate::proxy::{Action, Match, Proxy};
use crate::store::Minio;

const ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]}]}"#;

/// What a container has to show.
pub const CONTAINER_TOKEN: &str = "token-of-the-container";
/// What a pod has to show, as a file's content.
pub const POD_TOKEN: &str = "header.claims-of-the-pod.signature";
const MACHINE_SESSION: &str = "session-of-the-machine";
const MACHINE_ROLE: &str = "role-of-the-machine";

/// A request to it, and whom it gave which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The action, or the path.
    pub what: String,
    pub role: String,
    /// The name that the session was given.
    pub session: String,
    /// The access key of who signed; empty where nobody did.
    pub signer: String,
    /// The access key that was given out; empty where it was refused.
    pub given: String,
    /// What the keys may do at most; empty where nothing was said of it.
    pub policy: String,
}

/// Keys that were given out.
struct Given {
    secret: String,
    token: String,
    ends: Instant,
}

struct State {
    minio: Box<dyn Deref<Target = Minio> + Send + Sync>,
    life: Duration,
    /// Who may sign: access keys and secrets.
    signers: BTreeMap<String, String>,
    /// Roles that may be taken, and the External ID that each wants.
    roles: BTreeMap<String, Option<String>>,
    given: Mutex<BTreeMap<String, Given>>,
    asked: Mutex<Vec<Asked>>,
}

/// The running services.
pub struct Sts {
    state: Arc<State>,
    server: Server,
}

/// Services that are being set up.
pub struct Builder {
    state: State,
}

/// A request, whole.
struct Seen {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: String,
}

impl Sts {
    /// Services that give out keys of this store for so long.
    pub fn of(
        minio: impl Deref<Target = Minio> + Send + Sync + 'static,
        life: Duration,
    ) -> Builder {
        Builder {
            state: State {
                minio: Box::new(minio),
                life,
                signers: BTreeMap::new(),
                roles: BTreeMap::new(),
                given: Mutex::default(),
                asked: Mutex::default(),
            },
        }
    }

    /// The address of STS, and of the machine's metadata.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where a container gets its keys.
    pub fn container_url(&self) -> String {
        format!("{}/container", self.url())
    }

    /// Every request so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// The secret and the token of keys that were given out.
    pub fn secrets(&self, access_key: &str) -> (String, String) {
        let given = self.state.given.lock().unwrap();
        let given = given.get(access_key).expect("they were given out");
        (given.secret.clone(), given.token.clone())
    }

    /// The store, as Amazon's: it refuses keys that have ended.
    pub fn store(&self) -> Proxy {
        self.refusing_ended(Proxy::start(self.state.minio.upstream()))
    }

    /// The same on another address of this machine than loopback.
    pub fn store_on(&self, address: &str) -> Proxy {
        self.refusing_ended(Proxy::start_on(address, self.state.minio.upstream()))
    }

    fn refusing_ended(&self, proxy: Proxy) -> Proxy {
        let state = Arc::clone(&self.state);
        let ended = Match::when(move |parts| {
            let key = signer(&parts.headers);
            let given = state.given.lock().unwrap();
            given
                .get(&key)
                .is_some_and(|given| given.ends < Instant::now())
        });
        let refusal = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
        proxy.every(ended, Action::status(400, refusal));
        proxy
    }
}

impl Builder {
    /// Keys that may sign.
    #[must_use]
    pub fn signer(mut self, access_key: &str, secret_key: &str) -> Self {
        self.state
            .signers
            .insert(access_key.to_owned(), secret_key.to_owned());
        self
    }

    /// A role that may be taken.
    #[must_use]
    pub fn role(mut self, arn: &str, external_id: Option<&str>) -> Self {
        let id = external_id.map(str::to_owned);
        self.state.roles.insert(arn.to_owned(), id);
        self
    }

    pub fn start(self) -> Sts {
        let state = Arc::new(self.state);
        let answering = Arc::clone(&state);
        let server = Server::start(move || {
            let state = Arc::clone(&answering);
            Box::new(move |request| {
                let state = Arc::clone(&state);
                Box::pin(async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let seen = Seen {
                        method: parts.method,
                        target: parts.uri.to_string(),
                        headers: parts.headers,
                        body: String::from_utf8_lossy(&body).into_owned(),
                    };
                    // The store is asked in between, with a client that blocks.
                    let reply = tokio::task::spawn_blocking(move || state.reply(&seen)).await?;
                    Ok(Response::builder()
                        .status(reply.status)
                        .header("content-type", reply.content_type)
                        .body(http_server::full(reply.body))?)
                })
            })
        });
        Sts { state, server }
    }
}

/// The access key of a signed request.
pub fn signer(headers: &HeaderMap) -> String {
    let text = headers.get("authorization");
    let text = text
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    field(text, "Credential=")
        .and_then(|scope| scope.split('/').next())
        .unwrap_or_default()
        .to_owned()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(name)?;
    rest.split(',').next().map(str::trim)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn decoded(form: &str) -> BTreeMap<String, String> {
    let text = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = tail;
            bytes.push(match first {
                b'%' => {
                    let digits = std::str::from_utf8(&tail[..2]).unwrap();
                    rest = &tail[2..];
                    u8::from_str_radix(digits, 16).unwrap()
                }
                b'+' => b' ',
                other => *other,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (text(key), text(value)))
        .collect()
}

impl State {
    fn reply(&self, seen: &Seen) -> Reply {
        let header = |name: &str| {
            let value = seen.headers.get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let of_machine = header("x-aws-ec2-metadata-token") == MACHINE_SESSION;
        let roles = "/latest/meta-data/iam/security-credentials/";
        let text = |status, text: &str| Reply::new(status, "text/plain", text.to_owned());
        match (&seen.method, seen.target.as_str()) {
            (&Method::POST, "/") => self.sts(seen),
            (&Method::GET, "/container") if header("authorization") == CONTAINER_TOKEN => {
                self.json("container")
            }
            (&Method::PUT, "/latest/api/token")
                if !header("x-aws-ec2-metadata-token-ttl-seconds").is_empty() =>
            {
                text(200, MACHINE_SESSION)
            }
            (&Method::GET, target) if of_machine && target == roles => text(200, MACHINE_ROLE),
            (&Method::GET, target) if of_machine && target == format!("{roles}{MACHINE_ROLE}") => {
                self.json("machine")
            }
            _ => text(401, "not you"),
        }
    }

    fn json(&self, what: &str) -> Reply {
        let (id, secret, token, ends) = self.keys(Asked {
            what: what.to_owned(),
            role: String::new(),
            session: String::new(),
            signer: String::new(),
            given: String::new(),
            policy: String::new(),
        });
        Reply::json(format!(
            r#"{{"Code":"Success","AccessKeyId":"{id}","SecretAccessKey":"{secret}","Token":"{token}","Expiration":"{ends}"}}"#
        ))
    }

    fn sts(&self, seen: &Seen) -> Reply {
        let form = decoded(&seen.body);
        let text = |key: &str| form.get(key).cloned().unwrap_or_default();
        let mut asked = Asked {
            what: text("Action"),
            role: text("RoleArn"),
            session: text("RoleSessionName"),
            signer: signer(&seen.headers),
            given: String::new(),
            policy: text("Policy"),
        };
        let refuse = |status, code: &str, message: &str| {
            self.asked.lock().unwrap().push(asked.clone());
            let body = format!(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>x</RequestId></ErrorResponse>"
            );
            Reply::new(status, "text/xml", body)
        };
        let seconds: u32 = text("DurationSeconds").parse().unwrap_or_default();
        if text("Version") != "2011-06-15" || !(900..=43_200).contains(&seconds) {
            return refuse(400, "ValidationError", "a parameter is wrong");
        }
        match asked.what.as_str() {
            "AssumeRole" => {
                if let Err((code, message)) = self.signature(seen, &asked.signer) {
                    return refuse(403, code, message);
                }
            }
            "AssumeRoleWithWebIdentity" if text("WebIdentityToken") != POD_TOKEN => {
                return refuse(400, "InvalidIdentityToken", "the token is not ours");
            }
            "AssumeRoleWithWebIdentity" => {}
            _ => return refuse(400, "InvalidAction", "there is no such action"),
        }
        // Whether the role or the External ID is wrong nobody is told.
        let wanted = self.roles.get(&asked.role);
        if wanted.is_none_or(|id| id.clone().unwrap_or_default() != text("ExternalId")) {
            let message =
                "User: arn:aws:iam::1:user/u is not authorized to perform: sts:AssumeRole";
            return refuse(403, "AccessDenied", message);
        }
        let action = asked.what.clone();
        asked.given = String::new();
        let (id, secret, token, ends) = self.keys(asked);
        Reply::new(
            200,
            "text/xml",
            format!(
                "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials><AccessKeyId>{id}</AccessKeyId>\
                 <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken><Expiration>{ends}</Expiration></Credentials>\
                 <AssumedRoleUser><Arn>x</Arn><AssumedRoleId>y</AssumedRoleId></AssumedRoleUser></{action}Result>\
                 <ResponseMetadata><RequestId>z</RequestId></ResponseMetadata></{action}Response>"
            ),
        )
    }

    /// New keys of the store, and when they end.
    fn keys(&self, asked: Asked) -> (String, String, String, String) {
        // The store itself holds who has them to the policy.
        let policy = Some(asked.policy.as_str()).filter(|policy| !policy.is_empty());
        let user = self.minio.limited_user(policy.unwrap_or(ALL));
        let ends = Timestamp::now() + self.life;
        let given = Given {
            secret: user.secret_key.clone(),
            token: user.session_token.clone(),
            ends: Instant::now() + self.life,
        };
        self.given
            .lock()
            .unwrap()
            .insert(user.access_key.clone(), given);
        self.asked.lock().unwrap().push(Asked {
            given: user.access_key.clone(),
            ..asked
        });
        // Amazon writes whole seconds; cut off here, so that nobody trusts them too long.
        let ends = format!("{:.0}", Timestamp::from_second(ends.as_second()).unwrap());
        (user.access_key, user.secret_key, user.session_token, ends)
    }

    /// Whether a request was signed by who may: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.
    fn signature(&self, seen: &Seen, key: &str) -> Result<(), (&'static str, &'static str)> {
        let header = |name: &str| {
            let value = seen.headers.get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let given = self.given.lock().unwrap();
        let secret = match (self.signers.get(key), given.get(key)) {
            (Some(secret), _) => secret,
            (None, Some(given)) if given.token == header("x-amz-security-token") => &given.secret,
            _ => {
                return Err((
                    "InvalidClientTokenId",
                    "The security token included in the request is invalid.",
                ));
            }
        };
        let authorization = header("authorization");
        let wrong = Err((
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        ));
        let (Some(scope), Some(signed), Some(signature)) = (
            field(authorization, "Credential="),
            field(authorization, "SignedHeaders="),
            field(authorization, "Signature="),
        ) else {
            return wrong;
        };
        let scope: Vec<&str> = scope.split('/').skip(1).collect();
        let [day, region, "sts", "aws4_request"] = scope[..] else {
            return wrong;
        };
        let names: Vec<&str> = signed.split(';').collect();
        let date = header("x-amz-date");
        if !names.contains(&"host") || !names.contains(&"x-amz-date") || !date.starts_with(day) {
            return wrong;
        }
        let headers: String = names
            .iter()
            .map(|name| format!("{name}:{}\n", header(name).trim()))
            .collect();
        let canonical = format!(
            "{}\n{}\n\n{headers}\n{signed}\n{}",
            seen.method,
            seen.target,
            sha256(&seen.body)
        );
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{day}/{region}/sts/aws4_request\n{}",
            sha256(&canonical)
        );
        let mut key = format!("AWS4{secret}").into_bytes();
        for text in [day, region, "sts", "aws4_request"] {
            key = sign(&key, text);
        }
        if hex(&sign(&key, &to_sign)) == signature {
            Ok(())
        } else {
            wrong
        }
    }
}
