//! Every decision there is, over the whole product of what can be seen, for two members: the rules of `run.rs` hold in each.

use super::super::records::{
    Expected, Fit, Kept, Listening, Offline, PlannedMember, SnapshotFacts, Started, Voter,
};
use std::rc::Rc;

mod places;

use super::*;
use backup_core::etcd::{HashKv, LiveDigest};

const T: i64 = 2_000_000_000_000;

fn hash(hash: u32) -> HashKv {
    HashKv {
        hash,
        revision: T,
        compact_revision: T,
    }
}

fn digest() -> LiveDigest {
    LiveDigest {
        revision: 5,
        keys: 1,
        sha256: "d".into(),
    }
}

fn member(name: &str) -> PlannedMember {
    PlannedMember {
        name: name.into(),
        peer_urls: vec![format!("http://{name}:1")],
        new_member_id: format!("new-{name}"),
        old_member_id: format!("old-{name}"),
        ..PlannedMember::default()
    }
}

fn attempt(step: Step, outcome: Option<Outcome>) -> Attempt {
    let voters = ["a", "b"].map(|name| Voter {
        id: format!("old-{name}"),
        name: name.into(),
        peer_urls: vec![format!("http://{name}:1")],
    });
    Attempt {
        id: "attempt".into(),
        sequence: 5,
        step: Some(step),
        outcome,
        voters: voters.to_vec(),
        members: vec![member("a"), member("b")],
        order: vec!["a".into(), "b".into()],
        old_cluster_id: "old".into(),
        new_cluster_id: "new".into(),
        target_revision: T,
        snapshot: Some(SnapshotFacts {
            digest: digest(),
            ..SnapshotFacts::default()
        }),
        expected: Some(Expected {
            digest: digest(),
            hash_kv_at_t: hash(7),
        }),
        message: "why".into(),
        ..Attempt::default()
    }
}

fn report(name: &str, state: State, sequence: i64) -> Report {
    Report {
        attempt: "attempt".into(),
        sequence,
        state,
        cluster_id: "new".into(),
        fit: Some(Fit {
            peer_urls: vec![format!("http://{name}:1")],
            voters: attempt(Step::Preflight, None).voters,
            voters_known: true,
            ..Fit::default()
        }),
        offline: Some(Offline { revision: 9 }),
        built: Some(Expected {
            digest: digest(),
            hash_kv_at_t: hash(7),
        }),
        started: Some(Started {
            cluster_id: "new".into(),
            leader: true,
            members: vec!["new-a".into(), "new-b".into()],
            alarms: Vec::new(),
            revision: T,
            hash_kv_at_t: hash(7),
        }),
        listening: Listening::Usual,
        message: "m".into(),
        ..Report::default()
    }
}

struct Case {
    attempt: Rc<Attempt>,
    reports: Rc<BTreeMap<String, Report>>,
    silent: Rc<BTreeMap<String, Duration>>,
    watched_for: Duration,
    stalled: Duration,
    leaving: bool,
    facts: Facts,
}

impl Case {
    fn decide(&self) -> Decision {
        decide(&View {
            attempt: &self.attempt,
            reports: &self.reports,
            silent: &self.silent,
            watched_for: self.watched_for,
            stalled: self.stalled,
            leaving: self.leaving,
            facts: &self.facts,
            patience: Patience::default(),
        })
    }
}

fn reports(a: State, b: State, sequence_of_b: i64) -> BTreeMap<String, Report> {
    [("a", a, 5), ("b", b, sequence_of_b)]
        .map(|(name, state, sequence)| (name.to_owned(), report(name, state, sequence)))
        .into()
}

fn silent(b: u64) -> BTreeMap<String, Duration> {
    [("a", 0), ("b", b)]
        .map(|(name, seconds)| (name.to_owned(), Duration::from_secs(seconds)))
        .into()
}

fn usual(step: Step, outcome: Option<Outcome>, a: State, b: State) -> Case {
    Case {
        attempt: Rc::new(attempt(step, outcome)),
        reports: Rc::new(reports(a, b, 5)),
        silent: Rc::new(silent(0)),
        watched_for: Duration::ZERO,
        stalled: Duration::ZERO,
        leaving: false,
        facts: Facts {
            replicas: 2,
            ..Facts::default()
        },
    }
}

