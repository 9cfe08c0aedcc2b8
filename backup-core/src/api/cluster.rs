//! kubermatic.k8c.io/v1 Cluster: the small part of KKP's kind that a restore needs, for hosted control planes without KKP.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::hosted::{HealthConditions, default_namespace};

/// What is asked of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "kubermatic.k8c.io",
    version = "v1",
    kind = "Cluster",
    root = "HostedCluster",
    status = "HostedClusterStatus",
    doc = "Cluster is a hosted control plane",
    label("kubectl-backup/crd", "1"),
    printcolumn(name = "Pause", type_ = "boolean", json_path = ".spec.pause"),
    printcolumn(
        name = "Pause-Reason",
        type_ = "string",
        json_path = ".spec.pauseReason"
    ),
    printcolumn(
        name = "Namespace",
        type_ = "string",
        json_path = ".status.namespaceName"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct HostedClusterSpec {
    /// Whether whoever manages the control plane leaves it alone
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pause: bool,
    /// Why it is paused
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_reason: Option<String>,
}

/// What is known of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HostedClusterStatus {
    /// The namespace of the control plane; cluster-NAME where it is empty
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace_name: String,
    /// Conditions by type
    #[serde(skip_serializing_if = "HealthConditions::is_empty")]
    pub conditions: HealthConditions,
    /// Fields of newer programs, kept when a status is written back.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

impl HostedCluster {
    /// The namespace of the control plane.
    pub fn control_plane_namespace(&self) -> String {
        let told = self.status.as_ref().map(|status| &status.namespace_name);
        match (told.filter(|told| !told.is_empty()), &self.metadata.name) {
            (Some(told), _) => told.clone(),
            (None, name) => default_namespace(name.as_deref().unwrap_or_default()),
        }
    }
}
