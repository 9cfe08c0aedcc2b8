//! velero.io/v1 Backup: what `velero-backup.json` holds.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::{GoDuration, LabelSelector, Meta, Progress, null_is_empty};

/// A backup: what was asked for and what came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// `velero.io/v1`
    pub api_version: String,
    /// `Backup`
    pub kind: String,
    /// Name, labels (schedule, location) and annotations (source cluster's version; ours).
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: BackupSpec,
    /// What came of it.
    #[serde(default)]
    pub status: BackupStatus,
}

/// Annotation with the time at which a backup may be removed, where its status says none; ours. Velero removes whatever its status says is expired.
pub const EXPIRES: &str = "kubectl-backup/expires";

impl Backup {
    /// When it may be removed; nothing is never.
    pub fn expiration(&self) -> Option<Timestamp> {
        let hidden = || self.metadata.annotations.get(EXPIRES)?.parse().ok();
        self.status.expiration.or_else(hidden)
    }
}

/// What to save; absent means Velero's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupSpec {
    /// Namespaces to save; `*` is all.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub included_namespaces: Vec<String>,
    /// Namespaces to leave out.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub excluded_namespaces: Vec<String>,
    /// Kinds to save (old style).
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub included_resources: Vec<String>,
    /// Kinds to leave out (old style).
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub excluded_resources: Vec<String>,
    /// Cluster-scoped kinds to save (new style).
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub included_cluster_scoped_resources: Vec<String>,
    /// Cluster-scoped kinds to leave out (new style).
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub excluded_cluster_scoped_resources: Vec<String>,
    /// Namespaced kinds to save (new style).
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub included_namespace_scoped_resources: Vec<String>,
    /// Namespaced kinds to leave out (new style).
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub excluded_namespace_scoped_resources: Vec<String>,
    /// Objects must match it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Objects must match one of them.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub or_label_selectors: Vec<LabelSelector>,
    /// Cluster-scoped objects: all, none, or (absent) as Velero decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_cluster_resources: Option<bool>,
    /// Whether volumes are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_volumes: Option<bool>,
    /// How long it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<GoDuration>,
    /// Where it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_location: Option<String>,
    /// Velero expects the key.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub hooks: Value,
    /// Fields we do not use.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// Where a backup or restore stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not begun.
    #[default]
    New,
    /// At work.
    InProgress,
    /// All was done.
    Completed,
    /// It finished, and something is missing.
    PartiallyFailed,
    /// It did not finish.
    Failed,
    /// What was asked for can not be done.
    FailedValidation,
    /// It is being deleted.
    Deleting,
    /// A phase of Velero's that we never write.
    #[serde(untagged)]
    Other(String),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(text) => f.write_str(text),
            known => write!(f, "{known:?}"),
        }
    }
}

/// What came of a backup.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStatus {
    /// Always 1.
    pub version: u32,
    /// `1.1.0`
    pub format_version: String,
    /// How it ended.
    pub phase: Phase,
    /// When it began, UTC, whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Timestamp>,
    /// When it may be removed, as Velero reads it; see [`Backup::expiration`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Timestamp>,
    /// Objects saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// How many warnings its results hold.
    #[serde(skip_serializing_if = "is_zero")]
    pub warnings: u64,
    /// How many errors its results hold.
    #[serde(skip_serializing_if = "is_zero")]
    pub errors: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// Fields we do not use.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}
