//! A restore and a rollback with nobody to ask: one member, etcd stopped, decisions made here. Ends exchanged; whether the started etcd is
//! right is for whoever starts it.

use backup_core::{Error, Result};

use super::asked::Asked;
use super::decide::{self, Found, Restoring, RollingBack};
use super::dir::DataDir;
use super::entry::{Attempt, Former};
use super::exchange;
use super::fence::Stopped;
use super::plan::{self, AttemptId, By, Inputs, Plan, Purpose};
use super::prepare::{self, Prepared};
use super::slots::Truth;
use super::work::Work;

/// What a restore is made with.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// What was asked for.
    pub(crate) asked: Asked,
    /// Why.
    pub(crate) purpose: Purpose,
    /// Who makes it.
    pub(crate) by: By,
    /// The token, where none was asked for.
    pub(crate) token: String,
    /// Every revision that a client may have seen, but those that the journal knows.
    pub(crate) marks: Vec<i64>,
    /// What the old state is, where it can be read.
    pub(crate) former: Option<Former>,
    /// The time, in milliseconds since 1970.
    pub(crate) now_ms: i64,
}

/// What came of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    /// The new state is in place.
    Now(AttemptId),
    /// It was there already, and no etcd has run on it.
    Already(AttemptId),
}

/// How far a restore has come without a stopped etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// [`exchange::exchange`] may follow, or is to be finished.
    ToExchange(AttemptId),
    /// As [`Restored::Already`].
    Already(AttemptId),
}

/// Restores. What was begun before was recovered ([`exchange::recover`]) and is gone on with where it is the same.
///
/// # Errors
/// The old state is in place then; where not, the message says so.
pub(crate) async fn restore(
    dir: &mut DataDir,
    stopped: &(dyn Stopped + Sync),
    wish: Wish,
    work: &mut impl Work,
) -> Result<Restored> {
    match prepare(dir, &wish, work).await? {
        Ready::Already(id) => Ok(Restored::Already(id)),
        Ready::ToExchange(id) => {
            exchange::exchange(dir, &id, stopped, wish.former)?;
            Ok(Restored::Now(id))
        }
    }
}

/// All of a restore that touches nothing of the old state: etcd may run meanwhile.
///
/// # Errors
/// Nothing of what failed stays.
pub(crate) async fn prepare(dir: &mut DataDir, wish: &Wish, work: &mut impl Work) -> Result<Ready> {
    let marks = marks(dir, &wish.marks);
    let last = dir.attempts().last().cloned();
    let known = wish.marks.iter().copied().max().unwrap_or(0);
    let found = last.as_ref().map(|last| found(dir, last)).transpose()?;
    let choice = match wish.purpose {
        Purpose::Restore => decide::restore(found.as_ref(), &wish.asked, wish.by, known)?,
        Purpose::Rollback { .. } => Restoring::Fresh,
    };
    let fresh = |dir: &DataDir| {
        let id = AttemptId::random();
        plan_of(dir, wish, id, wish.token.clone(), marks.clone())
    };
    let plan = match (choice, last) {
        (Restoring::Done, Some(last)) => return Ok(Ready::Already(last.id().clone())),
        (Restoring::GoOn, Some(last)) if last.may_be_exchanged => {
            return Ok(Ready::ToExchange(last.id().clone()));
        }
        (Restoring::GoOn, Some(last)) => last.plan,
        (Restoring::AbandonFirst, Some(last)) => {
            exchange::abandon(dir, last.id(), "another restore was asked for")?;
            fresh(dir)?
        }
        _ => fresh(dir)?,
    };
    let id = plan.attempt.clone();
    let prepared = prepare_all(dir, wish, plan, marks, work).await;
    if let Err(e) = prepared {
        // What failed is given up at once, so that nothing of it stays; that this may fail as well changes nothing.
        let _ = exchange::abandon(dir, &id, &e.to_string());
        return Err(e);
    }
    Ok(Ready::ToExchange(id))
}

async fn prepare_all(
    dir: &mut DataDir,
    wish: &Wish,
    mut plan: Plan,
    mut marks: Vec<i64>,
    work: &mut impl Work,
) -> Result<()> {
    let id = plan.attempt.clone();
    // A snapshot may know a revision that nothing else knew; then the target is raised, once.
    for _ in 0..2 {
        match prepare::prepare(dir, &plan, work).await? {
            Prepared::Proven => return Ok(()),
            Prepared::TargetTooLow(revision) => {
                marks.push(revision);
                plan = plan_of(dir, wish, id.clone(), plan.token, marks.clone())?;
            }
        }
    }
    Err(Error::other(
        "the snapshot's revision changed while it was read",
    ))
}

fn plan_of(
    dir: &DataDir,
    wish: &Wish,
    attempt: AttemptId,
    token: String,
    marks: Vec<i64>,
) -> Result<Plan> {
    plan::plan(Inputs {
        attempt,
        purpose: wish.purpose.clone(),
        by: wish.by,
        asked: wish.asked.clone(),
        old: dir.carried()?,
        token,
        marks,
        now_ms: wish.now_ms,
    })
}

/// What is known of revisions, with what earlier attempts aimed at.
pub(crate) fn marks(dir: &DataDir, known: &[i64]) -> Vec<i64> {
    let attempts = dir.attempts().iter();
    let former = attempts
        .clone()
        .filter_map(|a| Some(a.former.as_ref()?.revision));
    let targets = attempts.map(|a| a.plan.target_revision);
    known.iter().copied().chain(former).chain(targets).collect()
}

/// What the folders say about an attempt.
///
/// # Errors
/// When they can not be read.
pub(crate) fn found(dir: &DataDir, attempt: &Attempt) -> Result<Found> {
    let truth = dir.truth(attempt)?;
    Ok(Found {
        attempt: attempt.clone(),
        truth,
        is_started: truth == Truth::After && prepare::is_started(dir, attempt)?,
    })
}

/// Rolls back as far as that needs nothing but renames; [`RollingBack::Forward`] is left to the caller. What was begun before was
/// recovered.
///
/// # Errors
/// Kind `NotFound` where there is nothing to roll back.
pub(crate) fn rollback(
    dir: &mut DataDir,
    stopped: &dyn Stopped,
    named: Option<&AttemptId>,
    by: By,
) -> Result<RollingBack> {
    let seen = |attempt: Option<&Attempt>| attempt.map(|a| found(dir, a)).transpose();
    let last = seen(dir.attempts().last())?;
    let in_effect = seen(dir.in_effect()?)?;
    let decided = decide::rollback(last.as_ref(), in_effect.as_ref(), named, by)?;
    match &decided {
        RollingBack::Abandon(id) => exchange::abandon(dir, id, "it was rolled back")?,
        RollingBack::Back(id) => exchange::back(dir, id, stopped)?,
        RollingBack::Finish(id) => exchange::exchange(dir, id, stopped, None)?,
        RollingBack::Forward {
            first: Some(first), ..
        } => exchange::abandon(dir, first, "the rollback begins anew")?,
        RollingBack::Forward { first: None, .. } | RollingBack::Done(_) => {}
    }
    Ok(decided)
}
