//! The objects of one kind in the controller's namespace: a copy to look at, and the ways to write. Knows no kind.
//!
//! Every write names the object's uid, so that it never hits another one of the same name; one that decides something names the version too.

use std::sync::Arc;

use backup_core::cluster::{ApiError, Call, Cluster};
use backup_core::error::{Error, Result};
use backup_core::mirror::Mirror;
use kube::api::ApiResource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// An object is not larger.
const LARGEST: usize = 4 << 20;

/// The objects of one kind.
#[derive(Debug)]
pub(crate) struct Objects {
    kind: &'static str,
    path: String,
    cluster: Cluster,
    mirror: Mirror,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It stands.
    Yes,
    /// The object changed since, or is gone: look again.
    Changed,
}

impl Objects {
    /// Begins to copy the objects of a kind.
    pub(crate) fn start(
        cluster: &Cluster,
        namespace: &str,
        kind: &'static str,
        plural: &str,
        changed: &Arc<Notify>,
    ) -> Self {
        let path = format!("/apis/velero.io/v1/namespaces/{namespace}/{plural}");
        let resource = ApiResource {
            group: "velero.io".into(),
            version: "v1".into(),
            api_version: backup_core::api::API_VERSION.into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        Self {
            kind,
            mirror: Mirror::start(cluster, namespace, &resource, Arc::clone(changed)),
            path,
            cluster: cluster.clone(),
        }
    }

    /// The copy.
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// All objects that are not on their way out.
    pub(crate) fn all(&self) -> Vec<Arc<Value>> {
        let mut all = self.mirror.all();
        all.retain(|object| object["metadata"]["deletionTimestamp"].is_null());
        all
    }

    /// The object of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Value>> {
        self.mirror.get(name)
    }

    /// The object as it stands now; nothing where it is gone or another one has its name.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn read(&self, seen: &Value) -> Result<Option<Value>> {
        let name = name(seen);
        match self.cluster.get_bounded(&self.at(name), LARGEST).await {
            Ok(body) => {
                let read = self.take(name, &body)?;
                Ok(Some(read).filter(|read| uid(read) == uid(seen)))
            }
            Err(e) if e.is_not_found() => {
                self.mirror.remove(seen);
                Ok(None)
            }
            Err(e) => Err(self.failed("read", name, e)),
        }
    }

    /// Writes these fields, whatever else changed since.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn patch(&self, seen: &Value, patch: Value) -> Result<Written> {
        self.write(seen, patch, false).await
    }

    /// Writes these fields, if the object stands as it was seen.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn decide(&self, seen: &Value, patch: Value) -> Result<Written> {
        self.write(seen, patch, true).await
    }

    async fn write(&self, seen: &Value, mut patch: Value, decides: bool) -> Result<Written> {
        let name = name(seen);
        patch["metadata"]["uid"] = uid(seen).into();
        if decides {
            patch["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"].clone();
        }
        let path = format!("{}?fieldManager={MANAGER}", self.at(name));
        let call = Call::merge_patch(&path, patch.to_string().into());
        match self.cluster.send(&call).await {
            Ok(body) => {
                self.take(name, &body)?;
                Ok(Written::Yes)
            }
            Err(e) if e.is_not_found() => {
                self.mirror.remove(seen);
                Ok(Written::Changed)
            }
            Err(e) if e.is_conflict() => {
                // The copy may not know yet.
                self.read(seen).await?;
                Ok(Written::Changed)
            }
            Err(e) => Err(self.failed("write", name, e)),
        }
    }

    /// Creates an object; false where one of the name is there.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn create(&self, object: &Value) -> Result<bool> {
        let path = format!("{}?fieldManager={MANAGER}", self.path);
        let call = Call::post(&path, object.to_string().into());
        match self.cluster.send(&call).await {
            Ok(body) => {
                self.take(name(object), &body)?;
                Ok(true)
            }
            Err(e) if e.is_already_exists() => Ok(false),
            Err(e) => Err(self.failed("create", name(object), e)),
        }
    }

    /// Deletes the object, if it stands as it was seen.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn delete(&self, seen: &Value) -> Result<Written> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": {"uid": uid(seen), "resourceVersion": seen["metadata"]["resourceVersion"]},
        });
        let path = self.at(name(seen));
        let call = Call::delete(&path, options.to_string().into());
        match self.cluster.send(&call).await {
            Ok(_) => {
                self.mirror.remove(seen);
                Ok(Written::Yes)
            }
            Err(e) if e.is_not_found() => {
                self.mirror.remove(seen);
                Ok(Written::Yes)
            }
            Err(e) if e.is_conflict() => {
                self.read(seen).await?;
                Ok(Written::Changed)
            }
            Err(e) => Err(self.failed("delete", name(seen), e)),
        }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// What the server answered, kept as the newest copy.
    fn take(&self, name: &str, body: &[u8]) -> Result<Value> {
        let object: Value = serde_json::from_slice(body).map_err(|e| {
            Error::other(format!("{} {name} can not be read", self.kind)).because(e)
        })?;
        self.mirror.put(object.clone());
        Ok(object)
    }

    fn failed(&self, doing: &str, name: &str, e: ApiError) -> Error {
        Error::from(e).context(format!("can not {doing} {} {name}", self.kind))
    }
}

/// What our writes are known by.
pub(crate) const MANAGER: &str = "kubectl-backup-controller";

/// An object's name; empty where it has none.
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// An object's uid.
pub(crate) fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// `status.phase`; empty where it is new.
pub(crate) fn phase(object: &Value) -> &str {
    object["status"]["phase"].as_str().unwrap_or_default()
}

/// An annotation.
pub(crate) fn annotation<'o>(object: &'o Value, key: &str) -> Option<&'o str> {
    object["metadata"]["annotations"][key].as_str()
}

/// A label.
pub(crate) fn label<'o>(object: &'o Value, key: &str) -> Option<&'o str> {
    object["metadata"]["labels"][key].as_str()
}

/// A sentence as an object's status takes it: what others wrote may be in it, and may be long.
pub(crate) fn bounded(sentence: &str) -> String {
    const MOST: usize = 1024;
    match sentence.char_indices().nth(MOST) {
        None => sentence.to_owned(),
        Some((end, _)) => format!("{}...", &sentence[..end]),
    }
}

/// A time that stands at this pointer.
pub(crate) fn time(object: &Value, pointer: &str) -> Option<jiff::Timestamp> {
    object.pointer(pointer)?.as_str()?.parse().ok()
}

/// The object as its type; a sentence where it can not be that.
///
/// # Errors
/// What can not be understood.
pub(crate) fn decode<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    serde_json::from_value(object.clone()).map_err(|e| format!("it can not be understood: {e}"))
}
