//! Who is in the new cluster, where the StatefulSet has places that no voter has.

use super::*;
use crate::run::records::Data;

fn voters(names: &[&str]) -> Vec<Voter> {
    let voter = |name: &&str| Voter {
        id: String::new(),
        name: (*name).to_owned(),
        peer_urls: vec![format!("http://{name}:1")],
    };
    names.iter().map(voter).collect()
}

/// `a` and `b` vote, `c` is named by all and has no data.
fn two_of_three() -> Case {
    let mut case = usual(Step::Preflight, None, State::Fit, State::Fit);
    let attempt = Rc::make_mut(&mut case.attempt);
    (attempt.members, attempt.voters) = Default::default();
    case.facts.replicas = 3;
    let reports = Rc::make_mut(&mut case.reports);
    reports.insert("c".into(), report("c", State::Fit, 5));
    for (name, row) in reports {
        let fit = row.fit.as_mut().unwrap();
        fit.named = voters(&["a", "b", "c"]);
        fit.voters = voters(&["a", "b"]);
        fit.before.serving = name != "c";
        if name == "c" {
            fit.before.data = Data::None;
            fit.voters.clone_from(&fit.named);
            fit.voters_known = false;
        }
    }
    case
}

fn change(case: &mut Case, name: &str, change: impl FnOnce(&mut Report)) {
    change(
        Rc::make_mut(&mut case.reports)
            .get_mut(name)
            .expect("a row"),
    );
}

/// The attempt as it is planned with what was decided.
fn planned(case: &Case) -> Attempt {
    let Decision::Plan(membership) = case.decide() else {
        panic!("{:?}", case.decide());
    };
    let fit = case
        .reports
        .iter()
        .filter(|(_, row)| row.state == State::Fit)
        .map(|(name, row)| (name.as_str(), row))
        .collect();
    plan::plan(&plan::Inputs {
        attempt: &case.attempt,
        membership: &membership,
        fit: &fit,
        token: "token".into(),
        marks: Vec::new(),
        now_ms: T,
    })
    .unwrap()
}

fn names(attempt: &Attempt) -> Vec<&str> {
    attempt.members.iter().map(|m| m.name.as_str()).collect()
}

