//! What a bucket has and the cluster does not, and the other way round: backups of a location get their objects, and objects whose backup is gone go.
//!
//! A bucket is anybody's who may write to it: an object is made only of a small marker of a finished backup of the folder's own name; objects of a location are
//! bounded in number and bytes, and those of other clusters' backups may take half of either. Rounds go on where the last one stopped, so that no name keeps
//! others from being looked at. What gives no object is told once, on standard error and by an Event at the location.
//! A listing may be wrong for a moment: an object goes only when two in a row lack its backup and its marker is not there, and never all at once.

mod known;
mod room;

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::Kind;
use backup_core::api::{Backup, Phase};
use backup_core::catalog::{self, CLUSTER_UID, Entry};
use backup_core::error::{Error, Result};
use backup_core::hooks::owed::{self, Settled, Settling};
use backup_core::layout::{BACKUPS, BackupKeys};
use backup_core::location::Location;
use backup_core::name::Name;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups::{self, LOCATION, OWN};
use super::deletions::{DELETING, NOT_DELETED};
use super::desk::{Desk, Work};
use super::objects::{annotation, bounded, name, phase, time, uid};
use super::{history, locations, sealed};
use known::Has;
pub(crate) use known::Synced;
use room::{MOST, Taken};

/// So many folders are named in a round that gave no object; of the others the number is told.
const MOST_TOLD: usize = 5;

/// A marker is a few kilobytes; an object lies in etcd.
const LARGEST_MARKER: usize = 64 << 10;

/// A folder that has no marker for so long is a dead run's, and one that is left after so long is none that expiry removes.
const DEAD: std::ops::Range<SignedDuration> =
    SignedDuration::from_hours(1)..SignedDuration::from_hours(6);

/// So many objects may go although the bucket looks empty.
const FEW: usize = 3;

/// Whether the last sync saw folders that expiry may have to remove.
pub(crate) fn has_unfinished(desk: &Desk, location: &Value, now: Timestamp) -> bool {
    let all = desk.synced.lock().expect("nobody panics while holding it");
    let mut passed = all
        .get(uid(location))
        .into_iter()
        .flat_map(|known| known.passed.values());
    passed.any(|passed| {
        let since = passed.unfinished;
        since.is_some_and(|since| DEAD.contains(&now.duration_since(since)))
    })
}

/// One look at all locations.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let now = desk.now();
    let places = locations::places(desk);
    for object in desk.locations.all() {
        let is_available = places
            .iter()
            .any(|place| place.name == name(&object) && place.is_available == Some(true));
        let every = locations::period(&object["spec"]["backupSyncPeriod"]);
        let every = every.unwrap_or(desk.settings.sync_period);
        let last = last(desk, &object);
        let is_due = last.is_none_or(|at| at > now || now.duration_since(at) >= every);
        if is_available && !every.is_zero() && is_due && desk.is_free(&object) {
            desk.begin(&object, Work::Location, sync);
        }
    }
}

/// When the last sync of a location ended.
fn last(desk: &Desk, object: &Value) -> Option<Timestamp> {
    let all = desk.synced.lock().expect("nobody panics while holding it");
    all.get(uid(object)).and_then(|known| known.at)
}

fn synced(desk: &Desk, object: &Value) -> Synced {
    let all = desk.synced.lock().expect("nobody panics while holding it");
    all.get(uid(object)).cloned().unwrap_or_default()
}

/// Syncs one location.
async fn sync(desk: Arc<Desk>, object: Arc<Value>, stopped: watch::Receiver<bool>) -> Result<()> {
    let mut known = synced(&desk, &object);
    let place = json!([object["spec"]["objectStorage"], object["spec"]["config"]]);
    if known.place != place {
        known = Synced {
            place,
            ..Synced::default()
        };
    }
    let ended = round(&desk, &object, &mut known, &stopped).await;
    // However it ended: other work on the location has its turn.
    known.at = Some(desk.now());
    let mut all = desk.synced.lock().expect("nobody panics while holding it");
    all.insert(uid(&object).to_owned(), known);
    ended
}

