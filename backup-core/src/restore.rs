//! Restores a backup: gather what the archive holds and the target has, plan object by object, apply wave by wave, report.

mod apply;
mod gather;
pub mod journal;
mod merge;
mod order;
mod owners;
mod plan;
mod report;
mod rewrite;
mod target;
#[cfg(test)]
mod tests;
mod waves;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;

use crate::api::{
    API_VERSION, AccessMode, LabelSelector, Meta, Phase, Progress as ApiProgress, Restore,
    RestoreSpec, RestoreStatus,
};
use crate::archive::read::{Archive, Source};
use crate::archive::spool::{self, Spooled};
use crate::cluster::Cluster;
use crate::discovery::{self, Served};
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::layout::{BackupKeys, RestoreKeys};
use crate::location::store::StoreSource;
use crate::location::{Location, Store};
use crate::name::Name;
use crate::progress::Progress;

use apply::Applier;
use gather::Survey;
use journal::{Earlier, Header, Journal, Place};
use report::Record;
use rewrite::Rewrite;
use waves::{State, Waves};

/// No marker is larger.
const MARKER: u64 = 4 << 20;

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
    check(options)?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => fresh_name(&places(&location.store, options), options).await?,
    };
    let run = Run {
        cluster,
        options,
        name: &name,
        resumed: false,
        progress,
    };
    let source = open(location, options, progress).await?;
    let (record, mut warnings) = match source {
        Opened::Ours(archive) => run.go(&archive, None, None, Some(show)).await,
        Opened::Foreign(archive, warnings) => {
            run.go(&archive, None, None, Some(show))
                .await
                .map(|(ended, mut more)| {
                    more.extend(warnings);
                    (ended, more)
                })
        }
    }?;
    warnings.extend(record.result.err().map(|e| e.to_string()));
    Ok(warnings)
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
    check(options)?;
    let hash = options_hash(cluster, store, options).await?;
    choose_name(&places(store, options), options, &hash).await
}

async fn choose_name(
    places: &[Place],
    options: &RestoreOptions,
    hash: &str,
) -> Result<(Name, bool)> {
    match &options.name {
        Some(name) => match journal::earlier(places, name).await? {
            Some(earlier) if earlier.options_hash != hash => Err(other_options(&earlier)),
            earlier => Ok((name.clone(), earlier.is_some())),
        },
        None => match journal::unfinished(places, hash).await? {
            Some(earlier) => Ok((earlier.name, true)),
            None => Ok((fresh_name(places, options).await?, false)),
        },
    }
}

fn other_options(earlier: &Earlier) -> Error {
    Error::invalid(format!(
        "restore {} of {} had other options, another backup or another cluster",
        earlier.name, earlier.started
    ))
    .hint(
        "give this restore another name, or none; to go on with the earlier one repeat its options",
    )
}

