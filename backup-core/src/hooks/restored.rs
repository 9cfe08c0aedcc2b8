//! Hooks of a restore, as Velero reads them: init containers that a pod gets before it is made, and commands that run in it when it runs. What a pod is asked is
//! read from its annotations, else from the Restore's spec.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::ask::{Hook, OnError, TIMEOUT, command, named, timeout};
use super::bracket::line;
use super::exec::{Ran, Target};
use super::{Pod, rights};
use crate::api::BackupSpec;
use crate::cluster::{ApiError, Cluster};
use crate::discovery::ApiResource;
use crate::error::{Error, Kind, Result};
use crate::filter::{Filter, Verdict};

/// What annotations of these hooks have in common.
const MARK: &str = "hook.restore.velero.io/";

/// How long it is waited for a container of which nobody says it.
const WAIT: Duration = Duration::from_secs(3600);

/// Between two looks at a pod that is awaited.
const LOOKS: Duration = Duration::from_secs(2);

/// Hooks that run at a time, and pods that are looked at. One that is awaited holds up no other.
const AT_A_TIME: usize = 16;

/// A pod is not larger than etcd takes.
const LARGEST_POD: usize = 4 << 20;

/// A command that runs in a pod that was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exec {
    hook: Hook,
    /// How long its container is awaited.
    wait: Duration,
    /// Whether it has to be ready, not only to run.
    ready: bool,
}

/// `spec.hooks` of a Restore, understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct RestoreHooks {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    filter: Filter,
    hooks: Vec<Listed>,
}

/// One of `postHooks`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    exec: Option<RawExec>,
    init: Option<RawInit>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawExec {
    container: Option<String>,
    command: Vec<String>,
    on_error: Option<String>,
    exec_timeout: Option<String>,
    wait_timeout: Option<String>,
    wait_for_ready: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawInit {
    init_containers: Vec<Value>,
}

impl RestoreHooks {
    /// Reads `spec.hooks`.
    ///
    /// # Errors
    /// `Invalid`, for what can not be understood.
    pub(crate) fn read(hooks: &Value) -> Result<Self> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            name: String,
            #[serde(default, rename = "postHooks")]
            hooks: Option<Vec<Listed>>,
        }
        let mut entries = Vec::new();
        for value in hooks["resources"].as_array().into_iter().flatten() {
            let unfit = |why: String| {
                Error::invalid(format!("spec.hooks can not be understood: {why}")).hint(
                    "each entry has a name, and a list postHooks of exec: {container, command, onError, execTimeout, waitTimeout, waitForReady} or init: {initContainers}",
                )
            };
            let raw: Raw =
                serde_json::from_value(value.clone()).map_err(|e| unfit(e.to_string()))?;
            let spec: BackupSpec =
                serde_json::from_value(value.clone()).map_err(|e| unfit(e.to_string()))?;
            let filter = Filter::of(&spec);
            filter.validate().map_err(|e| unfit(e.sentence()))?;
            let hooks = raw.hooks.unwrap_or_default();
            for hook in &hooks {
                let has_command = hook.exec.as_ref().is_none_or(|e| !e.command.is_empty());
                let has_images = hook.init.iter().flat_map(|init| &init.init_containers);
                let has_images = has_images
                    .into_iter()
                    .all(|one| one["image"].is_string() && one["name"].is_string());
                if !has_command || !has_images || (hook.exec.is_none() && hook.init.is_none()) {
                    return Err(unfit(format!("a hook of {:?} is not whole", raw.name)));
                }
            }
            entries.push(Entry {
                name: raw.name,
                filter,
                hooks,
            });
        }
        Ok(Self { entries })
    }

    /// The same, its kinds bound to what is served.
    #[must_use]
    pub(crate) fn resolve(mut self, served: &[Arc<ApiResource>]) -> Self {
        for entry in &mut self.entries {
            entry.filter = entry.filter.resolve(served).0;
        }
        self
    }

    /// Whether a pod has to be looked at.
    pub(crate) fn may_ask(&self, metadata: &str) -> bool {
        !self.entries.is_empty() || metadata.contains(MARK)
    }

    fn fitting<'s>(&'s self, pod: &'s Pod) -> impl Iterator<Item = &'s Entry> {
        let pods = super::pods();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        self.entries.iter().filter(move |entry| {
            entry.filter.namespace(&pod.metadata.namespace)
                && !matches!(entry.filter.resource(&pods), Verdict::Out(_))
                && entry.filter.labels(&labels)
        })
    }

    /// What runs in this pod when it runs.
    pub(crate) fn execs(&self, pod: &Pod) -> Vec<Exec> {
        let get = |key: &str| {
            let annotations = pod.metadata.annotations.as_ref()?;
            annotations
                .get(&format!("post.{MARK}{key}"))
                .map(String::as_str)
        };
        if let Some(text) = get("command").filter(|text| !text.is_empty()) {
            let raw = RawExec {
                container: get("container").map(str::to_owned),
                command: command(text),
                on_error: get("on-error").map(str::to_owned),
                exec_timeout: get("exec-timeout").map(str::to_owned),
                wait_timeout: get("wait-timeout").map(str::to_owned),
                wait_for_ready: get("wait-for-ready").map(is_true),
            };
            return vec![raw.exec("annotation", pod)];
        }
        let mut execs = Vec::new();
        for entry in self.fitting(pod) {
            let listed = entry.hooks.iter().filter_map(|hook| hook.exec.as_ref());
            execs.extend(listed.map(|raw| raw.exec(&entry.name, pod)));
        }
        execs
    }

    /// The init containers that this pod gets, before those that it has.
    pub(crate) fn inits(&self, pod: &Pod) -> Vec<Value> {
        let get = |key: &str| {
            let annotations = pod.metadata.annotations.as_ref()?;
            let value = annotations.get(&format!("init.{MARK}{key}"));
            value.map(String::as_str).filter(|text| !text.is_empty())
        };
        if let Some(image) = get("container-image") {
            let name = get("container-name").unwrap_or("kubectl-backup-restore-init");
            let mut container = json!({"name": name, "image": image});
            // Without one the image has its own.
            if let Some(text) = get("command") {
                container["command"] = json!(command(text));
            }
            return vec![container];
        }
        let fitting = self.fitting(pod).flat_map(|entry| &entry.hooks);
        let inits = fitting.filter_map(|hook| hook.init.as_ref());
        inits
            .flat_map(|init| init.init_containers.clone())
            .collect()
    }
}

