//! What a member goes by before it does anything, after any crash as in any other second: the decision of an attempt, or else the id that stands.
//! Pure: what was read from the hosting API, the disk and the peers comes in.

use super::hosting::World;
use super::memory::{Remembered, RestoreRef};
use super::records::{Attempt, EndRecord, Outcome, Step};
use crate::health::SelfReport;
use crate::restore::plan::Carried;

/// What it goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Orders {
    /// A decision.
    Obey {
        /// Whose.
        restore: RestoreRef,
        /// The decision.
        attempt: Box<Attempt>,
        /// What people should know about it: why it is not the hosting API's own word.
        note: String,
    },
    /// There is no attempt.
    Idle,
    /// A later one has ended since, while this member was away; what is known of its own.
    Superseded(Box<Attempt>),
    /// The restore is gone without a word of how it ended: the other members decide with this one.
    Settle,
}

/// What a member of this name goes by; `world` is nothing where the hosting API does not answer.
pub(crate) fn orders(remembered: &Remembered, world: Option<&World>) -> Orders {
    let obey = |attempt: &Attempt, note: &str| Orders::Obey {
        restore: remembered.restore.clone(),
        attempt: Box::new(attempt.clone()),
        note: note.to_owned(),
    };
    let Some(world) = world else {
        return match remembered.open() {
            Some(mine) => obey(
                mine,
                "the hosting API does not answer: nothing new is decided",
            ),
            None => Orders::Idle,
        };
    };
    let there = world.restore.as_ref();
    let Some(mine) = remembered.open() else {
        let open = there.and_then(|restore| Some((restore, restore.attempt.as_ref()?)));
        return match open {
            Some((restore, attempt)) if !attempt.step().is_end() => Orders::Obey {
                restore: restore.reference(),
                attempt: Box::new(attempt.clone()),
                note: String::new(),
            },
            _ => Orders::Idle,
        };
    };
    let end = world.set.as_ref().and_then(super::hosting::SetView::end);
    let is_later = |end: &EndRecord| end.attempt != mine.id && end.attempt != remembered.end_before;
    if let Some(restore) = there
        && restore.reference().uid == remembered.restore.uid
    {
        return match &restore.attempt {
            // This member was away for the end, and for another attempt that came after it.
            Some(attempt)
                if attempt.id == mine.id
                    && attempt.step().is_end()
                    && end.as_ref().is_some_and(is_later) =>
            {
                Orders::Superseded(Box::new(attempt.clone()))
            }
            Some(attempt) if attempt.id == mine.id && attempt.sequence >= mine.sequence => {
                obey(attempt, "")
            }
            _ => obey(
                mine,
                "the hosting API knows less than this member has seen: it went back in time, and nothing it says is done",
            ),
        };
    }
    // The restore is gone.
    match end {
        Some(end) if end.attempt == mine.id => {
            let outcome = end.outcome.unwrap_or(Outcome::RolledBack);
            obey(
                &ended(mine, outcome),
                "the restore is gone; the StatefulSet says how it ended",
            )
        }
        Some(end) if is_later(&end) => Orders::Superseded(Box::new(mine.clone())),
        _ => Orders::Settle,
    }
}

/// Whether a member joins an attempt. With a state of another cluster than the one that stands it does not as long as nothing is planned: that state
/// is put aside first, and then it joins without one. Once something is planned it obeys, whatever it holds.
pub(crate) fn joins(
    remembered: &Remembered,
    attempt: &Attempt,
    carried: &Carried,
    stands: Option<&str>,
) -> bool {
    let joined = remembered.open().is_some_and(|mine| mine.id == attempt.id);
    let is_another = match (carried.cluster(), stands) {
        (Some(id), Some(stands)) => !stands.is_empty() && id.to_string() != stands,
        _ => false,
    };
    joined || attempt.step() > Step::Preflight || !is_another
}

