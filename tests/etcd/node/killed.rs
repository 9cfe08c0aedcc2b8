//! The program killed on a node at every record and between the moves: `node status` says where it stands, the same command goes on, and a
//! rollback brings the old state back.

// A list of names and nothing else: which points there are is the product's to say.
#[path = "../../../etcd-launcher/src/node/point.rs"]
mod point;

use harness::node::Node;
use point::Point;

use super::place::Place;
use crate::etcd::step::Step;

/// The switch that only tests use.
const CRASH_AT: &str = "ETCD_LAUNCHER_CRASH_AT";

/// Where a killed restore leaves the node: its state, and whether etcd can have seen the new one. None: a restore does not come by.
fn stands_at_step(step: Step) -> Option<(&'static str, Seen)> {
    match step {
        Step::Planned | Step::Fetched | Step::Built | Step::Proven => Some(("Prepared", Seen::No)),
        Step::Exchanging => Some(("Exchanging", Seen::No)),
        Step::Exchanged => Some(("Exchanged", Seen::No)),
        Step::Starting => Some(("Starting", Seen::No)),
        Step::Verified => Some(("Starting", Seen::Yes)),
        Step::Committed => Some(("Committed", Seen::Yes)),
        Step::RollingBack | Step::RolledBack | Step::Abandoned => None,
    }
}

fn stands_at_point(point: Point) -> (&'static str, Seen) {
    match point {
        Point::Fencing | Point::Quiet | Point::Fenced => ("Stopping", Seen::No),
        // The kubelet may or may not have started it when the rollback comes.
        Point::Back => ("Starting", Seen::Perhaps),
        Point::Returned => ("Committed", Seen::Yes),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    Perhaps,
    Yes,
}

/// Every place where a restore can be killed, in the order in which it comes by, and how the node stands then.
fn all() -> Vec<(&'static str, &'static str, Seen)> {
    let mut found = Vec::new();
    for step in Step::ALL {
        // Moves are made before these records.
        let points: &[Point] = match step {
            Step::Exchanging => &[Point::Fencing, Point::Quiet, Point::Fenced],
            Step::Verified => &[Point::Back],
            Step::RollingBack => &[Point::Returned],
            _ => &[],
        };
        for point in points {
            let (stands, seen) = stands_at_point(*point);
            found.push((point.name(), stands, seen));
        }
        if let Some((stands, seen)) = stands_at_step(*step) {
            found.push((step.name(), stands, seen));
        }
    }
    assert_eq!(
        found
            .iter()
            .filter(|(at, _, _)| at.starts_with("node:"))
            .count(),
        Point::ALL.len()
    );
    found
}

#[test]
fn a_restore_that_is_killed_again_and_again_goes_on_by_the_same_command() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let (place, file) = Place::saved("early", "late");
    // Each call goes on from where the one before was killed, and is killed one point later.
    for (at, stands, _) in all() {
        place.restore(&file).env(CRASH_AT, at).code(137);
        let told = place.status();
        assert_eq!(told["state"], stands, "{at}: {told}");
    }
    place.restore(&file).ok();
    place.assert_marked(&["early"]);
    let attempts = &place.status()["data"]["attempts"];
    assert_eq!(
        attempts.as_array().unwrap().len(),
        1,
        "one restore: {attempts}"
    );
    // Another one begins anew where the first was killed.
    place.mark("since");
    let other = place.snapshot("other.db");
    place.mark("last");
    place.restore(&file).env(CRASH_AT, "node:Quiet").code(137);
    place.restore(&other).ok();
    place.assert_marked(&["early", "since"]);
}

#[test]
fn a_restore_that_is_killed_at_any_point_is_rolled_back() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let (place, file) = Place::saved("early", "late");
    for (at, _, seen) in all() {
        place.restore(&file).env(CRASH_AT, at).code(137);
        let run = place.rollback().run();
        assert_eq!(run.code, 0, "{at}: {}\n{}", run.stderr, place.node.logs());
        let is_forward = run.stderr.contains("etcd has run");
        let is_right = seen == Seen::Perhaps || is_forward == (seen == Seen::Yes);
        assert!(is_right, "{at}: {}", run.stderr);
        place.assert_marked(&["early", "late"]);
    }
}

#[test]
fn a_rollback_that_is_killed_again_and_again_goes_on_by_the_same_command() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let (place, file) = Place::saved("early", "late");
    // Of a restore before its exchange: given up.
    place.restore(&file).env(CRASH_AT, "node:Quiet").code(137);
    place.rollback().env(CRASH_AT, "Abandoned").code(137);
    assert_eq!(place.status()["state"], "GivenUp");
    place.rollback().ok();
    place.assert_marked(&["early", "late"]);
    // Of a restored state that nobody has seen: exchanged back.
    place.restore(&file).env(CRASH_AT, "Exchanged").code(137);
    for (at, stands) in [
        ("node:Fenced", "Exchanged"),
        ("RollingBack", "RollingBack"),
        ("RolledBack", "GivenUp"),
    ] {
        place.rollback().env(CRASH_AT, at).code(137);
        assert_eq!(place.status()["state"], stands, "{at}");
    }
    place.rollback().ok();
    place.assert_marked(&["early", "late"]);
    // Of one that etcd served: forward, and through the same points. What was built is built anew each time.
    place.restore(&file).ok();
    place.assert_marked(&["early"]);
    for (at, _, _) in all() {
        place.rollback().env(CRASH_AT, at).code(137);
    }
    place.rollback().ok();
    place.assert_marked(&["early", "late"]);
}
