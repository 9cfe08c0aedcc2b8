//! What happened to objects, as it shows on their copies between two looks: told as Events, for people, and counted, for metrics. Nothing depends on
//! either. What stood when this controller began to look is no news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::cluster::Call;
use backup_core::error::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::desk::Desk;
use super::objects::{MANAGER, name, phase, time, uid};

/// Longer messages are refused by the API.
const LONGEST: usize = 1024;

/// Bounds of durations in seconds, Velero's.
pub(crate) const BOUNDS: [f64; 9] = [
    60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 10800.0, 14400.0,
];

/// An object's phase changed.
#[derive(Clone, Debug)]
struct Change {
    object: Arc<Value>,
    from: String,
}

/// How long backups took.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Durations {
    /// How many took no longer than each of [`BOUNDS`].
    pub(crate) within: [u64; BOUNDS.len()],
    pub(crate) sum: f64,
    pub(crate) count: u64,
}

impl Durations {
    fn add(&mut self, seconds: f64) {
        for (count, bound) in self.within.iter_mut().zip(BOUNDS) {
            *count += u64::from(seconds <= bound);
        }
        self.sum += seconds;
        self.count += 1;
    }
}

/// What was counted since this controller began, by metric and schedule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) totals: BTreeMap<(&'static str, String), u64>,
    pub(crate) durations: BTreeMap<String, Durations>,
}

/// The phases that were seen last, by uid, and what was counted.
#[derive(Debug, Default)]
pub(crate) struct History {
    has_looked: bool,
    seen: BTreeMap<String, String>,
    pub(crate) counts: Counts,
}

impl History {
    /// One look: what changed since the last one.
    fn look(&mut self, all: &[Arc<Value>]) -> Vec<Change> {
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        let mut changes = Vec::new();
        for object in all {
            let to = phase(object);
            let from = match self.seen.get_mut(uid(object)) {
                Some(seen) if seen == to => continue,
                Some(seen) => std::mem::replace(seen, to.to_owned()),
                None => {
                    self.seen.insert(uid(object).to_owned(), to.to_owned());
                    // It stood before, it came with its end, out of a bucket, or has no phase yet.
                    if is_first || is_end(to) || to.is_empty() {
                        continue;
                    }
                    String::new()
                }
            };
            changes.push(Change {
                object: Arc::clone(object),
                from,
            });
        }
        if self.seen.len() > all.len() {
            let there: BTreeSet<&str> = all.iter().map(|object| uid(object)).collect();
            self.seen.retain(|uid, _| there.contains(uid.as_str()));
        }
        // What nothing names any more needs no numbers.
        self.counts
            .forget(&all.iter().map(|object| scheduled(object)).collect());
        for change in &changes {
            self.counts.add(change);
        }
        changes
    }
}

/// The schedule that an object is, or belongs to; empty where it is none.
fn scheduled(object: &Value) -> &str {
    match object["kind"].as_str() {
        Some("Schedule") => name(object),
        Some("Restore") => object["spec"]["scheduleName"].as_str().unwrap_or_default(),
        _ => schedule_of(object),
    }
}

impl Counts {
    fn forget(&mut self, there: &BTreeSet<&str>) {
        let is_there = |schedule: &str| schedule.is_empty() || there.contains(schedule);
        self.totals.retain(|(_, schedule), _| is_there(schedule));
        self.durations.retain(|schedule, _| is_there(schedule));
    }

    fn add(&mut self, change: &Change) {
        let object = &*change.object;
        let to = phase(object);
        let schedule = scheduled(object);
        let names = match object["kind"].as_str() {
            Some("Backup") => &BACKUP,
            Some("Restore") => &RESTORE,
            _ => return,
        };
        let mut count = |metric: &'static str| {
            let key = (metric, schedule.to_owned());
            *self.totals.entry(key).or_default() += 1;
        };
        // Two changes may have come between two looks.
        let was_begun = change.from == "InProgress";
        let is_begun = to == "InProgress" || (is_end(to) && to != "FailedValidation");
        if is_begun && !was_begun {
            count(names.attempt);
        }
        match to {
            "Completed" => count(names.success),
            "PartiallyFailed" => count(names.partial),
            "Failed" => count(names.failure),
            "FailedValidation" => count(names.validation),
            _ => return,
        }
        let took = time(object, "/status/startTimestamp")
            .zip(time(object, "/status/completionTimestamp"))
            .map(|(began, ended)| ended.duration_since(began).as_secs_f64());
        if let (Some("Backup"), Some(took)) = (object["kind"].as_str(), took) {
            let durations = self.durations.entry(schedule.to_owned()).or_default();
            durations.add(took.max(0.0));
        }
    }
}

