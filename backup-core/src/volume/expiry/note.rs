//! What stands beside a repository about what is still to be done in it: which snapshots no backup was seen to name, since when, and who was at work then; and from when on a
//! prune frees space. What a note says is decided on here, without a store's help ([`Orphans::plan`]); anybody may have written it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::layout::VolumeKeys;
use crate::location::Store;

/// What is unnamed is forgotten by a look that is so much later at least.
pub(super) const QUIET: SignedDuration = SignedDuration::from_hours(24);

const ORPHANS: &str = "kubectl-backup/orphans/1";
const RECLAIM: &str = "kubectl-backup/reclaim/1";

/// No note is larger.
const LARGEST: u64 = 4 << 20;

/// When something was seen to be nobody's, and the runs that were at work on a backup then.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Seen {
    seen: Timestamp,
    runs: Vec<String>,
}

impl Seen {
    /// From when on it may go, where it is nobody's still.
    pub(super) fn after(&self) -> Timestamp {
        self.seen.saturating_add(QUIET).unwrap_or(Timestamp::MAX)
    }

    /// Whether it goes now: a day has passed, and whoever may have been about to name it is over.
    fn is_ripe(&self, now: Timestamp, runs: &BTreeSet<String>) -> bool {
        self.after() <= now && !self.runs.iter().any(|run| runs.contains(run))
    }
}

/// Snapshots that were seen together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sighting {
    #[serde(flatten)]
    seen: Seen,
    snapshots: Vec<String>,
}

/// The note of what is nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Orphans {
    #[serde(default)]
    format: String,
    sightings: Vec<Sighting>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    empty: Option<Seen>,
}

/// What is unnamed in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unnamed {
    /// These snapshots.
    Snapshots(Vec<String>),
    /// There is no snapshot, and no backup names one.
    Everything,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// These snapshots go now.
    pub(super) forget: Vec<String>,
    /// The repository goes now, for it has none.
    pub(super) clear: bool,
    /// What was noted before or is now, and waits: how many snapshots, and until when the first of them.
    pub(super) waiting: usize,
    /// Until when at least.
    pub(super) after: Option<Timestamp>,
    /// The note as it is to stand.
    pub(super) note: Orphans,
}

impl Orphans {
    /// Whether it says anything.
    pub(super) fn is_empty(&self) -> bool {
        self.sightings.is_empty() && self.empty.is_none()
    }

    /// The note beside this repository. One that can not be understood says nothing.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn read(store: &Store, keys: &VolumeKeys) -> Result<Self> {
        let bytes = match store.find(&keys.orphans(), LARGEST).await {
            Err(e) if e.kind() == Kind::Corrupt => None,
            bytes => bytes?,
        };
        let read: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let known = read.filter(|note| note.format == ORPHANS);
        Ok(known.map_or_else(Self::default, |note| Self {
            format: String::new(),
            ..note
        }))
    }

    /// Writes it, or removes what says nothing.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn write(&self, store: &Store, keys: &VolumeKeys) -> Result<()> {
        if self.is_empty() {
            return store.delete(&keys.orphans()).await;
        }
        let note = Self {
            format: ORPHANS.to_owned(),
            ..self.clone()
        };
        store.put(&keys.orphans(), json(&note)?).await
    }

    /// What becomes of what is unnamed at this time of the store, with these runs at work. What was noted and is named again is no orphan any more.
    pub(super) fn plan(&self, unnamed: Unnamed, now: Timestamp, runs: &BTreeSet<String>) -> Plan {
        let fresh = Seen {
            seen: now,
            runs: runs.iter().cloned().collect(),
        };
        // What was seen later than now was noted by another clock.
        let is_past = |seen: &&Seen| seen.seen <= now;
        let mut plan = Plan::default();
        let ids = match unnamed {
            Unnamed::Snapshots(ids) => ids,
            Unnamed::Everything => {
                let seen = self.empty.as_ref().filter(is_past).unwrap_or(&fresh);
                plan.clear = seen.is_ripe(now, runs);
                plan.after = (!plan.clear).then(|| seen.after());
                plan.note.empty = Some(seen.clone());
                return plan;
            }
        };
        let mut before: BTreeMap<&str, &Seen> = BTreeMap::new();
        for sighting in self.sightings.iter().filter(|one| is_past(&&one.seen)) {
            let ids = sighting.snapshots.iter();
            before.extend(ids.map(|id| (id.as_str(), &sighting.seen)));
        }
        let mut after: BTreeMap<&Seen, Vec<String>> = BTreeMap::new();
        for id in ids {
            let seen = before.get(id.as_str()).copied().unwrap_or(&fresh);
            after.entry(seen).or_default().push(id);
        }
        for (seen, snapshots) in after {
            if seen.is_ripe(now, runs) {
                plan.forget.extend(snapshots.iter().cloned());
            } else {
                plan.waiting += snapshots.len();
                let first = plan
                    .after
                    .map_or(seen.after(), |first| first.min(seen.after()));
                plan.after = Some(first);
            }
            // What goes is noted until it went.
            plan.note.sightings.push(Sighting {
                seen: seen.clone(),
                snapshots,
            });
        }
        plan
    }
}

#[derive(Serialize, Deserialize)]
struct Reclaim {
    format: String,
    after: Timestamp,
}

/// From when on a prune of this repository makes sense; nothing where none does. One that can not be understood makes sense at once.
///
/// # Errors
/// The store's.
pub(super) async fn due(store: &Store, keys: &VolumeKeys) -> Result<Option<Timestamp>> {
    match store.find(&keys.reclaim(), LARGEST).await {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => {
            let note: Option<Reclaim> = serde_json::from_slice(&bytes).ok();
            let known = note.filter(|note| note.format == RECLAIM);
            Ok(Some(known.map_or(Timestamp::MIN, |note| note.after)))
        }
        Err(e) if e.kind() == Kind::Corrupt => Ok(Some(Timestamp::MIN)),
        Err(e) => Err(e),
    }
}

/// What is written so that a prune comes after this time.
///
/// # Errors
/// When it can not be written as JSON.
pub(in super::super) fn reclaim(after: Timestamp) -> Result<Bytes> {
    json(&Reclaim {
        format: RECLAIM.to_owned(),
        after,
    })
}

fn json<T: Serialize>(note: &T) -> Result<Bytes> {
    let bytes = serde_json::to_vec_pretty(note);
    let bytes = bytes.map_err(|e| Error::other("a note can not be written as JSON").because(e))?;
    Ok(bytes.into())
}
