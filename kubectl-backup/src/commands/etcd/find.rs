//! Snapshots: from the objects' status, or with `--location` from the bucket alone; and which one a name means.

use backup_core::api::{EtcdBackupConfig, RowPhase, SnapshotRow};
use backup_core::etcd::catalog::{self, Entry};
use backup_core::etcd::names::Asked;
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::{Error, Kind};
use jiff::Timestamp;

use super::destination;
use super::objects::Object;
use super::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{CommandError, Result};

/// A snapshot that is known of.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) cluster: String,
    pub(super) source: Source,
}

/// From where it is known.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// An object's status.
    Row {
        config: Box<Object<EtcdBackupConfig>>,
        row: Box<SnapshotRow>,
    },
    /// A bucket.
    Bucket(Box<Location>, Box<Entry>),
}

impl Snapshot {
    pub(super) fn config(&self) -> Option<&str> {
        match &self.source {
            Source::Row { config, .. } => Some(config.name()),
            Source::Bucket(_, entry) => entry.manifest.config.as_deref(),
        }
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        match &self.source {
            Source::Row { config, .. } => Some(config.namespace()),
            Source::Bucket(..) => None,
        }
    }

    /// Where it is kept: the destination's name, or the location's.
    pub(super) fn destination(&self) -> &str {
        match &self.source {
            Source::Row { config, .. } => &config.it.spec.destination,
            Source::Bucket(location, _) => &location.name,
        }
    }

    pub(super) fn status(&self) -> String {
        match &self.source {
            Source::Bucket(..) => RowPhase::Completed.to_string(),
            Source::Row { row, .. } => status(row),
        }
    }

    /// Whether it can be restored as far as is known.
    pub(super) fn is_good(&self) -> bool {
        match &self.source {
            Source::Bucket(..) => true,
            Source::Row { row, .. } => row.is_good(),
        }
    }

    /// When it was taken, or was to be.
    pub(super) fn created(&self) -> Option<Timestamp> {
        match &self.source {
            Source::Bucket(_, entry) => Some(entry.manifest.created_at),
            Source::Row { row, .. } => {
                let time = row
                    .backup_finished_time
                    .as_ref()
                    .or(row.scheduled_time.as_ref());
                time.map(|time| time.0)
            }
        }
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        match &self.source {
            Source::Bucket(_, entry) => Some(entry.manifest.data.bytes),
            Source::Row { row, .. } => row.backup_size.and_then(|bytes| bytes.try_into().ok()),
        }
    }

    pub(super) fn revision(&self) -> Option<i64> {
        match &self.source {
            Source::Bucket(_, entry) => Some(entry.manifest.facts.revision),
            Source::Row { row, .. } => row.revision,
        }
    }

    pub(super) fn hash(&self) -> Option<&str> {
        match &self.source {
            Source::Bucket(_, entry) => {
                Some(entry.manifest.snapshot.sha256.as_str()).filter(|hash| !hash.is_empty())
            }
            Source::Row { row, .. } => row.hash.as_deref(),
        }
    }

    /// How it is encrypted; a row without that and without a digest does not say.
    pub(super) fn encrypted(&self) -> &str {
        match &self.source {
            Source::Bucket(_, entry) => entry
                .manifest
                .data
                .encryption
                .as_deref()
                .unwrap_or_default(),
            Source::Row { row, .. } => match (&row.encryption, &row.hash) {
                (Some(how), _) => how,
                (None, None) if row.is_good() => "<unknown>",
                (None, _) => "",
            },
        }
    }

    pub(super) fn message(&self) -> &str {
        match &self.source {
            Source::Bucket(..) => "",
            Source::Row { row, .. } if row.delete_message.is_empty() => &row.backup_message,
            Source::Row { row, .. } => &row.delete_message,
        }
    }

    /// Its location and manifest as who may read it sees them: an encrypted one is opened.
    ///
    /// # Errors
    /// As [`Snapshot::entry`]; `Unauthorized` where no identity fits; `Corrupt` where it is plain and a flag names an identity.
    pub(super) async fn unlocked(&self, context: &Context) -> Result<(Location, Entry)> {
        let (location, entry) = self.entry(context).await?;
        if !entry.is_locked() {
            if context.identity_args().is_named() {
                return Err(Error::corrupt(format!(
                    "snapshot {} is not encrypted, and an encrypted one is asked for",
                    self.name
                ))
                .hint("somebody may have put a plain snapshot in its place; where it is one of old, ask for it without --identity and --passphrase-file")
                .into());
            }
            return Ok((location, entry));
        }
        let entry = entry
            .unlocked(&location.store, &context.identities()?)
            .await?;
        Ok((location, entry))
    }

