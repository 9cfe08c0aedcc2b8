//! What speaks against deleting a backup: of its location, of its files, of who reads it. Looks, and changes nothing.

use std::sync::Arc;

use backup_core::error::{Error, Result};
use backup_core::location::Location;
use backup_core::location::guard::{self, Guard};
use backup_core::name::Name;
use backup_core::{Kind, catalog};
use serde_json::Value;

use super::cuts::{about, heirs};
use crate::controller::desk::Desk;
use crate::controller::locations;
use crate::controller::objects::{name, phase};

/// Why a backup is not deleted now.
pub(super) enum Not {
    /// It stays.
    Refused(String),
    /// It stays, and nothing changes that but who says that nobody need know of its snapshots.
    Unknown(String),
    /// It is tried again.
    Failed(Error),
}

impl From<Error> for Not {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

impl Not {
    /// What is tried again, whatever it was.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused(why) | Self::Unknown(why) => Error::other(why),
            Self::Failed(e) => e,
        }
    }
}

pub(super) fn refused(why: impl Into<String>) -> Not {
    Not::Refused(why.into())
}

/// The restore that reads a backup, or is to.
pub(crate) fn reader(desk: &Desk, backup: &str) -> Option<String> {
    let restores = restores_of(desk, backup);
    let is_at_work = |restore: &&Arc<Value>| matches!(phase(restore), "" | "New" | "InProgress");
    restores
        .iter()
        .find(is_at_work)
        .map(|restore| name(restore).to_owned())
}

pub(super) fn restores_of(desk: &Desk, backup: &str) -> Vec<Arc<Value>> {
    let mut restores = desk.restores.all();
    restores.retain(|restore| restore["spec"]["backupName"] == backup);
    restores
}

/// The location, if this cluster may delete there.
pub(super) async fn usable(desk: &Desk, place: &str) -> Result<Location, Not> {
    let places = locations::places(desk);
    let known = places.iter().find(|known| known.name == place);
    let known =
        known.ok_or_else(|| refused(format!("backup storage location {place} not found")))?;
    if known.is_read_only {
        return Err(refused(format!(
            "cannot delete backup because backup storage location {place} is currently in read-only mode"
        )));
    }
    if known.is_available != Some(true) {
        // Not yet, or not now.
        return Err(Not::Failed(Error::new(
            Kind::Unreachable,
            format!("backup storage location {place} is not available"),
        )));
    }
    let location = locations::open_named(desk, place).await?;
    match guard::read(&location, desk.identity().await?).await? {
        Guard::Ours | Guard::Open => Ok(location),
        Guard::Other(other) => Err(refused(format!(
            "location {place} holds the backups of another cluster ({other}) (`kubectl backup location adopt {place}` hands it to this one)"
        ))),
        Guard::Unknown => Err(refused(format!(
            "it is not known whether location {place} is this cluster's: the namespace kube-system may not be read"
        ))),
    }
}

/// Whether the bucket holds nothing that speaks against it.
pub(super) async fn may_go(desk: &Desk, location: &Location, title: &Name) -> Result<(), Not> {
    let leaks = match catalog::leaks(&location.store, title).await {
        // An encrypted one is ours: nothing of it is elsewhere.
        _ if location.store.is_vault() => Vec::new(),
        Err(e) if e.kind() == Kind::Corrupt => vec![e.sentence()],
        leaks => leaks?,
    };
    if !leaks.is_empty() {
        return Err(refused(format!(
            "it holds data elsewhere that would stay behind: {} (let Velero delete it, or use `kubectl backup delete --force`)",
            leaks.join("; ")
        )));
    }
    let cuts = about(location, title).await?;
    if let Some(lacks) = cuts.lacks() {
        return Err(unknown(title, &lacks));
    }
    if let Some(why) = cuts.elsewhere(heirs(desk, None).await?).stays() {
        return Err(refused(why));
    }
    if let Some(why) = cuts.forbidden(heirs(desk, None).await?).await {
        return Err(refused(format!(
            "its snapshots can not be deleted by this controller: {why} (`kubectl backup delete {title}` by one who may)"
        )));
    }
    let kept = catalog::kept(&location.store, title).await?;
    if kept.is_locked(desk.now()) {
        return Err(refused(format!(
            "it is {kept}: the bucket keeps it (`kubectl backup delete --force` hides it)"
        )));
    }
    Ok(())
}

/// Nobody would know any more of snapshots of a backup.
pub(super) fn unknown(title: &Name, lacks: &str) -> Not {
    Not::Unknown(format!(
        "`kubectl backup delete {title} --force` deletes it without them: {lacks}"
    ))
}

/// Whether no restore has begun to read it, whoever began it.
pub(super) async fn not_restored(
    desk: &Desk,
    location: &Location,
    backup: &Name,
) -> Result<(), Not> {
    let restoring = catalog::being_restored(&location.store, desk.now()).await?;
    let restores = restores_of(desk, backup.as_str());
    let by_object = restores
        .iter()
        .find(|restore| phase(restore) == "InProgress")
        .map(|restore| name(restore).to_owned());
    let by_journal = restoring.get(backup.as_str()).map(ToString::to_string);
    match by_object.or(by_journal) {
        None => Ok(()),
        Some(restore) => Err(refused(format!(
            "restore {restore} has begun to read it and is not finished"
        ))),
    }
}
