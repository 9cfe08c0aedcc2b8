//! For tests: an API server in memory with a snapshot controller, a sidecar and a driver. They do one thing at each request, in the way of external-snapshotter 8.7, so that whoever
//! looks sees every state in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::cut::Wanted;
use super::objects::TOUCHED;
use crate::cluster::Cluster;

/// A snapshot of a claim in namespace shop, by the driver of this storage.
pub(crate) fn wanted(claim: &str, is_asked: bool) -> Wanted {
    Wanted {
        namespace: "shop".into(),
        claim: claim.into(),
        uid: format!("uid-{claim}"),
        class: "fast".into(),
        driver: "d.io".into(),
        volume: "v".into(),
        is_asked,
    }
}

const ROOT: &str = "/apis/snapshot.storage.k8s.io/v1";
const BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
const SOURCE: &str = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
const CUT: u64 = 1_796_032_801_000_000_000;
const DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Value>,
    /// Handles of what the storage has.
    pub(crate) holds: BTreeSet<String>,
    /// `GET path`, ...
    pub(crate) asked: Vec<String>,
    /// The policy of classes.
    pub(crate) policy: Option<&'static str>,
    /// It cuts, and is never ready: with these words.
    pub(crate) never_ready: Option<&'static str>,
    /// Nobody may make contents.
    pub(crate) no_contents: bool,
    /// No controller runs.
    pub(crate) is_idle: bool,
    /// It deletes nothing.
    pub(crate) keeps: bool,
    /// It deletes what it is made to look at again.
    pub(crate) overlooks: bool,
    made: u64,
}

#[derive(Clone, Default)]
pub(crate) struct Storage(Arc<Mutex<State>>);

impl Storage {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A client.
    pub(crate) fn cluster(&self) -> Cluster {
        self.dying(usize::MAX, Arc::default())
    }

    /// A client whose process is killed before its request of this number is sent: it hears nothing any more, and who waits is told.
    pub(crate) fn dying(&self, at: usize, dead: Arc<Notify>) -> Cluster {
        let (state, asked) = (Arc::clone(&self.0), Arc::new(Mutex::new(0)));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (state, asked, dead) = (Arc::clone(&state), Arc::clone(&asked), Arc::clone(&dead));
            async move {
                let number = {
                    let mut asked = asked.lock().unwrap();
                    *asked += 1;
                    *asked - 1
                };
                if number >= at {
                    dead.notify_one();
                    std::future::pending::<()>().await;
                }
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (code, answer) = {
                    let mut state = state.lock().unwrap();
                    if !state.is_idle {
                        state.tick();
                    }
                    let path = head.uri.path();
                    state.asked.push(format!("{} {path}", head.method));
                    state.answer(
                        head.method.as_str(),
                        path,
                        head.uri.query().unwrap_or_default(),
                        &body,
                    )
                };
                let response = Response::builder().status(code);
                Ok::<_, std::convert::Infallible>(
                    response
                        .body(Body::from(answer.to_string().into_bytes()))
                        .unwrap(),
                )
            }
        });
        Cluster::new(
            kube::Client::new(service, "default"),
            "test",
            "https://test",
        )
    }
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({"reason": reason, "message": "refused", "code": code}),
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is_content(path: &str) -> bool {
    path.starts_with(&format!("{ROOT}/volumesnapshotcontents/"))
}

fn is_snapshot(path: &str) -> bool {
    path.contains("/volumesnapshots/")
}

impl State {
    pub(crate) fn put(&mut self, path: &str, mut object: Value) {
        self.made += 1;
        object["metadata"]["uid"] = format!("uid-{}", self.made).into();
        object["metadata"]["resourceVersion"] = "1".into();
        object["metadata"]["creationTimestamp"] = "2026-11-30T12:00:00Z".into();
        self.objects.insert(path.to_owned(), object);
    }

    pub(crate) fn snapshot_objects(&self) -> Vec<String> {
        let all = self.objects.keys();
        all.filter(|path| is_content(path) || is_snapshot(path))
            .cloned()
            .collect()
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        if let Some(object) = self.objects.get_mut(path) {
            change(object);
            let version: u64 = text(&object["metadata"]["resourceVersion"])
                .parse()
                .unwrap();
            object["metadata"]["resourceVersion"] = (version + 1).to_string().into();
        }
    }

