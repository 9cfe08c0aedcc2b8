//! Which claims of a backup are copied, and why the others are not. The rules and their order are Velero's; docs/volumes.md has them as a table. Pure: what comes of a
//! copy is known later.

use std::collections::BTreeMap;

use super::BackupOptions;
use super::gather::Gathered;
use super::page::Seen;
use super::policies::{self, Action, Answer, Policies};
use super::volumes::{Claim, EXCLUDES, Uses, Volume};
use crate::layout::VolumeKeys;
use crate::records::copies::{Outcome, Pod, Row, Saved};

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
    /// It is to be left out.
    LeftOut(String),
    /// Nobody asked for it.
    NotAsked(&'static str),
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

/// What came of copies, by the claim's namespace and name: a copy, or why there is none.
pub(super) type Copied = BTreeMap<(String, String), Result<Saved, String>>;

/// What is asked of all volumes of a backup.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    /// Copies of the files of all claims.
    pub(super) copies: bool,
    /// Snapshots; nothing where nobody says.
    pub(super) snapshots: Option<bool>,
    /// What resource policies say.
    pub(super) policies: Option<&'a Policies>,
    /// The uid of kube-system, where it is known.
    pub(super) cluster: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Of a backup with these options.
    pub(super) fn of(options: &BackupOptions, gathered: &'a Gathered) -> Self {
        Self {
            copies: options.copies_by_default(),
            snapshots: options.wants_snapshots(),
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
    let facts = volumes
        .get(&claim.volume)
        .and_then(|volume| volume.facts.as_deref());
    let seen = facts.map_or(policies::Seen::Unread, policies::Seen::Facts);
    let answer = wanted.policies.map_or(Answer::Nothing, |policies| {
        policies.answer(seen, Some(&claim.facts))
    });
    let asked = match answer {
        Answer::Do(Action::Skip) => return Choice::LeftOut(SKIPPED.to_owned()),
        Answer::Do(Action::Custom) => return Choice::LeftOut(CUSTOM.to_owned()),
        Answer::Do(Action::Snapshot) => {
            let why = "a resource policy asks for a snapshot, which is not done yet";
            return Choice::Refused(why.to_owned());
        }
        Answer::Do(Action::FsBackup) => Asked::Policy,
        Answer::Nothing | Answer::Unknown if uses.asked => Asked::Pod,
        // As long as one of its pods does not exclude it.
        Answer::Nothing | Answer::Unknown
            if wanted.copies && (uses.not_excluded || !uses.excluded) =>
        {
            Asked::Default
        }
        answer => return without_a_copy(answer, uses, wanted),
    };
    copy(namespace, claim, uses, wanted, asked)
}

/// What is done where nobody asks for a copy.
fn without_a_copy(answer: Answer, uses: &Uses, wanted: Wanted<'_>) -> Choice {
    match wanted.snapshots {
        Some(true) => Choice::Refused("a snapshot was asked for, which is not done yet".to_owned()),
        _ if wanted.copies && uses.excluded => {
            Choice::LeftOut(format!("left out by the annotation {EXCLUDES}"))
        }
        Some(false) => Choice::NotAsked(NOT_WANTED),
        None if answer == Answer::Unknown => Choice::NotAsked(NOT_KNOWN),
        None => Choice::NotAsked(NOT_ASKED),
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
    /// What became of its data in the end.
    fn outcome(&self, copied: Option<&Result<Saved, String>>) -> Outcome {
        match &self.choice {
            Choice::Copy(_) => match copied {
                Some(Ok(saved)) => Outcome::Saved(Box::new(saved.clone())),
                Some(Err(why)) => Outcome::Failed(why.clone()),
                None => Outcome::Failed(NOT_MADE.to_owned()),
            },
            Choice::LeftOut(why) => Outcome::LeftOut(why.clone()),
            Choice::NotAsked(why) => Outcome::NotAsked((*why).to_owned()),
            Choice::Refused(why) => Outcome::Failed(why.clone()),
            Choice::Nothing(why) => Outcome::Nothing((*why).to_owned()),
        }
    }
}

/// A copy that was asked for and of which nobody says what came of it.
const NOT_MADE: &str = "a copy of its files was asked for, and none was made";

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
