//! Restores a backup: gather what the archive holds and the target has, plan object by object, apply wave by wave, report.

mod apply;
mod bodies;
pub mod diff;
mod gather;
pub mod journal;
mod kept;
mod merge;
mod naming;
mod order;
mod owners;
mod patience;
mod plan;
mod preflight;
mod report;
mod rewrite;
pub mod rewriting;
mod target;
#[cfg(test)]
mod tests;
mod versions;
mod volumes;
mod waves;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::api::{
    API_VERSION, AccessMode, Backup, Meta, Phase, Progress as ApiProgress, Restore, RestoreStatus,
};
use crate::archive::read::{Archive, Source};
use crate::archive::row::ResourceRow;
use crate::archive::spool::{self, Spooled};
use crate::catalog::names_us;
use crate::cluster::Cluster;
use crate::discovery::{self, Served};
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::layout::{BackupKeys, RestoreKeys};
use crate::location::store::StoreSource;
use crate::location::{Location, Store};
use crate::name::Name;
use crate::progress::Progress;

use apply::{Applier, Deletions, Notices};
use gather::Survey;
#[cfg(test)]
use journal::Place;
use journal::{Earlier, Header, Journal};
use kept::Kept;
pub use naming::decide_name;
#[cfg(test)]
use naming::{choose_name, hash_of};
use naming::{fresh_name, options_hash, other_options, places, spec};
pub use preflight::Lack;
use preflight::look::Look;
use report::Record;
use rewrite::Rewrite;
use rewriting::Rewriting;
use volumes::Volumes;
use waves::{State, Waves};

/// No marker is larger.
const MARKER: u64 = 4 << 20;

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
    /// What is changed on the way.
    pub rewriting: Rewriting,
    /// What the target's own ConfigMaps say besides. It counts when a restore begins; one that goes on keeps what it began with.
    pub of_target: Rewriting,
    /// Whether the data of volumes is asked for; `false`: claims come back empty, and that is no error.
    pub restore_volumes: Option<bool>,
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

/// What a run is for.
enum Goal<'g> {
    /// To restore.
    Restore {
        header: &'g Header,
        consent: &'g mut Consent<'g>,
    },
    /// To tell what a restore would do.
    Tell {
        dry: DryRun,
        show: &'g mut (dyn FnMut(Step) + Send),
    },
}

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
        None => fresh_name(&places(&location.store, options), options).await?,
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
    let spool = &options.spool_dir;
    let source = open(location, &options.backup, spool, &served, progress).await?;
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
    let places = places(&location.store, options);
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
    let spool = &options.spool_dir;
    let source = open(location, &options.backup, spool, &served, progress).await?;
    let header = Header {
        format: journal::FORMAT.to_owned(),
        backup: options.backup.to_string(),
        options_hash: hash,
        started: earlier.as_ref().map_or(options.now, |e| e.started),
        spec: spec(options),
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
    finish(&journal, ended.record, name, &header, policy, resumed)
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
        self.rewriting.validate()
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

/// Some names, and how many more.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let mut text = names[..names.len().min(MOST)].join(", ");
    if names.len() > MOST {
        text.push_str(&format!(" and {} more", names.len() - MOST));
    }
    text
}

/// A restore that would do nothing at all is a mistake in its filters, or in the backup.
fn nothing(backup: &Name, resources: &[ResourceRow], warnings: Vec<String>) -> Error {
    if resources.iter().all(|row| row.count == 0) {
        return Error::not_found(format!("backup {backup} holds no object")).hint(format!(
            "`kubectl backup describe {backup}` tells what was saved and why not"
        ));
    }
    let mut what = format!("nothing in backup {backup} is what was asked for");
    for warning in warnings {
        what.push_str("; ");
        what.push_str(&warning);
    }
    Error::not_found(what).hint(format!(
        "`kubectl backup contents {backup}` lists what it holds"
    ))
}

/// The backup, ready to be read object by object.
enum Opened {
    Ours(Archive<StoreSource>),
    Foreign(Archive<Spooled>, Vec<String>),
}

async fn serves(cluster: &Cluster, progress: &dyn Progress) -> Result<Served> {
    progress.step("looking at the target");
    discovery::discover(cluster).await
}

/// Opens a backup. Of objects that are in it in several versions it takes those that suit what is `served` best.
async fn open(
    location: &Location,
    backup: &Name,
    spool_dir: &Path,
    served: &Served,
    progress: &dyn Progress,
) -> Result<Opened> {
    let keys = BackupKeys::new(backup);
    let store = &location.store;
    let marker = marker(store, backup).await?;
    // An index beside another tool's marker is what a dead run of ours left.
    let foreign = serde_json::from_slice::<Backup>(&marker).is_ok_and(|backup| !names_us(&backup));
    let archive = store.source(keys.archive());
    match store.head(&keys.index()).await {
        Ok(_) if !foreign => {
            progress.step("reading the index");
            Ok(Opened::Ours(
                Archive::open(archive, store.source(keys.index())).await?,
            ))
        }
        Err(e) if e.kind() != Kind::NotFound => Err(e),
        _ => {
            progress.step("rewriting the archive of another tool for reading");
            let (archive, report) =
                spool::spool(&archive, spool_dir, versions::rank(served), progress)
                    .await
                    .map_err(|e| e.context(format!("{} can not be read", keys.archive())))?;
            Ok(Opened::Foreign(archive, report.warnings))
        }
    }
}

