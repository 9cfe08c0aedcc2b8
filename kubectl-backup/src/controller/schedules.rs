//! Schedules: Backups are made of their templates when a slot is due. Which backup that is, [`plan`] decides; docs/controller.md says why.

mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::api::Schedule;
use backup_core::error::Result;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::backups::{self, AGAIN_FOR, INTERRUPTED, MADE_AGAIN, SLOT};
use super::desk::{Desk, Work};
use super::objects::{annotation, decode, label, name, phase, time};

/// What a Schedule asks for, or all that is wrong with it.
pub(crate) type Terms = Result<terms::Terms, Vec<String>>;

/// The label with the schedule, Velero's.
pub(crate) const SCHEDULE: &str = backup_core::catalog::SCHEDULE_NAME;

/// A backup that was lost with its controller is made once more, if that was not longer ago.
const RERUN_WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// A slot that is taken up so late is told with the time at which it was.
const LATE: SignedDuration = SignedDuration::from_mins(1);

/// So long a backup that was asked for by hand, and that has not begun, holds up the next slot.
const HELD_BY_HAND: SignedDuration = SignedDuration::from_mins(10);

/// The annotation of a Schedule whose slot waits: for which backup.
pub(crate) const HELD: &str = "kubectl-backup/held";

/// Backups of a schedule that failed, of which no more objects are kept: they have nothing in a bucket.
const MOST_FAILED: usize = 20;

/// What is to be done with a schedule now.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// It can not be followed.
    Refuse(Vec<String>),
    /// It can.
    Enable,
    /// What was missed so far is passed over, as was asked for.
    Skip,
    /// Its newest slot was taken, and is not noted yet.
    Note(Timestamp),
    /// A slot waits, for the end of this backup.
    Hold(String),
    /// A backup was made in the place of one that was lost, and that one does not say so yet.
    Settle { lost: String, again: String },
    /// The oldest objects of backups that failed go.
    Forget(Vec<String>),
    /// A backup is made.
    Make {
        name: String,
        slot: Timestamp,
        /// The backup in whose place it is made.
        again_for: Option<String>,
    },
}

/// One look at all schedules.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let all = desk.schedules.all();
    if all.is_empty() {
        return;
    }
    let backups = desk.backups.mirror().all();
    let mut made: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for backup in &backups {
        if let Some(schedule) = label(backup, SCHEDULE) {
            made.entry(schedule).or_default().push(backup);
        }
    }
    let mut known = desk.terms();
    for object in all {
        if !desk.is_free(&object) {
            continue;
        }
        let made = made.get(name(&object)).map_or(&[][..], Vec::as_slice);
        let terms = known.of(&object, terms::Terms::of);
        match plan(&object, terms, made, desk.now()) {
            None => {}
            Some(step) => desk.begin(&object, Work::Small, |desk, object, _| {
                carry_out(desk, object, step)
            }),
        }
    }
}

/// What is to be done, where something is. The terms are those of this object.
fn plan(object: &Value, terms: &mut Terms, made: &[&Value], now: Timestamp) -> Option<Step> {
    let terms = match terms {
        Ok(terms) => terms,
        Err(why) => {
            let is_said = phase(object) == "FailedValidation"
                && object["status"]["validationErrors"] == json!(why);
            return (!is_said).then(|| Step::Refuse(why.clone()));
        }
    };
    if phase(object) != "Enabled" {
        return Some(Step::Enable);
    }
    if object["spec"]["paused"] == true {
        return None;
    }
    if object["spec"]["skipImmediately"] == true {
        return Some(Step::Skip);
    }
    if let Some(unsettled) = unsettled(made) {
        return Some(unsettled);
    }
    let open = made.iter().find(|backup| is_open(backup, now));
    if open.is_none()
        && let Some(again) = again(object, made, now)
    {
        return Some(again);
    }
    let slots = made.iter().filter_map(|backup| slot(backup));
    let past = terms.schedule.past(slots, now);
    let Some(slot) = terms.due(past, now) else {
        // When that backup goes, nothing else tells that its slot was taken.
        let last = terms.schedule.status.last_backup;
        let unnoted = past
            .taken
            .filter(|taken| last.is_none_or(|last| last < *taken));
        return unnoted.map(Step::Note).or_else(|| forget(made));
    };
    if let Some(open) = open {
        let why = format!("{} is not finished ({})", name(open), phase(open));
        let is_late = now.duration_since(slot) > LATE;
        let is_said = annotation(object, HELD) == Some(&why);
        return (is_late && !is_said).then_some(Step::Hold(why));
    }
    Some(Step::Make {
        name: crate::flags::generated_name(name(object), slot),
        slot,
        again_for: None,
    })
}

