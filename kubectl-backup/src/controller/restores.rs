//! Restores: a backup, or a part of it, is brought back into the controller's cluster. One whose controller died goes on where its journal stopped.

mod bringing;

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::api::Restore;
use backup_core::catalog::CLUSTER_UID;
use backup_core::error::{Error, Result};
use backup_core::restore::rewriting::Rewriting;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups::RUN;
use super::desk::{Desk, Work};
use super::locations::{self, Place};
use super::objects::{annotation, bounded, decode, label, name, phase, time, uid};
use super::schedules::SCHEDULE;
use super::sealed;

/// The annotation that counts how often a restore was begun.
const ATTEMPTS: &str = "kubectl-backup/attempts";

/// One that takes its controller along is not tried for ever.
const MOST_ATTEMPTS: u64 = 3;

/// The annotation of a restore that has begun and can not go on: since when.
const WAITS: &str = "kubectl-backup/waits-since";

/// So long it waits for what it needs.
const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// What is to be done with a restore now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It can not be done.
    Refuse(Vec<String>),
    /// It begins, or goes on, with this backup.
    Restore(String),
    /// It has begun, and can not go on for now.
    Wait(String),
    /// It has begun, and what it waited for is there again, or not known yet.
    Unwait,
    /// It has begun, and does not go on any more.
    GiveUp(String),
}

/// One look at all restores: one at a time.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let all = desk.restores.all();
    let there: BTreeSet<&str> = all.iter().map(|object| uid(object)).collect();
    for uid in desk.all_with(Work::Restore) {
        if !there.contains(uid.as_str()) {
            desk.stop(&uid, Work::Restore);
        }
    }
    let is_ours = |backup: &Value| {
        let made_by = annotation(backup, CLUSTER_UID);
        made_by.is_some() && made_by == desk.known_identity()
    };
    let mut waiting: Vec<&Arc<Value>> = all
        .iter()
        .filter(|object| matches!(phase(object), "" | "New" | "InProgress"))
        .filter(|object| phase(object) != "InProgress" || annotation(object, RUN).is_some())
        .filter(|object| desk.is_free(object))
        .collect();
    if waiting.is_empty() {
        return;
    }
    waiting.sort_by_key(|object| (time(object, "/metadata/creationTimestamp"), name(object)));
    let backups = desk.backups.all();
    let places = locations::places(desk);
    let restores = desk.settings.restores;
    let mut is_idle = desk.count(Work::Restore) == 0;
    for object in waiting {
        let Some(step) = plan(object, &backups, &places, &is_ours, restores, desk.now()) else {
            continue;
        };
        match step {
            Step::Refuse(why) => desk.begin(object, Work::Small, |desk, object, _| {
                refuse(desk, object, why)
            }),
            Step::Wait(why) => desk.begin(object, Work::Small, |desk, object, _| {
                wait(desk, object, why)
            }),
            Step::GiveUp(why) => desk.begin(object, Work::Small, |desk, object, _| {
                give_up(desk, object, why)
            }),
            Step::Restore(backup) if is_idle => {
                is_idle = false;
                desk.begin(object, Work::Restore, |desk, object, stopped| {
                    bringing::begin(desk, object, backup, stopped)
                });
            }
            // While another one is at work, its own hour does not go on.
            Step::Restore(_) if annotation(object, WAITS).is_none() => {}
            Step::Restore(_) | Step::Unwait => desk.begin(object, Work::Small, unwait),
        }
    }
}

/// What is to be done; nothing while its location was not checked.
fn plan(
    object: &Value,
    backups: &[Arc<Value>],
    places: &[Place],
    is_ours: &dyn Fn(&Value) -> bool,
    restores: bool,
    now: Timestamp,
) -> Option<Step> {
    let has_begun = phase(object) == "InProgress";
    if has_begun && attempts(object) >= MOST_ATTEMPTS {
        let why = "the controller ended each time before it was done; what was restored stays";
        return Some(Step::GiveUp(why.to_owned()));
    }
    match judge(object, backups, places, is_ours, restores, now) {
        Ok(None) if has_begun && annotation(object, WAITS).is_some() => Some(Step::Unwait),
        Ok(backup) => backup.map(Step::Restore),
        // Half of it may be there: it is not refused any more.
        Err(wrong) if has_begun => hindered(object, wrong.join("; "), now),
        Err(wrong) => Some(Step::Refuse(wrong)),
    }
}