fn refusal(case: &Case) -> String {
    match case.decide() {
        Decision::Go(next) if next.step == Step::Failed => next.message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_was_left_out_and_has_no_data_is_a_member_again() {
    let all = planned(&two_of_three());
    assert_eq!(names(&all), ["a", "b", "c"]);
    assert_eq!(all.absent, [""; 0]);
    assert_eq!(all.voters.len(), 2, "it never voted in what is replaced");
}

#[test]
fn who_does_not_come_is_waited_for_and_then_left_out_as_long_as_a_majority_is_there() {
    let mut case = two_of_three();
    Rc::make_mut(&mut case.reports).remove("c");
    assert!(matches!(case.decide(), Decision::Wait(message) if message.contains('c')));
    case.watched_for = Duration::from_secs(61);
    let without = planned(&case);
    assert_eq!(names(&without), ["a", "b"]);
    assert_eq!(without.absent, ["c"]);
    // Who works on it is waited for; who holds a state that nobody knows is not.
    let mut case = two_of_three();
    Rc::make_mut(&mut case.silent).insert("c".into(), Duration::ZERO);
    change(&mut case, "c", |row| row.state = State::Working);
    assert!(matches!(case.decide(), Decision::Wait(_)));
    let mut case = two_of_three();
    change(&mut case, "c", |row| {
        row.fit.as_mut().unwrap().before.data = Data::Unreadable;
    });
    assert_eq!(planned(&case).absent, ["c"]);
}

#[test]
fn who_can_not_be_restored_forbids_it_where_it_votes_and_is_left_out_where_it_does_not() {
    let mut case = two_of_three();
    change(&mut case, "c", |row| {
        row.state = State::Unfit;
        row.cluster_id.clear();
        row.fit = None;
    });
    assert_eq!(planned(&case).absent, ["c"]);
    // Nobody says yet who votes.
    for name in ["a", "b"] {
        change(&mut case, name, |row| row.state = State::Working);
    }
    assert!(matches!(case.decide(), Decision::Wait(_)));
    for (name, id) in [("b", "old"), ("b", "")] {
        let mut case = two_of_three();
        change(&mut case, name, |row| {
            row.state = State::Unfit;
            id.clone_into(&mut row.cluster_id);
            row.fit = None;
        });
        let told = refusal(&case);
        assert!(told.contains("member b can not be restored"), "{told}");
    }
    let mut case = two_of_three();
    for name in ["a", "b", "c"] {
        change(&mut case, name, |row| {
            row.state = State::Unfit;
            row.cluster_id.clear();
        });
    }
    assert!(refusal(&case).contains("can not be restored"));
    for name in ["a", "b"] {
        Rc::make_mut(&mut case.reports).remove(name);
    }
    assert!(
        matches!(case.decide(), Decision::Wait(_)),
        "the others may have data"
    );
}

#[test]
fn who_holds_the_state_of_another_cluster_is_waited_for_a_while_and_its_reason_is_told() {
    let set_aside = |case: &mut Case, name: &str| {
        Rc::make_mut(&mut case.silent).insert(name.into(), Duration::ZERO);
        change(case, name, |row| {
            row.state = State::SetAside;
            row.message = "another cluster stands".into();
        });
    };
    let mut case = two_of_three();
    set_aside(&mut case, "c");
    assert!(matches!(case.decide(), Decision::Wait(_)));
    case.watched_for = Duration::from_secs(61);
    assert_eq!(planned(&case).absent, ["c"]);
    for name in ["a", "b"] {
        set_aside(&mut case, name);
    }
    let told = refusal(&case);
    assert!(told.contains("a: another cluster stands"), "{told}");
}

#[test]
fn a_majority_of_the_voters_and_of_the_new_members_is_needed() {
    // With the new one they are two of three, but one of two voters is none: the other one may have acknowledged more.
    let mut case = two_of_three();
    Rc::make_mut(&mut case.reports).remove("b");
    Rc::make_mut(&mut case.silent).insert("b".into(), Duration::from_secs(61));
    let told = refusal(&case);
    assert!(
        told.contains("1 of 2") && told.contains("2 are needed"),
        "{told}"
    );
    // All voters are there, and are too few for the StatefulSet.
    let mut case = two_of_three();
    case.facts.replicas = 5;
    case.watched_for = Duration::from_secs(61);
    for name in ["a", "b", "c"] {
        change(&mut case, name, |row| {
            row.fit.as_mut().unwrap().named = voters(&["a", "b", "c", "d", "e"]);
        });
    }
    assert_eq!(planned(&case).members.len(), 3);
    Rc::make_mut(&mut case.reports).remove("c");
    let told = refusal(&case);
    assert!(told.contains("2 of the StatefulSet's 5"), "{told}");
}

#[test]
fn a_stateful_set_that_is_being_scaled_is_refused() {
    let named = |case: &mut Case, who: &str, names: &[&str]| {
        change(case, who, |row| {
            row.fit.as_mut().unwrap().named = voters(names);
        });
    };
    let mut cases = [(); 4].map(|()| two_of_three());
    // Members that are started with other arguments; more than the arguments name, and fewer; a voter that they do not name.
    named(&mut cases[0], "b", &["a", "b"]);
    cases[1].facts.replicas = 4;
    cases[2].facts.replicas = 1;
    for name in ["a", "b", "c"] {
        named(&mut cases[3], name, &["a", "c", "d"]);
    }
    for case in &cases {
        let told = refusal(case);
        assert!(
            told.contains("2 members") && told.contains("scaled"),
            "{told}"
        );
    }
}

#[test]
fn while_etcd_is_watched_a_member_decides_whose_etcd_serves() {
    let mut attempt = planned(&two_of_three());
    for &step in Step::ALL {
        attempt.step = Some(step);
        let deciders = |attempt: &Attempt| {
            let names = ["a", "b", "c", "x"];
            names.map(|name| attempt.may_be_decided_by(name))
        };
        let expected = match step {
            Step::Preflight => [true; 4],
            Step::Watching => [true, true, false, false],
            _ => [true, true, true, false],
        };
        assert_eq!(deciders(&attempt), expected, "{step:?}");
        // Where none serves, none can be preferred.
        let mut down = attempt.clone();
        for member in &mut down.members {
            member.before.serving = false;
        }
        assert_eq!(deciders(&down)[2], expected[0]);
    }
}