async fn round(
    desk: &Desk,
    object: &Value,
    known: &mut Synced,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let place = name(object).to_owned();
    let now = desk.now();
    let location = locations::open_named(desk, &place).await?;
    thaw(desk, &location, object, known, stopped).await?;
    // Before the listing: what ends while it is made is not judged by it.
    let before: Vec<Arc<Value>> = of_location(desk, &place);
    let mut folders: BTreeSet<String> = BTreeSet::new();
    for store in [&location.store, &location.vault().store] {
        folders.extend(store.folders(BACKUPS).await?);
    }
    known.passed.retain(|folder, _| folders.contains(folder));

    make(desk, &location, object, &folders, known, stopped).await?;
    if *stopped.borrow() {
        return Ok(());
    }
    heal(desk, &location, &before, &folders, known, stopped).await?;
    remove(desk, &location, &before, &folders, known, stopped).await?;

    let patch = json!({"status": {"lastSyncedTime": format!("{now:.0}")}});
    desk.locations.patch(object, patch).await?;
    Ok(())
}

/// Runs the post hooks that dead runs owe to pods; what is told again at each sync is told once.
async fn thaw(
    desk: &Desk,
    location: &Location,
    object: &Value,
    known: &mut Synced,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let settling = Settling {
        cluster: &desk.cluster,
        location,
        identity: desk.identity().await?,
        namespaces: std::slice::from_ref(&desk.settings.namespace),
        served: std::slice::from_ref(&desk.settings.namespace),
        me: &desk.process,
        cancel: stopped,
    };
    let told = match owed::settle(&settling).await {
        Ok(told) => told,
        Err(e) if is_of_all(&e) => return Err(e),
        Err(e) => vec![Settled {
            is_trouble: true,
            text: e.sentence(),
        }],
    };
    for one in &told {
        if known.owed.contains(&one.text) {
            continue;
        }
        if one.is_trouble {
            desk.ui.warn(&one.text);
            history::tell(desk, object, "PostHookOwed", &one.text).await;
        } else {
            desk.ui.note(&one.text);
        }
    }
    known.owed = told.into_iter().map(|one| one.text).collect();
    Ok(())
}

fn of_location(desk: &Desk, place: &str) -> Vec<Arc<Value>> {
    let mut all = desk.backups.all();
    all.retain(|backup| backup["spec"]["storageLocation"] == place);
    all
}

/// Whether it is the location that fails, and not one key of it.
fn is_of_all(e: &Error) -> bool {
    matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized)
}

/// Objects for backups that have none.
async fn make(
    desk: &Desk,
    location: &Location,
    object: &Value,
    folders: &BTreeSet<String>,
    known: &mut Synced,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let has_object = |folder: &str| desk.backups.get(folder).is_some();
    let new = known.candidates(folders, has_object, desk.now());
    if new.is_empty() {
        return Ok(());
    }
    let identity = desk.identity().await?;
    let is_own =
        |object: &Value| identity.is_none_or(|own| annotation(object, CLUSTER_UID) == Some(own));
    let mut taken = Taken::default();
    for there in of_location(desk, name(object)) {
        taken.add(is_own(&there), there.to_string().len());
    }
    let (mut made, mut news) = (0, Vec::new());
    for folder in new {
        if *stopped.borrow() {
            break;
        }
        known.after = folder.to_owned();
        let found = match Name::foreign(folder) {
            Ok(folder) => look(desk, location, &folder, name(object)).await?,
            Err(e) => Found::Odd(e.sentence()),
        };
        let (why, has) = match found {
            Found::Backup(new) if !taken.take(is_own(&new), new.to_string().len()) => {
                let why = format!(
                    "the objects of a location are {} of {} MiB at most, half of it for other clusters' backups",
                    MOST.objects,
                    MOST.bytes >> 20
                );
                (Some(why), Has::Other)
            }
            Found::Backup(new) => match desk.backups.create(&new).await {
                Ok(true) => {
                    made += 1;
                    continue;
                }
                Ok(false) => continue,
                Err(e) if matches!(e.kind(), Kind::Invalid | Kind::Forbidden) => {
                    (Some(e.sentence()), Has::Other)
                }
                Err(e) => return Err(e),
            },
            Found::Odd(why) => (Some(why), Has::Other),
            Found::Unfinished => (None, Has::Unfinished),
            Found::NoMarker => (None, Has::NoMarker),
        };
        let why = why.map(|why| bounded(&why));
        if known.pass(folder, why.clone(), has, desk.now()) {
            news.extend(why.map(|why| format!("backup {folder:?} is passed over: {why}")));
        }
    }
    let place = name(object);
    if made > 0 {
        desk.ui
            .note(&format!("location {place}: {made} backups were found"));
    }
    let more = news.len().saturating_sub(MOST_TOLD);
    news.truncate(MOST_TOLD);
    if more > 0 {
        news.push(format!("more backups are passed over: {more}"));
    }
    for what in news {
        desk.ui.warn(&format!("location {place}: {what}"));
        history::tell(desk, object, "PassedOver", &what).await;
    }
    Ok(())
}