/// What becomes of a restore that has begun and can not go on.
fn hindered(object: &Value, why: String, now: Timestamp) -> Option<Step> {
    let since: Option<Timestamp> = annotation(object, WAITS).and_then(|text| text.parse().ok());
    match since.filter(|since| *since <= now) {
        None => Some(Step::Wait(why)),
        Some(since) if now.duration_since(since) > PATIENCE => Some(Step::GiveUp(format!(
            "it could not go on for {} minutes: {why}; what was restored stays",
            PATIENCE.as_mins()
        ))),
        Some(_) => None,
    }
}

/// The backup that is restored, or all that is wrong with what is asked for; neither while its location was not checked.
fn judge(
    object: &Value,
    backups: &[Arc<Value>],
    places: &[Place],
    is_ours: &dyn Fn(&Value) -> bool,
    restores: bool,
    now: Timestamp,
) -> Result<Option<String>, Vec<String>> {
    if !restores {
        return Err(vec!["this controller does not restore: it was installed with --no-restores; `kubectl backup restore` does, with the rights of who calls it".to_owned()]);
    }
    let restore: Restore = decode(object).map_err(|why| vec![bounded(&why)])?;
    let mut wrong = Vec::new();
    let said = |e: Error| bounded(&e.sentence());
    let spec = &restore.spec;
    let schedule = spec
        .rest
        .get("scheduleName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let backup = match (spec.backup_name.as_str(), schedule) {
        ("", "") => {
            wrong.push("either a backup or schedule must be specified as a source for the restore, but not both".to_owned());
            None
        }
        ("", schedule) => {
            let newest = newest_of(schedule, backups, is_ours, now);
            if newest.is_none() {
                wrong.push(format!(
                    "no completed backups of this cluster found for schedule {schedule}"
                ));
            }
            newest
        }
        (backup, _) => {
            let found = backups.iter().find(|object| name(object) == backup);
            if found.is_none() {
                wrong.push(format!(
                    "error retrieving backup: backup {backup:?} not found"
                ));
            }
            found
        }
    };
    if let Some(backup) = backup
        && !matches!(phase(backup), "Completed" | "PartiallyFailed")
    {
        wrong.push(format!(
            "backup {:?} is {}: there is nothing to restore",
            name(backup),
            if phase(backup).is_empty() {
                "New"
            } else {
                phase(backup)
            }
        ));
    }
    if let Some(backup) = backup
        && sealed::is_encrypted(backup)
    {
        wrong.push(format!(
            "backup {:?} is encrypted, and a controller has no identity to open it with: `kubectl backup restore create --from-backup {} --identity FILE` brings it back",
            name(backup),
            name(backup)
        ));
    }
    let options = bringing::options(&restore, "backup", Rewriting::default(), now);
    wrong.extend(
        options
            .and_then(|options| options.validate())
            .err()
            .map(said),
    );
    let place = backup.map(|backup| {
        backup["spec"]["storageLocation"]
            .as_str()
            .unwrap_or_default()
    });
    let known = place.and_then(|place| places.iter().find(|known| known.name == place));
    if let (Some(place), None) = (place, known) {
        wrong.push(format!("the backup's location {place:?} is not there"));
    }
    let is_available = known.and_then(|known| known.is_available);
    if is_available == Some(false) {
        wrong.push(format!(
            "the BSL {} is unavailable, cannot retrieve the backup",
            place.unwrap_or_default()
        ));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(backup
        .filter(|_| is_available == Some(true))
        .map(|backup| name(backup).to_owned()))
}

/// The newest completed backup of a schedule. Who may write to a bucket may have written one of any name and time there: only this cluster's count.
fn newest_of<'b>(
    schedule: &str,
    backups: &'b [Arc<Value>],
    is_ours: &dyn Fn(&Value) -> bool,
    now: Timestamp,
) -> Option<&'b Arc<Value>> {
    let of = backups.iter().filter(|backup| {
        label(backup, SCHEDULE) == Some(schedule) && phase(backup) == "Completed" && is_ours(backup)
    });
    let began = of.filter_map(|backup| Some((time(backup, "/status/startTimestamp")?, backup)));
    let newest = began
        .filter(|(began, _)| *began <= now)
        .max_by_key(|(began, _)| *began);
    newest.map(|(_, backup)| backup)
}