/// `<backup>-<time>`, as Velero makes it; with a number where that is taken.
async fn fresh_name(places: &[Place], options: &RestoreOptions) -> Result<Name> {
    let time = options.now.strftime("%Y%m%d%H%M%S").to_string();
    let mut stem = options.backup.as_str();
    if stem.len() > 44 {
        stem = stem.get(..44).unwrap_or(stem);
    }
    let stem = stem.trim_end_matches(['-', '.']);
    for number in 1..100 {
        let name = match number {
            1 => format!("{stem}-{time}"),
            n => format!("{stem}-{time}-{n}"),
        };
        let name: Name = name.parse()?;
        match journal::earlier(places, &name).await {
            Ok(None) => return Ok(name),
            Err(e) if e.kind() != Kind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    Err(Error::new(
        Kind::AlreadyExists,
        "no free name was found for this restore",
    )
    .hint("give it a name"))
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
    cancel: watch::Receiver<bool>,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    check(options)?;
    let hash = options_hash(cluster, &location.store, options).await?;
    let places = places(&location.store, options);
    let earlier = journal::earlier(&places, name).await?;
    if let Some(earlier) = &earlier
        && earlier.options_hash != hash
    {
        return Err(other_options(earlier));
    }
    if let Some(finished) = earlier.as_ref().and_then(|e| e.finished) {
        progress.step(&format!(
            "restore {name} finished at {finished}; what is missing is restored again"
        ));
    }
    let resumed = earlier.is_some();
    let source = open(location, options, progress).await?;
    let header = Header {
        format: journal::FORMAT.to_owned(),
        backup: options.backup.to_string(),
        options_hash: hash,
        started: earlier.as_ref().map_or(options.now, |e| e.started),
        spec: spec(options),
    };
    let (journal, trouble) = begin(location, name, options, &header, resumed).await?;
    let run = Run {
        cluster,
        options,
        name,
        resumed,
        progress,
    };
    let (mut ended, mut warnings) = match source {
        Opened::Ours(archive) => run.go(&archive, Some(journal), Some(cancel), None).await?,
        Opened::Foreign(archive, warnings) => {
            let (ended, mut more) = run.go(&archive, Some(journal), Some(cancel), None).await?;
            more.extend(warnings);
            (ended, more)
        }
    };
    let Some(mut journal) = ended.journal.take() else {
        return Err(Error::other("the restore lost its journal"));
    };
    journal.flush(true).await;
    ended.result?;
    warnings.extend(trouble);
    warnings.extend(
        journal
            .trouble
            .take()
            .map(|why| format!("a part of the journal was not written: {why}")),
    );
    for warning in warnings {
        ended.record.warn(None, warning)?;
    }
    finish(&journal, ended.record, name, &header, resumed)
        .await
        .map_err(|e| {
            e.context(format!(
                "everything was restored, but the record of restore {name} could not be written"
            ))
            .hint("the same command writes it, and restores nothing twice")
        })
}

/// Refuses what can not be meant.
fn check(options: &RestoreOptions) -> Result<()> {
    options.filter.validate()?;
    plan::refuse_never(&options.filter)
}

/// The backup, ready to be read object by object.
enum Opened {
    Ours(Archive<StoreSource>),
    Foreign(Archive<Spooled>, Vec<String>),
}

async fn open(
    location: &Location,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<Opened> {
    let keys = BackupKeys::new(&options.backup);
    let store = &location.store;
    marker(store, options).await?;
    let archive = store.source(keys.archive());
    match store.head(&keys.index()).await {
        Ok(_) => {
            progress.step("reading the index");
            Ok(Opened::Ours(
                Archive::open(archive, store.source(keys.index())).await?,
            ))
        }
        Err(e) if e.kind() == Kind::NotFound => {
            progress.step("rewriting the archive of another tool for reading");
            let (archive, report) = spool::spool(&archive, &options.spool_dir, progress)
                .await
                .map_err(|e| e.context(format!("{} can not be read", keys.archive())))?;
            Ok(Opened::Foreign(archive, report.warnings))
        }
        Err(e) => Err(e),
    }
}

async fn marker(store: &Store, options: &RestoreOptions) -> Result<Bytes> {
    let keys = BackupKeys::new(&options.backup);
    store.find(&keys.marker(), MARKER).await?.ok_or_else(|| {
        Error::not_found(format!(
            "backup {} not found in this location",
            options.backup
        ))
        .hint("`kubectl backup get` lists what is there")
    })
}

/// Where the journal may be.
fn places(store: &Store, options: &RestoreOptions) -> [Place; 2] {
    [
        Place::Store(store.clone()),
        Place::Folder(options.state_dir.clone()),
    ]
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

/// What was asked for, as a Restore says it.
fn spec(options: &RestoreOptions) -> RestoreSpec {
    let filter = &options.filter;
    let all = |list: &[Vec<String>]| list.concat();
    let mut selectors: Vec<LabelSelector> = filter.selectors.iter().map(|s| s.0.clone()).collect();
    let single = if selectors.len() == 1 {
        selectors.pop()
    } else {
        None
    };
    let mut spec = RestoreSpec {
        backup_name: options.backup.to_string(),
        included_namespaces: filter.namespaces.clone(),
        excluded_namespaces: filter.not_namespaces.clone(),
        included_resources: all(&[
            filter.resources.clone(),
            filter.cluster_resources.clone(),
            filter.namespaced_resources.clone(),
        ]),
        excluded_resources: all(&[
            filter.not_resources.clone(),
            filter.not_cluster_resources.clone(),
            filter.not_namespaced_resources.clone(),
        ]),
        namespace_mapping: options.namespace_mappings.clone(),
        label_selector: single,
        or_label_selectors: selectors,
        include_cluster_resources: filter.include_cluster_resources,
        existing_resource_policy: match options.existing {
            ExistingPolicy::None => None,
            ExistingPolicy::Update => Some("update".to_owned()),
        },
        preserve_node_ports: options.preserve_node_ports.then_some(true),
        ..RestoreSpec::default()
    };
    if !filter.objects.is_empty() {
        spec.rest.insert("objects".into(), json!(filter.objects));
    }
    if spec.included_namespaces.is_empty() {
        spec.included_namespaces.push("*".to_owned());
    }
    spec
}

/// Digest of everything that decides what is restored, and where. Fields may be added, never renamed: unfinished restores would be forgotten.
async fn options_hash(
    cluster: &Cluster,
    store: &Store,
    options: &RestoreOptions,
) -> Result<String> {
    let marker = marker(store, options).await?;
    let target = match cluster.identity().await? {
        Some(uid) => uid,
        None => cluster.server().to_owned(),
    };
    Ok(hash_of(&marker, &target, options))
}

fn hash_of(marker: &[u8], target: &str, options: &RestoreOptions) -> String {
    let filter = &options.filter;
    let text = json!({
        "backup": options.backup.as_str(),
        "marker": rewrite::sha256(marker),
        "target": target,
        "spec": spec(options),
        "scoped": [filter.cluster_resources, filter.not_cluster_resources,
            filter.namespaced_resources, filter.not_namespaced_resources],
        "skipNoise": filter.skip_noise,
    });
    rewrite::sha256(text.to_string().as_bytes())
}

/// One run over an archive.
struct Run<'r> {
    cluster: &'r Cluster,
    options: &'r RestoreOptions,
    name: &'r Name,
    resumed: bool,
    progress: &'r dyn Progress,
}

/// How a run ended.
struct Ended {
    record: Record,
    journal: Option<Journal>,
    result: Result<()>,
}

impl Run<'_> {
    /// Restores; without a journal it only tells what it would do. Gives back warnings about the whole.
    async fn go<S: Source>(
        &self,
        archive: &Archive<S>,
        journal: Option<Journal>,
        cancel: Option<watch::Receiver<bool>>,
        show: Option<&mut (dyn FnMut(Step) + Send)>,
    ) -> Result<(Ended, Vec<String>)> {
        self.progress.step("looking at the target");
        let served: Served = discovery::discover(self.cluster).await?;
        let filter = &self.options.filter;
        let survey = Survey::take(archive, filter, &served).await?;
        self.progress.expect(survey.total());
        let mut warnings = Vec::new();
        if survey.total() == 0 {
            warnings.push("nothing in the backup is what was asked for".to_owned());
        }
        let applier = Applier {
            cluster: self.cluster.clone(),
            rewrite: Rewrite {
                backup: rewrite::label_value(self.options.backup.as_str()),
                restore: rewrite::label_value(self.name.as_str()),
                mappings: self.options.namespace_mappings.clone(),
                preserve_node_ports: self.options.preserve_node_ports,
                kept_volumes: survey.kept_volumes.clone(),
            },
            existing: self.options.existing,
            dry: journal.is_none(),
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
            resumed: self.resumed,
            state: State::default(),
        };
        let result = waves.run().await;
        let ended = Ended {
            record: waves.record,
            journal: waves.journal,
            result,
        };
        Ok((ended, warnings))
    }
}

/// Writes the side files and, last, the record.
async fn finish(
    journal: &Journal,
    record: Record,
    name: &Name,
    header: &Header,
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
            annotations: BTreeMap::from([(
                journal::ANNOTATION_OPTIONS.to_owned(),
                header.options_hash.clone(),
            )]),
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
