//! BackupStorageLocations as objects of a cluster: listing them, reading the Secrets they name, and which Backups lie beside them. Reads the API server and writes nothing. Which
//! of them is meant, and how its store is reached from where the caller runs, are the caller's. What a Secret holds goes into [`Credentials`] and
//! into the spec's `caCert`, and into no message.
//!
//! Secrets lie in the object's own namespace. `credential` names the key with the credentials file; without it Velero uses the one that its
//! installation mounts, `cloud` of `cloud-credentials`. `objectStorage.caCertRef` names a key with a CA in PEM, and
//! `config.customerKeyEncryptionSecret` one with 32 bytes, written `SECRET/KEY`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Credentials;
use crate::api::{BackupStorageLocation, SecretKey};
use crate::cluster::{ApiError, Call, Cluster};
use crate::error::{Error, Kind, Result};

/// An answer with more is not looked at.
const LARGEST: usize = 16 << 20;

/// `Accept` of a list of metadata alone, and objects per page: it is small.
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const PAGE: usize = 1000;

const LOCATIONS: &str = "backupstoragelocations";

/// The Secret that Velero's installation makes, and its key.
const MOUNTED: (&str, &str) = ("cloud-credentials", "cloud");

const CUSTOMER_KEY: &str = "customerKeyEncryptionSecret";

/// The path of all locations, or of those of a namespace.
pub(crate) fn path(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("/apis/velero.io/v1/namespaces/{namespace}/{LOCATIONS}"),
        None => format!("/apis/velero.io/v1/{LOCATIONS}"),
    }
}

/// Name and body of each location; no more is looked at than there may be.
///
/// # Errors
/// The API server's; one without the kind says 404.
pub(crate) async fn bodies(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<(String, Value)>, ApiError> {
    let body = cluster.get_bounded(&path(namespace), LARGEST).await?;
    let list: Value = serde_json::from_slice(&body).unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let named = |item: Value| Some((item["metadata"]["name"].as_str()?.to_owned(), item));
    Ok(items.into_iter().filter_map(named).collect())
}

/// The uids of the Backups that the Velero of a namespace has, by their names; metadata alone is asked for.
///
/// # Errors
/// The API server's.
pub async fn backups(
    cluster: &Cluster,
    namespace: &str,
) -> Result<BTreeMap<String, String>, ApiError> {
    let of = |item: &Value| {
        let text = |key: &str| item["metadata"][key].as_str().map(str::to_owned);
        Some((text("name")?, text("uid")?))
    };
    let mut found = BTreeMap::new();
    let mut token = String::new();
    loop {
        let path = format!("/apis/velero.io/v1/namespaces/{namespace}/backups?limit={PAGE}{token}");
        let call = Call {
            accept: METADATA_LIST,
            ..Call::get(&path)
        };
        let page: Value = match serde_json::from_slice(&cluster.send(&call).await?) {
            Ok(page) => page,
            Err(e) => {
                return Err(ApiError {
                    message: format!("{path} does not answer with a list: {e}"),
                    ..ApiError::default()
                });
            }
        };
        let items = page["items"].as_array();
        found.extend(items.into_iter().flatten().filter_map(of));
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => token = format!("&continue={next}"),
            _ => return Ok(found),
        }
    }
}

