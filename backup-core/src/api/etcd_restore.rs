//! kubermatic.k8c.io/v1 EtcdRestore: a hosted control plane's etcd goes back to a snapshot. Fields and phases are those KKP documents; the phases
//! Failed and RolledBack, and everything that tells how far it is, are ours.
#![expect(clippy::duplicated_attributes, reason = "each printed column is one")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::hosted::{ClusterReference, words};

/// Which cluster goes back to which snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "kubermatic.k8c.io",
    version = "v1",
    kind = "EtcdRestore",
    namespaced,
    status = "EtcdRestoreStatus",
    doc = "EtcdRestore brings a hosted control plane's etcd back to a snapshot",
    label("kubectl-backup/crd", "1"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster.name"),
    printcolumn(name = "Snapshot", type_ = "string", json_path = ".spec.backupName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.attempt.step"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdRestoreSpec {
    /// A name for people
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The cluster whose etcd it is: the one of this namespace
    #[x_kube(
        validation = Rule::new("has(self.name) && self.name != ''").message("a cluster must be named"),
        validation = Rule::new("!has(self.kind) || self.kind in ['', 'Cluster']").message("only etcd of a Cluster can be restored"),
        validation = Rule::new("(has(self.name) ? self.name : '') == (has(oldSelf.name) ? oldSelf.name : '')")
            .message("the cluster can not be changed: make another object")
    )]
    pub cluster: ClusterReference,
    /// Name of the snapshot, as it stands in an EtcdBackupConfig's status
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("!self.contains('/') && !self.contains('..')")
            .message("a snapshot's name has no '/' and no '..': give the name alone, as an EtcdBackupConfig's status lists it"),
        validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9._:]*[A-Za-z0-9])?$')")
            .message("a snapshot's name has letters, digits, '-', '.', '_' and ':', and starts and ends with a letter or digit"),
        validation = Rule::new("self == oldSelf").message("the snapshot can not be changed: make another object")
    )]
    pub backup_name: String,
    /// The BackupStorageLocation that has the snapshot; `kubectl backup etcd restore create` writes the one of the EtcdBackupConfig that took it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub destination: Option<String>,
    /// A Secret, which the launcher has to be allowed to read. Its key `identity` opens encrypted snapshots (a private key; `passphrase` a passphrase). Where there is no destination it names a bucket in KKP's older way, by its address and keys
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_download_credentials_secret: Option<String>,
}

words! {
    /// How far a restore is, as KKP's clients see it.
    RestorePhase {
        /// Looked at, prepared, paused; the old state serves or can serve again.
        Started = "Started",
        /// Members change over to the restored state.
        StsRebuilding = "StsRebuilding",
        /// The cluster serves the restored state.
        Completed = "Completed",
        /// No launcher is at work on the cluster; it begins when one is.
        EtcdLauncherNotEnabled = "EtcdLauncherNotEnabled",
        /// It was given up before anything changed.
        Failed = "Failed",
        /// The old state serves again.
        RolledBack = "RolledBack",
    }
}

impl RestorePhase {
    /// Whether nothing more comes.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::RolledBack)
    }
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdRestoreStatus {
    /// Started, StsRebuilding, Completed, EtcdLauncherNotEnabled, Failed or RolledBack
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Started", "StsRebuilding", "Completed", "EtcdLauncherNotEnabled", "Failed", "RolledBack"]))]
    pub phase: Option<RestorePhase>,
    /// When it was completed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_time: Option<Time>,
    /// What it waits for, or why it ended
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Conditions
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The decisions, written by compare-and-swap alone
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// What each member saw and did, by its name; each launcher writes its own
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reports: BTreeMap<String, Report>,
    /// The metadata.generation of the spec that this is about
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Fields of newer programs, kept when a status is written back.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

words! {
    /// What was decided last, in the order in which it comes.
    Step {
        /// Members fetch the snapshot and look whether they fit.
        Preflight = "Preflight",
        /// Members build the new state beside the old one; etcd runs as usual.
        Planned = "Planned",
        /// API server, controller manager and scheduler go to zero.
        Pausing = "Pausing",
        /// etcd is watched for writers that are still there.
        Watching = "Watching",
        /// Members stop, followers first.
        Stopping = "Stopping",
        /// Each member's old and new state change places.
        Swapping = "Swapping",
        /// The new state runs, with no client let in, and is compared.
        Starting = "Starting",
        /// From here on there is no way back but a rollback.
        Committed = "Committed",
        /// Members start with their usual arguments, one after the other.
        Restarting = "Restarting",
        /// What was paused comes back.
        Unpausing = "Unpausing",
        /// Done.
        Completed = "Completed",
        /// The old state is brought back.
        RollingBack = "RollingBack",
        /// The old state serves again.
        RolledBack = "RolledBack",
        /// Given up before anything was stopped.
        Failed = "Failed",
    }
}

impl Step {
    /// Whether the restored state is the cluster's from here on.
    pub fn is_committed(&self) -> bool {
        matches!(
            self,
            Self::Committed | Self::Restarting | Self::Unpausing | Self::Completed
        )
    }
}

/// A restore's decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Attempt {
    /// A new uuid for each attempt
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What was decided last
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// What is restored
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<AttemptSnapshot>,
    /// The revision that the restored state goes on from: above everything a client may have seen
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<i64>,
    /// The token of the new etcd cluster
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// The members of the new etcd cluster
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<AttemptMember>,
    /// What it waits for, or why it ended
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the step was decided
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Time>,
    /// Everything else, kept when a decision is written.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// The snapshot of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct AttemptSnapshot {
    /// Its name
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// SHA-256 of its database
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The greatest revision in it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Everything else.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// A member of the new etcd cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct AttemptMember {
    /// Its name
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where its peers reach it
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peer_urls: Vec<String>,
    /// Its id in hexadecimal
    #[serde(skip_serializing_if = "String::is_empty")]
    pub member_id: String,
    /// Everything else.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// What one member saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Report {
    /// Where it stands
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// What it waits for, or what failed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}