fn attempts(object: &Value) -> u64 {
    let said = annotation(object, ATTEMPTS);
    said.and_then(|text| text.parse().ok()).unwrap_or_default()
}

async fn refuse(desk: Arc<Desk>, object: Arc<Value>, why: Vec<String>) -> Result<()> {
    desk.ui.warn(&format!(
        "restore {} is refused: {}",
        name(&object),
        why.join("; ")
    ));
    let patch = json!({"status": {"phase": "FailedValidation", "validationErrors": why}});
    desk.restores.decide(&object, patch).await.map(drop)
}

async fn wait(desk: Arc<Desk>, object: Arc<Value>, why: String) -> Result<()> {
    desk.ui
        .warn(&format!("restore {} waits: {why}", name(&object)));
    let since = format!("{:.0}", desk.now());
    let patch = json!({"metadata": {"annotations": {WAITS: since}}});
    desk.restores.decide(&object, patch).await.map(drop)
}

async fn unwait(desk: Arc<Desk>, object: Arc<Value>, _: watch::Receiver<bool>) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {WAITS: null}}});
    desk.restores.decide(&object, patch).await.map(drop)
}

async fn give_up(desk: Arc<Desk>, object: Arc<Value>, why: String) -> Result<()> {
    desk.ui
        .warn(&format!("restore {} is given up: {why}", name(&object)));
    let patch = failed(&desk, &why);
    desk.restores.decide(&object, patch).await.map(drop)
}

