//! Backups: what is asked for is validated, waits for its place, is made, and its end is written as the marker in the bucket has it.

mod making;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use backup_core::api::{Backup, EXPIRES};
use backup_core::backup::{BackupOptions, EPHEMERAL_MOVERS};
use backup_core::catalog::SCHEDULE_NAME;
use backup_core::error::Result;
use backup_core::filter::{Filter, one_selector};
use backup_core::name::Name;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::desk::{Desk, Work};
use super::known::Known;
use super::locations::{self, Place};
use super::objects::{annotation, bounded, decode, label, name, phase, time, uid};
use super::repositories;
pub(crate) use backup_core::name::label_value;
pub(crate) use making::stands;

/// The label with the location, Velero's.
pub(crate) const LOCATION: &str = "velero.io/storage-location";

/// The annotation with the attempt that makes the backup: the process, and the object's uid.
pub(crate) use backup_core::hooks::owed::RUN;

/// The annotation with the slot of its Schedule.
pub(crate) const SLOT: &str = "kubectl-backup/slot";

/// The annotation of a backup that was lost with its controller.
pub(crate) const INTERRUPTED: &str = "kubectl-backup/interrupted";

/// The annotation with the backup in whose place it is made.
pub(crate) const AGAIN_FOR: &str = "kubectl-backup/again-for";

/// The annotation of a backup that was lost: which one was made in its place. It is not made a second time, even where it was removed.
pub(crate) const MADE_AGAIN: &str = "kubectl-backup/made-again";

/// The annotation with the locations that have a copy of the backup, separated by commas.
pub(crate) const COPIED: &str = "kubectl-backup/copied-to";

/// The annotation with why a copy could not be made; absent where none failed.
pub(crate) const COPY_FAILED: &str = "kubectl-backup/copy-failed";

/// Annotations by which the controller finds its way; a bucket has no say in them.
pub(crate) const OWN: [&str; 7] = [
    RUN,
    SLOT,
    INTERRUPTED,
    AGAIN_FOR,
    MADE_AGAIN,
    COPIED,
    COPY_FAILED,
];

/// A scheduled backup waits so long for a location that is unavailable: nobody is there to ask for it again.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// A location that was created together with a backup is known by then, too.
const SETTLED: SignedDuration = SignedDuration::from_secs(5);

/// So many are told their place in the queue.
const TOLD: usize = 20;

/// Places are told at most so often: each backup that begins moves all of them.
const MOVES: Duration = Duration::from_secs(10);

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
    /// It was not made, and its time is over.
    Forget,
}

/// One look at all backups.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let all = desk.backups.all();
    let there: BTreeSet<&str> = all.iter().map(|object| uid(object)).collect();
    let begun = desk.all_with(Work::Backup).into_iter();
    for uid in begun.chain(desk.all_with(Work::Copy)) {
        if !there.contains(uid.as_str()) {
            desk.stop(&uid, Work::Backup);
        }
    }
    let places = locations::places(desk);
    let free = desk
        .settings
        .concurrent_backups
        .saturating_sub(desk.count(Work::Backup));
    // One that was removed in the middle of its work takes its files away first.
    let is_free =
        |object: &Value| desk.is_free(object) && !desk.is_at_anothers(object, Work::Backup);
    let mut queue_told = desk.queue_told();
    let may_tell = queue_told.is_none_or(|at| at.elapsed() >= MOVES);
    let told = match desk.knows_no_queue.load(Ordering::Relaxed) {
        false if may_tell => TOLD,
        _ => 0,
    };
    let now = desk.now();
    let planned = |held: &BTreeSet<String>| {
        let is_free = |object: &Value| is_free(object) && !held.contains(uid(object));
        let asked = &mut desk.asked();
        plan(&all, &places, free, told, &is_free, asked, now)
    };
    // Before any of its pods is made quiet.
    let may_begin = |object: &Value, place: &str| repositories::give_way(desk, place, name(object));
    let steps = where_all_may_begin(planned, may_begin);
    if steps.iter().any(|(_, step)| matches!(step, Step::Queue(_))) {
        *queue_told = Some(Instant::now());
    }
    for (object, step) in steps {
        match step {
            Step::Make(location) => {
                let place = location.clone();
                desk.begin_in(&object, Work::Backup, &place, |desk, object, stopped| {
                    making::make(desk, object, location, stopped)
                });
            }
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
            Step::Forget => desk.begin(&object, Work::Small, forget),
        }
    }
}

