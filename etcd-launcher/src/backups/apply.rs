//! Takes a snapshot for a config, removes old ones, sweeps. What was begun is in the status before it begins, and its end after it ended; a store
//! that does not answer costs a bounded time and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_core::api::{EtcdBackupConfigStatus, RowPhase, SnapshotRow};
use backup_core::crypt::Recipients;
use backup_core::etcd::catalog;
use backup_core::etcd::manifest::Manifest;
use backup_core::etcd::sealed::{self, Encryption};
use backup_core::etcd::take::{Options, Target, take};
use backup_core::layout::SnapshotKeys;
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::progress::Progress;
use backup_core::{Error, Kind, Result};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;

use super::Shared;
use super::gather;
use super::plan::{Due, job};
use super::report::{self, Changed, Reference};
use crate::run::event::Tone;

/// A snapshot of which nothing moved for so long is given up.
const STALL: Duration = Duration::from_secs(300);
/// A store that is to take a snapshot answers within this.
const ANSWER: Duration = Duration::from_secs(60);
/// So long one removal may take.
const REMOVAL: Duration = Duration::from_secs(60);
/// One pass removes no more than this; the next look goes on.
const AT_ONCE: usize = 20;
/// Between two attempts to write what came of a snapshot.
const AGAIN: Duration = Duration::from_secs(3);
/// Its end is written until the hosting API takes it; after that the row is taken up by whoever looks at it next.
const REPORTING: u32 = 200;
/// A sweep may take so long.
const SWEEP: Duration = Duration::from_secs(120);

fn now() -> Option<Time> {
    Some(Time(Timestamp::now()))
}

/// Takes the snapshot that is due and says what came of it.
pub(super) async fn snapshot(
    shared: Arc<Shared>,
    whose: Reference,
    due: Due,
    location: Location,
    cancel: watch::Receiver<bool>,
) {
    let mine = job(&shared.me, due.attempt);
    match begin(&shared, &whose, &due, &mine).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(e) => return shared.say(&e.sentence()),
    }
    // The store answers before anything is asked of etcd, and before other snapshots wait for this one.
    let taken = match standing(&shared, &whose, &due, &location).await {
        Ok(Some(manifest)) => Ok((manifest, String::new())),
        Ok(None) => {
            let _turn = shared.one_at_a_time.acquire().await;
            take_it(&shared, &whose, &due, &location, cancel).await
        }
        Err(e) => Err(e),
    };
    let taken = match taken {
        // Another launcher was faster, or our own answer was lost on the way.
        Err(e) if e.kind() == Kind::AlreadyExists => {
            match standing(&shared, &whose, &due, &location).await {
                Ok(Some(manifest)) => Ok((manifest, String::new())),
                _ => Err(e),
            }
        }
        taken => taken,
    };
    end(&shared, &whose, &due, &mine, &taken).await;
}

/// Puts the row there as one that runs; whether it is this launcher's to take.
async fn begin(shared: &Shared, whose: &Reference, due: &Due, mine: &str) -> Result<bool> {
    let changed = report::change(&shared.hosting, whose, |status| {
        start_row(status, due, mine)
    })
    .await?;
    Ok(changed == Changed::Yes)
}

/// Whether the row is still as it was when the plan was made, and now runs.
fn start_row(status: &mut EtcdBackupConfigStatus, due: &Due, mine: &str) -> bool {
    let mut rows = status.rows().to_vec();
    let begun = SnapshotRow {
        scheduled_time: Some(Time(due.slot)),
        backup_name: due.name.to_string(),
        job_name: mine.to_owned(),
        backup_start_time: now(),
        backup_phase: RowPhase::Running,
        ..SnapshotRow::default()
    };
    let found = rows
        .iter_mut()
        .find(|row| row.backup_name == due.name.as_str());
    match (found, &due.before) {
        (None, None) => rows.push(begun),
        (Some(row), Some(before)) if row.job_name == *before && !row.is_over() => {
            *row = SnapshotRow {
                rest: std::mem::take(&mut row.rest),
                ..begun
            };
        }
        _ => return false,
    }
    status.set_rows(rows);
    true
}

