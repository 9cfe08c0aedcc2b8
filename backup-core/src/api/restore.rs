//! velero.io/v1 Restore: what our record of a restore holds.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backup::{Phase, is_zero};
use super::meta::{LabelSelector, Meta, Progress, null_is_empty};

/// A restore: what was asked for and what came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// `velero.io/v1`
    pub api_version: String,
    /// `Restore`
    pub kind: String,
    /// Name, labels and annotations.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: RestoreSpec,
    /// What came of it.
    #[serde(default)]
    pub status: RestoreStatus,
}

/// What to restore; absent means Velero's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreSpec {
    /// From which backup.
    pub backup_name: String,
    /// Namespaces to restore; `*` is all.
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
    /// Kinds to restore.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub included_resources: Vec<String>,
    /// Kinds to leave out.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub excluded_resources: Vec<String>,
    /// Old namespace to new.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub namespace_mapping: BTreeMap<String, String>,
    /// Objects must match it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Objects must match one of them.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub or_label_selectors: Vec<LabelSelector>,
    /// Cluster-scoped objects: all, none, or (absent) related ones only once namespaces are chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_cluster_resources: Option<bool>,
    /// `none` or `update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing_resource_policy: Option<String>,
    /// Keep all node ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_node_ports: Option<bool>,
    /// Fields we do not use.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// What came of a restore.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreStatus {
    /// How it ended.
    pub phase: Phase,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Timestamp>,
    /// Objects restored.
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
