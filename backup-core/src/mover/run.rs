//! Makes movers, waits until they run, names what keeps one from it, watches those that run, and removes them: one that was begun is known here until its pod is gone, or its
//! container in somebody's pod has ended, so that nothing stays at work whatever comes of the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::inside::{self, Host};
use super::spec::{self, Beside, CONTAINER, Wanted, run_of};
use super::{MoverOptions, pull, streams};
use crate::cluster::{ApiError, Call, Cluster};
use crate::error::{Error, Kind, Result};
use crate::pod::{Event, Stand, event_of, short, stand, status_of};

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

/// So often a pod that changed between a look and what follows from it is looked at again.
const LOOKS_AGAIN: u32 = 10;

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
    /// Those that were begun and are not known to be gone, by the names that they got.
    standing: Mutex<BTreeMap<String, Spot>>,
}

/// Where a mover is: a pod of its own, or a container in somebody's pod.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
    is_inside: bool,
}

impl Spot {
    fn own(namespace: &str, pod: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: CONTAINER.to_owned(),
            is_inside: false,
        }
    }

    /// What is made for it alone.
    fn name(&self) -> &str {
        match self.is_inside {
            true => &self.container,
            false => &self.pod,
        }
    }

    fn path(&self) -> String {
        path_of(&self.namespace, &self.pod)
    }
}

/// One that runs. It is removed by [`Mover::remove`], or when its run settles.
pub(crate) struct Mover {
    shared: Arc<Shared>,
    pub(super) spot: Spot,
    /// The pod's.
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

