//! Makes movers, waits until they run, names what keeps one from it, watches those that run, and removes them: one that was begun is known here until its pod is gone,
//! so that nothing stays whatever comes of the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::spec::{self, Beside, CONTAINER, Wanted, run_of};
use super::{MoverOptions, streams};
use crate::cluster::{ApiError, Call, Cluster};
use crate::error::{Error, Kind, Result};
use crate::pod::{Stand, event_of, short, stand};

/// How often one that does not run yet is looked at.
const OFTEN: Duration = Duration::from_millis(400);

/// How often it is asked for its events then.
const SELDOM: Duration = Duration::from_secs(2);

/// How often one that runs is looked at.
const LOOKS: Duration = Duration::from_secs(5);

/// How often one that runs is told that its run lives: it ends by itself when it hears nothing for ten minutes.
const BEATS: Duration = Duration::from_secs(100);

/// How long the end of a pod is awaited.
const GOES: Duration = Duration::from_secs(30);

/// So often, once a second, it is looked why a stream broke off before nobody knows.
const TRIES: u32 = 4;

/// A pod is not larger than etcd takes.
const LARGEST_POD: usize = 4 << 20;

/// All movers of a run.
pub(crate) struct Movers {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    cluster: Cluster,
    options: MoverOptions,
    run: String,
    /// Whether everything is to end.
    stop: watch::Sender<bool>,
    /// The namespaces of pods that were begun and are not known to be gone, by their names.
    standing: Mutex<BTreeMap<String, String>>,
}

