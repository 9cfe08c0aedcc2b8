//! A proxy that makes faults: between the plugin and an API server, or between it and an object store.
//!
//! It forwards what it gets unchanged, the Host header included, because signatures of S3 cover it. Bodies stream
//! both ways, and so do those of connections that become others, as for `exec`: of these only the beginning is a request.

mod forward;
mod gate;
mod writes;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;

use crate::http_client::{Endpoint, Failure};
use crate::http_server::{self, Body, Server};
use crate::pki::Identity;
use crate::process::PidSlot;
use forward::Upstream;
pub use gate::Gate;
pub use writes::{Write, Writes};

/// The head of a request on its way.
#[derive(Debug, Clone)]
pub struct RequestParts {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
}

impl RequestParts {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

type Condition = Arc<dyn Fn(&RequestParts) -> bool + Send + Sync>;

/// Which requests a rule is about: those that fulfil all of it.
#[derive(Clone, Default)]
pub struct Match {
    method: Option<Method>,
    path: Option<String>,
    condition: Option<Condition>,
}

impl Match {
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests with this method.
    pub fn method(method: &str) -> Self {
        Self::any().and_method(method)
    }

    /// Requests whose path and query contain this.
    pub fn path(part: &str) -> Self {
        Self {
            path: Some(part.to_owned()),
            ..Self::any()
        }
    }

    /// Requests this closure says yes to.
    pub fn when(condition: impl Fn(&RequestParts) -> bool + Send + Sync + 'static) -> Self {
        Self {
            condition: Some(Arc::new(condition)),
            ..Self::any()
        }
    }

    pub fn and_method(mut self, method: &str) -> Self {
        self.method = Some(method.parse().expect("a method"));
        self
    }

    pub fn and_path(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    pub fn fits(&self, parts: &RequestParts) -> bool {
        self.method
            .as_ref()
            .is_none_or(|method| *method == parts.method)
            && self
                .path
                .as_ref()
                .is_none_or(|part| parts.target.contains(part))
            && self
                .condition
                .as_ref()
                .is_none_or(|condition| condition(parts))
    }
}

/// What happens to a request.
#[derive(Clone)]
pub enum Action {
    /// It waits, and goes on to the next rules.
    Delay(Duration),
    /// The server carries it out, and the answer waits.
    DelayAnswer(Duration),
    /// It goes on to the next rules with another path and query.
    Retarget(Arc<dyn Fn(&str) -> String + Send + Sync>),
    /// Something runs before it goes on to the next rules. It may block.
    Hook(Arc<dyn Fn() + Send + Sync>),
    /// The connection is closed; the server never hears of it.
    Cut,
    /// The server carries it out; the connection is closed instead of an answer.
    CutAfterForward,
    /// The connection is closed after so many bytes of the answer's body.
    CutBody(usize),
    /// After so many bytes of the answer's body nothing more comes, and the connection stays open.
    HoldBody(usize),
    /// An answer of the proxy's own; the server never hears of the request.
    Status(u16, Vec<(String, String)>, Bytes),
    /// The same before the request's body was heard, whose rest is thrown away with the connection: the answer may be lost with it.
    Interrupt(u16, Bytes),
    /// The server's answer with another body.
    Replace(Bytes),
    /// A process is killed before the request goes anywhere.
    Kill(Arc<PidSlot>),
    /// A process is killed after the server has carried out the request, and before it can know.
    KillAfterForward(Arc<PidSlot>),
}

impl Action {
    /// An answer with a body of JSON.
    pub fn status(code: u16, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self::Status(code, headers, body.into())
    }

    pub fn hook(run: impl Fn() + Send + Sync + 'static) -> Self {
        Self::Hook(Arc::new(run))
    }

    pub fn retarget(change: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::Retarget(Arc::new(change))
    }
}

/// One rule: what happens to which requests, to each of them or only to the nth (counted from 1).
#[derive(Clone)]
pub struct Rule {
    pub when: Match,
    pub nth: Option<usize>,
    pub action: Action,
}

/// A request that has passed, and how it was answered; no status where the connection was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub status: Option<u16>,
}

/// A rule, and how many requests it has fitted.
struct Counted {
    rule: Rule,
    fitted: AtomicUsize,
}

#[derive(Default)]
struct State {
    rules: Mutex<Vec<Arc<Counted>>>,
    calls: Mutex<Vec<Call>>,
}

/// A running proxy; dropping it closes its connections.
pub struct Proxy {
    state: Arc<State>,
    server: Server,
}

impl Proxy {
    /// Listens with plain HTTP and forwards to `upstream`, trusting the authority that is named there. Where it names
    /// a client certificate, every request is made by that user: kubectl sends no token over plain HTTP.
    pub fn start(upstream: &Endpoint) -> Self {
        Self::start_with(upstream, Ipv4Addr::LOCALHOST.into(), None)
    }

    /// The same on an address of this machine that others than this machine reach, such as the one a node has on its outside.
    pub fn start_on(address: &str, upstream: &Endpoint) -> Self {
        Self::start_with(upstream, address.parse().expect("an address"), None)
    }

    /// The same with TLS: some clients send no token over plain HTTP.
    pub fn start_tls(upstream: &Endpoint, identity: &Identity) -> Self {
        Self::start_with(upstream, Ipv4Addr::LOCALHOST.into(), Some(identity))
    }

