//! The digest that proves two databases to hold the same: over all live keys at one revision.
//!
//! It is made so that it can be computed in bounded memory, see [`newest`](super::newest): keys fall into 256 parts by the first byte of
//! the SHA-256 of the key. Each part has a SHA-256 over its live keys from the newest revision to the oldest, and the digest is the SHA-256
//! of the line `etcd-live-digest/1` and these 256 digests. A key is fed as the lengths of key and value, the create revision, the mod
//! revision, the version and the lease (eight bytes each, big endian), the key and the value. The empty key that a restore with
//! `--bump-revision` writes is none of the user's and is left out.

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::entry::Record;
use crate::location::hex;

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

/// The digest of one part of the keys.
#[derive(Clone)]
pub(super) struct Part(Context);

impl Default for Part {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Part {
    /// Feeds a live key.
    pub(super) fn add(&mut self, record: &Record<'_>) {
        let mut head = [0; 48];
        let lengths = [record.key.len() as u64, record.value.len() as u64];
        let numbers = [record.create, record.modified, record.version, record.lease];
        let all = lengths.into_iter().chain(numbers.map(i64::cast_unsigned));
        for (place, number) in head.chunks_exact_mut(8).zip(all) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        self.0.update(&head);
        self.0.update(record.key);
        self.0.update(record.value);
    }
}

/// The digest over all parts, in hexadecimal digits.
pub(super) fn over(parts: impl IntoIterator<Item = Part>) -> String {
    let mut whole = Context::new(&SHA256);
    whole.update(b"etcd-live-digest/1\n");
    for part in parts {
        whole.update(part.0.finish().as_ref());
    }
    hex(whole.finish().as_ref())
}