/// What a folder has.
enum Found {
    /// A backup, and this is its object.
    Backup(Value),
    /// None, and why.
    Odd(String),
    /// One that is not finished.
    Unfinished,
    /// No marker: it is being made or removed, or nobody finishes it.
    NoMarker,
}

/// Looks into a folder. One that can not be read does not keep the others.
async fn look(desk: &Desk, location: &Location, folder: &Name, place: &str) -> Result<Found> {
    Ok(match catalog::find(&location.store, folder).await {
        Ok(None) => Found::NoMarker,
        Ok(Some(entry)) => match object_of(&entry, place, &desk.settings.namespace) {
            Ok(object) => Found::Backup(object),
            Err(Some(why)) => Found::Odd(why),
            Err(None) => Found::Unfinished,
        },
        Err(e) if is_of_all(&e) => return Err(e),
        Err(e) => Found::Odd(e.sentence()),
    })
}

/// The object of a backup that a bucket has; why there is none, where it is worth a word.
fn object_of(entry: &Entry, place: &str, namespace: &str) -> Result<Value, Option<String>> {
    if entry.raw.len() > LARGEST_MARKER {
        return Err(Some(format!(
            "its marker has {} bytes, and {LARGEST_MARKER} are the most",
            entry.raw.len()
        )));
    }
    let Backup {
        metadata, status, ..
    } = &entry.backup;
    if !matches!(
        status.phase,
        Phase::Completed | Phase::PartiallyFailed | Phase::Failed
    ) {
        // Velero puts its marker down before it is done.
        return Err(None);
    }
    let raw: Value = serde_json::from_slice(&entry.raw).map_err(|e| Some(e.to_string()))?;
    let mut labels = metadata.labels.clone();
    labels.insert(LOCATION.to_owned(), backups::label_value(place));
    let mut annotations = metadata.annotations.clone();
    annotations.retain(|key, _| !OWN.contains(&key.as_str()) && key != sealed::ENCRYPTION);
    // What a bucket says of itself is no word: a plain backup is not called encrypted.
    if let Some(word) = sealed::word(&entry.backup, entry.encrypted) {
        annotations.insert(sealed::ENCRYPTION.to_owned(), word.to_owned());
    }
    let mut spec = raw["spec"].clone();
    if !spec.is_object() {
        spec = json!({});
    }
    spec["storageLocation"] = place.into();
    let mut status = raw["status"].clone();
    if let Some(expiration) = entry.backup.expiration() {
        status["expiration"] = json!(expiration);
    }
    Ok(json!({
        "apiVersion": backup_core::api::API_VERSION, "kind": "Backup",
        "metadata": {"name": entry.name.as_str(), "namespace": namespace, "labels": labels, "annotations": annotations},
        "spec": spec, "status": status,
    }))
}

