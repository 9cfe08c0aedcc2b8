//! What somebody asked to be restored: kept in the plan, so that the same command again goes on with the same attempt.

use serde::{Deserialize, Serialize};

use super::ids::Peer;

/// The decisions that are not ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    /// The snapshot: a path, a URL or a name, for people and for comparison.
    pub(crate) snapshot: String,
    /// This member's name.
    pub(crate) name: String,
    /// All members of the new cluster.
    pub(crate) members: Vec<Peer>,
    /// This member's own URLs, sorted.
    pub(crate) peer_urls: Vec<String>,
    /// The token all members share; none: random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// The revision all members start at; none: computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target_revision: Option<i64>,
    /// Whether the snapshot may be of another cluster.
    #[serde(default)]
    pub(crate) another_cluster: bool,
}

#[cfg(test)]
impl Asked {
    pub(crate) fn example() -> Self {
        let members = super::ids::parse_cluster("n1=http://127.0.0.1:12380").unwrap();
        Self {
            snapshot: "/backup/a.db".into(),
            name: "n1".into(),
            peer_urls: members[0].peer_urls.clone(),
            members,
            token: None,
            target_revision: None,
            another_cluster: false,
        }
    }
}
