//! DeleteBackupRequests: a backup goes with everything of it, or the request says why not. A folder of a bucket is removed only where it holds the very
//! backup that the object stands for: one that failed because the name was taken takes nothing with it but itself.
//!
//! What speaks against it is a refusal, and ends the request. Where nothing does, the Backup becomes Deleting, and its files go under claims that bear its
//! uid; from then on whatever fails is shown at the request and tried again, by whichever controller, until nothing is left. Only while the marker stands, and
//! none of its snapshots in their storage went, is there a way back: a refusal gives the Backup the marker's phase. A Backup that is Deleting and that no request asks for any more is treated alike.
//! What nobody could go on with, as nobody would know of its other snapshots any more, ends the request as well, and the Backup says why: then it goes on where somebody asks again.

mod cuts;
mod finish;
mod plan;
mod refusals;

use std::sync::Arc;

use backup_core::Kind;
use backup_core::catalog::{self, Entry};
use backup_core::error::{Error, Result};
use backup_core::location::Location;
use backup_core::name::Name;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups::label_value;
use super::desk::{Desk, Work};
use super::objects::{Written, annotation, bounded, label, name, phase, uid};
use super::{sealed, sync};
use cuts::is_half_gone;
use finish::finish;
use plan::{Step, plan, room};
pub(crate) use refusals::reader;
use refusals::{Not, may_go, not_restored, refused, usable};

const BACKUP_NAME: &str = "velero.io/backup-name";
const BACKUP_UID: &str = "velero.io/backup-uid";

/// The annotation of a request that is at work: the location of the files.
const PLACE: &str = "kubectl-backup/location";

/// The annotation of a Backup that is Deleting and stays so: why. Nobody goes on with it unasked.
pub(super) const NOT_DELETED: &str = "kubectl-backup/not-deleted";

/// The phase of a Backup that has to go.
pub(super) const DELETING: &str = "Deleting";

/// One look at all requests.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let now = desk.now();
    let all = desk.deletions.all();
    let backups = desk.backups.all();
    let mut room = room(&desk.deleting());
    for step in plan(&all, &backups, now, |object| desk.failed_at(object)) {
        let object = step.object();
        if !desk.is_free(object) {
            continue;
        }
        if let Step::Forget(_) = step {
            desk.begin(object, Work::Small, forget);
            continue;
        }
        let is_answer = matches!(step, Step::Answer(_));
        let backup = if is_answer {
            object["spec"]["backupName"].as_str().unwrap_or_default()
        } else {
            name(object)
        };
        if room == 0 {
            continue;
        }
        // An attempt goes on whose request was taken back.
        let Some(alone) = Alone::on(desk, backup) else {
            continue;
        };
        room -= 1;
        desk.begin(
            object,
            Work::Deletion,
            move |desk, object, stopped| async move {
                let _alone = alone;
                if is_answer {
                    answer(desk, object, stopped).await
                } else {
                    resume(desk, object, stopped).await
                }
            },
        );
    }
}

/// The one attempt at a backup, by whichever request; until it is dropped.
struct Alone {
    desk: Arc<Desk>,
    backup: String,
}

impl Alone {
    fn on(desk: &Arc<Desk>, backup: &str) -> Option<Self> {
        let mut deleting = desk.deleting();
        if deleting.contains_key(backup) {
            return None;
        }
        deleting.insert(backup.to_owned(), false);
        Some(Self {
            desk: Arc::clone(desk),
            backup: backup.to_owned(),
        })
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.desk.deleting().remove(&self.backup);
    }
}

async fn forget(desk: Arc<Desk>, object: Arc<Value>, _: watch::Receiver<bool>) -> Result<()> {
    desk.deletions.delete(&object).await.map(drop)
}

async fn answer(desk: Arc<Desk>, object: Arc<Value>, stopped: watch::Receiver<bool>) -> Result<()> {
    let backup = &object["spec"]["backupName"];
    match delete(&desk, &object, &stopped).await {
        Ok(()) => {
            // As it stands now: it was written to.
            if let Some(request) = desk.deletions.read(&object).await? {
                desk.deletions.delete(&request).await?;
            }
            Ok(())
        }
        Err(Not::Refused(why) | Not::Unknown(why)) => {
            let why = bounded(&why);
            desk.ui
                .warn(&format!("backup {backup} is not deleted: {why}"));
            let patch = json!({"status": {"phase": "Processed", "errors": [why]}});
            desk.deletions.patch(&object, patch).await.map(drop)
        }
        Err(Not::Failed(e)) if e.kind() == Kind::Interrupted => Err(e),
        Err(Not::Failed(e)) => {
            let errors = json!([bounded(&format!("it is tried again: {}", e.sentence()))]);
            if object["status"]["errors"] != errors {
                let patch = json!({"status": {"errors": errors}});
                // The API may be what failed; the next attempt tells it.
                let _ = desk.deletions.patch(&object, patch).await;
            }
            Err(e)
        }
    }
}

