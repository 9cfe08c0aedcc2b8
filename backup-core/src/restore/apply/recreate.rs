//! `recreate`: an object that stands and differs becomes what the backup holds even in fields that no server lets change. What the server
//! takes as a change (asked with `dryRun=All`) is changed in place, as by `update`. Only what it calls invalid (422) is deleted and
//! created anew. Nothing may be lost by it, whenever this program, the store or the server dies:
//!
//! 1. Only the kinds of [`RECREATED`] are ever deleted: those of which a server refuses some changes, and whose deletion takes nothing else along.
//!    Everything else can be changed in place and is, as by `update`: a namespace, a definition, a claim or a volume would take data along; a
//!    service its addresses and load balancer; a binding perhaps our own rights; what stands behind an object of a custom kind nobody here
//!    knows. So is an object with finalizers, for somebody does something when it goes, and might not; one that a controller owns, for
//!    that would make another at once; a token, for somebody works with it; a job that runs, for its pods would run on beside the new
//!    ones; and a pod with volumes that go with it. An object that does not differ is left alone.
//! 2. The create is rehearsed (`dryRun=All`) while the object stands. The server must have nothing against it but that the name is
//!    taken; else the object is left as it is, and has failed.
//! 3. The object is kept where the journal is, see [`super::super::kept`]. Only when that is durable, the delete is sent.
//! 4. The delete names uid and resourceVersion, so that it hits what was looked at and nothing else, and orphans what the object owns: the garbage
//!    collector takes its name off, and nobody goes with it. Where no garbage collector works the object would hang there for ever, so
//!    the first one of a run goes alone; if it hangs, no other is deleted. What the new one does not select any more is told. A delete
//!    whose answer was lost is asked about: an object that is on its way was deleted.
//! 5. When it is gone, the one of the backup is created. If the server refuses it now, the kept one is put back, and it has failed; if that
//!    is refused too, it is told with its key, and tried again with everything else that failed.
//!
//! Killed before 4, nothing has happened. Killed later, the same command finds nothing there and creates the object, or finds it
//! going and waits; refused, it puts back what was kept, if the restore is unfinished or ended with something missing. Killed after 5, the object
//! bears this restore's mark and is left alone. The journal says what is settled, a new object or the old one in its place: whoever removes that
//! one afterwards means it, and nothing is put back. What is under way when the user interrupts is brought to its end.

