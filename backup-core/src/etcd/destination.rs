//! The destination that an object of a hosted control plane names: which BackupStorageLocation is meant, and what its Secret says. Reads the
//! API server and writes nothing; how a location is reached from where the caller runs is the caller's.
//!
//! A destination is the location of that name in the object's own namespace, else the one elsewhere whose annotation
//! `kubectl-backup/allowed-namespaces` lists that namespace. Two of those are an error: nothing is guessed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::api::BackupStorageLocation;
use crate::api::hosted::ALLOWED_NAMESPACES;
use crate::cluster::{ApiError, Cluster};
use crate::error::{Error, Kind, Result};

/// An answer with more is not looked at.
const LARGEST: usize = 16 << 20;

const LOCATIONS: &str = "backupstoragelocations";

/// The location that is meant.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The object.
    pub spec: BackupStorageLocation,
    /// Where it lies, and its Secret beside it.
    pub namespace: String,
}

/// The names that objects of a namespace may use; nothing where this user may not list them, or no such kind is there.
pub async fn names(cluster: &Cluster, namespace: &str) -> Option<Vec<String>> {
    let path = format!("/apis/velero.io/v1/namespaces/{namespace}/{LOCATIONS}");
    let body = cluster.get_bounded(&path, LARGEST).await.ok()?;
    let mut names: Vec<_> = listed(&body).into_iter().map(|(name, _)| name).collect();
    let body = cluster
        .get_bounded(&format!("/apis/velero.io/v1/{LOCATIONS}"), LARGEST)
        .await;
    // Who may look in one namespace alone sees what is there.
    for (name, object) in body.map(|body| listed(&body)).unwrap_or_default() {
        if is_allowed(&object, namespace) && !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// Finds the location that `name` means in an object of this namespace.
///
/// # Errors
/// `NotFound` with those there are; `Invalid` where two are allowed, or the object can not be read; the API server's.
pub async fn find(cluster: &Cluster, namespace: &str, name: &str) -> Result<Destination> {
    let path = format!("/apis/velero.io/v1/namespaces/{namespace}/{LOCATIONS}/{name}");
    let object = match cluster.get(&path).await {
        Ok(body) => serde_json::from_slice(&body).unwrap_or_default(),
        Err(e) if e.is_not_found() => allowed(cluster, namespace, name).await?,
        Err(e) => return Err(told(e, &format!("can not look at destination {name:?}"))),
    };
    let place = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or(namespace)
        .to_owned();
    let spec = serde_json::from_value(object)
        .map_err(|e| Error::invalid(format!("destination {name:?} can not be read")).because(e))?;
    Ok(Destination {
        spec,
        namespace: place,
    })
}

/// The one in another namespace that may be used from here.
async fn allowed(cluster: &Cluster, namespace: &str, name: &str) -> Result<Value> {
    let path = format!("/apis/velero.io/v1/{LOCATIONS}");
    let all = match cluster.get_bounded(&path, LARGEST).await {
        Ok(body) => listed(&body),
        // Who may not look elsewhere has what is here.
        Err(e) if e.is_forbidden() || e.is_not_found() => Vec::new(),
        Err(e) => return Err(told(e, "can not look for destinations in other namespaces")),
    };
    let mut found: Vec<_> = all
        .into_iter()
        .filter(|(other, object)| other == name && is_allowed(object, namespace))
        .collect();
    if found.len() > 1 {
        return Err(Error::invalid(format!(
            "destination {name:?} may be one of several: more than one namespace allows it in {namespace}"
        ))
        .hint(format!("make a BackupStorageLocation of that name in namespace {namespace}")));
    }
    match found.pop() {
        Some((_, object)) => Ok(object),
        None => Err(missing(name, namespace, names(cluster, namespace).await)),
    }
}

/// A destination that is not there, with those that are.
pub fn missing(name: &str, namespace: &str, names: Option<Vec<String>>) -> Error {
    let error = Error::not_found(format!(
        "destination {name:?} is no BackupStorageLocation in namespace {namespace}"
    ));
    match names {
        Some(names) if !names.is_empty() => error.hint(format!("there are: {}", names.join(", "))),
        _ => error.hint("make a BackupStorageLocation there, with its credentials in a Secret"),
    }
}

impl Destination {
    /// The credentials file that `spec.credential` names; nothing where it names none.
    ///
    /// # Errors
    /// A credential without name or key; a Secret that is not there, may not be read, or lacks the key.
    pub async fn credentials(&self, cluster: &Cluster) -> Result<Option<Vec<u8>>> {
        let location = &self.spec.metadata.name;
        let Some(credential) = self.spec.spec.rest.get("credential") else {
            return Ok(None);
        };
        let (Some(name), Some(key)) = (credential["name"].as_str(), credential["key"].as_str())
        else {
            return Err(Error::invalid(format!(
                "spec.credential of destination {location:?} names no Secret and key"
            )));
        };
        let mut data = secret(cluster, &self.namespace, name).await?;
        match data.remove(key) {
            Some(file) => Ok(Some(file)),
            None => Err(Error::not_found(format!(
                "Secret {}/{name} has no key {key:?}",
                self.namespace
            ))
            .hint("spec.credential.key of the BackupStorageLocation names the key with the credentials file")),
        }
    }
}

/// A Secret's values.
///
/// # Errors
/// The API server's.
pub async fn secret(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let doing = format!("can not read the destination's Secret {namespace}/{name}");
    let body = cluster.get(&path).await.map_err(|e| {
        let is_forbidden = e.code == 403;
        let error = told(e, &doing);
        if is_forbidden {
            return error.hint(format!(
                "add {name} to the Secrets that the Role of who asks may get (resourceNames)"
            ));
        }
        error
    })?;
    let secret: Value = serde_json::from_slice(&body).unwrap_or_default();
    let data = secret["data"].as_object().cloned().unwrap_or_default();
    Ok(data
        .into_iter()
        .filter_map(|(key, value)| Some((key, STANDARD.decode(value.as_str()?).ok()?)))
        .collect())
}

/// A server that can not answer now is told apart from one that says no: who waits may ask again.
fn told(e: ApiError, doing: &str) -> Error {
    let busy = e.code == 429 || e.code >= 500;
    let error = Error::from(e);
    if busy {
        return Error::new(Kind::Unreachable, doing).because(error);
    }
    error.context(doing)
}

fn listed(body: &[u8]) -> Vec<(String, Value)> {
    let list: Value = serde_json::from_slice(body).unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let named = |item: Value| Some((item["metadata"]["name"].as_str()?.to_owned(), item));
    items.into_iter().filter_map(named).collect()
}

fn is_allowed(object: &Value, namespace: &str) -> bool {
    let allowed = object["metadata"]["annotations"][ALLOWED_NAMESPACES].as_str();
    allowed.is_some_and(|list| list.split(',').any(|one| one.trim() == namespace))
}
