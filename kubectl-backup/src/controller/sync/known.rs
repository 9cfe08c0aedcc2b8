//! What is known of a location's past syncs: which folders gave no object, and whose turn is next. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Markers that are read in one round; the others' turn comes.
const MOST_READ: usize = 1000;

/// A folder that gave no object is looked at again after this; one that may give one any moment each time, for so long.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// What is known of a location's syncs by this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Synced {
    /// The end of the last one.
    pub(super) at: Option<Timestamp>,
    /// Where it looked: what is known of another place does not count.
    pub(super) place: Value,
    /// Uids of objects whose backup the last listing lacked.
    pub(super) missing: BTreeSet<String>,
    /// Folders that gave no object.
    pub(super) passed: BTreeMap<String, Passed>,
    /// The folder that was looked at last.
    pub(super) after: String,
    /// What was told of post hooks that are owed.
    pub(super) owed: Vec<String>,
}

/// A folder that gave no object.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    /// When it was looked at.
    at: Timestamp,
    /// Why, where it is worth a word.
    why: Option<String>,
    /// Since when it was seen without a marker.
    pub(super) unfinished: Option<Timestamp>,
    /// Since when a backup seems to be made in it.
    made: Option<Timestamp>,
}

/// What a folder has that gave no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    /// Something that will give none.
    Other,
    /// The marker of a backup that is not finished: a Velero puts it down before it is done.
    Unfinished,
    /// No marker: a backup is made or removed, or nobody finishes it.
    NoMarker,
}

impl Synced {
    /// Whether a folder gave no object a while ago at most, and will not give one any moment. A time that a wrong clock noted does not count.
    pub(super) fn is_passed(&self, folder: &str, now: Timestamp) -> bool {
        let is_young = |at: Timestamp| at <= now && now.duration_since(at) < AGAIN;
        self.passed
            .get(folder)
            .is_some_and(|passed| is_young(passed.at) && !passed.made.is_some_and(is_young))
    }

    /// Notes that a folder gave no object. Whether that is news.
    pub(super) fn pass(
        &mut self,
        folder: &str,
        why: Option<String>,
        has: Has,
        now: Timestamp,
    ) -> bool {
        let last = self.passed.get(folder);
        let since = |last: Option<Timestamp>| last.unwrap_or(now);
        let is_news = why.is_some() && last.is_none_or(|last| last.why != why);
        let passed = Passed {
            at: now,
            why,
            unfinished: (has == Has::NoMarker)
                .then(|| since(last.and_then(|last| last.unfinished))),
            made: (has != Has::Other).then(|| since(last.and_then(|last| last.made))),
        };
        self.passed.insert(folder.to_owned(), passed);
        is_news
    }

    /// Folders that may give an object, from the last one on.
    pub(super) fn candidates<'f>(
        &self,
        folders: &'f BTreeSet<String>,
        has_object: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<&'f str> {
        let after = self.after.as_str();
        let behind = folders.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let before = folders.range::<str, _>((Bound::Unbounded, Bound::Included(after)));
        let all = behind.chain(before).map(String::as_str);
        all.filter(|folder| !has_object(folder) && !self.is_passed(folder, now))
            .take(MOST_READ)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_looked_at_in_turn_and_those_that_gave_nothing_after_a_while() {
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let folders: BTreeSet<String> = (0..MOST_READ + 3).map(|n| format!("b{n:04}")).collect();
        let mut known = Synced::default();
        let has_object = |folder: &str| folder == "b0001";
        let first = known.candidates(&folders, has_object, now);
        assert_eq!(
            (first[0], first[1], first.len()),
            ("b0000", "b0002", MOST_READ)
        );
        known.after = (*first.last().unwrap()).to_owned();
        // Those behind it come first, then those before it.
        let next = known.candidates(&folders, has_object, now);
        assert_eq!(next[..3], ["b1001", "b1002", "b0000"]);
        assert!(known.pass("b1002", Some("odd".to_owned()), Has::Other, now));
        assert_eq!(
            known.candidates(&folders, has_object, now)[..2],
            ["b1001", "b0000"]
        );
        let later = now + AGAIN;
        assert_eq!(
            known.candidates(&folders, has_object, later)[..2],
            ["b1001", "b1002"]
        );
        // It is told once, and again when it is another reason.
        assert!(!known.pass("b1002", Some("odd".to_owned()), Has::Other, later));
        assert!(known.pass("b1002", Some("odder".to_owned()), Has::Other, later));
        assert!(!known.pass("b1001", None, Has::Unfinished, later));
    }

    #[test]
    fn a_hundred_thousand_folders_keep_none_from_its_turn() {
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let mut folders: BTreeSet<String> = (0..100_000).map(|n| format!("evil-{n}")).collect();
        folders.insert("good".to_owned());
        let mut known = Synced::default();
        let (mut looked, mut told, mut good) = (0, 0, None);
        for round in 0..101 {
            // All that gave nothing are looked at again by then.
            let now = now + AGAIN * round;
            for folder in known.candidates(&folders, |_| false, now) {
                looked += 1;
                known.after = folder.to_owned();
                if folder == "good" {
                    good = Some(round);
                } else {
                    told +=
                        usize::from(known.pass(folder, Some("evil".to_owned()), Has::Other, now));
                }
            }
        }
        assert_eq!((looked, told, good), (101 * MOST_READ, 100_000, Some(100)));
    }

    #[test]
    fn a_folder_without_a_marker_is_known_since_it_was_seen_first() {
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let mut known = Synced::default();
        let since = |known: &Synced| known.passed["b"].unfinished;
        known.pass("b", None, Has::NoMarker, now);
        known.pass("b", None, Has::NoMarker, now + AGAIN);
        assert_eq!(since(&known), Some(now));
        known.pass("b", None, Has::Unfinished, now + AGAIN);
        assert_eq!(since(&known), None);
    }

    #[test]
    fn one_that_is_seen_while_it_is_made_is_looked_at_each_time_and_after_a_while_as_all_others() {
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let second = SignedDuration::from_secs(1);
        let mut known = Synced::default();
        for has in [Has::NoMarker, Has::Unfinished] {
            known.pass("b", None, has, now);
            assert!(!known.is_passed("b", now + second), "{has:?}");
        }
        known.pass("b", None, Has::Unfinished, now + AGAIN);
        assert!(known.is_passed("b", now + AGAIN + second));
        assert!(!known.is_passed("b", now + AGAIN + AGAIN));
        known.pass("b", None, Has::Other, now);
        assert!(known.is_passed("b", now + second));
    }
}
