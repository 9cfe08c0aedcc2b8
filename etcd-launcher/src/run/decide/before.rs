//! Up to the stop: nothing is lost yet, and giving up costs nothing.

use std::collections::BTreeMap;

use super::{Decision, View, Watched, Work, all, awaited, failed, go, is_silent, row, spoiler};
use crate::run::plan;
use crate::run::records::{Expected, Kept, Report, State, Step, Voter};

pub(super) fn preflight(view: &View<'_>) -> Decision {
    if view.leaving {
        return failed(view, "given up before anything was stopped".to_owned());
    }
    let rows: BTreeMap<&str, &Report> = view
        .reports
        .keys()
        .filter_map(|name| Some((name.as_str(), row(view, name)?)))
        .collect();
    let fit: BTreeMap<&str, &Report> = rows
        .iter()
        .filter(|(_, row)| row.state == State::Fit)
        .map(|(name, row)| (*name, *row))
        .collect();
    let agreed = plan::voters(&fit);
    if let Some((name, row)) = rows
        .iter()
        .find(|(name, row)| row.state == State::Unfit && vetoes(view, name, &rows, &agreed))
    {
        return failed(
            view,
            format!("member {name} can not be restored: {}", row.message),
        );
    }
    if let Some(decision) = source(view, &rows) {
        return decision;
    }
    let (voters, known) = match agreed {
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
    let replicas = view.facts.replicas;
    let places = plan::places(&voters, &fit, replicas);
    let open = places.as_deref().unwrap_or_default();
    // Who is at work is waited for: left out, it would lose its place.
    let waited: Vec<&str> = voters
        .iter()
        .chain(open)
        .filter(|voter| !is_fit(voter) && is_awaited(view, &voter.name))
        .map(|voter| voter.name.as_str())
        .collect();
    let mut told = format!("{present} of {} members are fit", voters.len());
    if voters.is_empty() || !waited.is_empty() {
        let is_out = |row: &&Report| matches!(row.state, State::SetAside | State::Unfit);
        let none_comes = !rows.is_empty()
            && rows.values().all(is_out)
            && view.watched_for >= view.patience.silence;
        if view.stalled >= view.patience.stall || (voters.is_empty() && none_comes) {
            let why = rows.iter().filter(|(_, row)| row.state != State::Fit);
            for (name, row) in why {
                told.push_str(&format!("; {name}: {}", row.message));
            }
            return failed(view, format!("refused: {told}"));
        }
        return Decision::Wait(format!("{told}; waiting for {}", waited.join(", ")));
    }
    if present < needed {
        return failed(view, format!("refused: {told}, {needed} are needed"));
    }
    let members = present + open.iter().filter(|place| plan::joins(place, &fit)).count();
    match places {
        Err(why) => failed(view, why),
        Ok(_) if members <= replicas / 2 => failed(
            view,
            format!(
                "refused: {members} of the StatefulSet's {replicas} members are fit, {} are needed",
                replicas / 2 + 1
            ),
        ),
        Ok(places) => Decision::Plan(plan::Membership { voters, places }),
    }
}

/// Whether a member that can not be restored forbids it: one that votes. Who has data does; of who has none that is known once somebody says who
/// votes, or where nobody has any.
fn vetoes(
    view: &View<'_>,
    name: &str,
    rows: &BTreeMap<&str, &Report>,
    agreed: &Result<(Vec<Voter>, bool), String>,
) -> bool {
    let voters = agreed.as_ref().map_or(&[][..], |(voters, _)| voters);
    let has_data = |row: &Report| !row.cluster_id.is_empty();
    let all_told = rows.len() >= view.facts.replicas || view.watched_for >= view.patience.silence;
    rows.get(name).is_some_and(|row| has_data(row))
        || voters.iter().any(|voter| voter.name == name)
        || (all_told && !rows.values().any(|row| has_data(row)))
}

/// Whether a member that is not fit may become so.
fn is_awaited(view: &View<'_>, name: &str) -> bool {
    match row(view, name).map(|row| row.state) {
        Some(State::Unfit) => false,
        // It looks whether its state may be put aside.
        Some(State::SetAside) => view.watched_for < view.patience.silence,
        _ => !is_silent(view, name),
    }
}

/// In a rollback, whose kept state all restore: nothing where no member waits for that to be decided.
fn source(view: &View<'_>, rows: &BTreeMap<&str, &Report>) -> Option<Decision> {
    let kept: BTreeMap<&str, Kept> = rows
        .iter()
        .filter(|(_, row)| row.state == State::Working)
        .filter_map(|(name, row)| Some((*name, row.kept?)))
        .collect();
    if kept.is_empty() || !view.attempt.source.is_empty() {
        return None;
    }
    let voters = kept.values().map(|kept| kept.voters).max().unwrap_or(0);
    let there = kept.values().filter(|kept| kept.index > 0).count();
    // Of two that go equally far, the first by name.
    let furthest = kept.iter().rev().max_by_key(|(_, kept)| **kept);
    let mut told = match voters {
        0 => "no member keeps the state from before".to_owned(),
        _ => format!("{there} of {voters} members keep the state from before"),
    };
    let gone: Vec<&str> = kept
        .iter()
        .filter_map(|(name, kept)| kept.gone.then_some(*name))
        .collect();
    if !gone.is_empty() {
        told.push_str(&format!(
            "; that of {} was removed (`etcd-launcher run` keeps as many as --keep-states says) or moved",
            gone.join(", ")
        ));
    }
    let asked_long = view.watched_for >= view.patience.silence;
    Some(match furthest {
        Some((name, _)) if there == voters && there > 0 => Decision::Source((*name).to_owned()),
        Some((name, _)) if there > voters / 2 && asked_long => Decision::Source((*name).to_owned()),
        _ if asked_long && kept.len() >= voters => failed(
            view,
            format!(
                "refused: {told}; {} are needed to know all that was written",
                voters / 2 + 1
            ),
        ),
        _ if view.stalled >= view.patience.stall => failed(view, format!("refused: {told}")),
        _ => Decision::Wait(format!("{told}; waiting for the others")),
    })
}

pub(super) fn before(view: &View<'_>) -> Decision {
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
    let mut first: Option<&Expected> = None;
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
