//! Which backup is meant where a schedule is named: its newest good one, and of this cluster. Schedules of many clusters have one name, and where
//! their Veleros share a bucket their backups lie side by side: another cluster's is taken only where it is the only one that has any. Pure.
//!
//! A backup of ours says whose it is by [`CLUSTER_UID`]. One of Velero's does not; but the Velero that made it has it as an object with the uid that the
//! marker carries, and one that found it in the bucket has given its object another one. Where neither tells, as with no Velero there, it counts as
//! this cluster's as long as no other cluster has backups of the schedule beside it; where one has, it may be that one's, and counts as a stranger's.

use std::collections::BTreeMap;

use super::{CLUSTER_UID, Entry, SCHEDULE_NAME, names_us};
use crate::api::Phase;

/// Of backups whose cluster is not known, so many are named.
const NAMED: usize = 3;

/// The backups of a schedule, told apart by the clusters that made them.
#[derive(Debug)]
pub enum OfSchedule<'e> {
    /// There are none.
    Nothing,
    /// This cluster has some.
    Own {
        /// The newest good one.
        newest: Option<&'e Entry>,
        /// The newest good ones of others.
        beside: Vec<&'e Entry>,
    },
    /// One other cluster alone has some.
    Other {
        /// The newest good one.
        newest: Option<&'e Entry>,
        /// The newest, whatever became of it.
        last: &'e Entry,
    },
    /// Several others have some, or may have: the newest good ones.
    Several(Vec<&'e Entry>),
}

/// What is known of this cluster, and of a place with backups.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// The uid of its kube-system.
    pub cluster: Option<String>,
    /// Whose folder on this machine the place is.
    pub folder: Option<String>,
    /// The uids of the Backups that its Velero has, by their names.
    pub velero: BTreeMap<String, String>,
}

/// Who made a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Maker<'e> {
    /// This cluster.
    This,
    /// Another one, or this one before it was made anew; its uid, where that is known.
    Another(Option<&'e str>),
    /// Nobody knows.
    Unsaid,
}

impl Here {
    /// Who made it.
    pub fn maker<'e>(&'e self, entry: &'e Entry) -> Maker<'e> {
        if let Some(uid) = made_by(entry).or(self.folder.as_deref()) {
            return match self.cluster.as_deref() == Some(uid) {
                true => Maker::This,
                false => Maker::Another(Some(uid)),
            };
        }
        let object = self.velero.get(entry.name.as_str());
        match (object, &entry.backup.metadata.uid) {
            (Some(object), Some(uid)) if !names_us(&entry.backup) => match object == uid {
                true => Maker::This,
                false => Maker::Another(None),
            },
            _ => Maker::Unsaid,
        }
    }
}

/// Looks at backups that are sorted by their start. Good are completed ones and, where these count too, partially failed ones.
pub fn of_schedule<'e>(
    backups: &'e [Entry],
    schedule: &str,
    here: &'e Here,
    partially_failed: bool,
) -> OfSchedule<'e> {
    let is_of = |entry: &&Entry| {
        let label = entry.backup.metadata.labels.get(SCHEDULE_NAME);
        label.is_some_and(|name| name == schedule)
    };
    let all: Vec<_> = backups.iter().filter(is_of).collect();
    if all.is_empty() {
        return OfSchedule::Nothing;
    }
    let mut groups: BTreeMap<Maker<'_>, Vec<&Entry>> = BTreeMap::new();
    for entry in &all {
        groups.entry(here.maker(entry)).or_default().push(entry);
    }
    if !groups
        .keys()
        .any(|maker| matches!(maker, Maker::Another(_)))
    {
        return OfSchedule::Own {
            newest: good(&all, partially_failed),
            beside: Vec::new(),
        };
    }
    let mine = groups.remove(&Maker::This);
    // What does not name its cluster may be of as many clusters as there are backups.
    let one = groups.len() == 1
        && groups
            .iter()
            .all(|(maker, group)| matches!(maker, Maker::Another(Some(_))) || group.len() == 1);
    let named = groups.iter().flat_map(|(maker, group)| {
        let most = if matches!(maker, Maker::Another(Some(_))) {
            1
        } else {
            NAMED
        };
        goods(group, partially_failed).take(most)
    });
    let mut others: Vec<_> = named.collect();
    others.sort_by(|a, b| a.name.cmp(&b.name));
    let last = groups.values().find_map(|group| group.last().copied());
    match (mine, last) {
        (Some(mine), _) => OfSchedule::Own {
            newest: good(&mine, partially_failed),
            beside: others,
        },
        (None, Some(last)) if one => OfSchedule::Other {
            newest: others.first().copied(),
            last,
        },
        (None, _) => OfSchedule::Several(others),
    }
}

/// The uid of the cluster that made a backup of ours, where it says so.
pub fn made_by(entry: &Entry) -> Option<&str> {
    let uid = entry.backup.metadata.annotations.get(CLUSTER_UID);
    uid.map(String::as_str).filter(|uid| !uid.is_empty())
}

fn good<'e>(group: &[&'e Entry], partially_failed: bool) -> Option<&'e Entry> {
    goods(group, partially_failed).next()
}

