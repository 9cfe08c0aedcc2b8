//! One run over an archive: looks, asks, and restores or tells what it would do.

use std::sync::{Arc, Mutex};

use super::apply::{Applier, Deletions};
use super::disks::Disks;
use super::gather::{self, Survey};
use super::held::{self, Choice, Holding};
use super::journal::{Earlier, Header, Journal};
use super::kept::Kept;
use super::naming::in_folder_alone;
use super::open::marker;
use super::place::Place;
use super::preflight::look::Look;
use super::report::Record;
use super::rewrite::Rewrite;
use super::snapped::{self, Snapped};
use super::volumes::Volumes;
use super::waves::{State, Waves};
use super::{Consent, DryRun, ExistingPolicy, Lack, RestoreOptions, Step, hooks, rewriting};
use crate::api::{Backup, Phase};
use crate::archive::read::{Archive, Source};
use crate::archive::row::ResourceRow;
use crate::catalog::CLUSTER_UID;
use crate::cluster::Cluster;
use crate::discovery::Served;
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::hooks::restored::{Made, RestoreHooks};
use crate::location::Location;
use crate::name::{Name, label_value};
use crate::progress::Progress;
use crate::signature;

/// What a run is for.
pub(super) enum Goal<'g> {
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

/// One run over an archive.
pub(super) struct Run<'r> {
    pub(super) cluster: &'r Cluster,
    pub(super) location: &'r Location,
    pub(super) options: &'r RestoreOptions,
    pub(super) name: &'r Name,
    /// The same restore, where it was begun before.
    pub(super) earlier: Option<&'r Earlier>,
    pub(super) progress: &'r dyn Progress,
}

/// How a run ended.
pub(super) struct Ended {
    pub(super) record: Record,
    pub(super) journal: Option<Journal>,
    pub(super) lacks: Vec<Lack>,
    /// By which snapshots name the backup; empty where no data of volumes comes back.
    pub(super) backup_uid: String,
    pub(super) result: Result<()>,
}

impl Run<'_> {
    /// Restores, or tells what it would do. Gives back warnings about the whole.
    pub(super) async fn go<S: Source>(
        &self,
        archive: &Archive<S>,
        served: Served,
        goal: Goal<'_>,
    ) -> Result<(Ended, Vec<String>)> {
        let (filter, unknown) =
            gather::bind(&self.options.filter, archive.index.resources(), &served);
        let filter = &filter;
        let rows = archive.index.resources();
        gather::refuse_locked(filter, rows, &served, &self.options.backup)?;
        let mut warnings: Vec<String> = unknown
            .iter()
            .map(|kind| format!("the backup knows no kind {:?}", kind.trim_end_matches('.')))
            .collect();
        let backup = &self.options.backup;
        let small = signature::small_files(self.location, backup).await?;
        let saved = saved(&marker(&small, backup).await?);
        warnings.extend(saved.as_ref().and_then(unfinished_backup));
        let data_wanted = self.options.restore_volumes != Some(false);
        let volumes = Volumes::read(&small, backup, data_wanted).await?;
        let mut survey = Survey::take(archive, filter, &served, volumes).await?;
        let annotations = saved.as_ref().map(|saved| &saved.metadata.annotations);
        let of = annotations.and_then(|all| all.get(CLUSTER_UID));
        let adopt = self.options.adopt_volumes == Some(true);
        let disks = Disks::look(self.cluster, of.map(String::as_str), adopt);
        survey.look_at_disks(archive, filter, disks).await?;
        if self.options.adopt_volumes == Some(false) {
            survey.awaits_nothing();
        }
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
            backup: label_value(self.options.backup.as_str()),
            restore: label_value(self.name.as_str()),
            mappings: self.options.namespace_mappings.clone(),
            preserve_node_ports: self.options.preserve_node_ports,
            kept_volumes: survey.kept_volumes.clone(),
            awaited_volumes: survey.awaited_volumes.keys().cloned().collect(),
            rewriting: Arc::new(rewriting.clone()),
            prepared: Arc::new(prepared),
            hooks: Arc::new(RestoreHooks::read(&self.options.hooks)?.resolve(&served.all)),
            missing_classes: rewriting::missing_classes(
                self.cluster,
                rewriting,
                archive,
                filter,
                &survey,
            )
            .await?,
        };
        let (store, volumes) = (&self.location.store, &self.options.volumes);
        let held = held::find(archive, filter, &survey, &rewrite, store, volumes).await?;
        let held = Arc::new(held);
        let snapped = Arc::new(self.snapped(&survey).await?);
        for ((namespace, claim), choice) in &snapped.claims {
            if let snapped::Choice::Refuse(why) = choice {
                warnings.push(format!("the data of claim {namespace}/{claim} can not come back, so neither it nor what uses it is made: {why}"));
            }
        }
        for ((namespace, claim), choice) in &held.claims {
            if let Choice::Refuse(why) = choice {
                warnings.push(format!("the data of claim {namespace}/{claim} can not come back, so neither it nor what uses it is made: {why}"));
            }
        }
        let copies = survey.volumes.copies.as_ref();
        let backup_uid = copies.map_or_else(String::new, |copies| copies.backup_uid.clone());
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
        let mut found = look.run().await?;
        found
            .lacks
            .extend(survey.awaited_volumes.iter().map(|(name, why)| Lack {
                kind: "PersistentVolume".to_owned(),
                name: name.clone(),
                reason: why.clone(),
            }));
        warnings.extend(found.notes);
        // Nothing is written before all of that is known to be sound.
        let resumed = self.earlier.is_some();
        let (journal, cancel, dry, show) = match goal {
            Goal::Restore { header, consent } => {
                let cancel = consent(&found.lacks)?;
                let header = Header {
                    backup_uid: Some(backup_uid.clone()),
                    ..header.clone()
                };
                let begun = begin(self.location, self.name, self.options, &header, resumed);
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
            held: held.clone(),
            unheld: held::Unheld::default(),
            snapped,
            sources: Mutex::default(),
            made: Made::default(),
        };
        let holding = (dry.is_none() && !held.claims.is_empty()).then(|| {
            let run = uuid::Uuid::new_v4().simple().to_string();
            Holding::new(self.cluster, store, &self.options.volumes, &run)
        });
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
            data_wanted,
            name: self.name.as_str(),
            held,
            holding,
            state: State::default(),
        };
        for unread in &survey.volumes.unread {
            match waves.data_wanted {
                true => waves.record.fail(None, unread.clone())?,
                false => waves.record.warn(None, unread.clone())?,
            }
        }
        for (name, why) in &survey.awaited_volumes {
            waves.record.fail(None, format!("volume {name}: {why}"))?;
        }
        let mut result = waves.run().await;
        if result.is_ok() {
            result = waves.filled().await;
        }
        waves.settle_held().await?;
        if result.is_ok() {
            result = waves.unbound().await;
        }
        if result.is_ok() && !waves.applier.is_dry() {
            let unfinished = self
                .earlier
                .is_some_and(|earlier| earlier.finished.is_none());
            result = hooks::run(&mut waves, unfinished).await;
        }
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
            backup_uid,
            result,
        };
        Ok((ended, warnings))
    }
}