async fn marker(store: &Store, backup: &Name) -> Result<Bytes> {
    let keys = BackupKeys::new(backup);
    store.find(&keys.marker(), MARKER).await?.ok_or_else(|| {
        Error::not_found(format!("backup {backup} not found in this location"))
            .hint("`kubectl backup get` lists what is there")
    })
}

/// Begins the journal in the location or, where that takes no writes, in the user's own folder.
async fn begin(
    location: &Location,
    name: &Name,
    options: &RestoreOptions,
    header: &Header,
    resumed: bool,
) -> Result<(Journal, Option<String>)> {
    let [store, folder] = places(&location.store, options);
    if location.spec.spec.access_mode == Some(AccessMode::ReadOnly) {
        return Ok((Journal::open(folder, name, header, resumed).await?, None));
    }
    match Journal::open(store, name, header, resumed).await {
        Ok(journal) => Ok((journal, None)),
        Err(e) if matches!(e.kind(), Kind::Forbidden | Kind::Unauthorized) => {
            let why = format!(
                "the location takes no writes, so the record of this restore is in {}: {e}",
                options.state_dir.display()
            );
            Ok((
                Journal::open(folder, name, header, resumed).await?,
                Some(why),
            ))
        }
        Err(e) => Err(e),
    }
}

/// One run over an archive.
struct Run<'r> {
    cluster: &'r Cluster,
    location: &'r Location,
    options: &'r RestoreOptions,
    name: &'r Name,
    /// The same restore, where it was begun before.
    earlier: Option<&'r Earlier>,
    progress: &'r dyn Progress,
}

/// How a run ended.
struct Ended {
    record: Record,
    journal: Option<Journal>,
    lacks: Vec<Lack>,
    result: Result<()>,
}

impl Run<'_> {
    /// Restores, or tells what it would do. Gives back warnings about the whole.
    async fn go<S: Source>(
        &self,
        archive: &Archive<S>,
        served: Served,
        goal: Goal<'_>,
    ) -> Result<(Ended, Vec<String>)> {
        let (filter, unknown) =
            gather::bind(&self.options.filter, archive.index.resources(), &served);
        let filter = &filter;
        let mut warnings: Vec<String> = unknown
            .iter()
            .map(|kind| format!("the backup knows no kind {:?}", kind.trim_end_matches('.')))
            .collect();
        let store = &self.location.store;
        warnings.extend(unfinished_backup(
            &marker(store, &self.options.backup).await?,
        ));
        let volumes = Volumes::read(store, &self.options.backup).await?;
        let survey = Survey::take(archive, filter, &served, volumes).await?;
        let mappings = &self.options.namespace_mappings;
        gather::refuse_shared(archive, filter, &survey, mappings).await?;
        warnings.extend(survey.warnings.iter().cloned());
        if survey.total() == 0 || filter.names_only(&unknown) {
            // As a selector that matches nothing is to kubectl and to Velero: what is named and is not there is a mistake, this is none.
            let any = Filter {
                selectors: Vec::new(),
                ..filter.clone()
            };
            let volumes = (*survey.volumes).clone();
            let chosen = !filter.selectors.is_empty()
                && !filter.names_only(&unknown)
                && Survey::take(archive, &any, &served, volumes).await?.total() > 0;
            let backup = &self.options.backup;
            if !chosen {
                let resources = archive.index.resources();
                return Err(nothing(backup, resources, warnings));
            }
            warnings.push(format!(
                "nothing of backup {backup} has the labels that were asked for: nothing is restored"
            ));
        }
        let rewriting = &self.options.rewriting;
        let (prepared, more) =
            rewriting::prepare(self.cluster, rewriting, archive, &survey, &served).await?;
        warnings.extend(more);
        let rewrite = Rewrite {
            backup: rewrite::label_value(self.options.backup.as_str()),
            restore: rewrite::label_value(self.name.as_str()),
            mappings: self.options.namespace_mappings.clone(),
            preserve_node_ports: self.options.preserve_node_ports,
            kept_volumes: survey.kept_volumes.clone(),
            rewriting: Arc::new(rewriting.clone()),
            prepared: Arc::new(prepared),
            missing_classes: rewriting::missing_classes(
                self.cluster,
                rewriting,
                archive,
                filter,
                &survey,
            )
            .await?,
        };
        let look = Look {
            cluster: self.cluster,
            archive,
            filter,
            survey: &survey,
            served: &served,
            rewrite: &rewrite,
            existing: self.options.existing,
            tries: !matches!(
                goal,
                Goal::Tell {
                    dry: DryRun::Client,
                    ..
                }
            ),
        };
        let found = look.run().await?;
        warnings.extend(found.notes);
        // Nothing is written before all of that is known to be sound.
        let resumed = self.earlier.is_some();
        let (journal, cancel, dry, show) = match goal {
            Goal::Restore { header, consent } => {
                let cancel = consent(&found.lacks)?;
                let begun = begin(self.location, self.name, self.options, header, resumed);
                let (journal, trouble) = begun.await?;
                warnings.extend(trouble);
                (Some(journal), Some(cancel), None, None)
            }
            Goal::Tell { dry, show } => (None, None, Some(dry), Some(show)),
        };
        self.progress.expect(survey.total());
        let kept = journal
            .as_ref()
            .filter(|_| self.options.existing == ExistingPolicy::Recreate)
            .map(|journal| Kept {
                place: journal.place.clone(),
                keys: journal.keys.clone(),
            });
        let applier = Applier {
            cluster: self.cluster.clone(),
            rewrite,
            existing: self.options.existing,
            dry,
            kept,
            deletions: Deletions::new(
                journal
                    .as_ref()
                    .filter(|_| self.earlier.is_some_and(|earlier| !earlier.whole))
                    .map(|journal| (journal.place.clone(), journal.keys.clone())),
            ),
            volumes: survey.volumes.clone(),
            notices: Notices::default(),
        };
        let mut waves = Waves {
            archive,
            applier: Arc::new(applier),
            filter,
            survey: &survey,
            served,
            record: Record::new(),
            journal,
            progress: self.progress,
            show: show.map(|show| show as &mut (dyn FnMut(Step) + Send)),
            cancel,
            concurrency: self.options.concurrency,
            resumed,
            data_wanted: self.options.restore_volumes != Some(false),
            state: State::default(),
        };
        if waves.data_wanted {
            for unread in &survey.volumes.unread {
                waves.record.fail(None, unread.clone())?;
            }
        }
        let result = waves.run().await;
        warnings.extend(waves.applier.notices.sentences());
        let empty = &waves.state.empty_claims;
        if waves.data_wanted && !empty.is_empty() {
            warnings.push(format!(
                "volumes come back empty, for their data is not in the backup: {}",
                listed(empty)
            ));
        }
        let ended = Ended {
            record: waves.record,
            journal: waves.journal,
            lacks: found.lacks,
            result,
        };
        Ok((ended, warnings))
    }
}