    /// One thing that a controller does, the first that is due.
    fn tick(&mut self) {
        let paths: Vec<String> = self.objects.keys().cloned().collect();
        let _ = paths.iter().any(|path| match path {
            path if is_content(path) => self.content(path),
            path if is_snapshot(path) => self.snapshot(path),
            _ => false,
        });
    }

    fn snapshot(&mut self, path: &str) -> bool {
        let object = self.objects[path].clone();
        let (meta, source, status) = (
            &object["metadata"],
            &object["spec"]["source"],
            &object["status"],
        );
        let uid = text(&meta["uid"]);
        let named = match source["volumeSnapshotContentName"].as_str() {
            Some(name) => name.to_owned(),
            None => format!("snapcontent-{uid}"),
        };
        let at = format!("{ROOT}/volumesnapshotcontents/{named}");
        let content = self.objects.get(&at).cloned();
        if !meta["deletionTimestamp"].is_null() {
            let claims = self
                .objects
                .iter()
                .filter(|(path, _)| path.contains("/persistentvolumeclaims/"));
            let mut claims = claims.filter(|(_, claim)| claim["status"]["phase"] == "Pending");
            if claims.any(|(_, claim)| claim["spec"]["dataSource"]["name"] == meta["name"]) {
                return false;
            }
            match content {
                Some(content) if content["metadata"]["annotations"][DELETED].is_null() => {
                    self.change(&at, |content| {
                        content["metadata"]["annotations"][DELETED] = "yes".into();
                    });
                }
                Some(content) if content["spec"]["deletionPolicy"] == "Delete" => {
                    if !content["metadata"]["deletionTimestamp"].is_null() {
                        return false;
                    }
                    self.change(&at, |content| {
                        content["metadata"]["deletionTimestamp"] = "now".into();
                    });
                }
                _ => drop(self.objects.remove(path)),
            }
            return true;
        }
        if meta["finalizers"].is_null() {
            self.change(path, |object| {
                object["metadata"]["finalizers"] = json!([SOURCE]);
            });
            return true;
        }
        if content.is_none() && source["persistentVolumeClaimName"].is_null() {
            return false;
        }
        let Some(content) = content else {
            let policy = self.policy.unwrap_or("Delete");
            let of = json!({"namespace": meta["namespace"], "name": meta["name"], "uid": uid});
            let made = json!({"metadata": {"name": named, "finalizers": [BOUND]},
                "spec": {"driver": "d.io", "deletionPolicy": policy, "source": {"volumeHandle": "v"}, "volumeSnapshotRef": of}});
            self.put(&at, made);
            return true;
        };
        if content["spec"]["volumeSnapshotRef"]["uid"].is_null() {
            self.change(&at, |content| {
                content["spec"]["volumeSnapshotRef"]["uid"] = uid.into();
                content["metadata"]["finalizers"] = json!([BOUND]);
            });
            return true;
        }
        // The content has numbers where this one has a time and a quantity.
        let told = &content["status"];
        let mut wanted = json!({});
        if !told["creationTime"].is_null() {
            wanted["creationTime"] = "2026-11-30T10:00:01Z".into();
        }
        if !told["restoreSize"].is_null() {
            wanted["restoreSize"] = "1Gi".into();
        }
        for key in ["readyToUse", "error"] {
            if !told[key].is_null() {
                wanted[key] = told[key].clone();
            }
        }
        wanted["boundVolumeSnapshotContentName"] = named.into();
        if *status == wanted {
            return false;
        }
        self.change(path, |object| object["status"] = wanted);
        true
    }

