//! The destination that an object of a hosted control plane names: which BackupStorageLocation is meant, and what its Secret says. Reads the
//! API server and writes nothing; how a location is reached from where the caller runs is the caller's.
//!
//! A destination is the location of that name in the object's own namespace, else the one elsewhere whose annotation
//! `kubectl-backup/allowed-namespaces` lists that namespace. Two of those are an error: nothing is guessed.

use serde_json::Value;

use crate::api::BackupStorageLocation;
use crate::api::hosted::ALLOWED_NAMESPACES;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::location::object::{self, bodies, told};

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
    let here = bodies(cluster, Some(namespace)).await.ok()?.into_iter();
    let mut names: Vec<_> = here.map(|(name, _)| name).collect();
    // Who may look in one namespace alone sees what is there.
    for (name, object) in bodies(cluster, None).await.unwrap_or_default() {
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
    let path = format!("{}/{name}", object::path(Some(namespace)));
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
    let all = match bodies(cluster, None).await {
        Ok(all) => all,
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
    /// The credentials file that `spec.credential` names, nothing where it names none; a CA that a Secret holds is taken into the spec.
    ///
    /// # Errors
    /// A credential without name or key; a Secret that is not there, may not be read, or lacks the key.
    pub async fn credentials(&mut self, cluster: &Cluster) -> Result<Option<Vec<u8>>> {
        object::trust(cluster, &self.namespace, &mut self.spec).await?;
        object::named_credentials(cluster, &self.namespace, &self.spec).await
    }
}

fn is_allowed(object: &Value, namespace: &str) -> bool {
    let allowed = object["metadata"]["annotations"][ALLOWED_NAMESPACES].as_str();
    allowed.is_some_and(|list| list.split(',').any(|one| one.trim() == namespace))
}
