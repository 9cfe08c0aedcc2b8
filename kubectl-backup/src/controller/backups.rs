//! Backups: what is asked for is validated, waits for its place, is made, and its end is written as the marker in the bucket has it.

mod making;

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::api::Backup;
use backup_core::backup::BackupOptions;
use backup_core::error::Result;
use backup_core::filter::Filter;
use backup_core::name::Name;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::desk::{Desk, Work};
use super::locations::{self, Place};
use super::objects::{annotation, decode, name, phase, time, uid};

/// The label with the location, Velero's.
pub(crate) const LOCATION: &str = "velero.io/storage-location";

/// The annotation with the process that makes the backup.
pub(crate) const RUN: &str = "kubectl-backup/run";

/// What is to be done with a backup now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It can not be made.
    Refuse(Vec<String>),
    /// It waits, at this place of the queue.
    Queue(usize),
    /// It is made, in this location.
    Make(String),
    /// Who made it is gone: find out how it ended.
    Recover,
}

/// One look at all backups.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let all = desk.backups.all();
    let there: BTreeSet<&str> = all.iter().map(|object| uid(object)).collect();
    for uid in desk.all_with(Work::Backup) {
        if !there.contains(uid.as_str()) {
            desk.stop(&uid);
        }
    }
    let places = locations::places(desk);
    let free = desk
        .settings
        .concurrent_backups
        .saturating_sub(desk.count(Work::Backup));
    let is_free = |object: &Value| desk.is_free(object);
    for (object, step) in plan(&all, &places, free, &is_free) {
        match step {
            Step::Make(location) => desk.begin(&object, Work::Backup, |desk, object, stopped| {
                making::make(desk, object, location, stopped)
            }),
            Step::Refuse(why) => {
                desk.begin(&object, Work::Small, |desk, object, _| {
                    refuse(desk, object, why)
                });
            }
            Step::Queue(place) => {
                desk.begin(&object, Work::Small, |desk, object, _| {
                    queue(desk, object, place)
                });
            }
            Step::Recover => desk.begin(&object, Work::Small, making::recover),
        }
    }
}

/// Whether nothing was begun yet.
pub(crate) fn is_new(object: &Value) -> bool {
    matches!(phase(object), "" | "New" | "Queued" | "ReadyToStart")
}

/// What is to be done with each, where something is: those that are asked for are taken in the order of their creation.
fn plan(
    all: &[Arc<Value>],
    places: &[Place],
    mut free: usize,
    is_free: &dyn Fn(&Value) -> bool,
) -> Vec<(Arc<Value>, Step)> {
    let mut steps = Vec::new();
    let mut waiting: Vec<&Arc<Value>> = Vec::new();
    for object in all {
        if is_new(object) {
            waiting.push(object);
        } else if phase(object) == "InProgress" && is_free(object) {
            steps.push((Arc::clone(object), Step::Recover));
        }
    }
    waiting.sort_by_key(|object| (time(object, "/metadata/creationTimestamp"), name(object)));
    let mut queued = 0;
    for object in waiting {
        if !is_free(object) {
            continue;
        }
        let step = match validate(object, places) {
            Verdict::Refused(why) => Step::Refuse(why),
            Verdict::Wait => continue,
            Verdict::Good(location) if free > 0 => {
                free -= 1;
                Step::Make(location)
            }
            Verdict::Good(_) => {
                queued += 1;
                if object["status"]["queuePosition"] == queued {
                    continue;
                }
                Step::Queue(queued)
            }
        };
        steps.push((Arc::clone(object), step));
    }
    steps
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Good(String),
    /// Its location was not checked yet.
    Wait,
    Refused(Vec<String>),
}

/// Whether what is asked for can be done, as far as the objects say; all that is wrong with it, in Velero's words where it has them.
fn validate(object: &Value, places: &[Place]) -> Verdict {
    let backup: Backup = match decode(object) {
        Ok(backup) => backup,
        Err(why) => return Verdict::Refused(vec![why]),
    };
    let mut wrong = Vec::new();
    let said = |e: backup_core::Error| e.sentence();
    wrong.extend(backup.metadata.name.parse::<Name>().err().map(said));
    wrong.extend(Filter::of(&backup.spec).validate().err().map(said));
    wrong.extend(backup.spec.policies().err().map(said));
    let asked = backup.spec.storage_location.as_deref();
    let place = match asked.filter(|name| !name.is_empty()) {
        Some(asked) => {
            let place = places.iter().find(|place| place.name == asked);
            if place.is_none() {
                wrong.push(format!(
                    "an existing backup storage location was not specified at backup creation time: the location {asked:?} is not there"
                ));
            }
            place
        }
        None => {
            let place = locations::default(places);
            if place.is_none() {
                wrong.push("an existing backup storage location was not specified at backup creation time and there is no default: name one in spec.storageLocation".to_owned());
            }
            place
        }
    };
    if let Some(place) = place {
        if place.is_read_only {
            wrong.push(format!(
                "backup can't be created because backup storage location {} is currently in read-only mode",
                place.name
            ));
        }
        if place.is_available == Some(false) {
            wrong.push(format!(
                "backup can't be created because BackupStorageLocation {} is in Unavailable status",
                place.name
            ));
        }
    }
    match place {
        _ if !wrong.is_empty() => Verdict::Refused(wrong),
        Some(place) if place.is_available == Some(true) => Verdict::Good(place.name.clone()),
        _ => Verdict::Wait,
    }
}

async fn refuse(desk: Arc<Desk>, object: Arc<Value>, why: Vec<String>) -> Result<()> {
    desk.ui.warn(&format!(
        "backup {} is refused: {}",
        name(&object),
        why.join("; ")
    ));
    let patch = json!({"status": {"phase": "FailedValidation", "validationErrors": why, "queuePosition": null}});
    desk.backups.decide(&object, patch).await.map(drop)
}