fn every(mut each: impl FnMut(&Case)) {
    let outcomes = [
        None,
        Some(Outcome::Failed),
        Some(Outcome::RolledBack),
        Some(Outcome::Committed),
    ];
    let end = |outcome: Outcome| {
        Some(EndRecord {
            attempt: "attempt".into(),
            outcome: Some(outcome),
            ..EndRecord::default()
        })
    };
    let rows: Vec<_> = State::ALL
        .iter()
        .flat_map(|&a| {
            // What one member says matters beside one that says the same, nothing yet, or that it spoils all.
            let others = [a, State::Working, State::Unfit, State::RolledBack];
            others
                .into_iter()
                .flat_map(move |b| [4, 5].map(|at| Rc::new(reports(a, b, at))))
        })
        .collect();
    let silences = [0, 3600].map(|seconds| Rc::new(silent(seconds)));
    for &step in Step::ALL {
        for outcome in outcomes {
            let fits = match step {
                Step::Unpausing => outcome.is_some(),
                Step::Committed | Step::Restarting | Step::Completed => {
                    outcome == Some(Outcome::Committed)
                }
                Step::RollingBack | Step::RolledBack => outcome == Some(Outcome::RolledBack),
                Step::Failed => outcome == Some(Outcome::Failed),
                _ => outcome.is_none(),
            };
            if !fits {
                continue;
            }
            let mut case = usual(step, outcome, State::Working, State::Working);
            for row in &rows {
                case.reports = Rc::clone(row);
                for number in 0..512_u32 {
                    let bit = |at: u32| number >> at & 1 == 1;
                    case.leaving = bit(0);
                    case.stalled = Duration::from_secs(if bit(1) { 3600 } else { 0 });
                    case.silent = Rc::clone(&silences[usize::from(bit(2))]);
                    case.facts.finalizer = bit(3);
                    case.facts.paused = bit(4);
                    case.facts.touched = bit(4);
                    case.facts.cluster_id = if bit(5) { "new" } else { "old" }.into();
                    case.facts.end = match (bit(6), bit(5)) {
                        (false, _) => None,
                        (true, true) => end(Outcome::Committed),
                        (true, false) => end(Outcome::RolledBack),
                    };
                    case.facts.watched = match (bit(7), bit(1)) {
                        (false, _) => Watched::Unknown,
                        (true, false) => Watched::Quiet,
                        (true, true) => Watched::Writer("pods a/b".into()),
                    };
                    case.facts.unpaused = if bit(8) { Unpaused::Yes } else { Unpaused::No };
                    each(&case);
                }
            }
        }
    }
}

#[test]
fn nothing_leads_back_from_a_commit_and_nothing_to_it_but_two_members_that_agree() {
    every(|case| {
        let from = &case.attempt;
        let Decision::Go(next) = case.decide() else {
            return;
        };
        let to = Attempt {
            step: Some(next.step),
            outcome: next.outcome.or(from.outcome),
            ..Attempt::clone(from)
        };
        if from.is_forward() {
            assert!(
                to.is_forward(),
                "{:?} {:?} to {next:?}",
                from.step,
                from.outcome
            );
        }
        if to.is_forward() && !from.is_forward() {
            assert_eq!((from.step(), to.step()), (Step::Starting, Step::Committed));
            assert!(
                case.reports
                    .values()
                    .all(|row| { row.state == State::Started && row.sequence == from.sequence })
            );
            assert!(!case.leaving);
        }
    });
}

#[test]
fn nothing_ends_before_the_control_plane_is_back() {
    every(|case| {
        let from = case.attempt.step();
        let Decision::Go(next) = case.decide() else {
            return;
        };
        if next.step.is_end() {
            let untouched = next.step == Step::Failed
                && from <= Step::Planned
                && !case.facts.finalizer
                && !case.facts.touched;
            let unpaused = from == Step::Unpausing && case.facts.unpaused == Unpaused::Yes;
            assert!(untouched || unpaused, "{from:?} to {next:?}");
            // The outcome outlives the restore before the restore may go.
            if unpaused && case.facts.finalizer && case.attempt.outcome != Some(Outcome::Committed)
            {
                assert!(case.facts.end.is_some(), "{next:?}");
            }
        }
        let ends = match next.step {
            Step::Completed => Some(Outcome::Committed),
            Step::RolledBack => Some(Outcome::RolledBack),
            Step::Failed => Some(Outcome::Failed),
            _ => return,
        };
        assert_eq!(next.outcome, ends, "{from:?}");
    });
}

