//! What is to be done about requests and Backups, in which order, and how much of it may begin; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{DELETING, NOT_DELETED};
use crate::controller::objects::{annotation, name, phase, time};

/// A request that was refused is kept so long, as Velero does.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Backups that are deleted at a time, beside those whose snapshots are waited for: a driver may take hours.
const AT_A_TIME: usize = 4;

/// The same with those.
const WITH_WAITING: usize = 16;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step<'o> {
    /// A request is answered.
    Answer(&'o Arc<Value>),
    /// A request was answered long ago.
    Forget(&'o Arc<Value>),
    /// A Backup is Deleting, and no request asks for it any more.
    Resume(&'o Arc<Value>),
}

impl<'o> Step<'o> {
    pub(super) fn object(self) -> &'o Arc<Value> {
        let (Self::Answer(object) | Self::Forget(object) | Self::Resume(object)) = self;
        object
    }
}

/// Of several requests for one backup the oldest is answered first: then the others find it gone. What failed goes behind what was not tried yet, what failed last behind all others.
pub(super) fn plan<'o, T: Ord>(
    requests: &'o [Arc<Value>],
    backups: &'o [Arc<Value>],
    now: Timestamp,
    failed: impl Fn(&Value) -> Option<T>,
) -> Vec<Step<'o>> {
    let mut steps = Vec::new();
    let mut open = Vec::new();
    for request in requests {
        if phase(request) != "Processed" {
            open.push(request);
        } else if is_over(request, now) {
            steps.push(Step::Forget(request));
        }
    }
    open.sort_by_key(|request| (time(request, "/metadata/creationTimestamp"), name(request)));
    let mut asked = BTreeSet::new();
    for request in open {
        if asked.insert(request["spec"]["backupName"].as_str().unwrap_or_default()) {
            steps.push(Step::Answer(request));
        }
    }
    let left = backups
        .iter()
        .filter(|backup| phase(backup) == DELETING && !asked.contains(name(backup)))
        .filter(|backup| annotation(backup, NOT_DELETED).is_none());
    steps.extend(left.map(Step::Resume));
    steps.sort_by_key(|step| failed(step.object()));
    steps
}

fn is_over(object: &Value, now: Timestamp) -> bool {
    let created = time(object, "/metadata/creationTimestamp");
    created.is_some_and(|at| now.duration_since(at) > KEPT)
}

/// How many more may begin.
pub(super) fn room(deleting: &BTreeMap<String, bool>) -> usize {
    let waiting = deleting.values().filter(|waits| **waits).count();
    let at_work = deleting.len() - waiting;
    let room = AT_A_TIME.saturating_sub(at_work);
    room.min(WITH_WAITING.saturating_sub(deleting.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(name: &str, backup: &str, phase: &str, created: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-11-21T{created}Z")},
            "spec": {"backupName": backup}, "status": {"phase": phase},
        }))
    }

    #[test]
    fn the_oldest_request_of_a_backup_is_answered_and_what_is_half_gone_goes_on_without_one() {
        let requests = [
            request("a", "b1", "", "02:00:00"),
            request("b", "b1", "InProgress", "01:00:00"),
            request("c", "b2", "New", "03:00:00"),
            request("d", "b3", "Processed", "01:00:00"),
        ];
        let backup = |name: &str, phase: &str, annotations: Value| {
            let metadata = json!({"name": name, "annotations": annotations});
            Arc::new(json!({"metadata": metadata, "status": {"phase": phase}}))
        };
        let backups = [
            backup("b1", DELETING, json!({})),
            backup("b3", DELETING, json!({})),
            backup("b4", "Completed", json!({})),
            // Nobody could go on with it.
            backup("b5", DELETING, json!({NOT_DELETED: "why"})),
        ];
        let now: Timestamp = "2026-11-22T01:00:00Z".parse().unwrap();
        let mut steps = vec![
            Step::Answer(&requests[1]),
            Step::Answer(&requests[2]),
            Step::Resume(&backups[1]),
        ];
        let none = |_: &Value| None::<u8>;
        assert_eq!(plan(&requests, &backups, now, none), steps);
        let later = now + SignedDuration::from_secs(1);
        steps.insert(0, Step::Forget(&requests[3]));
        assert_eq!(plan(&requests, &backups, later, none), steps);
        assert_eq!(plan(&[], &[], later, none), []);
    }

    #[test]
    fn what_fails_again_and_again_is_behind_what_was_not_tried_yet() {
        let names: Vec<_> = ('a'..='e').map(String::from).collect();
        let requests: Vec<_> = names
            .iter()
            .map(|name| request(name, name, "New", "01:00:00"))
            .collect();
        let gone = json!({"metadata": {"name": "f"}, "status": {"phase": DELETING}});
        let failed = |object: &Value| match name(object) {
            "a" => Some(9),
            "b" => Some(3),
            "c" => Some(5),
            _ => None,
        };
        let backups = [Arc::new(gone)];
        let steps = plan(&requests, &backups, Timestamp::UNIX_EPOCH, failed);
        let order: Vec<_> = steps.iter().map(|step| name(step.object())).collect();
        assert_eq!(order, ["d", "e", "f", "b", "c", "a"]);
    }

    #[test]
    fn backups_whose_snapshots_are_waited_for_keep_others_from_being_deleted_only_where_they_are_many()
     {
        let deleting = |at_work: usize, waiting: usize| {
            let all = (0..at_work + waiting).map(|number| (number.to_string(), number >= at_work));
            room(&all.collect())
        };
        assert_eq!(deleting(0, 0), AT_A_TIME);
        assert_eq!(deleting(1, 4), AT_A_TIME - 1);
        assert_eq!(deleting(AT_A_TIME, 0), 0);
        assert_eq!(deleting(1, WITH_WAITING - 2), 1);
        assert_eq!(deleting(0, WITH_WAITING), 0);
    }
}