/// A backup whose controller was taken for dead too early stands all the same.
async fn heal(
    desk: &Desk,
    location: &Location,
    before: &[Arc<Value>],
    folders: &BTreeSet<String>,
    known: &mut Synced,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    for object in before {
        if *stopped.borrow() {
            break;
        }
        let (title, now) = (name(object), desk.now());
        let run = annotation(object, backups::RUN);
        if phase(object) != "Failed" || run.is_none() || !folders.contains(title) {
            continue;
        }
        // A marker that is another's, or that can not be read, is one still in a minute.
        let has_marker = known
            .passed
            .get(title)
            .is_some_and(|p| p.unfinished.is_none());
        if has_marker && known.is_passed(title, now) {
            continue;
        }
        let Ok(folder) = Name::foreign(title) else {
            continue;
        };
        let marker = match catalog::find(&location.store, &folder).await {
            Err(e) if is_of_all(&e) => return Err(e),
            Err(_) => None,
            Ok(None) => {
                known.pass(title, None, Has::NoMarker, now);
                continue;
            }
            Ok(marker) => marker,
        };
        let is_its = |entry: &Entry| {
            let of = entry.backup.metadata.annotations.get(backups::RUN);
            of.map(String::as_str) == run
        };
        let Some(entry) = marker.filter(is_its) else {
            known.pass(title, None, Has::Other, now);
            continue;
        };
        let mut patch = backups::stands(&entry.backup, entry.encrypted);
        patch["status"]["failureReason"] = Value::Null;
        patch["metadata"]["annotations"][backups::INTERRUPTED] = Value::Null;
        desk.backups.decide(object, patch).await?;
        desk.ui.note(&format!("backup {title} stands after all"));
    }
    Ok(())
}

/// Whether an object is there for a backup that stands: also for one whose deletion nobody goes on with, until somebody has removed its files.
fn is_awaited(object: &Value) -> bool {
    let is_left = phase(object) == DELETING && annotation(object, NOT_DELETED).is_some();
    is_left || matches!(phase(object), "Completed" | "PartiallyFailed")
}

/// Objects whose backup is gone.
async fn remove(
    desk: &Desk,
    location: &Location,
    before: &[Arc<Value>],
    folders: &BTreeSet<String>,
    known: &mut Synced,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let missing: Vec<&Arc<Value>> = before
        .iter()
        .filter(|object| is_awaited(object))
        .filter(|object| !folders.contains(name(object)))
        .collect();
    if folders.is_empty() && missing.len() > FEW {
        desk.ui.warn(&format!(
            "location {} looks empty, and {} backups have objects: none is removed",
            location.name,
            missing.len()
        ));
        known.missing.clear();
        return Ok(());
    }
    let mut now_missing = BTreeSet::new();
    for object in missing {
        if *stopped.borrow() {
            break;
        }
        if !known.missing.contains(uid(object)) {
            now_missing.insert(uid(object).to_owned());
            continue;
        }
        let Ok(folder) = Name::foreign(name(object)) else {
            continue;
        };
        let marker = BackupKeys::new(&folder).marker();
        let seen = match location.store.head(&marker).await {
            Err(e) if e.kind() == Kind::NotFound => location.vault().store.head(&marker).await,
            seen => seen,
        };
        match seen {
            Ok(_) => {}
            Err(e) if e.kind() == Kind::NotFound => {
                desk.backups.delete(object).await?;
                desk.ui.note(&format!(
                    "backup {} is gone from its location",
                    name(object)
                ));
            }
            Err(e) if is_of_all(&e) => return Err(e),
            Err(_) => {}
        }
    }
    known.missing = now_missing;
    Ok(())
}

