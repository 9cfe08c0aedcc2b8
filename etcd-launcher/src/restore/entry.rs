//! One line of the journal, and the attempts that the lines tell of.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::Id;
use super::plan::{AttemptId, Plan};
use super::step::Step;

/// What was restored from: known once it is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    /// SHA-256 of the database without its trailer, hex.
    pub(crate) sha256: String,
    /// Its size without the trailer.
    pub(crate) bytes: u64,
    /// Whether it ends with its hash; what is copied out of a data directory does not.
    pub(crate) trailer: bool,
    /// Its greatest revision.
    pub(crate) revision: i64,
    /// All its live keys.
    pub(crate) content: Content,
    /// Its cluster, where its manifest says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<Id>,
    /// The ids of its members.
    #[serde(default)]
    pub(crate) members: Vec<Id>,
}

/// What proves a state whole: its live keys at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Content {
    /// How many.
    pub(crate) keys: u64,
    /// SHA-256 over key, value, create, mod, version and lease of each, hex.
    pub(crate) sha256: String,
}

/// What the old state was, read while etcd was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Former {
    /// Its greatest revision in the database; the write-ahead log may know more.
    pub(crate) revision: i64,
    /// All its live keys at that revision, once they were read: with a control plane that waits, that is after it is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Content>,
    /// The ids of its members: snapshots of its cluster are recognised by them later.
    #[serde(default)]
    pub(crate) members: Vec<Id>,
}

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// When it was written.
    pub(crate) at: Timestamp,
    /// Of which attempt.
    pub(crate) attempt: AttemptId,
    /// What was reached.
    pub(crate) step: Step,
    /// With `Planned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<Box<Plan>>,
    /// With `Fetched`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot: Option<Snapshot>,
    /// With `Proven`: the print of the new state before it was ever started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) print: Option<String>,
    /// With `Exchanging`, where the old state could be read; with a second `Committed`, once all of it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) former: Option<Former>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

impl Entry {
    /// A line that says only how far it came.
    pub(crate) fn new(attempt: &AttemptId, step: Step) -> Self {
        Self {
            at: Timestamp::now(),
            attempt: attempt.clone(),
            step,
            plan: None,
            snapshot: None,
            print: None,
            former: None,
            note: None,
        }
    }
}

/// All that the journal tells of one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// Its newest plan.
    pub(crate) plan: Plan,
    /// How far it came.
    pub(crate) step: Step,
    /// When it was planned first.
    pub(crate) begun: Timestamp,
    /// When it came that far.
    pub(crate) at: Timestamp,
    /// Whether the exchange was ever about to happen.
    pub(crate) may_be_exchanged: bool,
    /// The snapshot, once fetched for this plan.
    pub(crate) snapshot: Option<Snapshot>,
    /// The new state's print, once proven for this plan.
    pub(crate) print: Option<String>,
    /// The old state, once noted.
    pub(crate) former: Option<Former>,
    /// The last reason that was given.
    pub(crate) note: Option<String>,
}

impl Attempt {
    /// Its name.
    pub(crate) fn id(&self) -> &AttemptId {
        &self.plan.attempt
    }

    /// The first line of an attempt; `None` where it has no plan or is about another attempt.
    pub(super) fn begin(entry: &Entry) -> Option<Self> {
        let plan = entry.plan.as_deref()?.clone();
        (plan.attempt == entry.attempt && entry.step.may_follow(None)).then(|| Self {
            plan,
            step: entry.step,
            begun: entry.at,
            at: entry.at,
            may_be_exchanged: false,
            snapshot: None,
            print: None,
            former: None,
            note: entry.note.clone(),
        })
    }

    /// A further line; false where it can not follow.
    pub(super) fn go_on(&mut self, entry: &Entry) -> bool {
        if !entry.step.may_follow(Some(self.step)) {
            return false;
        }
        match (&entry.plan, entry.step) {
            (Some(plan), Step::Planned) if plan.attempt == self.plan.attempt => {
                self.plan = (**plan).clone();
                self.snapshot = None;
                self.print = None;
            }
            (None, step) if step != Step::Planned => {}
            _ => return false,
        }
        self.step = entry.step;
        self.at = entry.at;
        self.may_be_exchanged |= entry.step == Step::Exchanging;
        self.note = entry.note.clone();
        if entry.snapshot.is_some() {
            self.snapshot.clone_from(&entry.snapshot);
        }
        if entry.print.is_some() {
            self.print.clone_from(&entry.print);
        }
        if entry.former.is_some() {
            self.former.clone_from(&entry.former);
        }
        true
    }
}