use std::collections::HashSet;
use std::sync::{Mutex as Plain, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

use super::super::journal::{self, Place};
use super::super::patience::{back_off, patiently};
use super::super::rewrite::{MANAGER, Rewrite, Shaped};
use super::super::target::{METADATA, Metadata};
use super::super::{Action, DryRun, merge};
use super::{Applier, Done, Job, Stop, manager};
use crate::cluster::{ApiError, Call};
use crate::error::{Error, Result};
use crate::layout::RestoreKeys;

/// How long an object may take to go; a pod besides as long as it may take to end.
pub(super) const GOING: Duration = Duration::from_secs(120);
/// Attempts to have the one or the other where both are refused: about a quarter of a minute.
const ATTEMPTS: u32 = 8;
/// No pod is waited for longer.
const LONGEST: Duration = Duration::from_secs(600);

/// What is deleted and created anew. Kinds that are not here can be changed in place.
const RECREATED: [&str; 13] = [
    "configmaps",
    "secrets",
    "pods",
    "replicationcontrollers",
    "daemonsets.apps",
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "jobs.batch",
    "storageclasses.storage.k8s.io",
    "ingressclasses.networking.k8s.io",
    "priorityclasses.scheduling.k8s.io",
    "runtimeclasses.node.k8s.io",
];

/// What a run has deleted.
#[derive(Debug, Default)]
pub(in super::super) struct Deletions {
    passage: Mutex<Passage>,
    /// Deleted, and neither created nor put back.
    missing: Plain<HashSet<(String, Option<String>, String)>>,
    /// Keys of what was kept for places that are taken again, until the journal has them.
    settled: Plain<Vec<String>>,
    /// The journal, where an earlier run of this restore may have left some missing.
    earlier: Option<(Place, RestoreKeys)>,
    /// What its journal says is settled, once that was asked.
    before: OnceCell<HashSet<String>>,
}

/// Whether objects go when they are deleted.
#[derive(Debug, Default)]
enum Passage {
    #[default]
    Untried,
    Open,
    /// This one hangs.
    Blocked(String),
}

/// Whether objects of this resource are deleted and created anew.
pub(in super::super) fn is_recreated(resource: &str) -> bool {
    RECREATED.contains(&resource)
}

/// Why an object of this kind is changed in place and not deleted; nothing where it may go.
///
/// # Errors
/// `Corrupt`, when the body is no Kubernetes object.
fn stays(resource: &str, live: &[u8]) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Meta,
        #[serde(default, rename = "type")]
        kind: String,
        #[serde(default)]
        spec: Value,
        #[serde(default)]
        status: Value,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Meta {
        finalizers: Option<Vec<String>>,
        owner_references: Option<Vec<Owner>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Owner {
        kind: String,
        name: String,
        controller: Option<bool>,
    }
    if !is_recreated(resource) {
        return Ok(Some("objects of this kind are never deleted".to_owned()));
    }
    let live: Object = serde_json::from_slice(live)
        .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))?;
    if let Some(finalizer) = live.metadata.finalizers.iter().flatten().next() {
        return Ok(Some(format!(
            "it is not deleted, because it has the finalizer {finalizer}"
        )));
    }
    let mut owners = live.metadata.owner_references.into_iter().flatten();
    if let Some(owner) = owners.find(|owner| owner.controller == Some(true)) {
        return Ok(Some(format!(
            "it is not deleted, because {} {} controls it",
            owner.kind, owner.name
        )));
    }
    if live.kind == "kubernetes.io/service-account-token" {
        return Ok(Some(
            "it is not deleted, because somebody may work with this token".to_owned(),
        ));
    }
    if resource == "jobs.batch" && live.status["active"].as_u64().is_some_and(|n| n > 0) {
        return Ok(Some(
            "it is not deleted, because its pods run and would go on beside the new ones"
                .to_owned(),
        ));
    }
    if resource == "pods" {
        let mut volumes = live.spec["volumes"].as_array().into_iter().flatten();
        // What is in memory goes with any restart.
        let volume = volumes.find(|volume| {
            let empty = &volume["emptyDir"];
            !volume["ephemeral"].is_null() || !(empty.is_null() || empty["medium"] == "Memory")
        });
        if let Some(volume) = volume {
            return Ok(Some(format!(
                "it is not deleted, because its volume {} would go with it",
                volume["name"].as_str().unwrap_or_default()
            )));
        }
    }
    Ok(None)
}

/// What a workload's pods are no longer owned by, when another one with another selector takes its place.
fn orphans(job: &Job, live: &[u8], wanted: &[u8]) -> Option<String> {
    // A job's selector is made of its uid, and one whose pods run stays.
    let owned = match job.resource.name.as_str() {
        "deployments.apps" => "replicasets,pods",
        "daemonsets.apps" | "replicasets.apps" | "statefulsets.apps" | "replicationcontrollers" => {
            "pods"
        }
        _ => return None,
    };
    let selector = |body: &[u8]| {
        let mut body: Value = serde_json::from_slice(body).ok()?;
        Some(body["spec"]["selector"].take())
    };
    let before = selector(live)?;
    if before.is_null() || Some(&before) == selector(wanted).as_ref() {
        return None;
    }
    let namespace = job.namespace.as_deref().unwrap_or_default();
    Some(format!(
        "its selector was another one, and what it selected may run on without an owner: kubectl get {owned} -n {namespace} -l '{}'",
        written(&before)
    ))
}

/// A selector as `kubectl -l` takes it.
fn written(selector: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let structured = selector["matchLabels"].is_object() || selector["matchExpressions"].is_array();
    let labels = if structured {
        &selector["matchLabels"]
    } else {
        selector
    };
    let equal = labels.as_object().into_iter().flatten();
    let equal = equal.map(|(key, value)| format!("{key}={}", text(value)));
    let expressions = selector["matchExpressions"].as_array();
    let other = expressions.into_iter().flatten().map(|expression| {
        let key = text(&expression["key"]);
        let values = expression["values"].as_array().into_iter().flatten();
        let values = values.map(text).collect::<Vec<_>>().join(",");
        match expression["operator"].as_str() {
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key,
            Some("DoesNotExist") => format!("!{key}"),
            _ => format!("{key} in ({values})"),
        }
    });
    equal.chain(other).collect::<Vec<_>>().join(",")
}

/// How long a deleted object may take to go.
fn patience(live: &[u8]) -> Duration {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        termination_grace_period_seconds: Option<u64>,
    }
    let grace = serde_json::from_slice::<Object>(live)
        .ok()
        .and_then(|object| object.spec.termination_grace_period_seconds);
    GOING
        .saturating_add(Duration::from_secs(grace.unwrap_or(0)))
        .min(LONGEST)
}