#[test]
fn steps_come_in_their_order_and_whoever_waits_says_for_what() {
    every(|case| {
        let from = case.attempt.step();
        match case.decide() {
            Decision::Go(next) => {
                let follows = match next.step {
                    Step::Pausing => from == Step::Planned,
                    Step::Watching => from == Step::Pausing,
                    Step::Stopping => from == Step::Watching,
                    Step::Swapping => from == Step::Stopping,
                    Step::Starting => from == Step::Swapping,
                    Step::Committed => from == Step::Starting,
                    Step::Restarting => from == Step::Committed,
                    Step::RollingBack => {
                        matches!(from, Step::Stopping | Step::Swapping | Step::Starting)
                    }
                    Step::Unpausing => {
                        from <= Step::Watching
                            || matches!(from, Step::Restarting | Step::RollingBack)
                    }
                    Step::Completed | Step::RolledBack => from == Step::Unpausing,
                    Step::Failed => from <= Step::Watching || from == Step::Unpausing,
                    Step::Preflight | Step::Planned => false,
                };
                assert!(follows, "{from:?} to {next:?}");
                assert!(!next.message.is_empty());
            }
            Decision::Wait(message) => assert!(!message.is_empty(), "{from:?}"),
            Decision::Do(work) => {
                let fits = match work {
                    Work::Finalizer | Work::Standing => from == Step::Planned,
                    Work::Pause => from == Step::Pausing,
                    Work::Watch => from == Step::Watching,
                    Work::Commit => from == Step::Committed,
                    Work::RecordBack => {
                        from == Step::Unpausing && case.attempt.outcome != Some(Outcome::Committed)
                    }
                    Work::Unpause => from == Step::Unpausing,
                    Work::Release => from.is_end(),
                };
                assert!(fits, "{work:?} at {from:?}");
            }
            Decision::Plan(_) | Decision::Source(_) => assert_eq!(from, Step::Preflight),
        }
    });
}

#[test]
fn who_is_deleted_or_stalls_before_the_commit_goes_back_and_after_it_on() {
    every(|case| {
        let from = case.attempt.step();
        if !(case.leaving || case.stalled > Duration::from_secs(600)) {
            return;
        }
        let decision = case.decide();
        match from {
            Step::Stopping | Step::Swapping | Step::Starting if case.leaving => {
                assert!(
                    matches!(&decision, Decision::Go(next) if next.step == Step::RollingBack),
                    "{decision:?}"
                );
            }
            Step::Planned | Step::Pausing | Step::Watching if case.leaving => {
                assert!(
                    matches!(&decision, Decision::Go(next) if matches!(next.step, Step::Unpausing | Step::Failed)),
                    "{decision:?}"
                );
            }
            _ => {}
        }
    });
}

