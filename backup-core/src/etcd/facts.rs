//! What a database says of itself: revisions, counts, membership. Plain values, as they stand in a snapshot's manifest and in `-o json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was read out of a database of etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Facts {
    /// The revision etcd would answer with: the greatest main revision in bucket `key`, or the compacted one where that is greater; 1 where
    /// there is none, for which etcdutl shows 0.
    pub revision: i64,
    /// Up to here history is gone (`finishedCompactRev`); 0 where nothing was compacted yet.
    pub compact_revision: i64,
    /// Up to here history is going (`scheduledCompactRev`); greater than [`Facts::compact_revision`] while a compaction runs, and after a
    /// restore that marked its revision as compacted.
    pub scheduled_compact_revision: i64,
    /// Schema of the database, "3.6.0"; absent before etcd 3.6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_version: Option<String>,
    /// Version all members of the cluster agreed on, "3.6.0".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_version: Option<String>,
    /// Index of the last raft entry that was applied.
    pub consistent_index: u64,
    /// Raft term of that entry.
    pub term: u64,
    /// Bytes of a page: the memory page of the machine the database was made on.
    pub page_size: u32,
    /// Bytes of the database, without a snapshot's trailer.
    pub bytes: u64,
    /// Bytes of the pages that are reachable; the rest is free, and stays free until a defragmentation.
    pub bytes_in_use: u64,
    /// The keys in it.
    pub keys: Keys,
    /// The members of its cluster, by id.
    pub members: Vec<Member>,
    /// Alarms that are raised.
    pub alarms: Vec<Alarm>,
    /// Whether etcd asks its clients who they are.
    pub auth_enabled: bool,
    /// Keys that values are encrypted with, as `provider:name` ("aescbc:key1"), sorted; those of the history count.
    pub encryption_keys: Vec<String>,
}

/// How many keys there are. The empty key that `etcdutl snapshot restore --bump-revision` leaves behind counts as a revision only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Keys {
    /// Entries of bucket `key`: every revision of every key that is not compacted.
    pub revisions: u64,
    /// Keys that are there at the latest revision; absent where a stream did not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<u64>,
    /// The live keys by resource: `/registry/<resource>/..` is `resource`, `/registry/<group>/<resource>/..` is `resource.group`, anything
    /// else `(other)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<BTreeMap<String, u64>>,
    /// Whether the numbers of live keys are exact.
    pub exact: bool,
}

/// A member of the cluster, as bucket `members` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Member {
    /// Its id in hexadecimal digits, as etcdctl prints it.
    pub id: String,
    /// Its name; empty where it never started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty where it never started.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// An alarm, as bucket `alarm` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Alarm {
    /// Id of the member that raised it, in hexadecimal digits.
    pub member: String,
    /// `NOSPACE`, `CORRUPT`, or the number of one that is not known here.
    pub kind: String,
}
