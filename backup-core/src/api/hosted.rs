//! What the kinds of hosted control planes (kubermatic.k8c.io/v1) share, and how their CRDs are known to be ours. Field names are KKP's.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The group of the kinds.
pub const GROUP: &str = "kubermatic.k8c.io";

/// `apiVersion` of the kinds.
pub const HOSTED_API_VERSION: &str = "kubermatic.k8c.io/v1";

/// The label of CRDs that are ours; its value counts up with each change that an older program could not live with.
pub const CRD_LABEL: &str = "kubectl-backup/crd";

/// The value of [`CRD_LABEL`] in the CRDs of this program.
pub const CRD_GENERATION: u32 = 1;

/// The annotation that asks a restore to stop, with the value `true`.
pub const ABORT: &str = "kubectl-backup/abort";

/// Before the id of a completed restore's attempt, in the place of a snapshot's name: the state that it replaced, as its members keep it.
pub const KEPT: &str = "kept-";

/// On a restore: it is not to go before all is put back.
pub const FINALIZER: &str = "etcd-launcher/restore";

/// On the StatefulSet of etcd: how the last attempt ended.
pub const OUTCOME: &str = "etcd-launcher/outcome";

/// On a Cluster: `namespace/name/uid/attempt` of the restore that is at work.
pub const ACTIVE: &str = "etcd-launcher/active-restore";

/// On a Deployment of the control plane: its replicas before the pause.
pub const FORMER_REPLICAS: &str = "etcd-launcher/former-replicas";

/// On a Deployment of the control plane: the attempt that paused it.
pub const PAUSED_BY: &str = "etcd-launcher/attempt";

/// `spec.pauseReason` of a Cluster that this attempt paused.
pub fn pause_reason(attempt: &str) -> String {
    format!("etcd-launcher {attempt}")
}

/// The annotation of a BackupStorageLocation with the namespaces that may use it besides its own, with commas between.
pub const ALLOWED_NAMESPACES: &str = "kubectl-backup/allowed-namespaces";

/// Whose a CRD is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Ours, of this generation.
    Ours(u32),
    /// KKP's.
    Kkp,
    /// Somebody else's.
    Foreign,
}

/// Whose a CRD is, by its label and annotations.
pub fn ownership(crd: &CustomResourceDefinition) -> Ownership {
    let label = |name: &str| crd.metadata.labels.as_ref().and_then(|l| l.get(name));
    if let Some(generation) = label(CRD_LABEL).and_then(|value| value.parse().ok()) {
        return Ownership::Ours(generation);
    }
    let annotated = crd.metadata.annotations.iter().flatten();
    if annotated
        .into_iter()
        .any(|(key, _)| key.starts_with("kubermatic.k8c.io/"))
    {
        return Ownership::Kkp;
    }
    Ownership::Foreign
}

/// Name of the Lease that the launchers of a cluster renew in its namespace: their sign of life.
pub fn lease_name(cluster: &str) -> String {
    format!("etcd-launcher-{cluster}")
}

/// The namespace of a hosted control plane where its Cluster does not say.
pub fn default_namespace(cluster: &str) -> String {
    format!("cluster-{cluster}")
}

/// A reference to a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct ClusterReference {
    /// API version of the cluster's kind
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// The cluster's kind, Cluster
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the cluster
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Not used: clusters have no namespace
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Not used
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Not used
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Not used
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_path: Option<String>,
}

impl ClusterReference {
    /// The reference to a cluster as KKP's documentation writes it.
    pub fn to(cluster: &str) -> Self {
        Self {
            api_version: Some(HOSTED_API_VERSION.to_owned()),
            kind: Some("Cluster".to_owned()),
            name: cluster.to_owned(),
            ..Self::default()
        }
    }
}

/// A condition of KKP's objects, which keep them as a map by type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCondition {
    /// When it was last looked at
    pub last_heartbeat_time: Time,
    /// When its status last changed
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// What it means, for people
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Why, in one word
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// True, False or Unknown
    pub status: String,
}

/// Conditions by type.
pub type HealthConditions = BTreeMap<String, HealthCondition>;

/// A word that programs newer than this one may add to: known ones are told apart, others are kept as they are.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$item_doc])* $item,)+
            /// A word that this program does not know.
            Other(String),
        }

        impl $name {
            /// The words that are known, in their order.
            pub const ALL: &[Self] = &[$(Self::$item),+];

            /// The word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$item => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$item,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Ok(Self::from(text.as_ref()))
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string"})
            }
        }
    };
}

pub(crate) use words;

/// Whether the snapshots of a config that is deleted are removed, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// They stay where they are.
    #[default]
    Retain,
    /// They are removed; where the destination can not be reached, the object goes all the same and says what stays.
    Delete,
}

impl DeletionPolicy {
    /// Whether it is what holds where nothing is said; KKP's kind does not have the field.
    pub fn is_retain(&self) -> bool {
        *self == Self::Retain
    }
}

impl fmt::Display for DeletionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl JsonSchema for DeletionPolicy {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DeletionPolicy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": ["Retain", "Delete"]})
    }
}