/// Whether nothing was begun yet.
pub(crate) fn is_new(object: &Value) -> bool {
    matches!(phase(object), "" | "New" | "Queued" | "ReadyToStart")
}

/// Whether a controller of ours makes it, dead or alive; without its annotation, another server is at work on it.
pub(crate) fn is_at_work(object: &Value) -> bool {
    phase(object) == "InProgress" && run_of(object).is_some()
}

/// A plan of which each that is to be made may begin: whoever waits until something in its location has stopped takes the place of no other.
fn where_all_may_begin(
    planned: impl Fn(&BTreeSet<String>) -> Vec<(Arc<Value>, Step)>,
    may_begin: impl Fn(&Value, &str) -> bool,
) -> Vec<(Arc<Value>, Step)> {
    let mut held = BTreeSet::new();
    loop {
        let steps = planned(&held);
        let waits = steps.iter().filter_map(|(object, step)| match step {
            Step::Make(place) if !may_begin(object, place) => Some(uid(object).to_owned()),
            _ => None,
        });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return steps;
        }
        held.extend(waits);
    }
}

/// What is to be done with each, where something is: those that are asked for are taken in the order of their creation.
fn plan(
    all: &[Arc<Value>],
    places: &[Place],
    mut free: usize,
    told: usize,
    is_free: &dyn Fn(&Value) -> bool,
    asked: &mut Known<Asked>,
    now: Timestamp,
) -> Vec<(Arc<Value>, Step)> {
    let mut steps = Vec::new();
    let mut waiting: Vec<&Arc<Value>> = Vec::new();
    for object in all {
        if is_new(object) {
            waiting.push(object);
        } else if is_at_work(object) && is_free(object) {
            steps.push((Arc::clone(object), Step::Recover));
        } else if matches!(phase(object), "Failed" | "FailedValidation")
            && time(object, "/status/expiration").is_some_and(|end| end < now)
            && is_free(object)
        {
            steps.push((Arc::clone(object), Step::Forget));
        }
    }
    waiting.sort_by_key(|object| (time(object, "/metadata/creationTimestamp"), name(object)));
    // A schedule never overlaps itself, whoever asked for its backups.
    let mut at_work: BTreeSet<&str> = all
        .iter()
        // One that was begun a moment ago is still new.
        .filter(|object| is_at_work(object) || is_new(object) && !is_free(object))
        .filter_map(|object| label(object, SCHEDULE_NAME))
        .collect();
    let mut queued = 0;
    for object in waiting {
        if !is_free(object) {
            continue;
        }
        let step = match validate(object, asked.of(object, read), places, now) {
            Verdict::Refused(why) => Step::Refuse(why),
            Verdict::Wait => continue,
            Verdict::Good(location)
                if free > 0 && label(object, SCHEDULE_NAME).is_none_or(|of| at_work.insert(of)) =>
            {
                free -= 1;
                Step::Make(location)
            }
            Verdict::Good(_) => {
                queued += 1;
                if queued > told || object["status"]["queuePosition"] == queued {
                    continue;
                }
                Step::Queue(queued)
            }
        };
        steps.push((Arc::clone(object), step));
    }
    steps
}

fn age(object: &Value, now: Timestamp) -> Option<SignedDuration> {
    let created = time(object, "/metadata/creationTimestamp");
    created.map(|at| now.duration_since(at))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Good(String),
    /// Its location was not checked yet.
    Wait,
    Refused(Vec<String>),
}

