//! What a backup says about the volumes whose files it kept: `volumes.json`. Whoever restores takes exact ids from here, never what is the latest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layout::VolumeKeys;

/// The one that is written.
const VERSION: u32 = 1;

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRows {
    version: u32,
    /// A row for each volume whose files were kept.
    pub volumes: Vec<VolumeRow>,
}

/// The files of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRow {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim's name.
    pub claim: String,
    /// The claim's uid, which its repositories are named by.
    pub claim_uid: String,
    /// The uid of its cluster.
    pub cluster: String,
    /// Which repository of the volume; 1 is the first.
    pub repository: u32,
    /// The snapshot's exact id.
    pub snapshot: String,
    /// The run that made it.
    pub run: String,
    /// Entries of all kinds.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was added to the repository for it, as it stands there.
    pub added_bytes: u64,
    /// Files that changed while they were read.
    pub changed_while_read: u64,
    /// When it was begun.
    pub began: Timestamp,
    /// When it stood.
    pub ended: Timestamp,
}

impl VolumeRows {
    /// Of these rows.
    pub fn new(volumes: Vec<VolumeRow>) -> Self {
        Self {
            version: VERSION,
            volumes,
        }
    }

    /// Reads a file of this kind, which anybody may have written.
    ///
    /// # Errors
    /// `Corrupt`: it is none, is of a newer version, or names what can not be.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let rows: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::corrupt("volumes.json can not be read").because(e))?;
        if rows.version != VERSION {
            return Err(Error::corrupt(format!(
                "volumes.json has version {}, and this program knows {VERSION}",
                rows.version
            ))
            .hint("a newer version of this program made the backup; restore with that"));
        }
        for row in &rows.volumes {
            row.keys()
                .map_err(|e| Error::corrupt("volumes.json names no volume").because(e))?;
            let is_id =
                row.snapshot.len() == 64 && row.snapshot.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_id || row.repository == 0 {
                return Err(Error::corrupt(format!(
                    "volumes.json names no snapshot of {}/{}",
                    row.namespace, row.claim
                )));
            }
        }
        Ok(rows)
    }
}

impl VolumeRow {
    /// Where its repository stands.
    ///
    /// # Errors
    /// `Invalid`, where the row names what can not be a key.
    pub fn keys(&self) -> Result<VolumeKeys> {
        let keys = VolumeKeys::new(&self.cluster, &self.namespace, &self.claim_uid)?;
        Ok(keys.numbered(self.repository))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> VolumeRow {
        VolumeRow {
            namespace: "shop".to_owned(),
            claim: "data-db-0".to_owned(),
            claim_uid: "2b0b0a5e-0000-4000-8000-000000000001".to_owned(),
            cluster: "5f0e".to_owned(),
            repository: 2,
            snapshot: "ab".repeat(32),
            run: "r".to_owned(),
            entries: 3,
            files: 1,
            bytes: 9,
            added_bytes: 7,
            changed_while_read: 0,
            began: Timestamp::UNIX_EPOCH,
            ended: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn rows_come_back_and_name_where_their_snapshot_stands() {
        let rows = VolumeRows::new(vec![row()]);
        let back = VolumeRows::parse(&serde_json::to_vec(&rows).unwrap()).unwrap();
        assert_eq!(back, rows);
        assert_eq!(
            back.volumes[0].keys().unwrap().repository(),
            "restic/5f0e/shop/2b0b0a5e-0000-4000-8000-000000000001.2/"
        );
    }

    #[test]
    fn a_row_that_leads_elsewhere_is_refused() {
        type Edit = fn(&mut VolumeRow);
        let edits: [Edit; 6] = [
            |row| row.namespace = "../backups".to_owned(),
            |row| row.claim_uid = "a/b".to_owned(),
            |row| row.claim_uid = "a.2".to_owned(),
            |row| row.cluster = String::new(),
            |row| row.snapshot = "latest".to_owned(),
            |row| row.repository = 0,
        ];
        for edit in edits {
            let mut odd = row();
            edit(&mut odd);
            let bytes = serde_json::to_vec(&VolumeRows::new(vec![odd])).unwrap();
            VolumeRows::parse(&bytes).unwrap_err();
        }
        VolumeRows::parse(br#"{"version":2,"volumes":[]}"#).unwrap_err();
    }
}
