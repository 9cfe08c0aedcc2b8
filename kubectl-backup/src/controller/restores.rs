//! Restores: a backup, or a part of it, is brought back into the controller's cluster. One whose controller died goes on where its journal stopped.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::Kind;
use backup_core::api::Restore;
use backup_core::catalog::CLUSTER_UID;
use backup_core::error::{Error, Result};
use backup_core::filter::{Filter, Selector};
use backup_core::name::Name;
use backup_core::restore::rewriting::{self, Rewriting, StatusKinds};
use backup_core::restore::{self, ExistingPolicy, RestoreOptions};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups::RUN;
use super::desk::{Desk, Work};
use super::locations::{self, Place};
use super::objects::{Written, annotation, bounded, decode, label, name, phase, time, uid};
use super::schedules::SCHEDULE;
use super::telling::{Count, Telling, end};

/// The annotation that counts how often a restore was begun.
const ATTEMPTS: &str = "kubectl-backup/attempts";

/// One that takes its controller along is not tried for ever.
const MOST_ATTEMPTS: u64 = 3;

/// Requests at a time.
const CONCURRENCY: usize = 32;

/// What is to be done with a restore now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It can not be done.
    Refuse(Vec<String>),
    /// It begins, or goes on, with this backup.
    Restore(String),
    /// It was begun too often.
    GiveUp,
}