/// Deletes what is asked for.
async fn delete(
    desk: &Desk,
    request: &Arc<Value>,
    stopped: &watch::Receiver<bool>,
) -> Result<(), Not> {
    let title = request["spec"]["backupName"].as_str().unwrap_or_default();
    let backup = desk.backups.get(title);
    let wanted = label(request, BACKUP_UID);
    let Some(backup) = backup.filter(|backup| wanted.is_none_or(|wanted| wanted == uid(backup)))
    else {
        return match (phase(request), wanted) {
            ("InProgress", wanted) => rest(desk, request, wanted.unwrap_or_default()).await,
            (_, None) => Err(refused("backup not found")),
            (_, Some(_)) => Err(refused(
                "backup not found: it is gone, and another one may have its name by now",
            )),
        };
    };
    let begun = phase(&backup) == DELETING;
    if !begun && (phase(&backup) == "InProgress" || !desk.is_free(&backup)) {
        return Err(refused("backup is still in progress"));
    }
    // A copy of what goes is not asked for any more, and a deletion does not wait for it.
    desk.stop(uid(&backup), Work::Copy);
    if !begun && let Some(restore) = reader(desk, title) {
        return Err(refused(format!(
            "restore {restore} reads it and is not finished"
        )));
    }
    // Where it failed, nothing of it is in a bucket.
    if !begun && !matches!(phase(&backup), "Completed" | "PartiallyFailed") {
        begin(desk, request, &backup).await?;
        return finish(desk, &backup, None, stopped).await;
    }
    let place = place_of(&backup);
    let location = match usable(desk, place).await {
        // The location may come back; a backup that is half gone does not.
        Err(Not::Refused(why)) if begun => return Err(Error::other(why).into()),
        location => location?,
    };
    let title = Name::foreign(title).map_err(|e| refused(e.sentence()))?;
    let (location, marker) = match sealed::find(location, &backup, &title).await {
        Err(e) if e.kind() == Kind::Corrupt && !begun => return Err(refused(e.sentence())),
        found => found?,
    };
    match &marker {
        Some(entry) if !sync::is_same(&backup, &entry.backup) => {
            begin(desk, request, &backup).await?;
            return finish(desk, &backup, None, stopped).await;
        }
        Some(entry) => {
            if let Err(not) = may_go(desk, &location, &title).await {
                return Err(back(desk, &location, &backup, entry, begun, not).await);
            }
            begin(desk, request, &backup).await?;
            // With the marker gone, this alone tells whoever goes on where its files are.
            let word = sealed::word(&entry.backup, entry.encrypted);
            let deleting = json!({
                "metadata": {"annotations": {sealed::ENCRYPTION: word, NOT_DELETED: null}},
                "status": {"phase": DELETING},
            });
            // As it was seen: from here on no restore begins to read it.
            if desk.backups.decide(&backup, deleting).await? == Written::Changed {
                return Err(Error::other("the Backup changed just now").into());
            }
            if let Err(not) = not_restored(desk, &location, &title).await {
                return Err(back(desk, &location, &backup, entry, true, not).await);
            }
            return match finish(desk, &backup, Some(&location), stopped).await {
                Err(not @ Not::Unknown(_)) => {
                    Err(back(desk, &location, &backup, entry, true, not).await)
                }
                finished => finished,
            };
        }
        None if begun => {}
        None => {
            let Err(e) = catalog::get(&location.store, &title).await else {
                return Err(Error::other("its marker came just now").into());
            };
            return Err(refused(format!(
                "nothing is deleted: {} (was the location's bucket or prefix changed? `kubectl delete backups.velero.io {title}` removes the object alone)",
                e.sentence()
            )));
        }
    }
    finish(desk, &backup, Some(&location), stopped).await
}

/// Notes that the request is at work, and on which Backup.
async fn begin(desk: &Desk, request: &Value, backup: &Value) -> Result<()> {
    if phase(request) == "InProgress" {
        return Ok(());
    }
    let labels = json!({BACKUP_NAME: label_value(name(backup)), BACKUP_UID: uid(backup)});
    let place = matches!(phase(backup), "Completed" | "PartiallyFailed" | DELETING);
    let place = place.then(|| place_of(backup));
    let patch = json!({
        "metadata": {"labels": labels, "annotations": {PLACE: place}},
        "status": {"phase": "InProgress"},
    });
    desk.deletions.patch(request, patch).await.map(drop)
}

