//! What is expired goes: backups of the locations that are this cluster's, by the library's `prune`, and the objects that stand for them. The newest good
//! backup of a schedule stays. What can not go is said on its object, and tried again the next time. Snapshots of volumes in
//! their storage go before their backup. What is to be done in repositories of volumes is noted for `repositories`, with each look.
//!
//! A bucket is looked through where the objects say that something goes, or the sync saw a folder without a marker for an hour; and whatever anybody says,
//! once by each process and once a day: what dead runs left is named by no object.
//!
//! A look may take hours. Checks and syncs of the location go on beside it: files are removed under claims, objects by uid and version, and what is removed twice is
//! gone once. Where the location leads elsewhere by its end, its objects stand for what was not looked at, and stay.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use backup_cli::output::counted;
use backup_core::backup::KEEP;
use backup_core::catalog::{self, Going, Keep, Longer, PruneOptions, Pruned, Wanted};
use backup_core::error::Result;
use backup_core::location::Location;
use backup_core::location::guard::{self, Guard};
use backup_core::name::Name;
use backup_core::records::snapshots::Owned;
use backup_core::snapshot::heirs::{self, Heirs, Orphans};
use backup_core::volume::expiry::Outcome;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::deletions::{DELETING, reader};
use super::desk::{Desk, Work};
use super::locations::Place;
use super::objects::{annotation, bounded, label, name, phase, time, uid};
use super::schedules::SCHEDULE;
use super::{locations, repositories, sync};
use crate::expiry::{self, Told};

/// The annotation of a Backup that should go and stays: why.
const KEPT: &str = "kubectl-backup/kept";

/// Whatever the objects say, a bucket is looked through so often.
const AT_LEAST_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// What was done for a location by this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Collected {
    /// When it was asked whether something is to be removed.
    asked: Option<Timestamp>,
    /// When the bucket was looked through.
    looked: Option<Timestamp>,
}

impl Collected {
    /// Whether it is time to ask again. A time that a wrong clock noted does not count.
    fn is_due(self, every: SignedDuration, now: Timestamp) -> bool {
        is_over(self.asked, every, now)
    }

    /// Whether the bucket is looked through, whatever objects say.
    fn is_overdue(self, now: Timestamp) -> bool {
        is_over(self.looked, AT_LEAST_EVERY, now)
    }
}

fn is_over(since: Option<Timestamp>, period: SignedDuration, now: Timestamp) -> bool {
    since.is_none_or(|at| at > now || now.duration_since(at) >= period)
}

/// One look at all locations.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let now = desk.now();
    let every = desk.settings.collection_frequency;
    let places = locations::places(desk);
    let all = desk.locations.all();
    desk.stop_where(Work::Expiry, |before| {
        let now = all.iter().find(|object| uid(object) == uid(before));
        !may_go_on(before, now.map(|now| &**now))
    });
    for object in all {
        let is_due = collected(desk, &object).is_due(every, now);
        if is_usable(&places, &object) && is_due && desk.is_free_for(&object, Work::Expiry) {
            desk.begin(&object, Work::Expiry, collect);
        }
    }
}

/// Whether something may be removed in a location.
pub(super) fn is_usable(places: &[Place], object: &Value) -> bool {
    places.iter().any(|place| {
        place.name == name(object) && place.is_available == Some(true) && !place.is_read_only
    })
}

fn collected(desk: &Desk, location: &Value) -> Collected {
    let all = desk.collected.lock();
    let all = all.expect("nobody panics while holding it");
    all.get(uid(location)).copied().unwrap_or_default()
}

