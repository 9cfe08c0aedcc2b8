//! Creates a backup: gather what the cluster serves, plan which lists are made, apply them as a stream into the location, report.

mod apply;
mod budget;
mod choice;
mod copies;
mod gather;
mod hooked;
mod names;
mod outgoing;
mod page;
mod page_size;
mod plan;
mod point_in_time;
mod policies;
mod related;
mod report;
mod scheduled;
#[cfg(test)]
pub(crate) mod server;
mod volume_files;
mod volumes;
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use self::apply::{Applied, Apply};
use self::choice::{Copied, Wanted};
use self::copies::Copying;
pub use self::gather::EXCLUDE_LABEL;
use self::gather::Gathered;
use self::names::gzip;
use self::outgoing::Outgoing;
use self::page::{Keep, Pick};
pub(crate) use self::page::{Passed, PassedOver};
use self::point_in_time::Patience;
use self::report::{Facts, Log};
use crate::apart::Apart;
use crate::api::{Backup, BackupSpec};
use crate::archive::SECRETS;
use crate::archive::pack::Item;
use crate::archive::row::{Outcome, ResourceRow};
use crate::catalog::Digests;
use crate::cluster::Cluster;
use crate::discovery::{ApiResource, Served};
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::hooks::Process;
use crate::hooks::ask::SpecHooks;
use crate::hooks::bracket::{Brackets, Notes};
use crate::layout::BackupKeys;
use crate::location::claim::{Claim, Purpose, has_marker};
use crate::location::guard::{self, Coming};
use crate::location::{Location, hex};
use crate::name::Name;
use crate::progress::Progress;
use crate::records::copies::{Copies, Row};

pub use copies::CopyOptions;
pub use policies::Policies;
pub(crate) use policies::quantity;
pub use scheduled::{EVERY, KEEP, ordered_resources, schedule};

/// The field of a Backup's spec that asks for copies of the files of all claims.
pub const COPY_ALL: &str = "defaultVolumesToFsBackup";

/// The same by its name before Velero 1.10.
const COPY_ALL_BEFORE: &str = "defaultVolumesToRestic";

/// Annotation of a location: whether [`COPY_ALL`] holds for backups that do not say it.
pub const COPY_ALL_OF_LOCATION: &str = "kubectl-backup/default-volumes-to-fs-backup";

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
    /// Velero's `--snapshot-volumes`; `Some(false)` says that volumes are not wanted.
    pub snapshot_volumes: Option<bool>,
    /// Which volumes need not be saved, which have to be, and kinds to take and leave.
    pub policies: Option<Arc<Policies>>,
    /// What else the record's spec holds, as Velero has it: hooks, and fields that are not acted on. Its filters, ttl and location are not looked at.
    pub template: BackupSpec,
    /// How the files of volumes are copied; without it none are.
    pub copies: Option<Arc<CopyOptions>>,
    /// All types at one revision (the default).
    pub exact: bool,
    /// The machine's name, for the claim.
    pub host: String,
    /// The process, for what it owes to pods.
    pub process: Process,
    /// The time, for name and stamps.
    pub now: Timestamp,
}