#[test]
fn the_usual_way_leads_through_every_step() {
    let go = |case: &Case| match case.decide() {
        Decision::Go(next) => next.step,
        other => panic!("{other:?}"),
    };
    let both = |step, state| usual(step, None, state, state);
    let mut planned = both(Step::Planned, State::Built);
    planned.facts.cluster_id = String::new();
    assert_eq!(planned.decide(), Decision::Do(Work::Finalizer));
    planned.facts.finalizer = true;
    assert_eq!(planned.decide(), Decision::Do(Work::Standing));
    planned.facts.cluster_id = "old".into();
    assert_eq!(go(&planned), Step::Pausing);
    let mut pausing = both(Step::Pausing, State::Built);
    assert_eq!(pausing.decide(), Decision::Do(Work::Pause));
    pausing.facts.paused = true;
    assert_eq!(go(&pausing), Step::Watching);
    let mut watching = both(Step::Watching, State::Built);
    assert_eq!(watching.decide(), Decision::Do(Work::Watch));
    watching.facts.watched = Watched::Quiet;
    assert_eq!(go(&watching), Step::Stopping);
    assert_eq!(go(&both(Step::Stopping, State::Stopped)), Step::Swapping);
    assert_eq!(go(&both(Step::Swapping, State::Swapped)), Step::Starting);
    assert_eq!(go(&both(Step::Starting, State::Started)), Step::Committed);
    let mut committed = usual(
        Step::Committed,
        Some(Outcome::Committed),
        State::Started,
        State::Started,
    );
    assert_eq!(committed.decide(), Decision::Do(Work::Commit));
    committed.facts.cluster_id = "new".into();
    committed.facts.end = Some(EndRecord {
        outcome: Some(Outcome::Committed),
        ..EndRecord::default()
    });
    assert_eq!(go(&committed), Step::Restarting);
}

#[test]
fn after_the_commit_who_does_not_serve_is_waited_for_only_so_long() {
    let restarting = |b: State, c: State| {
        let mut case = usual(
            Step::Restarting,
            Some(Outcome::Committed),
            State::Serving,
            b,
        );
        let members = &mut Rc::make_mut(&mut case.attempt).members;
        members.push(PlannedMember {
            name: "c".into(),
            ..members[0].clone()
        });
        Rc::make_mut(&mut case.reports).insert("c".into(), report("c", c, 5));
        Rc::make_mut(&mut case.silent).insert("c".into(), Duration::ZERO);
        case
    };
    for never in [State::SetAside, State::Stuck, State::NoData] {
        let next = restarting(State::Serving, never).decide();
        assert!(
            matches!(&next, Decision::Go(next) if next.step == Step::Unpausing && next.message.contains("without c")),
            "{never:?}: {next:?}"
        );
        let minority = restarting(never, never).decide();
        assert!(matches!(minority, Decision::Wait(_)), "{minority:?}");
    }
    let mut slow = restarting(State::Serving, State::Working);
    assert!(matches!(slow.decide(), Decision::Wait(_)));
    slow.stalled = Patience::default().start_stall;
    assert!(matches!(slow.decide(), Decision::Go(next) if next.step == Step::Unpausing));
}

#[test]
fn members_that_differ_are_not_committed() {
    type Change = fn(&mut Report);
    let changes: [Change; 6] = [
        |row| row.started.as_mut().unwrap().hash_kv_at_t = hash(8),
        |row| row.started.as_mut().unwrap().cluster_id = "old".into(),
        |row| row.started.as_mut().unwrap().leader = false,
        |row| row.started.as_mut().unwrap().members.push("x".into()),
        |row| row.started.as_mut().unwrap().alarms.push("CORRUPT".into()),
        |row| row.started.as_mut().unwrap().revision = T - 1,
    ];
    for change in changes {
        let mut case = usual(Step::Starting, None, State::Started, State::Started);
        change(Rc::make_mut(&mut case.reports).get_mut("b").unwrap());
        assert!(
            matches!(case.decide(), Decision::Go(next) if next.step == Step::RollingBack && next.message.contains('b'))
        );
    }
    let mut case = usual(Step::Planned, None, State::Built, State::Built);
    Rc::make_mut(&mut case.reports)
        .get_mut("b")
        .unwrap()
        .built
        .as_mut()
        .unwrap()
        .digest
        .sha256 = "x".into();
    assert!(matches!(case.decide(), Decision::Go(next) if next.step == Step::Failed));
}

#[test]
fn a_writer_is_named_and_a_hosting_api_that_went_back_decides_nothing() {
    let mut case = usual(Step::Watching, None, State::Built, State::Built);
    case.facts.watched = Watched::Writer("pods a/b".into());
    assert!(matches!(case.decide(), Decision::Go(next) if next.message.contains("pods a/b")));
    let mut case = usual(Step::Swapping, None, State::Swapped, State::Swapped);
    Rc::make_mut(&mut case.reports)
        .get_mut("b")
        .unwrap()
        .sequence = 6;
    assert!(matches!(case.decide(), Decision::Wait(message) if message.contains("went back")));
}