fn failed(reason: impl Into<String>) -> Done {
    Done::new(Action::Failed, reason).again()
}

impl Applier {
    /// Changes in place what can be; else deletes what stands and creates what the backup holds.
    pub(super) async fn recreate(
        &self,
        job: &Job,
        rewrite: &Rewrite,
        shaped: &Shaped<'_>,
        wanted: &Shaped<'_>,
        live: &[u8],
    ) -> Result<Done, Stop> {
        let done = self
            .change_or_replace(job, rewrite, shaped, wanted, live)
            .await?;
        if done.action != Action::Recreated {
            return Ok(done);
        }
        Ok(match orphans(job, live, &wanted.object.to_vec()) {
            Some(told) => Done {
                reason: match done.reason.as_str() {
                    "" => told,
                    reason => format!("{reason}; {told}"),
                },
                ..done.warn()
            },
            None => done,
        })
    }

    async fn change_or_replace(
        &self,
        job: &Job,
        rewrite: &Rewrite,
        shaped: &Shaped<'_>,
        wanted: &Shaped<'_>,
        live: &[u8],
    ) -> Result<Done, Stop> {
        let metadata = Metadata::read(live);
        if let Some(why) = stays(&job.resource.name, live)? {
            let uid = Uuid::parse_str(&metadata.uid).ok();
            return match self.update(job, shaped, wanted, uid).await {
                Ok(done) if done.action == Action::Updated => Ok(Done {
                    reason: format!("changed in place: {why}"),
                    ..done
                }),
                Ok(done) => Ok(Done {
                    reason: format!("{}; {why}", done.reason),
                    ..done
                }),
                Err(Stop::Api(e)) if !self.tries() => Ok(failed(format!("{e}; {why}"))),
                stopped => stopped,
            };
        }
        if self.dry == Some(DryRun::Client) {
            return Ok(Done::new(
                Action::Recreated,
                "unless the server lets it be changed in place",
            ));
        }
        match self.try_patch(job, shaped, wanted).await {
            Ok(()) => {
                let uid = Uuid::parse_str(&metadata.uid).ok();
                return self.update(job, shaped, wanted, uid).await;
            }
            Err(Stop::Api(e)) if e.code == 422 => {}
            Err(stopped) => return Err(stopped),
        }
        match self.rehearse(job, wanted).await {
            Ok(()) => {}
            Err(Stop::Api(e)) if !self.tries() => {
                return Ok(failed(format!(
                    "left as it is, for the one of the backup would be refused: {e}"
                )));
            }
            Err(stopped) => return Err(stopped),
        }
        if self.tries() {
            return match self.remove(job, &metadata).await {
                Ok(()) => Ok(Done::new(Action::Recreated, "")),
                Err(e) => Err(e.into()),
            };
        }
        let mut passage = self.deletions.passage.lock().await;
        match &*passage {
            Passage::Open => drop(passage),
            Passage::Blocked(other) => {
                return Ok(failed(format!(
                    "left as it is, for {other} was deleted and does not go: does the controller manager work?"
                )));
            }
            Passage::Untried => {
                let done = self.exchange(job, rewrite, wanted, live, &metadata).await;
                *passage = match &done {
                    Ok(Exchanged::Hangs(_)) => {
                        Passage::Blocked(format!("{} {}", job.resource.name, job.name))
                    }
                    Ok(Exchanged::Done(_)) => Passage::Open,
                    // Nothing was deleted.
                    Ok(Exchanged::Left(_)) | Err(_) => Passage::Untried,
                };
                return done.map(Exchanged::done);
            }
        }
        let done = self.exchange(job, rewrite, wanted, live, &metadata).await;
        done.map(Exchanged::done)
    }

    /// Whether the server would take it as a change of what stands.
    async fn try_patch(
        &self,
        job: &Job,
        live: &Shaped<'_>,
        wanted: &Shaped<'_>,
    ) -> Result<(), Stop> {
        let patch = Bytes::from(merge::diff(&live.object, &wanted.object)?.to_vec());
        let path = job.target.object_path(job.namespace.as_deref(), &job.name);
        let path = format!("{path}?fieldManager={MANAGER}&dryRun=All");
        let call = Call {
            accept: METADATA,
            ..Call::merge_patch(&path, patch)
        };
        patiently(|| self.cluster.send(&call)).await?;
        Ok(())
    }

