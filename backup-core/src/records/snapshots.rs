//! `snapshots.json` of a backup: what it owns outside of its folder, and what goes with it. It stands in the clear in an encrypted backup too, for whoever deletes one needs no
//! key: ids and where they are, which the keys of the bucket show anyhow. A plain backup of before it has `volumes.json` alone.
//!
//! Who reads it believes nothing of it, and takes nothing for absent that it does not understand: what is owned in a way that is not known here makes the whole unreadable.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounded::{self, Bounded};
use super::copies::{self, Copies, Outcome};
use crate::error::{Error, Kind, Result};
use crate::layout::{BackupKeys, VolumeKeys};
use crate::location::Store;
use crate::location::store::is_absent;
use crate::name::Name;

/// What it says of itself.
const FORMAT: &str = "kubectl-backup/snapshots/1";

/// No such file is larger.
const LARGEST: u64 = 64 << 20;

/// Files of a volume, in a repository.
const FILES: &str = "files";

/// A snapshot of a volume, in its storage.
const SNAPSHOT: &str = "snapshot";

/// What a backup owns outside of its folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Snapshots of volumes' files.
    pub files: Vec<FileSnapshot>,
    /// Snapshots of volumes in their storage.
    pub cuts: Vec<StorageSnapshot>,
}

/// A snapshot of a volume in its storage, as a backup names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSnapshot {
    /// The uid of kube-system where it was made.
    pub cluster: String,
    /// The run that made it: under this one the location has written it down.
    pub run: String,
    /// The CSI driver.
    pub driver: String,
    /// By which the driver knows it.
    pub handle: String,
}

/// A snapshot in the repository of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSnapshot {
    /// The repository's.
    pub keys: VolumeKeys,
    /// Its id: 64 lower hex digits.
    pub id: String,
}

#[derive(Serialize, Deserialize)]
struct Text {
    format: String,
    #[serde(default)]
    needs: Vec<String>,
    snapshots: Bounded<RowText>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RowText {
    method: String,
    cluster: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    claim_uid: String,
    #[serde(skip_serializing_if = "is_none")]
    repository: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    snapshot: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    run: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    driver: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    handle: String,
}

/// No repository has this number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(repository: &u32) -> bool {
    *repository == 0
}

/// The file for these rows.
///
/// # Errors
/// When it can not be written as JSON.
pub(crate) fn write(copies: &Copies) -> Result<Bytes> {
    let row = |row: &copies::Row| {
        let cluster = copies.cluster.clone()?;
        match &row.outcome {
            Outcome::Saved(saved) => Some(RowText {
                method: FILES.to_owned(),
                cluster,
                namespace: row.namespace.clone(),
                claim_uid: row.uid.clone(),
                repository: saved.copy.repository,
                snapshot: saved.copy.snapshot.clone(),
                ..RowText::default()
            }),
            // Of which claim it is, is nobody's business.
            Outcome::Snapshot(cut) => Some(RowText {
                method: SNAPSHOT.to_owned(),
                cluster,
                run: cut.run.clone(),
                driver: cut.driver.clone(),
                handle: cut.handle.clone(),
                ..RowText::default()
            }),
            _ => None,
        }
    };
    let text = Text {
        format: FORMAT.to_owned(),
        needs: Vec::new(),
        snapshots: Bounded(copies.rows.iter().filter_map(row).collect()),
    };
    let bytes = serde_json::to_vec_pretty(&text)
        .map_err(|e| Error::other("what the backup owns can not be written as JSON").because(e))?;
    Ok(bytes.into())
}

/// What this backup owns, as this store shows it: its plain ones, or a vault's. Nothing where nobody says that it owns something.
///
/// # Errors
/// `Corrupt` and `Invalid` where what is said is not understood, and the store's.
pub async fn owned(store: &Store, name: &Name) -> Result<Owned> {
    let keys = BackupKeys::new(name);
    let key = keys.snapshots();
    if let Some(bytes) = store.find(&key, LARGEST).await? {
        return parse(&bytes).map_err(|e| e.context(key));
    }
    if !store.is_vault() {
        return match copies::copies(store, name).await? {
            Some(copies) => of(&copies).map_err(|e| e.context(keys.volumes())),
            None => Ok(Owned::default()),
        };
    }
    match store.head(&keys.volumes()).await {
        Err(e) if is_absent(&e) => Ok(Owned::default()),
        Err(e) => Err(e),
        Ok(_) => Err(lost(&key)),
    }
}

/// What is said where such a file is not there, and has to be.
pub(crate) fn lost(key: &str) -> Error {
    Error::new(
        Kind::Corrupt,
        format!("{key} is missing, which says what snapshots of volumes the backup has"),
    )
}

/// What rows own that are not written down by themselves.
fn of(copies: &Copies) -> Result<Owned> {
    let mut owned = Owned::default();
    for row in &copies.rows {
        match &row.outcome {
            Outcome::Saved(saved) => owned.files.push(FileSnapshot {
                keys: copies.place(row)?,
                id: saved.copy.snapshot.clone(),
            }),
            Outcome::NotUnderstood(why) => return Err(Error::invalid(why.clone())),
            Outcome::Snapshot(cut) => owned.cuts.push(StorageSnapshot {
                cluster: copies.cluster.clone().unwrap_or_default(),
                run: cut.run.clone(),
                driver: cut.driver.clone(),
                handle: cut.handle.clone(),
            }),
            Outcome::Failed(_)
            | Outcome::LeftOut(_)
            | Outcome::NotAsked(_)
            | Outcome::Nothing(_) => {}
        }
    }
    Ok(owned)
}

fn parse(bytes: &[u8]) -> Result<Owned> {
    let no = |e| Error::corrupt("it is no list of snapshots").because(e);
    let text: Text = serde_json::from_slice(bytes).map_err(no)?;
    let newer = |what: &str| {
        Error::invalid(format!(
            "it says what is not known here: {:?}",
            bounded::shown(what, 60)
        ))
        .hint("use the version of kubectl-backup that made the backup, or a newer one")
    };
    if text.format != FORMAT {
        return Err(newer(&text.format));
    }
    if let Some(needed) = text.needs.first() {
        return Err(newer(needed));
    }
    let mut owned = Owned::default();
    for row in text.snapshots.0 {
        if row.method == SNAPSHOT {
            let cut = row.cut();
            owned.cuts.push(cut.ok_or_else(|| {
                Error::corrupt("it names a snapshot in a storage that can not be one")
            })?);
            continue;
        }
        if row.method != FILES {
            return Err(newer(&row.method));
        }
        if !copies::is_digest(&row.snapshot) || !copies::is_repository(row.repository) {
            return Err(Error::corrupt("it names a snapshot that can not be one"));
        }
        let keys = VolumeKeys::new(&row.cluster, &row.namespace, &row.claim_uid)
            .map_err(|e| Error::corrupt("it names a volume that can not be one").because(e))?;
        owned.files.push(FileSnapshot {
            keys: keys.numbered(row.repository),
            id: row.snapshot,
        });
    }
    Ok(owned)
}

impl RowText {
    /// The snapshot in a storage that it names, where that can be one.
    fn cut(self) -> Option<StorageSnapshot> {
        let is_name = |text: &str| Name::foreign(text).is_ok();
        let can_be = copies::is_handle(&self.handle)
            && copies::is_tag(&self.run)
            && is_name(&self.driver)
            && is_name(&self.cluster);
        can_be.then_some(StorageSnapshot {
            cluster: self.cluster,
            run: self.run,
            driver: self.driver,
            handle: self.handle,
        })
    }
}

#[cfg(test)]
mod tests;