async fn collect(
    desk: Arc<Desk>,
    object: Arc<Value>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let place = name(&object).to_owned();
    let now = desk.now();
    let mut collected = collected(&desk, &object);
    let objects = of_location(&desk, &place);
    let keep = keeping(&desk, &place);
    let is_worth_it = is_worth_it(&objects, &keep, now)
        || sync::has_unfinished(&desk, &object, now)
        || collected.is_overdue(now);
    if is_worth_it {
        let location = locations::open_named(&desk, &place).await?;
        let identity = desk.identity().await?.map(str::to_owned);
        // Who is not known, or has not written here yet, removes nothing.
        let guard = guard::read(&location, identity.as_deref()).await?;
        if guard == Guard::Ours {
            let longer = |backup: &Name| until(&desk, &place, backup);
            let going = |backup: &Name| {
                let object = desk.backups.get(backup.as_str());
                object.is_some_and(|object| {
                    object["spec"]["storageLocation"] == *place && phase(&object) == DELETING
                })
            };
            let wanted = |backup: &Name| restore_of(&desk, &place, backup);
            let left = Mutex::new(Owned::default());
            let options = PruneOptions {
                now,
                host: &desk.host,
                dry_run: false,
                keep: Keep::Of(&keep),
                schedule: None,
                cluster: identity.as_deref(),
                own_only: true,
                longer: Some(Longer(&longer)),
                stopped: Some(&stopped),
                going: Some(Going(&going)),
                wanted: Some(Wanted(&wanted)),
                heirs: Some(Heirs {
                    cluster: identity.as_deref().map(|uid| (&desk.cluster, uid)),
                    stop: Some(&stopped),
                }),
                leaves: Some(&left),
            };
            let done = catalog::prune(&location, &options).await?;
            let left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
            repositories::owe(&desk, &object, left, !*stopped.borrow());
            if !is_same_place(&object, desk.locations.get(&place).as_deref()) {
                // It is looked through as what it is now.
                return Ok(());
            }
            note(&desk, &place, now, done).await?;
        }
        // What is written down of snapshots says of which cluster they are. Where Velero uses the location, it leaves those of the backups that it removes.
        if let Some(uid) = identity.as_deref()
            && matches!(guard, Guard::Ours | Guard::Open)
        {
            told(
                &desk,
                &place,
                snapshots(&desk, &location, uid, &stopped).await,
            );
        }
        if guard == Guard::Ours {
            if *stopped.borrow() {
                return Ok(());
            }
            collected.looked = Some(now);
        }
    }
    collected.asked = Some(now);
    desk.collected
        .lock()
        .expect("nobody panics while holding it")
        .insert(uid(&object).to_owned(), collected);
    Ok(())
}

/// What goes wrong with volumes keeps no backup from expiring: it is looked at again with the next look.
pub(super) fn told(desk: &Desk, place: &str, done: Result<()>) {
    if let Err(e) = done {
        let text = format!(
            "location {place}: copies and snapshots of volumes: {}",
            e.sentence()
        );
        desk.ui.warn(&bounded(&text));
    }
}

/// Removes snapshots of volumes whose backups are gone; what can not be is told.
async fn snapshots(
    desk: &Desk,
    location: &Location,
    uid: &str,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let heirs = Heirs {
        cluster: Some((&desk.cluster, uid)),
        stop: Some(stopped),
    };
    let Orphans { told, unread } = heirs::orphans(&location.store, heirs, None, false).await?;
    for why in unread {
        desk.ui.warn(&bounded(&format!(
            "{why}: whether snapshots of volumes that no backup names are in it is not known ({})",
            heirs::WAY_OUT
        )));
    }
    for (backup, outcome) in told {
        if let heirs::Outcome::Kept { why, .. } = outcome {
            let why = why.join("; ");
            let why = bounded(&why);
            desk.ui.warn(&format!(
                "backup {backup} is gone, and its snapshots are not: {why}"
            ));
        }
    }
    Ok(())
}

/// What became of snapshots of volumes, in the log.
pub(crate) fn tell(desk: &Desk, outcome: &Outcome) {
    match expiry::sentence(outcome, false) {
        (Told::Done | Told::Note, text) => desk.ui.note(&text),
        (Told::Trouble, text) => desk.ui.warn(&text),
    }
}

fn of_location(desk: &Desk, place: &str) -> Vec<Arc<Value>> {
    let mut all = desk.backups.all();
    all.retain(|backup| backup["spec"]["storageLocation"] == place);
    all
}

