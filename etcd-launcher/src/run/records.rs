//! What is written down about an attempt: the decision in `EtcdRestore.status.attempt`, each member's own row in `.reports`, and the names of
//! the annotations. Values only; who writes them when is [`super::decide`]'s and [`super::act`]'s.
//!
//! Ids of etcd are hexadecimal digits without leading zeros, as etcdctl prints them; an id that is not known is an empty string.

use std::collections::BTreeMap;

use backup_core::etcd::{HashKv, LiveDigest};
use serde::{Deserialize, Serialize};

pub(crate) use super::step::{Outcome, Step};
pub(crate) use backup_core::api::hosted::{ACTIVE, FINALIZER, FORMER_REPLICAS, OUTCOME, PAUSED_BY};

/// On the StatefulSet: the cluster id that stands. Usual listeners open on it alone.
pub(crate) const CLUSTER_ID: &str = "etcd-launcher/cluster-id";
/// On the StatefulSet: names of members that ever started, separated by commas.
pub(crate) const BOOTSTRAPPED: &str = "etcd-launcher/bootstrapped";
/// On the StatefulSet: the greatest target revision of any attempt.
pub(crate) const TARGET_REVISION: &str = "etcd-launcher/target-revision";
/// On an EtcdRestore: ends it before commit, on the way back.
pub(crate) const ABORT: &str = "etcd-launcher/abort";

/// The one decision of an attempt, written by compare-and-swap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Attempt {
    /// A uuid.
    pub(crate) id: String,
    /// One more with each step; a message alone does not raise it.
    pub(crate) sequence: i64,
    /// How far.
    pub(crate) step: Option<Step>,
    /// In Preflight of a rollback: the member whose kept state is the one that all restore.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) source: String,
    /// Which launcher decided.
    pub(crate) decided_by: String,
    /// When, for people.
    pub(crate) decided_at: String,
    /// How it ends, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
    /// What is restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot: Option<SnapshotFacts>,
    /// The old membership.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) voters: Vec<Voter>,
    /// The new membership.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) members: Vec<PlannedMember>,
    /// Voters that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) absent: Vec<String>,
    /// `major.minor` of etcd.
    pub(crate) etcd_version: String,
    /// The id that stood before; empty where no member could tell.
    pub(crate) old_cluster_id: String,
    /// The id of the new cluster.
    pub(crate) new_cluster_id: String,
    /// `--initial-cluster-token` of the new cluster.
    pub(crate) token: String,
    /// The revision at which the new cluster begins.
    pub(crate) target_revision: i64,
    /// What every member must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected: Option<Expected>,
    /// Members in the order in which they open their usual listeners; the last one is also stopped last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) order: Vec<String>,
    /// How the control plane was before the pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) former: Option<Former>,
    /// For people.
    pub(crate) message: String,
}

impl Attempt {
    /// Its step; an attempt without one is not planned yet.
    pub(crate) fn step(&self) -> Step {
        self.step.unwrap_or(Step::Preflight)
    }

    /// The member of this name.
    pub(crate) fn member(&self, name: &str) -> Option<&PlannedMember> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Whether it is committed: from here on nothing leads back.
    pub(crate) fn is_forward(&self) -> bool {
        matches!(
            self.step(),
            Step::Committed | Step::Restarting | Step::Completed
        ) || (self.step() == Step::Unpausing && self.outcome == Some(Outcome::Committed))
    }

    /// `--initial-cluster` of the new cluster.
    pub(crate) fn initial_cluster(&self) -> String {
        let pairs = self.members.iter().flat_map(|member| {
            let urls = member.peer_urls.iter();
            urls.map(|url| format!("{}={url}", member.name))
        });
        pairs.collect::<Vec<_>>().join(",")
    }
}

/// The snapshot, as every member found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SnapshotFacts {
    /// Where it lies, for people.
    pub(crate) source: String,
    /// SHA-256 of the database without its trailer.
    pub(crate) sha256: String,
    /// Over its live keys.
    pub(crate) digest: LiveDigest,
    /// Its greatest revision.
    pub(crate) revision: i64,
}

/// A member of the old cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Voter {
    /// Its id; empty where only arguments name it.
    pub(crate) id: String,
    /// Its name; empty where it never started.
    pub(crate) name: String,
    /// Where its peers reach it, sorted.
    pub(crate) peer_urls: Vec<String>,
}

/// What lay in a member's data dir when the attempt was planned.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Data {
    /// A state of the old cluster.
    #[default]
    Old,
    /// A state whose log can not be read.
    Unreadable,
    /// None.
    None,
}

/// A member before the attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Before {
    /// What it held.
    pub(crate) data: Data,
    /// Whether it served.
    pub(crate) serving: bool,
}

/// A member of the new cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PlannedMember {
    /// Its name.
    pub(crate) name: String,
    /// Where its peers reach it, sorted.
    pub(crate) peer_urls: Vec<String>,
    /// The id in its old log.
    pub(crate) old_member_id: String,
    /// The id it gets.
    pub(crate) new_member_id: String,
    /// What it was.
    pub(crate) before: Before,
}

