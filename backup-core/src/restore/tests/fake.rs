//! An API server in memory: a few kinds, and the verbs that a restore uses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// What it serves: group and version, plural, kind, whether it lives in namespaces.
const SERVED: [(&str, &str, &str, bool); 8] = [
    ("v1", "configmaps", "ConfigMap", true),
    ("v1", "namespaces", "Namespace", false),
    (
        "v1",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        true,
    ),
    ("v1", "persistentvolumes", "PersistentVolume", false),
    ("v1", "pods", "Pod", true),
    (
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        true,
    ),
    ("v1", "services", "Service", true),
    ("serving.knative.dev/v1", "services", "Service", true),
];

/// What it holds and was asked.
#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, Value>,
    pub(super) asked: Vec<String>,
    /// So many requests find nobody, from the first of this one on.
    pub(super) away: Option<(&'static str, usize)>,
    /// All of them find nobody.
    pub(super) is_away: bool,
    /// Answers that stand for a verb on a path that ends so.
    pub(super) refuses: Vec<(&'static str, &'static str, u16, &'static str)>,
    /// So many writes of a status find that the object was changed.
    pub(super) conflicts: usize,
    /// A new object that holds this text is refused.
    pub(super) refuses_text: Option<&'static str>,
    /// The same, and a trial of it is not.
    pub(super) refuses_later: Option<&'static str>,
    /// Admission annotates new objects, and whoever writes a status writes annotations too.
    pub(super) annotates: bool,
    /// The first delete marks the object as going, and nobody hears of it; it is gone after a look.
    pub(super) loses_delete: bool,
    /// What is deleted waits for a garbage collector that never comes.
    pub(super) hangs: bool,
    /// Credentials are good until the first delete.
    pub(super) expires: bool,
    made: u64,
}

#[derive(Clone, Default)]
pub(in crate::restore) struct Fake(pub(super) Arc<Mutex<State>>);

impl Fake {
    pub(in crate::restore) fn cluster(&self) -> Cluster {
        let state = self.0.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let state = state.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (mut verb, path) = (head.method.to_string(), head.uri.path().to_owned());
                let trial = br#""dryRun":["All"]"#;
                let query = head.uri.query().unwrap_or_default();
                if query.contains("dryRun=All")
                    || body.windows(trial.len()).any(|part| part == trial)
                {
                    verb = format!("TRY {verb}");
                }
                let mut state = state.lock().unwrap();
                state.asked.push(format!("{verb} {path}"));
                let begun = state
                    .away
                    .is_some_and(|(from, _)| state.asked.iter().any(|line| line == from));
                if let Some((_, left)) = state.away.as_mut().filter(|(_, left)| begun && *left > 0)
                {
                    *left -= 1;
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                }
                if state.is_away {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                }
                if state.loses_delete && verb == "DELETE" {
                    state.loses_delete = false;
                    let found = &mut state.objects.get_mut(&path).unwrap()["metadata"];
                    found["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                    found["resourceVersion"] = "8".into();
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
                }
                let (code, answer) = state.answer(&verb, &path, &body);
                let going = !answer["metadata"]["deletionTimestamp"].is_null();
                if verb == "GET" && going && !state.hangs {
                    state.objects.remove(&path);
                }
                Ok(Response::builder()
                    .status(code)
                    .header("Retry-After", "0")
                    .body(Body::from(answer.to_string().into_bytes()))
                    .unwrap())
            }
        });
        Cluster::new(
            kube::Client::new(service, "default"),
            "test",
            "https://test",
        )
    }

    pub(in crate::restore) fn put(&self, path: &str, object: Value) {
        self.0
            .lock()
            .unwrap()
            .objects
            .insert(path.to_owned(), object);
    }

    pub(in crate::restore) fn remove(&self, path: &str) {
        self.0.lock().unwrap().objects.remove(path);
    }

    /// Nobody answers any more.
    pub(in crate::restore) fn stays_away(&self) {
        self.0.lock().unwrap().is_away = true;
    }

    /// This verb is refused on paths that end so.
    pub(in crate::restore) fn refuses(&self, verb: &'static str, end: &'static str, code: u16) {
        self.refuses_for(verb, end, code, "Forbidden");
    }

    /// The same for this reason.
    pub(in crate::restore) fn refuses_for(
        &self,
        verb: &'static str,
        end: &'static str,
        code: u16,
        reason: &'static str,
    ) {
        let refusal = (verb, end, code, reason);
        self.0.lock().unwrap().refuses.push(refusal);
    }

    /// Whether it was asked for this: a verb, and how a path begins.
    pub(in crate::restore) fn was_asked(&self, request: &str) -> bool {
        let state = self.0.lock().unwrap();
        state.asked.iter().any(|asked| asked.starts_with(request))
    }

    /// The first object that is kept below this.
    pub(in crate::restore) fn first(&self, below: &str) -> Option<Value> {
        let state = self.0.lock().unwrap();
        let mut all = state.objects.iter();
        let found = all.find(|(path, _)| path.starts_with(below));
        found.map(|(_, object)| object.clone())
    }

    pub(in crate::restore) fn get(&self, path: &str) -> Value {
        self.0
            .lock()
            .unwrap()
            .objects
            .get(path)
            .cloned()
            .unwrap_or_default()
    }
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let message = format!("refused: {reason}");
    (code, json!({"reason": reason, "message": message}))
}