/// The locations of a namespace, or of all; one that is no location is passed over.
///
/// # Errors
/// The API server's; one without the kind says 404.
pub async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<BackupStorageLocation>, ApiError> {
    let bodies = bodies(cluster, namespace).await?.into_iter();
    Ok(bodies
        .filter_map(|(_, body)| serde_json::from_value(body).ok())
        .collect())
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
    let doing = format!("can not read the Secret {namespace}/{name}");
    let body = cluster.get_bounded(&path, LARGEST).await.map_err(|e| {
        let is_forbidden = e.is_forbidden();
        let error = told(e, &doing);
        if is_forbidden {
            return error.hint(format!(
                "who asks needs the right to `get` secrets in namespace {namespace}, for {name} at least (resourceNames)"
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

/// One value; `setting` names it, for messages.
async fn value(
    cluster: &Cluster,
    namespace: &str,
    wanted: &SecretKey,
    setting: &str,
) -> Result<Vec<u8>> {
    let SecretKey { name, key } = wanted;
    if name.is_empty() || key.is_empty() {
        return Err(Error::invalid(format!("{setting} names no Secret and key")));
    }
    let mut data = secret(cluster, namespace, name).await?;
    data.remove(key).ok_or_else(|| {
        Error::not_found(format!("Secret {namespace}/{name} has no key {key:?}")).hint(format!(
            "{setting} of the BackupStorageLocation names the key"
        ))
    })
}

/// Takes the CA that `caCertRef` names into the spec.
///
/// # Errors
/// A Secret that can not be read or lacks the key; a spec that gives a CA in both ways.
pub async fn trust(
    cluster: &Cluster,
    namespace: &str,
    location: &mut BackupStorageLocation,
) -> Result<()> {
    let storage = &mut location.spec.object_storage;
    let Some(wanted) = storage.ca_cert_ref.take() else {
        return Ok(());
    };
    if storage.ca_cert.as_ref().is_some_and(|ca| !ca.is_empty()) {
        return Err(Error::invalid(
            "objectStorage.caCert and objectStorage.caCertRef exclude each other",
        ));
    }
    let setting = "spec.objectStorage.caCertRef";
    let pem = value(cluster, namespace, &wanted, setting).await?;
    storage.ca_cert = Some(STANDARD.encode(pem));
    Ok(())
}

/// The credentials file that `spec.credential` names; nothing where it names none.
///
/// # Errors
/// A Secret that can not be read or lacks the key.
pub async fn named_credentials(
    cluster: &Cluster,
    namespace: &str,
    location: &BackupStorageLocation,
) -> Result<Option<Vec<u8>>> {
    match &location.spec.credential {
        None => Ok(None),
        Some(wanted) => value(cluster, namespace, wanted, "spec.credential.key")
            .await
            .map(Some),
    }
}

/// The key that the store encrypts with, where the config names one.
///
/// # Errors
/// A Secret that can not be read or lacks the key.
async fn customer_key(
    cluster: &Cluster,
    namespace: &str,
    location: &BackupStorageLocation,
) -> Result<Option<Vec<u8>>> {
    let text = location.spec.config.get(CUSTOMER_KEY);
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let (name, key) = text.split_once('/').unwrap_or_default();
    let wanted = SecretKey {
        name: name.to_owned(),
        key: key.to_owned(),
    };
    let setting = format!("config.{CUSTOMER_KEY}, written SECRET/KEY,");
    let key = value(cluster, namespace, &wanted, &setting).await?;
    Ok(Some(key))
}

/// Everything that a location's Secrets hold. `own` says that the caller has a credentials file: then that Secret is not read. The file is
/// absent where Velero itself has none: it uses what its machine is allowed then.
///
/// # Errors
/// A Secret that can not be read or lacks the key.
pub async fn credentials(
    cluster: &Cluster,
    namespace: &str,
    location: &mut BackupStorageLocation,
    own: bool,
) -> Result<Credentials> {
    trust(cluster, namespace, location).await?;
    let mut credentials = Credentials {
        customer_key: customer_key(cluster, namespace, location).await?,
        of_object: true,
        ..Credentials::default()
    };
    if own {
        return Ok(credentials);
    }
    let from = |name: &str| Some(format!("the Secret {namespace}/{name}"));
    if let Some(named) = &location.spec.credential {
        credentials.origin = from(&named.name);
        credentials.file = named_credentials(cluster, namespace, location).await?;
        return Ok(credentials);
    }
    let (name, key) = MOUNTED;
    match secret(cluster, namespace, name).await {
        Ok(mut data) => credentials.file = data.remove(key),
        Err(e) if e.kind() == Kind::NotFound => {}
        Err(e) => return Err(e),
    }
    credentials.origin = credentials.file.as_ref().and_then(|_| from(name));
    Ok(credentials)
}

/// A server that can not answer now is told apart from one that says no: who waits may ask again.
pub(crate) fn told(e: ApiError, doing: &str) -> Error {
    let busy = e.code == 429 || e.code >= 500;
    let error = Error::from(e);
    if busy {
        return Error::new(Kind::Unreachable, doing).because(error);
    }
    error.context(doing)
}