/// The newest first.
fn goods<'e>(group: &[&'e Entry], partially_failed: bool) -> impl Iterator<Item = &'e Entry> {
    let is_good = move |entry: &&Entry| match entry.backup.status.phase {
        Phase::Completed => true,
        Phase::PartiallyFailed => partially_failed,
        _ => false,
    };
    group.iter().rev().copied().filter(is_good)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::Backup;

    /// `name schedule cluster phase`, in the order of their starts; `-` is a cluster that is not said.
    fn backups(rows: &[&str]) -> Vec<Entry> {
        let entry = |(at, row): (usize, &&str)| {
            let [name, schedule, cluster, phase] =
                row.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let mut backup = Backup::default();
            let meta = &mut backup.metadata;
            meta.labels
                .insert(SCHEDULE_NAME.to_owned(), schedule.to_owned());
            if cluster != "-" {
                meta.annotations
                    .insert(CLUSTER_UID.to_owned(), cluster.to_owned());
            }
            backup.metadata.uid = Some(format!("uid of {name}"));
            backup.status.phase = serde_json::from_value(phase.into()).unwrap();
            backup.status.start_timestamp = jiff::Timestamp::from_second(at as i64).ok();
            Entry {
                name: name.parse().unwrap(),
                backup,
                raw: Bytes::new(),
                encrypted: false,
            }
        };
        rows.iter().enumerate().map(entry).collect()
    }

    /// Whose, the newest good one, and those beside it.
    fn told(rows: &[&str], own: Option<&str>, partially: bool) -> String {
        let names = |entries: &[&Entry]| -> String {
            let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
            names.join(",")
        };
        let name = |entry: Option<&Entry>| entry.map_or("none".to_owned(), |e| e.name.to_string());
        let here = Here {
            folder: None,
            cluster: own.map(str::to_owned),
            velero: BTreeMap::from([
                ("made-here".to_owned(), "uid of made-here".to_owned()),
                ("found".to_owned(), "another uid".to_owned()),
                ("found2".to_owned(), "one more uid".to_owned()),
            ]),
        };
        match of_schedule(&backups(rows), "nightly", &here, partially) {
            OfSchedule::Nothing => "nothing".to_owned(),
            OfSchedule::Own { newest, beside } => {
                format!("own {} beside {}", name(newest), names(&beside))
            }
            OfSchedule::Other { newest, last } => {
                format!("other {} of {}", name(newest), last.name)
            }
            OfSchedule::Several(others) => format!("several {}", names(&others)),
        }
    }

    #[test]
    fn the_newest_backup_of_a_schedule_is_a_completed_one() {
        let rows = [
            "a nightly - Completed",
            "b nightly - Completed",
            "c nightly - PartiallyFailed",
            "d nightly - InProgress",
            "e nightly - Failed",
            "f weekly - Completed",
        ];
        assert_eq!(told(&rows, Some("1"), false), "own b beside ");
        assert_eq!(told(&rows, None, true), "own c beside ");
        assert_eq!(told(&rows[2..], None, false), "own none beside ");
        assert_eq!(told(&rows[5..], None, true), "nothing");
    }

    #[test]
    fn another_clusters_newer_backup_is_never_taken_for_this_clusters_own() {
        let rows = [
            "a nightly 1 Completed",
            "b nightly - Completed",
            "c nightly 2 Completed",
        ];
        // What does not say whose it is may be the other one's.
        assert_eq!(told(&rows, Some("1"), false), "own a beside b,c");
        assert_eq!(told(&rows[..2], Some("1"), false), "own b beside ");
        // Better none than another one's.
        let failed = ["a nightly 1 Failed", "c nightly 2 Completed"];
        assert_eq!(told(&failed, Some("1"), true), "own none beside c");
    }

    #[test]
    fn another_clusters_is_taken_where_it_alone_has_some_and_none_of_several() {
        let rows = [
            "a nightly 2 Completed",
            "b nightly 2 Failed",
            "c nightly 3 Completed",
            "d nightly - Completed",
        ];
        for own in [Some("1"), None] {
            assert_eq!(told(&rows[..2], own, false), "other a of b");
            // What failed is not proposed.
            assert_eq!(told(&rows[..3], own, false), "several a,c");
            assert_eq!(told(&rows[2..], own, false), "several c,d");
        }
        assert_eq!(told(&rows[1..2], Some("1"), true), "other none of b");
    }

    #[test]
    fn veleros_objects_tell_whose_a_backup_of_veleros_is() {
        let rows = [
            "made-here nightly - Completed",
            "found nightly - Completed",
            "gone nightly - Completed",
        ];
        assert_eq!(
            told(&rows, Some("1"), false),
            "own made-here beside found,gone"
        );
        assert_eq!(told(&rows[1..2], Some("1"), false), "other found of found");
        assert_eq!(told(&rows[1..], Some("1"), false), "several found,gone");
        assert_eq!(told(&rows[2..], Some("1"), false), "own gone beside ");
        // Found ones may be of as many clusters as there are.
        let found = ["found nightly - Completed", "found2 nightly - Completed"];
        assert_eq!(told(&found, Some("1"), false), "several found,found2");
        // What we wrote says so itself: Velero only found it.
        let ours = ["found nightly 1 Completed"];
        assert_eq!(told(&ours, Some("1"), false), "own found beside ");
    }

    #[test]
    fn a_folder_says_whose_the_backups_in_it_are_that_do_not_say_it() {
        let entries = backups(&["a nightly - Completed", "b nightly 2 Completed"]);
        let here = |folder: &str| Here {
            cluster: Some("1".to_owned()),
            folder: Some(folder.to_owned()),
            ..Here::default()
        };
        assert_eq!(here("1").maker(&entries[0]), Maker::This);
        assert_eq!(here("3").maker(&entries[0]), Maker::Another(Some("3")));
        assert_eq!(here("1").maker(&entries[1]), Maker::Another(Some("2")));
    }

    #[test]
    fn an_empty_uid_says_nothing() {
        let mut entries = backups(&["a nightly 1 Completed"]);
        let annotations = &mut entries[0].backup.metadata.annotations;
        annotations.insert(CLUSTER_UID.to_owned(), String::new());
        assert_eq!(made_by(&entries[0]), None);
    }
}