    fn content(&mut self, path: &str) -> bool {
        let object = self.objects[path].clone();
        let (meta, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
        let is_static = spec["source"]["snapshotHandle"].is_string();
        if !meta["deletionTimestamp"].is_null() {
            let is_unbound = is_static && spec["volumeSnapshotRef"]["uid"].is_null();
            if !is_unbound && meta["annotations"][DELETED].is_null() {
                return false;
            }
            if self.overlooks && meta["annotations"][TOUCHED].is_null() {
                return false;
            }
            if spec["deletionPolicy"] == "Delete" && status["snapshotHandle"].is_string() {
                // Of what the driver says then the sidecar tells nothing on the object.
                if self.keeps {
                    return false;
                }
                self.holds.remove(&text(&status["snapshotHandle"]));
                self.change(path, |object| object["status"] = json!({}));
                return true;
            }
            self.objects.remove(path);
            return true;
        }
        let size = 1_u64 << 30;
        if is_static && status["readyToUse"].is_null() {
            let handle = text(&spec["source"]["snapshotHandle"]);
            let status = match self.holds.contains(&handle) {
                true => {
                    json!({"snapshotHandle": handle, "readyToUse": true, "restoreSize": size, "creationTime": CUT})
                }
                false => {
                    json!({"error": {"message": format!("failed to list snapshot for content x: \"can not find snapshot for snapshotID {handle}\"")}})
                }
            };
            if object["status"] == status {
                return false;
            }
            self.change(path, |object| object["status"] = status);
            return true;
        }
        if !is_static && status.is_null() {
            let handle = format!("snap-{}", text(&meta["uid"]));
            self.holds.insert(handle.clone());
            let status =
                json!({"snapshotHandle": handle, "readyToUse": false, "creationTime": CUT});
            self.change(path, |object| object["status"] = status);
            return true;
        }
        if status["readyToUse"] == false {
            if let Some(words) = self.never_ready {
                let error = json!({"message": words});
                if status["error"] == error {
                    return false;
                }
                self.change(path, |object| object["status"]["error"] = error);
                return true;
            }
            self.change(path, |object| {
                object["status"]["readyToUse"] = true.into();
                object["status"]["restoreSize"] = size.into();
            });
            return true;
        }
        false
    }

    fn answer(&mut self, verb: &str, path: &str, query: &str, body: &[u8]) -> (u16, Value) {
        let names = |path: &str| self.objects.contains_key(path);
        match verb {
            "GET" if names(path) => (200, self.objects[path].clone()),
            "GET" if query.contains("limit=") => {
                let key = query
                    .rsplit_once("%2C")
                    .map(|(_, key)| key.replace("%2F", "/"));
                let (_, plural) = path.rsplit_once('/').unwrap();
                let of = |path: &str, object: &Value| {
                    let labels = &object["metadata"]["labels"];
                    let has = key.as_ref().is_none_or(|key| labels[key].is_string());
                    path.rsplit('/').nth(1) == Some(plural) && has
                };
                let items = self
                    .objects
                    .iter()
                    .filter(|(path, object)| of(path, object));
                let items: Vec<&Value> = items.map(|(_, object)| object).collect();
                (200, json!({"items": items, "metadata": {}}))
            }
            "GET" => refusal(404, "NotFound"),
            "POST" => {
                let object: Value = serde_json::from_slice(body).unwrap();
                if self.no_contents && path.ends_with("/volumesnapshotcontents") {
                    return refusal(403, "Forbidden");
                }
                let key = format!("{path}/{}", text(&object["metadata"]["name"]));
                if names(&key) {
                    return refusal(409, "AlreadyExists");
                }
                self.put(&key, object);
                (201, self.objects[&key].clone())
            }
            "PATCH" => {
                let Some(found) = self.objects.get(path) else {
                    return refusal(404, "NotFound");
                };
                let patch: Value = serde_json::from_slice(body).unwrap();
                let version = &patch["metadata"]["resourceVersion"];
                if *version != found["metadata"]["resourceVersion"] {
                    return refusal(409, "Conflict");
                }
                self.change(path, |object| merge(object, &patch));
                (200, self.objects[path].clone())
            }
            "DELETE" => {
                let Some(found) = self.objects.get(path) else {
                    return refusal(404, "NotFound");
                };
                let options: Value = serde_json::from_slice(body).unwrap();
                let is = |key: &str| options["preconditions"][key] == found["metadata"][key];
                if !is("uid") || !is("resourceVersion") {
                    return refusal(409, "Conflict");
                }
                if found["metadata"]["finalizers"].is_null() {
                    self.objects.remove(path);
                } else {
                    self.change(path, |object| {
                        object["metadata"]["deletionTimestamp"] = "now".into();
                    });
                }
                (200, json!({}))
            }
            other => panic!("{other} {path}"),
        }
    }
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
        merge(&mut target[key.as_str()], value);
    }
}
