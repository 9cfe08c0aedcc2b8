//! What an attempt is to do, decided before anything is written: pure, so that the same inputs give the same plan on every member.

use std::fmt;

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::asked::Asked;
use super::ids::{self, Id, Peer};
use super::revision;

/// The name of an attempt: a uuid. It becomes a part of paths, so nothing else passes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct AttemptId(String);

impl AttemptId {
    /// A new one.
    pub(crate) fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for AttemptId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for AttemptId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        match uuid::Uuid::parse_str(&text) {
            Ok(id) if id.to_string() == text => Ok(Self(text)),
            _ => Err(Error::invalid(format!("{text:?} is no id of an attempt"))),
        }
    }
}

impl From<AttemptId> for String {
    fn from(id: AttemptId) -> Self {
        id.0
    }
}

/// What a folder `member` carries, read from its write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub(crate) enum Carried {
    /// There is no folder.
    Absent,
    /// The state of a cluster's member.
    #[serde(rename_all = "camelCase")]
    Cluster {
        /// The cluster's id.
        cluster_id: Id,
        /// The member's id.
        member_id: Id,
    },
    /// There is a folder, and nobody can say whose.
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
}

impl Carried {
    /// The cluster's id, where it could be read.
    pub(crate) fn cluster(&self) -> Option<Id> {
        match self {
            Self::Cluster { cluster_id, .. } => Some(*cluster_id),
            _ => None,
        }
    }

    /// Whether both are the same state, as far as can be told: what is wrong with an unreadable one does not count.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unreadable { .. }, Self::Unreadable { .. }) => true,
            (one, two) => one == two,
        }
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no state"),
            Self::Cluster { cluster_id, .. } => write!(f, "cluster {cluster_id}"),
            Self::Unreadable { why } => write!(f, "an unreadable state ({why})"),
        }
    }
}

/// Why an attempt is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "purpose", rename_all = "camelCase")]
pub(crate) enum Purpose {
    /// A snapshot is restored.
    Restore,
    /// What an attempt replaced is restored, forward.
    Rollback {
        /// That attempt.
        of: AttemptId,
    },
}

/// Who moves an attempt on: nobody else may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum By {
    /// Somebody at a terminal, with `restore` and `rollback`.
    Offline,
    /// `node`, on a control-plane node.
    Node,
    /// `run`, for a whole cluster.
    Run,
}

/// Everything that is decided about an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plan {
    /// The attempt.
    pub(crate) attempt: AttemptId,
    /// Why.
    #[serde(flatten)]
    pub(crate) purpose: Purpose,
    /// Who moves it on.
    pub(crate) by: By,
    /// What was asked for.
    pub(crate) asked: Asked,
    /// What `member` carried.
    pub(crate) old: Carried,
    /// The new cluster's members.
    pub(crate) members: Vec<Peer>,
    /// Which of them this one is.
    pub(crate) name: String,
    /// The new cluster's token.
    pub(crate) token: String,
    /// This member's new id.
    pub(crate) member_id: Id,
    /// The new cluster's id.
    pub(crate) cluster_id: Id,
    /// The revision it starts at.
    pub(crate) target_revision: i64,
}

/// What a plan is made of.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    /// The attempt.
    pub(crate) attempt: AttemptId,
    /// Why.
    pub(crate) purpose: Purpose,
    /// Who moves it on.
    pub(crate) by: By,
    /// What was asked for.
    pub(crate) asked: Asked,
    /// What `member` carries.
    pub(crate) old: Carried,
    /// The token where none was asked for: random.
    pub(crate) token: String,
    /// Every revision that a client may have seen.
    pub(crate) marks: Vec<i64>,
    /// The time, in milliseconds since 1970.
    pub(crate) now_ms: i64,
}