fn failed(desk: &Desk, why: &str) -> Value {
    json!({"status": {
        "phase": "Failed", "failureReason": bounded(why),
        "completionTimestamp": format!("{:.0}", desk.now()),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-21T{text}Z").parse().unwrap()
    }

    fn backup(name: &str, began: &str, phase: &str, cluster: &str) -> Arc<Value> {
        Arc::new(
            json!({"metadata": {"name": name, "labels": {SCHEDULE: "s"}, "annotations": {CLUSTER_UID: cluster}},
            "spec": {"storageLocation": "main"}, "status": {"phase": phase, "startTimestamp": at(began).to_string()}}),
        )
    }

    fn place(is_available: Option<bool>) -> Vec<Place> {
        vec![Place {
            name: "main".to_owned(),
            is_default: true,
            is_read_only: true,
            is_available,
        }]
    }

    fn restore(spec: Value, phase: &str) -> Value {
        json!({"apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "r", "annotations": {RUN: "x", ATTEMPTS: "1"}},
            "spec": spec, "status": {"phase": phase}})
    }

    fn decided(object: &Value, is_available: Option<bool>) -> Option<Step> {
        let backups = [
            backup("s-1", "01:00:00", "Completed", "ours"),
            backup("s-2", "02:00:00", "Completed", "ours"),
            backup("s-3", "03:00:00", "PartiallyFailed", "ours"),
            backup("planted", "04:00:00", "Completed", "theirs"),
            backup("future", "23:00:00", "Completed", "ours"),
            backup("lost", "04:00:00", "Failed", "ours"),
        ];
        let is_ours = |backup: &Value| annotation(backup, CLUSTER_UID) == Some("ours");
        plan(
            object,
            &backups,
            &place(is_available),
            &is_ours,
            true,
            at("05:00:00"),
        )
    }

    #[test]
    fn of_a_schedule_the_newest_completed_backup_of_this_cluster_is_taken() {
        let of = |spec: Value| decided(&restore(spec, ""), Some(true));
        let taken = |name: &str| Some(Step::Restore(name.to_owned()));
        assert_eq!(of(json!({"scheduleName": "s"})), taken("s-2"));
        assert_eq!(of(json!({"backupName": "s-3"})), taken("s-3"));
        assert_eq!(
            of(json!({"backupName": "s-1", "hooks": {}, "existingResourcePolicy": "update"})),
            taken("s-1")
        );
    }

    #[test]
    fn what_can_not_be_restored_is_refused_with_every_reason() {
        for (spec, part) in [
            (json!({"backupName": "none"}), "\"none\""),
            (json!({"backupName": "lost"}), "nothing to restore"),
            (json!({"scheduleName": "t"}), "schedule t"),
            (json!({}), "either a backup or schedule"),
            (
                json!({"backupName": "s-1", "existingResourcePolicy": "shout"}),
                "shout",
            ),
            (
                json!({"backupName": "s-1", "includedResources": ["nodes"]}),
                "nodes",
            ),
            (
                json!({"backupName": "s-1", "hooks": {"resources": [{"name": "h", "postHooks": [{}]}]}}),
                "hooks",
            ),
            (json!({"backupName": 7}), "can not be understood"),
        ] {
            let Some(Step::Refuse(why)) = decided(&restore(spec, ""), Some(true)) else {
                panic!("{part}");
            };
            assert!(why.join("").contains(part), "{part}: {why:?}");
        }
        let good = json!({"backupName": "s-1"});
        assert_eq!(decided(&restore(good.clone(), ""), None), None);
        let away = decided(&restore(good.clone(), ""), Some(false));
        assert!(matches!(away, Some(Step::Refuse(_))));
    }

    #[test]
    fn one_that_has_begun_waits_for_what_it_needs_and_neither_for_ever_nor_refused() {
        let begun = |spec: Value, waits: Option<&str>| {
            let mut begun = restore(spec, "InProgress");
            if let Some(since) = waits {
                begun["metadata"]["annotations"][WAITS] = at(since).to_string().into();
            }
            begun
        };
        let good = || json!({"backupName": "s-1"});
        let goes_on = Some(Step::Restore("s-1".to_owned()));
        assert_eq!(decided(&begun(good(), None), Some(true)), goes_on);
        assert_eq!(
            decided(&begun(good(), Some("03:00:00")), Some(true)),
            goes_on
        );
        assert_eq!(decided(&begun(good(), None), None), None);
        let unwait = Some(Step::Unwait);
        assert_eq!(decided(&begun(good(), Some("03:00:00")), None), unwait);
        for (spec, is_available, part) in [
            (good(), false, "is unavailable"),
            // Its object is not there, for a moment or for good.
            (json!({"backupName": "none"}), true, "not found"),
            (json!({"backupName": 7}), true, "can not be understood"),
        ] {
            let step = |waits| decided(&begun(spec.clone(), waits), Some(is_available));
            for waits in [None, Some("05:00:01")] {
                let told = step(waits);
                assert!(
                    matches!(&told, Some(Step::Wait(why)) if why.contains(part)),
                    "{told:?}"
                );
            }
            assert_eq!(step(Some("04:00:00")), None);
            let told = step(Some("03:59:59"));
            assert!(
                matches!(&told, Some(Step::GiveUp(why)) if why.contains(part) && why.contains("60 minutes")),
                "{told:?}"
            );
        }
        let mut often = begun(good(), None);
        often["metadata"]["annotations"][ATTEMPTS] = "3".into();
        let told = decided(&often, Some(true));
        assert!(matches!(told, Some(Step::GiveUp(_))), "{told:?}");
    }

    #[test]
    fn where_nothing_is_restored_the_refusal_says_so() {
        let object = restore(json!({"backupName": "s-1"}), "");
        let told = plan(&object, &[], &[], &|_| true, false, at("05:00:00"));
        assert!(
            matches!(&told, Some(Step::Refuse(why)) if why[0].contains("--no-restores")),
            "{told:?}"
        );
    }
}