/// Noted at the one that was lost, it holds when the other one is gone.
fn unsettled(made: &[&Value]) -> Option<Step> {
    made.iter().find_map(|again| {
        let lost = annotation(again, AGAIN_FOR)?;
        let lost = made.iter().find(|backup| name(backup) == lost)?;
        annotation(lost, MADE_AGAIN)
            .is_none()
            .then(|| Step::Settle {
                lost: name(lost).to_owned(),
                again: name(again).to_owned(),
            })
    })
}

/// Whether the next slot waits for this backup: it is at work, or will be. One that was asked for by hand and waits, for whatever it may be, does not hold
/// up its schedule for ever.
fn is_open(backup: &Value, now: Timestamp) -> bool {
    let created = time(backup, "/metadata/creationTimestamp");
    let is_young = || created.is_some_and(|at| at <= now && now.duration_since(at) < HELD_BY_HAND);
    backups::is_at_work(backup)
        || backups::is_new(backup) && (annotation(backup, SLOT).is_some() || is_young())
}

/// The oldest backups that failed, where they are too many.
fn forget(made: &[&Value]) -> Option<Step> {
    let mut failed: Vec<_> = made
        .iter()
        .filter(|backup| matches!(phase(backup), "Failed" | "FailedValidation"))
        .filter_map(|backup| Some((slot(backup)?, name(backup))))
        .collect();
    failed.sort_unstable();
    failed.truncate(failed.len().saturating_sub(MOST_FAILED));
    let names: Vec<_> = failed.iter().map(|(_, name)| (*name).to_owned()).collect();
    (!names.is_empty()).then_some(Step::Forget(names))
}

fn slot(backup: &Value) -> Option<Timestamp> {
    annotation(backup, SLOT)?.parse().ok()
}

/// The backup in the place of the newest one, if that was lost with its controller and is none itself. Its name follows from that one's end, so that
/// it is made once whoever looks.
fn again(object: &Value, made: &[&Value], now: Timestamp) -> Option<Step> {
    let newest = made
        .iter()
        .filter_map(|backup| Some((slot(backup)?, *backup)));
    let newest =
        newest.max_by_key(|(slot, backup)| (*slot, annotation(backup, AGAIN_FOR).is_some()));
    let (slot, lost) = newest?;
    annotation(lost, INTERRUPTED)?;
    if annotation(lost, MADE_AGAIN).is_some() {
        return None;
    }
    let ended = time(lost, "/status/completionTimestamp")?;
    let is_late = ended > now || now.duration_since(ended) > RERUN_WITHIN;
    if is_late || annotation(lost, AGAIN_FOR).is_some() || phase(lost) != "Failed" {
        return None;
    }
    Some(Step::Make {
        // A second later than the end of the first one: its name may be of the same second.
        name: crate::flags::generated_name(
            name(object),
            ended.checked_add(SignedDuration::from_secs(1)).ok()?,
        ),
        slot,
        again_for: Some(name(lost).to_owned()),
    })
}

async fn carry_out(desk: Arc<Desk>, object: Arc<Value>, step: Step) -> Result<()> {
    let title = name(&object);
    let patch = match step {
        Step::Refuse(why) => {
            desk.ui
                .warn(&format!("schedule {title} is refused: {}", why.join("; ")));
            json!({"status": {"phase": "FailedValidation", "validationErrors": why}})
        }
        Step::Enable => json!({"status": {"phase": "Enabled", "validationErrors": null}}),
        Step::Skip => json!({
            "spec": {"skipImmediately": false},
            "status": {"lastSkipped": format!("{:.0}", desk.now())},
        }),
        Step::Note(taken) => json!({"status": {"lastBackup": format!("{taken:.0}")}}),
        Step::Hold(why) => {
            desk.ui
                .warn(&format!("schedule {title}: a slot waits, {why}"));
            json!({"metadata": {"annotations": {HELD: why}}})
        }
        Step::Settle { lost, again } => return settle(&desk, &lost, &again).await,
        Step::Forget(names) => {
            for failed in names {
                if let Some(failed) = desk.backups.get(&failed) {
                    desk.backups.delete(&failed).await?;
                }
            }
            return Ok(());
        }
        Step::Make {
            name,
            slot,
            again_for,
        } => {
            let schedule: Schedule = decode(&object).map_err(backup_core::Error::invalid)?;
            let backup = backup(&schedule, &object, &name, slot, again_for.as_deref());
            let is_made = desk.backups.create(&backup).await?;
            if is_made {
                desk.ui
                    .note(&format!("schedule {title} makes backup {name}"));
            }
            if let Some(lost) = again_for {
                settle(&desk, &lost, &name).await?;
            }
            let last = noted(&schedule, slot, desk.now());
            let mut patch = json!({"status": {"lastBackup": format!("{last:.0}")}});
            if annotation(&object, HELD).is_some() {
                patch["metadata"]["annotations"] = json!({HELD: null});
            }
            patch
        }
    };
    desk.schedules.decide(&object, patch).await.map(drop)
}

