//! kubermatic.k8c.io/v1 EtcdBackupConfig: snapshots of a hosted control plane's etcd, by a schedule or once. Fields are those KKP documents;
//! `deletionPolicy`, `timeZone` and what a row says of a snapshot's content are ours, and all of them may be absent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::hosted::{ClusterReference, DeletionPolicy, HealthConditions, words};

/// What to take snapshots of, when, and where to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "kubermatic.k8c.io",
    version = "v1",
    kind = "EtcdBackupConfig",
    namespaced,
    status = "EtcdBackupConfigStatus",
    doc = "EtcdBackupConfig describes which snapshots of a hosted control plane's etcd are taken",
    label("kubectl-backup/crd", "1"),
    validation = Rule::new("self.metadata.name.size() <= 232").message("the name is too long: snapshots are named after it and the time; use at most 232 characters"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster.name"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Keep", type_ = "integer", json_path = ".spec.keep"),
    printcolumn(name = "Destination", type_ = "string", json_path = ".spec.destination"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.lastBackups[-1:].backupPhase"),
    printcolumn(name = "Last-Success", type_ = "date", json_path = ".status.lastSuccessfulTime"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("!has(self.timeZone) || self.timeZone == '' || !has(self.schedule) || !self.schedule.contains('TZ=')")
        .message("the schedule names a time zone and timeZone does, too: name it in one place only")
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdBackupConfigSpec {
    /// A name for people; snapshots are named after the object
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The cluster whose etcd it is
    #[x_kube(
        validation = Rule::new("has(self.name) && self.name != ''").message("a cluster must be named"),
        validation = Rule::new("!has(self.kind) || self.kind in ['', 'Cluster']").message("only etcd of a Cluster can be backed up"),
        validation = Rule::new("(has(self.name) ? self.name : '') == (has(oldSelf.name) ? oldSelf.name : '')")
            .message("the cluster can not be changed: make another object")
    )]
    pub cluster: ClusterReference,
    /// When: five cron fields such as '0 1 * * *', @daily and the like, or '@every 20m'; in UTC where no time zone is named. Without it there is one snapshot, at once
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(
        validation = Rule::new(r"self == '' || self.matches('^\\s*((CRON_)?TZ=\\S+\\s+)?(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|@every\\s+[+]?[0-9.][0-9.a-z\u00b5\u03bc]*|[-0-9*?,/]+\\s+[-0-9*?,/]+\\s+[-0-9*?,/]+\\s+[-0-9A-Za-z*?,/]+\\s+[-0-9A-Za-z*?,/]+)\\s*$')")
            .message("this is no schedule: write five cron fields such as '0 1 * * *', one of @hourly, @daily, @weekly, @monthly, @yearly, or '@every 20m'")
    )]
    pub schedule: Option<String>,
    /// The time zone of the schedule, such as Europe/Berlin
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9/_+-]*$"))]
    pub time_zone: Option<String>,
    /// How many snapshots of the schedule are kept: 20 where it is absent, at least 1, at most 50
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub keep: Option<i64>,
    /// The BackupStorageLocation to store them in, in the same namespace
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("the destination can not be changed: make another object; snapshots stay where they are")
    )]
    pub destination: String,
    /// Whether snapshots are removed with this object
    #[serde(default, skip_serializing_if = "DeletionPolicy::is_retain")]
    #[schemars(extend("default" = "Retain"))]
    pub deletion_policy: DeletionPolicy,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdBackupConfigStatus {
    /// The snapshots, the oldest first
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub last_backups: Vec<SnapshotRow>,
    /// The same as lastBackups, for programs that look here
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub current_backups: Vec<SnapshotRow>,
    /// Conditions by type: SchedulingActive, DestinationReady, ManagedByKKP
    #[serde(skip_serializing_if = "HealthConditions::is_empty")]
    pub conditions: HealthConditions,
    /// When the newest snapshot that stands was finished
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// When the next snapshot is due
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_scheduled_time: Option<Time>,
    /// What hinders it, or nothing
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Not used; KKP has it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleanup_running: Option<bool>,
    /// The metadata.generation of the spec that this is about
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Fields of newer programs, kept when a status is written back.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

words! {
    /// Where the taking or the removal of a snapshot stands.
    RowPhase {
        /// Not begun.
        Scheduled = "",
        /// Under way.
        Running = "Running",
        /// Done.
        Completed = "Completed",
        /// Not done.
        Failed = "Failed",
    }
}

#[allow(clippy::derivable_impls, reason = "the enum is made by a macro")]
impl Default for RowPhase {
    fn default() -> Self {
        Self::Scheduled
    }
}

impl RowPhase {
    /// Whether it is the empty word.
    pub fn is_scheduled(&self) -> bool {
        *self == Self::Scheduled
    }
}

/// One snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SnapshotRow {
    /// The slot for which it was taken
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<Time>,
    /// Name of the snapshot
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backup_name: String,
    /// Who takes it: with KKP a Job, else a launcher's run
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job_name: String,
    /// When it was begun
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_start_time: Option<Time>,
    /// When it was finished
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_finished_time: Option<Time>,
    /// Empty before it begins, then Running, Completed or Failed
    #[serde(skip_serializing_if = "RowPhase::is_scheduled")]
    pub backup_phase: RowPhase,
    /// Why it failed
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backup_message: String,
    /// Bytes in the store
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_size: Option<i64>,
    /// SHA-256 of the database, as etcd puts it at the end of a snapshot
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// How it is encrypted; none where it is not
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// The greatest revision in it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Who removes it
    #[serde(skip_serializing_if = "String::is_empty")]
    pub delete_job_name: String,
    /// When the removal was begun
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_start_time: Option<Time>,
    /// When it was finished
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_finished_time: Option<Time>,
    /// Empty before the removal begins, then Running, Completed or Failed
    #[serde(skip_serializing_if = "RowPhase::is_scheduled")]
    pub delete_phase: RowPhase,
    /// Why the removal failed
    #[serde(skip_serializing_if = "String::is_empty")]
    pub delete_message: String,
    /// Fields of newer programs, kept when a status is written back.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

impl SnapshotRow {
    /// Whether its taking came to an end, good or bad.
    pub fn is_over(&self) -> bool {
        matches!(
            self.backup_phase,
            RowPhase::Completed | RowPhase::Failed | RowPhase::Other(_)
        )
    }

    /// Whether it stands: taken to the end, and no removal begun.
    pub fn is_good(&self) -> bool {
        self.backup_phase == RowPhase::Completed && self.delete_phase.is_scheduled()
    }
}

impl EtcdBackupConfigStatus {
    /// The snapshots under whichever name the writer kept them: `lastBackups` as KKP documents, else `currentBackups` as it writes.
    pub fn rows(&self) -> &[SnapshotRow] {
        if self.last_backups.is_empty() {
            &self.current_backups
        } else {
            &self.last_backups
        }
    }

    /// Puts the snapshots under both names.
    pub fn set_rows(&mut self, rows: Vec<SnapshotRow>) {
        self.current_backups.clone_from(&rows);
        self.last_backups = rows;
    }
}
