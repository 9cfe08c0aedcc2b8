//! One command in one container, as `kubectl exec` runs it: with an end to the waiting, a bound on what is kept of its output, and an eye on the pod. Nothing can
//! end the command itself once it was started.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Pod;
use super::ask::Hook;
use crate::cluster::{ApiError, Cluster};
use crate::pod::exit_status;

/// So much of what a command prints is kept.
const KEPT: usize = 4 << 10;

/// So often it is seen whether the pod still is what it was: a death is named within five seconds.
const LOOKS: Duration = Duration::from_secs(2);

/// A look that is not answered by then says nothing.
const LOOK: Duration = Duration::from_secs(2);

const ANEW: &str = "its container ended and was started anew";

/// What a process that is killed ends with.
const KILLED: i64 = 137;

/// A container that ends takes along what runs in it, and the server hears of that a moment later: who broke off is looked after for so long, so often.
const LATE: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_millis(500);

/// What is left of the output comes at once, or not at all.
const REST: Duration = Duration::from_secs(1);

/// A pod is not larger than etcd takes.
const LARGEST_POD: usize = 4 << 20;

/// Which pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    /// Whether it is run in a pod that is being deleted as well, for what it does is owed to that.
    pub(super) even_deleted: bool,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this exit status.
    Exit(i64),
    /// The time was over first.
    TimedOut(Duration),
    /// It was not started, and why; and nothing will make another try end otherwise.
    NotStarted { why: String, is_final: bool },
    /// The pod, or its container, went; and whether the pod stays away.
    Gone { why: String, is_final: bool },
    /// Nobody knows: the connection went first, or the server told nothing that is known.
    Broken(String),
    /// Nobody waited any more.
    Stopped(String),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    pub(super) ended: Ended,
    /// The beginning of what it printed.
    pub(super) output: String,
    /// Whether it printed more.
    pub(super) more: bool,
    pub(super) took: Duration,
    /// The id of the container that it ran in; nothing where that is not known.
    pub(super) id: String,
}

impl Ran {
    fn not_started(why: Unfit) -> Self {
        Self {
            ended: why.into(),
            output: String::new(),
            more: false,
            took: Duration::ZERO,
            id: String::new(),
        }
    }

    /// One that was not begun.
    pub(super) fn not_now(why: &str) -> Self {
        Self::not_started(Unfit::for_now(why))
    }

    /// The same without what it printed, for where not everybody may read that.
    pub(super) fn without_output(&self) -> Self {
        Self {
            output: String::new(),
            ..self.clone()
        }
    }

    /// Whether it may have done something.
    pub(super) fn was_started(&self) -> bool {
        !matches!(self.ended, Ended::NotStarted { .. })
    }

    /// Whether it has not to be tried again: it ran, or never can.
    pub(super) fn is_settled(&self) -> bool {
        match self.ended {
            Ended::Exit(_) | Ended::TimedOut(_) => true,
            Ended::NotStarted { is_final, .. } | Ended::Gone { is_final, .. } => is_final,
            Ended::Broken(_) | Ended::Stopped(_) => false,
        }
    }

    /// Why it failed, where it did.
    pub(super) fn failure(&self) -> Option<String> {
        let may_run = "it may still run in the pod";
        match &self.ended {
            Ended::Exit(0) => None,
            Ended::Exit(status) => Some(format!("exit status {status}")),
            Ended::TimedOut(after) => Some(format!(
                "it did not end within {} s; {may_run}, for Kubernetes can not stop it",
                after.as_secs_f64()
            )),
            Ended::NotStarted { why, .. } => Some(format!("it was not started: {why}")),
            Ended::Gone { why, .. } => Some(why.clone()),
            Ended::Broken(why) => Some(format!("how it ended is not known: {why}; {may_run}")),
            Ended::Stopped(why) => Some(format!("{why}; {may_run}")),
        }
    }
}

/// Why nothing can be run in a container, and whether that stays so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unfit {
    why: String,
    is_final: bool,
}

impl Unfit {
    fn for_now(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_final: false,
        }
    }

    fn for_good(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_final: true,
        }
    }
}

impl Unfit {
    /// The same of one in which something ran.
    fn gone(self, but: &str) -> Ended {
        Ended::Gone {
            why: format!("{but}{}", self.why),
            is_final: self.is_final,
        }
    }
}

impl From<Unfit> for Ended {
    fn from(unfit: Unfit) -> Self {
        let Unfit { why, is_final } = unfit;
        Self::NotStarted { why, is_final }
    }
}

