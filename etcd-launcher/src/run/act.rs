//! What one member does next about the decision that stands: a pure function of the decision, of what lies where in its data dir, and of how its
//! etcd runs. Forward is moved at Swapping alone, and only from the old state to the proven new one; back only when the attempt is
//! decided back. Anything else moves nothing and says so.

use super::records::{Before, Data, Listening, Outcome, State, Step};
use crate::restore::slots::{self, Goal, Slots, Truth};

/// All that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    /// The decision.
    pub(crate) step: Step,
    /// How it ends, where that is decided.
    pub(crate) outcome: Option<Outcome>,
    /// Whether this member is one of the new cluster.
    pub(crate) takes_part: bool,
    /// What it was.
    pub(crate) before: Before,
    /// What lies where.
    pub(crate) slots: Slots,
    /// Whether its side is built, proven and durable.
    pub(crate) proven: bool,
    /// Whether etcd's database is locked by us: no etcd runs on it, and none can.
    pub(crate) held: bool,
    /// How etcd runs.
    pub(crate) etcd: Listening,
    /// Whether it may stop now.
    pub(crate) turn_to_stop: bool,
    /// Whether it may open its usual listeners now.
    pub(crate) turn_to_open: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    /// Looks whether it could be restored.
    Check,
    /// Builds its side, and proves it.
    Build,
    /// Stops etcd, whatever way it runs.
    Stop,
    /// Locks the database of the stopped etcd and reads its revision.
    Hold,
    /// Puts the new state in place.
    Exchange,
    /// Puts the old state in place.
    Back,
    /// Starts etcd where nobody reaches it.
    StartFenced,
    /// Starts etcd as usual.
    StartUsual,
    /// Compares the fenced etcd with the plan, and says `Started` once it agrees.
    Verify,
    /// Removes what was built and is not needed.
    Tidy,
    /// Nothing is left to do: this is said.
    Rest(State, &'static str),
    /// As above, once etcd serves.
    Serve(State),
}

/// Where the decision wants a member to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    OldServing,
    Down,
    Moved,
    NewFenced,
    NewServing,
    Back,
}

fn stand(step: Step, outcome: Option<Outcome>) -> Stand {
    match step {
        Step::Preflight | Step::Planned | Step::Pausing | Step::Watching => Stand::OldServing,
        Step::Stopping => Stand::Down,
        Step::Swapping => Stand::Moved,
        Step::Starting | Step::Committed => Stand::NewFenced,
        Step::Restarting | Step::Completed => Stand::NewServing,
        Step::Unpausing if outcome == Some(Outcome::Committed) => Stand::NewServing,
        Step::Unpausing | Step::RollingBack | Step::RolledBack | Step::Failed => Stand::Back,
    }
}

const STUCK: Act = Act::Rest(State::Stuck, "the directories are not as planned");

/// The next act.
pub(crate) fn act(now: &Situation) -> Act {
    let stand = stand(now.step, now.outcome);
    if !now.takes_part {
        return left_out(now, stand);
    }
    let truth = now.slots.truth();
    let unreachable = slots::next(&now.slots, Goal::New).is_err();
    match stand {
        Stand::OldServing => match truth {
            Truth::Before => before(now),
            _ => STUCK,
        },
        Stand::Down => match truth {
            Truth::Before if !now.proven || unreachable => STUCK,
            Truth::Before if now.etcd != Listening::None && !now.turn_to_stop => {
                Act::Rest(State::Working, "waiting for the others to stop")
            }
            Truth::Before if now.etcd != Listening::None => Act::Stop,
            Truth::Before if !now.held => Act::Hold,
            Truth::Before => Act::Rest(State::Stopped, "etcd is stopped"),
            Truth::Between if unreachable => no_data(),
            _ => STUCK,
        },
        Stand::Moved => match truth {
            Truth::After if now.etcd == Listening::None => {
                Act::Rest(State::Swapped, "the new state is in place")
            }
            // Nothing started it: an etcd runs only by a decision.
            Truth::After => Act::Stop,
            Truth::Before if !now.proven || unreachable => STUCK,
            Truth::Before if now.etcd != Listening::None => Act::Stop,
            Truth::Before if !now.held => Act::Hold,
            Truth::Before => Act::Exchange,
            Truth::Between if unreachable => no_data(),
            Truth::Between if now.etcd != Listening::None => Act::Stop,
            Truth::Between => Act::Exchange,
            Truth::Elsewhere => STUCK,
        },
        Stand::NewFenced => match (truth, now.etcd) {
            (Truth::After, Listening::None) => Act::StartFenced,
            (Truth::After, Listening::Usual) => Act::Stop,
            (Truth::After, Listening::Fenced) if now.step == Step::Starting => Act::Verify,
            (Truth::After, Listening::Fenced) => {
                Act::Rest(State::Started, "the new state runs, out of reach")
            }
            _ if now.step == Step::Committed => set_aside(now),
            (Truth::Between, _) if unreachable => no_data(),
            _ => STUCK,
        },
        Stand::NewServing => match (truth, now.etcd) {
            (Truth::After, Listening::None) => Act::StartUsual,
            (Truth::After, Listening::Fenced) if now.turn_to_open => Act::Stop,
            (Truth::After, Listening::Fenced) => {
                Act::Rest(State::Started, "waiting for its turn to open")
            }
            (Truth::After, Listening::Usual) => Act::Serve(State::Serving),
            _ => set_aside(now),
        },
        Stand::Back => back(now, truth),
    }
}

