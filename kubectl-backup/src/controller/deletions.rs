//! DeleteBackupRequests: a backup goes with everything of it, or the request says why not. A folder of a bucket is removed only where it holds the very
//! backup that the object stands for: one that failed because the name was taken takes nothing with it but itself.
//!
//! What speaks against it is a refusal, and ends the request. Where nothing does, the Backup becomes Deleting, and its files go under claims that bear its
//! uid; from then on whatever fails is shown at the request and tried again, by whichever controller, until nothing is left. Only while the marker stands, and
//! none of its snapshots in their storage went, is there a way back: a refusal gives the Backup the marker's phase. A Backup that is Deleting and that no request asks for any more is treated alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_cli::output::counted;
use backup_core::catalog::{self, Entry};
use backup_core::error::{Error, Result};
use backup_core::location::Location;
use backup_core::location::guard::{self, Guard};
use backup_core::name::Name;
use backup_core::snapshot::heirs::{self, Heirs};
use backup_core::snapshot::known::{About, Known};
use backup_core::{Kind, records};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups::label_value;
use super::desk::{Desk, Work};
use super::objects::{Written, annotation, bounded, label, name, phase, time, uid};
use super::{locations, repositories, sealed, sync};

/// A request that was refused is kept so long, as Velero does.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Backups that are deleted at a time, beside those whose snapshots are waited for: a driver may take hours.
const AT_A_TIME: usize = 4;

/// The same with those.
const WITH_WAITING: usize = 16;

const BACKUP_NAME: &str = "velero.io/backup-name";
const BACKUP_UID: &str = "velero.io/backup-uid";

/// The annotation of a request that is at work: the location of the files.
const PLACE: &str = "kubectl-backup/location";

/// The annotation of a Backup whose snapshots in their storage were to go: written before the first of them does.
const CUTS_GO: &str = "kubectl-backup/snapshots-go";

/// The phase of a Backup that has to go.
pub(super) const DELETING: &str = "Deleting";

/// Why a backup is not deleted now.
enum Not {
    /// It stays.
    Refused(String),
    /// It is tried again.
    Failed(Error),
}

impl From<Error> for Not {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

fn refused(why: impl Into<String>) -> Not {
    Not::Refused(why.into())
}

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

/// How many more may begin.
fn room(deleting: &BTreeMap<String, bool>) -> usize {
    let waiting = deleting.values().filter(|waits| **waits).count();
    let at_work = deleting.len() - waiting;
    let room = AT_A_TIME.saturating_sub(at_work);
    room.min(WITH_WAITING.saturating_sub(deleting.len()))
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

/// The snapshots of a backup are waited for, until this is dropped.
struct Waits<'a> {
    desk: &'a Desk,
    backup: &'a Name,
}

impl<'a> Waits<'a> {
    fn on(desk: &'a Desk, backup: &'a Name) -> Self {
        let waits = Self { desk, backup };
        waits.note(true);
        waits
    }