/// A truth as Go reads one; anything else is none.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True")
}

impl RawExec {
    fn exec(&self, origin: &str, pod: &Pod) -> Exec {
        // What is not said is Continue here.
        let on_error = match self.on_error.as_deref().map(str::trim) {
            Some("Fail") => OnError::Fail,
            _ => OnError::Continue,
        };
        Exec {
            hook: Hook {
                origin: origin.to_owned(),
                container: named(self.container.as_deref(), pod),
                command: self.command.clone(),
                on_error,
                timeout: timeout(self.exec_timeout.as_deref(), TIMEOUT),
            },
            wait: timeout(self.wait_timeout.as_deref(), WAIT),
            ready: self.wait_for_ready == Some(true),
        }
    }
}

/// Pods that this restore made and that ask for hooks.
#[derive(Debug, Default)]
pub(crate) struct Made(Mutex<BTreeSet<(String, String)>>);

impl Made {
    /// Notes one.
    pub(crate) fn note(&self, namespace: &str, name: &str) {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.insert((namespace.to_owned(), name.to_owned()));
    }

    /// All of them.
    pub(crate) fn take(&self) -> BTreeSet<(String, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What came of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) namespace: String,
    /// A line for the log.
    pub(crate) line: String,
    /// Why it failed, in a sentence, and whether that is an error.
    pub(crate) failure: Option<(bool, String)>,
}

/// Runs the hooks of these pods.
pub(crate) struct Runner<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) hooks: &'a RestoreHooks,
    pub(crate) cancel: watch::Receiver<bool>,
}

