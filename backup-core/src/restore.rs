//! Restores a backup: gather what the archive holds and the target has, plan object by object, apply wave by wave, report.

mod apply;
mod bodies;
pub mod diff;
mod disks;
mod finish;
mod gather;
mod held;
mod hooks;
pub mod journal;
mod kept;
mod merge;
mod naming;
mod open;
mod order;
mod owners;
mod patience;
mod place;
mod plan;
mod preflight;
mod report;
mod rewrite;
pub mod rewriting;
mod run;
mod snapped;
mod target;
#[cfg(test)]
mod tests;
mod versions;
mod volumes;
mod waves;

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::api::Restore;
use crate::cluster::Cluster;
use crate::discovery::Served;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::hooks::restored::RestoreHooks;
use crate::location::Location;
use crate::name::Name;
use crate::progress::Progress;

use finish::finish;
pub use held::{Cleared, Left, VolumeOptions, left};
use journal::{Earlier, Header};
pub use naming::{decide_name, spec};
use naming::{fresh_name, options_hash, other_options, places};
use open::{Opened, open, serves};
pub use preflight::Lack;
use rewriting::Rewriting;
use run::{Goal, Run};

/// What to do with an object that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExistingPolicy {
    /// Leave it.
    #[default]
    None,
    /// Merge the backup's fields into it, and remove those that the backup lacks.
    Update,
    /// Delete it where it differs and create the one of the backup; what would take something else along is updated.
    Recreate,
    /// Apply the backup's fields by server-side apply; others' fields stay.
    Apply {
        /// Take over fields that others own with another value.
        force: bool,
    },
}

impl ExistingPolicy {
    /// `none`, `update`, `recreate`, `apply`
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Update => "update",
            Self::Recreate => "recreate",
            Self::Apply { .. } => "apply",
        }
    }
}

/// How far a restore goes that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// It looks, and tells what it would do.
    Client,
    /// It sends everything to the server as a trial (`dryRun=All`), and tells what the server would refuse.
    Server,
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
    /// Make volumes whose data is not in the backup on disks of another cluster, which has to be gone; `false`: their claims are provisioned anew. Where nothing is said the claims wait.
    pub adopt_volumes: Option<bool>,
    /// What is changed on the way.
    pub rewriting: Rewriting,
    /// What the target's own ConfigMaps say besides. It counts when a restore begins; one that goes on keeps what it began with.
    pub of_target: Rewriting,
    /// `spec.hooks`, as Velero has it.
    pub hooks: serde_json::Value,
    /// Whether the data of volumes is asked for; `false`: claims come back empty, and that is no error.
    pub restore_volumes: Option<bool>,
    /// How the data of volumes is brought back.
    pub volumes: VolumeOptions,
    /// Where a foreign archive is rewritten.
    pub spool_dir: PathBuf,
    /// Where the journal goes when the location is read-only, or asks for signatures.
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
    /// It was there, was deleted, and was made anew.
    Recreated,
    /// It was left alone.
    Skipped,
    /// It could not be made.
    Failed,
    /// Whether it could be made can not be tried before something else stands.
    Untried,
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

impl Step {
    /// `namespace/name`, or `name`.
    fn path(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// The record as written.
    pub restore: Restore,
    /// Created, updated (or recreated), skipped, failed.
    pub counts: [u64; 4],
    /// What failed, a sentence each (at most 10,000).
    pub errors: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Whether an earlier run was gone on with.
    pub resumed: bool,
}

/// What a dry run tells besides its steps.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// What the target lacks.
    pub lacks: Vec<Lack>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Asked before anything is changed, with what the target lacks. Gives back by what the restore is stopped; an error ends it.
pub type Consent<'c> = dyn FnMut(&[Lack]) -> Result<watch::Receiver<bool>> + Send + 'c;

/// Shows what a restore would do, object by object, without changing anything.
///
/// # Errors
/// When the backup or the cluster can not be read.
pub async fn plan(
    cluster: &Cluster,
    location: &Location,
    options: &RestoreOptions,
    dry: DryRun,
    progress: &dyn Progress,
    show: &mut (dyn FnMut(Step) + Send),
) -> Result<Planned> {
    options.validate()?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => fresh_name(&places(location, options), options).await?,
    };
    let settled = options.settled(None)?;
    let run = Run {
        cluster,
        location,
        options: &settled,
        name: &name,
        earlier: None,
        progress,
    };
    let served = serves(cluster, progress).await?;
    let source = source(location, options, &served, progress).await?;
    let goal = Goal::Tell { dry, show };
    let (ended, mut warnings) = match source {
        Opened::Ours(archive) => run.go(&archive, served, goal).await?,
        Opened::Foreign(archive, warnings) => {
            let (ended, mut more) = run.go(&archive, served, goal).await?;
            more.extend(warnings);
            (ended, more)
        }
    };
    warnings.extend(ended.result.err().map(|e| e.to_string()));
    Ok(Planned {
        lacks: ended.lacks,
        warnings,
    })
}

