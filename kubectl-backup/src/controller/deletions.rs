//! DeleteBackupRequests: a backup goes with everything of it, or the request says why not. A folder of a bucket is removed only where it holds the very
//! backup that the object stands for: one that failed because the name was taken takes nothing with it but itself.

use std::sync::Arc;

use backup_core::Kind;
use backup_core::catalog;
use backup_core::error::{Error, Result};
use backup_core::location::Location;
use backup_core::location::guard::{self, Guard};
use backup_core::name::Name;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups::label_value;
use super::desk::{Desk, Work};
use super::objects::{Written, bounded, label, name, phase, time, uid};
use super::{locations, sync};

/// A request that was refused is kept so long, as Velero does.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

const BACKUP_NAME: &str = "velero.io/backup-name";
const BACKUP_UID: &str = "velero.io/backup-uid";

/// One look at all requests.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let now = desk.now();
    for object in desk.deletions.all() {
        if !desk.is_free(&object) {
            continue;
        }
        if phase(&object) != "Processed" {
            desk.begin(&object, Work::Small, answer);
        } else if is_over(&object, now) {
            desk.begin(&object, Work::Small, remove);
        }
    }
}

fn is_over(object: &Value, now: Timestamp) -> bool {
    let created = time(object, "/metadata/creationTimestamp");
    created.is_some_and(|at| now.duration_since(at) > KEPT)
}

async fn remove(desk: Arc<Desk>, object: Arc<Value>, _: watch::Receiver<bool>) -> Result<()> {
    desk.deletions.delete(&object).await.map(drop)
}

async fn answer(desk: Arc<Desk>, object: Arc<Value>, stopped: watch::Receiver<bool>) -> Result<()> {
    let why = match delete(&desk, &object, &stopped).await {
        Ok(()) => {
            // As it stands now: it was written to.
            if let Some(request) = desk.deletions.read(&object).await? {
                desk.deletions.delete(&request).await?;
            }
            return Ok(());
        }
        Err(e) if matches!(e.kind(), Kind::Invalid | Kind::NotFound | Kind::Forbidden) => {
            bounded(&e.sentence())
        }
        // It may go the next time; until then it is at work.
        Err(e) => return Err(e),
    };
    let backup = &object["spec"]["backupName"];
    desk.ui
        .warn(&format!("backup {backup} is not deleted: {why}"));
    let patch = json!({"status": {"phase": "Processed", "errors": [why]}});
    desk.deletions.patch(&object, patch).await.map(drop)
}

/// Deletes what is asked for; an error is the answer.
async fn delete(
    desk: &Arc<Desk>,
    request: &Arc<Value>,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let title = request["spec"]["backupName"].as_str().unwrap_or_default();
    let Some(backup) = desk.backups.get(title) else {
        // This request did it, and its controller did not live to see it.
        return match phase(request) {
            "InProgress" => Ok(()),
            _ => Err(Error::not_found("backup not found")),
        };
    };
    let wanted = label(request, BACKUP_UID).unwrap_or(uid(&backup));
    if wanted != uid(&backup) {
        return Err(Error::not_found(
            "backup not found: another one has its name by now",
        ));
    }
    if phase(&backup) == "InProgress" || !desk.is_free(&backup) {
        return Err(Error::invalid("backup is still in progress"));
    }
    let of_it = |restore: &Arc<Value>| restore["spec"]["backupName"] == title;
    let restores: Vec<_> = desk.restores.all().into_iter().filter(of_it).collect();
    let is_at_work = |restore: &&Arc<Value>| matches!(phase(restore), "" | "New" | "InProgress");
    if let Some(restore) = restores.iter().find(is_at_work) {
        return Err(Error::invalid(format!(
            "restore {} reads it and is not finished",
            name(restore)
        )));
    }
    let place = backup["spec"]["storageLocation"]
        .as_str()
        .unwrap_or_default();
    let is_in_bucket = matches!(phase(&backup), "Completed" | "PartiallyFailed" | "Deleting");
    let location = if is_in_bucket {
        Some(usable(desk, place).await?)
    } else {
        None
    };
    let patch = json!({
        "metadata": {"labels": {BACKUP_NAME: label_value(title), BACKUP_UID: uid(&backup)}},
        "status": {"phase": "InProgress", "errors": null},
    });
    desk.deletions.patch(request, patch).await?;
    still_ours(stopped)?;
    if let Some(location) = &location {
        remove_files(desk, location, &backup).await?;
    }
    for restore in restores {
        still_ours(stopped)?;
        if let Some(location) = &location {
            remove_restore(location, name(&restore), title).await?;
        }
        desk.restores.delete(&restore).await?;
    }
    if let Some(backup) = desk.backups.read(&backup).await? {
        desk.backups.delete(&backup).await?;
    }
    desk.ui.note(&format!("backup {title} is deleted"));
    Ok(())
}