/// The old state serves; at Planned the new one is built beside it.
fn before(now: &Situation) -> Act {
    if now.before.data == Data::Old && now.etcd == Listening::None {
        return Act::StartUsual;
    }
    match now.step {
        Step::Preflight => Act::Check,
        Step::Planned if !now.proven => Act::Build,
        _ if !now.proven => STUCK,
        _ => Act::Rest(State::Built, "the new state is built"),
    }
}

fn no_data() -> Act {
    Act::Rest(
        State::NoData,
        "there is no state any more, neither the old one nor the new one",
    )
}

/// Committed elsewhere, and not here: this member may not start what it has.
fn set_aside(now: &Situation) -> Act {
    if now.etcd == Listening::None {
        Act::Rest(
            State::SetAside,
            "this member does not hold the cluster that stands",
        )
    } else {
        Act::Stop
    }
}

fn back(now: &Situation, truth: Truth) -> Act {
    let reachable = slots::next(&now.slots, Goal::Old).is_ok();
    match truth {
        Truth::After | Truth::Between if !reachable => STUCK,
        Truth::After | Truth::Between if now.etcd != Listening::None => Act::Stop,
        Truth::After | Truth::Between => Act::Back,
        Truth::Elsewhere => STUCK,
        Truth::Before if now.etcd == Listening::Fenced => Act::Stop,
        Truth::Before if now.step.is_end() && now.slots.side != slots::Content::Absent => Act::Tidy,
        Truth::Before if now.before.data != Data::Old => Act::Rest(
            State::RolledBack,
            "as it was before: it did not serve then either",
        ),
        Truth::Before if now.etcd == Listening::None => Act::StartUsual,
        Truth::Before if now.before.serving => Act::Serve(State::RolledBack),
        Truth::Before => Act::Rest(State::RolledBack, "the old state is in place"),
    }
}