/// What is left to do for a request whose Backup is gone: as a rule nothing, for it goes after its files; somebody else may have removed it before.
async fn rest(desk: &Desk, request: &Value, uid: &str) -> Result<(), Not> {
    let Some(place) = annotation(request, PLACE) else {
        return Ok(());
    };
    let location = usable(desk, place).await?;
    let title = request["spec"]["backupName"].as_str().unwrap_or_default();
    let title = Name::foreign(title).map_err(|e| refused(e.sentence()))?;
    if catalog::find(&location.store, &title).await?.is_some() {
        return Err(refused(format!(
            "its Backup was removed before its files: a backup of the name stands in location {place}"
        )));
    }
    for store in [&location.store, &location.vault().store] {
        match catalog::delete_again(store, &title, &desk.host, &owner(uid)).await {
            // What lies there by now is another's.
            Err(e) if e.kind() == Kind::NotFound => {}
            deleted => deleted?,
        }
    }
    Ok(())
}

/// What the claims of a Backup's deletion bear.
fn owner(uid: &str) -> String {
    uid.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Gives a backup that stays its phase back, where it was taken.
async fn back(
    desk: &Desk,
    location: &Location,
    backup: &Value,
    entry: &Entry,
    begun: bool,
    not: Not,
) -> Not {
    if begun && let Not::Refused(why) | Not::Unknown(why) = &not {
        match is_half_gone(location, backup, entry).await {
            Ok(false) => {}
            // It is no backup any more that others could be counted with.
            Ok(true) => {
                let torn = "some of its snapshots are deleted already, so that it does not become a backup again";
                return match &not {
                    Not::Unknown(why) => stays(desk, backup, &format!("{torn}; {why}")).await,
                    _ => Not::Failed(Error::other(format!("{why}; {torn}"))),
                };
            }
            Err(e) => return Not::Failed(e),
        }
        let patch = json!({
            "metadata": {"annotations": {NOT_DELETED: null}},
            "status": {"phase": entry.backup.status.phase},
        });
        if let Err(e) = desk.backups.patch(backup, patch).await {
            return Not::Failed(e);
        }
    }
    not
}

/// Notes of a backup that is half gone why nobody goes on with it.
async fn stays(desk: &Desk, backup: &Value, why: &str) -> Not {
    let noted = json!({"metadata": {"annotations": {NOT_DELETED: bounded(why)}}});
    match desk.backups.patch(backup, noted).await {
        Ok(_) => Not::Unknown(why.to_owned()),
        Err(e) => Not::Failed(e),
    }
}

/// Goes on with a Backup that is Deleting without a request: it stays if its marker stands and none of its snapshots went, and else goes.
async fn resume(desk: Arc<Desk>, backup: Arc<Value>, stopped: watch::Receiver<bool>) -> Result<()> {
    let location = usable(&desk, place_of(&backup)).await;
    let location = location.map_err(Not::into_error)?;
    let title = Name::foreign(name(&backup))?;
    let (location, entry) = sealed::find(location, &backup, &title).await?;
    match entry {
        Some(entry) if sync::is_same(&backup, &entry.backup) => {
            if is_half_gone(&location, &backup, &entry).await? {
                let finished = finish(&desk, &backup, Some(&location), &stopped).await;
                let Err(not @ Not::Unknown(_)) = finished else {
                    return finished.map_err(Not::into_error);
                };
                return match back(&desk, &location, &backup, &entry, true, not).await {
                    Not::Failed(e) => Err(e),
                    Not::Refused(why) | Not::Unknown(why) => {
                        let text = format!("backup {title} is not deleted: {why}");
                        desk.ui.warn(&bounded(&text));
                        Ok(())
                    }
                };
            }
            let patch = json!({"status": {"phase": entry.backup.status.phase}});
            desk.backups.decide(&backup, patch).await.map(drop)
        }
        Some(_) => {
            let finished = finish(&desk, &backup, None, &stopped).await;
            finished.map_err(Not::into_error)
        }
        None => {
            let finished = finish(&desk, &backup, Some(&location), &stopped).await;
            finished.map_err(Not::into_error)
        }
    }
}

fn place_of(backup: &Value) -> &str {
    let place = &backup["spec"]["storageLocation"];
    place.as_str().unwrap_or_default()
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
