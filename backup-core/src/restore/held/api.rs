//! What is asked of the cluster for one held claim, and what is changed there. Every change goes by the uid or the revision that was seen before.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::patience::patiently;
use super::super::rewrite::MANAGER;
use super::objects::{self, Aim};
use super::step::{Action, Live, Real, SCALE, Staging, Volume};
use crate::cluster::{ApiError, Call, Cluster, page};
use crate::error::{Error, Kind, Result};

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

/// A pod that has a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounting {
    pub(super) name: String,
    pub(super) uid: String,
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

    /// Pods that have this claim, those that have ended among them.
    pub(super) async fn mounting(&self, claim: &str) -> Result<Vec<Mounting>, ApiError> {
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let path = page(&self.pods(), PODS, &token);
            let body = patiently(|| self.cluster.get_bounded(&path, LARGEST_PAGE)).await?;
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

    /// What stands. The real claim is read last: what is said of it holds after what is said of its volume. `mover` is the uid of this run's pod that has
    /// the staging claim, `filled` the uid of the staging claim whose volume this run filled.
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
        Ok(Live {
            volume: volume.map(|volume| Volume::read(&volume, self.aim, real.as_ref())),
            is_beginning: false,
            is_filled: filled.is_some()
                && filled == staging.as_ref().map(|staging| staging.uid.as_str()),
            has_mover: mover.is_some() && staging.is_some(),
            real,
            staging,
            strangers,
        })
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
        let Some(made) = self.create(&objects::real(self.aim, claim, &live)).await? else {
            return Ok(());
        };
        if made["spec"]["volumeName"] == volume {
            return Ok(());
        }
        // An admission rule changed it: what is bound to it now would be empty.
        let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
        self.delete_claim(&self.aim.claim, uid).await?;
        Err(Error::other(
            "the cluster made it without the volume that it named, so it was deleted again",
        )
        .hint("an admission rule of the cluster changes claims: it has to leave spec.volumeName alone")
        .into())
    }

    async fn delete_claim(&self, name: &str, uid: &str) -> Result<(), ApiError> {
        self.delete(&format!("{}/{name}", self.claims()), uid).await
    }

    async fn delete(&self, path: &str, uid: &str) -> Result<(), ApiError> {
        let options = json!({"preconditions": {"uid": uid}}).to_string();
        let options = bytes::Bytes::from(options);
        let call = Call::delete(path, options);
        match patiently(|| self.cluster.send(&call)).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn patch_volume(&self, name: &str, patch: &Value) -> Result<(), ApiError> {
        let path = format!("/api/v1/persistentvolumes/{name}?fieldManager={MANAGER}");
        let body = bytes::Bytes::from(patch.to_string());
        let call = Call::merge_patch(&path, body);
        patiently(|| self.cluster.send(&call)).await.map(drop)
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
                self.patch_volume(volume, &patch).await?;
            }
            Action::Bind {
                volume,
                version,
                real,
            } => {
                let patch = objects::bind(aim, version, real);
                self.patch_volume(volume, &patch).await?;
            }
            Action::PutBack {
                volume,
                version,
                former,
            } => {
                let patch = objects::put_back(version, former.as_deref());
                self.patch_volume(volume, &patch).await?;
            }
            Action::Stage | Action::Hold { .. } | Action::Fill | Action::Leave => {}
        }
        Ok(())
    }

    /// Deletes the real claim, which was never bound. Not while any pod names it, though it waits for a node: whoever made the pod would make an empty claim
    /// of that name at once.
    async fn drop_real(&self, uid: &str, stop: &watch::Receiver<bool>) -> Result<(), Conflict> {
        let users = self.mounting(&self.aim.claim).await?;
        if let Some(pod) = users.first() {
            return Err(Error::other(format!(
                "its volume is gone, and it can not be made anew while pod {} names it: {SCALE}",
                pod.name
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

#[cfg(test)]
mod tests {
    use super::super::super::tests::fake::Fake;
    use super::*;

    const CLAIM: &str = "/api/v1/namespaces/n/persistentvolumeclaims/data";

    fn aim() -> Aim {
        Aim {
            restore: "again".into(),
            label: "again".into(),
            backup_uid: "b-uid".into(),
            snapshot: "5".repeat(64),
            namespace: "n".into(),
            claim: "data".into(),
        }
    }

    /// A cluster with a claim that was never bound, and these pods: name, claim and phase.
    fn with(pods: &[(&str, &str, &str)]) -> Fake {
        let fake = Fake::default();
        let claim = json!({"metadata": {"name": "data", "uid": "real"}});
        fake.put(CLAIM, claim);
        for (name, claim, phase) in pods {
            let pod = json!({
                "metadata": {"name": name, "uid": format!("{name}-uid")},
                "spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]},
                "status": {"phase": phase},
            });
            fake.put(&format!("/api/v1/namespaces/n/pods/{name}"), pod);
        }
        fake
    }

    async fn act(fake: &Fake, action: &Action, stop: bool) -> Result<(), Conflict> {
        let (_keep, stop) = watch::channel(stop);
        let (cluster, aim) = (fake.cluster(), aim());
        let asking = Asking {
            cluster: &cluster,
            aim: &aim,
        };
        asking.act(action, Some("own-uid"), &stop).await
    }

    fn sentence(done: Result<(), Conflict>) -> String {
        match done {
            Err(Conflict::Other(e)) => e.sentence(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_claim_that_a_waiting_pod_names_is_not_deleted_to_be_made_anew() {
        let drop_it = Action::Drop { uid: "real".into() };
        let fake = with(&[("web-0", "data", "Pending")]);
        let why = sentence(act(&fake, &drop_it, false).await);
        assert!(why.contains("pod web-0 names it"), "{why}");
        assert!(why.contains(SCALE), "{why}");
        assert!(!fake.get(CLAIM).is_null());
        let fake = with(&[("other", "log", "Pending")]);
        act(&fake, &drop_it, false).await.unwrap();
        assert!(fake.get(CLAIM).is_null());
    }

    #[tokio::test]
    async fn who_has_the_staging_claim_goes_though_it_has_ended_and_the_own_mover_stays() {
        let staging = aim().staging();
        let pods = [
            ("own", staging.as_str(), "Running"),
            ("dead", &staging, "Failed"),
            ("ended", &staging, "Succeeded"),
            ("web", "data", "Running"),
        ];
        let fake = with(&pods);
        let why = sentence(act(&fake, &Action::Evict, true).await);
        assert!(why.contains("stopped"), "{why}");
        act(&fake, &Action::Evict, false).await.unwrap();
        for (name, stays) in [
            ("own", true),
            ("dead", false),
            ("ended", false),
            ("web", true),
        ] {
            let pod = fake.get(&format!("/api/v1/namespaces/n/pods/{name}"));
            assert_eq!(!pod.is_null(), stays, "{name}");
        }
    }

    #[test]
    fn a_pod_has_the_claims_that_it_names_and_those_that_are_made_for_it_though_it_has_ended() {
        let pod = |phase: &str| {
            json!({
                "metadata": {"name": "p", "uid": "u"},
                "spec": {"nodeName": "n", "volumes": [
                    {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "b", "ephemeral": {}},
                ]},
                "status": {"phase": phase},
            })
        };
        let has = |claim: &str| mounting(&pod("Pending"), claim);
        let found = has("data").unwrap();
        assert_eq!((found.name.as_str(), found.uid.as_str()), ("p", "u"));
        assert!(has("p-b").is_some() && has("p-a").is_none() && has("other").is_none());
        assert!(mounting(&pod("Succeeded"), "data").is_some());
        assert!(mounting(&json!({"metadata": {"name": "p"}}), "data").is_none());
    }
}
