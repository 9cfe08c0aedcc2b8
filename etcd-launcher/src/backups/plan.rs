//! What is to be done about one EtcdBackupConfig: which snapshot is due, which are removed, what its status says. Pure: what was seen goes in, a
//! plan comes out; the clock is an argument.

use backup_core::api::hosted::DeletionPolicy;
use backup_core::api::{EtcdBackupConfig, EtcdBackupConfigStatus, RowPhase, SnapshotRow};
use backup_core::etcd::names;
use backup_core::name::Name;
use backup_core::retention::{self, State};
use backup_core::schedule::{Schedule, anchor};
use jiff::Timestamp;

/// A snapshot that was begun so often without an end is given up.
pub(crate) const MOST_ATTEMPTS: u32 = 3;

/// More rows are not kept: an object has its limit, and what can not be removed may not eat it up.
pub(crate) const MOST_ROWS: usize = 300;

/// What an object of ours carries while its deletion removes snapshots.
pub(crate) const FINALIZER: &str = "etcd-launcher/delete-snapshots";

/// The control plane that this launcher is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plane {
    /// The Cluster's name.
    pub(crate) cluster: String,
    /// The launcher's namespace.
    pub(crate) namespace: String,
    /// Where the Cluster says that its control plane is; nothing where there is no such Cluster.
    pub(crate) lives_in: Option<String>,
    /// The restore that has the cluster.
    pub(crate) restoring: Option<String>,
    /// Whether somebody paused the cluster.
    pub(crate) paused: bool,
}

/// What is known of the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nobody looked yet, or the hosting API did not say.
    Unknown,
    /// It can be opened.
    Ready,
    /// It can not, for this reason.
    Unusable(String),
}

/// All that a plan is made from.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) config: &'a EtcdBackupConfig,
    /// Fields of its spec that nobody knows.
    pub(crate) unknown: &'a [String],
    pub(crate) plane: &'a Plane,
    pub(crate) place: &'a Place,
    /// Whether this launcher is taking a snapshot for it.
    pub(crate) taking: bool,
    pub(crate) now: Timestamp,
}

/// A snapshot that is to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) slot: Timestamp,
    pub(crate) name: Name,
    /// Counted from 1: whoever began it before did not end it.
    pub(crate) attempt: u32,
    /// `jobName` of the row that is taken up.
    pub(crate) before: Option<String>,
}

/// What comes next for a config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To be taken.
    pub(crate) take: Option<Due>,
    /// A slot that passes without a snapshot, and why.
    pub(crate) fail: Option<(Due, String)>,
    /// Names to be removed from the store.
    pub(crate) remove: Vec<String>,
    /// Names of rows that say nothing any more.
    pub(crate) forget: Vec<String>,
    /// Snapshots whose rows go although they stay in the store.
    pub(crate) leave: Vec<String>,
    /// Whether the finalizer should be there.
    pub(crate) finalizer: bool,
    /// Whether a snapshot that is under way should end.
    pub(crate) cancel: bool,
    /// What the status says besides its rows.
    pub(crate) told: Told,
}

/// What the status says besides its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// SchedulingActive: status, reason, message.
    pub(crate) scheduling: Verdict,
    /// DestinationReady, where it is known.
    pub(crate) destination: Option<Verdict>,
    pub(crate) next: Option<Timestamp>,
    pub(crate) message: String,
}

/// A condition without its times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) yes: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Verdict {
    fn yes(reason: &'static str) -> Self {
        Self {
            yes: true,
            reason,
            message: String::new(),
        }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            yes: false,
            reason,
            message: message.into(),
        }
    }
}

/// Which launcher takes a snapshot, and for the how manyth time somebody does: `jobName` of its row.
pub(crate) fn job(me: &str, attempt: u32) -> String {
    format!("{me}/{attempt}")
}

fn attempt_of(job: &str) -> u32 {
    job.rsplit_once('/')
        .and_then(|(_, attempt)| attempt.parse().ok())
        .unwrap_or(1)
}