impl Target<'_> {
    /// Runs it. `stop` ends the waiting, and says why.
    pub(super) async fn run(&self, hook: &Hook, stop: impl Future<Output = String>) -> Ran {
        let began = Instant::now();
        let container = match self.look(&hook.container).await {
            Ok(id) => id,
            Err(why) => return Ran::not_started(why),
        };
        let kept = Kept::default();
        let ended = tokio::select! {
            ended = self.exec(hook, &kept) => ended,
            () = tokio::time::sleep(hook.timeout) => kept.over(hook.timeout),
            unfit = self.dies(&hook.container, &container, LOOKS) => unfit.gone(""),
            why = stop => Ended::Stopped(why),
        };
        let ended = match ended {
            Ended::Exit(status) if status != 0 => {
                let late = if status == KILLED {
                    LATE
                } else {
                    Duration::ZERO
                };
                match self.fate(&hook.container, &container, late).await {
                    Some(unfit) => unfit.gone(&format!("exit status {status}, and ")),
                    None => Ended::Exit(status),
                }
            }
            Ended::Broken(why) => match self.fate(&hook.container, &container, LATE).await {
                Some(unfit) => unfit.gone(""),
                None => Ended::Broken(why),
            },
            ended => ended,
        };
        let (output, more) = kept.text();
        Ran {
            ended,
            output,
            more,
            took: began.elapsed(),
            id: container,
        }
    }

    /// Whether the container with this id runs still, or why not. A server that does not answer is no reason.
    pub(super) async fn stands(&self, container: &str, id: &str) -> Result<(), String> {
        match self.fallen(container, id).await {
            Some(unfit) => Err(unfit.why),
            None => Ok(()),
        }
    }

    /// The id of the container, which runs; or why nothing can be run in it. A server that does not answer is no reason.
    async fn look(&self, container: &str) -> Result<String, Unfit> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name);
        let asked = self.cluster.get_bounded(&path, LARGEST_POD);
        let body = match tokio::time::timeout(LOOK, asked).await {
            Ok(Ok(body)) => body,
            Ok(Err(e)) if e.is_not_found() => return Err(Unfit::for_good("the pod is gone")),
            Ok(Err(_)) | Err(_) => return Ok(String::new()),
        };
        let pod =
            Pod::answered(&body).ok_or_else(|| Unfit::for_now("the server's answer is no pod"))?;
        judge(&pod, self, container)
    }

    /// Ends when the container does, which is looked at so often, and says how.
    async fn dies(&self, container: &str, id: &str, often: Duration) -> Unfit {
        loop {
            tokio::time::sleep(often).await;
            if let Some(unfit) = self.fallen(container, id).await {
                return unfit;
            }
        }
    }

    /// How the container ended, where it did; what is known of that by now, or so much later.
    async fn fate(&self, container: &str, id: &str, late: Duration) -> Option<Unfit> {
        match self.fallen(container, id).await {
            Some(unfit) => Some(unfit),
            None => {
                let dies = self.dies(container, id, SOON);
                tokio::time::timeout(late, dies).await.ok()
            }
        }
    }

    async fn fallen(&self, container: &str, id: &str) -> Option<Unfit> {
        match self.look(container).await {
            Err(unfit) => Some(unfit),
            Ok(now) if is_anew(id, &now) => Some(Unfit::for_now(ANEW)),
            Ok(_) => None,
        }
    }

    async fn exec(&self, hook: &Hook, kept: &Kept) -> Ended {
        let pods: Api<core::Pod> = Api::namespaced(self.cluster.client().clone(), self.namespace);
        let params = AttachParams::default()
            .container(&hook.container)
            .stdin(false)
            .stdout(true)
            .stderr(true)
            .tty(false);
        let mut process = match pods.exec(self.name, hook.command.clone(), &params).await {
            Ok(process) => process,
            Err(kube::Error::Api(status)) => {
                // Who failed over it may have started it; who refused it did not.
                let is_refused = matches!(status.code, 400..=499) && status.code != 408;
                let refused = ApiError {
                    code: status.code,
                    reason: status.reason.clone(),
                    message: without_words(&status.message, &hook.command),
                    ..ApiError::default()
                };
                return match is_refused {
                    true => Unfit::for_now(refused.to_string()).into(),
                    false => Ended::Broken(refused.to_string()),
                };
            }
            Err(e) => return Ended::Broken(without_words(&e.to_string(), &hook.command)),
        };
        kept.begun.store(true, Ordering::SeqCst);
        let (out, err) = (process.stdout(), process.stderr());
        let reading = async {
            futures::join!(kept.read(out), kept.read(err));
        };
        let Some(status) = process.take_status() else {
            return Ended::Broken("the connection to it has no end".to_owned());
        };
        tokio::pin!(reading);
        tokio::pin!(status);
        let mut is_read = false;
        let status = loop {
            tokio::select! {
                status = &mut status => break status,
                () = &mut reading, if !is_read => is_read = true,
            }
        };
        if !is_read {
            let _ = tokio::time::timeout(REST, reading).await;
        }
        match status {
            Some(status) => exit_of(&status, &hook.command),
            None => Ended::Broken("the connection to the pod broke off".to_owned()),
        }
    }
}

