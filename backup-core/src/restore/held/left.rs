//! What a restore that did not come to its end left of the claims that it held: for who deletes its record. Of this restore is what has its name and its backup's uid;
//! where only the name is known, it may be another one's of that name, and is named and left alone.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::patience::patiently;
use super::super::rewrite::LABEL_RESTORE;
use super::api::pods_with;
use super::note::Note;
use super::objects::{
    Aim, BACKUP, HELD_FOR, MADE_FOR, RESTORE, SNAPSHOT, STAGING_OF, annotation, former, is_going,
    text, was_bound,
};
use crate::cluster::{Cluster, page};
use crate::error::{Error, Kind, Result};
use crate::name::{Name, label_value};

/// Objects of a page, and its size at most.
const ITEMS: usize = 500;
const LARGEST: usize = 64 << 20;

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: String,
    /// The claim that it is about: itself, or the one whose volume is filled under it.
    pub(super) of: String,
}

impl Claim {
    fn read(claim: &Value, of: &str) -> Self {
        let meta = |key: &str| text(claim, &["metadata", key]).to_owned();
        Self {
            namespace: meta("namespace"),
            name: meta("name"),
            uid: meta("uid"),
            version: meta("resourceVersion"),
            of: of.to_owned(),
        }
    }

    /// `shop/data`
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.of)
    }

    /// Where the server has it.
    pub(super) fn at(&self) -> String {
        format!(
            "/api/v1/namespaces/{}/persistentvolumeclaims/{}",
            self.namespace, self.name
        )
    }
}

/// A volume that is full, and for which claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) former: Option<String>,
    pub(super) note: Note,
    owner: Owner,
    is_bound: bool,
}

/// Whose a full volume is by its reference.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// That of the claim under which it was filled, or nobody's.
    Staging,
    /// The real claim that it was filled for.
    Real,
    /// Another claim, which somebody gave it to.
    Other(String),
}

impl Full {
    fn read(volume: &Value, note: Note) -> Self {
        let of = |key: &str| text(volume, &["spec", "claimRef", key]);
        let is_here = of("namespace") == note.namespace;
        let owner = match of("name") {
            "" => Owner::Staging,
            name if is_here && name == note.staging() => Owner::Staging,
            name if is_here && name == note.claim && of("uid") == note.uid => Owner::Real,
            name => Owner::Other(format!("{}/{name}", of("namespace"))),
        };
        Self {
            name: text(volume, &["metadata", "name"]).to_owned(),
            version: text(volume, &["metadata", "resourceVersion"]).to_owned(),
            former: former(volume),
            owner,
            is_bound: volume["status"]["phase"] == "Bound",
            note,
        }
    }
}

/// What is left of a restore's claims in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Claims under which volumes were filled.
    pub(super) staging: Vec<Claim>,
    /// Full volumes that no claim has yet.
    pub(super) full: Vec<Full>,
    /// Volumes that are bound to the real claim already, and only keep what was written on them.
    pub(super) given: Vec<Full>,
    /// Volumes that somebody gave to another claim, and that claim.
    pub(super) taken: Vec<(Full, String)>,
    /// Claims that were made for such volumes and never bound.
    pub(super) held: Vec<Claim>,
    /// What has the restore's name and may be another one's, a sentence each.
    untold: Vec<String>,
    /// A mover that fills one of its volumes now, or will.
    at_work: Option<String>,
}

/// Whose something is.
enum Whose {
    This,
    /// It, or the record, does not tell of which backup it is.
    Untold,
    Others,
}

fn whose(uid: &str, wanted: Option<&str>) -> Whose {
    match wanted {
        Some(wanted) if uid == wanted && !uid.is_empty() => Whose::This,
        Some(_) if !uid.is_empty() => Whose::Others,
        _ => Whose::Untold,
    }
}

