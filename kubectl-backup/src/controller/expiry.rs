//! What is expired goes: backups of the locations that are this cluster's, by the library's `prune`, and the objects that stand for them. The newest good
//! backup of a schedule stays. What can not go is said on its object, and tried again the next time.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::backup::KEEP;
use backup_core::catalog::{self, Keep, PruneOptions, Pruned};
use backup_core::error::Result;
use backup_core::location::Location;
use backup_core::location::guard::{self, Guard};
use backup_core::name::Name;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups::INTERRUPTED;
use super::desk::{Desk, Work};
use super::locations;
use super::objects::{annotation, bounded, label, name, phase, time, uid};
use super::schedules::SCHEDULE;

/// The annotation of a Backup that should go and stays: why.
const KEPT: &str = "kubectl-backup/kept";

/// What a dead run left can be removed after an hour; so long it is looked for.
const LEFT: SignedDuration = SignedDuration::from_hours(48);

/// One look at all locations.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let now = desk.now();
    let every = desk.settings.collection_frequency;
    let places = locations::places(desk);
    for object in desk.locations.all() {
        let is_usable = places.iter().any(|place| {
            place.name == name(&object) && place.is_available == Some(true) && !place.is_read_only
        });
        let last = desk
            .collected
            .lock()
            .expect("nobody panics while holding it")
            .get(uid(&object))
            .copied();
        let is_due = last.is_none_or(|at| at > now || now.duration_since(at) >= every);
        if is_usable && is_due && desk.is_free(&object) {
            desk.begin(&object, Work::Location, collect);
        }
    }
}

async fn collect(
    desk: Arc<Desk>,
    object: Arc<Value>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let place = name(&object).to_owned();
    let now = desk.now();
    let objects = of_location(&desk, &place);
    let keep = keeping(&desk, &place);
    if is_worth_it(&objects, &keep, now) {
        let location = locations::open_named(&desk, &place).await?;
        let identity = desk.identity().await?.map(str::to_owned);
        // Who is not known, or has not written here yet, removes nothing.
        if guard::read(&location, identity.as_deref()).await? == Guard::Ours {
            let options = PruneOptions {
                now,
                host: &desk.host,
                dry_run: false,
                keep: Keep::Of(&keep),
                schedule: None,
                cluster: identity.as_deref(),
                own_only: true,
                longer: Some(&expirations(&objects)),
                stopped: Some(&stopped),
            };
            prune(&desk, &location, &options).await?;
        }
    }
    desk.collected
        .lock()
        .expect("nobody panics while holding it")
        .insert(uid(&object).to_owned(), now);
    Ok(())
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
        // What a deletion that died left.
        "Deleting" => true,
        "Failed" if annotation(object, INTERRUPTED).is_some() => {
            let ended = time(object, "/status/completionTimestamp");
            ended.is_some_and(|at| now.duration_since(at) < LEFT)
        }
        _ => false,
    })
}

/// Until when the objects say that backups stay: that can be later than their markers say.
fn expirations(objects: &[Arc<Value>]) -> BTreeMap<Name, Timestamp> {
    let of = |object: &Arc<Value>| {
        let name = Name::foreign(name(object)).ok()?;
        Some((name, time(object, "/status/expiration")?))
    };
    objects.iter().filter_map(of).collect()
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

async fn prune(desk: &Desk, location: &Location, options: &PruneOptions<'_>) -> Result<()> {
    for pruned in catalog::prune(location, options).await? {
        match pruned {
            Pruned::Expired(backup) | Pruned::Beyond(backup) => {
                desk.ui.note(&format!(
                    "backup {backup} of location {} is removed",
                    location.name
                ));
                if let Some(object) = object(desk, backup.as_str(), &location.name) {
                    desk.backups.delete(&object).await?;
                }
            }
            Pruned::Stale(backup) | Pruned::StaleClaim(backup) => desk.ui.note(&format!(
                "what a dead run left of backup {backup} is removed from location {}",
                location.name
            )),
            Pruned::Kept(backup, why) | Pruned::Failed(backup, why) => {
                let why = bounded(&why);
                if let Some(object) = object(desk, backup.as_str(), &location.name)
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
            "metadata": {"name": name, "labels": {SCHEDULE: schedule}, "annotations": {INTERRUPTED: "true"}},
            "status": {"phase": phase, "expiration": expiration, "completionTimestamp": "2026-11-21T00:00:00Z"},
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
        let left = [backup("a", "Failed", "s", later)];
        assert!(worth(&left, now));
        assert!(!worth(&left, "2026-11-23T00:00:01Z".parse().unwrap()));
        let until = expirations(&[one]);
        assert_eq!(until[&"a".parse::<Name>().unwrap()].to_string(), later);
    }
}
