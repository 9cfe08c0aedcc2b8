//! Creates a backup: gather what the cluster serves, plan which lists are made, apply them as a stream into the location, report.

mod apply;
mod budget;
mod choice;
mod copies;
mod gather;
mod hooked;
mod names;
mod options;
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
mod work;
mod writers;

use std::sync::Arc;

use bytes::Bytes;

use self::copies::Copying;
pub use self::gather::EXCLUDE_LABEL;
use self::gather::Gathered;
use self::page::{Keep, Pick};
pub(crate) use self::page::{Passed, PassedOver};
use self::report::Log;
use self::work::Work;
use crate::api::Backup;
use crate::archive::pack::Item;
use crate::archive::row::ResourceRow;
use crate::cluster::Cluster;
use crate::discovery::{ApiResource, Served};
use crate::error::{Error, Kind, Result};
use crate::hooks::bracket::{Brackets, Notes};
use crate::layout::BackupKeys;
use crate::location::Location;
use crate::location::claim::{Claim, Purpose, has_marker};
use crate::location::guard::{self, Coming};
use crate::name::Name;
use crate::progress::Progress;
use crate::records::copies::Row;

pub use copies::CopyOptions;
pub use options::{
    BackupOptions, COPY_ALL, COPY_ALL_OF_LOCATION, EPHEMERAL_MOVERS, MOVER_CREDENTIALS,
    MOVES_SNAPSHOTS, SNAPSHOT_TIMEOUT,
};
pub use policies::Policies;
pub(crate) use policies::quantity;
pub use scheduled::{EVERY, KEEP, ordered_resources, schedule};

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
        let of = (options, claim.run(), gathered.identity.as_deref());
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
    let stop = cancel.clone();
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
            if let Some(copying) = &copying {
                // The backup stands: what is left of their objects is the next run's.
                let left = copying.cuts.leave().await;
                left.iter().for_each(|text| progress.warn(text));
            }
            claim.release().await;
            if let Some(copying) = &copying {
                tokio::select! {
                    () = copying.let_go(progress) => {}
                    () = cancelled(stop) => {}
                }
            }
            Ok(report)
        }
        Err(e) => {
            if let Some(copying) = &copying {
                let (movers, snapshots) = futures::join!(copying.settle(), copying.cuts.settle());
                movers
                    .iter()
                    .chain(&snapshots)
                    .for_each(|text| progress.warn(text));
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

#[cfg(test)]
mod tests;