/// Looks for it. `backup_uid` is what the restore's record says of its backup, where it says it.
///
/// # Errors
/// The server's.
pub async fn left(cluster: &Cluster, restore: &Name, backup_uid: Option<&str>) -> Result<Left> {
    let mut left = Left::default();
    let label = label_value(restore.as_str());
    let selector = format!("{}%3D{label}", LABEL_RESTORE.replace('/', "%2F"));
    let claims = "/api/v1/persistentvolumeclaims";
    each(cluster, claims, Some(&selector), |claim| {
        if claim["metadata"]["labels"][LABEL_RESTORE] == label {
            left.note_claim(claim, restore, backup_uid);
        }
    })
    .await?;
    each(cluster, "/api/v1/persistentvolumes", None, |volume| {
        left.note_volume(volume, restore, backup_uid);
    })
    .await?;
    for claim in &left.staging {
        let pods = pods_with(cluster, &claim.namespace, &claim.name).await?;
        let mut movers = pods.iter().filter(|pod| pod.is_mover && !pod.is_over);
        if let Some(mover) = movers.next() {
            left.at_work = Some(format!("{}/{}", claim.namespace, mover.name));
        }
    }
    left.settle(cluster).await?;
    Ok(left)
}

/// Full volumes of a restore, and for which claims they are kept.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Kept(Vec<(Note, String)>);

/// Those that an earlier run of this restore left. Who may not list volumes knows of none.
///
/// # Errors
/// The server's.
pub(in super::super) async fn kept(cluster: &Cluster, restore: &str) -> Result<Kept> {
    let mut kept = Kept::default();
    let listed = each(cluster, "/api/v1/persistentvolumes", None, |volume| {
        let note = Note::read(annotation(volume, HELD_FOR));
        if let Some(note) = note.filter(|note| note.restore == restore) {
            let name = text(volume, &["metadata", "name"]);
            kept.0.push((note, name.to_owned()));
        }
    });
    match listed.await {
        Err(e) if e.kind() == Kind::Forbidden => Ok(Kept::default()),
        listed => listed.map(|()| kept),
    }
}

impl Kept {
    /// Those for a claim of this aim: the claim's uid, and the volume.
    pub(in super::super) fn of(&self, aim: &Aim) -> Vec<(String, String)> {
        let all = self.0.iter();
        let ours = all.filter(|(note, _)| *note == aim.note(&note.uid));
        ours.map(|(note, volume)| (note.uid.clone(), volume.clone()))
            .collect()
    }
}

impl Left {
    fn note_claim(&mut self, claim: &Value, restore: &Name, backup_uid: Option<&str>) {
        let of = annotation(claim, STAGING_OF);
        let is_staging = !of.is_empty();
        let is_real =
            !annotation(claim, SNAPSHOT).is_empty() && !annotation(claim, MADE_FOR).is_empty();
        let is_meant = match is_staging {
            true => annotation(claim, RESTORE) == restore.as_str(),
            false => is_real && !was_bound(claim) && !is_going(claim),
        };
        if !is_meant {
            return;
        }
        let name = text(claim, &["metadata", "name"]);
        let read = Claim::read(claim, if is_staging { of } else { name });
        match whose(annotation(claim, BACKUP), backup_uid) {
            Whose::This if is_staging => self.staging.push(read),
            Whose::This => self.held.push(read),
            Whose::Others => {}
            Whose::Untold => {
                let path = format!("claim {}/{name}", read.namespace);
                self.untold.push(untold(&path, restore));
            }
        }
    }

    fn note_volume(&mut self, volume: &Value, restore: &Name, backup_uid: Option<&str>) {
        let held = annotation(volume, HELD_FOR);
        if !Note::is_named(held, restore.as_str()) {
            return;
        }
        let note = Note::read(held);
        let uid = note.as_ref().map_or("", |note| note.backup_uid.as_str());
        match (whose(uid, backup_uid), note) {
            (Whose::This, Some(note)) => self.full.push(Full::read(volume, note)),
            (Whose::Others, _) => {}
            _ => {
                let path = format!("volume {}", text(volume, &["metadata", "name"]));
                self.untold.push(untold(&path, restore));
            }
        }
    }

