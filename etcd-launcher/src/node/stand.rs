//! Where a node stands, by what was found, and what can be done now: the table in `node.rs`, as a pure function.

use serde::Serialize;

use super::folders::{Place, Record};
use crate::restore::asked::Asked;
use crate::restore::decide::Found;
use crate::restore::plan::{AttemptId, By, Purpose};
use crate::restore::slots::Truth;
use crate::restore::step::Step;

/// A state of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Stand {
    /// Nothing is under way.
    Idle,
    /// A restore is built in part or whole; the node is untouched.
    Prepared,
    /// Fenced by itself.
    Fenced,
    /// The control plane is being stopped, or is stopped, for an attempt.
    Stopping,
    /// The exchange was announced.
    Exchanging,
    /// The new state is in place and nobody has seen it.
    Exchanged,
    /// etcd is started on the new state.
    Starting,
    /// The new state is proven and stays; the rest of the control plane comes back.
    Committed,
    /// The attempt ended with the old state in place.
    GivenUp,
    /// On the way back to the old state.
    RollingBack,
    /// A third state that nobody here made.
    Elsewhere,
}

/// Where the node stands. `last` is the data dir's last attempt.
pub(crate) fn stand(record: Option<&Record>, last: Option<&Found>) -> Stand {
    let fenced_for = record.map(|record| record.attempt.as_ref());
    let Some(found) = last else {
        // A data dir that lost its journal holds nothing that could go on.
        return fenced_for.map_or(Stand::Idle, |_| Stand::Fenced);
    };
    let attempt = &found.attempt;
    match fenced_for {
        None if attempt.plan.by == By::Node
            && !attempt.step.is_final()
            && !attempt.may_be_exchanged =>
        {
            Stand::Prepared
        }
        None => Stand::Idle,
        Some(None) => Stand::Fenced,
        Some(Some(_)) => within(found),
    }
}

fn within(found: &Found) -> Stand {
    let attempt = &found.attempt;
    match (attempt.step, found.truth) {
        (Step::RolledBack | Step::Abandoned, _) => Stand::GivenUp,
        (Step::RollingBack, _) => Stand::RollingBack,
        (_, Truth::Elsewhere) if attempt.may_be_exchanged => Stand::Elsewhere,
        (Step::Committed, _) => Stand::Committed,
        (Step::Starting | Step::Verified, Truth::After) => Stand::Starting,
        (Step::Exchanged, Truth::After) => Stand::Exchanged,
        _ if attempt.may_be_exchanged => Stand::Exchanging,
        _ => Stand::Stopping,
    }
}

/// What can be done now, for people.
pub(crate) fn next(stand: Stand, last: Option<&Found>, etcd: Option<Place>) -> &'static str {
    let goes_forward =
        last.is_some_and(|found| matches!(found.attempt.plan.purpose, Purpose::Rollback { .. }));
    match stand {
        Stand::Idle => "nothing is under way",
        Stand::Prepared => {
            "a restore was begun and the node is untouched: the same `node restore` goes on, `node rollback` gives it up"
        }
        Stand::Fenced => {
            "the control plane is stopped: `node restore` restores etcd, `node start` starts it on the data as they are"
        }
        Stand::Stopping if goes_forward => {
            "the control plane is being stopped for a rollback: `node rollback` goes on"
        }
        Stand::Stopping => {
            "the control plane is being stopped, the old state is in place: the same `node restore` goes on, `node rollback` gives it up and puts the manifests back"
        }
        Stand::Exchanging | Stand::Exchanged | Stand::Starting | Stand::Committed
            if goes_forward =>
        {
            "in the middle of a rollback: start no etcd by hand, `node rollback` goes on"
        }
        Stand::Exchanging => {
            "in the middle of the exchange: start no etcd by hand; the same `node restore` finishes it, `node rollback` undoes it"
        }
        Stand::Exchanged => {
            "the restored state is in place and nothing has run on it: the same `node restore` goes on, `node rollback` exchanges it back"
        }
        Stand::Starting if etcd == Some(Place::In) => {
            "etcd was started on the restored state, the API server was not: the same `node restore` goes on, `node rollback` brings the old state back"
        }
        Stand::Starting => {
            "etcd is about to be started on the restored state: the same `node restore` goes on, `node rollback` brings the old state back"
        }
        Stand::Committed => {
            "restored; the rest of the control plane is coming back: the same `node restore` goes on"
        }
        Stand::GivenUp => {
            "the old state is in place, the control plane is stopped: `node start` starts it, `node restore` begins anew"
        }
        Stand::RollingBack => {
            "in the middle of a rollback: start no etcd by hand, `node rollback` goes on"
        }
        Stand::Elsewhere => {
            "somebody else put a third state into the data dir: move it away or put ours back by hand, then the same command again"
        }
    }
}