impl BackupOptions {
    /// Refuses what can not be meant.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn validate(&self) -> Result<()> {
        self.filter.validate()?;
        SpecHooks::read(&self.template.hooks)?;
        let chooses = self
            .policies
            .as_ref()
            .is_some_and(|policies| policies.chooses_kinds());
        if chooses && self.filter.is_old_style() {
            return Err(Error::invalid(
                "include-resources, exclude-resources and include-cluster-resources can not be used together with an includeExcludePolicy",
            )
            .hint("use the cluster-scoped and namespace-scoped lists beside it"));
        }
        Ok(())
    }

    /// What the spec says of this.
    fn says(&self, key: &str) -> Option<bool> {
        self.template.rest.get(key)?.as_bool()
    }

    /// Whether the files of all claims are to be copied.
    fn copies_by_default(&self) -> bool {
        let newer = self.says(COPY_ALL);
        newer.or(self.says(COPY_ALL_BEFORE)).unwrap_or_default()
    }

    /// The same with what the location says where nobody else does; it stands in the backup's spec then.
    fn at(&self, location: &Location) -> Result<Self> {
        let mut options = self.clone();
        let annotations = &location.spec.metadata.annotations;
        let said = match annotations.get(COPY_ALL_OF_LOCATION).map(String::as_str) {
            Some("true") => true,
            Some("false") | None => return Ok(options),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "annotation {COPY_ALL_OF_LOCATION} of location {} says {other:?}",
                    crate::error::quoted(&location.name)
                ))
                .hint("it is true or false"));
            }
        };
        if self.says(COPY_ALL).is_none() && self.says(COPY_ALL_BEFORE).is_none() {
            options
                .template
                .rest
                .insert(COPY_ALL.to_owned(), said.into());
        }
        Ok(options)
    }

    /// Whether snapshots of volumes are asked for; a snapshot that is to be moved is one as well.
    fn wants_snapshots(&self) -> Option<bool> {
        match self.snapshot_volumes {
            None if self.says("snapshotMoveData") == Some(true) => Some(true),
            wanted => wanted,
        }
    }
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
    /// What became of the data of each PVC.
    pub volumes: Vec<Row>,
    /// PVCs whose data is not in the backup, `ns/name`.
    pub volumes_not_saved: Vec<String>,
    /// PVCs whose data a resource policy leaves out, `ns/name`.
    pub volumes_left_out: Vec<String>,
    /// Bytes of the archive.
    pub archive_bytes: u64,
}

/// Creates a backup. When the future is dropped before the marker, nothing visible stays; see `cancel`.
///
/// Expected flow: gather, guard, claim; archive and index stream out while the lists come in; side files, SHA256SUMS, marker.
/// Guarantees: before the marker nothing is a backup, and whatever stops the work (an error, `cancel`) takes its files away again. From the
/// marker's PUT on nothing is deleted and `cancel` is not heard: it is known how it ended.
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
    let options = &options.at(location)?;
    options.validate()?;
    if location.is_read_only() {
        return Err(
            Error::invalid(format!("location {} is read-only", location.name))
                .hint("choose another with --location, or set its accessMode to ReadWrite"),
        );
    }
    location.signatures.may_write(&location.name)?;
    // Wherever a backup is made: it is never a plain one where its location says for whom it is to be encrypted.
    location.refuse_plain("backups that are made here")?;
    let log = Arc::new(Log::new(options.now));
    progress.step("asking the cluster what it serves");
    let gathered = tokio::select! {
        gathered = begin(cluster, location, options) => gathered?,
        () = cancelled(cancel.clone()) => return Err(interrupted(options.name.as_str())),
    };
    refuse_other_of_name(location, &options.name).await?;
    // Short, and not to be left half done.
    let claim = Claim::take(
        &location.store,
        &options.name,
        Purpose::Create,
        &options.host,
    )
    .await?;
    let brackets = brackets(cluster, location, options, &gathered, &claim, &log, &cancel);
    let copying = options.copies.as_ref().map(|how| {
        let of = (options, claim.run());
        Copying::new(cluster, location, how, of, &log)
    });
    let work = Work {
        cluster,
        location,
        options,
        claim: &claim,
        brackets: &brackets,
        copying: copying.as_ref(),
        log: &log,
        progress,
    };
    let sealed = async {
        let gathered = Arc::new(gathered);
        if let Some(files) = location
            .key_files
            .as_ref()
            .filter(|_| location.apart.is_none())
        {
            let keys = claim.keys();
            claim.put(&keys.key(), files.key.clone()).await?;
            claim
                .put(&keys.recipients(), files.recipients.clone())
                .await?;
        }
        let applied = work.read(&gathered, cancel.clone()).await?;
        let ending = async {
            if let Some(copying) = &copying {
                copying.rest(progress).await;
            }
            work.seal(&gathered, applied).await
        };
        tokio::select! {
            sealed = ending => sealed,
            () = cancelled(cancel) => Err(interrupted(options.name.as_str())),
        }
    };
    match sealed.await {
        Ok((marker, report)) => {
            if let Err(e) = claim.put_marker(marker).await {
                // Takes nothing back once the marker was sent.
                claim.withdraw().await;
                return Err(e);
            }
            claim.release().await;
            Ok(report)
        }
        Err(e) => {
            if let Some(copying) = &copying {
                let left = copying.settle().await;
                left.iter().for_each(|text| progress.warn(text));
            }
            // Whatever it was: no pod is left without its post hook, and while the claim stands nobody else runs it.
            brackets.settle().await;
            claim.withdraw().await;
            Err(e)
        }
    }
}