/// Plans.
pub(crate) fn plan(seen: &Seen<'_>) -> Plan {
    let config = seen.config;
    let empty = EtcdBackupConfigStatus::default();
    let rows = config.status.as_ref().unwrap_or(&empty).rows();
    let deletes = config.spec.deletion_policy == DeletionPolicy::Delete;
    if config.metadata.deletion_timestamp.is_some() {
        return leaving(rows, deletes);
    }
    let mut plan = Plan {
        finalizer: deletes,
        ..Plan::default()
    };
    plan.told.destination = match seen.place {
        Place::Unknown => None,
        Place::Ready => Some(Verdict::yes("Found")),
        Place::Unusable(why) => Some(Verdict::no("Unusable", why)),
    };
    let schedule = match understood(seen) {
        Ok(schedule) => schedule,
        Err(verdict) => {
            plan.finalizer = deletes && rows.iter().any(is_in_store);
            plan.told.message.clone_from(&verdict.message);
            plan.told.scheduling = verdict;
            return plan;
        }
    };
    plan.told.scheduling = Verdict::yes(if schedule.is_some() {
        "Scheduled"
    } else {
        "Once"
    });
    let due = due(seen, schedule.as_ref(), rows, &mut plan.told.next);
    if let Some(verdict) = held_up(seen.plane) {
        plan.cancel = seen.plane.restoring.is_some();
        plan.told.message.clone_from(&verdict.message);
        plan.told.scheduling = verdict;
        return plan;
    }
    match (due, seen.place) {
        _ if seen.taking => {}
        (None, _) | (Some(_), Place::Unknown) => {}
        (Some(due), _) if due.attempt > MOST_ATTEMPTS => {
            let why = format!(
                "given up: {} launchers ended while they took it, the last one was {}",
                due.attempt - 1,
                due.before.as_deref().unwrap_or_default()
            );
            plan.fail = Some((due, why));
        }
        (Some(due), Place::Ready) => plan.take = Some(due),
        // A request for one snapshot waits for its destination; a slot of a schedule passes, and the next one comes.
        (Some(due), Place::Unusable(why)) if schedule.is_some() => {
            plan.fail = Some((due, why.clone()));
        }
        (Some(_), Place::Unusable(_)) => {}
    }
    if schedule.is_some() {
        retire(rows, retention::keep(config.spec.keep), &mut plan);
    } else {
        // The row of a request for one snapshot stays: without it the snapshot would be taken again.
        plan.remove = names_of(rows, |row| state(row) == State::Leaving);
    }
    plan.told.message = message(seen, rows);
    plan
}

/// A config that is being deleted: its snapshots go with it, or stay.
fn leaving(rows: &[SnapshotRow], deletes: bool) -> Plan {
    let remove = if deletes {
        names_of(rows, is_in_store)
    } else {
        Vec::new()
    };
    Plan {
        finalizer: !remove.is_empty(),
        cancel: true,
        remove,
        told: Told {
            scheduling: Verdict::no("Deleting", "the object is being deleted"),
            ..Told::default()
        },
        ..Plan::default()
    }
}

fn names_of(rows: &[SnapshotRow], wanted: impl Fn(&SnapshotRow) -> bool) -> Vec<String> {
    let wanted = rows.iter().filter(|row| wanted(row));
    wanted.map(|row| row.backup_name.clone()).collect()
}

fn is_in_store(row: &SnapshotRow) -> bool {
    matches!(state(row), State::Good | State::Leaving)
}

/// The schedule, nothing for one snapshot; or why nothing is taken whatever the clock says.
fn understood(seen: &Seen<'_>) -> Result<Option<Schedule>, Verdict> {
    let (spec, plane) = (&seen.config.spec, seen.plane);
    let invalid = |message: String| Verdict::no("InvalidSpec", message);
    if let Some(field) = seen.unknown.first() {
        return Err(invalid(format!(
            "spec.{field} is no field of an EtcdBackupConfig; there are: {}",
            FIELDS.join(", ")
        )));
    }
    let wrong_place = |message: String| Verdict::no("ClusterNotHere", message);
    if spec.cluster.name != plane.cluster {
        return Err(wrong_place(format!(
            "cluster {:?} is not the one whose control plane is in namespace {}, which is {:?}: apply the object in its own namespace",
            spec.cluster.name, plane.namespace, plane.cluster
        )));
    }
    match &plane.lives_in {
        None => {
            return Err(wrong_place(format!(
                "there is no Cluster {:?}",
                plane.cluster
            )));
        }
        Some(place) if *place != plane.namespace => {
            return Err(wrong_place(format!(
                "the control plane of cluster {:?} is in namespace {place}, and this object in {}: apply it there",
                plane.cluster, plane.namespace
            )));
        }
        Some(_) => {}
    }
    let name = seen.config.metadata.name.as_deref().unwrap_or_default();
    if let Err(e) = names::of(name, seen.now) {
        return Err(invalid(e.sentence()));
    }
    match spec.schedule.as_deref().map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => Schedule::parse(text, spec.time_zone.as_deref())
            .map(Some)
            .map_err(|e| Verdict::no("InvalidSchedule", e.sentence())),
    }
}

/// Fields of a spec.
pub(crate) const FIELDS: [&str; 7] = [
    "name",
    "cluster",
    "schedule",
    "timeZone",
    "keep",
    "destination",
    "deletionPolicy",
];

