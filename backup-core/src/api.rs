//! The objects that a bucket, a client's file and a cluster hold, a file per kind. Velero's (velero.io/v1): their fields, names and defaults
//! are Velero's; unknown fields of foreign objects are kept where we write them back. Those of hosted control planes (kubermatic.k8c.io/v1): their
//! fields are KKP's, and their CRDs are derived from the types. They are data only.

mod backup;
mod cluster;
pub mod crds;
#[expect(
    unreachable_pub,
    reason = "the schema's derive makes a second struct of the spec"
)]
mod etcd_backup_config;
#[expect(
    unreachable_pub,
    reason = "the schema's derive makes a second struct of the spec"
)]
mod etcd_restore;
pub mod hosted;
mod meta;
mod restore;
mod schedule;
mod storage_location;

pub use backup::{Backup, BackupSpec, BackupStatus, EXPIRES, Phase};
pub use cluster::{HostedCluster, HostedClusterSpec, HostedClusterStatus};
pub use etcd_backup_config::{
    EtcdBackupConfig, EtcdBackupConfigSpec, EtcdBackupConfigStatus, RowPhase, SnapshotRow,
};
pub use etcd_restore::{
    Attempt, AttemptMember, AttemptSnapshot, EtcdRestore, EtcdRestoreSpec, EtcdRestoreStatus,
    Report, RestorePhase, Step,
};
pub use meta::{GoDuration, LabelSelector, Meta, Progress, Requirement};
pub use restore::{Restore, RestoreSpec, RestoreStatus};
pub use schedule::{Schedule, ScheduleSpec, ScheduleStatus};
pub use storage_location::{
    AccessMode, BackupStorageLocation, BackupStorageLocationSpec, ObjectStorage, SecretKey,
};

/// `apiVersion` of Velero's kinds.
pub const API_VERSION: &str = "velero.io/v1";
