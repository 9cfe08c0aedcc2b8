//! Which claims of a backup are copied, of which a snapshot is made, and why nothing is done with the others. The rules and their order are Velero's; docs/volumes.md has them as a table. Pure: what comes of a
//! copy is known later.

use std::collections::BTreeMap;

use super::BackupOptions;
use super::gather::{Gathered, Offer};
use super::page::Seen;
use super::policies::{self, Action, Answer, Policies};
use super::volumes::{Claim, EXCLUDES, Uses, Volume};
use crate::layout::VolumeKeys;
use crate::records::copies::{Outcome, Pod, Row};
use crate::snapshot::class;

/// A claim that has no volume.
const NOT_BOUND: &str = "not bound: nothing to save";

/// A resource policy says so; Velero's words.
const SKIPPED: &str = "skipped due to resource policy";

/// The same, where it leaves the data to somebody else.
const CUSTOM: &str = "left to another tool by resource policy (custom)";

/// Nobody asked for it.
const NOT_ASKED: &str = "nobody asked for a copy of its files";

/// The same, where it was said that it is not wanted.
const NOT_WANTED: &str = "volumes were not wanted (snapshot-volumes=false)";

/// The same, where that may be wrong.
const NOT_KNOWN: &str =
    "what resource policies say of its volume is not known, for that could not be read";

/// What is done about the data of a claim. Texts say why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Its files are copied.
    Copy(Box<Copy>),
    /// A snapshot is made of it in its storage.
    Cut(Box<Cut>),
    /// It is to be left out.
    LeftOut(String),
    /// Nobody asked for it.
    NotAsked(String),
    /// It is asked for, and can not be done.
    Refused(String),
    /// There is none.
    Nothing(&'static str),
}

/// A copy that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Where to: its repositories.
    pub(super) keys: VolumeKeys,
    /// Who asks for it.
    pub(super) asked: Asked,
    /// A pod of the backup that uses the claim: the one that asks, where one does.
    pub(super) pod: Option<Pod>,
}

/// A snapshot that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) driver: String,
    /// The VolumeSnapshotClass.
    pub(super) class: String,
    /// The driver's name for the volume.
    pub(super) volume: String,
    /// Somebody asks for snapshots.
    pub(super) is_asked: bool,
}

/// Who asks for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A resource policy.
    Policy,
    /// A pod, by its annotation.
    Pod,
    /// Whoever makes the backup, of all claims.
    Default,
}

/// A claim of the backup, and what is done about its data.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chosen {
    /// What it says of itself.
    pub(super) claim: Claim,
    /// What is done.
    pub(super) choice: Choice,
}

/// All claims of a backup, by namespace and name.
pub(super) type Choices = BTreeMap<(String, String), Chosen>;

/// What came of copies and snapshots, by the claim's namespace and name: what there is, or why there is none.
pub(super) type Copied = BTreeMap<(String, String), Result<Outcome, String>>;

/// What is asked of all volumes of a backup.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    /// Copies of the files of all claims.
    pub(super) copies: bool,
    /// Snapshots; nothing where nobody says.
    pub(super) snapshots: Option<bool>,
    /// They are to be moved to the location.
    pub(super) moved: bool,
    /// By what they can be made.
    pub(super) offer: Option<&'a Offer>,
    /// The annotations of the backup.
    pub(super) annotations: Option<&'a BTreeMap<String, String>>,
    /// What resource policies say.
    pub(super) policies: Option<&'a Policies>,
    /// The uid of kube-system, where it is known.
    pub(super) cluster: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Of a backup with these options.
    pub(super) fn of(options: &'a BackupOptions, gathered: &'a Gathered) -> Self {
        Self {
            copies: options.copies_by_default(),
            snapshots: options.wants_snapshots(),
            moved: options.moves_snapshots(),
            offer: Some(&gathered.offer),
            annotations: Some(&options.annotations),
            policies: gathered.policies.as_deref(),
            cluster: gathered.identity.as_deref(),
        }
    }
}

/// Decides for every claim that was seen.
pub(super) fn choose(seen: &Seen, wanted: Wanted<'_>) -> Choices {
    let none = Uses::default();
    seen.claims
        .iter()
        .map(|((namespace, name), claim)| {
            let key = (namespace.clone(), name.clone());
            let uses = seen.uses.get(&key).unwrap_or(&none);
            let choice = of_claim(namespace, claim, uses, &seen.volumes, wanted);
            let claim = claim.clone();
            (key, Chosen { claim, choice })
        })
        .collect()
}

