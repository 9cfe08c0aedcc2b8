//! Which claims are held: those whose files the backup has by its own rows, as far as row and claim agree. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::layout::VolumeKeys;
use crate::records::copies::{Copies, FileCopy, Outcome, Row};

/// Namespace and name of a claim in the backup.
pub(in super::super) type Key = (String, String);

/// Data that comes back.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Data {
    /// The volume's repositories.
    pub(in super::super) place: VolumeKeys,
    pub(in super::super) copy: FileCopy,
    /// What the volume held, as Kubernetes writes it; empty where that is not known.
    pub(in super::super) capacity: String,
    /// Several nodes could have it at a time.
    pub(in super::super) is_shared: bool,
    /// By which the snapshot names the backup.
    pub(in super::super) backup_uid: String,
}

/// What becomes of the data of a claim.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Choice {
    /// It comes back.
    Hold(Box<Data>),
    /// The backup says that it has it, and it can not be brought back: why.
    Refuse(String),
}

/// The claims of a backup whose data it says to have. `uids` are those that claims have in the archive.
pub(in super::super) fn choose(
    copies: &Copies,
    uids: &HashMap<Key, String>,
) -> BTreeMap<Key, Choice> {
    let mut chosen = BTreeMap::new();
    for row in &copies.rows {
        let key = (row.namespace.clone(), row.claim.clone());
        let Some(uid) = uids.get(&key) else {
            // It is not restored.
            continue;
        };
        let choice = match &row.outcome {
            Outcome::Saved(saved) => hold(copies, row, &saved.copy, uid),
            Outcome::NotUnderstood(why) => Choice::Refuse(why.clone()),
            // Another way: see restore/snapped.rs.
            Outcome::Snapshot(_)
            | Outcome::Failed(_)
            | Outcome::LeftOut(_)
            | Outcome::NotAsked(_)
            | Outcome::Nothing(_) => continue,
        };
        chosen.insert(key, choice);
    }
    chosen
}

fn hold(copies: &Copies, row: &Row, copy: &FileCopy, uid: &str) -> Choice {
    if row.uid != uid {
        return Choice::Refuse(format!(
            "volumes.json of the backup tells of a claim of this name with uid {}, and the archive holds one with uid {uid}",
            row.uid
        ));
    }
    if row.volume_mode == "Block" {
        return Choice::Refuse("it is a block device, and a copy of files was kept".to_owned());
    }
    let many = ["ReadWriteMany", "ReadOnlyMany"];
    match copies.place(row) {
        Ok(place) => Choice::Hold(Box::new(Data {
            place,
            copy: copy.clone(),
            capacity: row.capacity.clone(),
            is_shared: row
                .access_modes
                .iter()
                .any(|mode| many.contains(&mode.as_str())),
            backup_uid: copies.backup_uid.clone(),
        })),
        Err(e) => Choice::Refuse(e.sentence()),
    }
}
