//! Copies: a backup that this controller made in a location with the annotation `kubectl-backup/replicate-to` is copied to each location of the namespace that
//! it names. Which ones have theirs is an annotation of the Backup; what is not noted there is tried again, and a copy that stands is found to stand. A copy
//! that fails changes nothing of the backup.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_cli::locations::replicate_to;
use backup_core::api::BackupStorageLocation;
use backup_core::copy::{self, CopyOptions};
use backup_core::error::{Error, Kind, Result};
use backup_core::name::Name;
use backup_core::progress::Silent;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups::{COPIED, COPY_FAILED, RUN};
use super::desk::{Desk, Work};
use super::objects::{annotation, bounded, decode, name, phase, time};
use super::{history, locations};

/// Backups that are copied at a time.
const AT_A_TIME: usize = 2;

/// One look at all backups.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let places = desk.locations.all();
    let targets: BTreeMap<&str, Vec<String>> = places
        .iter()
        .filter_map(|object| {
            let location: BackupStorageLocation = decode(object).ok()?;
            // One that can not be meant is told by the location's check.
            let targets = replicate_to(&location).ok()?;
            (!targets.is_empty()).then(|| (name(object), targets))
        })
        .collect();
    if targets.is_empty() {
        return;
    }
    let free = AT_A_TIME.saturating_sub(desk.count(Work::Copy));
    let is_free = |object: &Value| desk.is_free_for(object, Work::Copy);
    for (object, missing) in plan(&desk.backups.all(), &targets, free, &is_free, desk.now()) {
        desk.begin(&object, Work::Copy, |desk, object, stopped| {
            make(desk, object, missing, stopped)
        });
    }
}

/// Backups that lack a copy, and where: the oldest first.
fn plan(
    all: &[Arc<Value>],
    targets: &BTreeMap<&str, Vec<String>>,
    free: usize,
    is_free: &dyn Fn(&Value) -> bool,
    now: Timestamp,
) -> Vec<(Arc<Value>, Vec<String>)> {
    let mut found: Vec<_> = all
        .iter()
        .filter(|object| matches!(phase(object), "Completed" | "PartiallyFailed"))
        // Whoever may write to the bucket does not say what is copied.
        .filter(|object| annotation(object, RUN).is_some())
        .filter(|object| time(object, "/status/expiration").is_none_or(|end| end > now))
        .filter_map(|object| {
            let wanted = targets.get(object["spec"]["storageLocation"].as_str()?)?;
            let missing = lacking(object, wanted);
            (!missing.is_empty() && is_free(object)).then(|| (Arc::clone(object), missing))
        })
        .collect();
    found.sort_by_key(|(object, _)| time(object, "/status/completionTimestamp"));
    found.truncate(free);
    found
}

/// Of these locations those that have no copy of the backup.
fn lacking(object: &Value, wanted: &[String]) -> Vec<String> {
    let has = annotation(object, COPIED).unwrap_or_default();
    let lacks = |name: &&String| !has.split(',').any(|one| one == name.as_str());
    wanted.iter().filter(lacks).cloned().collect()
}

/// Makes the copies, one after the other.
async fn make(
    desk: Arc<Desk>,
    object: Arc<Value>,
    missing: Vec<String>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let (mut failed, mut has) = (None, annotation(&object, COPIED).map(str::to_owned));
    for target in missing {
        match one(&desk, &object, &target, stopped.clone()).await {
            Ok(()) => {
                let all = match has {
                    Some(has) if !has.is_empty() => format!("{has},{target}"),
                    _ => target.clone(),
                };
                let patch = json!({"metadata": {"annotations": {COPIED: all, COPY_FAILED: null}}});
                desk.backups.patch(&object, patch).await?;
                desk.ui
                    .note(&format!("backup {}: copied to {target}", name(&object)));
                has = Some(all);
            }
            // It is not over.
            Err(e) if e.kind() == Kind::Interrupted => return Ok(()),
            Err(e) => failed = Some(e.context(format!("it has no copy in location {target} yet"))),
        }
    }
    let Some(e) = failed else {
        return Ok(());
    };
    let why = bounded(&e.sentence());
    // Told once, however often it is tried.
    let before = desk.backups.read(&object).await?;
    let before = before.as_ref().and_then(|now| annotation(now, COPY_FAILED));
    if before != Some(why.as_str()) {
        let patch = json!({"metadata": {"annotations": {COPY_FAILED: &why}}});
        desk.backups.patch(&object, patch).await?;
        history::tell(&desk, &object, "CopyFailed", &why).await;
    }
    Err(e)
}

async fn one(
    desk: &Desk,
    object: &Value,
    target: &str,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let place = object["spec"]["storageLocation"].as_str();
    let source = locations::open_named(desk, place.unwrap_or_default()).await?;
    let target = locations::open_named(desk, target).await?;
    if source.name == target.name {
        return Err(Error::invalid(
            "a copy in the location itself would be no second one",
        ));
    }
    let options = CopyOptions {
        name: Name::foreign(name(object))?,
        without_volumes: false,
        cluster: desk.identity().await?.map(str::to_owned),
        host: desk.host.clone(),
    };
    let done = copy::copy(&source, &target, &options, stopped, &Silent).await?;
    for warning in done.warnings {
        desk.ui.warn(&format!("backup {}: {warning}", name(object)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(name: &str, phase: &str, annotations: Value) -> Arc<Value> {
        Arc::new(json!({
            "kind": "Backup",
            "metadata": {"name": name, "uid": name, "annotations": annotations},
            "spec": {"storageLocation": "main"},
            "status": {"phase": phase, "expiration": "1970-01-01T01:00:00Z", "completionTimestamp": format!("1970-01-01T00:00:{name}Z")},
        }))
    }

    #[test]
    fn what_this_controller_made_and_what_lacks_a_copy_is_copied_the_oldest_first() {
        let all = [
            backup("05", "Completed", json!({RUN: "r", COPIED: "a"})),
            backup("04", "PartiallyFailed", json!({RUN: "r"})),
            backup("03", "Completed", json!({RUN: "r", COPIED: "b,a"})),
            backup("02", "Failed", json!({RUN: "r"})),
            // Found in the bucket.
            backup("01", "Completed", json!({})),
        ];
        let wanted = vec!["a".to_owned(), "b".to_owned()];
        let targets = BTreeMap::from([("main", wanted.clone())]);
        let none = BTreeMap::new();
        let planned = |targets, free, second| {
            let now = Timestamp::from_second(second).unwrap();
            let found = plan(&all, targets, free, &|_| true, now);
            let of =
                |(object, missing): (Arc<Value>, Vec<String>)| (name(&object).to_owned(), missing);
            found.into_iter().map(of).collect::<Vec<_>>()
        };
        let both = [
            ("04".to_owned(), wanted),
            ("05".to_owned(), vec!["b".to_owned()]),
        ];
        assert_eq!(planned(&targets, 9, 0), both);
        assert_eq!(planned(&targets, 1, 0), both[..1]);
        assert_eq!(planned(&targets, 0, 0), []);
        assert_eq!(planned(&none, 9, 0), []);
        // Expired.
        assert_eq!(planned(&targets, 9, 3600), []);
    }
}