fn of_claim(
    namespace: &str,
    claim: &Claim,
    uses: &Uses,
    volumes: &BTreeMap<String, Volume>,
    wanted: Wanted<'_>,
) -> Choice {
    // One that names a volume and waits for it has put nothing there.
    if claim.volume.is_empty() || claim.facts.phase == "Pending" {
        return Choice::Nothing(NOT_BOUND);
    }
    let volume = volumes.get(&claim.volume);
    let facts = volume.and_then(|volume| volume.facts.as_deref());
    let seen = facts.map_or(policies::Seen::Unread, policies::Seen::Facts);
    let answer = wanted.policies.map_or(Answer::Nothing, |policies| {
        policies.answer(seen, Some(&claim.facts))
    });
    let asked = match answer {
        Answer::Do(Action::Skip) => return Choice::LeftOut(SKIPPED.to_owned()),
        Answer::Do(Action::Custom) => return Choice::LeftOut(CUSTOM.to_owned()),
        Answer::Do(Action::Snapshot) => {
            return cut(claim, volume, wanted, true).unwrap_or_else(|lack| {
                Choice::Refused(format!(
                    "a resource policy asks for a snapshot, and none can be made: {}",
                    lack.why()
                ))
            });
        }
        Answer::Do(Action::FsBackup) => Asked::Policy,
        Answer::Nothing | Answer::Unknown if uses.asked => Asked::Pod,
        // As long as one of its pods does not exclude it.
        Answer::Nothing | Answer::Unknown
            if wanted.copies && (uses.not_excluded || !uses.excluded) =>
        {
            Asked::Default
        }
        answer => return without_a_copy(answer, claim, volume, uses, wanted),
    };
    copy(namespace, claim, uses, wanted, asked)
}

/// What is done where nobody asks for a copy.
fn without_a_copy(
    answer: Answer,
    claim: &Claim,
    volume: Option<&Volume>,
    uses: &Uses,
    wanted: Wanted<'_>,
) -> Choice {
    let left_out = || {
        let is_left = wanted.copies && uses.excluded;
        is_left.then(|| Choice::LeftOut(format!("left out by the annotation {EXCLUDES}")))
    };
    let said = match wanted.snapshots {
        Some(false) => {
            return left_out().unwrap_or_else(|| Choice::NotAsked(NOT_WANTED.to_owned()));
        }
        said => said == Some(true),
    };
    match cut(claim, volume, wanted, said) {
        // A policy may say that it is to be left out.
        Ok(_) if !said && answer == Answer::Unknown => Choice::NotAsked(NOT_KNOWN.to_owned()),
        Ok(cut) => cut,
        Err(lack) if said => Choice::Refused(format!(
            "a snapshot was asked for, and none can be made: {}",
            lack.why()
        )),
        Err(lack) => left_out().unwrap_or_else(|| match lack {
            _ if answer == Answer::Unknown => Choice::NotAsked(NOT_KNOWN.to_owned()),
            Lack::Here(why) => {
                Choice::NotAsked(format!("{NOT_ASKED}, and no snapshot can be made: {why}"))
            }
            Lack::Foreign(_) => Choice::NotAsked(NOT_ASKED.to_owned()),
        }),
    }
}

