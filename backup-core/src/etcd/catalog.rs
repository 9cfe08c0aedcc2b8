//! The snapshots of etcd in a location, as the bucket shows them: list, get, delete, and sweep what dead runs left. Needs no etcd and no
//! Kubernetes. Believes nothing it reads.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use super::manifest::{LARGEST, Manifest};
use super::sealed;
use crate::catalog::{near, store_time};
use crate::crypt::BackupKey;
use crate::error::{Error, Kind, Result};
use crate::layout::{ETCD_SNAPSHOTS, SnapshotKeys};
use crate::location::Store;
use crate::location::claim::{UploadId, abort};
use crate::name::Name;

/// Manifests are read so many at a time.
const AT_A_TIME: usize = 16;

/// What no manifest names is kept so long, by the store's clock: a run may be about to write one.
const ORPHANS_LIVE: SignedDuration = SignedDuration::from_hours(24);

/// Files in a cluster's folder; a snapshot has two, and an encrypted one four.
const MOST_FILES: usize = 1_000_000;

/// A note of an upload is two strings.
const LARGEST_NOTE: u64 = 16 << 10;

/// A snapshot as the bucket shows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it lies.
    pub keys: SnapshotKeys,
    /// Its manifest, decoded.
    pub manifest: Manifest,
    /// Its manifest as written.
    pub raw: Bytes,
    /// Its key, where it is encrypted and was opened.
    pub(crate) key: Option<BackupKey>,
}

impl Entry {
    /// The key of its data.
    pub fn data(&self) -> String {
        self.keys.file(&self.manifest.data.file)
    }

    /// The key of its data, where it is encrypted and was opened.
    pub fn key(&self) -> Option<&BackupKey> {
        self.key.as_ref()
    }
}

/// The clusters that have a folder, sorted.
///
/// # Errors
/// The store's.
pub async fn clusters(store: &Store) -> Result<Vec<Name>> {
    let folders = store.folders(ETCD_SNAPSHOTS).await?;
    Ok(folders
        .iter()
        .filter_map(|folder| Name::foreign(folder).ok())
        .collect())
}

/// The names that have a folder, sorted; of a snapshot that is being taken too.
///
/// # Errors
/// The store's.
pub async fn names(store: &Store, cluster: &Name) -> Result<Vec<Name>> {
    let folders = store
        .folders(&SnapshotKeys::cluster_folder(cluster))
        .await?;
    Ok(folders
        .iter()
        .filter_map(|folder| Name::foreign(folder).ok())
        .collect())
}

/// All snapshots of a cluster, the newest last. A folder without a manifest is passed over; a manifest that can not be read is a warning.
///
/// # Errors
/// The store's.
pub async fn list(store: &Store, cluster: &Name) -> Result<(Vec<Entry>, Vec<String>)> {
    let mut read = stream::iter(names(store, cluster).await?)
        .map(|name| async move {
            let entry = read(store, &SnapshotKeys::new(cluster, &name)).await;
            (name, entry)
        })
        .buffer_unordered(AT_A_TIME);
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    while let Some((name, entry)) = read.next().await {
        match entry {
            Ok(Some(entry)) => found.push(entry),
            Ok(None) => {}
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {
                warnings.push(format!("snapshot {name}: {e}"));
            }
            Err(e) => return Err(e),
        }
    }
    warnings.sort();
    found.sort_by(|a, b| {
        let order = |entry: &Entry| (entry.manifest.created_at, entry.keys.name().clone());
        order(a).cmp(&order(b))
    });
    Ok((found, warnings))
}

async fn read(store: &Store, keys: &SnapshotKeys) -> Result<Option<Entry>> {
    let Some(raw) = store.find(&keys.manifest(), LARGEST).await? else {
        return Ok(None);
    };
    Ok(Some(Entry {
        keys: keys.clone(),
        manifest: Manifest::parse(&raw, keys)?,
        raw,
        key: None,
    }))
}

/// One snapshot by its exact name.
///
/// # Errors
/// `NotFound`, with names that are like it as the hint; `Corrupt` or `Invalid` for a manifest that can not be read.
pub async fn get(store: &Store, cluster: &Name, name: &Name) -> Result<Entry> {
    match read(store, &SnapshotKeys::new(cluster, name)).await? {
        Some(entry) => Ok(entry),
        None => Err(absent(store, cluster, name).await),
    }
}

async fn absent(store: &Store, cluster: &Name, name: &Name) -> Error {
    let error = Error::not_found(format!(
        "snapshot {name} of cluster {cluster} not found in {}",
        store.place()
    ));
    match names(store, cluster).await {
        Ok(names) if names.contains(name) => Error::not_found(format!(
            "snapshot {name} of cluster {cluster} is not complete: its folder has no manifest"
        ))
        .hint("it is being taken or deleted right now, or a run died; a day later a sweep removes what dead runs left"),
        Ok(names) if names.is_empty() => match clusters(store).await {
            Ok(clusters) if !clusters.is_empty() => {
                let clusters: Vec<&str> = clusters.iter().map(Name::as_str).collect();
                error.hint(format!("there are snapshots of {}", clusters.join(", ")))
            }
            _ => error.hint("this location has no snapshots of etcd yet"),
        },
        Ok(names) => {
            let names: Vec<String> = names.iter().map(Name::to_string).collect();
            match near("snapshots", name.as_str(), &names) {
                Some(hint) => error.hint(hint),
                None => error,
            }
        }
        Err(_) => error,
    }
}

