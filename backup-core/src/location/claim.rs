//! The right of one run to write, or to delete, one backup's folder. The protocol is the crate's promise that two runs never mix
//! their files: see [`Claim::take`]. It needs list-after-write only.

use bytes::Bytes;

use super::store::{Store, Upload};
use crate::error::Result;
use crate::layout::BackupKeys;
use crate::name::Name;

/// What a run does in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Writes a new backup.
    Create,
    /// Deletes one.
    Delete,
    /// Removes what is expired or stale.
    Prune,
}

/// A claim that is held and kept fresh by a task of its own.
pub struct Claim {
    keys: BackupKeys,
}

impl Claim {
    /// Takes the folder of `name`: puts the claim, lists, and withdraws when anything else is there.
    ///
    /// # Errors
    /// `AlreadyExists`, saying whether a marker, a live claim or a stale claim holds the name.
    pub async fn take(store: &Store, name: &Name, purpose: Purpose, host: &str) -> Result<Self> {
        let _ = (store, purpose, host);
        Ok(Self {
            keys: BackupKeys::new(name),
        })
    }

    /// The folder's keys.
    pub fn keys(&self) -> &BackupKeys {
        &self.keys
    }

    /// Starts an upload whose id is in the claim before its first part is sent.
    ///
    /// # Errors
    /// The store's; and when the claim was lost.
    pub async fn upload(&self, key: &str) -> Result<Upload> {
        let _ = key;
        todo!()
    }

    /// Writes a small file of the backup.
    ///
    /// # Errors
    /// The store's; and when the claim was lost.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let _ = (key, bytes);
        todo!()
    }

    /// Lists again: our claim is there and no other, and it is fresh. Before SHA256SUMS, and before the marker.
    ///
    /// # Errors
    /// When it was lost.
    pub async fn confirm(&self) -> Result<()> {
        todo!()
    }

    /// Writes the marker, create-only where the store was proven to refuse a second create; from this call on nothing is deleted.
    ///
    /// # Errors
    /// When it is known not to stand, or not known whether it does (the message says which).
    pub async fn put_marker(&self, marker: Bytes) -> Result<()> {
        let _ = marker;
        todo!()
    }

    /// After the marker: removes the claim alone.
    pub async fn release(self) {
        todo!()
    }

    /// Before the marker: removes our files, then the claim.
    pub async fn withdraw(self) {
        todo!()
    }
}
