//! velero.io/v1 BackupStorageLocation: the one shape of a location, in the client's file as in a cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::{Meta, null_is_empty};

/// A place for backups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStorageLocation {
    /// `velero.io/v1`
    pub api_version: String,
    /// `BackupStorageLocation`
    pub kind: String,
    /// Its name. The annotation `kubectl-backup/credentials-file` names the file with its credentials in the client's file.
    pub metadata: Meta,
    /// Where it is.
    pub spec: BackupStorageLocationSpec,
    /// What was last seen of it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub status: Value,
}

#[cfg(test)]
impl BackupStorageLocation {
    /// One of this provider, as tests have it.
    pub(crate) fn at(provider: &str, bucket: &str, config: &[(&str, &str)]) -> Self {
        let mut at = Self::default();
        at.spec.provider = provider.to_owned();
        at.spec.object_storage.bucket = bucket.to_owned();
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        at.spec.config = config.iter().map(owned).collect();
        at
    }
}

/// Where a location is and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStorageLocationSpec {
    /// `aws`, `gcp`, `azure` or `local`; a prefix `velero.io/` means the same.
    pub provider: String,
    /// Bucket (or, for `local`, an absolute folder), prefix and CA.
    pub object_storage: ObjectStorage,
    /// The provider's keys, named as Velero's plugins name them.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub config: BTreeMap<String, String>,
    /// The credentials file, in a Secret beside the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<SecretKey>,
    /// Whether it is used where none is named.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// Whether anything may be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// Fields we do not use.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// Bucket, prefix and CA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectStorage {
    /// The bucket's name.
    pub bucket: String,
    /// The folder in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// PEM of a CA to trust, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<String>,
    /// The same in a Secret beside the object, not in base64 of its own; excludes `caCert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert_ref: Option<SecretKey>,
}

/// A key of a Secret; Kubernetes lets either be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// Whether a location may be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessMode {
    /// Backups may be made and deleted.
    #[default]
    ReadWrite,
    /// Nothing is written.
    ReadOnly,
}