/// What Velero calls the counters of a kind.
struct Names {
    attempt: &'static str,
    success: &'static str,
    partial: &'static str,
    failure: &'static str,
    validation: &'static str,
}

const BACKUP: Names = Names {
    attempt: "velero_backup_attempt_total",
    success: "velero_backup_success_total",
    partial: "velero_backup_partial_failure_total",
    failure: "velero_backup_failure_total",
    validation: "velero_backup_validation_failure_total",
};

const RESTORE: Names = Names {
    attempt: "velero_restore_attempt_total",
    success: "velero_restore_success_total",
    partial: "velero_restore_partial_failure_total",
    failure: "velero_restore_failed_total",
    validation: "velero_restore_validation_failed_total",
};

/// The schedule that made a backup; empty where none did, as Velero has it.
pub(crate) fn schedule_of(backup: &Value) -> &str {
    let label = &backup["metadata"]["labels"][backup_core::catalog::SCHEDULE_NAME];
    label.as_str().unwrap_or_default()
}

fn is_end(phase: &str) -> bool {
    matches!(
        phase,
        "Completed" | "PartiallyFailed" | "Failed" | "FailedValidation" | "Processed"
    )
}

/// One look at all objects, of who works.
pub(crate) fn turn(desk: &Arc<Desk>, all: &[Arc<Value>]) {
    let changes = desk.history().look(all);
    let events: Vec<Value> = changes
        .iter()
        .filter_map(|change| event(&change.object, desk.now()))
        .collect();
    if events.is_empty() {
        return;
    }
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        for event in events {
            post(&desk, &event).await;
        }
    });
}

/// What people are told of an object's phase; nothing where it is no news to them.
fn event(object: &Value, now: Timestamp) -> Option<Value> {
    let kind = object["kind"].as_str()?;
    let to = phase(object);
    let status = &object["status"];
    let number = |key: &str| status[key].as_u64().unwrap_or(0);
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    let (is_good, message) = match (kind, to) {
        ("Backup", "InProgress") => {
            let location = object["spec"]["storageLocation"].as_str();
            let location = location.unwrap_or_default();
            (true, format!("it is made, in location {location}"))
        }
        ("Restore", "InProgress") => {
            let backup = object["spec"]["backupName"].as_str().unwrap_or_default();
            (true, format!("backup {backup} is brought back"))
        }
        ("Backup" | "Restore", "Completed" | "PartiallyFailed") => {
            let items = status["progress"]["totalItems"].as_u64().unwrap_or(0);
            let (errors, warnings) = (number("errors"), number("warnings"));
            let message = format!("{items} objects, {errors} errors, {warnings} warnings");
            (to == "Completed", message)
        }
        ("Backup" | "Restore", "Failed") => (false, text("failureReason")),
        ("Backup" | "Restore" | "Schedule", "FailedValidation") => {
            let why = status["validationErrors"].as_array().into_iter().flatten();
            let why: Vec<&str> = why.filter_map(Value::as_str).collect();
            (false, why.join("; "))
        }
        ("DeleteBackupRequest", "Processed") => {
            let why = status["errors"].as_array().into_iter().flatten();
            let why: Vec<&str> = why.filter_map(Value::as_str).collect();
            let backup = object["spec"]["backupName"].as_str().unwrap_or_default();
            (
                false,
                format!("backup {backup} is not deleted: {}", why.join("; ")),
            )
        }
        ("BackupStorageLocation", "Available") => (true, "it can be used".to_owned()),
        ("BackupStorageLocation", "Unavailable") => (false, text("message")),
        _ => return None,
    };
    Some(made(object, is_good, to, &message, now))
}

/// Tells people something of an object that is no change of its phase. Who may not write it works all the same.
pub(crate) async fn tell(desk: &Desk, object: &Value, reason: &str, message: &str) {
    let event = made(object, false, reason, message, desk.now());
    post(desk, &event).await;
}

async fn post(desk: &Desk, event: &Value) {
    let path = format!(
        "/api/v1/namespaces/{}/events?fieldManager={MANAGER}",
        desk.settings.namespace
    );
    let call = Call::post(&path, event.to_string().into());
    let _: Result<_, _> = desk.cluster.send(&call).await;
}

