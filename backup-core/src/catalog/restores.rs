//! The restores of a location: finished ones by their marker, others by what lies in their folder.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

use super::{near, read_all};
use crate::api::{API_VERSION, Phase, Restore};
use crate::error::{Error, Kind, Result};
use crate::layout::{RESTORES, RestoreKeys};
use crate::location::Store;
use crate::name::Name;
use crate::restore::journal::Header;

/// A restore at work writes its journal every few seconds; an interrupted one is expected to go on within this.
const QUIET: SignedDuration = SignedDuration::from_hours(24);

/// Files that are deleted before the next are listed.
const A_TIME: usize = 1000;

/// A record is a few kilobytes.
const LARGEST_RECORD: u64 = 4 << 20;

/// The phase of a restore that ended and left no record: Velero keeps those in its cluster.
pub const UNKNOWN: &str = "Unknown";

/// A file of a restore that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreFile {
    /// The log, gzip text.
    Logs,
    /// Errors and warnings, gzip JSON.
    Results,
    /// What was restored, gzip JSON.
    ResourceList,
}

/// All restores, finished or not: finished ones by their marker, others (Velero's too, which have none) by their first file, without a backup's name.
/// Sorted by start, newest last.
///
/// # Errors
/// The store's.
pub async fn list_restores(store: &Store) -> Result<Vec<Restore>> {
    let names: Vec<Name> = store
        .folders(RESTORES)
        .await?
        .iter()
        .filter_map(|folder| Name::foreign(folder).ok())
        .collect();
    let mut found: Vec<Restore> = read_all(names, |name| async move { read(store, &name).await })
        .await?
        .into_iter()
        .flatten()
        .collect();
    found.sort_by(|a, b| {
        let start = |restore: &Restore| restore.status.start_timestamp;
        start(a)
            .cmp(&start(b))
            .then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    Ok(found)
}

/// One restore.
///
/// # Errors
/// `NotFound`, with names that are like it as the hint.
pub async fn get_restore(store: &Store, name: &Name) -> Result<Restore> {
    if let Some(restore) = read(store, name).await? {
        return Ok(restore);
    }
    let error = Error::not_found(format!("restore {name} not found in {}", store.place()));
    let folders = store.folders(RESTORES).await.unwrap_or_default();
    Err(match near("restores", name.as_str(), &folders) {
        Some(hint) => error.hint(hint),
        None => error.hint("`kubectl backup restore get` lists what is there"),
    })
}

/// How many objects a restore keeps that it deleted to create them anew: the only copies.
///
/// # Errors
/// The store's.
pub async fn kept_by_restore(store: &Store, name: &Name) -> Result<u64> {
    let kept = store.list(&RestoreKeys::new(name).all_kept());
    kept.try_fold(0, |count, _| async move { Ok(count + 1) })
        .await
}

/// Removes a restore's record, with what it keeps. What tells that it is there goes last, so that a run that dies halfway can be repeated.
///
/// # Errors
/// The store's.
pub async fn delete_restore(store: &Store, name: &Name) -> Result<()> {
    let keys = RestoreKeys::new(name);
    let last = [keys.journal(0), keys.marker()];
    let mut before: Option<String> = None;
    loop {
        let files = store.list(&keys.folder()).map_ok(|file| file.key);
        let files = files.try_filter(|key| std::future::ready(!last.contains(key)));
        let some: Vec<String> = files.take(A_TIME).try_collect().await?;
        let Some(first) = some.first() else { break };
        if before.as_ref() == Some(first) {
            return Err(Error::other(format!(
                "{first} is still there after it was deleted"
            ))
            .hint("the store may keep what is locked, or show it a while longer; the same command tries again"));
        }
        before = Some(first.clone());
        let deletes = stream::iter(some).map(|key| async move { store.delete(&key).await });
        deletes.buffer_unordered(8).try_collect::<()>().await?;
    }
    for key in &last {
        store.delete(key).await?;
    }
    Ok(())
}

async fn read(store: &Store, name: &Name) -> Result<Option<Restore>> {
    let keys = RestoreKeys::new(name);
    let record = match store.find(&keys.marker(), LARGEST_RECORD).await {
        Err(e) if e.kind() == Kind::Corrupt => None,
        record => record?,
    };
    if let Some(bytes) = record
        && let Ok(restore) = serde_json::from_slice::<Restore>(&bytes)
        && restore.kind == "Restore"
        && restore.metadata.name == name.as_str()
    {
        return Ok(Some(restore));
    }
    // One that recreates keeps a file for each object.
    let (mut oldest, mut results, mut journal) = (None::<Timestamp>, false, false);
    let mut files = store.list(&keys.folder());
    while let Some(file) = files.next().await {
        let file = file?;
        oldest = Some(oldest.map_or(file.modified, |oldest| oldest.min(file.modified)));
        results |= file.key == keys.results();
        journal |= file.key == keys.journal(0);
    }
    let Some(oldest) = oldest else {
        return Ok(None);
    };
    let mut restore = Restore {
        api_version: API_VERSION.to_owned(),
        kind: "Restore".to_owned(),
        ..Restore::default()
    };
    restore.metadata.name = name.as_str().to_owned();
    restore.status.start_timestamp = Some(oldest);
    // Velero keeps its records in the cluster: of its restores the bucket shows results only, which it writes at the end.
    // One of ours that has a journal and no record is not finished, however far it came.
    restore.status.phase = if results && !journal {
        Phase::Other(UNKNOWN.to_owned())
    } else {
        Phase::InProgress
    };
    Ok(Some(restore))
}

/// The backups that unfinished restores read, each with such a restore. One that left no sign of itself for a day, by the store's clock, reads no more.
///
/// # Errors
/// The store's.
pub async fn being_restored(store: &Store, now: Timestamp) -> Result<BTreeMap<String, Name>> {
    #[derive(Default)]
    struct Seen {
        finished: bool,
        newest: Option<Timestamp>,
    }
    let mut restores: BTreeMap<String, Seen> = BTreeMap::new();
    let mut listed = store.list(RESTORES);
    while let Some(entry) = listed.next().await {
        let entry = entry?;
        let Some((name, _)) = entry
            .key
            .strip_prefix(RESTORES)
            .and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        let Ok(name) = Name::foreign(name) else {
            continue;
        };
        let seen = restores.entry(name.as_str().to_owned()).or_default();
        seen.finished |= entry.key == RestoreKeys::new(&name).marker();
        seen.newest = seen.newest.max(Some(entry.modified));
    }
    let mut found = BTreeMap::new();
    for (name, seen) in restores {
        let quiet = seen.newest.map(|newest| now.duration_since(newest));
        if seen.finished || quiet.is_none_or(|quiet| quiet > QUIET) {
            continue;
        }
        let Ok(name) = Name::foreign(&name) else {
            continue;
        };
        let first = store
            .find(&RestoreKeys::new(&name).journal(0), LARGEST_RECORD)
            .await;
        // What is no journal of ours says nothing about a backup.
        if let Ok(Some(first)) = first
            && let Ok(header) = Header::read(&first)
        {
            found.insert(header.backup, name);
        }
    }
    Ok(found)
}

/// A file of a restore as written (gzip), at most 64 MiB.
///
/// # Errors
/// `NotFound`, where the restore has no such file (yet).
pub async fn read_restore_file(store: &Store, name: &Name, file: RestoreFile) -> Result<Bytes> {
    let keys = RestoreKeys::new(name);
    let key = match file {
        RestoreFile::Logs => keys.logs(),
        RestoreFile::Results => keys.results(),
        RestoreFile::ResourceList => keys.resource_list(),
    };
    match store.find(&key, super::LARGEST_SIDE).await? {
        Some(bytes) => Ok(bytes),
        None => {
            get_restore(store, name).await?;
            Err(Error::not_found(format!("restore {name} has no {key}"))
                .hint("it is not finished, or was written by another tool"))
        }
    }
}