    /// Whether the server would take it, were the name free.
    async fn rehearse(&self, job: &Job, wanted: &Shaped<'_>) -> Result<(), Stop> {
        let query = format!(
            "?fieldManager={}&dryRun=All",
            url::form_urlencoded::byte_serialize(manager(wanted).as_bytes()).collect::<String>()
        );
        let body = Bytes::from(wanted.object.to_vec());
        match self.post(job, &query, body, &mut false).await {
            Err(e) if e.is_already_exists() => Ok(()),
            Err(e) => Err(e.into()),
            Ok(_) => Err(Stop::Api(ApiError {
                code: 404,
                message: "it went meanwhile".to_owned(),
                ..ApiError::default()
            })),
        }
    }

    /// Sends the delete of just this object.
    async fn remove(&self, job: &Job, metadata: &Metadata) -> Result<(), ApiError> {
        let mut options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan",
            "preconditions": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
        });
        if self.tries() {
            options["dryRun"] = json!(["All"]);
        }
        let path = job.target.object_path(job.namespace.as_deref(), &job.name);
        let call = Call::delete(&path, options.to_string().into());
        patiently(|| self.cluster.send(&call)).await.map(drop)
    }

    /// Whether the object of this uid was deleted, be it gone or on its way.
    async fn is_going(&self, job: &Job, uid: &str) -> Result<bool, Stop> {
        let Some(live) = self.find(job).await? else {
            return Ok(true);
        };
        let live = Metadata::read(&live);
        Ok(live.uid == uid && live.deletion_timestamp.is_some())
    }

    /// Keeps it, deletes it, creates the other.
    async fn exchange(
        &self,
        job: &Job,
        rewrite: &Rewrite,
        wanted: &Shaped<'_>,
        live: &[u8],
        metadata: &Metadata,
    ) -> Result<Exchanged, Stop> {
        let Some(kept) = &self.kept else {
            return Err(Error::other("a restore that keeps nothing may delete nothing").into());
        };
        let key = match kept.keep(job, live).await {
            Ok(key) => key,
            Err(e) => {
                return Ok(Exchanged::Left(failed(format!(
                    "left as it is, for it could not be kept before its deletion: {}",
                    e.sentence()
                ))));
            }
        };
        match self.remove(job, metadata).await {
            Ok(()) => {}
            Err(e) if e.is_not_found() => {}
            // The answer to a delete may have been lost, and an object on its way has another revision.
            Err(e) if e.is_conflict() && self.is_going(job, &metadata.uid).await? => {}
            Err(e) if e.is_conflict() => {
                return Ok(Exchanged::Left(failed(
                    "left as it is, for somebody changed it meanwhile",
                )));
            }
            Err(e) => return Err(e.into()),
        }
        self.deletions.deleted(job);
        if !self.gone(job, &metadata.uid, patience(live)).await? {
            let done = failed(format!(
                "it was deleted and does not go; the same command creates the other one when it is gone. It is kept as {}",
                kept.shown(&key)
            ));
            let orphans = self.find(job).await?.is_some_and(|live| orphaning(&live));
            return Ok(if orphans {
                Exchanged::Hangs(done)
            } else {
                Exchanged::Done(done)
            });
        }
        let mut lost = false;
        let query = self.query(manager(wanted));
        let body = Bytes::from(wanted.object.to_vec());
        let made = match self.post(job, &query, body, &mut lost).await {
            Ok(made) => Some(Metadata::read(&made)),
            Err(e) if lost && e.is_already_exists() => self
                .find(job)
                .await?
                .map(|live| Metadata::read(&live))
                .filter(|live| live.is_of(&rewrite.restore, &wanted.uid)),
            Err(e) if e.is_already_exists() => None,
            Err(e) => {
                let done = match Stop::from(e) {
                    Stop::Api(e) => self.put_back(job, wanted, e).await?,
                    fatal => return Err(fatal),
                };
                return Ok(Exchanged::Done(done));
            }
        };
        self.deletions.settle(job, &key);
        Ok(Exchanged::Done(match made {
            Some(metadata) => Done {
                action: Action::Recreated,
                ..self.made(job, wanted, &metadata).await
            },
            None => failed(format!(
                "somebody made another one as soon as it was deleted; the one that stood is kept as {}",
                kept.shown(&key)
            )),
        }))
    }

    /// What a refused create is, where an object was deleted for it.
    pub(super) async fn put_back_earlier(
        &self,
        job: &Job,
        wanted: &Shaped<'_>,
        refused: ApiError,
    ) -> Result<Done, Stop> {
        let Some(kept) = &self.kept else {
            return Err(refused.into());
        };
        let missing = self.deletions.is_missing(job);
        if !missing && self.deletions.earlier.is_none() {
            return Err(refused.into());
        }
        match Stop::from(refused.clone()) {
            Stop::Api(_) => {}
            fatal => return Err(fatal),
        }
        if !matches!(self.find(job).await, Ok(None)) {
            return Err(refused.into());
        }
        // What an earlier run brought back went since, and not by this restore. Where that can not be told, it is owed.
        if !missing
            && let Ok(Some(key)) = kept.newest_key(job).await
            && self.deletions.was_settled(&key).await.unwrap_or(false)
        {
            return Err(refused.into());
        }
        self.put_back(job, wanted, refused).await
    }

    /// Puts back what was kept, because the other was refused. Where that is refused too, both are tried in turn for a while: a quota is
    /// counted a little later.
    async fn put_back(
        &self,
        job: &Job,
        wanted: &Shaped<'_>,
        refused: ApiError,
    ) -> Result<Done, Stop> {
        let Some(kept) = &self.kept else {
            return Err(refused.into());
        };
        let (key, before) = match kept.newest(job).await {
            Ok(Some(found)) => found,
            Ok(None) => return Err(refused.into()),
            Err(e) => {
                return Ok(failed(format!(
                    "it is missing now: it was deleted, the one of the backup was refused ({refused}), and the kept one can not be read: {}",
                    e.sentence()
                )));
            }
        };
        let anew = Bytes::from(wanted.object.to_vec());
        let mut also = ApiError::default();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                back_off(attempt).await;
                let query = self.query(manager(wanted));
                match self.post(job, &query, anew.clone(), &mut false).await {
                    Ok(made) => {
                        self.deletions.settle(job, &key);
                        return Ok(Done {
                            action: Action::Recreated,
                            ..self.made(job, wanted, &Metadata::read(&made)).await
                        });
                    }
                    Err(e) => match Stop::from(e) {
                        Stop::Api(_) => {}
                        fatal => return Err(fatal),
                    },
                }
            }
            match self
                .post(job, &self.query(MANAGER), before.clone(), &mut false)
                .await
            {
                Ok(_) => {
                    self.deletions.settle(job, &key);
                    return Ok(failed(format!(
                        "the one of the backup was refused, and the one that stood was put back: {refused}"
                    )));
                }
                Err(e) if e.is_already_exists() => {
                    self.deletions.settle(job, &key);
                    return Err(refused.into());
                }
                Err(e) => match Stop::from(e) {
                    Stop::Api(e) => also = e,
                    fatal => return Err(fatal),
                },
            }
        }
        Ok(failed(format!(
            "it is missing now: it was deleted, the one of the backup was refused ({refused}), and so was the one that stood ({also}). \
             The same command tries again; by hand: gunzip -c FILE | kubectl create -f - with the file {}",
            kept.shown(&key)
        )))
    }
}

