//! A server that answers what a test has written down, byte for byte.
//!
//! For what no real server can be brought to say: numbers no library would write, answers that make no sense.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;

use crate::http_server::{self, Server};

/// A request as the mock has seen it, body included.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub body: Bytes,
}

/// What the mock answers.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub body: Bytes,
}

impl Reply {
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type: content_type.to_owned(),
            body: body.into(),
        }
    }

    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::new(200, "application/json", body)
    }
}

type Answers = dyn Fn(&Seen) -> Reply + Send + Sync;

/// What is known: answers by target, and all requests so far.
#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<String, Arc<Answers>>>,
    seen: Mutex<Vec<Seen>>,
}

/// A mock server of an API; what it was not told of is answered with 404.
pub struct Mock {
    script: Arc<Script>,
    server: Server,
}

impl Mock {
    /// A server that knows nothing yet.
    pub fn start() -> Self {
        let script = Arc::new(Script::default());
        let answering = Arc::clone(&script);
        let server = Server::start(move || {
            let script = Arc::clone(&answering);
            Box::new(move |request| {
                let script = Arc::clone(&script);
                Box::pin(async move {
                    let (parts, body) = request.into_parts();
                    let seen = Seen {
                        method: parts.method,
                        target: parts.uri.to_string(),
                        body: body.collect().await?.to_bytes(),
                    };
                    let reply = script.reply(&seen);
                    Ok(Response::builder()
                        .status(reply.status)
                        .header("content-type", reply.content_type)
                        .body(http_server::full(reply.body))?)
                })
            })
        });
        Self { script, server }
    }

    /// A server that answers a cluster's version and lists no resource yet.
    pub fn start_cluster() -> Self {
        let mock = Self::start();
        mock.json(
            "/version",
            r#"{"major":"1","minor":"36","gitVersion":"v1.36.0","platform":"linux/amd64"}"#,
        );
        mock.json("/api", r#"{"kind":"APIVersions","versions":["v1"]}"#);
        mock.json(
            "/api/v1",
            r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[]}"#,
        );
        mock.json(
            "/apis",
            r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#,
        );
        mock
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Answers this target with JSON, exactly as given. A target with a query is looked for first, then its path.
    pub fn json(&self, target: &str, body: impl Into<Bytes>) {
        self.answer(target, Reply::json(body));
    }

    pub fn answer(&self, target: &str, reply: Reply) {
        self.answer_with(target, move |_| reply.clone());
    }

    pub fn answer_with(
        &self,
        target: &str,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) {
        let mut answers = self.script.answers.lock().unwrap();
        answers.insert(target.to_owned(), Arc::new(answer));
    }

    /// Every request so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }
}

impl Script {
    fn reply(&self, seen: &Seen) -> Reply {
        self.seen.lock().unwrap().push(seen.clone());
        let path = seen.target.split('?').next().unwrap_or_default();
        let answers = self.answers.lock().unwrap();
        let answer = answers
            .get(&seen.target)
            .or_else(|| answers.get(path))
            .cloned();
        drop(answers);
        match answer {
            Some(answer) => answer(seen),
            None => Reply {
                status: 404,
                ..Reply::json(
                    r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"NotFound","code":404}"#,
                )
            },
        }
    }
}
