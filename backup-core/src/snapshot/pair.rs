//! The two objects by which a claim of a restore gets its data from a snapshot that is known by its handle. They keep it (Retain), and go when the claim is bound.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::drive::{Api, GOES, PAUSE, Place, never};
use super::expire;
use super::objects::{self, At, Content, Known, RESTORE};
use super::step::Goal;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::name::Name;
use crate::records::copies::CsiSnapshot;

/// How long the driver may take to say that it has the snapshot.
const READY: Duration = Duration::from_secs(600);

/// How long it has to say that it has none such.
const UNKNOWN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 60_000 });

/// By which the scheduler says on a claim for which node its volume is to be made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// A pair without a claim that is as old is not of a restore at work.
const OLD: SignedDuration = SignedDuration::from_hours(1);

/// For which claim which snapshot is meant.
#[derive(Clone, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) snapshot: &'a CsiSnapshot,
    /// The restore's name, as it stands on labels.
    pub(crate) restore: &'a str,
    /// The claim, in the target.
    pub(crate) namespace: &'a str,
    pub(crate) claim: &'a str,
    /// The mode of the volume that it is of.
    pub(crate) mode: &'a str,
}

/// What a claim is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The name of the VolumeSnapshot.
    pub(crate) name: String,
    /// What the claim has to ask for at least, in bytes.
    pub(crate) size: u64,
}

impl Pair<'_> {
    fn at(&self) -> At {
        let of = [
            self.restore,
            self.namespace,
            self.claim,
            &self.snapshot.driver,
            &self.snapshot.handle,
        ];
        At {
            namespace: self.namespace.to_owned(),
            name: objects::name("restore", &of),
        }
    }

    /// Makes both, where they do not stand, and waits until the driver knows the snapshot. Where that fails they are taken away again.
    ///
    /// # Errors
    /// Why a claim can not be made of it.
    pub(crate) async fn make(
        &self,
        cluster: &Cluster,
        stop: &watch::Receiver<bool>,
    ) -> Result<Source> {
        let api = Api::new(cluster);
        let at = self.at();
        let made = self.make_at(&api, &at, stop).await;
        if made.is_err() {
            // What stays is taken by the next command.
            let _ = remove(&api, &at).await;
        }
        made
    }

    async fn make_at(&self, api: &Api, at: &At, stop: &watch::Receiver<bool>) -> Result<Source> {
        let (driver, handle) = (self.snapshot.driver.as_str(), self.snapshot.handle.as_str());
        let class = api.class(&self.snapshot.class, driver).await?;
        let known = Known {
            driver,
            handle,
            class: class.map(|_| self.snapshot.class.as_str()),
            mode: self.mode,
        };
        let refused = |e| Error::from(e).context("the objects of its snapshot can not be made");
        let snapshot = objects::source(at, &known, self.restore, self.claim);
        api.create_snapshot(&snapshot).await.map_err(refused)?;
        // The content is for this one alone: any other of its name would get it as well.
        let snapshot = api.snapshot(at).await?;
        let snapshot = snapshot.filter(|snapshot| snapshot.source.as_deref() == Some(&at.name));
        let snapshot = snapshot.ok_or_else(|| self.foreign("VolumeSnapshot", at))?;
        let content = objects::sourced(at, &snapshot.uid, &known, self.restore, self.claim);
        api.create_content(&content).await.map_err(refused)?;
        // Whoever is about to remove it looks for that content, after it has made its own.
        if api.content(&expire::name(driver, handle)).await?.is_some() {
            return Err(Error::other(
                "its snapshot is being removed, for its backup goes",
            ));
        }
        let mut place = Place {
            uid: Some(snapshot.uid),
            content: Some(at.name.clone()),
            ..Place::of(at)
        };
        let until = Instant::now() + READY;
        let goal = Goal::Ready;
        let live = tokio::select! {
            live = api.drive(&mut place, &goal, until, stop) => live?,
            () = unknown(api, &at.name) => {
                return Err(Error::not_found("the driver has no such snapshot any more"));
            }
        };
        let (snapshot, content) = live
            .snapshot
            .zip(live.content)
            .ok_or_else(|| self.foreign("VolumeSnapshotContent", at))?;
        let is_it = content.is_static()
            && content.is_for(driver, handle)
            && content.handle.as_deref() == Some(handle)
            && content.policy == objects::RETAIN;
        if !is_it {
            return Err(self.foreign("VolumeSnapshotContent", at));
        }
        if content.is_another(self.snapshot.cut) {
            return Err(Error::other(format!(
                "the driver has another snapshot under its handle now, of {:.0}",
                content.cut.unwrap_or(Timestamp::UNIX_EPOCH)
            )));
        }
        Ok(Source {
            name: at.name.clone(),
            size: snapshot.size.max(self.snapshot.size),
        })
    }

    fn foreign(&self, kind: &str, at: &At) -> Error {
        Error::other(format!(
            "{kind} {} is there and is not what this restore makes",
            at.name
        ))
        .hint(format!(
            "see who made it in namespace {}, and remove it",
            self.namespace
        ))
    }
}

