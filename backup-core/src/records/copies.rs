//! `volumes.json` of a backup: a row for every claim, with what became of its data and where a copy of its files is. Written by backups, and what restores go by.
//!
//! Who reads it believes nothing of it: the file is bounded, names are those that can be a part of a key, and a repository is found by the claim's uid and a number,
//! never by a path that stands in the file. A row that says what this version does not know is refused by itself; everything else that can not be is an error of the whole.

use std::collections::HashSet;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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

    /// The copy, where there is one.
    pub fn saved(&self) -> Option<&Saved> {
        match &self.outcome {
            Outcome::Saved(saved) => Some(saved),
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
        if row.saved().is_some() && text.cluster.is_none() {
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
fn is_tag(text: &str) -> bool {
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

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads a list of a row, or of what a reader has to know.
fn few<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    d: D,
) -> std::result::Result<Vec<T>, D::Error> {
    bounded::at_most::<MOST_OF_A_ROW, T, D>(d)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    format: String,
    // Read before the rest.
    #[serde(skip_deserializing)]
    needs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    backup_uid: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    run: String,
    volumes: Bounded<RowText>,
}

/// A row as it stands in the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RowText {
    namespace: String,
    claim: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    claim_uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    volume: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    volume_mode: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    storage_class: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    driver: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    request: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    capacity: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few")]
    access_modes: Vec<String>,
    result: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few")]
    needs: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hooks: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Pod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few")]
    data: Vec<DatumText>,
}

/// A copy as it stands in the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DatumText {
    method: String,
    source: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few")]
    needs: Vec<String>,
    repository: Option<u32>,
    snapshot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    run: String,
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
    entries: u64,
    files: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated: Option<u64>,
    added: u64,
    changed: u64,
    vanished: u64,
}

/// The one way of copying, and of what.
const METHOD: (&str, &str) = ("files", "live");

impl DatumText {
    fn of(copy: &FileCopy) -> Self {
        let (method, source) = METHOD;
        Self {
            method: method.to_owned(),
            source: source.to_owned(),
            needs: Vec::new(),
            repository: Some(copy.repository),
            snapshot: Some(copy.snapshot.clone()),
            base: copy.base.clone(),
            run: copy.run.clone(),
            began: Some(copy.began),
            ended: Some(copy.ended),
            entries: copy.entries,
            files: copy.files,
            bytes: copy.bytes,
            allocated: copy.allocated,
            added: copy.added,
            changed: copy.changed,
            vanished: copy.vanished,
        }
    }

    /// Why it is not understood, where it is not.
    fn unknown(&self) -> Option<String> {
        let (method, source) = METHOD;
        if self.method == method && self.source == source {
            return lacking(&self.needs);
        }
        let shown = |text: &str| bounded::shown(text, 60);
        Some(format!(
            "was saved by the method {:?} of {:?}",
            shown(&self.method),
            shown(&self.source)
        ))
    }

    fn copy(self) -> Result<FileCopy> {
        let lacks = |what: &str| Error::corrupt(format!("its copy has no {what} that can be"));
        let repository = self
            .repository
            .filter(|n| (1..=MOST_REPOSITORIES).contains(n));
        let snapshot = self.snapshot.filter(|id| is_digest(id));
        if self.base.as_ref().is_some_and(|id| !is_digest(id)) {
            return Err(lacks("base"));
        }
        if !is_tag(&self.run) {
            return Err(lacks("run"));
        }
        Ok(FileCopy {
            repository: repository.ok_or_else(|| lacks("repository"))?,
            snapshot: snapshot.ok_or_else(|| lacks("snapshot"))?,
            base: self.base,
            run: self.run,
            began: self.began.ok_or_else(|| lacks("beginning"))?,
            ended: self.ended.ok_or_else(|| lacks("end"))?,
            entries: self.entries,
            files: self.files,
            bytes: self.bytes,
            allocated: self.allocated,
            added: self.added,
            changed: self.changed,
            vanished: self.vanished,
        })
    }
}

impl RowText {
    fn of(row: &Row) -> Self {
        let text = Self {
            namespace: row.namespace.clone(),
            claim: row.claim.clone(),
            claim_uid: row.uid.clone(),
            volume: row.volume.clone(),
            volume_mode: row.volume_mode.clone(),
            storage_class: row.storage_class.clone(),
            driver: row.driver.clone(),
            request: row.request.clone(),
            capacity: row.capacity.clone(),
            access_modes: row.access_modes.clone(),
            ..Self::default()
        };
        let (result, why) = match &row.outcome {
            Outcome::Saved(saved) => return text.saved(saved),
            Outcome::Failed(why) => ("failed", why),
            Outcome::LeftOut(why) => ("leftOut", why),
            Outcome::NotAsked(why) => ("notAsked", why),
            Outcome::Nothing(why) => ("nothing", why),
            Outcome::NotUnderstood(why) => ("notUnderstood", why),
        };
        Self {
            result: result.to_owned(),
            why: bounded::shown(why, LONGEST),
            ..text
        }
    }

    fn saved(self, saved: &Saved) -> Self {
        let hooks = match saved.hooks {
            Some(Hooks::Done) => "done",
            Some(Hooks::Failed) => "failed",
            Some(Hooks::None) => "none",
            None => "",
        };
        Self {
            result: "saved".to_owned(),
            hooks: hooks.to_owned(),
            pod: saved.pod.clone(),
            node: saved.node.clone(),
            data: vec![DatumText::of(&saved.copy)],
            ..self
        }
    }

    fn row(mut self) -> Result<Row> {
        part("namespace", &self.namespace)?;
        if Name::foreign(&self.claim).is_err() {
            let claim = bounded::shown(&self.claim, 60);
            return Err(Error::corrupt(format!("{claim:?} is no name of a claim")));
        }
        let name = format!("{}/{}", self.namespace, self.claim);
        let why = bounded::shown(&self.why, LONGEST);
        let not_known = |why: &str| {
            Outcome::NotUnderstood(format!(
                "its row is newer than what is known here: it {why}"
            ))
        };
        let outcome = match (lacking(&self.needs), self.result.as_str()) {
            (Some(why), _) => not_known(&why),
            (None, "saved") => {
                let saved = self.take_saved().map_err(|e| e.context(&name))?;
                match saved {
                    Ok(saved) => Outcome::Saved(Box::new(saved)),
                    Err(why) => not_known(&why),
                }
            }
            (None, "failed") => Outcome::Failed(why),
            (None, "leftOut") => Outcome::LeftOut(why),
            (None, "notAsked") => Outcome::NotAsked(why),
            (None, "nothing") => Outcome::Nothing(why),
            (None, result) => not_known(&format!("says {:?}", bounded::shown(result, 60))),
        };
        let short = |text: &str| bounded::shown(text, 253);
        // Without a copy the uid leads nowhere.
        let uid = match outcome {
            Outcome::Saved(_) => self.claim_uid,
            _ => short(&self.claim_uid),
        };
        Ok(Row {
            volume: short(&self.volume),
            volume_mode: short(&self.volume_mode),
            storage_class: short(&self.storage_class),
            driver: short(&self.driver),
            request: short(&self.request),
            capacity: short(&self.capacity),
            access_modes: self.access_modes.iter().map(|mode| short(mode)).collect(),
            namespace: self.namespace,
            claim: self.claim,
            uid,
            outcome,
        })
    }

    /// What it says of the first copy that is understood; else why none is.
    fn take_saved(&mut self) -> Result<std::result::Result<Saved, String>> {
        // As of where it is, with any cluster.
        if VolumeKeys::new("any", &self.namespace, &self.claim_uid).is_err() {
            return Err(Error::corrupt("the claim's uid can not be a part of a key"));
        }
        if let Some(pod) = &self.pod {
            let fits = |text: &str| Name::foreign(text).is_ok();
            let has_uid = !pod.uid.is_empty();
            let names = [&pod.namespace, &pod.name, &pod.volume];
            if !names.iter().all(|text| fits(text)) || (has_uid && !fits(&pod.uid)) {
                return Err(Error::corrupt("its pod can not be one"));
            }
        }
        let mut first = None;
        for datum in std::mem::take(&mut self.data) {
            let Some(why) = datum.unknown() else {
                return Ok(Ok(Saved {
                    hooks: match self.hooks.as_str() {
                        "done" => Some(Hooks::Done),
                        "failed" => Some(Hooks::Failed),
                        "none" => Some(Hooks::None),
                        _ => None,
                    },
                    pod: self.pod.take(),
                    node: self.node.as_ref().map(|node| bounded::shown(node, 253)),
                    copy: datum.copy()?,
                }));
            };
            first.get_or_insert(why);
        }
        match first {
            Some(why) => Ok(Err(why)),
            None => Err(Error::corrupt("it is said to be saved, and has no data")),
        }
    }
}

#[cfg(test)]
mod tests;
