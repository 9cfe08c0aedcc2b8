//! What is asked of the cluster for one held claim, and what is changed there. Every change goes by the uid or the revision that was seen before.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::patience::patiently;
use super::super::rewrite::MANAGER;
use super::left::each;
use super::objects::{self, Aim, FILLING, annotation};
use super::step::{Action, Live, Real, SCALE, Staging, Volume};
use super::users::User;
use crate::cluster::{ApiError, Call, Cluster, page};
use crate::error::{Error, Kind, Result};
use crate::mover::run_of;

/// No such object is larger.
const LARGEST: usize = 4 << 20;
/// Pods of a page, and its size at most.
const PODS: usize = 250;
const LARGEST_PAGE: usize = 64 << 20;
/// How long something that was deleted may take to go.
pub(super) const GOES: Duration = Duration::from_secs(120);
/// The pauses between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(300);

/// Why something was not done: it changed in between, which is looked at again, or anything else.
#[derive(Debug)]
pub(super) enum Conflict {
    Again,
    Other(Error),
}

impl From<ApiError> for Conflict {
    fn from(e: ApiError) -> Self {
        if e.is_conflict() {
            Self::Again
        } else {
            Self::Other(e.into())
        }
    }
}

impl Conflict {
    /// What the server refused, below what was to be done.
    pub(super) fn of(e: ApiError, doing: impl Into<String>) -> Self {
        match Self::from(e) {
            Self::Other(e) => Self::Other(e.context(doing)),
            again => again,
        }
    }
}

impl From<Error> for Conflict {
    fn from(e: Error) -> Self {
        Self::Other(e)
    }
}

/// One claim in the cluster.
pub(super) struct Asking<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) aim: &'a Aim,
}

/// Whether a run filled the volume under the staging claim that stands, and no other one began with it since.
fn is_filled(filled: Option<&str>, staging: Option<&Staging>, volume: Option<&Value>) -> bool {
    let (Some(filled), Some(staging), Some(volume)) = (filled, staging, volume) else {
        return false;
    };
    objects::is_begun(volume, &staging.uid) && annotation(volume, FILLING) == filled
}

/// The volume of a staging claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) name: String,
    pub(super) version: String,
    /// A run of this restore began to fill it: what stands there is its own.
    pub(super) is_begun: bool,
    /// The claim's uid.
    uid: String,
}

/// A pod that has a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounting {
    pub(super) name: String,
    pub(super) uid: String,
    /// It is a mover, of whatever run.
    pub(super) is_mover: bool,
    /// It has ended, or is being deleted.
    pub(super) is_over: bool,
}