/// What a backup's marker says of how it ended, unless that was well.
fn unfinished_backup(marker: &[u8]) -> Option<String> {
    let backup: Backup = serde_json::from_slice(marker).ok()?;
    (backup.status.phase != Phase::Completed).then(|| {
        format!(
            "backup {} is {}: not everything that it was to hold is in it",
            backup.metadata.name, backup.status.phase
        )
    })
}

/// Writes the side files and, last, the record.
async fn finish(
    journal: &Journal,
    record: Record,
    name: &Name,
    header: &Header,
    policy: &str,
    resumed: bool,
) -> Result<RestoreReport> {
    let keys = RestoreKeys::new(name);
    let counts = record.counts();
    let ((errors, error_texts), (warnings, warning_texts)) = (record.errors(), record.warnings());
    let restore = Restore {
        api_version: API_VERSION.to_owned(),
        kind: "Restore".to_owned(),
        metadata: Meta {
            name: name.to_string(),
            creation_timestamp: Some(whole_seconds(header.started)),
            annotations: BTreeMap::from([
                (
                    journal::ANNOTATION_OPTIONS.to_owned(),
                    header.options_hash.clone(),
                ),
                (journal::ANNOTATION_POLICY.to_owned(), policy.to_owned()),
            ]),
            ..Meta::default()
        },
        spec: header.spec.clone(),
        status: RestoreStatus {
            phase: if errors == 0 {
                Phase::Completed
            } else {
                Phase::PartiallyFailed
            },
            start_timestamp: Some(whole_seconds(header.started)),
            completion_timestamp: Some(whole_seconds(Timestamp::now())),
            progress: Some(ApiProgress {
                total_items: counts.iter().sum(),
                items_restored: Some(counts[0] + counts[1] + counts[2]),
                ..ApiProgress::default()
            }),
            warnings,
            errors,
            ..RestoreStatus::default()
        },
    };
    let place = &journal.place;
    place.put(&keys.results(), record.results()?).await?;
    place
        .put(&keys.resource_list(), record.resource_list()?)
        .await?;
    for key in [keys.item_operations(), keys.volume_info()] {
        place.put(&key, report::gzip(b"[]")?).await?;
    }
    place.put(&keys.logs(), record.into_log()?).await?;
    let marker = serde_json::to_vec_pretty(&restore)
        .map_err(|e| Error::other("the record can not be written as JSON").because(e))?;
    place.put(&keys.marker(), marker.into()).await?;
    Ok(RestoreReport {
        restore,
        counts,
        errors: error_texts,
        warnings: warning_texts,
        resumed,
    })
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