/// Ends when the driver has said for a while that it knows no such snapshot: once may be a mistake.
async fn unknown(api: &Api, content: &str) {
    let mut since = None;
    loop {
        tokio::time::sleep(PAUSE * 5).await;
        match api.content(content).await {
            Ok(Some(content)) if content.is_unknown() => {
                let since = since.get_or_insert_with(Instant::now);
                if since.elapsed() >= UNKNOWN {
                    return;
                }
            }
            _ => since = None,
        }
    }
}

/// What a claim's spec says of where its data comes from.
pub(crate) fn data_source(name: &str) -> Value {
    json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name})
}

async fn remove(api: &Api, at: &At) -> Result<()> {
    let mut place = Place::of(at);
    place.content = Some(at.name.clone());
    let until = Instant::now() + GOES;
    api.drive(&mut place, &Goal::Left, until, &never())
        .await
        .map(drop)
}

/// A claim that is not bound yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Namespace and name: `shop/data`.
    pub(crate) path: String,
    /// Its class waits for a pod, and one that uses it has got a node: the driver is asked for the volume.
    pub(crate) is_placed: bool,
}

/// What became of pairs.
#[derive(Debug, Default)]
pub(crate) struct Cleared {
    /// The claims of those that stay.
    pub(crate) waiting: Vec<Waiting>,
    /// Why others are there still, a sentence each.
    pub(crate) left: Vec<String>,
}

impl Cleared {
    async fn remove(&mut self, api: &Api, at: &At) {
        if let Err(e) = remove(api, at).await {
            self.left.push(format!(
                "VolumeSnapshot {}/{} and its content, which a restore made, can not be removed: {}",
                at.namespace,
                at.name,
                e.sentence()
            ));
        }
    }
}

/// Takes away the pairs of restores (of one, where one is named) whose claims are bound, or are not there and are not about to be made.
///
/// # Errors
/// The server's, where it shows none.
pub(crate) async fn clear(
    cluster: &Cluster,
    restore: Option<&str>,
    now: Timestamp,
) -> Result<Cleared> {
    let api = Api::new(cluster);
    let snapshots = match api.labelled(RESTORE).await {
        // Nobody made any where there is no such thing.
        Err(e) if e.is_not_found() || e.is_forbidden() => return Ok(Cleared::default()),
        labelled => labelled?,
    };
    let mut cleared = Cleared::default();
    for object in &snapshots {
        let meta = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let at = At {
            namespace: text(&meta["namespace"]),
            name: text(&meta["name"]),
        };
        let is_meant = restore.is_none_or(|restore| meta["labels"][RESTORE] == restore);
        if !is_meant || object["spec"]["source"]["volumeSnapshotContentName"] != at.name.as_str() {
            continue;
        }
        let claim = text(&meta["annotations"][objects::CLAIM]);
        let made: Option<Timestamp> = meta["creationTimestamp"]
            .as_str()
            .and_then(|at| at.parse().ok());
        let is_old = made.is_none_or(|made| now.duration_since(made) > OLD);
        // Whoever wrote something else there has no claim.
        let found = match Name::foreign(&claim) {
            Ok(_) => api.claim(&at.namespace, &claim).await?,
            Err(_) => None,
        };
        let goes = match &found {
            Some(claim) => claim["status"]["phase"] == "Bound",
            None => is_old || restore.is_some(),
        };
        if goes {
            cleared.remove(&api, &at).await;
        } else {
            let annotations = found.map(|mut claim| claim["metadata"]["annotations"].take());
            cleared.waiting.push(Waiting {
                path: format!("{}/{claim}", at.namespace),
                is_placed: annotations.is_some_and(|all| all[SELECTED_NODE].is_string()),
            });
        }
    }
    // A namespace that went has taken the VolumeSnapshot along, which stood before its content.
    let is_alone = |content: &Content| {
        let of = content
            .of
            .as_ref()
            .filter(|of| of.name == content.name && objects::is_name("restore", &of.name));
        let has_other = |of: &At| {
            let mut all = snapshots.iter().map(|object| &object["metadata"]);
            all.any(|meta| {
                meta["name"] == of.name.as_str() && meta["namespace"] == of.namespace.as_str()
            })
        };
        // Whoever makes such objects by hand may make the content first.
        let is_meant = match (restore, &content.restore) {
            (_, None) => false,
            (Some(restore), Some(its)) => restore == its,
            (None, Some(_)) => content
                .created
                .is_some_and(|made| now.duration_since(made) > OLD),
        };
        is_meant
            && content.is_static()
            && content.policy == objects::RETAIN
            && of.is_some_and(|of| !has_other(of))
    };
    for content in api.contents(is_alone).await? {
        if let Some(at) = &content.of
            && api.snapshot(at).await?.is_none()
        {
            cleared.remove(&api, at).await;
        }
    }
    Ok(cleared)
}