/// A voter that is not of the new cluster: it obeys the fence, and never becomes a second cluster beside the new one.
fn left_out(now: &Situation, stand: Stand) -> Act {
    match stand {
        // It was put aside, or lost its data: it would not come any further, and hold up whatever comes after this.
        Stand::OldServing | Stand::Back
            if now.etcd == Listening::None && now.slots.member != slots::Content::Old =>
        {
            Act::Rest(
                State::Working,
                "left out of the restore, and nothing is here that could be started",
            )
        }
        Stand::OldServing | Stand::Back if now.etcd == Listening::None => Act::StartUsual,
        Stand::OldServing | Stand::Back => Act::Rest(State::Working, "left out of the restore"),
        _ => set_aside(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::slots::Content;

    const PLACES: [Content; 4] = [
        Content::Absent,
        Content::Old,
        Content::New,
        Content::Foreign,
    ];
    const WAYS: [Listening; 3] = [Listening::Usual, Listening::Fenced, Listening::None];

    /// Every situation there is, but for what a member without an old state can not have.
    fn every(mut each: impl FnMut(Situation)) {
        let outcomes = [
            None,
            Some(Outcome::Failed),
            Some(Outcome::RolledBack),
            Some(Outcome::Committed),
        ];
        for &step in Step::ALL {
            for outcome in outcomes {
                if step != Step::Unpausing && outcome.is_some() {
                    continue;
                }
                for etcd in WAYS {
                    for number in 0..4 * 4 * 4 * 3 * 64 {
                        let bit = |at: usize| number >> at & 1 == 1;
                        let rest = number >> 6;
                        let data = [Data::Old, Data::Unreadable, Data::None][rest % 3];
                        let rest = rest / 3;
                        each(Situation {
                            step,
                            outcome,
                            etcd,
                            takes_part: bit(0),
                            proven: bit(1),
                            held: bit(2),
                            turn_to_stop: bit(3),
                            turn_to_open: bit(4),
                            before: Before {
                                data,
                                serving: bit(5),
                            },
                            slots: Slots {
                                member: PLACES[rest % 4],
                                side: PLACES[rest / 4 % 4],
                                aside: PLACES[rest / 16 % 4],
                                had_old: data != Data::None,
                            },
                        });
                    }
                }
            }
        }
    }

    /// The rules of `run.rs`, asked of every situation there is.
    #[test]
    fn nothing_moves_forward_but_at_swapping_and_nothing_back_but_when_it_is_decided_back() {
        every(|now| {
            let act = act(&now);
            let forward = matches!(
                now.step,
                Step::Committed | Step::Restarting | Step::Completed
            ) || (now.step == Step::Unpausing
                && now.outcome == Some(Outcome::Committed));
            match act {
                Act::Exchange => {
                    assert_eq!(now.step, Step::Swapping, "{now:?}");
                    assert_eq!(now.etcd, Listening::None, "{now:?}");
                    assert!(now.takes_part, "{now:?}");
                    let from_old = now.held && now.proven;
                    assert!(from_old || now.slots.truth() == Truth::Between, "{now:?}");
                    assert!(slots::next(&now.slots, Goal::New).is_ok(), "{now:?}");
                }
                Act::Back => {
                    assert!(!forward, "{now:?}");
                    assert!(
                        matches!(
                            now.step,
                            Step::RollingBack | Step::Unpausing | Step::RolledBack | Step::Failed
                        ),
                        "{now:?}"
                    );
                    assert_eq!(now.etcd, Listening::None, "{now:?}");
                }
                Act::Build | Act::Check => {
                    assert!(now.step <= Step::Planned, "{now:?}");
                    assert_eq!(now.slots.truth(), Truth::Before, "{now:?}");
                }
                Act::Tidy => {
                    assert!(now.step.is_end() && !forward, "{now:?}");
                    assert_ne!(now.slots.member, Content::New, "{now:?}");
                }
                _ => {}
            }
        });
    }

    #[test]
    fn no_etcd_is_opened_on_the_new_state_before_commit_nor_on_the_old_one_from_the_stop_to_the_end()
     {
        every(|now| {
            let act = act(&now);
            let committed = matches!(now.step, Step::Restarting | Step::Completed)
                || (now.step == Step::Unpausing && now.outcome == Some(Outcome::Committed));
            if act == Act::StartUsual || matches!(act, Act::Serve(_)) {
                if now.slots.member == Content::New {
                    assert!(committed || !now.takes_part, "{now:?}");
                }
                assert!(
                    !matches!(
                        now.step,
                        Step::Stopping | Step::Swapping | Step::Starting | Step::Committed
                    ),
                    "{now:?}"
                );
                if committed {
                    assert!(
                        now.takes_part && now.slots.member == Content::New,
                        "{now:?}"
                    );
                }
            }
            if act == Act::StartFenced {
                assert!(
                    matches!(now.step, Step::Starting | Step::Committed),
                    "{now:?}"
                );
                assert_eq!(now.slots.member, Content::New, "{now:?}");
            }
        });
    }

    #[test]
    fn who_was_left_out_comes_to_rest_with_whatever_it_holds() {
        every(|now| {
            let is_back = matches!(now.step, Step::RolledBack | Step::Failed);
            if now.takes_part || !is_back || now.etcd != Listening::None {
                return;
            }
            let rests = matches!(act(&now), Act::Rest(State::Working, _));
            assert_eq!(rests, now.slots.member != Content::Old, "{now:?}");
        });
    }

    #[test]
    fn what_is_said_is_true() {
        every(|now| match act(&now) {
            Act::Rest(State::Stopped, _) => {
                assert!(now.held && now.etcd == Listening::None, "{now:?}");
            }
            Act::Rest(State::Swapped, _) => {
                assert_eq!(now.slots.member, Content::New, "{now:?}");
                assert_eq!(now.etcd, Listening::None, "{now:?}");
            }
            Act::Rest(State::Built, _) => assert!(now.proven, "{now:?}"),
            Act::Rest(State::RolledBack, _) | Act::Serve(State::RolledBack) => {
                assert_eq!(now.slots.truth(), Truth::Before, "{now:?}");
                assert_ne!(now.etcd, Listening::Fenced, "{now:?}");
            }
            Act::Rest(State::SetAside | State::NoData, _) if now.takes_part => {
                assert_ne!(now.slots.truth(), Truth::After, "{now:?}");
            }
            _ => {}
        });
    }

    /// Doing what is said, again and again, ends: no act undoes another one of the same decision.
    #[test]
    fn every_decision_comes_to_rest() {
        every(|start| {
            let mut now = start;
            let mut seen = Vec::new();
            loop {
                let next = act(&now);
                if matches!(
                    next,
                    Act::Rest(..) | Act::Serve(_) | Act::Verify | Act::Check
                ) {
                    break;
                }
                assert!(seen.len() < 12, "{start:?} goes on: {seen:?}");
                seen.push(next);
                match next {
                    Act::Build => now.proven = true,
                    Act::Stop => now.etcd = Listening::None,
                    Act::Hold => now.held = true,
                    Act::StartFenced => now.etcd = Listening::Fenced,
                    Act::StartUsual => now.etcd = Listening::Usual,
                    Act::Tidy => now.slots.side = Content::Absent,
                    Act::Exchange => {
                        now.slots.member = Content::New;
                        now.slots.aside = Content::Absent;
                        now.slots.side = if now.slots.had_old {
                            Content::Old
                        } else {
                            Content::Absent
                        };
                    }
                    Act::Back => {
                        now.slots.member = if now.slots.had_old {
                            Content::Old
                        } else {
                            Content::Absent
                        };
                        now.slots.aside = Content::Absent;
                        now.slots.side = Content::Absent;
                    }
                    _ => unreachable!(),
                }
            }
        });
    }
}