/// Whoever serves next goes on with it.
fn still_ours(stopped: &watch::Receiver<bool>) -> Result<()> {
    if *stopped.borrow() {
        return Err(Error::new(
            Kind::Interrupted,
            "the controller stops, or another one serves by now",
        ));
    }
    Ok(())
}

/// The location, if this cluster may delete there.
async fn usable(desk: &Desk, place: &str) -> Result<Location> {
    let places = locations::places(desk);
    let known = places.iter().find(|known| known.name == place);
    let known = known
        .ok_or_else(|| Error::invalid(format!("backup storage location {place} not found")))?;
    if known.is_read_only {
        return Err(Error::invalid(format!(
            "cannot delete backup because backup storage location {place} is currently in read-only mode"
        )));
    }
    if known.is_available != Some(true) {
        // Not yet, or not now.
        return Err(Error::new(
            Kind::Unreachable,
            format!("backup storage location {place} is not available"),
        ));
    }
    let location = locations::open_named(desk, place).await?;
    match guard::read(&location, desk.identity().await?).await? {
        Guard::Ours | Guard::Open => Ok(location),
        Guard::Other(other) => Err(Error::invalid(format!(
            "location {place} holds the backups of another cluster ({other})"
        ))
        .hint(format!(
            "`kubectl backup location adopt {place}` hands it to this one"
        ))),
        Guard::Unknown => Err(Error::invalid(format!(
            "it is not known whether location {place} is this cluster's: the namespace kube-system may not be read"
        ))),
    }
}

/// Removes the files of a backup, where they are the object's.
async fn remove_files(desk: &Desk, location: &Location, backup: &Arc<Value>) -> Result<()> {
    let title = Name::foreign(name(backup))?;
    let entry = match catalog::get(&location.store, &title).await {
        Ok(entry) => entry,
        // It is gone; what a deletion that died left, prune removes.
        Err(e) if e.kind() == Kind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if !sync::is_same(backup, &entry.backup) {
        return Ok(());
    }
    let leaks = catalog::leaks(&location.store, &title).await?;
    if !leaks.is_empty() {
        return Err(Error::invalid(format!(
            "it holds data elsewhere that would stay behind: {}",
            leaks.join("; ")
        ))
        .hint("let Velero delete it, or use `kubectl backup delete --force`"));
    }
    let kept = catalog::kept(&location.store, &title).await?;
    if kept.is_locked(desk.now()) {
        return Err(Error::invalid(format!("it is {kept}: the bucket keeps it"))
            .hint("`kubectl backup delete --force` hides it"));
    }
    let before = phase(backup).to_owned();
    let deleting = json!({"status": {"phase": "Deleting"}});
    // As it was seen: from here on no restore begins to read it.
    if desk.backups.decide(backup, deleting).await? == Written::Changed {
        return Err(Error::other("it changed just now"));
    }
    let deleted = match refuse_restored(desk, location, &title).await {
        Ok(()) => catalog::delete(&location.store, &title, &desk.host).await,
        refused => refused,
    };
    match deleted {
        Err(e) if e.kind() == Kind::NotFound => Ok(()),
        Err(e) => {
            // While its marker stands, it is what it was; else there is no way back.
            if before != "Deleting" && catalog::get(&location.store, &title).await.is_ok() {
                let back = json!({"status": {"phase": before}});
                desk.backups.patch(backup, back).await?;
            }
            Err(e)
        }
        Ok(()) => Ok(()),
    }
}

/// Errors while a restore has begun to read it, whoever began it.
async fn refuse_restored(desk: &Desk, location: &Location, backup: &Name) -> Result<()> {
    let restoring = catalog::being_restored(&location.store, desk.now()).await?;
    let by_object = desk.restores.all().into_iter().find(|restore| {
        restore["spec"]["backupName"] == backup.as_str() && phase(restore) == "InProgress"
    });
    let by_object = by_object.as_ref().map(|restore| name(restore).to_owned());
    let by_journal = restoring.get(backup.as_str()).map(ToString::to_string);
    match by_object.or(by_journal) {
        None => Ok(()),
        Some(restore) => Err(Error::invalid(format!(
            "restore {restore} has begun to read it and is not finished"
        ))),
    }
}

/// Removes the record of a restore, where it is one of this backup.
async fn remove_restore(location: &Location, restore: &str, backup: &str) -> Result<()> {
    let restore = Name::foreign(restore)?;
    match catalog::get_restore(&location.store, &restore).await {
        Ok(record) if record.spec.backup_name == backup => {
            catalog::delete_restore(&location.store, &restore).await
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == Kind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}
