//! Which backups of ours go: what is expired, and of each schedule what is older than the newest that are kept. Pure: rows in, fates out.
//!
//! A schedule's backups are counted apart for each cluster, plain and encrypted ones together. Good are completed ones; one that is partially failed stays while fewer than
//! `keep` good ones are newer, so that a schedule that never completes keeps its newest. The newest good backup of a schedule (without any, the
//! newest) stays, whatever its age: better an old backup than none. Other tools' backups neither count nor go; nor does one count whose files are lost.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Entry, SCHEDULE_NAME, made_by, names_us};
use crate::apart::Apart;
use crate::api::Phase;
use crate::name::Name;
use crate::retention::{self, State};

/// How many good backups of a schedule stay, at least 1.
#[derive(Clone, Copy, Debug, Default)]
pub enum Keep<'a> {
    /// Their age alone counts.
    #[default]
    Unexpired,
    /// So many of each.
    Each(usize),
    /// So many of those that are named.
    Of(&'a BTreeMap<String, usize>),
}

impl Keep<'_> {
    pub(super) fn of(self, schedule: &str) -> Option<usize> {
        match self {
            Self::Unexpired => None,
            Self::Each(keep) => Some(keep),
            Self::Of(named) => named.get(schedule).copied(),
        }
    }
}

/// A schedule, and the cluster that it is of.
pub(super) type Group = (String, String);

/// Which backup of a location: of one name a plain one and an encrypted one may stand. In the order of names, for these decide of two of one second.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) name: Name,
    pub(super) encrypted: bool,
}

/// What matters here of a backup of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: Id,
    pub(super) of: Option<Group>,
    /// Whether its Secrets are encrypted apart from the rest.
    pub(super) apart: bool,
    /// The cluster, where the marker says it.
    pub(super) cluster: Option<String>,
    pub(super) state: State,
    pub(super) started: Option<Timestamp>,
    pub(super) expiration: Option<Timestamp>,
}

impl Row {
    /// Nothing for another tool's: what has to be cleaned up elsewhere with it, that tool alone knows.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let backup = &entry.backup;
        let (meta, status) = (&backup.metadata, &backup.status);
        let schedule = meta.labels.get(SCHEDULE_NAME);
        let cluster = made_by(entry).map(str::to_owned);
        names_us(backup).then(|| Self {
            id: Id {
                encrypted: entry.encrypted,
                name: entry.name.clone(),
            },
            // One that says so and not what they are is not whole without them either.
            apart: !matches!(Apart::of(backup), Ok(None)),
            of: schedule.map(|schedule| (schedule.clone(), cluster.clone().unwrap_or_default())),
            cluster,
            state: match status.phase {
                Phase::Completed => State::Good,
                Phase::PartiallyFailed => State::Failed,
                _ => State::Open,
            },
            started: status.start_timestamp.or(meta.creation_timestamp),
            expiration: backup.expiration(),
        })
    }

    /// Whether it was made for this schedule.
    pub(super) fn is_of(&self, schedule: &str) -> bool {
        self.of.as_ref().is_some_and(|(name, _)| name == schedule)
    }
}

/// What is to become of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes: it is expired.
    Expired,
    /// It goes: so many newer ones of its schedule stay.
    Beyond,
    /// It is expired and stays: it is the newest good one of its schedule.
    Last,
}

/// Decides; of one schedule alone, where it is named. Who is not in the answer stays.
pub(super) fn fates(
    rows: &[Row],
    keep: Keep<'_>,
    schedule: Option<&str>,
    now: Timestamp,
) -> BTreeMap<Id, Fate> {
    let mut fates = BTreeMap::new();
    let meant = |row: &&Row| schedule.is_none_or(|schedule| row.is_of(schedule));
    let mut groups: BTreeMap<&Group, Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(meant) {
        if row.expiration.is_some_and(|end| end < now) {
            fates.insert(row.id.clone(), Fate::Expired);
        }
        if let Some(of) = &row.of {
            groups.entry(of).or_default().push(row);
        }
    }
    for ((of, _), mut group) in groups {
        // One without a time can not be told old from new: it goes by its expiry alone.
        group.retain(|row| row.started.is_some());
        if let Some(last) = newest(&group) {
            fates
                .entry(last.id.clone())
                .and_modify(|fate| *fate = Fate::Last);
        }
        // What goes anyway is not counted among those that stay.
        group.retain(|row| fates.get(&row.id) != Some(&Fate::Expired));
        let slots: Vec<_> = group
            .iter()
            .filter_map(|row| {
                let state = row.state;
                row.started.map(|slot| retention::Row { slot, state })
            })
            .collect();
        let plan = keep.of(of).map(|keep| retention::plan(&slots, keep));
        if let Some(retention::Plan { delete, forget }) = plan {
            for index in delete.into_iter().chain(forget) {
                fates.insert(group[index].id.clone(), Fate::Beyond);
            }
        }
    }
    fates
}