/// Whether the backup in the bucket is the one that an object stands for: then both began at the same second.
pub(crate) fn is_same(object: &Value, marker: &Backup) -> bool {
    let began = time(object, "/status/startTimestamp");
    began.is_some() && began == marker.status.start_timestamp
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(raw: &Value) -> Entry {
        Entry {
            name: "b".parse().unwrap(),
            backup: serde_json::from_value(raw.clone()).unwrap(),
            raw: raw.to_string().into(),
            encrypted: false,
        }
    }

    #[test]
    fn an_object_is_made_of_what_a_marker_may_say_and_of_nothing_else() {
        let raw = json!({
            "apiVersion": "velero.io/v1", "kind": "Backup",
            "metadata": {"name": "b", "namespace": "velero", "uid": "u", "resourceVersion": "7", "finalizers": ["x"],
                "ownerReferences": [{"kind": "Schedule"}], "labels": {"a": "b", "velero.io/storage-location": "theirs"},
                "annotations": {"c": "d", "kubectl-backup/run": "r", "kubectl-backup/slot": "s", "kubectl-backup/cluster-uid": "k",
                    "kubectl-backup/encryption": "age"}},
            "spec": {"storageLocation": "theirs", "ttl": "1h0m0s", "newer": {"x": 1}},
            "status": {"phase": "Completed", "newer": 1},
        });
        let made = object_of(&entry(&raw), "mine", "ns").unwrap();
        assert_eq!(
            made,
            json!({
                "apiVersion": "velero.io/v1", "kind": "Backup",
                "metadata": {"name": "b", "namespace": "ns", "labels": {"a": "b", "velero.io/storage-location": "mine"},
                    "annotations": {"c": "d", "kubectl-backup/cluster-uid": "k"}},
                "spec": {"storageLocation": "mine", "ttl": "1h0m0s", "newer": {"x": 1}},
                "status": {"phase": "Completed", "newer": 1},
            })
        );
        let sealed = Entry {
            encrypted: true,
            ..entry(&raw)
        };
        let made = object_of(&sealed, "mine", "ns").unwrap();
        let annotations = &made["metadata"]["annotations"];
        assert_eq!(annotations["kubectl-backup/encryption"], "age");
        // One that asks for something, or is not done, would be made here.
        for phase in ["New", "InProgress", "Deleting", "Finalizing", "Odd"] {
            let mut unfinished = raw.clone();
            unfinished["status"]["phase"] = phase.into();
            assert_eq!(object_of(&entry(&unfinished), "mine", "ns"), Err(None));
        }
        let mut without = raw.clone();
        without.as_object_mut().unwrap().remove("status");
        assert_eq!(object_of(&entry(&without), "mine", "ns"), Err(None));
        let mut huge = raw;
        huge["spec"]["x"] = "x".repeat(70_000).into();
        let refused = object_of(&entry(&huge), "mine", "ns").unwrap_err();
        assert!(refused.unwrap().contains("the most"));
    }

    #[test]
    fn an_object_goes_with_its_files_and_also_where_nobody_goes_on_with_its_deletion() {
        let object = |phase: &str, annotations: Value| json!({"metadata": {"annotations": annotations}, "status": {"phase": phase}});
        let why = json!({NOT_DELETED: "why"});
        for phase in ["Completed", "PartiallyFailed"] {
            assert!(is_awaited(&object(phase, json!({}))), "{phase}");
        }
        assert!(is_awaited(&object(DELETING, why.clone())));
        // Whoever deletes it removes its object, too.
        assert!(!is_awaited(&object(DELETING, json!({}))));
        assert!(!is_awaited(&object("Failed", why)));
    }

    #[test]
    fn a_backup_is_an_objects_when_both_began_together() {
        let marker = entry(
            &json!({"apiVersion": "v", "kind": "Backup", "metadata": {"name": "b"},
            "status": {"startTimestamp": "2026-11-21T02:00:00Z"}}),
        )
        .backup;
        let object = |text: &str| json!({"status": {"startTimestamp": text}});
        assert!(is_same(&object("2026-11-21T02:00:00Z"), &marker));
        assert!(!is_same(&object("2026-11-21T02:00:01Z"), &marker));
        assert!(!is_same(&json!({}), &Backup::default()));
    }
}
