//! After the commit, and the way back: what is left is finished.

use super::{Decision, Unpaused, View, Work, awaited, go, is_silent, row, state};
use crate::run::records::{Listening, Outcome, State, Step};

pub(super) fn committed(view: &View<'_>) -> Decision {
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

pub(super) fn restarting(view: &View<'_>) -> Decision {
    let members = &view.attempt.members;
    let serving = members
        .iter()
        .filter(|member| state(view, &member.name) == State::Serving)
        .count();
    // The majority is the cluster. Who will not serve by itself is not waited for at all, who does not come on not for ever: the control plane is away.
    let tired = view.stalled >= view.patience.start_stall;
    let passed = members
        .iter()
        .all(|member| match state(view, &member.name) {
            State::Serving | State::SetAside | State::Stuck | State::NoData => true,
            _ => tired || is_silent(view, &member.name),
        });
    if passed && serving > members.len() / 2 {
        let mut message = "the restored etcd serves: bringing the control plane back".to_owned();
        if serving < members.len() {
            message.push_str(&format!("; without {}", awaited(view, State::Serving)));
        }
        return go(Step::Unpausing, Some(Outcome::Committed), message);
    }
    Decision::Wait(format!(
        "waiting for {} to serve",
        awaited(view, State::Serving)
    ))
}

pub(super) fn rolling_back(view: &View<'_>) -> Decision {
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
                row.cluster_id == view.attempt.old_cluster_id && row.listening == Listening::Usual
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

pub(super) fn unpausing(view: &View<'_>) -> Decision {
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