    /// A volume is handed over where it and the claim of that uid are bound to each other; then that claim is no left one. With less than that its data goes with the claim.
    async fn settle(&mut self, cluster: &Cluster) -> Result<()> {
        for full in std::mem::take(&mut self.full) {
            let note = &full.note;
            let path = format!(
                "/api/v1/namespaces/{}/persistentvolumeclaims/{}",
                note.namespace, note.claim
            );
            if let Owner::Other(claim) = &full.owner {
                let claim = claim.clone();
                self.taken.push((full, claim));
                continue;
            }
            let is_given = full.owner == Owner::Real
                && full.is_bound
                && match patiently(|| cluster.get_bounded(&path, LARGEST)).await {
                    Ok(body) => {
                        let claim = read(&body, "claim")?;
                        claim["metadata"]["uid"] == note.uid
                            && claim["spec"]["volumeName"] == full.name
                            && claim["status"]["phase"] == "Bound"
                            && !is_going(&claim)
                    }
                    Err(e) if e.is_not_found() => false,
                    Err(e) => return Err(e.into()),
                };
            match is_given {
                true => self.given.push(full),
                false => self.full.push(full),
            }
        }
        let given: BTreeSet<&String> = self.given.iter().map(|full| &full.note.uid).collect();
        self.held.retain(|claim| !given.contains(&claim.uid));
        Ok(())
    }

    /// Whether there is nothing that can be cleared.
    pub fn is_empty(&self) -> bool {
        self.goes().is_empty()
    }

    /// A mover of it that has not ended, by namespace and name: a run may be at work, and nothing is cleared under it.
    pub fn at_work(&self) -> Option<&str> {
        self.at_work.as_deref()
    }

    /// A volume that is full and that no claim is bound to, in words: its data is given up with it.
    pub fn gives_up(&self) -> Option<String> {
        let full = self.full.first()?;
        let (name, note) = (&full.name, &full.note);
        Some(match full.owner {
            Owner::Real => format!(
                "volume {name} is promised to claim {}/{}, and they are not bound to each other",
                note.namespace, note.claim
            ),
            _ => format!("volume {name} is full, and no claim has it"),
        })
    }

    /// What is cleared, a few words each.
    pub fn goes(&self) -> Vec<String> {
        let staging = self.staging.iter();
        let staging = staging.map(|claim| format!("what was being filled for {}", claim.path()));
        let full = self.full.iter();
        let full = full.map(|full| format!("the data in volume {}", full.name));
        let held = self.held.iter();
        let held = held.map(|claim| format!("claim {}, which was never bound", claim.path()));
        let given = self.given.iter();
        let given = given.map(|full| format!("the former policy of volume {}", full.name));
        let taken = self.taken.iter();
        let taken = taken.map(|(full, _)| format!("what is noted on volume {}", full.name));
        let rest = given.chain(taken);
        staging.chain(full).chain(held).chain(rest).collect()
    }

    /// What has the restore's name, and of which it is not known whether it is this one's; a sentence each.
    pub fn untold(&self) -> &[String] {
        &self.untold
    }
}

fn untold(what: &str, restore: &Name) -> String {
    format!(
        "{what} is of a restore named {restore}, and whether it is this one is not told by it and the record: it stays, look at it and delete it by hand"
    )
}

fn read(body: &[u8], what: &str) -> Result<Value> {
    serde_json::from_slice(body)
        .map_err(|e| Error::corrupt(format!("the server's answer is no {what}")).because(e))
}

/// Shows every object of a list.
pub(in super::super) async fn each(
    cluster: &Cluster,
    path: &str,
    selector: Option<&str>,
    mut show: impl FnMut(&Value),
) -> Result<()> {
    let mut token = String::new();
    loop {
        let mut path = page(path, ITEMS, &token);
        if let Some(selector) = selector {
            path.push_str("&labelSelector=");
            path.push_str(selector);
        }
        let body = patiently(|| cluster.get_bounded(&path, LARGEST)).await?;
        let list = read(&body, "list")?;
        let items = list["items"].as_array();
        let items = items.ok_or_else(|| Error::corrupt("the server's answer is no list"))?;
        items.iter().for_each(&mut show);
        match list["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() && next != token => next.clone_into(&mut token),
            _ => return Ok(()),
        }
    }
}