/// How an exchange ended.
enum Exchanged {
    /// Nothing was deleted.
    Left(Done),
    /// It was deleted, and goes on.
    Done(Done),
    /// It was deleted, and nobody takes its name off what it owns.
    Hangs(Done),
}

impl Exchanged {
    fn done(self) -> Done {
        match self {
            Self::Left(done) | Self::Done(done) | Self::Hangs(done) => done,
        }
    }
}

/// Whether an object waits for the garbage collector.
fn orphaning(live: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Object {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        #[serde(default)]
        finalizers: Option<Vec<String>>,
    }
    serde_json::from_slice::<Object>(live).is_ok_and(|object| {
        let finalizers = object.metadata.finalizers.iter().flatten();
        finalizers.into_iter().any(|name| name == "orphan")
    })
}

impl Deletions {
    /// None yet. `earlier` is the journal of this restore, where an earlier run of it did not end well.
    pub(in super::super) fn new(earlier: Option<(Place, RestoreKeys)>) -> Self {
        Self {
            earlier,
            ..Self::default()
        }
    }

    fn deleted(&self, job: &Job) {
        lock(&self.missing).insert(place(job));
    }

    /// Its place is taken again: what is kept as `key` is owed to nobody any more.
    fn settle(&self, job: &Job, key: &str) {
        lock(&self.missing).remove(&place(job));
        lock(&self.settled).push(key.to_owned());
    }

    fn is_missing(&self, job: &Job) -> bool {
        lock(&self.missing).contains(&place(job))
    }

