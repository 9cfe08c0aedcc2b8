//! What is expired goes: backups of the locations that are this cluster's, by the library's `prune`, and the objects that stand for them. The newest good
//! backup of a schedule stays. What can not go is said on its object, and tried again the next time.

use std::sync::Arc;

use backup_core::catalog::{self, PruneOptions, Pruned};
use backup_core::error::Result;
use backup_core::location::Location;
use backup_core::location::guard::{self, Guard};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::desk::{Desk, Work};
use super::locations;
use super::objects::{annotation, bounded, name, phase, uid};

/// The annotation of a Schedule with the number of good backups that stay.
const KEEP: &str = "kubectl-backup/keep";

/// The annotation of a Backup that should go and stays: why.
const KEPT: &str = "kubectl-backup/kept";

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

async fn collect(desk: Arc<Desk>, object: Arc<Value>, _: watch::Receiver<bool>) -> Result<()> {
    let place = name(&object).to_owned();
    let now = desk.now();
    let location = locations::open_named(&desk, &place).await?;
    let identity = desk.identity().await?.map(str::to_owned);
    // Who is not known, or has not written here yet, removes nothing.
    if guard::read(&location, identity.as_deref()).await? == Guard::Ours {
        prune(&desk, &location, None, identity.as_deref()).await?;
        for (schedule, keep) in keeping(&desk, &place) {
            prune(
                &desk,
                &location,
                Some((&schedule, keep)),
                identity.as_deref(),
            )
            .await?;
        }
    }
    desk.collected
        .lock()
        .expect("nobody panics while holding it")
        .insert(uid(&object).to_owned(), now);
    Ok(())
}

/// Schedules of a location that keep so many.
fn keeping(desk: &Desk, place: &str) -> Vec<(String, usize)> {
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

async fn prune(
    desk: &Desk,
    location: &Location,
    keep: Option<(&str, usize)>,
    cluster: Option<&str>,
) -> Result<()> {
    let options = PruneOptions {
        now: desk.now(),
        host: &desk.host,
        dry_run: false,
        keep: keep.map(|(_, keep)| keep),
        schedule: keep.map(|(schedule, _)| schedule),
        cluster,
    };
    for pruned in catalog::prune(location, &options).await? {
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
