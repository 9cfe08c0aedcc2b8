//! What is decided next about an attempt: a pure function of the decision that stands, the members' rows and what the coordinator sees. It
//! writes nothing: a decision becomes one when the write of it succeeds, and two coordinators that decide at once do no harm.

mod after;
mod before;
mod inside;

use std::collections::BTreeMap;
use std::time::Duration;

use super::pace::Pace;
use super::plan;
use super::records::{Attempt, EndRecord, Outcome, Report, State, Step};
use after::{committed, restarting, rolling_back, unpausing};
use before::{before, preflight};
use inside::inside;

/// How long is waited for what; measured by who waits, from the moment it saw a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// A launcher whose row does not change for so long is away.
    pub(crate) silence: Duration,
    /// Nothing comes on in Preflight, Planned, Pausing.
    pub(crate) stall: Duration,
    /// Nothing comes on in Watching, Stopping, Swapping.
    pub(crate) short_stall: Duration,
    /// Nothing comes on in Starting.
    pub(crate) start_stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(60),
            stall: Duration::from_secs(600),
            short_stall: Duration::from_secs(60),
            start_stall: Duration::from_secs(300),
        }
    }
}

impl Patience {
    /// At another pace. What waits for etcd itself stays: it takes what it takes.
    pub(crate) fn at(self, pace: Pace) -> Self {
        Self {
            silence: pace.of(self.silence),
            stall: pace.of(self.stall),
            ..self
        }
    }
}

/// What the coordinator's watch of etcd came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Nothing yet.
    #[default]
    Unknown,
    /// Nobody writes.
    Quiet,
    /// Somebody does: the resource of the key.
    Writer(String),
}

/// Whether the control plane is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unpaused {
    /// Not yet.
    #[default]
    No,
    /// It is.
    Yes,
    /// All is put back, and the API server did not get ready.
    NotReady,
}

/// What the coordinator reads besides the restore itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The cluster's annotation names this attempt.
    pub(crate) active: bool,
    /// The restore carries our finalizer.
    pub(crate) finalizer: bool,
    /// The id that stands, on the StatefulSet; empty where it has none.
    pub(crate) cluster_id: String,
    /// The StatefulSet's record of this attempt's end.
    pub(crate) end: Option<EndRecord>,
    /// Members that the StatefulSet is to have.
    pub(crate) replicas: usize,
    /// The StatefulSet is gone, or going.
    pub(crate) set_gone: bool,
    /// The greatest target revision so far.
    pub(crate) target_revision: i64,
    /// Something of this attempt is on a Deployment or on the cluster.
    pub(crate) touched: bool,
    /// Every Deployment is at 0 by this attempt, and no pod of theirs is left.
    pub(crate) paused: bool,
    /// What is not paused yet, for people.
    pub(crate) pausing: String,
    /// The watch.
    pub(crate) watched: Watched,
    /// The way back of the control plane.
    pub(crate) unpaused: Unpaused,
}

/// Everything that a decision is made of.
pub(crate) struct View<'a> {
    /// The decision that stands.
    pub(crate) attempt: &'a Attempt,
    /// All rows, by member.
    pub(crate) reports: &'a BTreeMap<String, Report>,
    /// How long the row of a member has been the same; a member that is not in it: [`View::watched_for`].
    pub(crate) silent: &'a BTreeMap<String, Duration>,
    /// How long this launcher has looked.
    pub(crate) watched_for: Duration,
    /// How long nothing has changed but times.
    pub(crate) stalled: Duration,
    /// The restore is being deleted, or somebody asked to abort it.
    pub(crate) leaving: bool,
    /// What else is known.
    pub(crate) facts: &'a Facts,
    /// How patient to be.
    pub(crate) patience: Patience,
}

/// An effect of the coordinator, done again until it is seen done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// The finalizer goes onto the restore.
    Finalizer,
    /// The old id is written down as the one that stands.
    Standing,
    /// The control plane goes to 0.
    Pause,
    /// etcd is watched for a writer.
    Watch,
    /// The new id is written down as the one that stands, with the outcome.
    Commit,
    /// The outcome "rolled back" is written down.
    RecordBack,
    /// The control plane comes back.
    Unpause,
    /// The cluster is let go, then the restore.
    Release,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// Which.
    pub(crate) step: Step,
    /// With the end in sight.
    pub(crate) outcome: Option<Outcome>,
    /// For people.
    pub(crate) message: String,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing, for this reason.
    Wait(String),
    /// First this.
    Do(Work),
    /// A new step.
    Go(Next),
    /// The kept state of this member is the one that all restore.
    Source(String),
    /// The plan is made, with these members of these voters.
    Plan(plan::Membership),
}

