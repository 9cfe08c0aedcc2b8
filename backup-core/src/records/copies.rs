//! `volumes.json` of a backup: a row for every claim, with what became of its data and where a copy of its files is. Written by backups, and what restores go by.
//!
//! Who reads it believes nothing of it: the file is bounded, names are those that can be a part of a key, and a repository is found by the claim's uid and a number,
//! never by a path that stands in the file. A row that says what this version does not know is refused by itself; everything else that can not be is an error of the whole.

mod text;

use std::collections::HashSet;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use self::text::is_handle;
use self::text::{RowText, Text, few};
use super::bounded::{self, Bounded};
use crate::error::{Error, Result};
use crate::layout::{BackupKeys, VolumeKeys};
use crate::location::Store;
use crate::name::Name;

/// What it says of itself, before its version.
const FORMAT: &str = "kubectl-backup/volumes/";

/// The version that is written, and the one that is read. What may come later within it says so in `needs`.
const VERSION: u32 = 1;

/// No such file is larger.
const LARGEST: u64 = 64 << 20;

/// A text that is for people is not longer, in characters.
const LONGEST: usize = 2000;

/// Of a list in a row, as of access modes, no more are read.
const MOST_OF_A_ROW: usize = 20;

/// No claim has so many repositories.
const MOST_REPOSITORIES: u32 = 10_000;

/// What became of the data of a backup's claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// The uid of kube-system, the first part of where repositories are; nothing where it could not be read, and then nothing was copied.
    pub cluster: Option<String>,
    /// By which snapshots name the backup.
    pub backup_uid: String,
    /// The run that made the backup.
    pub run: String,
    /// A row a claim, by namespace and name.
    pub rows: Vec<Row>,
}

/// A claim, and what became of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub claim: String,
    /// Its uid, by which its repositories are found.
    pub uid: String,
    /// The PersistentVolume it was bound to; empty where it was not.
    pub volume: String,
    /// Its volume mode, as Kubernetes names it.
    pub volume_mode: String,
    /// Its storage class.
    pub storage_class: String,
    /// Who made the volume: a CSI driver, or another provisioner.
    pub driver: String,
    /// How large it was asked for, as Kubernetes writes it: `10Gi`.
    pub request: String,
    /// How large it is.
    pub capacity: String,
    /// Its access modes, as Kubernetes names them.
    pub access_modes: Vec<String>,
    /// What became of its data.
    pub outcome: Outcome,
}

/// What became of a claim's data; texts are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its files are in a repository.
    Saved(Box<Saved>),
    /// Its storage has a snapshot of it.
    Snapshot(Box<CsiSnapshot>),
    /// It was asked for, and is not there.
    Failed(String),
    /// It was to be left out.
    LeftOut(String),
    /// Nobody asked for it.
    NotAsked(String),
    /// There was nothing.
    Nothing(String),
    /// The row says what this version does not know.
    NotUnderstood(String),
}

/// A claim's data that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// What the hooks of its pods did around the copy; nothing where the file says what is not known here.
    pub hooks: Option<Hooks>,
    /// A pod that used the claim.
    pub pod: Option<Pod>,
    /// Where it was read.
    pub node: Option<String>,
    /// The copy: of several the first that is understood.
    pub copy: FileCopy,
}

/// A snapshot of a claim's volume in its storage: it is of the cluster that `volumes.json` names, and lives only there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CsiSnapshot {
    /// What the hooks of its pods did around the cut; nothing where the file says what is not known here.
    #[serde(skip)]
    pub hooks: Option<Hooks>,
    /// The CSI driver.
    pub driver: String,
    /// By which the driver knows it.
    pub handle: String,
    /// What a volume made of it has to hold at least, in bytes; 0 where the driver does not say.
    pub size: u64,
    /// The VolumeSnapshotClass it was made by.
    pub class: String,
    /// The run that made it.
    pub run: String,
    /// When it was asked for.
    pub began: Timestamp,
    /// Of which moment it is.
    pub cut: Timestamp,
    /// When it could be used.
    pub ended: Timestamp,
}

/// What hooks of pods did around a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Hooks {
    /// They ran well.
    Done,
    /// One failed.
    Failed,
    /// There were none.
    None,
}

/// A copy of a claim's files, read from the volume itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(Default))]
#[serde(rename_all = "camelCase")]
pub struct FileCopy {
    /// Which of the claim's repositories it is in, from 1 on.
    pub repository: u32,
    /// Its exact id: 64 lower hex digits.
    pub snapshot: String,
    /// The snapshot it builds upon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The run that made it, as the snapshot is tagged.
    pub run: String,
    /// When it was begun.
    pub began: Timestamp,
    /// When it stood.
    pub ended: Timestamp,
    /// Entries, with folders.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that they took on the volume; nothing where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated: Option<u64>,
    /// Bytes that were added to the repository.
    pub added: u64,
    /// Files that changed while they were read.
    pub changed: u64,
    /// Files that went before they were read.
    pub vanished: u64,
    /// How it went to the store; nothing where that is not told, or not known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Why it went over exec, where it was to go straight; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_because: Option<String>,
}

/// How a copy goes to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// From its mover, with credentials for this volume alone.
    Straight,
    /// Over the API server to whoever makes the backup.
    Exec,
}

impl Way {
    /// Its word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Straight => "straight",
            Self::Exec => "exec",
        }
    }
}

/// A pod, and its name for a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// What its spec calls the volume.
    pub volume: String,
}