/// What every member must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Expected {
    /// Over the live keys.
    pub(crate) digest: LiveDigest,
    /// etcd's own hash at the target revision.
    pub(crate) hash_kv_at_t: HashKv,
}

/// The control plane before the pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Former {
    /// Replicas by Deployment, as they were seen when the pause was decided; the annotations say what they were at the very write.
    pub(crate) replicas: BTreeMap<String, i32>,
    /// Whether somebody else had paused the cluster.
    pub(crate) paused: bool,
    /// Why, in their words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) pause_reason: String,
}

/// How far a member is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) enum State {
    /// At work; its message says on what.
    #[default]
    Working,
    /// It could be restored.
    Fit,
    /// It can not be restored; its message says why.
    Unfit,
    /// Its side is there, whole, durable.
    Built,
    /// Its etcd is down and held down.
    Stopped,
    /// The new state stands in its place.
    Swapped,
    /// The new state runs, fenced.
    Started,
    /// Its etcd serves clients.
    Serving,
    /// The old state stands in its place again.
    RolledBack,
    /// It has no data where it should have.
    NoData,
    /// Its directories are not what the decision expects: nothing was moved.
    Stuck,
    /// Its data is not of the cluster that stands; not started.
    SetAside,
}

impl State {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: &[Self] = &[
        Self::Working,
        Self::Fit,
        Self::Unfit,
        Self::Built,
        Self::Stopped,
        Self::Swapped,
        Self::Started,
        Self::Serving,
        Self::RolledBack,
        Self::NoData,
        Self::Stuck,
        Self::SetAside,
    ];
}

/// How etcd listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Listening {
    /// For whom its command line says.
    Usual,
    /// For the launcher.
    Fenced,
    /// It does not run.
    #[default]
    None,
}

/// A member's own row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Report {
    /// Of which attempt.
    pub(crate) attempt: String,
    /// Which process wrote it.
    pub(crate) pod_uid: String,
    /// At which decision.
    pub(crate) sequence: i64,
    /// How far.
    pub(crate) state: State,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    /// The cluster id in its directories.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) cluster_id: String,
    /// In Preflight of a rollback: what it keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<Kept>,
    /// With `Fit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fit: Option<Fit>,
    /// With `Stopped`: the revision of the stopped database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offline: Option<Offline>,
    /// With `Built`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) built: Option<Expected>,
    /// With `Started`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<Started>,
    /// Watching: whether its etcd is down or has no leader.
    pub(crate) leaderless: bool,
    /// How etcd listens.
    pub(crate) listening: Listening,
    /// When, for people; it changes every few seconds as long as the launcher lives.
    pub(crate) at: String,
}

/// What a member keeps of the state that a restore replaced: how far its log goes. All zero where it keeps nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Kept {
    /// Raft term of the last entry.
    pub(crate) term: u64,
    /// Its index.
    pub(crate) index: u64,
    /// Members of the cluster that it is a state of.
    pub(crate) voters: usize,
}

/// What a member found in Preflight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Fit {
    /// Its peer URLs, sorted.
    pub(crate) peer_urls: Vec<String>,
    /// The id in its log.
    pub(crate) member_id: String,
    /// What it is.
    pub(crate) before: Before,
    /// Whether it leads.
    pub(crate) leads: bool,
    /// `major.minor` of its etcd.
    pub(crate) etcd_version: String,
    /// The members it knows; of its arguments where it has no data.
    pub(crate) voters: Vec<Voter>,
    /// Whether [`Fit::voters`] came from etcd or its database.
    pub(crate) voters_known: bool,
    /// Every revision it knows that a client may have seen; the greatest.
    pub(crate) mark: i64,
    /// The snapshot.
    pub(crate) snapshot: SnapshotFacts,
}

/// A stopped database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Offline {
    /// Its greatest revision; 0 where it could not be read.
    pub(crate) revision: i64,
}

/// A member of the new cluster that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Started {
    /// Its cluster's id.
    pub(crate) cluster_id: String,
    /// Whether it sees a leader.
    pub(crate) leader: bool,
    /// Ids of the members it knows, sorted.
    pub(crate) members: Vec<String>,
    /// Its alarms.
    pub(crate) alarms: Vec<String>,
    /// Its revision.
    pub(crate) revision: i64,
    /// etcd's hash at the target revision.
    pub(crate) hash_kv_at_t: HashKv,
}

/// How an attempt ended, as the StatefulSet keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EndRecord {
    /// The attempt.
    pub(crate) attempt: String,
    /// Name of the restore.
    pub(crate) restore: String,
    /// Its uid.
    pub(crate) uid: String,
    /// How it ended.
    pub(crate) outcome: Option<Outcome>,
    /// The id that stands.
    pub(crate) cluster_id: String,
}

/// Who a cluster is taken by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Active {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) attempt: String,
}

impl Active {
    /// Reads the annotation; nothing where it is none of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let active = Self {
            namespace: parts.next()?,
            name: parts.next()?,
            uid: parts.next()?,
            attempt: parts.next()?,
        };
        parts.next().is_none().then_some(active)
    }
}

impl std::fmt::Display for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}",
            self.namespace, self.name, self.uid, self.attempt
        )
    }
}
