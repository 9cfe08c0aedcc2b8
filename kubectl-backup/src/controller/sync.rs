//! What a bucket has and the cluster does not, and the other way round: backups of a location get their objects, and objects whose backup is gone go.
//!
//! A bucket is anybody's who may write to it: an object is made only of a small marker of a finished backup of the folder's own name, and only so many are made.
//! A listing may be wrong for a moment: an object goes only when two in a row lack its backup and its marker is not there, and never all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::Kind;
use backup_core::api::{Backup, Phase};
use backup_core::catalog::{self, Entry};
use backup_core::error::{Error, Result};
use backup_core::layout::{BACKUPS, BackupKeys};
use backup_core::location::Location;
use backup_core::name::Name;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups::{self, LOCATION, OWN};
use super::desk::{Desk, Work};
use super::locations;
use super::objects::{annotation, bounded, name, phase, time, uid};

/// Markers that are read in one round; the others' turn comes.
const MOST_READ: usize = 1000;

/// Objects of one location.
const MOST_OBJECTS: usize = 10_000;

/// A marker is a few kilobytes; an object lies in etcd.
const LARGEST_MARKER: usize = 64 << 10;

/// A folder that gave no object is looked at again after this.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// So many objects may go although the bucket looks empty.
const FEW: usize = 3;

/// What is known of a location's last sync by this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Synced {
    at: Option<Timestamp>,
    /// Uids of objects whose backup the last listing lacked.
    missing: BTreeSet<String>,
    /// Folders that gave no object, and when they were looked at.
    passed: BTreeMap<String, Timestamp>,
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
        let last = {
            let all = desk.synced.lock().expect("nobody panics while holding it");
            all.get(uid(&object)).and_then(|known| known.at)
        };
        let is_due = last.is_none_or(|at| at > now || now.duration_since(at) >= every);
        if is_available && !every.is_zero() && is_due && desk.is_free(&object) {
            desk.begin(&object, Work::Location, sync);
        }
    }
}

/// Syncs one location.
async fn sync(desk: Arc<Desk>, object: Arc<Value>, stopped: watch::Receiver<bool>) -> Result<()> {
    let mut known = {
        let all = desk.synced.lock().expect("nobody panics while holding it");
        all.get(uid(&object)).cloned().unwrap_or_default()
    };
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
    known
        .passed
        .retain(|_, at| *at <= now && now.duration_since(*at) < AGAIN);
    let location = locations::open_named(desk, &place).await?;
    // Before the listing: what ends while it is made is not judged by it.
    let before: Vec<Arc<Value>> = of_location(desk, &place);
    let folders: BTreeSet<String> = location.store.folders(BACKUPS).await?.into_iter().collect();

    make(desk, &location, &place, &folders, known, stopped).await?;
    if *stopped.borrow() {
        return Ok(());
    }
    heal(desk, &location, &before, &folders).await?;
    remove(desk, &location, &before, &folders, known).await?;

    let patch = json!({"status": {"lastSyncedTime": format!("{now:.0}")}});
    desk.locations.patch(object, patch).await?;
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
    place: &str,
    folders: &BTreeSet<String>,
    known: &mut Synced,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let new = folders
        .iter()
        .filter(|folder| desk.backups.get(folder).is_none() && !known.passed.contains_key(*folder));
    let new: Vec<Name> = new
        .filter_map(|folder| Name::foreign(folder).ok())
        .take(MOST_READ)
        .collect();
    let room = MOST_OBJECTS.saturating_sub(of_location(desk, place).len());
    let mut made = 0;
    for folder in new {
        if *stopped.borrow() {
            break;
        }
        if made >= room {
            desk.ui.warn(&format!(
                "location {place} has more than {MOST_OBJECTS} backups: the others get no objects"
            ));
            break;
        }
        let why = match catalog::get(&location.store, &folder).await {
            Ok(entry) => match object_of(&entry, place, &desk.settings.namespace) {
                Ok(object) => match desk.backups.create(&object).await {
                    Ok(true) => {
                        made += 1;
                        continue;
                    }
                    Ok(false) => continue,
                    Err(e) if matches!(e.kind(), Kind::Invalid | Kind::Forbidden) => {
                        Some(e.sentence())
                    }
                    Err(e) => return Err(e),
                },
                Err(why) => why,
            },
            // It is being made or removed, or nobody finishes it.
            Err(e) if e.kind() == Kind::NotFound => None,
            Err(e) if is_of_all(&e) => return Err(e),
            // One that can not be read does not keep the others.
            Err(e) => Some(e.sentence()),
        };
        if let Some(why) = why {
            desk.ui.warn(&format!(
                "location {place}: backup {folder} is passed over: {}",
                bounded(&why)
            ));
        }
        known.passed.insert(folder.to_string(), desk.now());
    }
    if made > 0 {
        desk.ui
            .note(&format!("location {place}: {made} backups were found"));
    }
    Ok(())
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
    annotations.retain(|key, _| !OWN.contains(&key.as_str()));
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
) -> Result<()> {
    for object in before {
        let run = annotation(object, backups::RUN);
        if phase(object) != "Failed" || run.is_none() || !folders.contains(name(object)) {
            continue;
        }
        let Ok(folder) = Name::foreign(name(object)) else {
            continue;
        };
        let entry = match catalog::get(&location.store, &folder).await {
            Ok(entry) => entry,
            Err(e) if is_of_all(&e) => return Err(e),
            Err(_) => continue,
        };
        let of = entry.backup.metadata.annotations.get(backups::RUN);
        if of.map(String::as_str) == run {
            let mut patch = backups::stands(&entry.backup);
            patch["status"]["failureReason"] = Value::Null;
            patch["metadata"]["annotations"][backups::INTERRUPTED] = Value::Null;
            desk.backups.decide(object, patch).await?;
        }
    }
    Ok(())
}

/// Objects whose backup is gone.
async fn remove(
    desk: &Desk,
    location: &Location,
    before: &[Arc<Value>],
    folders: &BTreeSet<String>,
    known: &mut Synced,
) -> Result<()> {
    let missing: Vec<&Arc<Value>> = before
        .iter()
        .filter(|object| matches!(phase(object), "Completed" | "PartiallyFailed"))
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
        if !known.missing.contains(uid(object)) {
            now_missing.insert(uid(object).to_owned());
            continue;
        }
        let Ok(folder) = Name::foreign(name(object)) else {
            continue;
        };
        let marker = BackupKeys::new(&folder).marker();
        match location.store.head(&marker).await {
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
        }
    }

    #[test]
    fn an_object_is_made_of_what_a_marker_may_say_and_of_nothing_else() {
        let raw = json!({
            "apiVersion": "velero.io/v1", "kind": "Backup",
            "metadata": {"name": "b", "namespace": "velero", "uid": "u", "resourceVersion": "7", "finalizers": ["x"],
                "ownerReferences": [{"kind": "Schedule"}], "labels": {"a": "b", "velero.io/storage-location": "theirs"},
                "annotations": {"c": "d", "kubectl-backup/run": "r", "kubectl-backup/slot": "s", "kubectl-backup/cluster-uid": "k"}},
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
