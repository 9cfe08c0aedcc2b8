//! The digest that proves two databases to hold the same: over all live keys at one revision.

use serde::{Deserialize, Serialize};

/// A digest over the live keys (key, value, create revision, mod revision, version, lease) at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveDigest {
    /// The revision it was taken at.
    pub revision: i64,
    /// How many keys it is over; the empty key of a bumped restore is left out.
    pub keys: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl LiveDigest {
    /// Whether both are of the same keys and values, at whatever revision each was taken.
    #[must_use]
    pub fn same_keys(&self, other: &Self) -> bool {
        self.keys == other.keys && self.sha256 == other.sha256
    }
}
