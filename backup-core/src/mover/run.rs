//! All movers of a run: one that was begun is known here until its pod is gone, or its container in somebody's pod has ended, so that nothing stays at work whatever comes
//! of the run.

mod coming;
mod over;
mod remove;
mod start;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::MoverOptions;
use super::inside::Host;
use super::spec::{self, Beside, CONTAINER, Wanted};
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use over::why_over;
pub(crate) use remove::{is_left, remove_left};

/// How often one that does not run yet is looked at.
const OFTEN: Duration = Duration::from_millis(400);

/// How often one that runs is looked at.
const LOOKS: Duration = Duration::from_secs(5);

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

impl Shared {
    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    fn begin(&self, spot: Spot) -> Spot {
        lock(&self.standing).insert(spot.name().to_owned(), spot.clone());
        spot
    }

    fn gone(&self, spot: &Spot) {
        lock(&self.standing).remove(spot.name());
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