/// The pod, where it has this claim of its namespace. One that has ended has it too: the claim does not go while the pod's object is there.
fn mounting(pod: &Value, claim: &str) -> Option<Mounting> {
    let name = pod["metadata"]["name"].as_str()?;
    let mut volumes = pod["spec"]["volumes"].as_array()?.iter();
    let has = volumes.any(|volume| {
        let made = volume["ephemeral"].is_object()
            && volume["name"]
                .as_str()
                .is_some_and(|volume| claim == format!("{name}-{volume}"));
        made || volume["persistentVolumeClaim"]["claimName"] == claim
    });
    has.then(|| Mounting {
        name: name.to_owned(),
        uid: pod["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        is_mover: run_of(pod).is_some(),
        is_over: !pod["metadata"]["deletionTimestamp"].is_null()
            || matches!(
                pod["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed")
            ),
    })
}

/// An error where the restore is to end.
fn is_asked_to_end(stop: &watch::Receiver<bool>) -> Result<()> {
    match *stop.borrow() {
        true => Err(stopped()),
        false => Ok(()),
    }
}

/// The restore was told to end.
pub(super) fn stopped() -> Error {
    Error::new(Kind::Interrupted, "the restore was stopped")
}

fn absent(answer: Result<bytes::Bytes, ApiError>) -> Result<Option<Value>, ApiError> {
    match answer {
        Ok(body) => serde_json::from_slice(&body)
            .map(Some)
            .map_err(|e| ApiError {
                message: format!("the server's answer can not be read: {e}"),
                ..ApiError::default()
            }),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// Deletes what is as these preconditions say; what is gone already is fine.
pub(super) async fn delete(
    cluster: &Cluster,
    path: &str,
    preconditions: Value,
) -> Result<(), ApiError> {
    let options = json!({ "preconditions": preconditions }).to_string();
    let call = Call::delete(path, options.into());
    match patiently(|| cluster.send(&call)).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Changes a volume of the revision that the patch names.
pub(super) async fn patch_volume(
    cluster: &Cluster,
    name: &str,
    patch: &Value,
) -> Result<(), ApiError> {
    let path = format!("/api/v1/persistentvolumes/{name}?fieldManager={MANAGER}");
    let call = Call::merge_patch(&path, patch.to_string().into());
    patiently(|| cluster.send(&call)).await.map(drop)
}

/// Pods of a namespace that have this claim, those that have ended among them.
pub(super) async fn pods_with(
    cluster: &Cluster,
    namespace: &str,
    claim: &str,
) -> Result<Vec<Mounting>, ApiError> {
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let path = page(&pods, PODS, &token);
        let body = patiently(|| cluster.get_bounded(&path, LARGEST_PAGE)).await?;
        let list: Value = serde_json::from_slice(&body).map_err(|e| ApiError {
            message: format!("the server's answer is no list of pods: {e}"),
            ..ApiError::default()
        })?;
        let pods = list["items"].as_array().into_iter().flatten();
        found.extend(pods.filter_map(|pod| mounting(pod, claim)));
        match list["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() && next != token => next.clone_into(&mut token),
            _ => return Ok(found),
        }
    }
}

/// Who would wait for a claim, or make an empty one of its name as soon as there is none, in words: a pod that has it, or a set of pods that has it as template.
pub(super) async fn user_of(
    cluster: &Cluster,
    namespace: &str,
    claim: &str,
) -> Result<Option<String>> {
    let pods = pods_with(cluster, namespace, claim).await?;
    if let Some(pod) = pods.first() {
        return Ok(Some(format!("pod {}", pod.name)));
    }
    let mut found = None;
    let sets = format!("/apis/apps/v1/namespaces/{namespace}/statefulsets");
    each(cluster, &sets, None, |set| {
        let makes = User::read(set).is_some_and(|user| user.makes(claim));
        if makes && set["spec"]["replicas"] != 0 {
            let name = set["metadata"]["name"].as_str().unwrap_or_default();
            found = Some(format!("StatefulSet {name}"));
        }
    })
    .await?;
    Ok(found)
}

impl Asking<'_> {
    fn claims(&self) -> String {
        format!(
            "/api/v1/namespaces/{}/persistentvolumeclaims",
            self.aim.namespace
        )
    }

    fn pods(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.aim.namespace)
    }

    async fn find(&self, path: &str) -> Result<Option<Value>, ApiError> {
        absent(patiently(|| self.cluster.get_bounded(path, LARGEST)).await)
    }

    pub(super) async fn claim(&self, name: &str) -> Result<Option<Value>, ApiError> {
        self.find(&format!("{}/{name}", self.claims())).await
    }

    pub(super) async fn volume(&self, name: &str) -> Result<Option<Value>, ApiError> {
        self.find(&format!("/api/v1/persistentvolumes/{name}"))
            .await
    }

    /// Whether the volume of this claim is made only for the first pod that has it. So it is taken where the claim's class can not be read: no more than room is asked for then.
    pub(super) async fn waits_for_pod(&self, claim: &str) -> Result<bool, ApiError> {
        let claim = self.claim(claim).await?.unwrap_or_default();
        let Some(class) = claim["spec"]["storageClassName"].as_str() else {
            return Ok(true);
        };
        let path = format!("/apis/storage.k8s.io/v1/storageclasses/{class}");
        match self.find(&path).await {
            Ok(class) => {
                let mode = class.as_ref().map(|class| &class["volumeBindingMode"]);
                Ok(mode.is_none_or(|mode| mode == "WaitForFirstConsumer"))
            }
            Err(e) if e.is_forbidden() => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Pods that have this claim of its namespace, those that have ended among them.
    pub(super) async fn mounting(&self, claim: &str) -> Result<Vec<Mounting>, ApiError> {
        pods_with(self.cluster, &self.aim.namespace, claim).await
    }

    /// What stands. The real claim is read last: what is said of it holds after what is said of its volume. `mover` is the uid of this run's pod that has
    /// the staging claim, `filled` what stands on the volume that this run filled.
    pub(super) async fn look(
        &self,
        mover: Option<&str>,
        filled: Option<&str>,
    ) -> Result<Live, Conflict> {
        let staging = self.claim(&self.aim.staging()).await?;
        let staging = staging.map(|claim| Staging::read(&claim, self.aim));
        let before = self.claim(&self.aim.claim).await?;
        let before = before.map(|claim| Real::read(&claim, self.aim));
        let named = before.as_ref().map(|real| real.volume.clone());
        let bound = || staging.as_ref().and_then(|staging| staging.volume.clone());
        let volume = match named.filter(|name| !name.is_empty()).or_else(bound) {
            Some(name) => self.volume(&name).await?,
            None => None,
        };
        let strangers = match &staging {
            Some(_) => {
                let all = self.mounting(&self.aim.staging()).await?;
                all.iter()
                    .filter(|pod| Some(pod.uid.as_str()) != mover)
                    .count()
            }
            None => 0,
        };
        let real = self.claim(&self.aim.claim).await?;
        let real = real.map(|claim| Real::read(&claim, self.aim));
        // Another claim than the one by which the volume was found.
        if real.as_ref().map(|real| &real.uid) != before.as_ref().map(|real| &real.uid) {
            return Err(Conflict::Again);
        }
        let is_filled = is_filled(filled, staging.as_ref(), volume.as_ref());
        Ok(Live {
            volume: volume.map(|volume| Volume::read(&volume, self.aim, real.as_ref())),
            kept: None,
            is_beginning: false,
            is_filled,
            has_mover: mover.is_some() && staging.is_some(),
            real,
            staging,
            strangers,
        })
    }

    /// The volume of the staging claim, before it is filled.
    pub(super) async fn staged(&self) -> Result<Staged, Conflict> {
        let staging = self.claim(&self.aim.staging()).await?;
        let staging = staging.unwrap_or_default();
        let uid = staging["metadata"]["uid"].as_str().unwrap_or_default();
        let name = staging["spec"]["volumeName"].as_str().unwrap_or_default();
        let volume = match name {
            "" => None,
            name => self.volume(name).await?,
        };
        let volume = volume.unwrap_or_default();
        if uid.is_empty() || volume["spec"]["claimRef"]["uid"] != uid {
            return Err(Conflict::Again);
        }
        let version = volume["metadata"]["resourceVersion"].as_str();
        Ok(Staged {
            name: name.to_owned(),
            version: version.unwrap_or_default().to_owned(),
            is_begun: objects::is_begun(&volume, uid),
            uid: uid.to_owned(),
        })
    }

    /// Writes on the volume, if it is as it was seen, that this run fills it; so it is another revision for who filled it before. What stands on it now.
    pub(super) async fn begin(&self, staged: &Staged, run: &str) -> Result<String, Conflict> {
        let filling = objects::filling(&staged.uid, run);
        let patch = objects::begin(&staged.version, &filling);
        let doing = "it could not be written there that a run fills it";
        self.patch_volume(&staged.name, &patch, doing).await?;
        let written = self.volume(&staged.name).await?.unwrap_or_default();
        if annotation(&written, FILLING) != filling {
            return Err(Error::other(format!(
                "that volume {} is being filled was written on it and does not stand there",
                staged.name
            ))
            .hint("another run of this restore is at work, or an admission rule of the cluster changes volumes")
            .into());
        }
        Ok(filling)
    }

    /// Makes a claim; what stands of that name already is left to the next look.
    pub(super) async fn create(&self, claim: &Value) -> Result<Option<Value>, ApiError> {
        let path = format!("{}?fieldManager={MANAGER}", self.claims());
        let body = bytes::Bytes::from(claim.to_string());
        // Asked twice, the server says that it stands, and it is read.
        let call = Call::post(&path, body);
        match patiently(|| self.cluster.send(&call)).await {
            Err(e) if e.is_already_exists() => Ok(None),
            answer => absent(answer),
        }
    }

    /// Makes the real claim for this volume.
    pub(super) async fn hold(&self, claim: &Value, volume: &str) -> Result<(), Conflict> {
        let Some(live) = self.volume(volume).await? else {
            return Ok(());
        };
        let created = self.create(&objects::real(self.aim, claim, &live)).await;
        let refused = |e| {
            Conflict::of(
                e,
                format!("it could not be made so that it names volume {volume}"),
            )
        };
        let Some(made) = created.map_err(refused)? else {
            return Ok(());
        };
        let real = Real::read(&made, self.aim);
        if real.is_ours && real.volume == volume {
            return Ok(());
        }
        // An admission rule changed it: what is bound to it now would be empty.
        self.delete_claim(&self.aim.claim, &real.uid).await?;
        Err(Error::other(format!(
            "the cluster made it without the name of volume {volume}, or without what tells that it is this restore's, so it was deleted again"
        ))
        .hint("an admission rule of the cluster changes claims: it has to leave spec.volumeName, labels and annotations alone")
        .into())
    }

    async fn delete_claim(&self, name: &str, uid: &str) -> Result<(), ApiError> {
        self.delete(&format!("{}/{name}", self.claims()), uid).await
    }

    async fn delete(&self, path: &str, uid: &str) -> Result<(), ApiError> {
        delete(self.cluster, path, json!({"uid": uid})).await
    }

    async fn patch_volume(&self, name: &str, patch: &Value, doing: &str) -> Result<(), Conflict> {
        let patched = patch_volume(self.cluster, name, patch).await;
        patched.map_err(|e| Conflict::of(e, format!("volume {name}: {doing}")))
    }

    /// Does what only changes objects. `mover` is the uid of this run's pod that has the staging claim.
    pub(super) async fn act(
        &self,
        action: &Action,
        mover: Option<&str>,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), Conflict> {
        let aim = self.aim;
        match action {
            Action::Unstage { uid } => self.delete_claim(&aim.staging(), uid).await?,
            Action::Drop { uid } => self.drop_real(uid, stop).await?,
            Action::Evict => self.evict(mover, stop).await?,
            Action::Retain {
                volume,
                version,
                real,
                note,
            } => {
                let patch = objects::retain(aim, version, real, note.as_deref());
                let doing = "it is full and could not be kept (policy Retain)";
                self.patch_volume(volume, &patch, doing).await?;
            }
            Action::Bind {
                volume,
                version,
                real,
            } => {
                let patch = objects::bind(aim, version, real);
                let doing = "it holds the data and could not be given to the claim (spec.claimRef)";
                self.patch_volume(volume, &patch, doing).await?;
            }
            Action::PutBack {
                volume,
                version,
                former,
            } => {
                let patch = objects::put_back(version, former.as_deref());
                let doing = "the claim has its data, and it could not get its former policy back";
                self.patch_volume(volume, &patch, doing).await?;
            }
            Action::Stage | Action::Hold { .. } | Action::Fill | Action::Leave => {}
        }
        Ok(())
    }

    /// Deletes the real claim, which was never bound. Not while any pod names it, though it waits for a node: whoever made the pod would make an empty claim
    /// of that name at once.
    async fn drop_real(&self, uid: &str, stop: &watch::Receiver<bool>) -> Result<(), Conflict> {
        let aim = self.aim;
        if let Some(user) = user_of(self.cluster, &aim.namespace, &aim.claim).await? {
            return Err(Error::other(format!(
                "its volume is gone, and it can not be made anew while {user} names it: {SCALE}"
            ))
            .into());
        }
        self.delete_claim(&self.aim.claim, uid).await?;
        let until = Instant::now() + GOES;
        while Instant::now() < until {
            is_asked_to_end(stop)?;
            match self.claim(&self.aim.claim).await? {
                Some(claim) if claim["metadata"]["uid"] == uid => tokio::time::sleep(PAUSE).await,
                _ => return Ok(()),
            }
        }
        Err(Error::other(format!(
            "it was deleted to be made anew, and is still there after {} s",
            GOES.as_secs()
        ))
        .into())
    }

    /// Deletes the pods that have the staging claim, but this run's mover, and waits until they are gone.
    async fn evict(
        &self,
        mover: Option<&str>,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), Conflict> {
        let claim = self.aim.staging();
        let until = Instant::now() + GOES;
        let mut asked = Vec::new();
        loop {
            is_asked_to_end(stop)?;
            let mut there = self.mounting(&claim).await?;
            there.retain(|pod| Some(pod.uid.as_str()) != mover);
            let Some(first) = there.first() else {
                return Ok(());
            };
            if Instant::now() >= until {
                return Err(Error::other(format!(
                    "pod {} has the volume that is to be filled and does not go",
                    first.name
                ))
                .hint("look at the pod, and at its node; then give the same command again")
                .into());
            }
            for pod in &there {
                if !asked.contains(&pod.uid) {
                    let path = format!("{}/{}", self.pods(), pod.name);
                    match self.delete(&path, &pod.uid).await {
                        Err(e) if e.is_conflict() => {}
                        deleted => deleted?,
                    }
                    asked.push(pod.uid.clone());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
