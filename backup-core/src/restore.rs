//! Restores a backup: gather what the archive holds and the target has, plan object by object, apply wave by wave, report.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::api::Restore;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::filter::Filter;
use crate::location::{Location, Store};
use crate::name::Name;
use crate::progress::Progress;

/// What to do with an object that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExistingPolicy {
    /// Leave it.
    #[default]
    None,
    /// Merge the backup's fields into it.
    Update,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Its name; absent: an unfinished restore of the same options goes on, or a name is made.
    pub name: Option<Name>,
    /// From which backup.
    pub backup: Name,
    /// What to restore.
    pub filter: Filter,
    /// Old namespace to new.
    pub namespace_mappings: BTreeMap<String, String>,
    /// What to do with objects that exist.
    pub existing: ExistingPolicy,
    /// Keep all node ports.
    pub preserve_node_ports: bool,
    /// Where a foreign archive is rewritten.
    pub spool_dir: PathBuf,
    /// Where the journal goes when the location is read-only.
    pub state_dir: PathBuf,
    /// Requests at a time.
    pub concurrency: usize,
    /// The time.
    pub now: Timestamp,
}

/// What became of one object, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was made.
    Created,
    /// It was there and was changed.
    Updated,
    /// It was left alone.
    Skipped,
    /// It could not be made.
    Failed,
}

/// One line of a plan or of a report.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `apps/v1/Deployment`
    pub kind: String,
    /// Its namespace in the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What is (or would be) done.
    pub action: Action,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// The record as written.
    pub restore: Restore,
    /// Created, updated, skipped, failed.
    pub counts: [u64; 4],
    /// What failed, a sentence each (at most 10,000).
    pub errors: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Whether an earlier run was gone on with.
    pub resumed: bool,
}

/// Shows what a restore would do, object by object, without changing anything.
///
/// # Errors
/// When the backup or the cluster can not be read.
pub async fn plan(
    cluster: &Cluster,
    location: &Location,
    options: &RestoreOptions,
    progress: &dyn Progress,
    show: &mut (dyn FnMut(Step) + Send),
) -> Result<Vec<String>> {
    let _ = (cluster, location, options, progress, show);
    todo!()
}

/// Decides the restore's name before anything is done: a given one, the unfinished one of equal options, or a new one. Tells whether it goes on.
///
/// # Errors
/// `Invalid`, when the given name belongs to a restore of other options.
pub async fn decide_name(
    cluster: &Cluster,
    store: &Store,
    options: &RestoreOptions,
) -> Result<(Name, bool)> {
    let _ = (cluster, store, options);
    todo!()
}

/// Restores. The name must have been decided.
///
/// # Errors
/// When it could not be done at all; single objects that fail are in the report.
pub async fn restore(
    cluster: &Cluster,
    location: &Location,
    name: &Name,
    options: &RestoreOptions,
    cancel: tokio::sync::watch::Receiver<bool>,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    let _ = (cluster, location, name, options, cancel, progress);
    todo!()
}