/// What a name that is taken is refused with.
pub fn taken(keys: &SnapshotKeys) -> Error {
    Error::new(
        Kind::AlreadyExists,
        format!(
            "snapshot {} of cluster {} exists already",
            keys.name(),
            keys.cluster()
        ),
    )
    .hint("a snapshot is never written again: take this one under another name")
}

/// Deletes a snapshot: the manifest first, so that none is left that looks whole, then its data, and its key where it has one.
///
/// # Errors
/// `NotFound`; the store's: once the manifest is gone, what is left of the data is swept a day later.
pub async fn delete(store: &Store, cluster: &Name, name: &Name) -> Result<()> {
    let keys = SnapshotKeys::new(cluster, name);
    let named = match read(store, &keys).await {
        Ok(Some(entry)) => sealed::files(&entry.manifest),
        Ok(None) => return Err(absent(store, cluster, name).await),
        // One that can not be read can be deleted; which files it named, nobody knows, and a sweep removes them.
        Err(e) if e.kind() == Kind::Corrupt => Vec::new(),
        Err(e) => return Err(e),
    };
    store
        .delete(&keys.manifest())
        .await
        .map_err(|e| e.context(format!("snapshot {name} could not be deleted")))?;
    let mut failed = None;
    for file in named {
        let deleted = store.delete(&keys.file(&file)).await;
        failed = failed.or(deleted.err());
    }
    failed.map_or(Ok(()), |e| {
        Err(e.context(format!(
            "snapshot {name} is deleted, but its data is left; a sweep removes it in a day"
        )))
    })
}

/// Removes what dead runs left in a cluster's folder: data and keys that no manifest names and uploads that nobody finished, both older than a day by the
/// store's clock. Returns the keys. Files that no run of ours writes are not touched, nor is anything beside a manifest that can not be read.
///
/// # Errors
/// The store's; what can not be removed does not keep the rest.
pub async fn sweep(store: &Store, cluster: &Name) -> Result<Vec<String>> {
    let folder = SnapshotKeys::cluster_folder(cluster);
    let entries = store.entries(&folder, MOST_FILES).await?;
    let mut left: BTreeMap<Name, Vec<(String, Timestamp)>> = BTreeMap::new();
    for entry in entries {
        let Some((name, file)) = entry.key[folder.len()..].split_once('/') else {
            continue;
        };
        let is_ours = SnapshotKeys::is_data(file)
            || SnapshotKeys::is_upload(file)
            || SnapshotKeys::is_key(file);
        if !is_ours {
            continue;
        }
        if let Ok(name) = Name::foreign(name) {
            let files = left.entry(name).or_default();
            files.push((file.to_owned(), entry.modified));
        }
    }
    if left.is_empty() {
        return Ok(Vec::new());
    }
    let now = store_time(store).await?;
    let (mut removed, mut failed) = (Vec::new(), None);
    for (name, mut files) in left {
        files.retain(|(_, modified)| now.duration_since(*modified) > ORPHANS_LIVE);
        if files.is_empty() {
            continue;
        }
        let keys = SnapshotKeys::new(cluster, &name);
        // Asked for by name: a listing may be older.
        let named = match read(store, &keys).await {
            Ok(entry) => entry.map_or_else(Vec::new, |entry| sealed::files(&entry.manifest)),
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => continue,
            Err(e) => return Err(e),
        };
        for (file, _) in files.into_iter().filter(|(file, _)| !named.contains(file)) {
            let key = keys.file(&file);
            match remove(store, &key, SnapshotKeys::is_upload(&file)).await {
                Ok(()) => removed.push(key),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
    }
    match failed {
        Some(e) if removed.is_empty() => Err(e),
        _ => Ok(removed),
    }
}

async fn remove(store: &Store, key: &str, is_upload: bool) -> Result<()> {
    if is_upload {
        let note = store.get(key, LARGEST_NOTE).await?;
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        // A note that says something else than an upload into its own folder is nobody's of ours.
        let upload: UploadId = serde_json::from_slice(&note)
            .ok()
            .filter(|upload: &UploadId| {
                let inside = upload.key.strip_prefix(folder);
                inside.is_some_and(|rest| SnapshotKeys::is_data(rest.trim_start_matches('/')))
            })
            .ok_or_else(|| Error::corrupt(format!("{key} names no upload")))?;
        abort(store, &upload).await?;
    }
    store.delete(key).await
}

#[cfg(test)]
pub(crate) mod tests;
