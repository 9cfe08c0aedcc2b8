//! etcd's HashKV, computed offline: what the HashKV call of a running member answers.

use serde::{Deserialize, Serialize};

/// etcd's hash over the history of all keys. Two are comparable only where both revisions are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HashKv {
    /// CRC-32C.
    pub hash: u32,
    /// The revision it is at.
    pub revision: i64,
    /// The compacted revision it depends on.
    pub compact_revision: i64,
}
