//! A copy of all objects of one kind in one namespace, kept by a list and a watch. Reads the API server alone; what the objects mean is the caller's
//! business, and so is what is done when it is told that something changed.
//!
//! A copy may be a moment old. What the caller wrote himself it puts in at once ([`Mirror::put`]); an older state that the watch brings later does not
//! replace it, and of the same one nobody is told. Versions are numbers that grow, as the API server has them since 1.35 by contract and always had; where one is no number, the newest word counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;

/// Objects of a page: an object has at most 1.5 MiB, so that a page is bounded, however large somebody made them.
const PAGE: u32 = 50;

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
    /// Names that the caller wrote since the list began that is being made.
    written: BTreeSet<String>,
    is_whole: bool,
    failed: Option<String>,
}

impl Mirror {
    /// Begins to copy the objects of a kind in a namespace; `changed` is told of every change.
    pub fn start(
        cluster: &Cluster,
        namespace: &str,
        kind: &ApiResource,
        changed: Arc<Notify>,
    ) -> Self {
        let copy = Arc::new(Copy {
            state: Mutex::default(),
            changed,
        });
        let objects = Api::namespaced_with(cluster.client().clone(), namespace, kind);
        let watch = tokio::spawn(keep(objects, Arc::clone(&copy)));
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
        self.copy.state().write(object);
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
    fn write(&mut self, mut object: Value) {
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
        self.written.insert(key(&object).0.to_owned());
        self.put(object);
    }

    /// Puts a version in, and says whether it is news: what the caller wrote is none when the watch brings it.
    fn put(&mut self, object: Value) -> bool {
        let (name, uid, version) = key(&object);
        let known = self.objects.get(name).map(|known| key(known));
        if known.is_some_and(|(_, known_uid, known)| {
            is_older(version, known) || (uid, version) == (known_uid, known)
        }) {
            return false;
        }
        self.objects.insert(name.to_owned(), Arc::new(object));
        true
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

    /// A list begins.
    fn begin(&mut self) {
        self.written.clear();
    }

    /// What the list says; what was written since it began stays.
    fn replace(&mut self, objects: Vec<Value>) {
        let written = std::mem::take(&mut self.written);
        self.objects.retain(|name, _| written.contains(name));
        for object in objects {
            self.put(object);
        }
        self.is_whole = true;
        self.failed = None;
    }
}

async fn keep(objects: Api<DynamicObject>, copy: Arc<Copy>) {
    let config = watcher::Config::default().page_size(PAGE);
    let events = watcher::watcher(objects, config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                listed.clear();
                copy.state().begin();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.push(plain(&object));
                continue;
            }
            Ok(Event::InitDone) => copy.state().replace(std::mem::take(&mut listed)),
            Ok(Event::Apply(object)) => {
                if !copy.state().put(plain(&object)) {
                    continue;
                }
            }
            Ok(Event::Delete(object)) => copy.state().remove(&plain(&object)),
            // A watch that broke goes on; what is known is known.
            Err(watcher::Error::InitialListFailed(e)) => copy.state().failed = Some(e.to_string()),
            Err(_) => continue,
        }
        copy.changed.notify_one();
    }
}

/// An object as JSON, without what nobody here reads: who owns which field is half of it.
fn plain(object: &DynamicObject) -> Value {
    let mut object = serde_json::to_value(object).unwrap_or_default();
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    object
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
        assert!(state.put(object("a", "1", "99")));
        state.write(object("a", "1", "100"));
        // Nor is it news when it comes again.
        assert!(!state.put(object("a", "1", "99")));
        assert!(!state.put(object("a", "1", "100")));
        assert_eq!(versions(&state), [("a", "100")]);
        assert_eq!(state.objects["a"]["metadata"]["managedFields"], Value::Null);
        // A list keeps what was written since it began; what it lacks besides is gone.
        state.put(object("b", "2", "7"));
        state.begin();
        state.write(object("d", "4", "101"));
        state.replace(vec![object("a", "1", "100"), object("c", "3", "5")]);
        assert_eq!(versions(&state), [("a", "100"), ("c", "5"), ("d", "101")]);
        // Another object's end is not this one's.
        state.remove(&object("a", "other", "120"));
        assert_eq!(versions(&state).len(), 3);
        state.remove(&object("a", "1", "120"));
        assert_eq!(versions(&state), [("c", "5"), ("d", "101")]);
    }
}