/// Whether something can be run in this container of this pod.
fn judge(pod: &Pod, target: &Target<'_>, container: &str) -> Result<String, Unfit> {
    if pod.metadata.uid != target.uid {
        return Err(Unfit::for_good(
            "the pod is gone, and another one has its name",
        ));
    }
    if pod.metadata.deletion_timestamp.is_some() && !target.even_deleted {
        return Err(Unfit::for_good("the pod is being deleted"));
    }
    if !pod.has_container(container) {
        return Err(Unfit::for_good(format!(
            "the pod has no container {container:?}"
        )));
    }
    if pod.has_ended() {
        return Err(Unfit::for_good(format!(
            "the pod has ended ({})",
            pod.status.phase
        )));
    }
    match pod.container(container) {
        Some(status) if status.state.running.is_some() => {
            Ok(status.container_id.clone().unwrap_or_default())
        }
        _ => Err(Unfit::for_now(format!(
            "its container {container:?} does not run"
        ))),
    }
}

/// How a command ended, as the server tells it.
fn exit_of(status: &Status, command: &[String]) -> Ended {
    match exit_status(status) {
        Some(code) => Ended::Exit(code),
        None => {
            let message = status.message.as_deref().unwrap_or("no reason is told");
            let why = without_words(message, command);
            match can_not_start(message) {
                true => Unfit::for_good(why).into(),
                false => Ended::Broken(why),
            }
        }
    }
}

/// Whether a runtime says that there is no such program in the container, or none that may be run: as runc and crun say it. What else it says may come of anything.
fn can_not_start(message: &str) -> bool {
    let is_of_exec =
        message.contains("container process: exec") || message.contains("exec failed: exec");
    let reasons = [
        "no such file or directory",
        "permission denied",
        "exec format error",
        "is a directory",
    ];
    message.contains("executable file not found in $PATH")
        || (message.contains("executable file") && message.contains("not found in $PATH"))
        || message.contains("attempted to invoke a command that was not found")
        || (is_of_exec && reasons.iter().any(|reason| message.contains(reason)))
}

/// Whether this id is another container's than the one before; one that is not known says nothing.
fn is_anew(before: &str, now: &str) -> bool {
    !before.is_empty() && !now.is_empty() && now != before
}

/// A message without the command that it may quote, and not endless.
fn without_words(message: &str, command: &[String]) -> String {
    let mut text = message.to_owned();
    for word in command.iter().filter(|word| word.len() > 3) {
        text = text.replace(word.as_str(), "...");
        // As Go quotes it.
        let quoted = serde_json::Value::from(word.as_str()).to_string();
        text = text.replace(quoted.trim_matches('"'), "...");
    }
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

/// The beginning of what both streams bring, in the order in which it comes.
#[derive(Default)]
struct Kept {
    bytes: Mutex<(Vec<u8>, bool)>,
    /// Whether the server took the command.
    begun: AtomicBool,
}

impl Kept {
    /// What it is when its time is over.
    fn over(&self, after: Duration) -> Ended {
        match self.begun.load(Ordering::SeqCst) {
            true => Ended::TimedOut(after),
            false => Ended::Broken(format!(
                "the server did not say within {} s that it began",
                after.as_secs_f64()
            )),
        }
    }

    /// Reads a stream to its end; what is too much is thrown away, so that nobody waits for it to be read.
    async fn read(&self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = stream.read(&mut piece).await {
            let mut kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            let room = KEPT.saturating_sub(kept.0.len()).min(length);
            kept.0.extend_from_slice(&piece[..room]);
            kept.1 |= room < length;
        }
    }

    fn text(&self) -> (String, bool) {
        let kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept.0);
        (text.trim_end().to_owned(), kept.1)
    }
}

#[cfg(test)]
mod tests;