impl State {
    fn answer(&mut self, verb: &str, path: &str, body: &[u8]) -> (u16, Value) {
        if let Some((.., code, reason)) = self
            .refuses
            .iter()
            .find(|(v, end, ..)| *v == verb && path.ends_with(end))
        {
            return refusal(*code, reason);
        }
        let served = |version: &str| {
            let resources: Vec<Value> = SERVED
                .iter()
                .filter(|(v, ..)| *v == version)
                .map(|(_, plural, kind, namespaced)| {
                    json!({"name": plural, "kind": kind, "namespaced": namespaced,
                        "singularName": kind.to_lowercase(), "verbs": ["get", "list", "create", "patch", "delete"]})
                })
                .collect();
            (
                200,
                json!({"kind": "APIResourceList", "resources": resources}),
            )
        };
        let expired = self.asked.iter().any(|line| line.starts_with("DELETE"));
        if self.expires && verb == "POST" && expired {
            return refusal(401, "Unauthorized");
        }
        if path.ends_with("/selfsubjectaccessreviews") {
            return (201, json!({"status": {"allowed": true}}));
        }
        match path {
            "/api" => return (200, json!({"kind": "APIVersions", "versions": ["v1"]})),
            "/apis" => {
                return (
                    200,
                    json!({"kind": "APIGroupList", "groups": [
                    {"name": "serving.knative.dev", "versions": [{"version": "v1"}]}]}),
                );
            }
            "/api/v1" => return served("v1"),
            "/apis/serving.knative.dev/v1" => return served("serving.knative.dev/v1"),
            _ => {}
        }
        let segments = path.trim_start_matches('/').split('/').collect::<Vec<_>>();
        let depth = if segments[0] == "api" { 2 } else { 3 };
        let object = matches!(
            segments[depth..],
            ["namespaces", _] | [_, _] | ["namespaces", _, _, _]
        );
        match verb {
            "GET" if object => match self.objects.get(path) {
                Some(found) => (200, found.clone()),
                None => refusal(404, "NotFound"),
            },
            "GET" => {
                let items: Vec<&Value> = self
                    .objects
                    .iter()
                    .filter(|(key, _)| key.rsplit_once('/').is_some_and(|(to, _)| lists(to, path)))
                    .map(|(_, object)| object)
                    .collect();
                (200, json!({"items": items, "metadata": {}}))
            }
            "POST" | "TRY POST" => {
                let mut made: Value = serde_json::from_slice(body).unwrap();
                let key = format!("{path}/{}", made["metadata"]["name"].as_str().unwrap());
                let text = made.to_string();
                let later = self.refuses_later.filter(|_| verb == "POST");
                let mut refused = self.refuses_text.iter().chain(&later);
                if refused.any(|part| text.contains(part)) {
                    return refusal(422, "Invalid");
                }
                if self.objects.contains_key(&key) {
                    return refusal(409, "AlreadyExists");
                }
                if verb != "POST" {
                    return (201, made);
                }
                self.made += 1;
                made["metadata"]["uid"] =
                    format!("00000000-0000-0000-0000-{:012}", self.made).into();
                if self.annotates {
                    made["metadata"]["annotations"]["admission"] = "was here".into();
                }
                self.objects.insert(key, made.clone());
                (201, made)
            }
            "DELETE" | "TRY DELETE" => {
                let options: Value = serde_json::from_slice(body).unwrap();
                let hit = &options["preconditions"];
                let Some(found) = self.objects.get(path) else {
                    return refusal(404, "NotFound");
                };
                let is = |key: &str| {
                    hit[key].as_str() == Some(found["metadata"][key].as_str().unwrap_or(""))
                };
                // What is deleted by its uid alone is none of the objects that are made anew.
                let is_whole = !hit["resourceVersion"].is_null();
                if !is("uid") || is_whole && !is("resourceVersion") {
                    return refusal(409, "Conflict");
                }
                let is_claim = path.contains("/persistentvolumeclaims/");
                assert!(is_claim || is_whole == (options["propagationPolicy"] == "Orphan"));
                if verb == "DELETE" && self.hangs {
                    let found = &mut self.objects.get_mut(path).unwrap()["metadata"];
                    found["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                    found["finalizers"] = json!(["orphan"]);
                } else if verb == "DELETE" {
                    self.objects.remove(path);
                }
                (200, json!({}))
            }
            "PATCH" | "TRY PATCH"
                if self
                    .objects
                    .get(path)
                    .is_some_and(|found| found["immutable"] == true) =>
            {
                refusal(422, "Invalid")
            }
            "TRY PATCH" if self.objects.contains_key(path) => (200, self.objects[path].clone()),
            "PATCH" => match self.objects.get_mut(path) {
                Some(found) => {
                    let patch: Value = serde_json::from_slice(body).unwrap();
                    let of = |object: &Value| object["metadata"]["resourceVersion"].clone();
                    if !of(&patch).is_null() && !of(found).is_null() && of(&patch) != of(found) {
                        return refusal(409, "Conflict");
                    }
                    merge(found, &patch);
                    if path.contains("/persistentvolumes/") && !of(found).is_null() {
                        self.made += 1;
                        found["metadata"]["resourceVersion"] = format!("r{}", self.made).into();
                    }
                    (200, found.clone())
                }
                None => refusal(404, "NotFound"),
            },
            "PUT" => {
                let path = path.trim_end_matches("/status");
                let written: Value = serde_json::from_slice(body).unwrap();
                if self.conflicts > 0 {
                    self.conflicts -= 1;
                    // Somebody was faster.
                    self.objects.get_mut(path).unwrap()["metadata"]["labels"]["by"] =
                        "another".into();
                    return refusal(409, "Conflict");
                }
                let found = self.objects.get_mut(path).unwrap();
                assert_eq!(written["metadata"]["uid"], found["metadata"]["uid"]);
                found["status"] = written["status"].clone();
                if self.annotates {
                    found["metadata"]["annotations"] = written["metadata"]["annotations"].clone();
                }
                (200, found.clone())
            }
            other => panic!("{other} {path}"),
        }
    }
}

/// Whether a list of `path` shows what is in `folder`: the same, or every namespace's.
fn lists(folder: &str, path: &str) -> bool {
    let everywhere = folder.split_once("/namespaces/").and_then(|(root, rest)| {
        let (_, plural) = rest.split_once('/')?;
        Some(format!("{root}/{plural}"))
    });
    folder == path || everywhere.is_some_and(|everywhere| everywhere == path)
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}