/// A database of a killed etcd may be behind its log by less than this.
pub(crate) const SLACK: i64 = 100_000_000;

/// Decides.
pub(crate) fn decide(view: &View<'_>) -> Decision {
    if let Some(higher) = highest(view)
        && higher > view.attempt.sequence
    {
        return Decision::Wait(format!(
            "a member has seen decision {higher} of this attempt, and this is {}: the hosting API went back in time; nothing is decided any more",
            view.attempt.sequence
        ));
    }
    match view.attempt.step() {
        Step::Preflight => preflight(view),
        Step::Planned | Step::Pausing | Step::Watching => before(view),
        Step::Stopping | Step::Swapping | Step::Starting => inside(view),
        Step::Committed => committed(view),
        Step::Restarting => restarting(view),
        Step::RollingBack => rolling_back(view),
        Step::Unpausing => unpausing(view),
        Step::Completed | Step::RolledBack | Step::Failed => {
            if view.facts.active || view.facts.finalizer {
                Decision::Do(Work::Release)
            } else {
                Decision::Wait(view.attempt.message.clone())
            }
        }
    }
}

fn highest(view: &View<'_>) -> Option<i64> {
    let ours = view
        .reports
        .values()
        .filter(|row| row.attempt == view.attempt.id);
    ours.map(|row| row.sequence).max()
}

/// A member's row, where it answers the decision that stands.
fn row<'a>(view: &'a View<'_>, name: &str) -> Option<&'a Report> {
    view.reports
        .get(name)
        .filter(|row| row.attempt == view.attempt.id && row.sequence == view.attempt.sequence)
}

fn state(view: &View<'_>, name: &str) -> State {
    row(view, name).map_or(State::Working, |row| row.state)
}

fn is_silent(view: &View<'_>, name: &str) -> bool {
    view.silent.get(name).copied().unwrap_or(view.watched_for) >= view.patience.silence
}

fn all(view: &View<'_>, wanted: State) -> bool {
    let members = &view.attempt.members;
    !members.is_empty()
        && members
            .iter()
            .all(|member| state(view, &member.name) == wanted)
}

/// Who is not there yet, for people.
fn awaited(view: &View<'_>, wanted: State) -> String {
    let names = view
        .attempt
        .members
        .iter()
        .filter(|member| state(view, &member.name) != wanted)
        .map(|member| match row(view, &member.name) {
            Some(row) if !row.message.is_empty() => format!("{} ({})", member.name, row.message),
            _ => member.name.clone(),
        });
    names.collect::<Vec<_>>().join(", ")
}

fn go(step: Step, outcome: Option<Outcome>, message: impl Into<String>) -> Decision {
    Decision::Go(Next {
        step,
        outcome,
        message: message.into(),
    })
}

/// Given up before anything was stopped.
fn failed(view: &View<'_>, message: String) -> Decision {
    if view.facts.finalizer || view.facts.touched || view.attempt.step() >= Step::Pausing {
        go(Step::Unpausing, Some(Outcome::Failed), message)
    } else {
        go(Step::Failed, Some(Outcome::Failed), message)
    }
}

fn back(message: impl Into<String>) -> Decision {
    go(Step::RollingBack, Some(Outcome::RolledBack), message)
}

/// A row that ends it, with its reason.
fn spoiler(view: &View<'_>, also_rolled_back: bool) -> Option<String> {
    view.attempt.members.iter().find_map(|member| {
        let row = row(view, &member.name)?;
        let why = match row.state {
            State::Unfit => "can not be restored",
            State::Stuck => "moved nothing, for its directories are not as planned",
            State::NoData => "has lost its data",
            State::RolledBack if also_rolled_back => "has gone back",
            _ => return None,
        };
        Some(format!("member {} {why}: {}", member.name, row.message))
    })
}

#[cfg(test)]
mod tests;