async fn settle(desk: &Desk, lost: &str, again: &str) -> Result<()> {
    if let Some(lost) = desk.backups.get(lost) {
        let noted = json!({"metadata": {"annotations": {MADE_AGAIN: again}}});
        desk.backups.patch(&lost, noted).await?;
    }
    Ok(())
}

/// What is noted of a slot that was taken.
fn noted(schedule: &Schedule, slot: Timestamp, now: Timestamp) -> Timestamp {
    let is_late = now.duration_since(slot) > LATE;
    // Where not every slot counts, the next one is counted from it.
    if is_late && schedule.every().is_ok_and(|every| every == 1) {
        now
    } else {
        slot
    }
}

/// The Backup of a slot.
fn backup(
    schedule: &Schedule,
    object: &Value,
    name: &str,
    slot: Timestamp,
    again_for: Option<&str>,
) -> Value {
    let mut backup = schedule.backup(object, name);
    let annotations = &mut backup["metadata"]["annotations"];
    annotations[SLOT] = format!("{slot:.0}").into();
    if let Some(lost) = again_for {
        annotations[AGAIN_FOR] = lost.into();
    }
    backup
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::backups::RUN;
    use backup_core::api::API_VERSION;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-21T{text}Z").parse().unwrap()
    }

    fn plan(object: &Value, made: &[&Value], now: Timestamp) -> Option<Step> {
        super::plan(object, &mut terms::Terms::of(object), made, now)
    }

    fn schedule(spec: Value, status: Value) -> Value {
        json!({"apiVersion": API_VERSION, "kind": "Schedule",
            "metadata": {"name": "s", "namespace": "n", "uid": "u", "creationTimestamp": "2026-11-21T00:00:30Z",
                "labels": {"team": "shop"}, "annotations": {"a": "b", "kubectl-backup/keep": "3"}},
            "spec": spec, "status": status})
    }

    fn made(name: &str, slot: Option<&str>, phase: &str, annotations: Value) -> Value {
        let mut backup = json!({"metadata": {"name": name, "annotations": annotations}, "status": {"phase": phase, "completionTimestamp": "2026-11-21T02:00:20Z"}});
        if let Some(slot) = slot {
            backup["metadata"]["annotations"][SLOT] = at(slot).to_string().into();
        }
        backup
    }

    fn enabled(spec: Value) -> Value {
        schedule(spec, json!({"phase": "Enabled"}))
    }

    fn make(name: &str, slot: &str) -> Option<Step> {
        Some(Step::Make {
            name: name.to_owned(),
            slot: at(slot),
            again_for: None,
        })
    }

    #[test]
    fn a_slot_is_taken_once_and_what_was_missed_collapses_into_the_newest() {
        let hourly = enabled(json!({"schedule": "0 * * * *"}));
        let plan = |made: &[&Value], now: &str| plan(&hourly, made, at(now));
        assert_eq!(plan(&[], "00:59:59"), None);
        assert_eq!(plan(&[], "01:00:00"), make("s-20261121010000", "01:00:00"));
        assert_eq!(plan(&[], "05:13:00"), make("s-20261121050000", "05:00:00"));
        let done = made("x", Some("01:00:00"), "Completed", json!({}));
        // A crash came before that was noted.
        assert_eq!(plan(&[&done], "01:59:59"), Some(Step::Note(at("01:00:00"))));
        assert_eq!(
            plan(&[&done], "02:00:00"),
            make("s-20261121020000", "02:00:00")
        );
        // What did not succeed was taken all the same.
        let failed = made("x", Some("01:00:00"), "FailedValidation", json!({}));
        assert_eq!(
            plan(&[&failed], "01:30:00"),
            Some(Step::Note(at("01:00:00")))
        );
        // One that a clock took that was wrong does not hold it up.
        let future = made("x", Some("23:00:00"), "Completed", json!({}));
        assert_eq!(
            plan(&[&future], "03:00:00"),
            make("s-20261121030000", "03:00:00")
        );
    }

    #[test]
    fn a_schedule_never_overlaps_itself_and_others_backups_do_not_hold_it_up() {
        let hourly = enabled(json!({"schedule": "@every 1h"}));
        for phase in ["", "New", "Queued", "ReadyToStart", "InProgress"] {
            let open = made("x", Some("01:00:30"), phase, json!({RUN: "r"}));
            let held = plan(&hourly, &[&open], at("05:00:00"));
            assert!(matches!(held, Some(Step::Hold(_))), "{phase}");
            // One that was triggered by hand: for a while, or while it is made here.
            let mut by_hand = made("x", None, phase, json!({}));
            by_hand["metadata"]["creationTimestamp"] = at("04:50:30").to_string().into();
            let step = |by_hand: &Value, now| plan(&hourly, &[by_hand], at(now));
            let is_held = |step| matches!(step, Some(Step::Hold(_)));
            let made_here = phase == "InProgress";
            assert_eq!(is_held(step(&by_hand, "05:00:29")), !made_here, "{phase}");
            assert!(
                matches!(step(&by_hand, "05:00:30"), Some(Step::Make { .. })),
                "{phase}"
            );
            by_hand["metadata"]["annotations"][RUN] = "r".into();
            assert_eq!(is_held(step(&by_hand, "05:02:00")), made_here, "{phase}");
        }
        let noted = schedule(
            json!({"schedule": "@every 1h"}),
            json!({"phase": "Enabled", "lastBackup": at("03:00:30").to_string()}),
        );
        assert_eq!(plan(&noted, &[], at("04:00:29")), None);
        assert_eq!(
            plan(&noted, &[], at("04:00:30")),
            make("s-20261121040030", "04:00:30")
        );
    }

    #[test]
    fn a_slot_that_waits_is_told_after_a_minute_and_once() {
        let hourly = enabled(json!({"schedule": "@hourly"}));
        let open = made("x", Some("01:00:00"), "InProgress", json!({RUN: "r"}));
        assert_eq!(
            plan(&hourly, &[&open], at("01:59:59")),
            Some(Step::Note(at("01:00:00")))
        );
        assert_eq!(plan(&hourly, &[&open], at("02:01:00")), None);
        let told = plan(&hourly, &[&open], at("02:01:01"));
        let Some(Step::Hold(why)) = told else {
            panic!("{told:?}")
        };
        assert_eq!(why, "x is not finished (InProgress)");
        let mut held = hourly.clone();
        held["metadata"]["annotations"][HELD] = why.into();
        assert_eq!(plan(&held, &[&open], at("05:00:00")), None);
        let done = made("x", Some("01:00:00"), "Completed", json!({}));
        assert_eq!(
            plan(&held, &[&done], at("05:13:00")),
            make("s-20261121050000", "05:00:00")
        );
    }

    /// Looks at an hourly schedule at each of these times, does what is decided, and says which backups there are at the end.
    fn followed(times: &[&str]) -> Vec<String> {
        let mut hourly = enabled(json!({"schedule": "@hourly"}));
        let mut terms = terms::Terms::of(&hourly);
        let mut all: Vec<Value> = Vec::new();
        for now in times {
            let now: Timestamp = now.parse().unwrap();
            // Nothing is decided over and over.
            for look in 0.. {
                assert!(look < 4, "{now}: it does not come to rest");
                let made: Vec<&Value> = all.iter().collect();
                match super::plan(&hourly, &mut terms, &made, now) {
                    None => break,
                    Some(Step::Note(taken)) => {
                        hourly["status"]["lastBackup"] = taken.to_string().into();
                    }
                    Some(Step::Make { name, slot, .. }) => {
                        let schedule: Schedule = decode(&hourly).unwrap();
                        let mut backup = backup(&schedule, &hourly, &name, slot, None);
                        backup["status"]["phase"] = "Completed".into();
                        if all.iter().all(|there| super::name(there) != name) {
                            all.push(backup);
                        }
                        hourly["status"]["lastBackup"] =
                            noted(&schedule, slot, now).to_string().into();
                    }
                    other => panic!("{other:?}"),
                }
                // As it is where the object changed.
                terms = terms::Terms::of(&hourly);
            }
        }
        let mut names: Vec<_> = all.iter().map(|backup| name(backup).to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_clock_that_jumps_neither_doubles_a_slot_nor_stops_a_schedule() {
        // A year ahead, for a look, and back; then it is as late as that.
        let made = followed(&[
            "2026-11-21T01:00:00Z",
            "2027-11-21T01:30:00Z",
            "2026-11-21T01:30:01Z",
            "2026-11-21T02:00:00Z",
            "2026-11-21T02:30:00Z",
            "2026-11-21T03:00:00Z",
            "2027-11-21T01:30:00Z",
            "2027-11-21T02:00:00Z",
        ]);
        assert_eq!(
            made,
            [
                "s-20261121010000",
                "s-20261121020000",
                "s-20261121030000",
                "s-20271121010000",
                "s-20271121020000"
            ]
        );
        // An hour back.
        let made = followed(&[
            "2026-11-21T02:00:00Z",
            "2026-11-21T02:30:00Z",
            "2026-11-21T01:30:00Z",
            "2026-11-21T02:00:10Z",
            "2026-11-21T03:00:00Z",
        ]);
        assert_eq!(
            made,
            ["s-20261121010000", "s-20261121020000", "s-20261121030000"]
        );
    }

    #[test]
    fn of_many_backups_that_failed_the_oldest_objects_go() {
        let noted = json!({"phase": "Enabled", "lastBackup": at("22:00:00").to_string()});
        let hourly = schedule(json!({"schedule": "@hourly"}), noted);
        let failed: Vec<_> = (0..23)
            .map(|hour| {
                made(
                    &format!("f{hour}"),
                    Some(&format!("{hour:02}:00:00")),
                    "Failed",
                    json!({}),
                )
            })
            .collect();
        let all: Vec<&Value> = failed.iter().collect();
        let oldest = ["f0", "f1", "f2"].map(str::to_owned).to_vec();
        assert_eq!(
            plan(&hourly, &all, at("22:30:00")),
            Some(Step::Forget(oldest))
        );
        assert_eq!(plan(&hourly, &all[3..], at("22:30:00")), None);
    }

    #[test]
    fn of_every_second_slot_one_is_taken_and_an_odd_number_is_refused() {
        let mut every = enabled(json!({"schedule": "@hourly"}));
        every["metadata"]["annotations"][backup_core::backup::EVERY] = "2".into();
        let taken = made("x", Some("01:00:00"), "Completed", json!({}));
        assert_eq!(
            plan(&every, &[&taken], at("02:30:00")),
            Some(Step::Note(at("01:00:00")))
        );
        assert_eq!(
            plan(&every, &[&taken], at("03:00:00")),
            make("s-20261121030000", "03:00:00")
        );
        every["metadata"]["annotations"][backup_core::backup::EVERY] = "many".into();
        let refused = plan(&every, &[], at("03:00:00"));
        assert!(matches!(refused, Some(Step::Refuse(why)) if why[0].contains("many")));
    }

    #[test]
    fn paused_and_skipped_slots_are_not_taken() {
        let now = at("05:00:10");
        let paused = enabled(json!({"schedule": "@hourly", "paused": true}));
        assert_eq!(plan(&paused, &[], now), None);
        let skip = enabled(json!({"schedule": "@hourly", "skipImmediately": true}));
        assert_eq!(plan(&skip, &[], now), Some(Step::Skip));
        let skipped = schedule(
            json!({"schedule": "@hourly"}),
            json!({"phase": "Enabled", "lastSkipped": at("05:00:09").to_string()}),
        );
        assert_eq!(plan(&skipped, &[], now), None);
    }

    #[test]
    fn a_backup_that_was_lost_with_its_controller_is_made_once_more() {
        let hourly = enabled(json!({"schedule": "@hourly"}));
        let lost = made(
            "first",
            Some("02:00:00"),
            "Failed",
            json!({INTERRUPTED: "true"}),
        );
        let again = plan(&hourly, &[&lost], at("02:01:00"));
        assert_eq!(
            again,
            Some(Step::Make {
                name: "s-20261121020021".to_owned(),
                slot: at("02:00:00"),
                again_for: Some("first".to_owned()),
            })
        );
        // Not a second time, not when the second one is lost too, and not the next day.
        for phase in ["Completed", "Failed"] {
            let second = made(
                "second",
                Some("02:00:00"),
                phase,
                json!({AGAIN_FOR: "first", INTERRUPTED: "true"}),
            );
            // A crash came before that was noted.
            assert_eq!(
                plan(&hourly, &[&second, &lost], at("02:02:00")),
                Some(Step::Settle {
                    lost: "first".to_owned(),
                    again: "second".to_owned(),
                })
            );
            let mut noted = lost.clone();
            noted["metadata"]["annotations"][MADE_AGAIN] = "second".into();
            assert_eq!(
                plan(&hourly, &[&second, &noted], at("02:02:00")),
                Some(Step::Note(at("02:00:00")))
            );
        }
        // Nor when somebody removed the second one.
        let settled = made(
            "first",
            Some("02:00:00"),
            "Failed",
            json!({INTERRUPTED: "true", MADE_AGAIN: "second"}),
        );
        assert_eq!(
            plan(&hourly, &[&settled], at("02:02:00")),
            Some(Step::Note(at("02:00:00")))
        );
        assert_eq!(
            plan(&hourly, &[&lost], at("03:00:21")),
            make("s-20261121030000", "03:00:00")
        );
        // One that failed by itself has said why.
        let failed = made("first", Some("02:00:00"), "Failed", json!({}));
        assert_eq!(
            plan(&hourly, &[&failed], at("02:01:00")),
            Some(Step::Note(at("02:00:00")))
        );
    }

    #[test]
    fn what_can_not_be_followed_is_refused_with_every_reason_and_said_once() {
        let bad = json!({"schedule": "soon", "template": {"includedResources": ["pods"], "includedClusterScopedResources": ["nodes"]}});
        let Some(Step::Refuse(why)) = plan(&schedule(bad.clone(), json!({})), &[], at("01:00:00"))
        else {
            panic!()
        };
        assert_eq!(why.len(), 2, "{why:?}");
        assert!(why[0].contains("soon"));
        let said = schedule(
            bad,
            json!({"phase": "FailedValidation", "validationErrors": why}),
        );
        assert_eq!(plan(&said, &[], at("01:00:00")), None);
        let good = schedule(
            json!({"schedule": "CRON_TZ=Europe/Berlin 0 1 * * *"}),
            said["status"].clone(),
        );
        assert_eq!(plan(&good, &[], at("01:00:00")), Some(Step::Enable));
        let mut long = schedule(json!({"schedule": "@daily"}), json!({}));
        long["metadata"]["name"] = "x".repeat(240).into();
        assert!(matches!(
            plan(&long, &[], at("01:00:00")),
            Some(Step::Refuse(_))
        ));
    }

    #[test]
    fn the_backup_is_the_template_with_the_schedules_labels() {
        let object = enabled(
            json!({"schedule": "@daily", "useOwnerReferencesInBackup": true,
            "template": {"includedNamespaces": ["shop"], "newer": 1}}),
        );
        let of = |object: &Value| {
            let schedule: Schedule = decode(object).unwrap();
            backup(&schedule, object, "s-1", at("02:00:00"), None)
        };
        assert_eq!(
            of(&object),
            json!({"apiVersion": API_VERSION, "kind": "Backup",
                "metadata": {"name": "s-1", "namespace": "n",
                    "labels": {"team": "shop", SCHEDULE: "s"}, "annotations": {"a": "b", SLOT: "2026-11-21T02:00:00Z"},
                    "ownerReferences": [{"apiVersion": API_VERSION, "kind": "Schedule", "name": "s", "uid": "u", "controller": true}]},
                "spec": {"includedNamespaces": ["shop"], "newer": 1}})
        );
        let own = enabled(
            json!({"schedule": "@daily", "template": {"metadata": {"labels": {"x": "y"}}}}),
        );
        assert_eq!(
            of(&own)["metadata"]["labels"],
            json!({"x": "y", SCHEDULE: "s"})
        );
    }
}
