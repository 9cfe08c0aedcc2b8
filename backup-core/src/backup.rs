//! Creates a backup: gather what the cluster serves, plan which lists are made, apply them as a stream into the location, report.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::Backup;
use crate::archive::row::ResourceRow;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::filter::Filter;
use crate::location::Location;
use crate::name::Name;
use crate::progress::Progress;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Its name.
    pub name: Name,
    /// What to save.
    pub filter: Filter,
    /// `-n NS` was given: cluster-scoped types are excluded by rule "scope".
    pub single_namespace: bool,
    /// When it may be removed; absent is never.
    pub expires: Option<Timestamp>,
    /// Labels of the Backup object.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Backup object.
    pub annotations: BTreeMap<String, String>,
    /// Velero's `--snapshot-volumes`; `Some(false)` says that volumes and hooks are not wanted.
    pub snapshot_volumes: Option<bool>,
    /// All types at one revision (the default).
    pub exact: bool,
    /// The machine's name, for the claim.
    pub host: String,
    /// The time, for name and stamps.
    pub now: Timestamp,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// The marker as written.
    pub backup: Backup,
    /// Every API resource and what became of it.
    pub resources: Vec<ResourceRow>,
    /// What is missing, a sentence each.
    pub errors: Vec<String>,
    /// What the user should know, a sentence each.
    pub warnings: Vec<String>,
    /// PVCs whose data is not in the backup, `ns/name`.
    pub volumes_not_saved: Vec<String>,
    /// Bytes of the archive.
    pub archive_bytes: u64,
}

/// Creates a backup. When the future is dropped before the marker, nothing visible stays; see `cancel`.
///
/// # Errors
/// When no backup was made; then nothing of it stays in the location.
pub async fn create(
    cluster: &Cluster,
    location: &Location,
    options: &BackupOptions,
    cancel: tokio::sync::watch::Receiver<bool>,
    progress: &dyn Progress,
) -> Result<BackupReport> {
    let _ = (cluster, location, options, cancel, progress);
    todo!()
}