/// What is wrong with what a Backup asks for, wherever it is made; an error where it can not be understood at all.
pub(crate) type Asked = Result<Vec<String>, String>;

fn read(object: &Value) -> Asked {
    let backup: Backup = decode(object).map_err(|why| bounded(&why))?;
    let mut wrong = Vec::new();
    let said = |e: backup_core::Error| bounded(&e.sentence());
    wrong.extend(Name::foreign(&backup.metadata.name).err().map(said));
    wrong.extend(Filter::of(&backup.spec).validate().err().map(said));
    let (all, any) = (&backup.spec.label_selector, &backup.spec.or_label_selectors);
    wrong.extend(one_selector(all.as_ref(), any).err().map(said));
    wrong.extend(backup.spec.policies().err().map(said));
    Ok(wrong)
}

/// Whether what is asked for can be done, as far as the objects say; all that is wrong with it, in Velero's words where it has them.
fn validate(object: &Value, asked: &Asked, places: &[Place], now: Timestamp) -> Verdict {
    let mut wrong = match asked {
        Ok(wrong) => wrong.clone(),
        Err(why) => return Verdict::Refused(vec![why.clone()]),
    };
    let asked = object["spec"]["storageLocation"].as_str();
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
        let waits = || {
            let age = age(object, now);
            annotation(object, SLOT).is_some() && age.is_some_and(|age| age < PATIENCE)
        };
        if place.is_available == Some(false) && !waits() {
            wrong.push(format!(
                "backup can't be created because BackupStorageLocation {} is in Unavailable status",
                place.name
            ));
        }
    }
    if place.is_none() && age(object, now).is_none_or(|age| age < SETTLED) {
        return Verdict::Wait;
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
    let ttl = locations::period(&object["spec"]["ttl"]).filter(|ttl| !ttl.is_zero());
    let ttl = ttl.or_else(|| SignedDuration::try_from(crate::flags::DEFAULT_TTL).ok());
    let end = ttl.and_then(|ttl| desk.now().checked_add(ttl).ok());
    let patch = json!({"status": {
        "phase": "FailedValidation", "validationErrors": why, "queuePosition": null,
        "expiration": end.map(|end| format!("{end:.0}")),
    }});
    desk.backups.decide(&object, patch).await.map(drop)
}

async fn queue(desk: Arc<Desk>, object: Arc<Value>, place: usize) -> Result<()> {
    let patch = json!({"status": {"phase": "Queued", "queuePosition": place}});
    match desk.backups.decide(&object, patch).await {
        // An older definition knows no such phase: then they wait without saying so.
        Err(e) if e.kind() == backup_core::Kind::Invalid => {
            desk.knows_no_queue.store(true, Ordering::Relaxed);
            Ok(())
        }
        written => written.map(drop),
    }
}

async fn forget(desk: Arc<Desk>, object: Arc<Value>, _: Stopped) -> Result<()> {
    desk.backups.delete(&object).await.map(drop)
}

/// The options of a backup that an object asks for.
fn options(desk: &Desk, backup: &Backup, name: Name) -> BackupOptions {
    let now = desk.now();
    let meta = &backup.metadata;
    let mut annotations = meta.annotations.clone();
    // What would say of the backup what only its maker can.
    annotations.retain(|key, _| {
        key != "kubectl.kubernetes.io/last-applied-configuration"
            && (key == EPHEMERAL_MOVERS
                || OWN.contains(&key.as_str())
                || !key.starts_with("kubectl-backup/"))
    });
    let attempt = format!("{}.{}", desk.run, meta.uid.as_deref().unwrap_or_default());
    annotations.insert(RUN.to_owned(), attempt);
    let mut options = BackupOptions {
        name,
        filter: Filter::default(),
        single_namespace: false,
        expires: backup.spec.expires(now),
        labels: meta.labels.clone(),
        annotations,
        snapshot_volumes: None,
        policies: None,
        copies: None,
        template: backup_core::api::BackupSpec::default(),
        exact: true,
        host: desk.host.clone(),
        process: desk.process.clone(),
        now,
    };
    options.ask(&backup.spec);
    if options.labels.contains_key(SCHEDULE_NAME)
        && let Some(expires) = options.expires.take()
    {
        // Its newest good one stays when it is expired, and a Velero that looks into the same bucket would not know.
        options.template.ttl = backup.spec.ttl;
        options
            .annotations
            .insert(EXPIRES.to_owned(), format!("{expires:.0}"));
    }
    options
}

