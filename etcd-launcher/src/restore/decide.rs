//! What a `restore` or a `rollback` at a terminal means, given what was begun before. Pure: looks at nothing but its arguments.

use backup_core::{Error, Result};

use super::asked::Asked;
use super::entry::Attempt;
use super::plan::{AttemptId, By, Purpose};
use super::revision;
use super::slots::Truth;
use super::step::Step;

/// An attempt as it was found, after [`super::exchange::recover`].
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// What the journal tells.
    pub(crate) attempt: Attempt,
    /// What the folders tell.
    pub(crate) truth: Truth,
    /// Whether etcd ran on its new state; only asked where that is in place.
    pub(crate) is_started: bool,
}

/// What a restore does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restoring {
    /// A new attempt.
    Fresh,
    /// The last one goes on.
    GoOn,
    /// The last one is given up, then a new one.
    AbandonFirst,
    /// It is done already, and etcd has not run since.
    Done,
}

/// Decides about a restore that `by` makes. `mark` is the greatest revision that is known now.
///
/// # Errors
/// Where somebody else's attempt is under way, or another one stands in the middle of its exchange.
pub(crate) fn restore(last: Option<&Found>, asked: &Asked, by: By, mark: i64) -> Result<Restoring> {
    let Some(Found {
        attempt,
        truth,
        is_started,
    }) = last
    else {
        return Ok(Restoring::Fresh);
    };
    if attempt.step.is_final() {
        return Ok(Restoring::Fresh);
    }
    mine(attempt, by)?;
    let is_same = attempt.plan.asked == *asked
        && attempt.plan.purpose == Purpose::Restore
        && attempt.plan.by == by;
    Ok(match truth {
        Truth::Before if is_same && !revision::is_reached(attempt.plan.target_revision, mark) => {
            Restoring::GoOn
        }
        Truth::Before => Restoring::AbandonFirst,
        Truth::Between if is_same => Restoring::GoOn,
        Truth::Between => return Err(between(attempt)),
        Truth::After if is_same && !is_started => Restoring::Done,
        Truth::After => Restoring::Fresh,
        // Somebody made a third state here. Before the exchange that ends the attempt; after it, its old state is kept as it lies.
        Truth::Elsewhere if attempt.may_be_exchanged => Restoring::Fresh,
        Truth::Elsewhere => Restoring::AbandonFirst,
    })
}

/// What a rollback does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RollingBack {
    /// Gives up an attempt that was not exchanged.
    Abandon(AttemptId),
    /// Exchanges back: nobody has seen the new state.
    Back(AttemptId),
    /// Finishes the exchange of a rollback that went forward.
    Finish(AttemptId),
    /// A new attempt, forward, from the state that this attempt replaced.
    Forward {
        /// That attempt.
        of: AttemptId,
        /// An unfinished rollback that is given up first.
        first: Option<AttemptId>,
    },
    /// It is done already.
    Done(AttemptId),
}

/// Decides about a rollback that `by` makes: of the attempt that was named, else of the last one.
///
/// # Errors
/// Kind `NotFound` where there is nothing to roll back.
pub(crate) fn rollback(
    last: Option<&Found>,
    in_effect: Option<&Found>,
    named: Option<&AttemptId>,
    by: By,
) -> Result<RollingBack> {
    let nothing = |why: &str| Error::not_found(format!("there is nothing to roll back: {why}"));
    let Some(last) = last else {
        return Err(nothing("nothing was ever restored here"));
    };
    let found = match named {
        None => last,
        Some(id) if last.attempt.id() == id => last,
        Some(id) => {
            if !last.attempt.step.is_final() && last.truth != Truth::After {
                return Err(
                    Error::invalid(format!("attempt {} is unfinished", last.attempt.id()))
                        .hint("roll that one back first: `rollback` without --attempt"),
                );
            }
            in_effect
                .filter(|found| found.attempt.id() == id)
                .ok_or_else(|| nothing(&format!("attempt {id} is not the one that is in place")))?
        }
    };
    let attempt = &found.attempt;
    let id = attempt.id().clone();
    if !attempt.step.is_final() {
        mine(attempt, by)?;
    }
    let forward = |of: AttemptId, first| Ok(RollingBack::Forward { of, first });
    match (&attempt.plan.purpose, found.truth) {
        _ if matches!(attempt.step, Step::RolledBack | Step::Abandoned) => {
            Ok(RollingBack::Done(id))
        }
        (_, Truth::Elsewhere) if attempt.may_be_exchanged => Err(nothing(&format!(
            "the data dir carries neither state of attempt {id}"
        ))
        .hint("`etcd-launcher status` says what lies where")),
        (Purpose::Restore, Truth::Before | Truth::Elsewhere) => Ok(RollingBack::Abandon(id)),
        (Purpose::Restore, Truth::Between) => Ok(RollingBack::Back(id)),
        (Purpose::Restore, Truth::After) => {
            if found.is_started || attempt.step == Step::Committed {
                forward(id, None)
            } else {
                Ok(RollingBack::Back(id))
            }
        }
        (Purpose::Rollback { of }, Truth::Before | Truth::Elsewhere) => {
            forward(of.clone(), Some(id))
        }
        (Purpose::Rollback { .. }, Truth::Between) => Ok(RollingBack::Finish(id)),
        (Purpose::Rollback { .. }, Truth::After) => Ok(RollingBack::Done(id)),
    }
}

