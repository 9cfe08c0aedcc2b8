//! From the stop to the commit: whatever is odd leads back.

use super::{Decision, SLACK, View, all, awaited, back, go, row, spoiler};
use crate::run::records::{EndRecord, Outcome, State, Step};

pub(super) fn inside(view: &View<'_>) -> Decision {
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