/// One look at all restores: one at a time.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let all = desk.restores.all();
    let there: BTreeSet<&str> = all.iter().map(|object| uid(object)).collect();
    for uid in desk.all_with(Work::Restore) {
        if !there.contains(uid.as_str()) {
            desk.stop(&uid);
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
    let mut is_idle = desk.count(Work::Restore) == 0;
    for object in waiting {
        let Some(step) = plan(object, &backups, &places, &is_ours, desk.now()) else {
            continue;
        };
        match step {
            Step::Refuse(why) => desk.begin(object, Work::Small, |desk, object, _| {
                refuse(desk, object, why)
            }),
            Step::GiveUp => desk.begin(object, Work::Small, give_up),
            Step::Restore(backup) if is_idle => {
                is_idle = false;
                desk.begin(object, Work::Restore, |desk, object, stopped| {
                    begin(desk, object, backup, stopped)
                });
            }
            Step::Restore(_) => {}
        }
    }
}

/// What is to be done; nothing while its location was not checked.
fn plan(
    object: &Value,
    backups: &[Arc<Value>],
    places: &[Place],
    is_ours: &dyn Fn(&Value) -> bool,
    now: Timestamp,
) -> Option<Step> {
    if phase(object) == "InProgress" && attempts(object) >= MOST_ATTEMPTS {
        return Some(Step::GiveUp);
    }
    let restore: Restore = match decode(object) {
        Ok(restore) => restore,
        Err(why) => return Some(Step::Refuse(vec![bounded(&why)])),
    };
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
    let options = options(&restore, "backup", Rewriting::default(), now);
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
    // One that goes on waits for its location.
    if phase(object) == "InProgress" && is_available != Some(true) {
        return None;
    }
    if !wrong.is_empty() {
        return Some(Step::Refuse(wrong));
    }
    (is_available == Some(true))
        .then(|| backup.map(|backup| Step::Restore(name(backup).to_owned())))
        .flatten()
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

async fn give_up(desk: Arc<Desk>, object: Arc<Value>, _: watch::Receiver<bool>) -> Result<()> {
    let patch = failed(
        &desk,
        "the controller ended each time before it was done; what was restored stays",
    );
    desk.restores.decide(&object, patch).await.map(drop)
}

fn failed(desk: &Desk, why: &str) -> Value {
    json!({"status": {
        "phase": "Failed", "failureReason": bounded(why),
        "completionTimestamp": format!("{:.0}", desk.now()),
    }})
}

/// The options that an object asks for.
///
/// # Errors
/// What is asked for and not done.
fn options(
    restore: &Restore,
    backup: &str,
    rewriting: Rewriting,
    now: Timestamp,
) -> Result<RestoreOptions> {
    let spec = &restore.spec;
    let hooks = &spec.rest.get("hooks").unwrap_or(&Value::Null)["resources"];
    if hooks.as_array().is_some_and(|hooks| !hooks.is_empty()) {
        return Err(Error::invalid("spec.hooks: restore hooks are not done yet"));
    }
    let selectors = spec.label_selector.iter().chain(&spec.or_label_selectors);
    let existing = match spec.existing_resource_policy.as_deref() {
        None | Some("" | "none") => ExistingPolicy::None,
        Some("update") => ExistingPolicy::Update,
        Some(other) => {
            return Err(Error::invalid(format!(
                "spec.existingResourcePolicy {other:?} is neither none nor update"
            )));
        }
    };
    Ok(RestoreOptions {
        name: Some(Name::foreign(&restore.metadata.name)?),
        backup: Name::foreign(backup)?,
        filter: Filter {
            namespaces: spec.included_namespaces.clone(),
            not_namespaces: spec.excluded_namespaces.clone(),
            resources: spec.included_resources.clone(),
            not_resources: spec.excluded_resources.clone(),
            include_cluster_resources: spec.include_cluster_resources,
            selectors: selectors.cloned().map(Selector).collect(),
            ..Filter::default()
        },
        namespace_mappings: spec.namespace_mapping.clone(),
        existing,
        preserve_node_ports: spec.preserve_node_ports == Some(true),
        rewriting,
        of_target: Rewriting::default(),
        restore_volumes: spec.rest.get("restorePVs").and_then(Value::as_bool),
        spool_dir: std::path::PathBuf::new(),
        state_dir: std::path::PathBuf::new(),
        concurrency: CONCURRENCY,
        now,
    })
}

/// What is changed on the way, as the spec says.
async fn rewriting(desk: &Desk, restore: &Restore) -> Result<Rewriting> {
    let rest = &restore.spec.rest;
    let mut asked = Rewriting::default();
    if let Some(modifier) = rest
        .get("resourceModifier")
        .filter(|modifier| !modifier.is_null())
    {
        let name = modifier["name"].as_str().unwrap_or_default();
        let found = rewriting::modifiers_of_cluster(&desk.cluster, &desk.settings.namespace, name);
        asked = found.await?.rewriting;
    }
    if let Some(status) = rest.get("restoreStatus").filter(|status| !status.is_null()) {
        let list = |key: &str| {
            let list = status[key].as_array().into_iter().flatten();
            list.filter_map(|kind| kind.as_str().map(str::to_owned))
                .collect()
        };
        asked.status = Some(StatusKinds {
            included: list("includedResources"),
            excluded: list("excludedResources"),
        });
    }
    Ok(asked)
}

/// Restores, or goes on with it.
async fn begin(
    desk: Arc<Desk>,
    object: Arc<Value>,
    backup: String,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let wanted: Restore = decode(&object).map_err(Error::invalid)?;
    let changed = match rewriting(&desk, &wanted).await {
        Ok(changed) => changed,
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Invalid) => {
            return refuse(desk, object, vec![bounded(&e.sentence())]).await;
        }
        Err(e) => return Err(e),
    };
    // An equal time makes an equal restore, whoever goes on with it.
    let began = time(&object, "/status/startTimestamp").unwrap_or_else(|| desk.now());
    let asked = RestoreOptions {
        of_target: rewriting::of_cluster(&desk.cluster, &desk.settings.namespace)
            .await?
            .rewriting,
        spool_dir: desk.settings.spool_dir.clone(),
        state_dir: desk.settings.state_dir.clone(),
        ..options(&wanted, &backup, changed, began)?
    };
    let attempt = format!("{}.{}", desk.run, uid(&object));
    let patch = json!({
        "metadata": {"annotations": {RUN: attempt, ATTEMPTS: (attempts(&object) + 1).to_string()}},
        "spec": {"backupName": backup},
        "status": {"phase": "InProgress", "startTimestamp": format!("{began:.0}")},
    });
    if desk.restores.decide(&object, patch).await? == Written::Changed {
        return Ok(());
    }
    desk.ui.note(&format!(
        "restore {} begins, of backup {backup}",
        name(&object)
    ));
    let count = Arc::new(Count::default());
    let telling = Telling::begin(
        &desk,
        |desk| &desk.restores,
        &object,
        &count,
        "itemsRestored",
    );
    let done = carry_out(&desk, &asked, stopped, &count).await;
    telling.end().await;
    let patch = match done {
        Ok(restored) => {
            desk.ui.note(&format!(
                "restore {}: {}",
                name(&object),
                restored.status.phase
            ));
            json!({"status": restored.status})
        }
        // The next controller goes on with it.
        Err(e) if e.kind() == Kind::Interrupted => return Ok(()),
        Err(e) => {
            desk.ui
                .warn(&format!("restore {}: {}", name(&object), e.sentence()));
            failed(&desk, &e.sentence())
        }
    };
    end(&desk, |desk| &desk.restores, &object, &attempt, &patch).await
}

async fn carry_out(
    desk: &Desk,
    asked: &RestoreOptions,
    stopped: watch::Receiver<bool>,
    count: &Count,
) -> Result<Restore> {
    let place = desk.backups.get(asked.backup.as_str());
    let place =
        place.ok_or_else(|| Error::not_found(format!("backup {} is gone", asked.backup)))?;
    let place = place["spec"]["storageLocation"]
        .as_str()
        .unwrap_or_default();
    let location = locations::open_named(desk, place).await?;
    let (title, _) = restore::decide_name(&desk.cluster, &location.store, asked).await?;
    let mut consent = |lacks: &[restore::Lack]| {
        for lack in lacks.iter().take(20) {
            desk.ui
                .warn(&format!("restore {title}: the target lacks {lack}"));
        }
        Ok(stopped.clone())
    };
    let report = restore::restore(&desk.cluster, &location, &title, asked, &mut consent, count);
    Ok(report.await?.restore)
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
                json!({"backupName": "s-1", "hooks": {"resources": [{"name": "h"}]}}),
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
        // One that was begun waits for its location, and is not begun for ever.
        let mut begun = restore(good, "InProgress");
        assert_eq!(decided(&begun, Some(false)), None);
        assert_eq!(
            decided(&begun, Some(true)),
            Some(Step::Restore("s-1".to_owned()))
        );
        begun["metadata"]["annotations"][ATTEMPTS] = "3".into();
        assert_eq!(decided(&begun, Some(true)), Some(Step::GiveUp));
    }
}