/// What was done at a terminal waits for nobody: anybody at this data dir may go on from it.
fn mine(attempt: &Attempt, by: By) -> Result<()> {
    let (who, how) = match attempt.plan.by {
        By::Offline => return Ok(()),
        moved_by if moved_by == by => return Ok(()),
        By::Node => ("`etcd-launcher node`", "finish or undo it there"),
        By::Run => (
            "the launcher of the whole cluster",
            "its EtcdRestore decides: delete it to have it undone",
        ),
    };
    Err(Error::invalid(format!(
        "attempt {} is under way, and {who} moves it on",
        attempt.id()
    ))
    .hint(how))
}

fn between(attempt: &Attempt) -> Error {
    Error::invalid(format!(
        "attempt {} (from {}) stands in the middle of its exchange",
        attempt.id(),
        attempt.plan.asked.snapshot
    ))
    .hint("finish it by the same command as then, or undo it by `etcd-launcher rollback`; then restore something else")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::entry::Entry;
    use super::super::plan::{self, Plan};
    use super::*;

    pub(crate) fn attempt(purpose: Purpose, by: By, steps: &[Step]) -> Attempt {
        let mut inputs = plan::tests::inputs();
        inputs.purpose = purpose;
        inputs.by = by;
        let plan: Plan = plan::plan(inputs).unwrap();
        let mut entry = Entry::new(&plan.attempt, Step::Planned);
        entry.plan = Some(Box::new(plan.clone()));
        let mut attempt = Attempt::begin(&entry).unwrap();
        for step in steps {
            assert!(attempt.go_on(&Entry::new(&plan.attempt, *step)), "{step:?}");
        }
        attempt
    }

    const EXCHANGED: &[Step] = &[
        Step::Fetched,
        Step::Built,
        Step::Proven,
        Step::Exchanging,
        Step::Exchanged,
    ];

    fn found(attempt: &Attempt, truth: Truth, is_started: bool) -> Found {
        Found {
            attempt: attempt.clone(),
            truth,
            is_started,
        }
    }

    #[test]
    fn the_same_restore_goes_on_or_is_done_and_another_one_begins_anew() {
        let same = Asked::example();
        let mut other = same.clone();
        other.snapshot = "/backup/b.db".into();
        let begun = attempt(Purpose::Restore, By::Offline, &EXCHANGED[..2]);
        let before = found(&begun, Truth::Before, false);
        let target = begun.plan.target_revision;
        let of =
            |f: &Found, asked: &Asked, mark| restore(Some(f), asked, By::Offline, mark).unwrap();
        assert_eq!(of(&before, &same, 5), Restoring::GoOn);
        assert_eq!(of(&before, &same, target), Restoring::AbandonFirst);
        assert_eq!(of(&before, &other, 5), Restoring::AbandonFirst);

        let done = attempt(Purpose::Restore, By::Offline, EXCHANGED);
        let after = |started| found(&done, Truth::After, started);
        assert_eq!(of(&after(false), &same, 5), Restoring::Done);
        assert_eq!(of(&after(true), &same, 5), Restoring::Fresh, "etcd ran");
        assert_eq!(of(&after(false), &other, 5), Restoring::Fresh);
        let between = found(&done, Truth::Between, false);
        assert_eq!(of(&between, &same, 5), Restoring::GoOn);
        assert!(restore(Some(&between), &other, By::Offline, 5).is_err());
        assert_eq!(
            restore(None, &same, By::Offline, 5).unwrap(),
            Restoring::Fresh
        );
    }

    #[test]
    fn a_rollback_undoes_what_nobody_saw_and_goes_forward_where_somebody_may_have() {
        let of = |f: &Found| rollback(Some(f), None, None, By::Offline).unwrap();
        let begun = attempt(Purpose::Restore, By::Offline, &EXCHANGED[..3]);
        let id = begun.id().clone();
        assert_eq!(
            of(&found(&begun, Truth::Before, false)),
            RollingBack::Abandon(id)
        );
        let done = attempt(Purpose::Restore, By::Offline, EXCHANGED);
        let id = done.id().clone();
        let back = RollingBack::Back(id.clone());
        assert_eq!(of(&found(&done, Truth::After, false)), back);
        assert_eq!(of(&found(&done, Truth::Between, false)), back);
        let forward = RollingBack::Forward {
            of: id,
            first: None,
        };
        assert_eq!(of(&found(&done, Truth::After, true)), forward);
        let committed = attempt(
            Purpose::Restore,
            By::Run,
            &[EXCHANGED, &[Step::Committed]].concat(),
        );
        assert!(matches!(
            of(&found(&committed, Truth::After, false)),
            RollingBack::Forward { .. }
        ));
        assert!(rollback(None, None, None, By::Offline).is_err());
        assert!(
            rollback(
                Some(&found(&done, Truth::Elsewhere, true)),
                None,
                None,
                By::Offline
            )
            .is_err()
        );
    }

    #[test]
    fn a_rollback_said_twice_is_done_once() {
        let of = |f: &Found| rollback(Some(f), None, None, By::Offline).unwrap();
        for last in [Step::RolledBack, Step::Abandoned] {
            let steps: &[Step] = match last {
                Step::Abandoned => &[Step::Abandoned],
                _ => &[EXCHANGED, &[Step::RollingBack, Step::RolledBack]].concat(),
            };
            let ended = attempt(Purpose::Restore, By::Offline, steps);
            for truth in [Truth::Before, Truth::Elsewhere] {
                let done = RollingBack::Done(ended.id().clone());
                assert_eq!(of(&found(&ended, truth, false)), done);
            }
        }
        let first = AttemptId::random();
        let purpose = Purpose::Rollback { of: first.clone() };
        let forward = attempt(purpose.clone(), By::Offline, EXCHANGED);
        for started in [true, false] {
            assert_eq!(
                of(&found(&forward, Truth::After, started)),
                RollingBack::Done(forward.id().clone())
            );
        }
        let id = forward.id().clone();
        assert_eq!(
            of(&found(&forward, Truth::Between, false)),
            RollingBack::Finish(id)
        );
        let begun = attempt(purpose, By::Offline, &EXCHANGED[..1]);
        assert_eq!(
            of(&found(&begun, Truth::Before, false)),
            RollingBack::Forward {
                of: first,
                first: Some(begun.id().clone())
            }
        );
    }

    #[test]
    fn what_run_or_node_moves_on_is_left_to_them() {
        for by in [By::Run, By::Node] {
            let begun = attempt(Purpose::Restore, by, &[]);
            let found = found(&begun, Truth::Before, false);
            assert!(restore(Some(&found), &Asked::example(), By::Offline, 5).is_err());
            assert!(rollback(Some(&found), None, None, By::Offline).is_err());
        }
    }

    #[test]
    fn a_node_goes_on_with_its_own_attempts_and_begins_anew_on_what_was_done_at_a_terminal() {
        let same = Asked::example();
        let of = |by, truth| {
            let begun = attempt(Purpose::Restore, by, &EXCHANGED[..2]);
            restore(Some(&found(&begun, truth, false)), &same, By::Node, 5)
        };
        assert_eq!(of(By::Node, Truth::Before).unwrap(), Restoring::GoOn);
        assert_eq!(
            of(By::Offline, Truth::Before).unwrap(),
            Restoring::AbandonFirst
        );
        assert!(of(By::Run, Truth::Before).is_err());
        let done = attempt(Purpose::Restore, By::Offline, EXCHANGED);
        let after = found(&done, Truth::After, false);
        assert_eq!(
            restore(Some(&after), &same, By::Node, 5).unwrap(),
            Restoring::Fresh
        );
        assert_eq!(
            rollback(Some(&after), None, None, By::Node).unwrap(),
            RollingBack::Back(done.id().clone())
        );
    }

    #[test]
    fn an_older_attempt_is_rolled_back_only_by_its_name() {
        let old = attempt(Purpose::Restore, By::Offline, EXCHANGED);
        let new = attempt(Purpose::Restore, By::Offline, &[Step::Abandoned]);
        let last = found(&new, Truth::Elsewhere, false);
        let in_effect = found(&old, Truth::After, true);
        assert_eq!(
            rollback(Some(&last), Some(&in_effect), None, By::Offline).unwrap(),
            RollingBack::Done(new.id().clone())
        );
        assert_eq!(
            rollback(Some(&last), Some(&in_effect), Some(old.id()), By::Offline).unwrap(),
            RollingBack::Forward {
                of: old.id().clone(),
                first: None
            }
        );
    }
}