/// Where pods run their hooks, and what is owed to them is noted.
fn brackets(
    cluster: &Cluster,
    location: &Location,
    options: &BackupOptions,
    gathered: &Gathered,
    claim: &Claim,
    log: &Arc<Log>,
    cancel: &tokio::sync::watch::Receiver<bool>,
) -> Brackets {
    let schedule = options.labels.get(crate::catalog::SCHEDULE_NAME);
    let notes = Notes {
        store: location.store.outside(),
        cluster: gathered.identity.clone(),
        backup: options.name.to_string(),
        run: claim.run().to_owned(),
        schedule: schedule.cloned(),
        names: !location.store.is_vault(),
        process: options.process.clone(),
    };
    let log = Arc::clone(log);
    let line = move |level: &str, text: &str| log.line(level, text);
    let (cluster, cancel) = (cluster.clone(), cancel.clone());
    Brackets::new(cluster, notes, cancel, claim.pulse(), Arc::new(line))
}

/// A name is one backup's, encrypted or not.
pub(crate) async fn refuse_other_of_name(location: &Location, name: &Name) -> Result<()> {
    let store = &location.store;
    let (other, how) = match store.is_vault() {
        true => (store.outside(), "a plain one"),
        false => (store.vault(None), "an encrypted one"),
    };
    if !has_marker(&other, &BackupKeys::new(name)).await? {
        return Ok(());
    }
    Err(Error::new(
        Kind::AlreadyExists,
        format!("backup {name} exists already, {how}"),
    )
    .hint(format!(
        "choose another name, or remove it first: kubectl backup delete {name}"
    )))
}

/// What a backup of everything would save of a cluster: its kinds, and of a LIST's answer the objects.
pub(crate) struct Everything {
    /// Kinds that would be listed.
    pub(crate) kinds: Vec<Arc<ApiResource>>,
    keep: Keep,
}

impl Everything {
    /// Learns which namespaces are left out by their label; who may not list them takes all.
    ///
    /// # Errors
    /// When the cluster is not reached.
    pub(crate) async fn of(cluster: &Cluster, served: &Served) -> Result<Self> {
        let namespaces = match gather::list_namespaces(cluster).await {
            Ok(namespaces) => Some(namespaces),
            Err(e) if e.is_forbidden() => None,
            Err(e) => return Err(Error::from(e).context("can not list namespaces")),
        };
        let gathered = Gathered {
            served: served.clone(),
            namespaces,
            ..Gathered::default()
        };
        let plan = plan::plan(&gathered, false);
        let namespaces = plan.namespaces.into_iter().map(|(resource, _)| resource);
        Ok(Self {
            kinds: namespaces
                .chain(plan.lists.into_iter().map(|list| list.resource))
                .collect(),
            keep: Keep {
                gathered: Arc::new(gathered),
                by_labels: false,
                pick: Pick::All,
                tell_passed: true,
            },
        })
    }

    /// The objects of one page, those that are passed over, and the token of the next; empty on the last.
    ///
    /// # Errors
    /// When it is no list.
    pub(crate) fn cut(
        &self,
        page: &Bytes,
        resource: &ApiResource,
    ) -> Result<(Vec<Item>, Vec<PassedOver>, String)> {
        let page = page::split(page, resource, &self.keep)?;
        Ok((page.items, page.seen.passed, page.token))
    }
}

/// The Backup object that these options mean, for a dry run; nothing is asked or written.
pub fn planned(options: &BackupOptions, location: &str) -> Backup {
    report::planned(options, location)
}