/// Why no snapshot can be made of a claim.
enum Lack {
    /// Nothing here is made for it.
    Foreign(&'static str),
    /// Something is missing that others have.
    Here(String),
}

impl Lack {
    fn why(self) -> String {
        match self {
            Self::Foreign(why) => why.to_owned(),
            Self::Here(why) => why,
        }
    }
}

/// A snapshot of a claim.
fn cut(
    claim: &Claim,
    volume: Option<&Volume>,
    wanted: Wanted<'_>,
    is_asked: bool,
) -> Result<Choice, Lack> {
    if wanted.moved {
        return Err(Lack::Here(
            "snapshots are not moved to the location yet (snapshotMoveData)".to_owned(),
        ));
    }
    let Some(volume) = volume else {
        return Err(Lack::Foreign("its volume could not be read"));
    };
    let Some(handle) = &volume.handle else {
        return Err(Lack::Foreign("its volume is not of a CSI driver"));
    };
    let classes = match wanted.offer {
        None | Some(Offer::Nothing) => {
            return Err(Lack::Foreign(
                "the cluster does not serve snapshot.storage.k8s.io/v1",
            ));
        }
        Some(Offer::Lacks(why)) => return Err(Lack::Here(why.clone())),
        Some(Offer::Classes(classes)) => classes,
    };
    if claim.facts.phase == "Lost" {
        return Err(Lack::Here(
            "its volume is lost: the claim's phase is Lost".to_owned(),
        ));
    }
    if wanted.cluster.is_none() {
        return Err(Lack::Here(
            "who makes the backup may not read namespace kube-system, and nobody could tell later in which cluster it is".to_owned(),
        ));
    }
    let of_backup = wanted
        .annotations
        .and_then(|all| all.get(&class::of_backup(&volume.driver)));
    let named = [
        ("the claim", claim.snapshot_class.as_str()),
        ("the backup", of_backup.map_or("", String::as_str)),
    ];
    match class::choose(classes, &volume.driver, named) {
        Ok(class) => Ok(Choice::Cut(Box::new(Cut {
            driver: volume.driver.clone(),
            class: class.to_owned(),
            volume: handle.clone(),
            is_asked,
        }))),
        Err(why) => Err(Lack::Here(why)),
    }
}

fn copy(namespace: &str, claim: &Claim, uses: &Uses, wanted: Wanted<'_>, asked: Asked) -> Choice {
    let refused = |why: &str| Choice::Refused(why.to_owned());
    if claim.facts.volume_mode == "Block" {
        return refused("its volume is a block device, and only files are copied");
    }
    if claim.facts.phase == "Lost" {
        return refused("its volume is lost: the claim's phase is Lost");
    }
    let Some(cluster) = wanted.cluster else {
        return refused(
            "there is no place for its copy: who makes the backup may not read namespace kube-system, whose uid is a part of it",
        );
    };
    match VolumeKeys::new(cluster, namespace, &claim.uid) {
        Ok(keys) => Choice::Copy(Box::new(Copy {
            keys,
            asked,
            pod: uses.by.clone(),
        })),
        Err(e) => Choice::Refused(format!("there is no place for its copy: {}", e.sentence())),
    }
}

impl Chosen {
    fn not_made(&self) -> &'static str {
        match &self.choice {
            Choice::Cut(_) => NOT_CUT,
            _ => NOT_MADE,
        }
    }

    /// What became of its data in the end.
    fn outcome(&self, copied: Option<&Result<Outcome, String>>) -> Outcome {
        match &self.choice {
            Choice::Copy(_) | Choice::Cut(_) => match copied {
                Some(Ok(outcome)) => outcome.clone(),
                Some(Err(why)) => Outcome::Failed(why.clone()),
                None => Outcome::Failed(self.not_made().to_owned()),
            },
            Choice::LeftOut(why) => Outcome::LeftOut(why.clone()),
            Choice::NotAsked(why) => Outcome::NotAsked(why.clone()),
            Choice::Refused(why) => Outcome::Failed(why.clone()),
            Choice::Nothing(why) => Outcome::Nothing((*why).to_owned()),
        }
    }
}

/// A copy that was asked for and of which nobody says what came of it.
const NOT_MADE: &str = "a copy of its files was asked for, and none was made";

/// The same of a snapshot.
const NOT_CUT: &str = "a snapshot was asked for, and none was made";

/// A row for every claim.
pub(super) fn rows(
    choices: &Choices,
    volumes: &BTreeMap<String, Volume>,
    copied: &Copied,
) -> Vec<Row> {
    choices
        .iter()
        .map(|(key, chosen)| {
            let claim = &chosen.claim;
            Row {
                namespace: key.0.clone(),
                claim: key.1.clone(),
                uid: claim.uid.clone(),
                volume: claim.volume.clone(),
                volume_mode: claim.facts.volume_mode.clone(),
                storage_class: claim.facts.storage_class.clone(),
                driver: volumes
                    .get(&claim.volume)
                    .map(|volume| volume.driver.clone())
                    .unwrap_or_default(),
                request: claim.request.clone(),
                capacity: claim.capacity.clone(),
                access_modes: claim.facts.access_modes.clone(),
                outcome: chosen.outcome(copied.get(key)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