/// The attempt as it is obeyed once only its outcome is known.
pub(crate) fn ended(attempt: &Attempt, outcome: Outcome) -> Attempt {
    let step = match outcome {
        Outcome::Committed if attempt.is_forward() && attempt.step() > Step::Committed => {
            attempt.step()
        }
        Outcome::Committed => Step::Restarting,
        Outcome::RolledBack | Outcome::Failed => Step::RolledBack,
    };
    Attempt {
        step: Some(step),
        outcome: Some(outcome),
        ..attempt.clone()
    }
}

/// How an attempt without its restore ends, from what the members remember; nothing as long as too few answer. What any of them saw as committed is
/// committed, for it may have served since.
pub(crate) fn settle<'a>(
    mine: &Attempt,
    peers: impl Iterator<Item = &'a SelfReport>,
    voters: usize,
) -> Option<Outcome> {
    let committed = |step: &str| {
        [Step::Committed, Step::Restarting, Step::Completed]
            .iter()
            .any(|known| known.name() == step)
            || step == COMMITTED_UNPAUSING
    };
    let (mut answered, mut seen) = (1, mine.is_forward());
    for peer in peers {
        answered += 1;
        if peer.attempt.as_deref() == Some(mine.id.as_str()) {
            seen |= peer.step.as_deref().is_some_and(committed);
        }
    }
    if seen {
        return Some(Outcome::Committed);
    }
    (answered > voters / 2).then_some(Outcome::RolledBack)
}

/// What [`SelfReport::step`] says at Unpausing after a commit.
pub(crate) const COMMITTED_UNPAUSING: &str = "Unpausing(committed)";

/// A step as [`SelfReport::step`] says it.
pub(crate) fn told_step(attempt: &Attempt) -> String {
    if attempt.step() == Step::Unpausing && attempt.outcome == Some(Outcome::Committed) {
        return COMMITTED_UNPAUSING.to_owned();
    }
    attempt.step().name().to_owned()
}

/// What a member without an attempt is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// etcd runs as usual.
    Run,
    /// A new empty cluster is made.
    Bootstrap,
    /// etcd does not run, for this reason.
    Stay(String),
    /// etcd does not run, and its state is put out of the way: a majority serves another cluster.
    Aside(String),
}

/// All that an idle member's duty hangs on.
pub(crate) struct Standing<'a> {
    /// What its data dir carries.
    pub(crate) carried: &'a Carried,
    /// The id that stands; empty where none does yet, nothing where the hosting API does not answer.
    pub(crate) stands: Option<&'a str>,
    /// Ids that other members serve.
    pub(crate) peers: &'a [String],
    /// Voters there are.
    pub(crate) voters: usize,
    /// A new cluster may be made.
    pub(crate) new_cluster: bool,
    /// This member started before, once.
    pub(crate) bootstrapped: bool,
    /// The id a new cluster of the arguments would get.
    pub(crate) new_id: &'a str,
}

