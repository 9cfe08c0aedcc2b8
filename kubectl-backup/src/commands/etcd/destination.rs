//! A destination of snapshots, as objects name it: a BackupStorageLocation and its Secret, opened from where the plugin runs. Writes nothing.

use backup_core::api::BackupStorageLocation;
use backup_core::api::hosted::ALLOWED_NAMESPACES;
use backup_core::cluster::Cluster;
use backup_core::location::{self, Credentials, Location};
use backup_core::{Error, Kind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::context::Context;
use backup_cli::error::Result;
use backup_cli::locations::CREDENTIALS_FILE;

/// An answer with more is not looked at.
const LARGEST: usize = 16 << 20;

const LOCATIONS: &str = "backupstoragelocations";

/// The destinations that objects of a namespace may name; nothing where this user may not list them, or no such kind is there.
pub(super) async fn names(cluster: &Cluster, namespace: &str) -> Option<Vec<String>> {
    let path = format!("/apis/velero.io/v1/namespaces/{namespace}/{LOCATIONS}");
    let body = cluster.get_bounded(&path, LARGEST).await.ok()?;
    let mut names = listed(&body)
        .into_iter()
        .map(|(name, _)| name)
        .collect::<Vec<_>>();
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

/// Opens a destination; nothing is sent to the store yet.
///
/// # Errors
/// `NotFound` with those there are; one that can only be used where the launcher runs, with what to do instead.
pub(super) async fn open(context: &Context, namespace: &str, name: &str) -> Result<Location> {
    let cluster = context.cluster().await?;
    let object = find(cluster, namespace, name).await?;
    let place = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or(namespace)
        .to_owned();
    let mut spec: BackupStorageLocation = serde_json::from_value(object).map_err(|e| {
        Error::new(
            Kind::Corrupt,
            format!("destination {name:?} can not be read"),
        )
        .because(e)
    })?;
    // A file of this machine is not named by an object of a cluster.
    spec.metadata.annotations.remove(CREDENTIALS_FILE);
    if spec.spec.provider.trim_start_matches("velero.io/") == "local" {
        return Err(Error::invalid(format!(
            "destination {name:?} is a folder of the machine on which the launcher runs"
        ))
        .hint("where that folder can be seen from here, name it: --location file:///the/folder")
        .into());
    }
    if let Some(public) = spec.spec.config.get("publicUrl").cloned() {
        spec.spec.config.insert("s3Url".to_owned(), public);
    }
    if context.location_args().credentials_file.is_some() {
        return context.open(&spec);
    }
    let credential = spec
        .spec
        .rest
        .get("credential")
        .cloned()
        .unwrap_or_default();
    let (Some(secret), Some(key)) = (credential["name"].as_str(), credential["key"].as_str())
    else {
        return Err(Error::invalid(format!(
            "destination {name:?} has no credentials of its own: those of the launcher's machine can not be borrowed"
        ))
        .hint("give credentials of your own with --credentials-file")
        .into());
    };
    let file = secret_key(cluster, &place, secret, key).await?;
    let ca_pem = match &context.location_args().cacert {
        None => None,
        Some(path) => Some(std::fs::read(path).map_err(|e| {
            Error::invalid(format!("can not read the CA file {}", path.display())).because(e)
        })?),
    };
    let credentials = Credentials {
        file: Some(file),
        ca_pem,
        ..Credentials::default()
    };
    Ok(location::open(&spec, &credentials)?)
}

/// The location in the object's own namespace, else the one elsewhere that allows it.
async fn find(cluster: &Cluster, namespace: &str, name: &str) -> Result<Value> {
    let path = format!("/apis/velero.io/v1/namespaces/{namespace}/{LOCATIONS}/{name}");
    match cluster.get(&path).await {
        Ok(body) => return Ok(serde_json::from_slice(&body).unwrap_or_default()),
        Err(e) if e.is_not_found() => {}
        Err(e) => {
            return Err(Error::from(e)
                .context(format!("can not look at destination {name:?}"))
                .into());
        }
    }
    let all = cluster
        .get_bounded(&format!("/apis/velero.io/v1/{LOCATIONS}"), LARGEST)
        .await;
    let mut found: Vec<_> = all
        .map(|body| listed(&body))
        .unwrap_or_default()
        .into_iter()
        .filter(|(other, object)| other == name && is_allowed(object, namespace))
        .collect();
    if found.len() > 1 {
        return Err(Error::invalid(format!(
            "destination {name:?} may be one of several: more than one namespace allows it in {namespace}"
        ))
        .hint("name the bucket itself with --location")
        .into());
    }
    match found.pop() {
        Some((_, object)) => Ok(object),
        None => Err(missing(name, namespace, names(cluster, namespace).await).into()),
    }
}

/// A destination that is not there, with those that are.
pub(super) fn missing(name: &str, namespace: &str, names: Option<Vec<String>>) -> Error {
    let error = Error::not_found(format!(
        "destination {name:?} is no BackupStorageLocation in namespace {namespace}"
    ));
    match names {
        Some(names) if !names.is_empty() => error.hint(format!("there are: {}", names.join(", "))),
        _ => error.hint("make a BackupStorageLocation there, with its credentials in a Secret"),
    }
}

async fn secret_key(cluster: &Cluster, namespace: &str, name: &str, key: &str) -> Result<Vec<u8>> {
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let body = cluster.get(&path).await.map_err(|e| {
        Error::from(e)
            .context(format!("can not read the destination's Secret {namespace}/{name}"))
            .hint("give credentials of your own with --credentials-file, or name the bucket with --location")
    })?;
    let secret: Value = serde_json::from_slice(&body).unwrap_or_default();
    let value = secret["data"][key]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok());
    value.ok_or_else(|| {
        Error::not_found(format!("Secret {namespace}/{name} has no key {key:?}"))
            .hint("spec.credential.key of the BackupStorageLocation names the key with the credentials file")
            .into()
    })
}
