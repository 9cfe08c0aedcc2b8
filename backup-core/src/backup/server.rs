//! An API server for tests, in memory: discovery, lists with limits and tokens, and whatever fault a test wants.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;

use crate::cluster::Cluster;

/// A request as the server sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Without the query.
    pub(crate) path: String,
    /// Decoded.
    pub(crate) query: BTreeMap<String, String>,
    /// How many requests of the same path and query came before.
    pub(crate) before: usize,
}

impl Asked {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    /// Whether it is a list's first page, not a first look.
    pub(crate) fn is_first_page(&self) -> bool {
        self.get("limit").is_some_and(|limit| limit != "1") && self.get("continue").is_none()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// A Status.
pub(crate) fn refuse(code: u16, reason: &str, message: &str) -> Answer {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    Answer {
        status: code,
        body: body.to_string(),
    }
}

type Fault = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

/// The server's state.
pub(crate) struct Server {
    /// Items by the path of their collection.
    pub(crate) items: BTreeMap<String, Vec<String>>,
    /// Answers of exact paths.
    pub(crate) fixed: BTreeMap<String, Answer>,
    /// The revision of every list.
    pub(crate) revision: u64,
    /// Looked at first.
    pub(crate) fault: Box<Fault>,
    /// What was asked.
    pub(crate) log: Mutex<Vec<Asked>>,
}

impl Server {
    /// Serves the resources of [`resources`], without any object but the namespaces `default` and `kube-system`.
    pub(crate) fn new() -> Self {
        let mut server = Self {
            items: BTreeMap::new(),
            fixed: BTreeMap::new(),
            revision: 100,
            fault: Box::new(|_| None),
            log: Mutex::default(),
        };
        server.discovery(&resources());
        let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3"});
        server.fix("/version", 200, &version.to_string());
        server.namespace("default", "{}");
        server.namespace("kube-system", "{}");
        server
    }

    pub(crate) fn namespace(&mut self, name: &str, labels: &str) {
        let object = format!(
            r#"{{"metadata":{{"name":"{name}","uid":"uid-{name}","labels":{labels}}},"status":{{"phase":"Active"}}}}"#
        );
        self.fix(&format!("/api/v1/namespaces/{name}"), 200, &{
            let rest = &object[1..];
            format!(r#"{{"kind":"Namespace","apiVersion":"v1",{rest}"#)
        });
        self.add("/api/v1/namespaces", &object);
    }

    /// Adds an object to a collection over all namespaces.
    pub(crate) fn add(&mut self, path: &str, object: &str) {
        self.items
            .entry(path.to_owned())
            .or_default()
            .push(object.to_owned());
    }

    pub(crate) fn fix(&mut self, path: &str, status: u16, body: &str) {
        let body = body.to_owned();
        self.fixed.insert(path.to_owned(), Answer { status, body });
    }

    /// Aggregated discovery of `(group, version, freshness, [(plural, kind, namespaced)])`.
    pub(crate) fn discovery(&mut self, groups: &[Group]) {
        for (path, core) in [("/api", true), ("/apis", false)] {
            let items: Vec<_> = groups
                .iter()
                .filter(|(group, ..)| group.is_empty() == core)
                .map(|(group, version, freshness, types)| {
                    let types: Vec<_> = types
                        .iter()
                        .map(|(plural, kind, namespaced)| {
                            json!({"resource": plural, "responseKind": {"group": "", "version": "", "kind": kind},
                                "scope": if *namespaced { "Namespaced" } else { "Cluster" },
                                "singularResource": kind.to_lowercase(),
                                "verbs": ["create", "delete", "get", "list", "watch"],
                                "subresources": [{"subresource": "status", "verbs": ["get"]}]})
                        })
                        .collect();
                    json!({"metadata": {"name": group}, "versions": [
                        {"version": version, "freshness": freshness, "resources": types}]})
                })
                .collect();
            let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
                "metadata": {}, "items": items});
            self.fix(path, 200, &list.to_string());
        }
    }

    /// A client of it.
    pub(crate) fn start(self) -> (Cluster, Arc<Self>) {
        let server = Arc::new(self);
        let client = kube::Client::new(Service(Arc::clone(&server)), "default");
        (Cluster::new(client, "test", "https://server.test"), server)
    }

    fn answer(&self, path: &str, query: &str) -> Answer {
        let mut asked = Asked {
            path: path.to_owned(),
            query: url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            before: 0,
        };
        {
            let mut log = self.log.lock().unwrap();
            let same = |a: &&Asked| a.path == asked.path && a.query == asked.query;
            asked.before = log.iter().filter(same).count();
            log.push(asked.clone());
        }
        if let Some(answer) = (self.fault)(&asked) {
            return answer;
        }
        if let Some(answer) = self.fixed.get(path) {
            return answer.clone();
        }
        self.list(&asked)
    }

    fn list(&self, asked: &Asked) -> Answer {
        // `/api/v1/namespaces/NS/pods` is a part of `/api/v1/pods`.
        let (path, namespace) = match asked.path.split_once("/namespaces/") {
            Some((root, rest)) => match rest.split_once('/') {
                Some((namespace, plural)) => (format!("{root}/{plural}"), Some(namespace)),
                None => return refuse(404, "NotFound", "not found"),
            },
            None => (asked.path.clone(), None),
        };
        let none = Vec::new();
        let all: Vec<&String> = self
            .items
            .get(&path)
            .unwrap_or(&none)
            .iter()
            .filter(|item| {
                namespace.is_none_or(|ns| item.contains(&format!(r#""namespace":"{ns}""#)))
            })
            .collect();
        let limit: usize = asked
            .get("limit")
            .map_or(usize::MAX, |l| l.parse().unwrap());
        let from: usize = asked.get("continue").map_or(0, |token| {
            token.rsplit(':').next().unwrap().parse().unwrap()
        });
        let to = from.saturating_add(limit).min(all.len());
        let revision = match (asked.get("resourceVersion"), asked.get("continue")) {
            (Some(exact), _) => exact.parse().unwrap(),
            (None, Some(token)) => token.split(':').next().unwrap().parse().unwrap(),
            (None, None) => self.revision,
        };
        let rest = all.len() - to;
        let more = if rest > 0 {
            format!(r#","continue":"{revision}:{to}","remainingItemCount":{rest}"#)
        } else {
            String::new()
        };
        let items: Vec<&str> = all[from..to].iter().map(|s| s.as_str()).collect();
        Answer {
            status: 200,
            body: format!(
                r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"{revision}"{more}}},"items":[{}]}}"#,
                items.join(",")
            ),
        }
    }
}

/// `(group, version, freshness, [(plural, kind, namespaced)])`
pub(crate) type Group = (
    &'static str,
    &'static str,
    &'static str,
    Vec<(&'static str, &'static str, bool)>,
);

/// What a small cluster serves.
pub(crate) fn resources() -> Vec<Group> {
    vec![
        (
            "",
            "v1",
            "Current",
            vec![
                ("configmaps", "ConfigMap", true),
                ("events", "Event", true),
                ("namespaces", "Namespace", false),
                ("persistentvolumeclaims", "PersistentVolumeClaim", true),
                ("persistentvolumes", "PersistentVolume", false),
                ("pods", "Pod", true),
                ("secrets", "Secret", true),
                ("serviceaccounts", "ServiceAccount", true),
            ],
        ),
        (
            "apps",
            "v1",
            "Current",
            vec![("deployments", "Deployment", true)],
        ),
        (
            "events.k8s.io",
            "v1",
            "Current",
            vec![("events", "Event", true)],
        ),
        (
            "rbac.authorization.k8s.io",
            "v1",
            "Current",
            vec![
                ("clusterrolebindings", "ClusterRoleBinding", false),
                ("clusterroles", "ClusterRole", false),
            ],
        ),
        (
            "example.com",
            "v1",
            "Current",
            vec![("widgets", "Widget", true)],
        ),
    ]
}

#[derive(Clone)]
struct Service(Arc<Server>);

impl tower::Service<Request<kube::client::Body>> for Service {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let uri = request.uri();
        let answer = self.0.answer(uri.path(), uri.query().unwrap_or_default());
        Box::pin(async move {
            // Others get their turn, as they would while a network is waited for.
            tokio::task::yield_now().await;
            Ok(Response::builder()
                .status(answer.status)
                .header("retry-after", "0")
                .body(Full::new(Bytes::from(answer.body)))
                .unwrap())
        })
    }
}