/// An idle member's duty.
pub(crate) fn idle(standing: &Standing<'_>) -> Idle {
    let mine = match standing.carried {
        Carried::Cluster { cluster_id, .. } => cluster_id.to_string(),
        Carried::Unreadable { why } => {
            return Idle::Stay(format!(
                "the state in the data dir can not be read ({why}): it is not started, so that no empty cluster takes its place; restore a snapshot"
            ));
        }
        Carried::Absent => {
            let why = if !standing.new_cluster {
                "there is no state in the data dir, and a new cluster is made only with --new-cluster"
            } else if standing.bootstrapped {
                "there is no state in the data dir any more: this member has served before, and a fresh start could lose what it promised"
            } else {
                match standing.stands {
                    Some(id) if id.is_empty() || id == standing.new_id => return Idle::Bootstrap,
                    Some(_) => {
                        "there is no state in the data dir, and the cluster that stands is not one that this member could found"
                    }
                    None => {
                        "there is no state in the data dir, and the hosting API does not answer"
                    }
                }
            };
            return Idle::Stay(why.to_owned());
        }
    };
    let others = |id: &str| standing.peers.iter().filter(|peer| *peer == id).count();
    match standing.stands {
        Some(id) if id.is_empty() || id == mine => Idle::Run,
        Some(id) if others(id) > standing.voters / 2 => Idle::Aside(format!(
            "cluster {id} stands and is served; this member holds cluster {mine}"
        )),
        Some(id) => Idle::Stay(format!(
            "cluster {id} stands; this member holds cluster {mine}. If every member was restored by hand, take the annotation etcd-launcher/cluster-id off the StatefulSet of etcd"
        )),
        None => {
            let elsewhere = standing
                .peers
                .iter()
                .any(|peer| *peer != mine && others(peer) > standing.voters / 2);
            if elsewhere {
                Idle::Stay(format!(
                    "the other members serve another cluster than {mine}"
                ))
            } else {
                Idle::Run
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(step: Step, outcome: Option<Outcome>, sequence: i64) -> Attempt {
        Attempt {
            id: "a".into(),
            sequence,
            step: Some(step),
            outcome,
            ..Attempt::default()
        }
    }

    #[test]
    fn a_member_that_was_away_for_a_later_restore_does_not_go_on_with_its_own() {
        let restore = |step| {
            let object = serde_json::from_value(serde_json::json!({
                "apiVersion": "kubermatic.k8c.io/v1", "kind": "EtcdRestore", "metadata": {"name": "r", "namespace": "n", "uid": "u"},
            }));
            super::super::hosting::RestoreView {
                object: object.unwrap(),
                attempt: Some(attempt(step, Some(Outcome::Committed), 9)),
                reports: Default::default(),
            }
        };
        let world = |restore, end: &str| World {
            restore,
            set: Some(super::super::hosting::SetView {
                annotations: [(
                    super::super::records::OUTCOME.to_owned(),
                    format!(r#"{{"attempt":"{end}","outcome":"committed"}}"#),
                )]
                .into(),
                ..Default::default()
            }),
        };
        let remembered = Remembered {
            restore: RestoreRef {
                uid: "u".into(),
                ..RestoreRef::default()
            },
            attempt: Some(attempt(Step::Restarting, Some(Outcome::Committed), 8)),
            end_before: "before".into(),
            ..Remembered::default()
        };
        let goes_by = |world: &World| orders(&remembered, Some(world));
        for end in ["a", "before"] {
            let mine = world(Some(restore(Step::Completed)), end);
            assert!(matches!(goes_by(&mine), Orders::Obey { .. }), "{end}");
        }
        // Whether its own restore is still there or not.
        for own in [Some(restore(Step::Completed)), None] {
            let later = world(own, "later");
            assert!(matches!(goes_by(&later), Orders::Superseded(mine) if mine.is_forward()),);
        }
        let open = world(Some(restore(Step::Restarting)), "later");
        assert!(matches!(goes_by(&open), Orders::Obey { .. }));
    }

    fn peer(id: &str, step: &str) -> SelfReport {
        SelfReport {
            attempt: Some(id.into()),
            step: Some(step.into()),
            ..SelfReport::default()
        }
    }

    #[test]
    fn an_orphaned_attempt_is_committed_where_anybody_saw_it_so_and_needs_a_majority_to_go_back() {
        let mine = attempt(Step::Starting, None, 7);
        assert_eq!(settle(&mine, [].iter(), 3), None, "alone of three");
        assert_eq!(settle(&mine, [].iter(), 1), Some(Outcome::RolledBack));
        let quiet = [peer("a", "Starting")];
        assert_eq!(settle(&mine, quiet.iter(), 3), Some(Outcome::RolledBack));
        for step in ["Committed", "Restarting", COMMITTED_UNPAUSING, "Completed"] {
            let seen = [peer("a", step)];
            assert_eq!(
                settle(&mine, seen.iter(), 3),
                Some(Outcome::Committed),
                "{step}"
            );
            let other = [peer("b", step)];
            assert_eq!(
                settle(&mine, other.iter(), 3),
                Some(Outcome::RolledBack),
                "{step}"
            );
        }
        let own = attempt(Step::Committed, Some(Outcome::Committed), 9);
        assert_eq!(settle(&own, [].iter(), 3), Some(Outcome::Committed));
    }

    #[test]
    fn a_state_of_another_cluster_is_put_aside_before_its_member_joins_a_restore() {
        let other = Carried::Cluster {
            cluster_id: "abc".parse().unwrap(),
            member_id: "1".parse().unwrap(),
        };
        let none = Remembered::default();
        let joined = Remembered {
            attempt: Some(attempt(Step::Preflight, None, 1)),
            ..Remembered::default()
        };
        let asks = |step, remembered, carried, stands| {
            joins(remembered, &attempt(step, None, 1), carried, stands)
        };
        let first = Step::Preflight;
        assert!(!asks(first, &none, &other, Some("def")));
        assert!(asks(first, &none, &other, Some("abc")));
        assert!(asks(first, &none, &Carried::Absent, Some("def")));
        for unknown in [Some(""), None] {
            assert!(asks(first, &none, &other, unknown));
        }
        assert!(asks(first, &joined, &other, Some("def")));
        for step in Step::ALL.iter().filter(|step| **step != first) {
            assert!(asks(*step, &none, &other, Some("def")), "the fence holds");
        }
    }

    #[test]
    fn without_the_api_the_last_decision_is_obeyed_and_nothing_else() {
        let remembered = Remembered {
            attempt: Some(attempt(Step::Swapping, None, 5)),
            ..Remembered::default()
        };
        assert!(
            matches!(orders(&remembered, None), Orders::Obey { attempt, .. } if attempt.step() == Step::Swapping)
        );
        let closed = Remembered {
            closed: true,
            ..remembered.clone()
        };
        assert_eq!(orders(&closed, None), Orders::Idle);
        assert_eq!(orders(&remembered, Some(&World::default())), Orders::Settle);
    }

    #[test]
    fn no_empty_cluster_is_made_but_when_told_and_never_twice() {
        let absent = Carried::Absent;
        let standing = |new_cluster, bootstrapped, stands| Standing {
            carried: &absent,
            stands,
            peers: &[],
            voters: 3,
            new_cluster,
            bootstrapped,
            new_id: "abc",
        };
        assert_eq!(idle(&standing(true, false, Some(""))), Idle::Bootstrap);
        assert_eq!(
            idle(&standing(true, false, Some("abc"))),
            Idle::Bootstrap,
            "late"
        );
        for (new, before, stands) in [
            (false, false, Some("")),
            (true, true, Some("")),
            (true, true, Some("abc")),
            (true, false, Some("def")),
            (true, false, None),
        ] {
            assert!(matches!(
                idle(&standing(new, before, stands)),
                Idle::Stay(_)
            ));
        }
    }

    #[test]
    fn another_cluster_than_the_one_that_stands_is_never_started() {
        let carried = Carried::Cluster {
            cluster_id: "abc".parse().unwrap(),
            member_id: "1".parse().unwrap(),
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let ask = |stands, peers: &[String]| {
            idle(&Standing {
                carried: &carried,
                stands,
                peers,
                voters: 3,
                new_cluster: true,
                bootstrapped: true,
                new_id: "def",
            })
        };
        assert_eq!(ask(Some("abc"), &[]), Idle::Run);
        assert_eq!(ask(Some(""), &[]), Idle::Run, "the launcher is new here");
        assert!(matches!(ask(Some("def"), &[]), Idle::Stay(_)));
        assert!(matches!(ask(Some("def"), &ids(&["def"])), Idle::Stay(_)));
        assert!(matches!(
            ask(Some("def"), &ids(&["def", "def"])),
            Idle::Aside(_)
        ));
        assert_eq!(ask(None, &ids(&["def"])), Idle::Run, "one of three");
        assert!(matches!(ask(None, &ids(&["def", "def"])), Idle::Stay(_)));
    }
}