/// One that runs. It is removed by [`Mover::remove`], or when its run settles.
pub(crate) struct Mover {
    shared: Arc<Shared>,
    pub(super) namespace: String,
    pub(super) name: String,
    uid: String,
    node: String,
    /// Why it does not run any more, or must not.
    over: watch::Sender<Option<String>>,
    looking: JoinHandle<()>,
    /// Why its first stream that broke did.
    pub(super) broke: Arc<Mutex<Option<String>>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path_of(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

fn stopped() -> Error {
    Error::new(Kind::Interrupted, "the backup was stopped")
}

impl Movers {
    /// None yet. `run` is the id of the run that makes them.
    pub(crate) fn new(cluster: &Cluster, options: &MoverOptions, run: &str) -> Self {
        Self {
            shared: Arc::new(Shared {
                cluster: cluster.clone(),
                options: options.clone(),
                run: run.to_owned(),
                stop: watch::Sender::new(false),
                standing: Mutex::default(),
            }),
            tasks: Mutex::default(),
        }
    }

    /// Is told when everything is to end.
    pub(crate) fn stop(&self) -> watch::Receiver<bool> {
        self.shared.stop.subscribe()
    }

    /// Runs work that is not dropped with who waits for it: [`Movers::settle`] tells it to end, and awaits it.
    ///
    /// # Errors
    /// A defect of the work.
    pub(crate) async fn task<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.spawn(async move {
            let _ = tell.send(work.await);
        });
        told.await
            .map_err(|e| Error::other("the work beside a volume broke off").because(e))
    }

    /// The same of work that nobody waits for but [`Movers::settle`].
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(work);
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    /// Makes one for a claim and waits until it runs; beside the pod that has the volume, where there is one.
    ///
    /// # Errors
    /// Why there is none; then no pod stays.
    pub(crate) async fn start(
        &self,
        namespace: &str,
        claim: &str,
        beside: Option<&Beside>,
    ) -> Result<Mover> {
        self.start_as(namespace, claim, beside, spec::pod).await
    }

    /// The same of a pod that is built in another way from what is wanted.
    pub(super) async fn start_as(
        &self,
        namespace: &str,
        claim: &str,
        beside: Option<&Beside>,
        build: impl FnOnce(&Wanted<'_>) -> Value + Send + 'static,
    ) -> Result<Mover> {
        let shared = Arc::clone(&self.shared);
        let (namespace, claim) = (namespace.to_owned(), claim.to_owned());
        let beside = beside.cloned();
        let started = async move { shared.start(namespace, claim, beside.as_ref(), build).await };
        self.task(started).await?
    }

    /// Ends all work and removes all pods; what could not be removed comes back, a sentence each.
    pub(crate) async fn settle(&self) -> Vec<String> {
        self.shared.stop.send_replace(true);
        loop {
            let task = lock(&self.tasks).pop();
            match task {
                Some(task) => drop(task.await),
                None => break,
            }
        }
        let standing = lock(&self.shared.standing).clone();
        let gone = standing.into_iter().map(|(name, namespace)| async move {
            let removed = self.shared.remove(&namespace, &name, "").await;
            removed.err().map(|e| {
                format!(
                    "pod {namespace}/{name} could not be removed, and ends by itself in ten minutes: {}",
                    e.sentence()
                )
            })
        });
        join_all(gone).await.into_iter().flatten().collect()
    }
}

/// Removes movers that dead runs left, of which these are known: they are over. A run that lives has seen the end of its own.
pub(crate) async fn remove_left(cluster: &Cluster, left: &[Value]) {
    let gone = left.iter().map(|pod| async move {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
        let path = path_of(text("namespace"), text("name"));
        // Who may not, leaves it to the next.
        let _ = delete(cluster, &path, text("uid")).await;
    });
    join_all(gone).await;
}

/// Whether a pod is a mover that its run has left: it is over, and not of the run that asks.
pub(crate) fn is_left(pod: &Value, run: &str) -> bool {
    let is_over = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    is_over && run_of(pod).is_some_and(|its| its != run)
}

async fn delete(cluster: &Cluster, path: &str, uid: &str) -> Result<(), ApiError> {
    let options = match uid {
        "" => json!({}),
        uid => json!({"preconditions": {"uid": uid}}),
    };
    let call = Call::delete(path, options.to_string().into());
    cluster.send(&call).await.map(drop)
}

/// What can be done about a pod that was refused.
fn refused(e: ApiError) -> Error {
    let hint = match e.message.as_str() {
        text if text.contains("cannot create resource") => {
            "who copies volumes needs the rights to create, get, list and delete pods, and to create and get pods/exec, in their namespaces"
        }
        text if text.contains("PodSecurity") => {
            "the namespace allows no pod that reads the files of all owners (root with DAC_OVERRIDE): pod-security.kubernetes.io/enforce=baseline does; or leave the volume out"
        }
        text if text.contains("quota") => "the namespace's quota leaves no room for one more pod",
        _ if e.is_forbidden() => "an admission rule of the cluster refuses it",
        _ => "",
    };
    let error = Error::from(e).context("no pod can be made beside it");
    match hint {
        "" => error,
        hint => error.hint(hint),
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    async fn start(
        self: Arc<Self>,
        namespace: String,
        claim: String,
        beside: Option<&Beside>,
        build: impl FnOnce(&Wanted<'_>) -> Value,
    ) -> Result<Mover> {
        if self.is_stopped() {
            return Err(stopped());
        }
        let random = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("backup-mover-{}", &random[..12]);
        let wanted = build(&Wanted {
            name: &name,
            namespace: &namespace,
            claim: &claim,
            run: &self.run,
            image: &self.options.image,
            beside,
        });
        lock(&self.standing).insert(name.clone(), namespace.clone());
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let call = Call::post(&path, wanted.to_string().into());
        let made = match self.cluster.send(&call).await {
            Ok(body) => serde_json::from_slice::<Value>(&body).unwrap_or_default(),
            Err(e) if matches!(e.code, 400..=499) && e.code != 408 => {
                // Nothing came to be.
                lock(&self.standing).remove(&name);
                return Err(refused(e));
            }
            Err(e) => {
                let _ = self.remove(&namespace, &name, "").await;
                return Err(refused(e));
            }
        };
        let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
        match self.await_running(&namespace, &name, uid).await {
            Ok(node) => {
                let over = watch::Sender::new(None);
                let looking = tokio::spawn(look_on(
                    self.cluster.clone(),
                    namespace.clone(),
                    name.clone(),
                    uid.to_owned(),
                    over.clone(),
                ));
                Ok(Mover {
                    shared: Arc::clone(&self),
                    namespace,
                    name,
                    uid: uid.to_owned(),
                    node,
                    over,
                    looking,
                    broke: Arc::default(),
                })
            }
            Err(e) => {
                // What could not be removed is tried once more when the run settles.
                let _ = self.remove(&namespace, &name, uid).await;
                Err(e)
            }
        }
    }

    /// Waits until its container runs; the node where it does.
    async fn await_running(&self, namespace: &str, name: &str, uid: &str) -> Result<String> {
        let path = path_of(namespace, name);
        let until = Instant::now() + self.options.timeout;
        let mut told = Instant::now();
        let mut stop = self.stop.subscribe();
        loop {
            let mut waits = "the server does not tell how it stands".to_owned();
            match self.cluster.get_bounded(&path, LARGEST_POD).await {
                Ok(body) => {
                    let pod: Value = serde_json::from_slice(&body).unwrap_or_default();
                    if pod["metadata"]["uid"] != uid
                        || !pod["metadata"]["deletionTimestamp"].is_null()
                    {
                        return Err(self.not_come("somebody deleted it", None));
                    }
                    match stand(&pod, CONTAINER) {
                        Stand::Runs => {
                            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
                            return Ok(node.to_owned());
                        }
                        Stand::Waits(why) => waits = why,
                        Stand::Stuck(why) | Stand::Ended(why) => {
                            let event = event_of(&self.cluster, namespace, name).await;
                            return Err(self.not_come(&why, event.map(|event| event.text)));
                        }
                    }
                }
                Err(e) if e.is_not_found() => {
                    return Err(self.not_come("somebody deleted it", None));
                }
                Err(e) if e.is_forbidden() => return Err(refused(e)),
                // A server that is away comes back, or the time is over.
                Err(_) => {}
            }
            let over = Instant::now() >= until;
            if over || told.elapsed() >= SELDOM {
                told = Instant::now();
                let event = event_of(&self.cluster, namespace, name).await;
                if over || event.as_ref().is_some_and(|event| event.is_final) {
                    return Err(self.not_come(&waits, event.map(|event| event.text)));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(OFTEN) => {}
                _ = stop.wait_for(|stop| *stop) => return Err(stopped()),
            }
        }
    }

    fn not_come(&self, why: &str, event: Option<String>) -> Error {
        let event = event.map_or_else(String::new, |event| format!("; last event: {event}"));
        let error = Error::other(format!(
            "the pod beside it did not come to run: {why}{event}"
        ));
        if why.contains("image") {
            let image = &self.options.image;
            return error.hint(format!(
                "--mover-image names an image of this program that the nodes can pull; {image} was asked for"
            ));
        }
        error.hint("the node, quotas, taints and the volume's driver decide that; --mover-timeout gives it longer")
    }

    /// Deletes a pod and waits until it is gone. With a uid, that pod and no other of its name.
    async fn remove(&self, namespace: &str, name: &str, uid: &str) -> Result<()> {
        let path = path_of(namespace, name);
        let gone = || {
            lock(&self.standing).remove(name);
        };
        match delete(&self.cluster, &path, uid).await {
            Ok(()) => {}
            Err(e) if e.is_not_found() || e.is_conflict() => {
                gone();
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
        let until = Instant::now() + GOES;
        while Instant::now() < until {
            match self.cluster.get_bounded(&path, LARGEST_POD).await {
                Err(e) if e.is_not_found() => {
                    gone();
                    return Ok(());
                }
                _ => tokio::time::sleep(OFTEN).await,
            }
        }
        Err(Error::other(format!(
            "it is still there {} s after it was deleted",
            GOES.as_secs()
        )))
    }
}

/// Why a pod that ran does not run any more; nothing where it does, or nobody can tell.
async fn why_over(cluster: &Cluster, path: &str, uid: &str) -> Option<String> {
    let body = match cluster.get_bounded(path, LARGEST_POD).await {
        Ok(body) => body,
        Err(e) if e.is_not_found() => return Some("its pod was deleted".to_owned()),
        Err(_) => return None,
    };
    let pod: Value = serde_json::from_slice(&body).ok()?;
    judge(&pod, uid)
}

/// Why a pod is not any more what it was, as it stands now.
fn judge(pod: &Value, uid: &str) -> Option<String> {
    let meta = &pod["metadata"];
    if meta["uid"] != uid {
        return Some("its pod was deleted".to_owned());
    }
    let restarts = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|one| one["name"] == CONTAINER && one["restartCount"].as_u64() > Some(0));
    match stand(pod, CONTAINER) {
        Stand::Ended(why) => return Some(format!("its pod has ended: {why}")),
        Stand::Stuck(why) => return Some(format!("its pod does not run any more: {why}")),
        Stand::Runs | Stand::Waits(_) => {}
    }
    if !meta["deletionTimestamp"].is_null() {
        let reason = pod["status"]["reason"].as_str().unwrap_or_default();
        return Some(match reason {
            "" => "its pod is being deleted".to_owned(),
            reason => format!("its pod is being deleted: {}", short(reason)),
        });
    }
    restarts.then(|| "its container ended and was started anew".to_owned())
}

/// Looks until it is over, and says now and then that somebody is there.
async fn look_on(
    cluster: Cluster,
    namespace: String,
    name: String,
    uid: String,
    tell: watch::Sender<Option<String>>,
) {
    let path = path_of(&namespace, &name);
    let mut beaten = Instant::now();
    loop {
        tokio::time::sleep(LOOKS).await;
        if beaten.elapsed() >= BEATS {
            beaten = Instant::now();
            // One that is not heard is followed by others, before the pod gives up.
            let beat = streams::beat(&cluster, &namespace, &name);
            let _ = tokio::time::timeout(LOOKS, beat).await;
        }
        if let Some(why) = why_over(&cluster, &path, &uid).await {
            tell.send_replace(Some(why));
            return;
        }
    }
}

impl Mover {
    /// The uid of its pod.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// Whether nothing is known of its end.
    pub(crate) fn is_there(&self) -> bool {
        self.over.borrow().is_none()
    }

    /// Where it runs.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    pub(super) fn stop(&self) -> watch::Receiver<bool> {
        self.shared.stop.subscribe()
    }

    /// Asks why it is over, for it seems so.
    pub(super) fn why(&self) -> impl Future<Output = Option<String>> + Send + 'static {
        let (cluster, uid) = (self.shared.cluster.clone(), self.uid.clone());
        let path = path_of(&self.namespace, &self.name);
        async move {
            for _ in 0..TRIES {
                if let Some(why) = why_over(&cluster, &path, &uid).await {
                    return Some(why);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            None
        }
    }

    pub(super) fn over(&self) -> watch::Receiver<Option<String>> {
        self.over.subscribe()
    }

    /// Ends its streams, and says why.
    pub(crate) fn end(&self, why: String) {
        self.over.send_replace(Some(why));
    }

    /// Why a stream of it broke off, where one did: whatever failed next failed of that.
    pub(crate) fn broke(&self) -> Option<String> {
        lock(&self.broke).clone()
    }

    /// Removes its pod and waits until it is gone: then the volume is free.
    ///
    /// # Errors
    /// The server's; the run tries again when it settles.
    pub(crate) async fn remove(self) -> Result<()> {
        self.looking.abort();
        self.shared
            .remove(&self.namespace, &self.name, &self.uid)
            .await
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(run: &str, status: Value) -> Value {
        json!({
            "metadata": {
                "uid": "u",
                "labels": {"app.kubernetes.io/name": "kubectl-backup", "app.kubernetes.io/component": "mover", "kubectl-backup/run": run},
            },
            "status": status,
        })
    }

    #[test]
    fn movers_of_other_runs_that_are_over_are_left_and_none_else() {
        let is = |run: &str, phase: &str| is_left(&pod(run, json!({"phase": phase})), "mine");
        assert!(is("dead", "Failed") && is("dead", "Succeeded"));
        assert!(!is("dead", "Running") && !is("dead", "Pending"));
        assert!(!is("mine", "Failed"));
        let somebodys =
            json!({"metadata": {"labels": {"app": "db"}}, "status": {"phase": "Failed"}});
        assert!(!is_left(&somebodys, "mine"));
    }

    #[test]
    fn a_mover_that_is_not_what_it_was_is_named_with_the_reason() {
        let runs = json!({"phase": "Running", "containerStatuses": [{"name": "mover", "restartCount": 0, "state": {"running": {}}}]});
        assert_eq!(judge(&pod("r", runs.clone()), "u"), None);
        assert_eq!(
            judge(&pod("r", runs.clone()), "v").unwrap(),
            "its pod was deleted"
        );
        let mut going = pod("r", runs.clone());
        going["metadata"]["deletionTimestamp"] = "2026-11-30T10:00:00Z".into();
        assert_eq!(judge(&going, "u").unwrap(), "its pod is being deleted");
        let mut anew = runs;
        anew["containerStatuses"][0]["restartCount"] = 1.into();
        assert!(judge(&pod("r", anew), "u").unwrap().contains("anew"));
        let killed = json!({"phase": "Failed", "containerStatuses": [{"name": "mover", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]});
        let said = judge(&pod("r", killed), "u").unwrap();
        assert_eq!(
            said,
            "its pod has ended: it ended with exit code 137: OOMKilled"
        );
    }
}
