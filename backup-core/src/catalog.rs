//! The backups and restores of a location, as the bucket shows them: list, read, delete, prune. Works without any cluster.

use bytes::Bytes;
use jiff::Timestamp;

use crate::api::{Backup, Restore};
use crate::error::Result;
use crate::location::{Location, Store};
use crate::name::Name;

/// A backup as the bucket shows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The folder's name.
    pub name: Name,
    /// Its marker, decoded.
    pub backup: Backup,
    /// Its marker as written.
    pub raw: Bytes,
}

/// All backups with a marker, sorted by start, newest last. Folders without a marker are passed over; a marker that can not be read is a warning.
///
/// # Errors
/// The store's.
pub async fn list(store: &Store) -> Result<(Vec<Entry>, Vec<String>)> {
    let _ = store;
    todo!()
}

/// One backup.
///
/// # Errors
/// `NotFound`, with names that are like it as the hint.
pub async fn get(store: &Store, name: &Name) -> Result<Entry> {
    let _ = (store, name);
    todo!()
}

/// Whether the backup has our index.
///
/// # Errors
/// The store's.
pub async fn is_ours(store: &Store, name: &Name) -> Result<bool> {
    let _ = (store, name);
    todo!()
}

/// What a Velero backup's deletion would leave elsewhere (volume snapshots, pod volume backups, CSI), a sentence each.
///
/// # Errors
/// The store's.
pub async fn leaks(store: &Store, name: &Name) -> Result<Vec<String>> {
    let _ = (store, name);
    todo!()
}

/// Deletes a backup under a claim: marker first, the rest, the claim last.
///
/// # Errors
/// `NotFound`, `AlreadyExists` where somebody else is at work on it, and the store's.
pub async fn delete(store: &Store, name: &Name, host: &str) -> Result<()> {
    let _ = (store, name, host);
    todo!()
}

/// What prune did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// An expired backup of ours was removed.
    Expired(Name),
    /// What a dead run left was removed.
    Stale(Name),
    /// A dead run's claim beside a backup that stands was removed.
    StaleClaim(Name),
    /// It was kept, and why.
    Kept(Name, String),
}

/// Removes what is expired by both clocks and what dead runs left; `dry_run` only tells.
///
/// # Errors
/// Where the clocks differ by over 5 minutes, and the store's.
pub async fn prune(
    location: &Location,
    now: Timestamp,
    host: &str,
    dry_run: bool,
) -> Result<Vec<Pruned>> {
    let _ = (location, now, host, dry_run);
    todo!()
}

/// All restores, finished or not: finished ones by their marker, others by their journal's header.
///
/// # Errors
/// The store's.
pub async fn list_restores(store: &Store) -> Result<Vec<Restore>> {
    let _ = store;
    todo!()
}
