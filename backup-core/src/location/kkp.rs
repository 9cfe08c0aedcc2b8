//! KKP's ClusterBackupStorageLocations as locations. Reads the API server of a KKP master or seed and writes nothing there.
//!
//! The kind wraps the spec of Velero's BackupStorageLocation and belongs to a project (label `project-id`). KKP itself looks for them in the namespace
//! `kubermatic` alone, and so does this. A project's clusters share the bucket, each below `<project>/<cluster>`; what the object's own prefix says does
//! not count there. That is where the Velero that KKP installs in a user cluster has its backups, so that both see the same ones. The Secret that
//! `spec.credential` names lies in the same namespace and has the keys `accessKeyId` and `secretAccessKey`, whatever key is named; its provider is `aws`.
//!
//! Labels and names go into a prefix: they are checked to be names.

use serde_json::Value;

use super::object::secret;
use super::{BackupStorageLocation, Credentials};
use crate::api::hosted::HOSTED_API_VERSION;
use crate::cluster::{ApiError, Cluster};
use crate::error::{Error, Kind, Result};
use crate::name::Name;

/// The kind.
pub const KIND: &str = "ClusterBackupStorageLocation";

/// KKP's namespace on masters and seeds.
pub const NAMESPACE: &str = "kubermatic";

/// The label with an object's project.
const PROJECT: &str = "project-id";

/// The keys of a Secret.
const KEYS: [&str; 2] = ["accessKeyId", "secretAccessKey"];

/// An answer with more is not looked at.
const LARGEST: usize = 16 << 20;

/// The objects of this kind; none where the kind is not there.
///
/// # Errors
/// The API server's.
pub async fn list(cluster: &Cluster) -> Result<Vec<Value>, ApiError> {
    let path =
        format!("/apis/{HOSTED_API_VERSION}/namespaces/{NAMESPACE}/clusterbackupstoragelocations");
    items(cluster, &path).await
}

async fn items(cluster: &Cluster, path: &str) -> Result<Vec<Value>, ApiError> {
    let body = match cluster.get_bounded(path, LARGEST).await {
        Ok(body) => body,
        Err(e) if e.is_not_found() => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut list: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    })
}

/// An object's name; empty where it has none.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The project of an object, where it names one that can be a folder.
fn project(object: &Value) -> Result<Name> {
    let title = || format!("{KIND} {NAMESPACE}/{}", name(object));
    let label = object["metadata"]["labels"][PROJECT].as_str();
    let label = label.ok_or_else(|| {
        Error::invalid(format!("{} has no label {PROJECT}", title()))
            .hint("KKP gives it one; without a project nobody knows where in the bucket its clusters have their backups")
    })?;
    Name::foreign(label)
        .map_err(|e| e.context(format!("the label {PROJECT} of {} is no name", title())))
}

/// The names of the clusters of an object's project, as far as they may be read.
pub async fn clusters(cluster: &Cluster, object: &Value) -> Vec<String> {
    let Ok(project) = project(object) else {
        return Vec::new();
    };
    let path = format!("/apis/{HOSTED_API_VERSION}/clusters?labelSelector={PROJECT}%3D{project}");
    let all = items(cluster, &path).await.unwrap_or_default();
    all.iter().map(|one| name(one).to_owned()).collect()
}

/// What KKP knows of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It has it, with this address where it says one.
    There(Option<String>),
    /// It has none of the name.
    Absent,
    /// That may not be read.
    Hidden,
}

/// What KKP knows of a cluster.
///
/// # Errors
/// A cluster of another project; the API server's.
pub async fn is_known(cluster: &Cluster, object: &Value, user_cluster: &Name) -> Result<Known> {
    let path = format!("/apis/{HOSTED_API_VERSION}/clusters/{user_cluster}");
    let body = match cluster.get_bounded(&path, LARGEST).await {
        Ok(body) => body,
        Err(e) if e.is_not_found() => return Ok(Known::Absent),
        Err(e) if e.is_forbidden() => return Ok(Known::Hidden),
        Err(e) => {
            return Err(Error::from(e).context(format!("can not look at cluster {user_cluster}")));
        }
    };
    let found: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (theirs, ours) = (&found["metadata"]["labels"][PROJECT], project(object)?);
    if theirs.as_str() == Some(ours.as_str()) {
        let address = found["status"]["address"]["url"].as_str();
        return Ok(Known::There(address.map(str::to_owned)));
    }
    Err(Error::new(
        Kind::Forbidden,
        format!(
            "cluster {user_cluster} is not of project {ours}, whose {KIND} {} is",
            name(object)
        ),
    )
    .hint("use one of the cluster's own project"))
}