/// The attempt that makes, or made, a backup.
fn run_of(object: &Value) -> Option<&str> {
    annotation(object, RUN)
}

/// Never used where it is not needed: what stops a backup.
type Stopped = watch::Receiver<bool>;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn backup(name: &str, created: i64, phase: &str, spec: Value) -> Arc<Value> {
        let created = at(created);
        Arc::new(json!({
            "apiVersion": "velero.io/v1", "kind": "Backup",
            "metadata": {"name": name, "uid": name, "creationTimestamp": created.to_string(), "annotations": {RUN: "r"}},
            "spec": spec, "status": {"phase": phase, "expiration": "1970-01-01T01:00:00Z"},
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

    fn plan(
        all: &[Arc<Value>],
        places: &[Place],
        free: usize,
        told: usize,
        is_free: &dyn Fn(&Value) -> bool,
        now: Timestamp,
    ) -> Vec<(Arc<Value>, Step)> {
        let known = &mut Known::default();
        super::plan(all, places, free, told, is_free, known, now)
    }

    fn validate(object: &Value, places: &[Place], now: Timestamp) -> Verdict {
        super::validate(object, &read(object), places, now)
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
        let steps = plan(&all, &places, 1, 9, &is_free, at(99));
        assert_eq!(
            told(&steps),
            [
                ("f", Step::Recover),
                ("c", make()),
                ("b", Step::Queue(1)),
                ("a", Step::Queue(2))
            ]
        );
        let steps = plan(&all, &places, 9, 9, &is_free, at(99));
        assert_eq!(
            told(&steps)[1..],
            [("c", make()), ("b", make()), ("a", make())]
        );
        // Of one schedule they are made one after the other.
        let of_schedule = |index: usize| {
            let mut labelled = (*all[index]).clone();
            labelled["metadata"]["labels"] = json!({SCHEDULE_NAME: "s"});
            Arc::new(labelled)
        };
        let mine = [of_schedule(0), of_schedule(1), Arc::clone(&all[2])];
        let steps = plan(&mine, &places, 9, 9, &is_free, at(99));
        assert_eq!(
            told(&steps),
            [("c", make()), ("b", make()), ("a", Step::Queue(1))]
        );
        let mine = [of_schedule(0), of_schedule(4)];
        let steps = plan(&mine, &places, 9, 9, &is_free, at(99));
        assert_eq!(told(&steps), [("a", Step::Queue(1))]);
        let is_begun = |object: &Value| name(object) != "b";
        let mine = [of_schedule(0), of_schedule(1)];
        let steps = plan(&mine, &places, 9, 9, &is_begun, at(99));
        assert_eq!(told(&steps), [("a", Step::Queue(1))]);
        // A place in the queue that did not change is not written again.
        let mut queued = (*all[1]).clone();
        queued["status"]["queuePosition"] = 1.into();
        assert_eq!(
            plan(&[Arc::new(queued)], &places, 0, 9, &is_free, at(99)),
            []
        );
    }

    #[test]
    fn a_backup_that_waits_until_its_location_is_quiet_takes_the_place_of_no_other() {
        let places = [
            place("main", true, false, Some(true)),
            place("other", false, false, Some(true)),
        ];
        let of = |name: &str, created: i64, location: &str| {
            backup(name, created, "New", json!({"storageLocation": location}))
        };
        let all = [of("a", 1, "main"), of("b", 2, "main"), of("c", 3, "other")];
        let planned = |held: &BTreeSet<String>| {
            let is_free = |object: &Value| !held.contains(uid(object));
            plan(&all, &places, 1, 0, &is_free, at(99))
        };
        let steps = where_all_may_begin(planned, |_, place| place != "main");
        assert_eq!(told(&steps), [("c", Step::Make("other".to_owned()))]);
        assert_eq!(where_all_may_begin(planned, |_, _| false), []);
    }

    #[test]
    fn what_can_not_be_done_is_refused_with_every_reason() {
        let places = [
            place("main", true, false, Some(true)),
            place("ro", false, true, Some(true)),
            place("gone", false, false, Some(false)),
            place("unseen", false, false, None),
        ];
        let verdict = |spec: Value| validate(&backup("b", 1, "", spec), &places, at(99));
        let located = |name: &str| json!({"storageLocation": name});
        assert_eq!(verdict(json!({})), Verdict::Good("main".to_owned()));
        assert_eq!(verdict(located("main")), Verdict::Good("main".to_owned()));
        let just_now = backup("b", 95, "", located("absent"));
        assert_eq!(validate(&just_now, &places, at(99)), Verdict::Wait);
        assert_eq!(verdict(located("unseen")), Verdict::Wait);
        for (spec, part) in [
            (located("absent"), "\"absent\""),
            (located("ro"), "read-only mode"),
            (located("gone"), "Unavailable status"),
            (json!({"ttl": "soon"}), "can not be understood"),
            (
                json!({"resourcePolicy": {"kind": "Secret", "name": "x"}}),
                "only a ConfigMap",
            ),
            (json!({"includedNamespaces": ["Not/one"]}), "Not/one"),
            (
                json!({"labelSelector": {"matchLabels": {"a": "b"}}, "orLabelSelectors": [{"matchLabels": {"c": "d"}}]}),
                "only one can be specified",
            ),
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
        let no_default = validate(&backup("b", 1, "", json!({})), &places[1..], at(99));
        assert!(matches!(no_default, Verdict::Refused(why) if why[0].contains("no default")));
        let named = validate(
            &backup("b", 1, "", json!({})),
            &[place("default", false, false, Some(true))],
            at(99),
        );
        assert_eq!(named, Verdict::Good("default".to_owned()));
    }

    #[test]
    fn what_another_server_makes_is_left_alone_and_what_failed_goes_in_its_time() {
        let free = |_: &Value| true;
        let mut theirs = (*backup("b", 1, "InProgress", json!({}))).clone();
        theirs["metadata"]["annotations"] = json!({});
        assert_eq!(plan(&[Arc::new(theirs)], &[], 9, 9, &free, at(9)), []);
        for phase in ["Failed", "FailedValidation"] {
            let all = [backup("b", 1, phase, json!({}))];
            assert_eq!(plan(&all, &[], 9, 9, &free, at(3600)), []);
            let steps = plan(&all, &[], 9, 9, &free, at(3601));
            assert_eq!(told(&steps), [("b", Step::Forget)]);
        }
        let all = [backup("b", 1, "Completed", json!({}))];
        assert_eq!(plan(&all, &[], 9, 9, &free, at(3601)), []);
    }

    #[test]
    fn a_scheduled_backup_waits_a_while_for_its_location() {
        let places = [place("main", true, false, Some(false))];
        let mut scheduled = (*backup("b", 0, "", json!({}))).clone();
        scheduled["metadata"]["annotations"][SLOT] = "x".into();
        assert_eq!(validate(&scheduled, &places, at(599)), Verdict::Wait);
        let refused = validate(&scheduled, &places, at(600));
        assert!(matches!(refused, Verdict::Refused(_)));
    }
}