/// The snapshot where it stands already: whoever began it ended after it was visible.
async fn standing(
    shared: &Shared,
    whose: &Reference,
    due: &Due,
    location: &Location,
) -> Result<Option<Manifest>> {
    let cluster = Name::foreign(&shared.hosting.names.cluster)?;
    let found = catalog::get(&location.store, &cluster, &due.name);
    let patience = shared.pace.of(ANSWER);
    let found = tokio::time::timeout(patience, found)
        .await
        .unwrap_or_else(|_| Err(late(location, patience)));
    match found {
        // Whatever its manifest says of who took it: we take no plain one there.
        Ok(entry)
            if !entry.is_locked() && !Recipients::of_location(&location.spec)?.is_empty() =>
        {
            Err(Error::corrupt(format!(
                "a plain snapshot stands under that name, where location {:?} has recipients",
                location.spec.metadata.name
            ))
            .hint("somebody put it there, or the recipients are new: see who may write there, and delete it"))
        }
        Ok(entry) if entry.manifest.config.as_deref() == Some(&whose.name) => {
            Ok(Some(entry.manifest))
        }
        Ok(entry) => Err(catalog::taken(&entry.keys)),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn late(location: &Location, patience: Duration) -> Error {
    Error::new(
        Kind::Unreachable,
        format!(
            "{} does not answer within {} s",
            location.store.place(),
            patience.as_secs()
        ),
    )
    .hint("check the destination's s3Url and the network between")
}

async fn take_it(
    shared: &Shared,
    whose: &Reference,
    due: &Due,
    location: &Location,
    cancel: watch::Receiver<bool>,
) -> Result<(Manifest, String)> {
    let encryption = Encryption::of_location(&location.spec)?;
    let cluster = Name::foreign(&shared.hosting.names.cluster)?;
    if encryption.is_none() {
        let looked = sealed::not_lost(location, &cluster);
        let patience = shared.pace.of(ANSWER);
        tokio::time::timeout(patience, looked)
            .await
            .map_err(|_| late(location, patience))??;
    }
    let access = gather::access(&shared.args)?;
    let endpoints = gather::endpoints(&shared.args, &access).await?;
    let mut options = Options::new(
        endpoints,
        access,
        concat!("etcd-launcher v", env!("CARGO_PKG_VERSION")),
    );
    options.encryption = encryption;
    options.config = Some(whose.name.clone());
    // A restore of this snapshot has to go beyond it; where nobody says, the snapshot's own revision does.
    if let Ok(Some(set)) = shared.hosting.set().await {
        options.target_revision = Some(set.target_revision()).filter(|mark| *mark > 0);
    }
    let target = Target::Snapshot {
        store: location.store.clone(),
        keys: SnapshotKeys::new(&cluster, &due.name),
    };
    let moved = Moved::default();
    tokio::select! {
        taken = take(&options, &target, cancel.clone(), &moved) => {
            let notes = moved.notes();
            match taken {
                Ok(taken) => Ok((taken.manifest, notes)),
                Err(e) if e.kind() == Kind::Interrupted => Err(Error::new(
                    Kind::Interrupted,
                    "it was given up: a restore of the cluster began, or the object is being deleted",
                )),
                Err(e) => Err(e),
            }
        }
        () = moved.stalled(shared.pace.of(STALL)) => Err(Error::new(
            Kind::Unreachable,
            format!("nothing moved for {} s: it was given up", (shared.pace.of(STALL)).as_secs()),
        )
        .hint("look at the store and at etcd's log; the next slot is tried all the same")),
    }
}

/// Writes what came of it, until it stands.
async fn end(
    shared: &Shared,
    whose: &Reference,
    due: &Due,
    mine: &str,
    taken: &Result<(Manifest, String)>,
) {
    let name = due.name.as_str();
    let finished = now();
    for _ in 0..REPORTING {
        let written = report::change(&shared.hosting, whose, |status| {
            end_row(status, name, mine, finished.clone(), taken)
        })
        .await;
        match written {
            Ok(_) => break,
            Err(e) => shared.say(&e.sentence()),
        }
        tokio::time::sleep(AGAIN).await;
    }
    match taken {
        Ok((manifest, _)) => {
            let note = format!(
                "snapshot {name} was taken: revision {}, {} bytes stored",
                manifest.facts.revision, manifest.data.bytes
            );
            shared.say(&note);
            report::event(&shared.hosting, whose, Tone::Normal, "SnapshotTaken", &note).await;
        }
        Err(e) => {
            let note = format!("snapshot {name} was not taken: {}", e.sentence());
            shared.say(&note);
            report::event(
                &shared.hosting,
                whose,
                Tone::Warning,
                "SnapshotFailed",
                &note,
            )
            .await;
        }
    }
}

/// Whether the row was still this launcher's.
fn end_row(
    status: &mut EtcdBackupConfigStatus,
    name: &str,
    mine: &str,
    finished: Option<Time>,
    taken: &Result<(Manifest, String)>,
) -> bool {
    let mut rows = status.rows().to_vec();
    let Some(row) = rows
        .iter_mut()
        .find(|row| row.backup_name == name && row.job_name == mine)
    else {
        return false;
    };
    row.backup_finished_time = finished.clone();
    match taken {
        Ok((manifest, notes)) => {
            row.backup_phase = RowPhase::Completed;
            row.backup_message.clone_from(notes);
            row.backup_size = i64::try_from(manifest.data.bytes).ok();
            // Of what is encrypted no digest is told anywhere.
            let digest = Some(&manifest.snapshot.sha256);
            row.hash = digest
                .filter(|_| manifest.data.encryption.is_none())
                .cloned();
            row.encryption.clone_from(&manifest.data.encryption);
            row.revision = Some(manifest.facts.revision);
            status.last_successful_time = finished;
        }
        Err(e) => {
            row.backup_phase = RowPhase::Failed;
            row.backup_message = e.sentence();
        }
    }
    status.set_rows(rows);
    true
}

/// A slot that passes: its row says why.
pub(super) async fn pass(shared: &Shared, whose: &Reference, due: &Due, why: &str) {
    let mine = job(&shared.me, due.attempt);
    match begin(shared, whose, due, &mine).await {
        Ok(true) => end(shared, whose, due, &mine, &Err(Error::other(why))).await,
        Ok(false) => {}
        Err(e) => shared.say(&e.sentence()),
    }
}

/// Removes snapshots; says how many are left. A store that does not answer for one of them is not asked for the others.
pub(super) async fn remove(
    shared: Arc<Shared>,
    whose: Reference,
    names: Vec<String>,
    location: Result<Location>,
) -> usize {
    let mut removed = 0;
    for name in names.iter().take(AT_ONCE) {
        if let Err(e) = remove_one(&shared, &whose, name, &location).await {
            let note = format!("snapshot {name} could not be removed: {}", e.sentence());
            shared.say(&note);
            let known = report::change_row(&shared.hosting, &whose, name, |row| {
                let known = row.delete_phase == RowPhase::Failed;
                row.delete_phase = RowPhase::Failed;
                row.delete_message = e.sentence();
                !known
            })
            .await;
            // Told once, not at every attempt.
            if matches!(known, Ok(Changed::Yes)) {
                report::event(
                    &shared.hosting,
                    &whose,
                    Tone::Warning,
                    "SnapshotNotRemoved",
                    &note,
                )
                .await;
            }
            if e.kind() == Kind::Unreachable {
                break;
            }
        } else {
            removed += 1;
        }
    }
    names.len() - removed
}

async fn remove_one(
    shared: &Shared,
    whose: &Reference,
    name: &str,
    location: &Result<Location>,
) -> Result<()> {
    let mine = job(&shared.me, 1);
    let begun = report::change_row(&shared.hosting, whose, name, |row| {
        if row.delete_phase == RowPhase::Completed {
            return false;
        }
        let fresh = row.delete_phase.is_scheduled();
        if fresh {
            row.delete_phase = RowPhase::Running;
            row.delete_job_name.clone_from(&mine);
            row.delete_start_time = now();
        }
        fresh
    })
    .await?;
    if begun == Changed::Gone {
        return Ok(());
    }
    let location = match location {
        Ok(location) => location,
        Err(e) => return Err(Error::new(e.kind(), e.sentence())),
    };
    let gone = tokio::time::timeout(
        shared.pace.of(REMOVAL),
        from_store(shared, whose, name, location),
    )
    .await;
    gone.unwrap_or_else(|_| {
        Err(Error::new(
            Kind::Unreachable,
            format!("{} does not answer", location.store.place()),
        ))
    })?;
    report::change_row(&shared.hosting, whose, name, |row| {
        row.delete_phase = RowPhase::Completed;
        row.delete_finished_time = now();
        row.delete_message.clear();
        true
    })
    .await
    .map(|_| ())
}

/// Removes what this config had taken, and nothing that anybody else did, whatever a status says.
async fn from_store(
    shared: &Shared,
    whose: &Reference,
    name: &str,
    location: &Location,
) -> Result<()> {
    let cluster = Name::foreign(&shared.hosting.names.cluster)?;
    let name = Name::foreign(name)?;
    match catalog::get(&location.store, &cluster, &name).await {
        Ok(entry) if entry.manifest.config.as_deref() != Some(&whose.name) => {
            return Err(Error::invalid(format!(
                "snapshot {name} was not taken for EtcdBackupConfig {}: its manifest says {:?}",
                whose.name,
                entry.manifest.config.unwrap_or_default()
            ))
            .hint("remove it by hand, or take the row out of the status"));
        }
        Ok(_) => {}
        Err(e) if e.kind() == Kind::Corrupt => {}
        Err(e) if e.kind() == Kind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    match catalog::delete(&location.store, &cluster, &name).await {
        Err(e) if e.kind() == Kind::NotFound => Ok(()),
        deleted => deleted,
    }
}

/// Removes what dead runs left in the cluster's folder. To fail is no failure of anything else.
pub(super) async fn sweep(shared: &Shared, location: &Location) {
    let Ok(cluster) = Name::foreign(&shared.hosting.names.cluster) else {
        return;
    };
    match tokio::time::timeout(SWEEP, catalog::sweep(&location.store, &cluster)).await {
        Ok(Ok(removed)) => {
            for key in removed {
                shared.say(&format!("removed what a dead run left: {key}"));
            }
        }
        Ok(Err(e)) => shared.say(&format!(
            "what dead runs left was not removed: {}",
            e.sentence()
        )),
        Err(_) => shared.say("what dead runs left was not removed: the store does not answer"),
    }
}

/// Sees whether anything moves, and keeps what should be known.
#[derive(Default)]
struct Moved {
    count: AtomicU64,
    notes: std::sync::Mutex<Vec<String>>,
}

impl Moved {
    async fn stalled(&self, patience: Duration) {
        let mut seen = self.count.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(patience).await;
            let now = self.count.load(Ordering::Relaxed);
            if now == seen {
                return;
            }
            seen = now;
        }
    }

    fn notes(&self) -> String {
        let notes = self.notes.lock();
        notes.map(|notes| notes.join("; ")).unwrap_or_default()
    }
}

impl Progress for Moved {
    fn step(&self, _text: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn done(&self, _objects: u64, _bytes: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn warn(&self, text: &str) {
        if let Ok(mut notes) = self.notes.lock() {
            notes.push(text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(before: Option<&str>) -> Due {
        Due {
            slot: Timestamp::UNIX_EPOCH,
            name: Name::foreign("daily-1970-01-01t00-00-00").unwrap(),
            attempt: 1,
            before: before.map(str::to_owned),
        }
    }

    #[test]
    fn of_two_launchers_one_begins() {
        let mut status = EtcdBackupConfigStatus::default();
        assert!(start_row(&mut status, &due(None), "etcd-0/1"));
        assert!(!start_row(&mut status, &due(None), "etcd-1/1"));
        assert_eq!(status.last_backups, status.current_backups);
        // The one that takes it up, after both saw it begun by the first.
        assert!(start_row(&mut status, &due(Some("etcd-0/1")), "etcd-1/2"));
        assert!(!start_row(&mut status, &due(Some("etcd-0/1")), "etcd-2/2"));
        assert_eq!(status.last_backups.len(), 1);
        // The first one's end comes too late.
        let failed = Err(Error::other("late"));
        let name = "daily-1970-01-01t00-00-00";
        assert!(!end_row(&mut status, name, "etcd-0/1", None, &failed));
        assert!(end_row(&mut status, name, "etcd-1/2", None, &failed));
        assert_eq!(status.last_backups[0].backup_phase, RowPhase::Failed);
        assert!(!start_row(&mut status, &due(Some("etcd-1/2")), "etcd-2/3"));
    }
}