/// Whether the objects say that something is to be removed: then the bucket is looked through.
fn is_worth_it(objects: &[Arc<Value>], keep: &BTreeMap<String, usize>, now: Timestamp) -> bool {
    let mut good: BTreeMap<&str, usize> = BTreeMap::new();
    objects.iter().any(|object| match phase(object) {
        "Completed" | "PartiallyFailed" => {
            let is_expired = time(object, "/status/expiration").is_some_and(|end| end < now);
            let is_beyond = label(object, SCHEDULE).is_some_and(|schedule| {
                let good = good.entry(schedule).or_default();
                *good += 1;
                keep.get(schedule).is_some_and(|keep| *good > *keep)
            });
            is_expired || is_beyond
        }
        _ => false,
    })
}

/// Until when the object says that a backup stays: that can be later than its marker says.
fn until(desk: &Desk, place: &str, backup: &Name) -> Option<Timestamp> {
    let object = object(desk, backup.as_str(), place)?;
    time(&object, "/status/expiration")
}

/// The restore that reads a backup of a location, or is to.
fn restore_of(desk: &Desk, place: &str, backup: &Name) -> Option<String> {
    object(desk, backup.as_str(), place)?;
    reader(desk, backup.as_str())
}

/// Schedules of a location that keep so many. One that can not be followed counts too: what it keeps is not less for that.
fn keeping(desk: &Desk, place: &str) -> BTreeMap<String, usize> {
    let places = locations::places(desk);
    let default = locations::default(&places).map(|place| place.name.clone());
    let all = desk.schedules.all();
    let of = |schedule: &Arc<Value>| {
        let keep = annotation(schedule, KEEP)?
            .parse()
            .ok()
            .filter(|keep| *keep > 0)?;
        let asked = schedule["spec"]["template"]["storageLocation"].as_str();
        let asked = asked.filter(|name| !name.is_empty()).or(default.as_deref());
        (asked == Some(place)).then(|| (name(schedule).to_owned(), keep))
    };
    all.iter().filter_map(of).collect()
}

/// Whether a location leads where it led: nothing, where it is gone.
pub(super) fn is_same_place(before: &Value, now: Option<&Value>) -> bool {
    let Some(now) = now.filter(|now| uid(now) == uid(before)) else {
        return false;
    };
    let fields = ["provider", "objectStorage", "config"];
    fields
        .iter()
        .all(|field| before["spec"][field] == now["spec"][field])
}

/// Whether a look that began with a location as it was is still what it asks for.
pub(super) fn may_go_on(before: &Value, now: Option<&Value>) -> bool {
    is_same_place(before, now) && now.is_some_and(|now| now["spec"]["accessMode"] != "ReadOnly")
}

/// The objects follow what a look that began at this time has done.
async fn note(desk: &Desk, place: &str, began: Timestamp, done: Vec<Pruned>) -> Result<()> {
    for pruned in done {
        match pruned {
            Pruned::Expired(backup) | Pruned::Beyond(backup) => {
                desk.ui
                    .note(&format!("backup {backup} of location {place} is removed"));
                if let Some(object) = object(desk, backup.as_str(), place)
                    && is_older(&object, began)
                {
                    desk.backups.delete(&object).await?;
                }
            }
            Pruned::Stale(backup) | Pruned::StaleClaim(backup) => desk.ui.note(&format!(
                "what a dead run left of backup {backup} is removed from location {place}"
            )),
            Pruned::Snapshots(outcome) => tell(desk, &outcome),
            Pruned::InStorage(backup, many) => {
                let many = counted(many as u64, "snapshot");
                desk.ui.note(&format!("{many} of backup {backup}: deleted"));
            }
            Pruned::Kept(backup, why)
            | Pruned::Failed(backup, why)
            | Pruned::Unknown(backup, why) => {
                let why = bounded(&why);
                if let Some(object) = object(desk, backup.as_str(), place)
                    && annotation(&object, KEPT) != Some(&why)
                {
                    desk.ui.warn(&format!("backup {backup} stays: {why}"));
                    let patch = json!({"metadata": {"annotations": {KEPT: why}}});
                    desk.backups.patch(&object, patch).await?;
                }
            }
        }
    }
    Ok(())
}