    fn note(&self, is_so: bool) {
        if let Some(waits) = self.desk.deleting().get_mut(self.backup.as_str()) {
            *waits = is_so;
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.note(false);
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step<'o> {
    /// A request is answered.
    Answer(&'o Arc<Value>),
    /// A request was answered long ago.
    Forget(&'o Arc<Value>),
    /// A Backup is Deleting, and no request asks for it any more.
    Resume(&'o Arc<Value>),
}

impl<'o> Step<'o> {
    fn object(self) -> &'o Arc<Value> {
        let (Self::Answer(object) | Self::Forget(object) | Self::Resume(object)) = self;
        object
    }
}

/// Of several requests for one backup the oldest is answered first: then the others find it gone. What failed goes behind what was not tried yet, what failed last behind all others.
fn plan<'o, T: Ord>(
    requests: &'o [Arc<Value>],
    backups: &'o [Arc<Value>],
    now: Timestamp,
    failed: impl Fn(&Value) -> Option<T>,
) -> Vec<Step<'o>> {
    let mut steps = Vec::new();
    let mut open = Vec::new();
    for request in requests {
        if phase(request) != "Processed" {
            open.push(request);
        } else if is_over(request, now) {
            steps.push(Step::Forget(request));
        }
    }
    open.sort_by_key(|request| (time(request, "/metadata/creationTimestamp"), name(request)));
    let mut asked = BTreeSet::new();
    for request in open {
        if asked.insert(request["spec"]["backupName"].as_str().unwrap_or_default()) {
            steps.push(Step::Answer(request));
        }
    }
    let left = backups
        .iter()
        .filter(|backup| phase(backup) == DELETING && !asked.contains(name(backup)));
    steps.extend(left.map(Step::Resume));
    steps.sort_by_key(|step| failed(step.object()));
    steps
}

fn is_over(object: &Value, now: Timestamp) -> bool {
    let created = time(object, "/metadata/creationTimestamp");
    created.is_some_and(|at| now.duration_since(at) > KEPT)
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
        Err(Not::Refused(why)) => {
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
        return Ok(finish(desk, &backup, None, stopped).await?);
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
            return Ok(finish(desk, &backup, None, stopped).await?);
        }
        Some(entry) => {
            if let Err(not) = may_go(desk, &location, &title).await {
                return Err(back(desk, &location, &backup, entry, begun, not).await);
            }
            begin(desk, request, &backup).await?;
            // With the marker gone, this alone tells whoever goes on where its files are.
            let word = sealed::word(&entry.backup, entry.encrypted);
            let deleting = json!({
                "metadata": {"annotations": {sealed::ENCRYPTION: word}},
                "status": {"phase": DELETING},
            });
            // As it was seen: from here on no restore begins to read it.
            if desk.backups.decide(&backup, deleting).await? == Written::Changed {
                return Err(Error::other("the Backup changed just now").into());
            }
            if let Err(not) = not_restored(desk, &location, &title).await {
                return Err(back(desk, &location, &backup, entry, true, not).await);
            }
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
    Ok(finish(desk, &backup, Some(&location), stopped).await?)
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
    if begun && let Not::Refused(why) = &not {
        match is_half_gone(location, backup, entry).await {
            Ok(false) => {}
            // It is no backup any more that others could be counted with.
            Ok(true) => {
                return Not::Failed(Error::other(format!(
                    "{why}; some of its snapshots are deleted already, so that it does not become a backup again"
                )));
            }
            Err(e) => return Not::Failed(e),
        }
        let patch = json!({"status": {"phase": entry.backup.status.phase}});
        if let Err(e) = desk.backups.patch(backup, patch).await {
            return Not::Failed(e);
        }
    }
    not
}

/// Whether snapshots of it in their storage went, or may have: then there is no way back.
async fn is_half_gone(location: &Location, backup: &Value, entry: &Entry) -> Result<bool> {
    let cuts = about(location, &entry.name).await?;
    // Where it can not be read any more what was written down of them, they were to go.
    let is_unread = annotation(backup, CUTS_GO).is_some() && cuts.lacks().is_some();
    Ok(is_unread || cuts.is_torn(entry.backup.status.start_timestamp))
}

/// What is known of the snapshots of a backup in their storage.
async fn about(location: &Location, backup: &Name) -> Result<About> {
    let store = &location.store;
    let owned = match records::snapshots::owned(store, backup).await {
        Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => None,
        owned => Some(owned?),
    };
    let names = owned.as_ref().map(|owned| &owned.cuts[..]);
    Known::read(store).await?.about(store, backup, names).await
}

/// Goes on with a Backup that is Deleting without a request: it stays if its marker stands and none of its snapshots went, and else goes.
async fn resume(desk: Arc<Desk>, backup: Arc<Value>, stopped: watch::Receiver<bool>) -> Result<()> {
    let location = match usable(&desk, place_of(&backup)).await {
        Ok(location) => location,
        Err(Not::Refused(why)) => return Err(Error::other(why)),
        Err(Not::Failed(e)) => return Err(e),
    };
    let title = Name::foreign(name(&backup))?;
    let (location, entry) = sealed::find(location, &backup, &title).await?;
    match entry {
        Some(entry) if sync::is_same(&backup, &entry.backup) => {
            if is_half_gone(&location, &backup, &entry).await? {
                return finish(&desk, &backup, Some(&location), &stopped).await;
            }
            let patch = json!({"status": {"phase": entry.backup.status.phase}});
            desk.backups.decide(&backup, patch).await.map(drop)
        }
        Some(_) => finish(&desk, &backup, None, &stopped).await,
        None => finish(&desk, &backup, Some(&location), &stopped).await,
    }
}

fn place_of(backup: &Value) -> &str {
    let place = &backup["spec"]["storageLocation"];
    place.as_str().unwrap_or_default()
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

fn restores_of(desk: &Desk, backup: &str) -> Vec<Arc<Value>> {
    let mut restores = desk.restores.all();
    restores.retain(|restore| restore["spec"]["backupName"] == backup);
    restores
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
async fn usable(desk: &Desk, place: &str) -> Result<Location, Not> {
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
async fn may_go(desk: &Desk, location: &Location, title: &Name) -> Result<(), Not> {
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
        return Err(refused(format!(
            "{lacks} (`kubectl backup delete {title} --force` deletes it without them)"
        )));
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

/// Whether no restore has begun to read it, whoever began it.
async fn not_restored(desk: &Desk, location: &Location, backup: &Name) -> Result<(), Not> {
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

/// Removes the files, where there are any, then the restores, then the Backup.
async fn finish(
    desk: &Desk,
    backup: &Value,
    location: Option<&Location>,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let title = name(backup);
    still_ours(stopped)?;
    if let Some(location) = location {
        let (store, name) = (&location.store, Name::foreign(title)?);
        // What can not be read, or went with an attempt before, is found as an orphan.
        let owned = records::snapshots::owned(store, &name).await;
        let cuts = about(location, &name).await?;
        // Without a marker they were seen to before.
        if let Some(lacks) = cuts.lacks()
            && catalog::find(store, &name).await?.is_some()
        {
            return Err(Error::other(lacks).hint(format!(
                "`kubectl backup delete {name} --force` deletes it without them"
            )));
        }
        if cuts.count() > 0 && annotation(backup, CUTS_GO).is_none() {
            let goes = json!({"metadata": {"annotations": {CUTS_GO: "true"}}});
            desk.backups.patch(backup, goes).await?;
        }
        in_storage(desk, location, &cuts, &name, stopped).await?;
        // That may have taken an hour.
        if catalog::find(store, &name).await?.is_some()
            && let Err(not) = not_restored(desk, location, &name).await
        {
            return Err(match not {
                Not::Refused(why) => Error::other(why),
                Not::Failed(e) => e,
            });
        }
        catalog::delete_again(store, &name, &desk.host, &owner(uid(backup))).await?;
        // It is gone: what stays of this is found by whoever looks for orphans.
        let _ = cuts.bury(store).await;
        if let Some(object) = desk.locations.get(place_of(backup)) {
            repositories::owe(desk, &object, owned.unwrap_or_default(), false);
        }
    }
    for restore in restores_of(desk, title) {
        still_ours(stopped)?;
        if let Some(location) = location {
            remove_restore(location, name(&restore), title).await?;
        }
        desk.restores.delete(&restore).await?;
    }
    if let Some(backup) = desk.backups.read(backup).await? {
        desk.backups.delete(&backup).await?;
    }
    desk.ui.note(&match location {
        Some(_) => format!("backup {title} is deleted"),
        None => format!("the object of backup {title} is removed; it had nothing in a bucket"),
    });
    Ok(())
}

/// Removes the snapshots of a backup in their storage. Those of another cluster are left to it, for there is no way back any more.
async fn in_storage(
    desk: &Desk,
    location: &Location,
    cuts: &About,
    backup: &Name,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let _waits = Waits::on(desk, backup);
    let heirs = heirs(desk, Some(stopped)).await?;
    let outcome = cuts.expire(&location.store, heirs).await?;
    still_ours(stopped)?;
    match (&outcome, outcome.stays()) {
        (heirs::Outcome::Kept { .. }, Some(why)) => Err(Error::other(why)),
        (_, Some(why)) => {
            desk.ui.warn(&bounded(&format!("backup {backup}: {why}")));
            Ok(())
        }
        (heirs::Outcome::Gone(many), None) => {
            let many = counted(*many as u64, "snapshot");
            desk.ui.note(&format!("{many} of backup {backup}: deleted"));
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

async fn heirs<'a>(desk: &'a Desk, stop: Option<&'a watch::Receiver<bool>>) -> Result<Heirs<'a>> {
    let identity = desk.identity().await?;
    Ok(Heirs {
        cluster: identity.map(|uid| (&desk.cluster, uid)),
        stop,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, backup: &str, phase: &str, created: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-11-21T{created}Z")},
            "spec": {"backupName": backup}, "status": {"phase": phase},
        }))
    }

    #[test]
    fn the_oldest_request_of_a_backup_is_answered_and_what_is_half_gone_goes_on_without_one() {
        let requests = [
            request("a", "b1", "", "02:00:00"),
            request("b", "b1", "InProgress", "01:00:00"),
            request("c", "b2", "New", "03:00:00"),
            request("d", "b3", "Processed", "01:00:00"),
        ];
        let backup = |name: &str, phase: &str| {
            Arc::new(json!({"metadata": {"name": name}, "status": {"phase": phase}}))
        };
        let backups = [
            backup("b1", DELETING),
            backup("b3", DELETING),
            backup("b4", "Completed"),
        ];
        let now: Timestamp = "2026-11-22T01:00:00Z".parse().unwrap();
        let mut steps = vec![
            Step::Answer(&requests[1]),
            Step::Answer(&requests[2]),
            Step::Resume(&backups[1]),
        ];
        let none = |_: &Value| None::<u8>;
        assert_eq!(plan(&requests, &backups, now, none), steps);
        let later = now + SignedDuration::from_secs(1);
        steps.insert(0, Step::Forget(&requests[3]));
        assert_eq!(plan(&requests, &backups, later, none), steps);
        assert_eq!(plan(&[], &[], later, none), []);
    }

    #[test]
    fn what_fails_again_and_again_is_behind_what_was_not_tried_yet() {
        let names: Vec<_> = ('a'..='e').map(String::from).collect();
        let requests: Vec<_> = names
            .iter()
            .map(|name| request(name, name, "New", "01:00:00"))
            .collect();
        let gone = json!({"metadata": {"name": "f"}, "status": {"phase": DELETING}});
        let failed = |object: &Value| match name(object) {
            "a" => Some(9),
            "b" => Some(3),
            "c" => Some(5),
            _ => None,
        };
        let backups = [Arc::new(gone)];
        let steps = plan(&requests, &backups, Timestamp::UNIX_EPOCH, failed);
        let order: Vec<_> = steps.iter().map(|step| name(step.object())).collect();
        assert_eq!(order, ["d", "e", "f", "b", "c", "a"]);
    }

    #[test]
    fn backups_whose_snapshots_are_waited_for_keep_others_from_being_deleted_only_where_they_are_many()
     {
        let deleting = |at_work: usize, waiting: usize| {
            let all = (0..at_work + waiting).map(|number| (number.to_string(), number >= at_work));
            room(&all.collect())
        };
        assert_eq!(deleting(0, 0), AT_A_TIME);
        assert_eq!(deleting(1, 4), AT_A_TIME - 1);
        assert_eq!(deleting(AT_A_TIME, 0), 0);
        assert_eq!(deleting(1, WITH_WAITING - 2), 1);
        assert_eq!(deleting(0, WITH_WAITING), 0);
    }
}
