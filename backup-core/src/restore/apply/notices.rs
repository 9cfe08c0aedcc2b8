//! What objects of a backup ask a restore for, and this one does not do: told once a kind of thing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Job, Shaped};
use crate::error::Result;
use crate::raw::RawObject;

const HOOKS: &str =
    "hooks that a pod wants run when it is restored (hook.restore.velero.io) are not run";

/// What was seen: each thing with the first object and their number.
#[derive(Debug, Default)]
pub(in super::super) struct Notices(Mutex<BTreeMap<&'static str, (String, u64)>>);

impl Notices {
    /// Looks at an object's annotations.
    pub(super) fn look(&self, job: &Job, shaped: &Shaped<'_>) -> Result<()> {
        let metadata = shaped.object.get("metadata").unwrap_or("{}");
        if !metadata.contains("hook.restore.velero.io/") {
            return Ok(());
        }
        let annotations: Option<BTreeMap<String, String>> =
            RawObject::parse(metadata)?.read("annotations")?;
        for key in annotations.iter().flatten().map(|(key, _)| key) {
            let hook = key.split_once('/').is_some_and(|(prefix, _)| {
                prefix == "hook.restore.velero.io" || prefix.ends_with(".hook.restore.velero.io")
            });
            if hook && job.resource.name == "pods" {
                self.note(HOOKS, job);
            }
        }
        Ok(())
    }

    fn note(&self, what: &'static str, job: &Job) {
        let name = match &job.namespace {
            Some(namespace) => format!("{} {namespace}/{}", job.resource.name, job.name),
            None => format!("{} {}", job.resource.name, job.name),
        };
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, count) = seen.entry(what).or_insert_with(|| (name.clone(), 0));
        // An object has several such annotations, and may be tried several times.
        if *count == 0 || *first != name {
            *count += 1;
        }
    }

    /// A sentence for each thing.
    pub(in super::super) fn sentences(&self) -> Vec<String> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .map(|(what, (first, count))| match count {
                0 | 1 => format!("{what}: {first}"),
                _ => format!("{what}: {first} and others"),
            })
            .collect()
    }
}