#[test]
fn who_is_at_work_is_waited_for_who_is_silent_is_left_out_and_too_few_are_refused() {
    let three = || {
        let voters: Vec<Voter> = ["a", "b", "c"]
            .map(|name| Voter {
                id: name.into(),
                name: name.into(),
                peer_urls: vec![format!("http://{name}:1")],
            })
            .into();
        let mut case = usual(Step::Preflight, None, State::Fit, State::Fit);
        Rc::make_mut(&mut case.attempt).members.clear();
        for row in Rc::make_mut(&mut case.reports).values_mut() {
            row.fit.as_mut().unwrap().voters.clone_from(&voters);
        }
        case.facts.replicas = 3;
        case
    };
    let mut case = three();
    Rc::make_mut(&mut case.reports).insert("c".into(), report("c", State::Working, 5));
    Rc::make_mut(&mut case.silent).insert("c".into(), Duration::ZERO);
    assert!(matches!(case.decide(), Decision::Wait(message) if message.contains('c')));
    Rc::make_mut(&mut case.silent).insert("c".into(), Duration::from_secs(61));
    assert!(matches!(case.decide(), Decision::Plan(membership) if membership.voters.len() == 3));
    Rc::make_mut(&mut case.reports).get_mut("c").unwrap().state = State::Unfit;
    assert!(matches!(case.decide(), Decision::Go(next) if next.step == Step::Failed));
    let mut case = three();
    Rc::make_mut(&mut case.reports).remove("b");
    for name in ["b", "c"] {
        Rc::make_mut(&mut case.silent).insert(name.into(), Duration::from_secs(61));
    }
    assert!(
        matches!(case.decide(), Decision::Go(next) if next.step == Step::Failed && next.message.contains("1 of 3"))
    );
}

#[test]
fn in_a_rollback_the_state_that_goes_furthest_is_restored_and_no_majority_is_refused() {
    let kept = |term, index| {
        Some(Kept {
            term,
            index,
            voters: 3,
            gone: false,
        })
    };
    let case = |rows: &[(&str, Option<Kept>)], seconds: u64| {
        let mut case = usual(Step::Preflight, None, State::Working, State::Working);
        Rc::make_mut(&mut case.attempt).members.clear();
        let reports = Rc::make_mut(&mut case.reports);
        reports.clear();
        for (name, kept) in rows {
            let row = Report {
                kept: *kept,
                ..report(name, State::Working, 5)
            };
            reports.insert((*name).into(), row);
        }
        case.watched_for = Duration::from_secs(seconds);
        case
    };
    let source = |case: &Case| match case.decide() {
        Decision::Source(name) => name,
        other => panic!("{other:?}"),
    };
    // A later term wins over more entries of an earlier one: those were never acknowledged.
    let all = [
        ("a", kept(2, 900)),
        ("b", kept(3, 800)),
        ("c", kept(3, 700)),
    ];
    assert_eq!(source(&case(&all, 0)), "b");
    let alike = [
        ("a", kept(3, 800)),
        ("b", kept(3, 800)),
        ("c", kept(3, 700)),
    ];
    assert_eq!(source(&case(&alike, 0)), "a");
    // The third may know more: it is waited for, but not for ever.
    assert!(matches!(case(&all[..2], 0).decide(), Decision::Wait(_)));
    assert_eq!(source(&case(&all[..2], 61)), "b");
    let lost = [
        ("a", kept(3, 800)),
        ("b", Some(Kept::default())),
        ("c", Some(Kept::default())),
    ];
    assert!(
        matches!(case(&lost, 61).decide(), Decision::Go(next) if next.step == Step::Failed && next.message.contains("1 of 3"))
    );
    let removed = Some(Kept {
        gone: true,
        ..Kept::default()
    });
    assert!(
        matches!(case(&[("a", removed)], 61).decide(), Decision::Go(next) if next.message.contains("no member keeps") && next.message.contains("that of a was removed"))
    );
    let mut chosen = case(&all, 61);
    Rc::make_mut(&mut chosen.attempt).source = "b".into();
    assert!(!matches!(chosen.decide(), Decision::Source(_)), "once");
}