/// What of the cluster hinders snapshots for a while.
fn held_up(plane: &Plane) -> Option<Verdict> {
    if let Some(restore) = &plane.restoring {
        return Some(Verdict::no(
            "RestoreActive",
            format!("EtcdRestore {restore} is at work: no snapshot is taken before its end"),
        ));
    }
    // Whoever pauses a cluster to repair its etcd by hand does not want the good snapshots pushed out by those of a broken one.
    plane.paused.then(|| {
        Verdict::no(
            "ClusterPaused",
            "the cluster is paused: no snapshot is taken or removed meanwhile",
        )
    })
}

/// The snapshot that is due: one that was begun before all; slots that were missed are one.
fn due(
    seen: &Seen<'_>,
    schedule: Option<&Schedule>,
    rows: &[SnapshotRow],
    next: &mut Option<Timestamp>,
) -> Option<Due> {
    let config = seen.config;
    let name = config.metadata.name.as_deref().unwrap_or_default();
    let created = config.metadata.creation_timestamp.as_ref()?.0;
    let slots = rows.iter().filter_map(|row| row.scheduled_time.as_ref());
    let from = anchor(created, slots.map(|time| time.0), seen.now);
    *next = schedule.and_then(|schedule| schedule.next(from, seen.now));
    let is_open = |row: &&SnapshotRow| {
        matches!(row.backup_phase, RowPhase::Scheduled | RowPhase::Running)
            && row.delete_phase.is_scheduled()
    };
    if let Some(row) = rows.iter().find(is_open) {
        let begun = row.backup_phase == RowPhase::Running;
        return Some(Due {
            slot: row.scheduled_time.as_ref().map_or(created, |time| time.0),
            name: Name::foreign(&row.backup_name).ok()?,
            attempt: if begun {
                attempt_of(&row.job_name).saturating_add(1)
            } else {
                1
            },
            before: Some(row.job_name.clone()),
        });
    }
    let slot = match schedule {
        Some(schedule) => schedule.due(from, seen.now)?,
        None if rows.is_empty() => created,
        None => return None,
    };
    Some(Due {
        slot,
        name: names::of(name, slot).ok()?,
        attempt: 1,
        before: None,
    })
}

fn state(row: &SnapshotRow) -> State {
    match (&row.delete_phase, &row.backup_phase) {
        (RowPhase::Completed, _) => State::Gone,
        (phase, _) if !phase.is_scheduled() => State::Leaving,
        (_, RowPhase::Completed) => State::Good,
        (_, RowPhase::Failed) => State::Failed,
        _ => State::Open,
    }
}

/// What retention asks for.
fn retire(rows: &[SnapshotRow], keep: usize, plan: &mut Plan) {
    let states: Vec<_> = rows
        .iter()
        .map(|row| retention::Row {
            slot: row
                .scheduled_time
                .as_ref()
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            state: state(row),
        })
        .collect();
    let planned = retention::plan(&states, keep);
    let name = |index: &usize| rows[*index].backup_name.clone();
    plan.forget = planned.forget.iter().map(name).collect();
    plan.remove = planned.delete.iter().map(name).collect();
    // The oldest of those that could not be removed for so long.
    let rows_left = rows.len() - plan.forget.len();
    let stuck = rows_left.saturating_sub(MOST_ROWS).min(plan.remove.len());
    plan.leave = plan.remove.drain(..stuck).collect();
}

/// What hinders, or should be known; empty where nothing does.
fn message(seen: &Seen<'_>, rows: &[SnapshotRow]) -> String {
    let mut said = Vec::new();
    if let Place::Unusable(why) = seen.place {
        said.push(why.clone());
    } else if let Some(last) = rows
        .iter()
        .rfind(|row| !matches!(state(row), State::Open | State::Gone))
        && last.backup_phase == RowPhase::Failed
    {
        said.push(format!("the last snapshot failed: {}", last.backup_message));
    }
    let stuck = rows
        .iter()
        .filter(|row| row.delete_phase == RowPhase::Failed);
    if let Some(last) = stuck.clone().next_back() {
        let count = stuck.count();
        said.push(format!(
            "{count} old snapshot{} can not be removed, and new ones are taken all the same: {}",
            if count == 1 { "" } else { "s" },
            last.delete_message
        ));
    }
    if let Some(asked) = seen.config.spec.keep
        && seen.config.spec.schedule.is_some()
    {
        let kept = retention::keep(Some(asked));
        if i64::try_from(kept) != Ok(asked) {
            said.push(format!("keep is {asked}, which counts as {kept}"));
        }
    }
    said.join("; ")
}

#[cfg(test)]
mod tests;