impl Runner<'_> {
    /// Each pod's in their order, the pods beside each other.
    ///
    /// # Errors
    /// `Interrupted`, when it was stopped: what had not run by then runs when the restore goes on.
    pub(crate) async fn run(&self, pods: BTreeSet<(String, String)>) -> Result<Vec<Word>> {
        let namespaces = pods
            .iter()
            .map(|(namespace, _)| namespace.clone())
            .collect();
        let missing = rights::missing(self.cluster, namespaces).await;
        let began = Instant::now();
        let turns = Turns {
            looks: Semaphore::new(AT_A_TIME),
            execs: Semaphore::new(AT_A_TIME),
        };
        let count = pods.len().max(1);
        let all = stream::iter(pods)
            .map(|(namespace, name)| self.pod(namespace, name, &missing, began, &turns))
            .buffer_unordered(count)
            .concat();
        tokio::select! {
            words = all => Ok(words),
            () = crate::backup::cancelled(self.cancel.clone()) => Err(Error::new(
                Kind::Interrupted,
                "the restore was stopped while hooks were to run; a command that was started may still run in its pod",
            )),
        }
    }

    async fn pod(
        &self,
        namespace: String,
        name: String,
        missing: &BTreeMap<String, String>,
        began: Instant,
        turns: &Turns,
    ) -> Vec<Word> {
        let mut words = Vec::new();
        let pod = match self.look(&namespace, &name, turns).await {
            Ok(Some(pod)) => pod,
            Ok(None) => {
                return vec![about(
                    &namespace,
                    &name,
                    "its hooks are not run: it is gone",
                )];
            }
            Err(e) => {
                let why = format!("its hooks are not run: {e}");
                return vec![about(&namespace, &name, &why)];
            }
        };
        for exec in self.hooks.execs(&pod) {
            let hook = &exec.hook;
            let what = format!(
                "pod {namespace}/{name}: the hook after its restore ({}, container {})",
                hook.origin, hook.container
            );
            let ran = match missing.get(&namespace) {
                Some(why) => Ran::not_now(why),
                None => {
                    self.await_and_run(&namespace, &name, &pod, &exec, began, turns)
                        .await
                }
            };
            let is_error = hook.on_error == OnError::Fail || missing.contains_key(&namespace);
            let failure = ran.failure();
            let gives_up = failure.is_some() && is_error;
            words.push(Word {
                namespace: namespace.clone(),
                line: line(&what, &ran),
                failure: failure.map(|why| (is_error, format!("{what} failed: {why}"))),
            });
            if gives_up {
                break;
            }
        }
        words
    }

    async fn look(
        &self,
        namespace: &str,
        name: &str,
        turns: &Turns,
    ) -> Result<Option<Pod>, ApiError> {
        let _turn = turns.looks.acquire().await;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        match self.cluster.get_bounded(&path, LARGEST_POD).await {
            Ok(body) => match Pod::answered(&body) {
                None => Err(ApiError {
                    message: "the server's answer is no pod".to_owned(),
                    ..ApiError::default()
                }),
                pod => Ok(pod),
            },
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn await_and_run(
        &self,
        namespace: &str,
        name: &str,
        made: &Pod,
        exec: &Exec,
        began: Instant,
        turns: &Turns,
    ) -> Ran {
        let container = &exec.hook.container;
        if !made.has_container(container) {
            return Ran::not_now(&format!("the pod has no container {container:?}"));
        }
        loop {
            let is_fit = match self.look(namespace, name, turns).await {
                Ok(Some(pod)) if pod.metadata.uid == made.metadata.uid => {
                    if pod.has_ended() {
                        return Ran::not_now(&format!("the pod has ended ({})", pod.status.phase));
                    }
                    let status = pod.container(container);
                    let runs = status.is_some_and(|status| status.state.running.is_some());
                    runs && (!exec.ready || status.is_some_and(|status| status.ready))
                }
                Ok(_) => return Ran::not_now("the pod is gone"),
                // A server that is away for a moment is awaited like the pod.
                Err(_) => false,
            };
            if is_fit {
                break;
            }
            if began.elapsed() >= exec.wait {
                let what = if exec.ready { "ready" } else { "running" };
                return Ran::not_now(&format!(
                    "its container was not {what} within {} s",
                    exec.wait.as_secs_f64()
                ));
            }
            tokio::time::sleep(LOOKS.min(exec.wait)).await;
        }
        let target = Target {
            cluster: self.cluster,
            namespace,
            name,
            uid: &made.metadata.uid,
            even_deleted: false,
        };
        let _turn = turns.execs.acquire().await;
        target.run(&exec.hook, std::future::pending()).await
    }
}

/// Who may look, and who may run.
struct Turns {
    looks: Semaphore,
    execs: Semaphore,
}

/// A word about a pod of which no hook can be told.
fn about(namespace: &str, name: &str, why: &str) -> Word {
    let text = format!("pod {namespace}/{name}: {why}");
    Word {
        namespace: namespace.to_owned(),
        line: text.clone(),
        failure: Some((true, text)),
    }
}

#[cfg(test)]
mod tests;
