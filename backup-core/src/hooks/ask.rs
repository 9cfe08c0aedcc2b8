//! Which hooks a pod is asked to run, from its annotations and from the spec of the backup, as Velero reads both. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Pod, When};
use crate::api::BackupSpec;
use crate::discovery::ApiResource;
use crate::error::{Error, Result};
use crate::filter::{Filter, Verdict};
use crate::location::sha256;

/// What annotations of hooks have in common; a pod without it in its text has none.
const MARK: &str = "hook.backup.velero.io/";

/// How long a hook may take that does not say it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// What is longer is taken for this: no backup waits for weeks.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a failure means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnError {
    /// It is an error.
    #[default]
    Fail,
    /// It is a warning.
    Continue,
}

impl OnError {
    /// What is neither word is not said, as to Velero.
    pub(super) fn read(text: &str) -> Self {
        match text.trim() {
            "Continue" => Self::Continue,
            _ => Self::Fail,
        }
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// `annotation`, or the name of the spec's entry.
    pub(crate) origin: String,
    /// Where it runs.
    pub(crate) container: String,
    /// Program and arguments. They may hold secrets: they are told to nobody.
    pub(crate) command: Vec<String>,
    /// What a failure means.
    pub(crate) on_error: OnError,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

impl Hook {
    /// What it is known by where its command may not stand.
    pub(crate) fn digest(&self) -> String {
        let text = serde_json::json!([self.container, self.command]).to_string();
        sha256(text.as_bytes())
    }
}

/// What one pod is asked to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodHooks {
    /// Before it is read.
    pub(crate) pre: Vec<Hook>,
    /// After that.
    pub(crate) post: Vec<Hook>,
    /// Why it can run none now, where that is so.
    pub(crate) unfit: Option<String>,
}

impl PodHooks {
    /// Whether it is asked for nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.pre.is_empty() && self.post.is_empty()
    }
}

/// `spec.hooks` of a Backup, understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpecHooks {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    filter: Filter,
    pre: Vec<Exec>,
    post: Vec<Exec>,
}

/// One entry of `pre` or `post`.
#[derive(Clone, Debug, Deserialize)]
struct Listed {
    exec: Exec,
}

/// A command as a spec has it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Exec {
    container: Option<String>,
    command: Vec<String>,
    on_error: Option<String>,
    timeout: Option<String>,
}

impl SpecHooks {
    /// Reads `spec.hooks`.
    ///
    /// # Errors
    /// `Invalid`, for what can not be understood: a hook that is not run is no detail.
    pub(crate) fn read(hooks: &Value) -> Result<Self> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            name: String,
            #[serde(default)]
            pre: Option<Vec<Listed>>,
            #[serde(default)]
            post: Option<Vec<Listed>>,
        }
        let mut entries = Vec::new();
        for value in hooks["resources"].as_array().into_iter().flatten() {
            let unfit = |why: String| {
                Error::invalid(format!("spec.hooks can not be understood: {why}"))
                    .hint("each entry has a name, and lists pre and post of exec: {container, command, onError, timeout}")
            };
            let raw: Raw =
                serde_json::from_value(value.clone()).map_err(|e| unfit(e.to_string()))?;
            let spec: BackupSpec =
                serde_json::from_value(value.clone()).map_err(|e| unfit(e.to_string()))?;
            let filter = Filter::of(&spec);
            filter.validate().map_err(|e| unfit(e.sentence()))?;
            let commands = |listed: Option<Vec<Listed>>| -> Result<Vec<Exec>> {
                let all = listed.unwrap_or_default().into_iter();
                all.map(|listed| match listed.exec.command.is_empty() {
                    true => Err(unfit(format!("a hook of {:?} has no command", raw.name))),
                    false => Ok(listed.exec),
                })
                .collect()
            };
            entries.push(Entry {
                pre: commands(raw.pre)?,
                post: commands(raw.post)?,
                name: raw.name.clone(),
                filter,
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

    fn of(&self, pod: &Pod, resource: &ApiResource, when: When) -> Vec<Hook> {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let fits = |entry: &&Entry| {
            entry.filter.namespace(&pod.metadata.namespace)
                && !matches!(entry.filter.resource(resource), Verdict::Out(_))
                && entry.filter.labels(&labels)
        };
        let mut hooks = Vec::new();
        for entry in self.entries.iter().filter(fits) {
            let listed = match when {
                When::Pre => &entry.pre,
                When::Post => &entry.post,
            };
            hooks.extend(listed.iter().map(|exec| Hook {
                origin: entry.name.clone(),
                container: named(exec.container.as_deref(), pod),
                command: exec.command.clone(),
                on_error: OnError::read(exec.on_error.as_deref().unwrap_or_default()),
                timeout: timeout(exec.timeout.as_deref(), TIMEOUT),
            }));
        }
        hooks
    }
}

/// The container that is meant.
pub(super) fn named(container: Option<&str>, pod: &Pod) -> String {
    let named = container.map(str::trim).filter(|name| !name.is_empty());
    named.unwrap_or(pod.first_container()).to_owned()
}

/// A timeout as it is written; what is no duration, or none, is the usual one.
pub(super) fn timeout(text: Option<&str>, usual: Duration) -> Duration {
    let read = text.and_then(|text| go_duration(text.trim()));
    let given = read.filter(|given| !given.is_zero());
    given.map_or(usual, |given| given.min(LONGEST))
}

/// A duration of Go, that is not negative: `1h30m`, `1.5s`, `300ms`.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    if rest.is_empty() || text.len() > 64 {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// A command as an annotation has it: a JSON array, or one word.
pub(super) fn command(text: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) if text.starts_with('[') && !words.is_empty() => words,
        _ => vec![text.to_owned()],
    }
}

/// The hook that a pod's annotations of this prefix ask for.
fn annotated(annotations: &BTreeMap<String, String>, prefix: &str, pod: &Pod) -> Option<Hook> {
    let get = |key: &str| {
        let value = annotations.get(&format!("{prefix}{MARK}{key}"));
        value.map(String::as_str)
    };
    let text = get("command").filter(|text| !text.is_empty())?;
    Some(Hook {
        origin: "annotation".to_owned(),
        container: named(get("container"), pod),
        command: command(text),
        on_error: OnError::read(get("on-error").unwrap_or_default()),
        timeout: timeout(get("timeout"), TIMEOUT),
    })
}

/// Whether a pod has to be looked at at all.
pub(crate) fn may_ask(text: &str, spec: &SpecHooks) -> bool {
    !spec.entries.is_empty() || text.contains(MARK)
}

/// What a pod is asked to run around its backup. Its annotation beats the spec, before and after apart.
pub(crate) fn of_backup(pod: &Pod, spec: &SpecHooks, resource: &ApiResource) -> PodHooks {
    // Nothing is quiet, or loud, in a pod that has ended.
    if pod.has_ended() {
        return PodHooks::default();
    }
    let none = BTreeMap::new();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let pre = annotated(annotations, "pre.", pod).or_else(|| annotated(annotations, "", pod));
    let post = annotated(annotations, "post.", pod);
    let or_spec = |hook: Option<Hook>, when| match hook {
        Some(hook) => vec![hook],
        None => spec.of(pod, resource, when),
    };
    let phase = pod.status.phase.as_str();
    PodHooks {
        pre: or_spec(pre, When::Pre),
        post: or_spec(post, When::Post),
        unfit: (phase != "Running").then(|| match phase {
            "" => "it has no phase yet".to_owned(),
            phase => format!("it is {}", phase.chars().take(30).collect::<String>()),
        }),
    }
}

#[cfg(test)]
mod tests;