impl Run<'_> {
    /// Claims whose data is a snapshot.
    async fn snapped(&self, survey: &Survey) -> Result<Snapped> {
        let copies = survey.volumes.copies.as_ref();
        let copies = copies.filter(|copies| copies.rows.iter().any(|row| row.snapshot().is_some()));
        let Some(copies) = copies else {
            return Ok(Snapped::default());
        };
        let cluster = self.cluster.identity().await?;
        Ok(Snapped::of(
            copies,
            &survey.volumes.uids,
            cluster.as_deref(),
        ))
    }
}

impl<S: Source> Waves<'_, S> {
    /// Waits for the claims that are made of snapshots, and tells of those that are not bound.
    async fn unbound(&mut self) -> Result<()> {
        let unbound = self.applier.bound().await?;
        for text in unbound.failed {
            self.record.fail(None, text)?;
        }
        for text in unbound.late.into_iter().chain(unbound.left) {
            self.record.warn(None, text)?;
        }
        Ok(())
    }
}

/// Begins the journal in the location or, where that takes no writes or it is not for it, in the user's own folder.
async fn begin(
    location: &Location,
    name: &Name,
    options: &RestoreOptions,
    header: &Header,
    resumed: bool,
) -> Result<(Journal, Option<String>)> {
    let folder = Place::Folder(options.state_dir.clone());
    if location.is_read_only() || in_folder_alone(location, options) {
        return Ok((Journal::open(folder, name, header, resumed).await?, None));
    }
    let store = Place::Store(location.store.clone());
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

/// The backup as its marker has it, where that can be read.
fn saved(marker: &[u8]) -> Option<Backup> {
    serde_json::from_slice(marker).ok()
}

/// What a backup's marker says of how it ended, unless that was well.
fn unfinished_backup(backup: &Backup) -> Option<String> {
    (backup.status.phase != Phase::Completed).then(|| {
        format!(
            "backup {} is {}: not everything that it was to hold is in it",
            backup.metadata.name, backup.status.phase
        )
    })
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

/// Some names, and how many more.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let mut text = names[..names.len().min(MOST)].join(", ");
    if names.len() > MOST {
        text.push_str(&format!(" and {} more", names.len() - MOST));
    }
    text
}