/// Whether a backup began before a look did: one of its name that was made since is another one.
fn is_older(object: &Value, look: Timestamp) -> bool {
    time(object, "/status/startTimestamp").is_none_or(|began| began <= look)
}

/// The object that stands for a backup of a location.
fn object(desk: &Desk, backup: &str, place: &str) -> Option<Arc<Value>> {
    let object = desk.backups.get(backup)?;
    let is_it = object["spec"]["storageLocation"] == place
        && matches!(phase(&object), "Completed" | "PartiallyFailed" | "Failed");
    is_it.then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(name: &str, phase: &str, schedule: &str, expiration: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "labels": {SCHEDULE: schedule}},
            "status": {"phase": phase, "expiration": expiration},
        }))
    }

    #[test]
    fn a_bucket_is_looked_through_where_the_objects_say_that_something_goes() {
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let later = "2026-11-22T00:00:00Z";
        let keep = BTreeMap::from([("s".to_owned(), 1)]);
        let worth = |objects: &[Arc<Value>], now| is_worth_it(objects, &keep, now);
        let one = backup("a", "Completed", "s", later);
        let other = backup("b", "Completed", "t", later);
        assert!(!worth(&[], now));
        assert!(!worth(
            &[Arc::clone(&one), Arc::clone(&other), Arc::clone(&other)],
            now
        ));
        assert!(worth(
            &[Arc::clone(&one), backup("c", "PartiallyFailed", "s", later)],
            now
        ));
        assert!(worth(
            &[backup("a", "Completed", "s", "2026-11-21T01:59:59Z")],
            now
        ));
        assert!(!worth(
            &[backup("a", "InProgress", "s", "2026-11-21T01:59:59Z")],
            now
        ));
    }

    #[test]
    fn a_bucket_is_looked_through_once_by_each_process_and_once_a_day() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let now = at("2026-11-21T02:00:00Z");
        let hour = SignedDuration::from_hours(1);
        let fresh = Collected::default();
        assert!(fresh.is_due(hour, now) && fresh.is_overdue(now));
        let done = Collected {
            asked: Some(now),
            looked: Some(now),
        };
        assert!(!done.is_due(hour, at("2026-11-21T02:59:59Z")));
        assert!(done.is_due(hour, at("2026-11-21T03:00:00Z")));
        assert!(!done.is_overdue(at("2026-11-22T01:59:59Z")));
        assert!(done.is_overdue(at("2026-11-22T02:00:00Z")));
        // The clock was set back.
        assert!(done.is_due(hour, at("2026-11-20T02:00:00Z")));
        assert!(done.is_overdue(at("2026-11-20T02:00:00Z")));
    }

    #[test]
    fn what_a_long_look_removed_takes_no_object_that_stands_for_something_else_by_then() {
        let location = |uid: &str, bucket: &str, sync: &str| {
            json!({"metadata": {"uid": uid}, "spec": {
                "provider": "aws", "objectStorage": {"bucket": bucket}, "backupSyncPeriod": sync,
            }})
        };
        let before = location("u", "b", "1m");
        assert!(is_same_place(&before, Some(&location("u", "b", "2m"))));
        assert!(!is_same_place(&before, Some(&location("u", "c", "1m"))));
        assert!(!is_same_place(&before, Some(&location("v", "b", "1m"))));
        assert!(!is_same_place(&before, None));
        // One that became read-only or leads elsewhere is not looked through any further.
        assert!(may_go_on(&before, Some(&before)));
        assert!(!may_go_on(&before, Some(&location("u", "c", "1m"))));
        let mut read_only = before.clone();
        read_only["spec"]["accessMode"] = "ReadOnly".into();
        assert!(!may_go_on(&before, Some(&read_only)));
        let look: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let began = |at: &str| json!({"status": {"startTimestamp": at}});
        assert!(is_older(&began("2026-11-21T01:59:59Z"), look));
        assert!(!is_older(&began("2026-11-21T02:00:01Z"), look));
        assert!(is_older(&json!({}), look));
    }
}