/// Who has to be whole, lest others go for nothing: of each schedule of which some go, those that are counted and stay.
pub(super) fn leaned_on(rows: &[Row], fates: &BTreeMap<Id, Fate>) -> Vec<Id> {
    let goes = |row: &&Row| matches!(fates.get(&row.id), Some(Fate::Expired | Fate::Beyond));
    let of: BTreeSet<_> = rows
        .iter()
        .filter(goes)
        .filter_map(|row| row.of.as_ref())
        .collect();
    let counts = |row: &&Row| {
        row.state != State::Open
            && row.started.is_some()
            && row.of.as_ref().is_some_and(|group| of.contains(group))
    };
    let leaned = rows.iter().filter(counts).filter(|row| !goes(row));
    leaned.map(|row| row.id.clone()).collect()
}

/// The newest good one; without any, the newest of the others.
fn newest<'r>(group: &[&'r Row]) -> Option<&'r Row> {
    let of = |state: State| {
        let rows = group.iter().filter(move |row| row.state == state);
        rows.max_by_key(|row| row.started).copied()
    };
    of(State::Good).or_else(|| of(State::Failed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn id(name: &str) -> Id {
        Id {
            encrypted: false,
            name: name.parse().unwrap(),
        }
    }

    fn row(name: &str, schedule: &str, state: State, started: i64, expires: Option<i64>) -> Row {
        Row {
            id: id(name),
            of: (!schedule.is_empty()).then(|| (schedule.to_owned(), "c".to_owned())),
            apart: false,
            cluster: Some("c".to_owned()),
            state,
            started: Some(at(started)),
            expiration: expires.map(at),
        }
    }

    fn told(rows: &[Row], keep: Option<usize>, schedule: Option<&str>) -> Vec<(String, Fate)> {
        let keep = keep.map_or(Keep::Unexpired, Keep::Each);
        fates(rows, keep, schedule, at(1000))
            .into_iter()
            .map(|(id, fate)| (id.name.to_string(), fate))
            .collect()
    }

    #[test]
    fn of_each_schedule_and_cluster_the_newest_stay_and_the_newest_good_one_outlives_its_expiry() {
        use State::{Failed, Good};
        let mut elsewhere = row("x1", "s", Good, 1, None);
        elsewhere.of = Some(("s".to_owned(), "other".to_owned()));
        let rows = [
            row("s1", "s", Good, 1, None),
            row("s2", "s", Good, 2, Some(500)),
            row("s3", "s", Good, 3, Some(500)),
            row("s4", "s", Failed, 4, None),
            row("t1", "t", Failed, 1, Some(500)),
            row("t2", "t", Failed, 2, Some(500)),
            row("z", "", Good, 1, Some(500)),
            elsewhere,
        ];
        let of = |list: &[(&str, Fate)]| -> Vec<_> {
            list.iter()
                .map(|(name, fate)| ((*name).to_owned(), *fate))
                .collect()
        };
        let expired = [
            ("s2", Fate::Expired),
            ("s3", Fate::Last),
            ("t1", Fate::Expired),
            ("t2", Fate::Last),
            ("z", Fate::Expired),
        ];
        assert_eq!(told(&rows, None, None), of(&expired));
        assert_eq!(
            told(&rows, Some(1), Some("s")),
            of(&[
                ("s1", Fate::Beyond),
                ("s2", Fate::Expired),
                ("s3", Fate::Last)
            ])
        );
        assert_eq!(
            told(&rows, Some(2), Some("s")),
            of(&[("s2", Fate::Expired), ("s3", Fate::Last)])
        );
        assert_eq!(told(&rows, Some(1), Some("absent")), []);
    }

    #[test]
    fn each_schedule_keeps_as_many_as_are_named_for_it() {
        let rows: Vec<_> = [
            ("s1", "s", 1),
            ("s2", "s", 2),
            ("t1", "t", 1),
            ("t2", "t", 2),
            ("u1", "u", 1),
            ("u2", "u", 2),
        ]
        .into_iter()
        .map(|(name, schedule, at)| row(name, schedule, State::Good, at, None))
        .collect();
        let named = [("s".to_owned(), 1), ("t".to_owned(), 2)].into();
        let fates = fates(&rows, Keep::Of(&named), None, at(1000));
        assert_eq!(fates, [(id("s1"), Fate::Beyond)].into());
    }

    #[test]
    fn plain_and_encrypted_backups_of_a_schedule_are_counted_together() {
        let sealed = |name: &str, started| {
            let mut row = row(name, "s", State::Good, started, None);
            row.id.encrypted = true;
            row
        };
        let rows = [
            row("a", "s", State::Good, 1, None),
            sealed("b", 2),
            row("c", "s", State::Good, 3, None),
            // Both stand under one name.
            sealed("c", 4),
        ];
        let fates = fates(&rows, Keep::Each(2), None, at(1000));
        let goes: Vec<_> = fates.keys().collect();
        assert_eq!(goes, [&rows[0].id, &rows[1].id]);
    }

    #[test]
    fn one_without_a_time_goes_by_its_expiry_alone() {
        let mut timeless = row("a", "s", State::Good, 1, Some(500));
        timeless.started = None;
        let rows = [timeless, row("b", "s", State::Good, 2, None)];
        assert_eq!(
            told(&rows, Some(1), None),
            [("a".to_owned(), Fate::Expired)]
        );
    }

    fn any_row() -> impl Strategy<Value = (u8, State, i64, Option<i64>)> {
        let state = prop_oneof![
            Just(State::Good),
            Just(State::Good),
            Just(State::Failed),
            Just(State::Open)
        ];
        (0_u8..3, state, 0_i64..40, proptest::option::of(0_i64..2000))
    }

    proptest! {
        #[test]
        fn the_newest_good_backup_of_a_schedule_never_goes(
            given in proptest::collection::vec(any_row(), 0..40), keep in proptest::option::of(0_usize..6),
        ) {
            let rows: Vec<_> = given
                .iter()
                .enumerate()
                .map(|(n, (schedule, state, started, expires))| {
                    let schedule = ["", "s", "t"][usize::from(*schedule)];
                    row(&format!("b{n}"), schedule, *state, *started, *expires)
                })
                .collect();
            let each = keep.map_or(Keep::Unexpired, Keep::Each);
            let fates = fates(&rows, each, None, at(1000));
            let goes = |row: &Row| matches!(fates.get(&row.id), Some(Fate::Expired | Fate::Beyond));
            for schedule in ["s", "t"] {
                for wanted in [State::Good, State::Failed] {
                    let of: Vec<_> = rows.iter().filter(|r| r.is_of(schedule) && r.state == wanted).collect();
                    let Some(newest) = of.iter().map(|r| r.started).max() else { continue };
                    prop_assert!(of.iter().any(|r| r.started == newest && !goes(r)));
                    break;
                }
                let unexpired = rows.iter().filter(|r| {
                    r.is_of(schedule) && r.state == State::Good && r.expiration.is_none_or(|end| end >= at(1000))
                });
                let left = unexpired.clone().filter(|r| !goes(r)).count();
                let most = keep.map_or(usize::MAX, |keep| keep.max(1));
                prop_assert!(left <= most);
            }
            for row in rows.iter().filter(|r| r.of.is_none()) {
                prop_assert_eq!(goes(row), row.expiration.is_some_and(|end| end < at(1000)));
            }
        }
    }
}
