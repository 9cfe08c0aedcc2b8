//! Removing one backup by name. Everything happens under a claim, the marker goes first and the claim last, so that a run that dies halfway leaves no backup
//! that looks whole, and `prune` can finish its work.

use super::absent;
use crate::error::{Error, Result};
use crate::layout::BackupKeys;
use crate::location::Store;
use crate::location::claim::{Claim, Folder, Purpose, has_marker};
use crate::location::kept::Kept;
use crate::name::Name;

/// Deletes a backup under a claim: marker first, the rest, the claim last.
///
/// # Errors
/// `NotFound`, `AlreadyExists` where somebody else is at work on it, and the store's.
pub async fn delete(store: &Store, name: &Name, host: &str) -> Result<()> {
    let keys = BackupKeys::new(name);
    if !has_marker(store, &keys).await? {
        return Err(absent(store, name).await);
    }
    let claim = Claim::take(store, name, Purpose::Delete, host).await?;
    if claim.found().marker.is_none() {
        claim.withdraw().await;
        return Err(Error::not_found(format!(
            "backup {name} was deleted by somebody else just now"
        )));
    }
    remove_all(claim, name).await
}

/// Deletes a backup that has to go, whatever becomes of one attempt: what an earlier attempt of the same `owner` (letters and digits) left is removed, too.
/// Whose folder is empty is deleted. Until this is done, it is to be tried again.
///
/// # Errors
/// `NotFound` where others left, or are writing, files without a marker; `AlreadyExists` where somebody else is at work on it, as a dead attempt counts for a
/// minute and a half; and the store's.
pub async fn delete_again(store: &Store, name: &Name, host: &str, owner: &str) -> Result<()> {
    let keys = BackupKeys::new(name);
    let mut before = Folder::read(store, &keys, "").await?;
    if before.is_empty() {
        return Ok(());
    }
    match before.claimed_by(owner) {
        // Dead when the next one was begun: where such a one can not be removed, none is added.
        Some(last) => {
            for dead in before.abandoned(owner, last) {
                store.delete(&dead.key).await?;
            }
        }
        None if before.marker.is_none() => return Err(absent(store, name).await),
        None => {}
    }
    let claim = Claim::take_again(store, name, host, owner).await?;
    if claim.found().marker.is_none() && claim.abandoned().is_empty() {
        claim.withdraw().await;
        return Err(Error::other(format!(
            "backup {name} was deleted by somebody else just now"
        )));
    }
    remove_all(claim, name).await
}

/// What the bucket keeps of a backup that is removed: its marker and its archive were written at its end and at its beginning.
///
/// # Errors
/// The store's: then nobody knows.
pub async fn kept(store: &Store, name: &Name) -> Result<Kept> {
    let keys = BackupKeys::new(name);
    let marker = store.kept(&keys.marker()).await?;
    Ok(marker.and(store.kept(&keys.archive()).await?))
}

/// Marker first, then every other file, then the claims. Once the marker is sent for, an error leaves the claim, and prune finishes, or who tries again.
pub(super) async fn remove_all(claim: Claim, name: &Name) -> Result<()> {
    let marker = claim.keys().marker();
    let dead: Vec<_> = claim.abandoned().iter().collect();
    let removed = async {
        claim.confirm_beside(&dead).await?;
        // While one's own stands: of attempts that fail one claim is left, however many they are.
        for dead in dead {
            claim.remove(&dead.key).await?;
        }
        match claim.found().marker {
            Some(_) => claim.remove(&marker).await,
            None => Ok(()),
        }
    };
    let removed = removed.await;
    if let Err(e) = removed {
        claim.withdraw().await;
        return Err(e.context(format!("backup {name} could not be deleted")));
    }
    match remove_files(&claim).await {
        Ok(()) => {
            claim.release().await;
            Ok(())
        }
        Err(e) => Err(e.context(format!(
            "backup {name} is deleted, but some of its files are left; the next attempt, or `kubectl backup prune` in an hour, removes them"
        ))),
    }
}

async fn remove_files(claim: &Claim) -> Result<()> {
    for file in &claim.found().files {
        claim.remove(&file.key).await?;
    }
    claim.sweep().await
}