    fn start_with(upstream: &Endpoint, address: IpAddr, identity: Option<&Identity>) -> Self {
        let state = Arc::new(State::default());
        let connector = upstream.connector();
        let answering = Arc::clone(&state);
        let server = Server::start_on(address, identity, move || {
            let upstream = Arc::new(Upstream::new(connector.clone()));
            let state = Arc::clone(&answering);
            Box::new(move |request| {
                let (upstream, state) = (Arc::clone(&upstream), Arc::clone(&state));
                Box::pin(async move { state.answer(&upstream, request).await })
            })
        });
        Self { state, server }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A kubeconfig that leads to it, by a user who says nothing of itself: it is whom the proxy is for the server behind it.
    pub fn kubeconfig(&self) -> String {
        let url = self.url();
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: '{url}'}}}}], contexts: [{{name: c, context: {{cluster: c, user: c}}}}], users: [{{name: c, user: {{}}}}]}}"
        )
    }

    /// Adds a rule behind the others.
    pub fn rule(&self, rule: Rule) {
        let fitted = AtomicUsize::new(0);
        self.state
            .rules
            .lock()
            .unwrap()
            .push(Arc::new(Counted { rule, fitted }));
    }

    /// A rule for every request that fits.
    pub fn every(&self, when: Match, action: Action) {
        let nth = None;
        self.rule(Rule { when, nth, action });
    }

    /// A rule for only the nth request that fits, counted from 1 and from now.
    pub fn nth(&self, nth: usize, when: Match, action: Action) {
        let nth = Some(nth);
        self.rule(Rule { when, nth, action });
    }

    pub fn clear_rules(&self) {
        self.state.rules.lock().unwrap().clear();
    }

    /// Every request so far, in the order in which they were answered.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    pub fn clear_calls(&self) {
        self.state.calls.lock().unwrap().clear();
    }
}

impl State {
    /// The actions of all rules that fit, in order. Every rule counts, even where an earlier one ends the request.
    fn actions(&self, parts: &RequestParts) -> Vec<Action> {
        let rules = self.rules.lock().unwrap().clone();
        let mut actions = Vec::new();
        for counted in rules {
            if !counted.rule.when.fits(parts) {
                continue;
            }
            let number = counted.fitted.fetch_add(1, Ordering::SeqCst) + 1;
            if counted.rule.nth.is_none_or(|nth| nth == number) {
                actions.push(counted.rule.action.clone());
            }
        }
        actions
    }

    async fn answer(
        &self,
        upstream: &Upstream,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        let parts = RequestParts {
            method: request.method().clone(),
            target: request.uri().to_string(),
            headers: request.headers().clone(),
        };
        let answer = act(upstream, request, self.actions(&parts)).await;
        self.calls.lock().unwrap().push(Call {
            method: parts.method,
            target: parts.target,
            status: answer.as_ref().ok().map(|answer| answer.status().as_u16()),
        });
        answer
    }
}

async fn act(
    upstream: &Upstream,
    mut request: Request<Incoming>,
    actions: Vec<Action>,
) -> Result<Response<Body>, Failure> {
    for action in actions {
        match action {
            Action::Delay(duration) => tokio::time::sleep(duration).await,
            Action::Hook(run) => tokio::task::spawn_blocking(move || run()).await?,
            Action::DelayAnswer(duration) => {
                let answer = upstream.carry_out(request).await?;
                tokio::time::sleep(duration).await;
                return Ok(answer);
            }
            Action::Retarget(change) => {
                *request.uri_mut() = change(&request.uri().to_string()).parse()?;
            }
            Action::Cut => return Err("cut by a rule".into()),
            Action::Kill(slot) => {
                slot.kill();
                return Err("its sender was killed by a rule".into());
            }
            Action::CutAfterForward => {
                upstream.carry_out(request).await?;
                return Err("cut by a rule after it was carried out".into());
            }
            Action::KillAfterForward(slot) => {
                upstream.carry_out(request).await?;
                slot.kill();
                return Err("its sender was killed by a rule".into());
            }
            Action::CutBody(length) => {
                let answer = upstream.forward(request).await?;
                return Ok(answer.map(|body| forward::cut_after(length, body)));
            }
            Action::HoldBody(length) => {
                let answer = upstream.forward(request).await?;
                return Ok(answer.map(|body| forward::hold_after(length, body)));
            }
            Action::Status(code, headers, body) => {
                // As stores do: who answers while a large body is still coming breaks the pipe it comes through, and the answer is lost.
                forward::drain(request.into_body()).await?;
                let answer = headers
                    .iter()
                    .fold(Response::builder().status(code), |answer, (name, value)| {
                        answer.header(name, value)
                    });
                return Ok(answer.body(http_server::full(body))?);
            }
            Action::Interrupt(code, body) => {
                let answer = Response::builder().status(code);
                return Ok(answer
                    .header("connection", "close")
                    .body(http_server::full(body))?);
            }
            Action::Replace(body) => {
                let (mut parts, _) = upstream.carry_out(request).await?.into_parts();
                for name in ["content-length", "transfer-encoding", "content-encoding"] {
                    parts.headers.remove(name);
                }
                return Ok(Response::from_parts(parts, http_server::full(body)));
            }
        }
    }
    upstream.forward(request).await
}