fn interrupted(name: &str) -> Error {
    Error::new(
        Kind::Interrupted,
        format!("backup {name} was stopped; there is no backup of that name"),
    )
}

/// Ends when somebody says stop; never, when nobody can say it any more.
pub(crate) async fn cancelled(mut cancel: tokio::sync::watch::Receiver<bool>) {
    if cancel.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Everything before the claim: what the cluster is, and whether it may write here.
async fn begin(
    cluster: &Cluster,
    location: &Location,
    options: &BackupOptions,
) -> Result<Gathered> {
    let gathered = gather::gather(cluster, options).await?;
    let identity = gathered.identity.as_deref();
    let Some(other) = guard::enter(location, identity, Coming::of(location)?).await? else {
        return Ok(gathered);
    };
    Err(Error::new(
        Kind::AlreadyExists,
        format!(
            "location {} holds the backups of another cluster ({other}), not of this one ({})",
            location.name,
            identity.unwrap_or("unknown")
        ),
    )
    .hint(format!(
        "use another location or prefix; `kubectl backup location adopt {}` hands it to this cluster",
        crate::error::quoted(&location.name)
    )))
}

/// The work under a claim.
struct Work<'a> {
    cluster: &'a Cluster,
    location: &'a Location,
    options: &'a BackupOptions,
    claim: &'a Claim,
    brackets: &'a Brackets,
    copying: Option<&'a Copying>,
    log: &'a Log,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    /// Lists, and streams archive and index.
    async fn read(
        &self,
        gathered: &Arc<Gathered>,
        cancel: tokio::sync::watch::Receiver<bool>,
    ) -> Result<Applied<Outgoing, Outgoing>> {
        let Self {
            options,
            claim,
            log,
            ..
        } = self;
        log.line(
            "info",
            &format!(
                "backup {} of {} ({}), {} API resources served",
                options.name,
                self.cluster.server(),
                gathered.version.git_version,
                gathered.served.all.len()
            ),
        );
        let plan = plan::plan(gathered, options.single_namespace);
        let keys = claim.keys();
        let archive = Outgoing::plain(claim.upload(&keys.archive()).await?);
        let index = Outgoing::plain(claim.upload(&keys.index()).await?.slim());
        let apart = match (&self.location.apart, &self.location.key_files) {
            (Some(key), Some(files)) if plan.lists(SECRETS) => {
                claim.put(&keys.secrets_key(), files.key.clone()).await?;
                let names = files.recipients.clone();
                claim.put(&keys.secrets_recipients(), names).await?;
                let archive = claim.upload(&keys.secrets_archive()).await?.slim();
                let index = claim.upload(&keys.secrets_index()).await?.slim();
                Some((
                    Outgoing::sealed(archive, key)?,
                    Outgoing::sealed(index, key)?,
                ))
            }
            _ => None,
        };
        Apply {
            cluster: self.cluster,
            gathered: Arc::clone(gathered),
            cancel,
            exact: options.exact,
            mtime: u64::try_from(options.now.as_second()).unwrap_or_default(),
            patience: Patience::default(),
            brackets: self.brackets,
            copying: self.copying,
            progress: self.progress,
        }
        .run(plan, options.name.as_str(), archive, index, apart)
        .await
    }

    /// Everything after the lists but the marker, which comes back as bytes.
    async fn seal(
        &self,
        gathered: &Gathered,
        applied: Applied<Outgoing, Outgoing>,
    ) -> Result<(Bytes, BackupReport)> {
        let Self {
            options,
            claim,
            log,
            progress,
            ..
        } = self;
        let keys = claim.keys();
        let Applied {
            archive,
            index,
            totals,
            rows,
            revision,
            seen,
            names,
            apart,
        } = applied;
        // Post hooks may still be at work.
        let hooks = self.brackets.settle().await;
        let copied = match self.copying {
            Some(copying) => {
                for text in copying.settle().await {
                    log.line("warning", &text);
                    progress.warn(&text);
                }
                copying.copied()
            }
            None => Copied::new(),
        };
        progress.step("writing the side files");
        let (archive, index) = futures::join!(archive.finish(), index.finish());
        let mut digests = Digests::new()
            .add(&keys.archive(), &archive?.sha256)
            .add(&keys.index(), &index?.sha256);
        let (mut objects, mut bytes) = (totals.objects, totals.bytes);
        let mut told = None;
        if let (Some(apart), Some(key)) = (apart, &self.location.apart) {
            let (archive, index) = futures::join!(apart.archive.finish(), apart.index.finish());
            digests = digests
                .add(&keys.secrets_archive(), &archive?.sha256)
                .add(&keys.secrets_index(), &index?.sha256);
            objects += apart.totals.objects;
            bytes += apart.totals.bytes;
            told = Some(Apart {
                count: apart.totals.objects,
                key: key.public(),
                index: hex(&apart.totals.seal),
            });
        }

        let choices = choice::choose(&seen, Wanted::of(options, gathered));
        let claims = choice::rows(&choices, &seen.volumes, &copied);
        let findings = report::judge(options, gathered, &rows, revision, &seen, &claims, &hooks);
        for row in &rows {
            let level = match row.outcome {
                Outcome::Failed => "error",
                Outcome::Saved | Outcome::Excluded => "info",
            };
            log.line(level, &report::describe(row));
        }
        findings.log(log);
        for text in findings.warnings.sentences() {
            progress.warn(&text);
        }
        log.line(
            "info",
            &format!(
                "{}: {objects} objects, {bytes} bytes of archive",
                findings.phase(),
            ),
        );
        if let Some(told) = &told {
            let text = format!("{} secrets are encrypted apart", told.count);
            log.line("info", &text);
        }
        let backup = report::marker(
            options,
            gathered,
            &findings,
            &Facts {
                location: &self.location.name,
                context: self.cluster.context(),
                revision,
                objects,
                apart: told.as_ref(),
                hooks: &hooks,
                completed: log.now(),
            },
        );
        let marker: Bytes = serde_json::to_vec_pretty(&backup)
            .map_err(|e| Error::other("the marker can not be written as JSON").because(e))?
            .into();
        let copies = Copies {
            cluster: gathered.identity.clone(),
            backup_uid: self
                .copying
                .map_or(claim.run(), Copying::backup_uid)
                .to_owned(),
            run: claim.run().to_owned(),
            rows: claims,
        };
        let name = options.name.as_str();
        let place = backup.spec.storage_location.as_deref().unwrap_or_default();
        let infos = report::json(&volume_files::infos(&copies.rows, &seen.volumes))?;
        let pods = report::json(&volume_files::pod_volume_backups(name, place, &copies))?;
        let mut files = vec![
            (keys.results(), gzip(&findings.results()?)),
            (keys.resource_list(), names::resource_list(names)),
            (keys.volume_info(), gzip(&infos)),
            (keys.volume_snapshots(), gzip(b"[]")),
            (keys.pod_volume_backups(), gzip(&pods)),
            (keys.item_operations(), gzip(b"[]")),
            (keys.logs(), log.finish()),
        ];
        if !copies.rows.is_empty() {
            files.push((keys.volumes(), copies.write()?));
        }
        for (key, bytes) in &files {
            digests = digests.add_bytes(key, bytes);
        }
        futures::future::try_join_all(
            files
                .into_iter()
                .map(|(key, bytes)| async move { claim.put(&key, bytes).await }),
        )
        .await?;
        digests = digests.add_bytes(&keys.marker(), &marker);
        claim.confirm().await?;
        let digests = digests.to_bytes();
        claim.put(&keys.digests(), digests.clone()).await?;
        if let Some(key) = &self.location.signatures.sign {
            claim.put(&keys.signature(), key.sign(&digests)).await?;
        }
        let report = BackupReport {
            backup,
            resources: rows,
            errors: findings.errors.sentences(),
            warnings: findings.warnings.sentences(),
            volumes: copies.rows,
            volumes_not_saved: findings.not_saved,
            volumes_left_out: findings.left_out,
            archive_bytes: bytes,
        };
        Ok((marker, report))
    }
}

#[cfg(test)]
mod tests;