/// The location of a cluster in the bucket of its project, called `NAME/CLUSTER`.
///
/// # Errors
/// An object that is none; a provider that KKP does not serve.
pub fn of_cluster(object: &Value, user_cluster: &Name) -> Result<BackupStorageLocation> {
    let title = format!("{KIND} {NAMESPACE}/{}", name(object));
    let project = project(object)?;
    let mut location: BackupStorageLocation = serde_json::from_value(object.clone())
        .map_err(|e| Error::corrupt(format!("{title} can not be read")).because(e))?;
    if location.spec.provider.trim_start_matches("velero.io/") != "aws" {
        return Err(Error::invalid(format!(
            "{title} has the provider {:?}, and KKP serves aws alone",
            location.spec.provider
        )));
    }
    location.kind = KIND.to_owned();
    location.metadata.name = format!("{}/{user_cluster}", name(object));
    location.metadata.namespace = Some(NAMESPACE.to_owned());
    // Nothing of this machine is named by an object of a cluster.
    location.metadata.annotations.clear();
    location.spec.default = false;
    location.spec.object_storage.prefix = Some(format!("{project}/{user_cluster}"));
    // The Secret has one pair of keys, of no profile.
    location.spec.config.remove("profile");
    Ok(location)
}

/// The keys of a location, as a credentials file of Velero's has them.
///
/// # Errors
/// No Secret named; one that can not be read, or lacks a key.
pub async fn credentials(
    cluster: &Cluster,
    location: &BackupStorageLocation,
) -> Result<Credentials> {
    let title = &location.metadata.name;
    let named = location.spec.credential.as_ref();
    let named = named
        .filter(|named| !named.name.is_empty())
        .ok_or_else(|| {
            Error::invalid(format!("location {title:?} names no Secret"))
                .hint(format!("spec.credential.name of the {KIND} names it"))
        })?;
    let secret_name = Name::foreign(&named.name)
        .map_err(|e| e.context(format!("location {title:?} names no Secret")))?;
    let mut data = secret(cluster, NAMESPACE, secret_name.as_str()).await?;
    let mut one = |key: &str| -> Result<String> {
        let value = data
            .remove(key)
            .and_then(|value| String::from_utf8(value).ok());
        let value = value.map(|value| value.trim().to_owned());
        let is_one = |value: &String| !value.is_empty() && !value.contains(char::is_control);
        value.filter(is_one).ok_or_else(|| {
            Error::not_found(format!(
                "Secret {NAMESPACE}/{secret_name} has no usable {key}"
            ))
            .hint(format!(
                "KKP's Secrets have the keys {}",
                KEYS.join(" and ")
            ))
        })
    };
    let [id, key] = [one(KEYS[0])?, one(KEYS[1])?];
    Ok(Credentials {
        file: Some(
            format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {key}\n")
                .into_bytes(),
        ),
        origin: Some(format!("the Secret {NAMESPACE}/{secret_name}")),
        of_object: true,
        ..Credentials::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({
            "apiVersion": "kubermatic.k8c.io/v1", "kind": KIND,
            "metadata": {"name": "s3", "namespace": "kubermatic", "labels": {"project-id": "p1"},
                "annotations": {"kubectl-backup/credentials-file": "/etc/passwd"}},
            "spec": {"provider": "aws", "default": true, "objectStorage": {"bucket": "b", "prefix": "of-another"},
                "credential": {"name": "keys", "key": "cloud"}, "config": {"region": "r", "profile": "x"}},
        });
        change(&mut object);
        object
    }

    #[test]
    fn each_cluster_of_a_project_has_its_own_folder_and_nobody_elses() {
        let user_cluster = Name::foreign("abc").unwrap();
        let location = of_cluster(&object(|_| {}), &user_cluster).unwrap();
        assert_eq!(location.metadata.name, "s3/abc");
        assert_eq!(
            location.spec.object_storage.prefix.as_deref(),
            Some("p1/abc")
        );
        assert!(!location.spec.default && location.metadata.annotations.is_empty());
        assert!(!location.spec.config.contains_key("profile"));
        for (change, part) in [
            (
                Box::new(|o: &mut Value| o["metadata"]["labels"] = json!({}))
                    as Box<dyn Fn(&mut Value)>,
                "no label project-id",
            ),
            (
                Box::new(|o: &mut Value| o["metadata"]["labels"]["project-id"] = "../p2".into()),
                "is no name",
            ),
            (
                Box::new(|o: &mut Value| o["metadata"]["labels"]["project-id"] = "p1/abd".into()),
                "is no name",
            ),
            (
                Box::new(|o: &mut Value| o["spec"]["provider"] = "azure".into()),
                "aws alone",
            ),
            (
                Box::new(|o: &mut Value| o["spec"] = json!({"provider": ["x"]})),
                "can not be read",
            ),
        ] {
            let refused = of_cluster(&object(change), &user_cluster).unwrap_err();
            assert!(
                refused.sentence().contains(part),
                "{part}: {}",
                refused.sentence()
            );
        }
    }
}