impl Row {
    /// `shop/data`
    pub fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.claim)
    }

    /// The copy of its files, where there is one.
    pub fn saved(&self) -> Option<&Saved> {
        match &self.outcome {
            Outcome::Saved(saved) => Some(saved),
            _ => None,
        }
    }

    /// The snapshot in its storage, where there is one.
    pub fn snapshot(&self) -> Option<&CsiSnapshot> {
        match &self.outcome {
            Outcome::Snapshot(snapshot) => Some(snapshot),
            _ => None,
        }
    }
}

impl Copies {
    /// Where the copy of a row is.
    ///
    /// # Errors
    /// `Invalid`, where the row has none, or can not have one.
    pub fn place(&self, row: &Row) -> Result<VolumeKeys> {
        let (Some(saved), Some(cluster)) = (row.saved(), &self.cluster) else {
            return Err(Error::invalid(format!(
                "the files of {} were not copied",
                row.name()
            )));
        };
        let keys = VolumeKeys::new(cluster, &row.namespace, &row.uid)?;
        Ok(keys.numbered(saved.copy.repository))
    }

    /// The file.
    ///
    /// # Errors
    /// `Invalid`, where nobody would read it again.
    pub fn write(&self) -> Result<Bytes> {
        let volumes = self.rows.iter().map(RowText::of).collect();
        let text = serde_json::to_vec_pretty(&Text {
            format: format!("{FORMAT}{VERSION}"),
            needs: Vec::new(),
            cluster: self.cluster.clone(),
            backup_uid: self.backup_uid.clone(),
            run: self.run.clone(),
            volumes: Bounded(volumes),
        })
        .map_err(|e| Error::other("the rows of volumes can not be written as JSON").because(e))?;
        parse(&text).map_err(|e| {
            Error::invalid("what is known of the volumes can not be written down")
                .hint("leave out the namespace that is named, or back up fewer namespaces at once")
                .because(e)
        })?;
        Ok(text.into())
    }
}

/// Reads the rows of a backup; nothing where the file is absent: it has no claims, or is another tool's or older.
///
/// # Errors
/// `Corrupt`, `Invalid` where it is newer than this version, and the store's.
pub async fn copies(store: &Store, name: &Name) -> Result<Option<Copies>> {
    let key = BackupKeys::new(name).volumes();
    let Some(bytes) = store.find(&key, LARGEST).await? else {
        return Ok(None);
    };
    parse(&bytes).map(Some).map_err(|e| e.context(key))
}

/// Reads and judges the file.
fn parse(bytes: &[u8]) -> Result<Copies> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
        #[serde(default, deserialize_with = "few")]
        needs: Vec<String>,
    }
    if bytes.len() as u64 > LARGEST {
        return Err(Error::corrupt(format!(
            "it is larger than {} MiB",
            LARGEST >> 20
        )));
    }
    let no = |e| Error::corrupt("it is no list of volumes").because(e);
    let head: Head = serde_json::from_slice(bytes).map_err(no)?;
    let version = head.format.strip_prefix(FORMAT);
    match version.and_then(|version| version.parse::<u32>().ok()) {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => {
            return Err(newer_than(&format!("is of version {newer}")));
        }
        _ => {
            return Err(Error::corrupt(format!(
                "it is of no known format: {:?}",
                bounded::shown(&head.format, 60)
            )));
        }
    }
    if let Some(why) = lacking(&head.needs) {
        return Err(newer_than(&why));
    }
    let text: Text = serde_json::from_slice(bytes).map_err(no)?;
    if let Some(cluster) = &text.cluster {
        part("the cluster", cluster)?;
    }
    for (what, id) in [("backupUid", &text.backup_uid), ("run", &text.run)] {
        if !is_tag(id) {
            return Err(Error::corrupt(format!("its {what} can not be one")));
        }
    }
    let mut rows = Vec::with_capacity(text.volumes.0.len());
    let mut seen = HashSet::with_capacity(text.volumes.0.len());
    let mut uids = HashSet::with_capacity(text.volumes.0.len());
    for row in text.volumes.0 {
        let row = row.row()?;
        let has_data = row.saved().is_some() || row.snapshot().is_some();
        if has_data && text.cluster.is_none() {
            return Err(Error::corrupt(format!(
                "{} is said to be saved, and no cluster is named",
                row.name()
            )));
        }
        if !seen.insert((row.namespace.clone(), row.claim.clone())) {
            return Err(Error::corrupt(format!("it has {} twice", row.name())));
        }
        if !row.uid.is_empty() && !uids.insert(row.uid.clone()) {
            return Err(Error::corrupt(format!(
                "the uid of {} is another claim's as well",
                row.name()
            )));
        }
        rows.push(row);
    }
    Ok(Copies {
        cluster: text.cluster,
        backup_uid: text.backup_uid,
        run: text.run,
        rows,
    })
}

fn newer_than(why: &str) -> Error {
    Error::invalid(format!("it is newer than what is known here: it {why}"))
        .hint("use the version of kubectl-backup that made the backup, or a newer one")
}

/// What a reader would have to know, and does not: nothing is needed so far.
fn lacking(needs: &[String]) -> Option<String> {
    let first = needs.first()?;
    Some(format!("needs {:?}", bounded::shown(first, 60)))
}

/// What a snapshot can be tagged with.
pub(super) fn is_tag(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    text.len() <= 64 && text.bytes().all(fits)
}

/// What has to be a part of a key.
fn part(what: &str, text: &str) -> Result<()> {
    let name: std::result::Result<Name, _> = text.parse();
    match name {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::corrupt(format!(
            "{what} {:?} can not be a part of a key",
            bounded::shown(text, 60)
        ))),
    }
}

/// Whether a claim can have a repository with this number.
pub(super) fn is_repository(number: u32) -> bool {
    (1..=MOST_REPOSITORIES).contains(&number)
}

/// Whether this can be the id of a snapshot.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