/// The backup that the options name, opened as they change what is read.
async fn source(
    location: &Location,
    options: &RestoreOptions,
    served: &Served,
    progress: &dyn Progress,
) -> Result<Opened> {
    let (spool, changing) = (&options.spool_dir, options.changing());
    let (name, filter) = (&options.backup, &options.filter);
    open(location, name, spool, served, filter, changing, progress).await
}

/// Restores. The name must have been decided. `consent` is asked before anything is changed.
///
/// # Errors
/// What `consent` refuses. When it could not be done at all; single objects that fail are in the report. `AlreadyExists`, when another restore took the name since.
pub async fn restore(
    cluster: &Cluster,
    location: &Location,
    name: &Name,
    options: &RestoreOptions,
    consent: &mut Consent<'_>,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    options.validate()?;
    let hash = options_hash(cluster, &location.store, options).await?;
    let places = places(location, options);
    let earlier = journal::earlier(&places, name).await?;
    if let Some(earlier) = &earlier
        && earlier.options_hash != hash
    {
        // A name that was made was free a moment ago.
        return Err(match &options.name {
            Some(_) => other_options(earlier),
            None => journal::taken_just_now(name),
        });
    }
    if let Some(finished) = earlier.as_ref().and_then(|e| e.finished) {
        progress.step(&format!(
            "restore {name} finished at {finished}; what is missing is restored again"
        ));
    }
    let resumed = earlier.is_some();
    let options = &options.settled(earlier.as_ref())?;
    if let Some(mappings) = options.rewriting.mappings().filter(|_| resumed) {
        progress.step(&format!("as when it began: {mappings}"));
    }
    let served = serves(cluster, progress).await?;
    let source = source(location, options, &served, progress).await?;
    let mut header = Header {
        format: journal::FORMAT.to_owned(),
        backup: options.backup.to_string(),
        options_hash: hash,
        started: earlier.as_ref().map_or(options.now, |e| e.started),
        spec: spec(options),
        backup_uid: None,
        cluster: cluster.identity().await?,
    };
    let run = Run {
        cluster,
        location,
        options,
        name,
        earlier: earlier.as_ref(),
        progress,
    };
    let goal = Goal::Restore {
        header: &header,
        consent: &mut |lacks| consent(lacks),
    };
    let (mut ended, mut warnings) = match source {
        Opened::Ours(archive) => run.go(&archive, served, goal).await?,
        Opened::Foreign(archive, warnings) => {
            let (ended, mut more) = run.go(&archive, served, goal).await?;
            more.extend(warnings);
            (ended, more)
        }
    };
    let Some(mut journal) = ended.journal.take() else {
        return Err(Error::other("the restore lost its journal"));
    };
    journal.flush(true).await;
    ended.result?;
    header.backup_uid = Some(ended.backup_uid);
    warnings.extend(
        journal
            .trouble
            .take()
            .map(|why| format!("a part of the journal was not written: {why}")),
    );
    for warning in warnings {
        ended.record.warn(None, warning)?;
    }
    let policy = options.existing.word();
    // Where the journal is not in the location because nobody signs it, the record of what was done is to be found there all the same: it is only shown.
    let shown = location.asks_for_signatures() && !location.is_read_only();
    let shown = shown.then_some(&location.store);
    finish(
        &journal,
        ended.record,
        name,
        &header,
        policy,
        resumed,
        shown,
    )
    .await
    .map_err(|e| {
        e.context(format!(
            "everything was restored, but the record of restore {name} could not be written"
        ))
        .hint("the same command writes it, and restores nothing twice")
    })
}

impl RestoreOptions {
    /// Refuses what can not be meant, whatever the backup holds.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn validate(&self) -> Result<()> {
        self.filter.validate()?;
        plan::refuse_never(&self.filter)?;
        plan::refuse_mappings(&self.filter, &self.namespace_mappings)?;
        RestoreHooks::read(&self.hooks)?;
        self.rewriting.validate()
    }

    /// What is restored, where definitions that come along change those that stand.
    fn changing(&self) -> Option<&Filter> {
        (self.existing != ExistingPolicy::None).then_some(&self.filter)
    }

    /// With all that is changed on the way put together: what the target says, or what it said when the restore began.
    fn settled(&self, earlier: Option<&Earlier>) -> Result<Self> {
        let given = self.rewriting.clone();
        let rewriting = match earlier {
            Some(earlier) => given.begun_with(&earlier.spec)?,
            None => given.over(self.of_target.clone()),
        };
        Ok(Self {
            rewriting,
            ..self.clone()
        })
    }
}