/// Decides.
///
/// # Errors
/// Kind `Invalid`: this member is not one of the cluster, its URLs differ, the target revision can not be, or the new ids are the old ones.
pub(crate) fn plan(inputs: Inputs) -> Result<Plan> {
    let Inputs {
        attempt,
        purpose,
        by,
        asked,
        old,
        token,
        marks,
        now_ms,
    } = inputs;
    let me = asked
        .members
        .iter()
        .find(|peer| peer.name == asked.name)
        .ok_or_else(|| {
            Error::invalid(format!(
                "member {:?} is not in the initial cluster {}",
                asked.name,
                ids::written(&asked.members)
            ))
        })?;
    if me.peer_urls != asked.peer_urls {
        return Err(Error::invalid(format!(
            "the peer URLs of member {:?} are {} in the initial cluster, and {} by themselves",
            asked.name,
            me.peer_urls.join(","),
            asked.peer_urls.join(",")
        ))
        .hint("--initial-advertise-peer-urls has to name the same as --initial-cluster"));
    }
    let token = asked.token.clone().unwrap_or(token);
    if token.is_empty() {
        return Err(Error::invalid("the initial cluster token is empty"));
    }
    let target_revision = match asked.target_revision {
        Some(target) => {
            revision::check(target, &marks)?;
            target
        }
        None => revision::target(&marks, now_ms)?,
    };
    let cluster_id = ids::cluster_id(&asked.members, &token);
    if old.cluster() == Some(cluster_id) {
        return Err(Error::invalid(format!(
            "token {token:?} gives the cluster that is there already, {cluster_id}"
        ))
        .hint("use a token that was never used before, the same on all members"));
    }
    Ok(Plan {
        attempt,
        purpose,
        by,
        member_id: me.id(&token),
        cluster_id,
        members: asked.members.clone(),
        name: asked.name.clone(),
        old,
        token,
        target_revision,
        asked,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn inputs() -> Inputs {
        Inputs {
            attempt: AttemptId::random(),
            purpose: Purpose::Restore,
            by: By::Offline,
            asked: Asked::example(),
            old: Carried::Absent,
            token: "tok".into(),
            marks: vec![6],
            now_ms: 1_790_000_000_000,
        }
    }

    #[test]
    fn ids_and_target_are_known_before_anything_is_written() {
        let plan = plan(inputs()).unwrap();
        assert_eq!(plan.cluster_id.to_string(), "6656feb867e68582");
        assert_eq!(plan.member_id.to_string(), "d622127685879b3c");
        assert_eq!(plan.target_revision, 1_790_000_000_000);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn what_was_decided_for_all_members_is_obeyed_or_refused() {
        let mut inputs = inputs();
        inputs.asked.token = Some("shared".into());
        inputs.asked.target_revision = Some(2_000_000_000_000);
        let made = plan(inputs.clone()).unwrap();
        assert_eq!(made.token, "shared");
        assert_eq!(made.target_revision, 2_000_000_000_000);
        inputs.marks.push(2_000_000_000_000);
        assert!(plan(inputs.clone()).is_err(), "a mark has reached it");
        inputs.marks.clear();
        inputs.old = Carried::Cluster {
            cluster_id: made.cluster_id,
            member_id: Id(1),
        };
        assert!(plan(inputs).is_err(), "the old cluster's token");
    }

    #[test]
    fn a_member_that_is_not_in_the_cluster_or_has_other_urls_is_refused() {
        let mut one = inputs();
        one.asked.name = "n2".into();
        assert!(plan(one).is_err());
        let mut two = inputs();
        two.asked.peer_urls = vec!["http://127.0.0.1:1".into()];
        assert!(plan(two).is_err());
    }

    #[test]
    fn only_a_uuid_is_the_name_of_an_attempt() {
        for text in [
            "",
            "../x",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ] {
            assert!(text.parse::<AttemptId>().is_err(), "{text}");
        }
        let id = AttemptId::random();
        assert_eq!(id.to_string().parse::<AttemptId>().unwrap(), id);
    }
}
