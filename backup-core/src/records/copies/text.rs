//! Rows as they stand in volumes.json, and what each of them has to be. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    CsiSnapshot, FileCopy, Hooks, LONGEST, MOST_OF_A_ROW, Outcome, Pod, Row, Saved, Way, is_digest,
    is_repository, is_tag, lacking, part,
};
use crate::error::{Error, Result};
use crate::layout::VolumeKeys;
use crate::name::Name;
use crate::records::bounded::{self, Bounded};

/// Reads a list of a row, or of what a reader has to know.
pub(super) fn few<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    d: D,
) -> std::result::Result<Vec<T>, D::Error> {
    bounded::at_most::<MOST_OF_A_ROW, T, D>(d)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Text {
    pub(super) format: String,
    // Read before the rest.
    #[serde(skip_deserializing)]
    pub(super) needs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) backup_uid: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) run: String,
    pub(super) volumes: Bounded<RowText>,
}

/// A row as it stands in the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RowText {
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

/// A copy, or a snapshot, as it stands in the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DatumText {
    method: String,
    source: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few")]
    needs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    driver: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    handle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    class: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    run: String,
    began: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Timestamp>,
    ended: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vanished: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    way: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    exec_because: String,
}

/// How files are copied, and of what.
const FILES: (&str, &str) = ("files", "live");

/// How a volume is kept in its own storage, and by what.
const SNAPSHOT: (&str, &str) = ("snapshot", "csi");

/// No handle of a snapshot is longer, in bytes.
const LONGEST_HANDLE: usize = 2048;

/// Whether a driver can know a snapshot by this.
pub(crate) fn is_handle(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_HANDLE && !text.chars().any(char::is_control)
}

impl DatumText {
    fn of(copy: &FileCopy) -> Self {
        let (method, source) = FILES;
        Self {
            method: method.to_owned(),
            source: source.to_owned(),
            repository: Some(copy.repository),
            snapshot: Some(copy.snapshot.clone()),
            base: copy.base.clone(),
            run: copy.run.clone(),
            began: Some(copy.began),
            ended: Some(copy.ended),
            entries: Some(copy.entries),
            files: Some(copy.files),
            bytes: Some(copy.bytes),
            allocated: copy.allocated,
            added: Some(copy.added),
            changed: Some(copy.changed),
            vanished: Some(copy.vanished),
            way: copy.way.map(Way::word).unwrap_or_default().to_owned(),
            exec_because: copy
                .exec_because
                .as_deref()
                .map(|why| bounded::shown(why, LONGEST))
                .unwrap_or_default(),
            ..Self::default()
        }
    }

    fn of_snapshot(snapshot: &CsiSnapshot) -> Self {
        let (method, source) = SNAPSHOT;
        Self {
            method: method.to_owned(),
            source: source.to_owned(),
            driver: snapshot.driver.clone(),
            handle: snapshot.handle.clone(),
            size: Some(snapshot.size),
            class: snapshot.class.clone(),
            run: snapshot.run.clone(),
            began: Some(snapshot.began),
            cut: Some(snapshot.cut),
            ended: Some(snapshot.ended),
            ..Self::default()
        }
    }

    fn is(&self, (method, source): (&str, &str)) -> bool {
        self.method == method && self.source == source
    }

    /// Why it is not understood, where it is not.
    fn unknown(&self) -> Option<String> {
        if self.is(FILES) || self.is(SNAPSHOT) {
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
        let repository = self.repository.filter(|number| is_repository(*number));
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
            entries: self.entries.unwrap_or_default(),
            files: self.files.unwrap_or_default(),
            bytes: self.bytes.unwrap_or_default(),
            allocated: self.allocated,
            added: self.added.unwrap_or_default(),
            changed: self.changed.unwrap_or_default(),
            vanished: self.vanished.unwrap_or_default(),
            way: [Way::Straight, Way::Exec]
                .into_iter()
                .find(|way| way.word() == self.way),
            exec_because: Some(bounded::shown(&self.exec_because, LONGEST))
                .filter(|why| !why.is_empty()),
        })
    }

    fn csi(self, hooks: Option<Hooks>) -> Result<CsiSnapshot> {
        let is_name = |text: &str| Name::foreign(text).is_ok();
        for (what, fits) in [
            ("driver", is_name(&self.driver)),
            ("handle", is_handle(&self.handle)),
            ("class", is_name(&self.class)),
            ("run", is_tag(&self.run)),
        ] {
            if !fits {
                return Err(lacks(what));
            }
        }
        Ok(CsiSnapshot {
            hooks,
            driver: self.driver,
            handle: self.handle,
            size: self.size.unwrap_or_default(),
            class: self.class,
            run: self.run,
            began: self.began.ok_or_else(|| lacks("beginning"))?,
            cut: self.cut.ok_or_else(|| lacks("cut"))?,
            ended: self.ended.ok_or_else(|| lacks("end"))?,
        })
    }
}

/// A copy that says too little of itself, or what can not be.
fn lacks(what: &str) -> Error {
    Error::corrupt(format!("its copy has no {what} that can be"))
}

fn hooks_word(hooks: Option<Hooks>) -> String {
    let word = match hooks {
        Some(Hooks::Done) => "done",
        Some(Hooks::Failed) => "failed",
        Some(Hooks::None) => "none",
        None => "",
    };
    word.to_owned()
}

impl RowText {
    pub(super) fn of(row: &Row) -> Self {
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
            Outcome::Snapshot(snapshot) => {
                return Self {
                    result: "saved".to_owned(),
                    hooks: hooks_word(snapshot.hooks),
                    data: vec![DatumText::of_snapshot(snapshot)],
                    ..text
                };
            }
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
        Self {
            result: "saved".to_owned(),
            hooks: hooks_word(saved.hooks),
            pod: saved.pod.clone(),
            node: saved.node.clone(),
            data: vec![DatumText::of(&saved.copy)],
            ..self
        }
    }

    pub(super) fn row(mut self) -> Result<Row> {
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
                saved.unwrap_or_else(|why| not_known(&why))
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
            Outcome::Saved(_) | Outcome::Snapshot(_) => self.claim_uid,
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
    fn take_saved(&mut self) -> Result<std::result::Result<Outcome, String>> {
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
        let hooks = match self.hooks.as_str() {
            "done" => Some(Hooks::Done),
            "failed" => Some(Hooks::Failed),
            "none" => Some(Hooks::None),
            _ => None,
        };
        let mut first = None;
        for datum in std::mem::take(&mut self.data) {
            if let Some(why) = datum.unknown() {
                first.get_or_insert(why);
                continue;
            }
            if datum.is(SNAPSHOT) {
                let snapshot = datum.csi(hooks)?;
                return Ok(Ok(Outcome::Snapshot(Box::new(snapshot))));
            }
            return Ok(Ok(Outcome::Saved(Box::new(Saved {
                hooks,
                pod: self.pod.take(),
                node: self.node.as_ref().map(|node| bounded::shown(node, 253)),
                copy: datum.copy()?,
            }))));
        }
        match first {
            Some(why) => Ok(Err(why)),
            None => Err(Error::corrupt("it is said to be saved, and has no data")),
        }
    }
}