async fn queue(desk: Arc<Desk>, object: Arc<Value>, place: usize) -> Result<()> {
    let patch = json!({"status": {"phase": "Queued", "queuePosition": place}});
    match desk.backups.decide(&object, patch).await {
        // An older definition knows no such phase: then it waits without saying so.
        Err(e) if e.kind() == backup_core::Kind::Invalid => {
            let patch = json!({"status": {"queuePosition": place}});
            desk.backups.decide(&object, patch).await.map(drop)
        }
        written => written.map(drop),
    }
}

/// The options of a backup that an object asks for.
fn options(desk: &Desk, backup: &Backup, name: Name) -> BackupOptions {
    let now = desk.now();
    let meta = &backup.metadata;
    let mut annotations = meta.annotations.clone();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations.insert(RUN.to_owned(), desk.run.clone());
    let mut options = BackupOptions {
        name,
        filter: Filter::default(),
        single_namespace: false,
        expires: backup.spec.expires(now),
        labels: meta.labels.clone(),
        annotations,
        snapshot_volumes: None,
        policies: None,
        template: backup_core::api::BackupSpec::default(),
        exact: true,
        host: desk.host.clone(),
        now,
    };
    options.ask(&backup.spec);
    options
}

/// The id of the process that makes, or made, a backup.
fn run_of(object: &Value) -> Option<&str> {
    annotation(object, RUN)
}

/// Never used where it is not needed: what stops a backup.
type Stopped = watch::Receiver<bool>;

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(name: &str, created: i64, phase: &str, spec: Value) -> Arc<Value> {
        let created = jiff::Timestamp::from_second(created).unwrap();
        Arc::new(json!({
            "apiVersion": "velero.io/v1", "kind": "Backup",
            "metadata": {"name": name, "uid": name, "creationTimestamp": created.to_string()},
            "spec": spec, "status": {"phase": phase},
        }))
    }

    fn place(
        name: &str,
        is_default: bool,
        is_read_only: bool,
        is_available: Option<bool>,
    ) -> Place {
        Place {
            name: name.to_owned(),
            is_default,
            is_read_only,
            is_available,
        }
    }

    fn told(steps: &[(Arc<Value>, Step)]) -> Vec<(&str, Step)> {
        steps
            .iter()
            .map(|(object, step)| (name(object), step.clone()))
            .collect()
    }

    #[test]
    fn backups_are_made_in_the_order_of_their_creation_and_the_others_are_queued() {
        let places = [place("main", true, false, Some(true))];
        let all = [
            backup("a", 30, "", json!({})),
            backup("b", 20, "Queued", json!({})),
            backup("c", 10, "New", json!({})),
            backup("d", 1, "Completed", json!({})),
            backup("e", 1, "InProgress", json!({})),
            backup("f", 5, "InProgress", json!({})),
        ];
        let is_free = |object: &Value| name(object) != "e";
        let make = || Step::Make("main".to_owned());
        let steps = plan(&all, &places, 1, &is_free);
        assert_eq!(
            told(&steps),
            [
                ("f", Step::Recover),
                ("c", make()),
                ("b", Step::Queue(1)),
                ("a", Step::Queue(2))
            ]
        );
        let steps = plan(&all, &places, 9, &is_free);
        assert_eq!(
            told(&steps)[1..],
            [("c", make()), ("b", make()), ("a", make())]
        );
        // A place in the queue that did not change is not written again.
        let mut queued = (*all[1]).clone();
        queued["status"]["queuePosition"] = 1.into();
        assert_eq!(plan(&[Arc::new(queued)], &places, 0, &is_free), []);
    }

    #[test]
    fn what_can_not_be_done_is_refused_with_every_reason() {
        let places = [
            place("main", true, false, Some(true)),
            place("ro", false, true, Some(true)),
            place("gone", false, false, Some(false)),
            place("unseen", false, false, None),
        ];
        let verdict = |spec: Value| validate(&backup("b", 1, "", spec), &places);
        let at = |name: &str| json!({"storageLocation": name});
        assert_eq!(verdict(json!({})), Verdict::Good("main".to_owned()));
        assert_eq!(verdict(at("main")), Verdict::Good("main".to_owned()));
        assert_eq!(verdict(at("unseen")), Verdict::Wait);
        for (spec, part) in [
            (at("absent"), "\"absent\""),
            (at("ro"), "read-only mode"),
            (at("gone"), "Unavailable status"),
            (json!({"ttl": "soon"}), "can not be understood"),
            (
                json!({"resourcePolicy": {"kind": "Secret", "name": "x"}}),
                "only a ConfigMap",
            ),
            (json!({"includedNamespaces": ["Not/one"]}), "Not/one"),
        ] {
            let Verdict::Refused(why) = verdict(spec) else {
                panic!("{part}");
            };
            assert!(why.join("").contains(part), "{part}: {why:?}");
        }
        let both = verdict(json!({
            "includedResources": ["pods"], "includedClusterScopedResources": ["nodes"], "storageLocation": "absent",
        }));
        assert!(matches!(both, Verdict::Refused(why) if why.len() == 2));
        let no_default = validate(&backup("b", 1, "", json!({})), &places[1..]);
        assert!(matches!(no_default, Verdict::Refused(why) if why[0].contains("no default")));
        let named = validate(
            &backup("b", 1, "", json!({})),
            &[place("default", false, false, Some(true))],
        );
        assert_eq!(named, Verdict::Good("default".to_owned()));
        let odd = validate(&backup(&"x".repeat(70), 1, "", json!({})), &places);
        assert!(matches!(odd, Verdict::Refused(_)));
    }
}