/// The attempt that a `node restore` of this goes on with behind its exchange, where it is the one that the fence stands for.
pub(crate) fn goes_on(
    record: Option<&Record>,
    last: Option<&Found>,
    asked: &Asked,
) -> Option<AttemptId> {
    let attempt = &last?.attempt;
    let is_same = attempt.plan.asked == *asked
        && attempt.plan.purpose == Purpose::Restore
        && record?.attempt.as_ref() == Some(attempt.id());
    let stand = stand(record, last);
    let is_behind = matches!(stand, Stand::Exchanged | Stand::Starting | Stand::Committed);
    (is_same && is_behind).then(|| attempt.id().clone())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::restore::decide::tests::attempt;

    const STEPS: [Step; 8] = [
        Step::Fetched,
        Step::Built,
        Step::Proven,
        Step::Exchanging,
        Step::Exchanged,
        Step::Starting,
        Step::Verified,
        Step::Committed,
    ];

    fn found(steps: &[Step], truth: Truth) -> Found {
        Found {
            attempt: attempt(Purpose::Restore, By::Node, steps),
            truth,
            is_started: false,
        }
    }

    fn record(found: Option<&Found>) -> Record {
        Record {
            begun: Timestamp::UNIX_EPOCH,
            attempt: found.map(|f| f.attempt.id().clone()),
        }
    }

    #[test]
    fn every_record_is_a_state_of_the_table() {
        let of = |steps: usize, truth| {
            let found = found(&STEPS[..steps], truth);
            stand(Some(&record(Some(&found))), Some(&found))
        };
        assert_eq!(of(3, Truth::Before), Stand::Stopping);
        assert_eq!(of(4, Truth::Before), Stand::Exchanging);
        assert_eq!(of(4, Truth::Between), Stand::Exchanging);
        assert_eq!(of(4, Truth::After), Stand::Exchanging);
        assert_eq!(of(5, Truth::After), Stand::Exchanged);
        assert_eq!(of(6, Truth::After), Stand::Starting);
        assert_eq!(of(7, Truth::After), Stand::Starting);
        assert_eq!(of(8, Truth::After), Stand::Committed);
        assert_eq!(of(8, Truth::Elsewhere), Stand::Elsewhere);
        let back = found(&[&STEPS[..5], &[Step::RollingBack]].concat(), Truth::After);
        assert_eq!(
            stand(Some(&record(Some(&back))), Some(&back)),
            Stand::RollingBack
        );
        let ended = found(&[Step::Abandoned], Truth::Before);
        assert_eq!(
            stand(Some(&record(Some(&ended))), Some(&ended)),
            Stand::GivenUp
        );
    }

    #[test]
    fn a_fence_that_was_asked_for_by_itself_stands_for_no_attempt() {
        let committed = found(&STEPS, Truth::After);
        assert_eq!(stand(Some(&record(None)), Some(&committed)), Stand::Fenced);
        assert_eq!(stand(Some(&record(None)), None), Stand::Fenced);
        assert_eq!(stand(None, Some(&committed)), Stand::Idle);
        assert_eq!(stand(None, None), Stand::Idle);
        let prepared = found(&STEPS[..3], Truth::Before);
        assert_eq!(stand(None, Some(&prepared)), Stand::Prepared);
    }

    #[test]
    fn only_the_same_restore_goes_on_behind_its_exchange() {
        let same = Asked::example();
        let mut other = same.clone();
        other.snapshot = "/backup/b.db".into();
        for steps in 5..=8 {
            let found = found(&STEPS[..steps], Truth::After);
            let record = record(Some(&found));
            let of = |record, asked| goes_on(record, Some(&found), asked).is_some();
            assert!(of(Some(&record), &same), "{steps}");
            assert!(!of(Some(&record), &other), "{steps}");
            assert!(!of(None, &same), "{steps}: it was finished");
        }
        let early = found(&STEPS[..4], Truth::After);
        assert_eq!(
            goes_on(Some(&record(Some(&early))), Some(&early), &same),
            None
        );
    }
}