    /// Makes one in the pod that alone may have the volume, and waits until it runs.
    ///
    /// # Errors
    /// Why there is none. Where a container was made all the same, it stays in the pod's object, and the error says so.
    pub(crate) async fn start_inside(&self, namespace: &str, host: &Host) -> Result<Mover> {
        let shared = Arc::clone(&self.shared);
        let (namespace, host) = (namespace.to_owned(), host.clone());
        let started = async move { shared.start_inside(namespace, &host).await };
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
        let gone = standing.into_values().map(|spot| async move {
            let removed = self.shared.remove(&spot, "").await;
            let Spot { namespace, pod, .. } = &spot;
            removed.err().map(|e| match spot.is_inside {
                true => format!(
                    "container {} of pod {namespace}/{pod} has not ended, and ends by itself in ten minutes: {}",
                    spot.container,
                    e.sentence()
                ),
                false => format!(
                    "pod {namespace}/{pod} could not be removed, and ends by itself in ten minutes: {}",
                    e.sentence()
                ),
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
        let spot = self.begin(Spot::own(&namespace, &name));
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let call = Call::post(&path, wanted.to_string().into());
        let made = match self.cluster.send(&call).await {
            Ok(body) => serde_json::from_slice::<Value>(&body).unwrap_or_default(),
            Err(e) if matches!(e.code, 400..=499) && e.code != 408 => {
                // Nothing came to be.
                self.gone(&spot);
                return Err(refused(e));
            }
            Err(e) => {
                let _ = self.remove(&spot, "").await;
                return Err(refused(e));
            }
        };
        let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
        self.mover(spot, uid).await
    }

    async fn start_inside(self: Arc<Self>, namespace: String, host: &Host) -> Result<Mover> {
        if self.is_stopped() {
            return Err(stopped());
        }
        let name = inside::name(&self.run);
        let spot = Spot {
            namespace,
            pod: host.pod.clone(),
            container: name.clone(),
            is_inside: true,
        };
        let spot = self.begin(spot);
        let mut tries = 0;
        while let Err(e) = self.add(&spot, host, &name).await? {
            // Nodes write to their pods.
            if e.is_conflict() && tries < LOOKS_AGAIN && !self.is_stopped() {
                tries += 1;
                tokio::time::sleep(OFTEN).await;
                continue;
            }
            match e.code {
                400..=499 if e.code != 408 => self.gone(&spot),
                _ => {
                    let _ = self.remove(&spot, &host.uid).await;
                }
            }
            return Err(inside::refused(e, &host.pod));
        }
        let stays = format!(
            "ephemeral container {name} stays in the object of pod {}",
            host.pod
        );
        let mover = self.mover(spot, &host.uid).await;
        mover.map_err(|e| match e.kind() {
            Kind::Interrupted => e,
            kind => Error::new(kind, format!("{}; {stays}", e.sentence())),
        })
    }

    /// Adds the container to the pod as it is now; what the server refused of that comes back.
    async fn add(&self, spot: &Spot, host: &Host, name: &str) -> Result<Result<(), ApiError>> {
        let read = self.cluster.get_bounded(&spot.path(), LARGEST_POD).await;
        let pod = read.map(|body| serde_json::from_slice::<Value>(&body).unwrap_or_default());
        let looked = match pod {
            Ok(pod) => inside::may_get(&pod, host).map(|()| pod),
            Err(e) => Err(inside::refused(e, &host.pod)),
        };
        // Nothing of this name was added before.
        let pod = looked.inspect_err(|_| self.gone(spot))?;
        let version = pod["metadata"]["resourceVersion"].as_str();
        let version = version.unwrap_or_default();
        let patch = inside::patch(host, version, name, &self.options.image);
        let path = format!("{}/ephemeralcontainers", spot.path());
        let call = Call::strategic_patch(&path, patch.to_string().into());
        Ok(self.cluster.send(&call).await.map(drop))
    }

    fn begin(&self, spot: Spot) -> Spot {
        lock(&self.standing).insert(spot.name().to_owned(), spot.clone());
        spot
    }

    fn gone(&self, spot: &Spot) {
        lock(&self.standing).remove(spot.name());
    }

    /// One that was made, once it runs.
    async fn mover(self: Arc<Self>, spot: Spot, uid: &str) -> Result<Mover> {
        match self.await_running(&spot, uid).await {
            Ok(node) => {
                let over = watch::Sender::new(None);
                let looking = tokio::spawn(look_on(
                    self.cluster.clone(),
                    spot.clone(),
                    uid.to_owned(),
                    over.clone(),
                ));
                Ok(Mover {
                    shared: Arc::clone(&self),
                    spot,
                    uid: uid.to_owned(),
                    node,
                    over,
                    looking,
                    broke: Arc::default(),
                })
            }
            Err(e) => {
                // What could not be removed is tried once more when the run settles.
                let _ = self.remove(&spot, uid).await;
                Err(e)
            }
        }
    }

    /// Waits until its container runs; the node where it does.
    async fn await_running(&self, spot: &Spot, uid: &str) -> Result<String> {
        let path = spot.path();
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
                        return Err(self.not_come(spot, "somebody deleted it", None));
                    }
                    match stand(&pod, &spot.container) {
                        Stand::Runs => {
                            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
                            return Ok(node.to_owned());
                        }
                        Stand::Waits(why) => waits = why,
                        Stand::Stuck(why) | Stand::Ended(why) => {
                            let event = self.event_of(spot).await;
                            return Err(self.not_come(spot, &why, event.map(|event| event.text)));
                        }
                    }
                }
                Err(e) if e.is_not_found() => {
                    return Err(self.not_come(spot, "somebody deleted it", None));
                }
                Err(e) if e.is_forbidden() => return Err(refused(e)),
                // A server that is away comes back, or the time is over.
                Err(_) => {}
            }
            let over = Instant::now() >= until;
            if over || told.elapsed() >= SELDOM {
                told = Instant::now();
                let event = self.event_of(spot).await;
                if over || event.as_ref().is_some_and(|event| event.is_final) {
                    return Err(self.not_come(spot, &waits, event.map(|event| event.text)));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(OFTEN) => {}
                _ = stop.wait_for(|stop| *stop) => return Err(stopped()),
            }
        }
    }

    /// What was told last of its pod. What is told of somebody's is not of a mover in it.
    async fn event_of(&self, spot: &Spot) -> Option<Event> {
        match spot.is_inside {
            true => None,
            false => event_of(&self.cluster, &spot.namespace, &spot.pod).await,
        }
    }

    fn not_come(&self, spot: &Spot, why: &str, event: Option<String>) -> Error {
        let event = event.map_or_else(String::new, |event| format!("; last event: {event}"));
        let what = match spot.is_inside {
            true => format!("the ephemeral container in pod {}", spot.pod),
            false => "the pod beside it".to_owned(),
        };
        let error = Error::other(format!("{what} did not come to run: {why}{event}"));
        if why.contains("image") {
            let inside = spot.is_inside.then_some(spot.pod.as_str());
            return error.hint(pull::hint(&self.options, &spot.namespace, inside));
        }
        if lacks_program(why) {
            let image = &self.options.image;
            return error.hint(format!(
                "{image} does not have this program: --mover-image names an image of it"
            ));
        }
        error.hint("the node, quotas, taints and the volume's driver decide that; --mover-timeout gives it longer")
    }

    /// Takes away what was made and waits until it is gone. With a uid, of that pod and no other of its name.
    async fn remove(&self, spot: &Spot, uid: &str) -> Result<()> {
        match spot.is_inside {
            true => self.end_container(spot, uid).await?,
            false => self.delete_pod(&spot.path(), uid).await?,
        }
        self.gone(spot);
        Ok(())
    }

    /// Tells the program of a container in somebody's pod to end, and waits until it has.
    async fn end_container(&self, spot: &Spot, uid: &str) -> Result<()> {
        let path = spot.path();
        let until = Instant::now() + GOES;
        while Instant::now() < until {
            match self.cluster.get_bounded(&path, LARGEST_POD).await {
                Ok(body) => {
                    let pod: Value = serde_json::from_slice(&body).unwrap_or_default();
                    let is_other = !uid.is_empty() && pod["metadata"]["uid"] != uid;
                    match stand(&pod, &spot.container) {
                        _ if is_other => return Ok(()),
                        Stand::Ended(_) => return Ok(()),
                        Stand::Runs => {
                            let end = streams::say(&self.cluster, spot, "end");
                            let _ = tokio::time::timeout(LOOKS, end).await;
                        }
                        // Should it come to run, it hears of nobody.
                        Stand::Stuck(_) | Stand::Waits(_) => return Ok(()),
                    }
                }
                Err(e) if e.is_not_found() => return Ok(()),
                Err(_) => {}
            }
            tokio::time::sleep(OFTEN).await;
        }
        Err(Error::other(format!(
            "it still runs {} s after it was told to end",
            GOES.as_secs()
        )))
    }

    async fn delete_pod(&self, path: &str, uid: &str) -> Result<()> {
        match delete(&self.cluster, path, uid).await {
            Ok(()) => {}
            Err(e) if e.is_not_found() || e.is_conflict() => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let until = Instant::now() + GOES;
        while Instant::now() < until {
            match self.cluster.get_bounded(path, LARGEST_POD).await {
                Err(e) if e.is_not_found() => return Ok(()),
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
async fn why_over(cluster: &Cluster, spot: &Spot, uid: &str) -> Option<String> {
    let body = match cluster.get_bounded(&spot.path(), LARGEST_POD).await {
        Ok(body) => body,
        Err(e) if e.is_not_found() => return Some("its pod was deleted".to_owned()),
        Err(_) => return None,
    };
    let pod: Value = serde_json::from_slice(&body).ok()?;
    judge(&pod, uid, &spot.container)
}

/// Why a pod is not any more what it was, as it stands now with this container.
fn judge(pod: &Value, uid: &str, container: &str) -> Option<String> {
    let meta = &pod["metadata"];
    if meta["uid"] != uid {
        return Some("its pod was deleted".to_owned());
    }
    let what = if container == CONTAINER {
        "pod"
    } else {
        "container"
    };
    let restarts = status_of(pod, container)["restartCount"].as_u64() > Some(0);
    match stand(pod, container) {
        Stand::Ended(why) => return Some(format!("its {what} has ended: {why}")),
        Stand::Stuck(why) => return Some(format!("its {what} does not run any more: {why}")),
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

/// Whether the image is somebody's that does not have this program, in the words of runc and of crun.
fn lacks_program(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    why.contains(spec::PROGRAM) && why.contains("no such file")
}

/// Looks until it is over, and says now and then that somebody is there.
async fn look_on(cluster: Cluster, spot: Spot, uid: String, tell: watch::Sender<Option<String>>) {
    let mut beaten = Instant::now();
    loop {
        tokio::time::sleep(LOOKS).await;
        if beaten.elapsed() >= BEATS {
            beaten = Instant::now();
            // One that is not heard is followed by others, before the pod gives up.
            let beat = streams::say(&cluster, &spot, "beat");
            let _ = tokio::time::timeout(LOOKS, beat).await;
        }
        if let Some(why) = why_over(&cluster, &spot, &uid).await {
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

    /// The container and the pod of somebody's in which it is.
    pub(crate) fn inside(&self) -> Option<(&str, &str)> {
        let spot = &self.spot;
        spot.is_inside.then_some((&spot.container, &spot.pod))
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
        let spot = self.spot.clone();
        async move {
            for _ in 0..TRIES {
                if let Some(why) = why_over(&cluster, &spot, &uid).await {
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

    /// Removes its pod and waits until it is gone: then the volume is free. A container in somebody's pod is told to end, and its end awaited.
    ///
    /// # Errors
    /// The server's; the run tries again when it settles.
    pub(crate) async fn remove(self) -> Result<()> {
        self.looking.abort();
        self.shared.remove(&self.spot, &self.uid).await
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
    fn an_image_without_this_program_is_told_from_a_volume_that_is_not_there() {
        for lacks in [
            "exec: \"/kubectl-backup\": stat /kubectl-backup: no such file or directory",
            "executable file `/kubectl-backup` not found: No such file or directory",
        ] {
            assert!(lacks_program(lacks), "{lacks}");
        }
        assert!(!lacks_program("stat /mnt/disk: no such file or directory"));
    }

    #[test]
    fn a_mover_that_is_not_what_it_was_is_named_with_the_reason() {
        let runs = json!({"phase": "Running", "containerStatuses": [{"name": "mover", "restartCount": 0, "state": {"running": {}}}]});
        assert_eq!(judge(&pod("r", runs.clone()), "u", CONTAINER), None);
        assert_eq!(
            judge(&pod("r", runs.clone()), "v", CONTAINER).unwrap(),
            "its pod was deleted"
        );
        let mut going = pod("r", runs.clone());
        going["metadata"]["deletionTimestamp"] = "2026-11-30T10:00:00Z".into();
        assert_eq!(
            judge(&going, "u", CONTAINER).unwrap(),
            "its pod is being deleted"
        );
        let mut anew = runs;
        anew["containerStatuses"][0]["restartCount"] = 1.into();
        assert!(
            judge(&pod("r", anew), "u", CONTAINER)
                .unwrap()
                .contains("anew")
        );
        let killed = json!({"phase": "Failed", "containerStatuses": [{"name": "mover", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]});
        let said = judge(&pod("r", killed), "u", CONTAINER).unwrap();
        assert_eq!(
            said,
            "its pod has ended: it ended with exit code 137: OOMKilled"
        );
    }
}