    /// What was settled since the last time, for the journal.
    pub(in super::super) fn take_settled(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.settled))
    }

    /// Whether an earlier run saw the place taken again for which this is kept.
    async fn was_settled(&self, key: &str) -> Result<bool> {
        let Some((journal, keys)) = &self.earlier else {
            return Ok(false);
        };
        let read = || journal::settled(journal, keys);
        Ok(self.before.get_or_try_init(read).await?.contains(key))
    }
}

fn place(job: &Job) -> (String, Option<String>, String) {
    let (namespace, name) = (job.namespace.clone(), job.name.clone());
    (job.resource.name.clone(), namespace, name)
}

fn lock<T>(of: &Plain<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_something_along_is_never_deleted() {
        let plain = br#"{"metadata":{"name":"x"}}"#;
        for resource in [
            "namespaces",
            "customresourcedefinitions.apiextensions.k8s.io",
            "persistentvolumes",
            "persistentvolumeclaims",
            "volumesnapshots.snapshot.storage.k8s.io",
            "volumesnapshotcontents.snapshot.storage.k8s.io",
            "services",
            "resourcequotas",
            "serviceaccounts",
            "clusterrolebindings.rbac.authorization.k8s.io",
            "apiservices.apiregistration.k8s.io",
            "clusters.postgresql.cnpg.io",
            "deployments.example.com",
        ] {
            assert!(stays(resource, plain).unwrap().is_some(), "{resource}");
        }
        for resource in RECREATED {
            assert_eq!(stays(resource, plain).unwrap(), None, "{resource}");
        }
        for (resource, live, why) in [
            (
                "configmaps",
                r#"{"metadata":{"finalizers":["example.com/hold"]}}"#,
                "example.com/hold",
            ),
            (
                "pods",
                r#"{"metadata":{"ownerReferences":[{"kind":"ReplicaSet","name":"web","controller":true}]}}"#,
                "ReplicaSet web controls it",
            ),
            (
                "secrets",
                r#"{"metadata":{},"type":"kubernetes.io/service-account-token"}"#,
                "token",
            ),
            (
                "jobs.batch",
                r#"{"metadata":{},"status":{"active":1}}"#,
                "pods run",
            ),
            (
                "pods",
                r#"{"metadata":{},"spec":{"volumes":[{"name":"m","emptyDir":{"medium":"Memory"}},{"name":"data","emptyDir":{}}]}}"#,
                "volume data",
            ),
            (
                "pods",
                r#"{"metadata":{},"spec":{"volumes":[{"name":"claim","ephemeral":{}}]}}"#,
                "volume claim",
            ),
        ] {
            let told = stays(resource, live.as_bytes()).unwrap().unwrap();
            assert!(told.contains(why), "{told}");
        }
        let owned = br#"{"metadata":{"ownerReferences":[{"kind":"ConfigMap","name":"p"}],"finalizers":null}}"#;
        assert_eq!(stays("secrets", owned).unwrap(), None);
        assert!(stays("secrets", b"{}").is_err());
        for (resource, live) in [
            (
                "pods",
                r#"{"metadata":{},"spec":{"volumes":[{"name":"m","emptyDir":{"medium":"Memory"}},{"name":"c","configMap":{}}]}}"#,
            ),
            (
                "jobs.batch",
                r#"{"metadata":{},"status":{"succeeded":1,"active":0}}"#,
            ),
        ] {
            assert_eq!(stays(resource, live.as_bytes()).unwrap(), None, "{live}");
        }
    }

    #[test]
    fn a_selector_is_written_as_kubectl_takes_it() {
        assert_eq!(
            written(
                &json!({"matchLabels": {"app": "web", "tier": ""}, "matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"},
                {"key": "x", "operator": "NotIn", "values": ["y"]}, {"key": "set", "operator": "Exists"}]})
            ),
            "app=web,tier=,zone in (a,b),!old,x notin (y),set"
        );
        assert_eq!(written(&json!({"app": "web"})), "app=web");
    }

    #[test]
    fn a_pod_is_waited_for_as_long_as_it_may_take_to_end() {
        assert_eq!(patience(b"{}"), GOING);
        let pod = br#"{"spec":{"terminationGracePeriodSeconds":30}}"#;
        assert_eq!(patience(pod), GOING + Duration::from_secs(30));
        let endless = br#"{"spec":{"terminationGracePeriodSeconds":18446744073709551615}}"#;
        assert_eq!(patience(endless), LONGEST);
    }
}
