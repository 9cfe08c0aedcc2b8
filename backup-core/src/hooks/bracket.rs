//! The bracket around what is read of a pod: pre hooks, then whatever the caller does, then post hooks. Each bracket is a task of its own, so that a caller that
//! is dropped, stopped or fails leaves no pod without its post hook.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::ask::{Hook, OnError, PodHooks};
use super::exec::{Ran, Target};
pub(crate) use super::note::Notes;
use super::{When, rights};
use crate::cluster::Cluster;

/// So often it is seen whether the run may still write its backup.
const PULSE: Duration = Duration::from_secs(1);

/// A post hook that is not known to have run is run again after this, and for so long.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_FOR: Duration = Duration::from_secs(120);

/// A pod that is asked to run hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) hooks: PodHooks,
}

/// Writes a line of a level into the log.
pub(crate) type Log = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// A sentence about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) namespace: String,
    pub(crate) is_error: bool,
    pub(crate) text: String,
}

/// What came of all hooks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// How many were to run.
    pub(crate) attempted: u64,
    /// How many of them failed.
    pub(crate) failed: u64,
    /// What should be known.
    pub(crate) told: Vec<Told>,
}

/// All brackets of a run.
pub(crate) struct Brackets {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What they have in common.
struct Shared {
    cluster: Cluster,
    notes: Notes,
    cancel: watch::Receiver<bool>,
    /// Whether the run may still write.
    pulse: Box<dyn Fn() -> bool + Send + Sync>,
    log: Log,
    tally: Mutex<Tally>,
    /// Namespaces where nothing may be run, and why.
    missing: Mutex<BTreeMap<String, String>>,
}

/// One that was opened. Dropping it closes it.
pub(crate) struct Bracket {
    opened: oneshot::Receiver<bool>,
    close: oneshot::Sender<()>,
    ended: oneshot::Receiver<Option<String>>,
}

impl Bracket {
    /// Waits for the pre hooks; whether the pod is as quiet as they make it.
    pub(crate) async fn opened(&mut self) -> bool {
        (&mut self.opened).await.unwrap_or(false)
    }