    /// Its location and manifest as they stand; what an object only names is opened and read.
    ///
    /// # Errors
    /// A destination that can not be used from here; a snapshot that is not in it.
    pub(super) async fn entry(&self, context: &Context) -> Result<(Location, Entry)> {
        match &self.source {
            Source::Bucket(location, entry) => Ok(((**location).clone(), (**entry).clone())),
            Source::Row { config, .. } => {
                let location =
                    destination::open(context, config.namespace(), self.destination()).await?;
                let (cluster, name) = (Name::foreign(&self.cluster)?, Name::foreign(&self.name)?);
                let entry = catalog::get(&location.store, &cluster, &name).await?;
                Ok((location, entry))
            }
        }
    }
}

/// A row in one word.
fn status(row: &SnapshotRow) -> String {
    match (&row.backup_phase, &row.delete_phase) {
        (_, RowPhase::Running) => "Deleting".to_owned(),
        (_, RowPhase::Failed) => "DeleteFailed".to_owned(),
        (RowPhase::Scheduled, _) => "Scheduled".to_owned(),
        (phase, _) => phase.to_string(),
    }
}

/// All snapshots that are meant, by cluster, the oldest first.
///
/// # Errors
/// The store's or the API server's.
pub(super) async fn all(context: &Context, scope: &ScopeArgs) -> Result<Vec<Snapshot>> {
    let found = if context.is_location_asked() {
        of_bucket(context, scope).await
    } else {
        of_objects(context, scope).await
    };
    let mut found = found?;
    found.sort_by(|a, b| {
        (&a.cluster, a.created(), &a.name).cmp(&(&b.cluster, b.created(), &b.name))
    });
    Ok(found)
}

async fn of_bucket(context: &Context, scope: &ScopeArgs) -> Result<Vec<Snapshot>> {
    let location = context.location_to_check().await?;
    let clusters = match scope.cluster()? {
        Some(cluster) => vec![cluster],
        None => catalog::clusters(&location.store).await?,
    };
    let mut found = Vec::new();
    for cluster in clusters {
        let (entries, warnings) = catalog::list(&location.store, &cluster).await?;
        for warning in warnings {
            context.ui.warn(&warning);
        }
        found.extend(entries.into_iter().map(|entry| Snapshot {
            name: entry.keys.name().to_string(),
            cluster: cluster.to_string(),
            source: Source::Bucket(Box::new(location.clone()), Box::new(entry)),
        }));
    }
    Ok(found)
}

pub(super) async fn of_objects(context: &Context, scope: &ScopeArgs) -> Result<Vec<Snapshot>> {
    let mut found = Vec::new();
    for config in scope.all::<EtcdBackupConfig>(context).await? {
        let cluster = config.it.spec.cluster.name.clone();
        let rows = config.it.status.iter().flat_map(|status| status.rows());
        let there = rows
            .filter(|row| row.delete_phase != RowPhase::Completed && !row.backup_name.is_empty());
        found.extend(there.cloned().map(|row| Snapshot {
            name: row.backup_name.clone(),
            cluster: cluster.clone(),
            source: Source::Row {
                config: Box::new(config.clone()),
                row: Box::new(row),
            },
        }));
    }
    Ok(found)
}

/// The one snapshot that a name means.
///
/// # Errors
/// None, or more than one: with candidates.
pub(super) async fn one(context: &Context, scope: &ScopeArgs, asked: &str) -> Result<Snapshot> {
    let all = all(context, scope).await?;
    let found = choose(asked, &all, scope.cluster.as_deref());
    found.cloned().map_err(|e| match e.kind() {
        Kind::Invalid => CommandError::usage(e),
        _ => e.into(),
    })
}

/// The one of these that a name means, across clusters.
///
/// # Errors
/// As [`Asked::choose`]; a name that several clusters have.
pub(super) fn choose<'a>(
    asked: &str,
    all: &'a [Snapshot],
    cluster: Option<&str>,
) -> Result<&'a Snapshot, Error> {
    let mut clusters: Vec<&str> = Vec::new();
    for one in all {
        let means = Asked::parse(asked, &one.cluster)?.means(&one.name);
        if means && !clusters.contains(&one.cluster.as_str()) {
            clusters.push(&one.cluster);
        }
    }
    if clusters.len() > 1 {
        return Err(
            Error::invalid(format!("snapshot {asked:?} is there for several clusters")).hint(
                format!("choose one with --cluster: {}", clusters.join(", ")),
            ),
        );
    }
    let Some(cluster) = clusters.first().copied().or(cluster) else {
        // Nothing matches; the words about what there is are the same.
        let known: Vec<_> = all.iter().collect();
        return Asked::parse(asked, "")?
            .choose(&known, |one| &one.name)
            .copied();
    };
    let known: Vec<_> = all.iter().filter(|one| one.cluster == cluster).collect();
    Asked::parse(asked, cluster)?
        .choose(&known, |one| &one.name)
        .copied()
}
