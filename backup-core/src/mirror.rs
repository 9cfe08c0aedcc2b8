//! A copy of all objects of one kind in one namespace, kept by a list and a watch. Reads the API server alone; what the objects mean is the caller's
//! business, and so is what is done when it is told that something changed.
//!
//! A copy may be a moment old. What the caller wrote himself it puts in at once ([`Mirror::put`]); an older state that the watch brings later does not
//! replace it. Versions are numbers that grow, as the API server has them since 1.35 by contract and always had; where one is no number, the newest word counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{WatchEvent, WatchParams};
use kube::core::Request;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::cluster::{ApiError, Cluster, page};

/// Objects of a page.
const PAGE: usize = 500;

/// A page is not larger, or smaller ones are asked for; an object is at most 1.5 MiB, and these are small as a rule.
const LARGEST_PAGE: usize = 32 << 20;

/// After a list or a watch that failed.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The server ends a watch after so many seconds, and another one goes on.
const WATCH_SECONDS: u32 = 240;

/// The copy. Dropping it ends the watch.
#[derive(Debug)]
pub struct Mirror {
    copy: Arc<Copy>,
    watch: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Copy {
    state: Mutex<State>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Arc<Value>>,
    is_whole: bool,
    failed: Option<String>,
}

impl Mirror {
    /// Begins to copy the objects of this path (`/apis/velero.io/v1/namespaces/NS/backups`); `changed` is told of every change.
    pub fn start(cluster: &Cluster, path: String, changed: Arc<Notify>) -> Self {
        let copy = Arc::new(Copy {
            state: Mutex::default(),
            changed,
        });
        let watch = tokio::spawn(keep(cluster.clone(), path, Arc::clone(&copy)));
        Self { copy, watch }
    }

    /// Whether all objects were read once.
    pub fn is_whole(&self) -> bool {
        self.copy.state().is_whole
    }

    /// Why the objects can not be read at the moment.
    pub fn failed(&self) -> Option<String> {
        self.copy.state().failed.clone()
    }

    /// All objects, by name.
    pub fn all(&self) -> Vec<Arc<Value>> {
        self.copy.state().objects.values().cloned().collect()
    }

    /// The object of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Value>> {
        self.copy.state().objects.get(name).cloned()
    }

    /// An object as the API server answered it to a write of the caller's.
    pub fn put(&self, object: Value) {
        self.copy.state().put(object);
    }

    /// An object that the caller saw gone.
    pub fn remove(&self, object: &Value) {
        self.copy.state().remove(object);
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Copy {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}

/// Name, uid and version of an object.
fn key(object: &Value) -> (&str, &str, &str) {
    let meta = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    (meta("name"), meta("uid"), meta("resourceVersion"))
}

/// Whether the one version is older than the other.
fn is_older(one: &str, other: &str) -> bool {
    match (one.parse::<u128>(), other.parse::<u128>()) {
        (Ok(one), Ok(other)) => one < other,
        _ => false,
    }
}

impl State {
    fn put(&mut self, mut object: Value) {
        // Nobody here reads who owns which field, and it is half of an object.
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
        let (name, _, version) = key(&object);
        let known = self.objects.get(name).map(|known| key(known).2);
        if known.is_some_and(|known| is_older(version, known)) {
            return;
        }
        self.objects.insert(name.to_owned(), Arc::new(object));
    }

    fn remove(&mut self, object: &Value) {
        let (name, uid, _) = key(object);
        if self
            .objects
            .get(name)
            .is_some_and(|known| key(known).1 == uid)
        {
            self.objects.remove(name);
        }
    }

    /// What a list of this version says; what was written since stays.
    fn replace(&mut self, objects: Vec<Value>, version: &str) {
        self.objects
            .retain(|_, known| is_older(version, key(known).2));
        for object in objects {
            self.put(object);
        }
        self.is_whole = true;
        self.failed = None;
    }
}

async fn keep(cluster: Cluster, path: String, copy: Arc<Copy>) {
    let mut pause = PAUSE;
    loop {
        match list(&cluster, &path).await {
            Ok((objects, version)) => {
                copy.state().replace(objects, &version);
                copy.changed.notify_one();
                pause = PAUSE;
                follow(&cluster, &path, version, &copy).await;
            }
            Err(e) => {
                copy.state().failed = Some(e.to_string());
                copy.changed.notify_one();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// All objects, and the version they have in common.
async fn list(cluster: &Cluster, path: &str) -> Result<(Vec<Value>, String), ApiError> {
    let mut objects = Vec::new();
    let mut token = String::new();
    let mut limit = PAGE;
    loop {
        let asked = page(path, limit, &token);
        let body = match cluster.get_bounded(&asked, LARGEST_PAGE).await {
            // Somebody made large ones; each alone is small enough.
            Err(e) if e.too_big && limit > 1 => {
                limit /= 8;
                limit = limit.max(1);
                continue;
            }
            answer => answer?,
        };
        let mut page: Value = serde_json::from_slice(&body).map_err(|e| ApiError {
            message: format!("{path} answers with something that is no list: {e}"),
            ..ApiError::default()
        })?;
        if let Value::Array(items) = page["items"].take() {
            objects.extend(items);
        }
        let meta = |key: &str| {
            page["metadata"][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        token = meta("continue");
        if token.is_empty() {
            return Ok((objects, meta("resourceVersion")));
        }
    }
}

/// Follows the changes since a version, until they have to be listed anew.
async fn follow(cluster: &Cluster, path: &str, mut version: String, copy: &Copy) {
    loop {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let Ok(request) = Request::new(path).watch(&params, &version) else {
            return;
        };
        let Ok(events) = cluster.client().request_events::<Value>(request).await else {
            tokio::time::sleep(PAUSE).await;
            return;
        };
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            let Ok(event) = event else {
                // A connection that broke: what is known is known.
                tokio::time::sleep(PAUSE).await;
                break;
            };
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    key(&object).2.clone_into(&mut version);
                    copy.state().put(object);
                }
                WatchEvent::Deleted(object) => {
                    key(&object).2.clone_into(&mut version);
                    copy.state().remove(&object);
                }
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                // The version is too old, or something else that a list settles.
                WatchEvent::Error(_) => {
                    tokio::time::sleep(PAUSE).await;
                    return;
                }
            }
            copy.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, uid: &str, version: &str) -> Value {
        json!({"metadata": {"name": name, "uid": uid, "resourceVersion": version, "managedFields": [1]}})
    }

    fn versions(state: &State) -> Vec<(&str, &str)> {
        let all = state.objects.values();
        all.map(|object| (key(object).0, key(object).2)).collect()
    }

    #[test]
    fn what_was_written_is_not_undone_by_an_older_word() {
        let mut state = State::default();
        state.put(object("a", "1", "99"));
        state.put(object("a", "1", "100"));
        state.put(object("a", "1", "99"));
        assert_eq!(versions(&state), [("a", "100")]);
        assert_eq!(state.objects["a"]["metadata"]["managedFields"], Value::Null);
        // A list of an older version than an own write keeps it; what it lacks besides is gone.
        state.put(object("b", "2", "7"));
        state.replace(vec![object("c", "3", "5")], "50");
        assert_eq!(versions(&state), [("a", "100"), ("c", "5")]);
        // Another object's end is not this one's.
        state.remove(&object("a", "other", "120"));
        assert_eq!(versions(&state), [("a", "100"), ("c", "5")]);
        state.remove(&object("a", "1", "120"));
        assert_eq!(versions(&state), [("c", "5")]);
    }
}