    /// What was to be done is done; waits for the post hooks. Says why the pod did not stay until then what the pre hooks had made it, where it did not.
    pub(crate) async fn close(self) -> Option<String> {
        let _ = self.close.send(());
        self.ended.await.ok().flatten()
    }
}

impl Brackets {
    /// None yet. `pulse` says whether the run's claim still holds.
    pub(crate) fn new(
        cluster: Cluster,
        notes: Notes,
        cancel: watch::Receiver<bool>,
        pulse: Box<dyn Fn() -> bool + Send + Sync>,
        log: Log,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                cluster,
                notes,
                cancel,
                pulse,
                log,
                tally: Mutex::default(),
                missing: Mutex::default(),
            }),
            tasks: Mutex::default(),
        }
    }

    /// For a test without hooks.
    #[cfg(test)]
    pub(crate) fn idle(cluster: Cluster) -> Self {
        let notes = Notes {
            store: crate::location::Store::in_memory(),
            cluster: None,
            backup: "b".to_owned(),
            run: "r".to_owned(),
            schedule: None,
            names: true,
            process: super::Process::default(),
        };
        let (_, cancel) = watch::channel(false);
        Self::new(
            cluster,
            notes,
            cancel,
            Box::new(|| true),
            Arc::new(|_, _| {}),
        )
    }

    /// Asks for the rights that these pods' hooks need, before the first of them runs.
    pub(crate) async fn ask_rights(&self, pods: impl Iterator<Item = &Asked>) {
        let namespaces = pods.map(|pod| pod.namespace.clone()).collect();
        let missing = rights::missing(&self.shared.cluster, namespaces).await;
        *lock(&self.shared.missing) = missing;
    }

    /// Writes a line into the log of the run.
    pub(crate) fn log(&self, level: &str, text: &str) {
        (self.shared.log)(level, text);
    }

    /// Opens one: its pre hooks begin.
    pub(crate) fn open(&self, pod: Asked) -> Bracket {
        let (tell_opened, opened) = oneshot::channel();
        let (close, closed) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            let broken = shared.run(&pod, tell_opened, closed).await;
            let _ = tell_ended.send(broken);
        });
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
        drop(tasks);
        Bracket {
            opened,
            close,
            ended,
        }
    }

    /// Something else that is wrong with a pod's hooks.
    pub(crate) fn tell(&self, namespace: &str, text: String) {
        lock(&self.shared.tally).told.push(Told {
            namespace: namespace.to_owned(),
            is_error: true,
            text,
        });
    }

    /// Waits until nothing is owed to any pod, and tells what came of all.
    pub(crate) async fn settle(&self) -> Tally {
        loop {
            let task = lock(&self.tasks).pop();
            match task {
                // One that broke off left its note.
                Some(task) => drop(task.await),
                None => return lock(&self.shared.tally).clone(),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Ends when no more is to be begun, and says why.
    async fn stopped(&self) -> String {
        let lapsed = async {
            while (self.pulse)() {
                tokio::time::sleep(PULSE).await;
            }
        };
        tokio::select! {
            () = crate::backup::cancelled(self.cancel.clone()) => "the backup was stopped while it ran".to_owned(),
            () = lapsed => "the backup lost its claim while it ran".to_owned(),
        }
    }

    fn is_stopped(&self) -> bool {
        *self.cancel.borrow() || !(self.pulse)()
    }

    async fn run(
        &self,
        pod: &Asked,
        mut opened: oneshot::Sender<bool>,
        closed: oneshot::Receiver<()>,
    ) -> Option<String> {
        if self.is_stopped() || self.refuses(pod) {
            let _ = opened.send(false);
            return None;
        }
        let hooks = &pod.hooks;
        let owes = !hooks.pre.is_empty() && !hooks.post.is_empty();
        if owes && !self.note(pod).await {
            let _ = opened.send(false);
            return None;
        }
        let (mut is_quiet, mut was_started, mut gives_up) = (true, false, false);
        let mut quieted = BTreeMap::new();
        for hook in &hooks.pre {
            if self.is_stopped() || opened.is_closed() {
                break;
            }
            let stop = async {
                tokio::select! {
                    why = self.stopped() => why,
                    // Nobody is there any more who would read the pod.
                    () = opened.closed() => "the backup ended while it ran".to_owned(),
                }
            };
            let ran = self.target(pod, When::Pre).run(hook, stop).await;
            was_started |= ran.was_started();
            let failed = self.record(pod, When::Pre, hook, &ran);
            is_quiet &= !failed;
            quieted.insert(&hook.container, ran.id);
            // As to Velero: what comes after it may build on it.
            gives_up = failed && hook.on_error == OnError::Fail;
            if gives_up {
                break;
            }
        }
        let _ = opened.send(is_quiet);
        if !self.is_stopped() {
            // Who is gone has closed it.
            tokio::select! {
                _ = closed => {}
                _ = self.stopped() => {}
            }
        }
        let broken = match is_quiet {
            true => self.broken(pod, &quieted).await,
            false => None,
        };
        let is_owed = was_started || !(gives_up || self.is_stopped());
        let mut is_settled = true;
        if is_owed {
            for hook in &hooks.post {
                is_settled &= self.post(pod, hook, was_started && owes).await;
            }
        }
        // What no pre hook has touched is owed nothing.
        if owes && (is_settled || !was_started) {
            self.forget(pod).await;
        } else if owes {
            let text = format!(
                "pod {}/{}: it is still owed its post hook: the next command that writes to this location, or a controller of it, runs it",
                pod.namespace, pod.name
            );
            self.tell(pod, true, text);
        }
        broken
    }

    /// Why a pod is not what hooks in these containers made it, where they do not run any more.
    async fn broken(&self, pod: &Asked, quieted: &BTreeMap<&String, String>) -> Option<String> {
        for (container, id) in quieted {
            let target = self.target(pod, When::Post);
            if let Err(why) = target.stands(container, id).await {
                return Some(why);
            }
        }
        None
    }

    /// Runs a post hook, and one that is owed again for a while where it is not known to have run; whether it has not to be run any more.
    async fn post(&self, pod: &Asked, hook: &Hook, is_owed: bool) -> bool {
        let began = tokio::time::Instant::now();
        loop {
            let target = self.target(pod, When::Post);
            let ran = target.run(hook, std::future::pending()).await;
            if ran.is_settled() || !is_owed || began.elapsed() >= AGAIN_FOR {
                self.record(pod, When::Post, hook, &ran);
                return ran.is_settled();
            }
            let what = describe(&pod.namespace, &pod.name, When::Post, hook);
            let text = format!("{}; it is tried again", line(&what, &ran));
            (self.log)("warning", &text);
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn target<'a>(&'a self, pod: &'a Asked, when: When) -> Target<'a> {
        Target {
            cluster: &self.cluster,
            namespace: &pod.namespace,
            name: &pod.name,
            uid: &pod.uid,
            even_deleted: when == When::Post,
        }
    }

    /// Whether this pod can run none, which is told then.
    fn refuses(&self, pod: &Asked) -> bool {
        let missing = lock(&self.missing).get(&pod.namespace).cloned();
        let (why, is_error) = match (missing, &pod.hooks.unfit) {
            (Some(why), _) => (why, true),
            (None, Some(why)) => (why.clone(), false),
            (None, None) if pod.uid.is_empty() => ("it has no uid".to_owned(), true),
            (None, None) => return false,
        };
        let all = || pod.hooks.pre.iter().chain(&pod.hooks.post);
        let mut origins: Vec<&str> = all().map(|hook| hook.origin.as_str()).collect();
        origins.dedup();
        if is_error {
            let count = all().count() as u64;
            let mut tally = lock(&self.tally);
            tally.attempted += count;
            tally.failed += count;
        }
        self.tell(
            pod,
            is_error,
            format!(
                "pod {}/{}: its hooks ({}) are not run: {why}",
                pod.namespace,
                pod.name,
                origins.join(", ")
            ),
        );
        true
    }

    /// Notes the post hook that will be owed; whether that stands.
    async fn note(&self, pod: &Asked) -> bool {
        let noted = tokio::select! {
            noted = self.notes.put(pod) => noted,
            // What was sent may still arrive.
            why = self.stopped() => Err(crate::error::Error::other(why)),
        };
        let Err(e) = noted else { return true };
        let _ = self.notes.remove(pod).await;
        let why = format!(
            "pod {}/{}: its hooks are not run, for that a post hook is owed could not be noted in the location: {}",
            pod.namespace,
            pod.name,
            e.sentence()
        );
        self.tell(pod, true, why);
        false
    }

    async fn forget(&self, pod: &Asked) {
        if let Err(e) = self.notes.remove(pod).await {
            (self.log)(
                "warning",
                &format!(
                    "the note of the post hook of pod {}/{} stays, and the hook may run again: {}",
                    pod.namespace,
                    pod.name,
                    e.sentence()
                ),
            );
        }
    }

    fn tell(&self, pod: &Asked, is_error: bool, text: String) {
        lock(&self.tally).told.push(Told {
            namespace: pod.namespace.clone(),
            is_error,
            text,
        });
    }

    /// Counts one and tells what came of it; whether it failed.
    fn record(&self, pod: &Asked, when: When, hook: &Hook, ran: &Ran) -> bool {
        let failure = ran.failure();
        {
            let mut tally = lock(&self.tally);
            tally.attempted += 1;
            tally.failed += u64::from(failure.is_some());
        }
        let what = describe(&pod.namespace, &pod.name, when, hook);
        let level = match (&failure, hook.on_error) {
            (None, _) => "info",
            (Some(_), OnError::Continue) => "warning",
            (Some(_), OnError::Fail) => "error",
        };
        (self.log)(level, &line(&what, ran));
        if let Some(why) = &failure {
            let is_error = hook.on_error == OnError::Fail;
            self.tell(pod, is_error, format!("{what} failed: {why}"));
        }
        failure.is_some()
    }
}

/// A hook in words, without its command.
pub(super) fn describe(namespace: &str, name: &str, when: When, hook: &Hook) -> String {
    format!(
        "pod {namespace}/{name}: {} ({}, container {})",
        when.words(),
        hook.origin,
        hook.container
    )
}

/// What the log says of one that ran.
pub(super) fn line(what: &str, ran: &Ran) -> String {
    let how = ran
        .failure()
        .map_or_else(|| "ended well".to_owned(), |why| format!("failed: {why}"));
    let mut text = format!("{what} {how}, after {:.1} s", ran.took.as_secs_f64());
    if !ran.output.is_empty() {
        let more = if ran.more { " (and more)" } else { "" };
        text.push_str(&format!("; it printed{more}: {}", ran.output));
    }
    text
}

#[cfg(test)]
mod tests;
