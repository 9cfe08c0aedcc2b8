//! What is decided next about an attempt: a pure function of the decision that stands, the members' rows and what the coordinator sees. It
//! writes nothing: a decision becomes one when the write of it succeeds, and two coordinators that decide at once do no harm.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan;
use super::records::{Attempt, EndRecord, Outcome, Report, State, Step, Voter};

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
    /// All of it shorter by so much; for tests.
    pub(crate) fn divided_by(self, hurry: u32) -> Self {
        Self {
            silence: self.silence / hurry,
            stall: self.stall / hurry,
            short_stall: self.short_stall,
            start_stall: self.start_stall,
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

fn preflight(view: &View<'_>) -> Decision {
    if view.leaving {
        return failed(view, "given up before anything was stopped".to_owned());
    }
    let rows: BTreeMap<&str, &Report> = view
        .reports
        .keys()
        .filter_map(|name| Some((name.as_str(), row(view, name)?)))
        .collect();
    if let Some((name, row)) = rows.iter().find(|(_, row)| row.state == State::Unfit) {
        return failed(
            view,
            format!("member {name} can not be restored: {}", row.message),
        );
    }
    let fit: BTreeMap<&str, &Report> = rows
        .into_iter()
        .filter(|(_, row)| row.state == State::Fit)
        .collect();
    let (voters, known) = match plan::voters(&fit) {
        Ok(found) => found,
        Err(why) if view.stalled >= view.patience.stall => return failed(view, why),
        Err(why) => return Decision::Wait(why),
    };
    let is_fit = |voter: &Voter| plan::row_of(voter, &fit).is_some();
    let present = voters.iter().filter(|voter| is_fit(voter)).count();
    let needed = if known {
        voters.len() / 2 + 1
    } else {
        voters.len()
    };
    let missing: Vec<&Voter> = voters.iter().filter(|voter| !is_fit(voter)).collect();
    // Who is at work is waited for: left out, it would lose its place.
    let waited: Vec<&str> = missing
        .iter()
        .filter(|voter| !is_silent(view, &voter.name))
        .map(|voter| voter.name.as_str())
        .collect();
    if !voters.is_empty() && waited.is_empty() && present >= needed {
        return Decision::Plan(plan::Membership { voters });
    }
    let told = format!("{present} of {} members are fit", voters.len());
    if view.stalled >= view.patience.stall
        || (!voters.is_empty() && waited.is_empty() && present < needed)
        || (voters.is_empty() && view.watched_for >= view.patience.stall)
    {
        return failed(view, format!("refused: {told}, {needed} are needed"));
    }
    Decision::Wait(format!("{told}; waiting for {}", waited.join(", ")))
}

fn before(view: &View<'_>) -> Decision {
    let step = view.attempt.step();
    if view.leaving {
        return failed(view, "given up before etcd was stopped".to_owned());
    }
    if let Some(why) = spoiler(view, false) {
        return failed(view, why);
    }
    let patience = if step == Step::Watching {
        view.patience.short_stall
    } else {
        view.patience.stall
    };
    let waiting = match step {
        Step::Planned => {
            if all(view, State::Built) {
                match agreed(view) {
                    Err(why) => return failed(view, why),
                    Ok(()) if !view.facts.finalizer => return Decision::Do(Work::Finalizer),
                    Ok(()) => {}
                }
                let (stands, old) = (&view.facts.cluster_id, &view.attempt.old_cluster_id);
                if stands.is_empty() && !old.is_empty() {
                    return Decision::Do(Work::Standing);
                }
                if !old.is_empty() && stands != old {
                    return failed(
                        view,
                        format!("cluster {stands} stands, and the members hold cluster {old}"),
                    );
                }
                return go(Step::Pausing, None, "pausing the control plane");
            }
            format!(
                "waiting for the new state of {}",
                awaited(view, State::Built)
            )
        }
        Step::Pausing => {
            if view.facts.paused {
                return go(
                    Step::Watching,
                    None,
                    "looking for somebody who still writes",
                );
            }
            if view.stalled < patience {
                return Decision::Do(Work::Pause);
            }
            view.facts.pausing.clone()
        }
        _ => match &view.facts.watched {
            Watched::Quiet => return go(Step::Stopping, None, "stopping etcd"),
            Watched::Writer(what) => {
                return failed(
                    view,
                    format!("somebody still writes {what}; stop it and apply the restore again"),
                );
            }
            // Without a leader nobody writes; a broken etcd must not forbid its own restore.
            Watched::Unknown if nobody_leads(view) => {
                return go(
                    Step::Stopping,
                    None,
                    "no member has a leader: stopping etcd",
                );
            }
            Watched::Unknown if view.stalled < patience => return Decision::Do(Work::Watch),
            Watched::Unknown => "etcd could not be watched".to_owned(),
        },
    };
    if view.stalled >= patience {
        return failed(view, format!("nothing came on: {waiting}"));
    }
    Decision::Wait(waiting)
}

/// Whether all members built the same.
fn agreed(view: &View<'_>) -> Result<(), String> {
    let mut first: Option<&super::records::Expected> = None;
    for member in &view.attempt.members {
        let Some(built) = row(view, &member.name).and_then(|row| row.built.as_ref()) else {
            return Err(format!("member {} does not say what it built", member.name));
        };
        let planned = view.attempt.snapshot.as_ref();
        if planned.is_some_and(|snapshot| !snapshot.digest.same_keys(&built.digest)) {
            return Err(format!(
                "member {} built something else than the snapshot holds",
                member.name
            ));
        }
        match first {
            Some(first) if first.hash_kv_at_t.hash != built.hash_kv_at_t.hash => {
                return Err(format!(
                    "member {} built something else than the others",
                    member.name
                ));
            }
            _ => first = Some(built),
        }
    }
    Ok(())
}

fn nobody_leads(view: &View<'_>) -> bool {
    let members = &view.attempt.members;
    !members.is_empty()
        && members
            .iter()
            .all(|member| row(view, &member.name).is_some_and(|row| row.leaderless))
}

fn inside(view: &View<'_>) -> Decision {
    let step = view.attempt.step();
    if view.leaving {
        return back("given up: going back to the old state");
    }
    if let Some(why) = spoiler(view, true) {
        return back(why);
    }
    let rolled_back = |end: &EndRecord| end.outcome == Some(Outcome::RolledBack);
    if view.facts.end.as_ref().is_some_and(rolled_back) {
        return back("the StatefulSet says that this attempt went back");
    }
    let waiting = match step {
        Step::Stopping if all(view, State::Stopped) => {
            let rows = view.attempt.members.iter();
            let reached = rows
                .filter_map(|member| row(view, &member.name)?.offline.as_ref())
                .map(|offline| offline.revision)
                .max()
                .unwrap_or(0);
            if reached.saturating_add(SLACK) >= view.attempt.target_revision {
                return back(format!(
                    "revision {reached} came too near to the target revision {}; apply the restore again",
                    view.attempt.target_revision
                ));
            }
            return go(Step::Swapping, None, "putting the new state in place");
        }
        Step::Swapping if all(view, State::Swapped) => {
            let wrong = view.attempt.members.iter().find(|member| {
                row(view, &member.name)
                    .is_none_or(|row| row.cluster_id != view.attempt.new_cluster_id)
            });
            if let Some(member) = wrong {
                return back(format!("member {} holds another cluster", member.name));
            }
            return go(Step::Starting, None, "starting the new state, out of reach");
        }
        Step::Starting if all(view, State::Started) => {
            return match verified(view) {
                Ok(()) => go(
                    Step::Committed,
                    Some(Outcome::Committed),
                    "the restored etcd is whole on every member",
                ),
                Err(why) => back(why),
            };
        }
        Step::Stopping => awaited(view, State::Stopped),
        Step::Swapping => awaited(view, State::Swapped),
        _ => awaited(view, State::Started),
    };
    let patience = if step == Step::Starting {
        view.patience.start_stall
    } else {
        view.patience.short_stall
    };
    let waiting = format!("waiting for {waiting}");
    if view.stalled >= patience {
        return back(format!("nothing came on: {waiting}"));
    }
    Decision::Wait(waiting)
}

/// Whether the started members are what was planned, and the same.
fn verified(view: &View<'_>) -> Result<(), String> {
    let attempt = view.attempt;
    let mut ids: Vec<&str> = attempt
        .members
        .iter()
        .map(|member| member.new_member_id.as_str())
        .collect();
    ids.sort_unstable();
    for member in &attempt.members {
        let name = &member.name;
        let Some(started) = row(view, name).and_then(|row| row.started.as_ref()) else {
            return Err(format!("member {name} does not say what it started"));
        };
        if started.cluster_id != attempt.new_cluster_id || !started.members.iter().eq(ids.iter()) {
            return Err(format!(
                "member {name} started in another cluster than planned"
            ));
        }
        if !started.leader {
            return Err(format!("member {name} sees no leader"));
        }
        if !started.alarms.is_empty() {
            return Err(format!(
                "member {name} raises {}",
                started.alarms.join(", ")
            ));
        }
        if started.revision < attempt.target_revision {
            return Err(format!("member {name} is below the target revision"));
        }
        // The hash alone: how far a compaction has come in the background is told beside it, and changes.
        let expected = attempt
            .expected
            .as_ref()
            .map(|expected| expected.hash_kv_at_t.hash);
        if expected != Some(started.hash_kv_at_t.hash) {
            return Err(format!(
                "member {name} holds something else than what was built: its hash at revision {} is {}, not {}",
                attempt.target_revision,
                started.hash_kv_at_t.hash,
                expected.unwrap_or_default()
            ));
        }
    }
    Ok(())
}

fn committed(view: &View<'_>) -> Decision {
    match view.facts.end.as_ref().and_then(|end| end.outcome) {
        Some(Outcome::Committed) if view.facts.cluster_id == view.attempt.new_cluster_id => go(
            Step::Restarting,
            Some(Outcome::Committed),
            "opening etcd to its clients, one member after the other",
        ),
        Some(Outcome::RolledBack | Outcome::Failed) => Decision::Wait(
            "the StatefulSet says that this attempt went back; nothing is decided any more"
                .to_owned(),
        ),
        _ if view.facts.set_gone => Decision::Wait("the StatefulSet of etcd is gone".to_owned()),
        _ => Decision::Do(Work::Commit),
    }
}

fn restarting(view: &View<'_>) -> Decision {
    let members = &view.attempt.members;
    let serving = members
        .iter()
        .filter(|member| state(view, &member.name) == State::Serving)
        .count();
    let passed = members
        .iter()
        .all(|member| state(view, &member.name) == State::Serving || is_silent(view, &member.name));
    if passed && serving > members.len() / 2 {
        return go(
            Step::Unpausing,
            Some(Outcome::Committed),
            "the restored etcd serves: bringing the control plane back",
        );
    }
    Decision::Wait(format!(
        "waiting for {} to serve",
        awaited(view, State::Serving)
    ))
}

fn rolling_back(view: &View<'_>) -> Decision {
    let members = &view.attempt.members;
    let count = |wanted: &dyn Fn(&str) -> bool| members.iter().filter(|m| wanted(&m.name)).count();
    let is_back = count(&|name| state(view, name) == State::RolledBack);
    // Who was left out counts where it serves the old state.
    let on_old = view
        .attempt
        .voters
        .iter()
        .filter(|voter| {
            let row = row(view, &voter.name);
            row.is_some_and(|row| {
                row.cluster_id == view.attempt.old_cluster_id
                    && row.listening == super::records::Listening::Usual
            })
        })
        .count();
    let down_before = members.iter().filter(|m| !m.before.serving).count();
    let majority = members.len() / 2 + 1;
    if is_back == members.len()
        || on_old > view.attempt.voters.len() / 2
        || (down_before >= majority && is_back >= majority)
    {
        return go(
            Step::Unpausing,
            Some(Outcome::RolledBack),
            view.attempt.message.clone(),
        );
    }
    Decision::Wait(format!(
        "{}; waiting for {} to go back",
        view.attempt.message,
        awaited(view, State::RolledBack)
    ))
}

fn unpausing(view: &View<'_>) -> Decision {
    let outcome = view.attempt.outcome.unwrap_or(Outcome::Failed);
    // After this write the outcome outlives the restore.
    let recorded = view
        .facts
        .end
        .as_ref()
        .is_some_and(|end| end.outcome.is_some());
    if outcome != Outcome::Committed && view.facts.finalizer && !recorded && !view.facts.set_gone {
        return Decision::Do(Work::RecordBack);
    }
    let end = match outcome {
        Outcome::Committed => Step::Completed,
        Outcome::RolledBack => Step::RolledBack,
        Outcome::Failed => Step::Failed,
    };
    match view.facts.unpaused {
        Unpaused::No => Decision::Do(Work::Unpause),
        Unpaused::Yes if outcome == Outcome::Committed => go(end, Some(outcome), "restored"),
        Unpaused::Yes => go(end, Some(outcome), view.attempt.message.clone()),
        Unpaused::NotReady => go(
            end,
            Some(outcome),
            format!("{}; the API server did not get ready", view.attempt.message),
        ),
    }
}

#[cfg(test)]
mod tests;