/// An Event.
fn made(object: &Value, is_good: bool, reason: &str, message: &str, now: Timestamp) -> Value {
    let mut message: String = message.chars().take(LONGEST).collect();
    while message.len() > LONGEST {
        message.pop();
    }
    let meta = &object["metadata"];
    // Without fractions of seconds, as the kind has these times.
    let now = format!("{now:.0}");
    // Names of events are as long as those of objects, and get some letters more.
    let prefix: String = name(object).chars().take(200).collect();
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"generateName": format!("{prefix}."), "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": object["apiVersion"], "kind": object["kind"], "namespace": meta["namespace"],
            "name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"],
        },
        "type": if is_good { "Normal" } else { "Warning" },
        "reason": reason, "message": message,
        "source": {"component": MANAGER}, "reportingComponent": MANAGER,
        "count": 1, "firstTimestamp": now, "lastTimestamp": now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, name: &str, status: Value) -> Arc<Value> {
        Arc::new(json!({
            "apiVersion": "velero.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"velero.io/schedule-name": "nightly"}},
            "spec": {}, "status": status,
        }))
    }

    fn backup(name: &str, phase: &str) -> Arc<Value> {
        object("Backup", name, json!({"phase": phase}))
    }

    fn told(changes: &[Change]) -> Vec<(&str, &str, &str)> {
        let one =
            |change: &'static Change| (name(&change.object), &*change.from, phase(&change.object));
        changes.to_vec().leak().iter().map(one).collect()
    }

    #[test]
    fn what_stood_before_and_what_comes_out_of_a_bucket_is_no_news() {
        let mut history = History::default();
        let first = [backup("old", "Failed"), backup("going", "InProgress")];
        assert_eq!(told(&history.look(&first)), []);
        let second = [
            backup("old", "Failed"),
            backup("going", "Completed"),
            backup("synced", "Completed"),
            backup("new", ""),
        ];
        assert_eq!(
            told(&history.look(&second)),
            [("going", "InProgress", "Completed")]
        );
        let third = [backup("synced", "Completed"), backup("new", "Failed")];
        assert_eq!(told(&history.look(&third)), [("new", "", "Failed")]);
        let count = |metric| {
            let key = (metric, "nightly".to_owned());
            history.counts.totals.get(&key).copied().unwrap_or(0)
        };
        assert_eq!(count("velero_backup_success_total"), 1);
        assert_eq!(count("velero_backup_failure_total"), 1);
        // The one of the two was begun by somebody else.
        assert_eq!(count("velero_backup_attempt_total"), 1);
    }

    #[test]
    fn a_backup_counts_once_however_often_it_is_looked_at() {
        let mut history = History::default();
        history.look(&[]);
        let ended = json!({
            "phase": "PartiallyFailed",
            "startTimestamp": "2026-11-21T02:00:00Z", "completionTimestamp": "2026-11-21T02:02:00Z",
        });
        for status in [
            json!({}),
            json!({"phase": "InProgress"}),
            ended.clone(),
            ended,
        ] {
            history.look(&[object("Backup", "b", status.clone())]);
        }
        let totals: Vec<_> = history
            .counts
            .totals
            .iter()
            .map(|((metric, _), n)| (*metric, *n))
            .collect();
        assert_eq!(
            totals,
            [
                ("velero_backup_attempt_total", 1),
                ("velero_backup_partial_failure_total", 1)
            ]
        );
        let durations = &history.counts.durations["nightly"];
        assert_eq!((durations.count, durations.sum), (1, 120.0));
        assert_eq!(durations.within, [0, 1, 1, 1, 1, 1, 1, 1, 1]);
        history.look(&[]);
        assert!(history.counts.totals.is_empty() && history.counts.durations.is_empty());
    }

    #[test]
    fn an_event_says_what_went_wrong_and_is_bounded() {
        let of =
            |kind: &str, status: Value| event(&object(kind, "x", status), Timestamp::UNIX_EPOCH);
        let message = |kind: &str, status: Value| {
            let event = of(kind, status).unwrap();
            let text = |key: &str| event[key].as_str().unwrap().to_owned();
            (text("type"), text("reason"), text("message"))
        };
        assert_eq!(
            message(
                "Backup",
                json!({"phase": "FailedValidation", "validationErrors": ["a", "b"]})
            ),
            (
                "Warning".to_owned(),
                "FailedValidation".to_owned(),
                "a; b".to_owned()
            )
        );
        assert_eq!(
            message(
                "Backup",
                json!({"phase": "Completed", "progress": {"totalItems": 7}, "warnings": 1})
            ),
            (
                "Normal".to_owned(),
                "Completed".to_owned(),
                "7 objects, 0 errors, 1 warnings".to_owned()
            )
        );
        let long = message(
            "BackupStorageLocation",
            json!({"phase": "Unavailable", "message": "ü".repeat(5000)}),
        );
        assert!(long.2.len() <= LONGEST && long.2.len() > LONGEST - 4);
        for (kind, phase) in [
            ("Schedule", "Enabled"),
            ("Backup", "Queued"),
            ("DownloadRequest", "Processed"),
            ("Pod", "Failed"),
        ] {
            assert_eq!(of(kind, json!({"phase": phase})), None, "{kind}");
        }
    }
}
