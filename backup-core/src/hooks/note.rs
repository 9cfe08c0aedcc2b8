//! The note of a post hook that is owed: an object beside the backups, written before the first pre hook of a pod starts and removed when its post hooks have
//! ended. It names a pod and the digests of commands; what is run is read from the cluster.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bracket::Asked;
use super::process::Process;
use crate::error::{Error, Result};
use crate::layout::HOOKS;
use crate::location::Store;

/// A note is some hundred bytes, and more with many hooks.
pub(super) const LARGEST: u64 = 64 << 10;

/// Its format.
pub(super) const VERSION: u32 = 1;

/// What a note holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    pub(super) version: u32,
    /// The uid of kube-system, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<String>,
    /// The backup that was being made, and the run that made it.
    pub(super) backup: String,
    pub(super) run: String,
    /// Its schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) schedule: Option<String>,
    /// Nothing where names are nobody's business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<String>,
    pub(super) uid: String,
    /// Digests of the hooks that are owed.
    pub(super) hooks: Vec<String>,
    /// Who runs them.
    pub(super) process: Process,
    pub(super) noted: Timestamp,
}

/// A note's key without its end; what leads out of the folder is none.
pub(super) fn stem(run: &str, uid: &str) -> Option<String> {
    let is_plain = |text: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !text.is_empty() && text.len() <= 128 && text.bytes().all(known)
    };
    (is_plain(run) && is_plain(uid)).then(|| format!("{HOOKS}{run}.{uid}"))
}

/// Where notes of one run go.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    /// Never a vault: a note has to be read by who can open nothing.
    pub(crate) store: Store,
    pub(crate) cluster: Option<String>,
    pub(crate) backup: String,
    pub(crate) run: String,
    pub(crate) schedule: Option<String>,
    /// Whether pods may be named.
    pub(crate) names: bool,
    pub(crate) process: Process,
}

impl Notes {
    fn key(&self, pod: &Asked) -> Result<String> {
        let stem = stem(&self.run, &pod.uid);
        stem.map(|stem| format!("{stem}.json"))
            .ok_or_else(|| Error::other("the pod's uid can be no part of a key"))
    }

    /// Notes what is owed to a pod.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn put(&self, pod: &Asked) -> Result<()> {
        let named = |text: &str| self.names.then(|| text.to_owned());
        let note = Note {
            version: VERSION,
            cluster: self.cluster.clone(),
            backup: self.backup.clone(),
            run: self.run.clone(),
            schedule: self.schedule.clone().filter(|_| self.names),
            namespace: named(&pod.namespace),
            pod: named(&pod.name),
            uid: pod.uid.clone(),
            hooks: pod.hooks.post.iter().map(|hook| hook.digest()).collect(),
            process: self.process.clone(),
            noted: Timestamp::now(),
        };
        let text = serde_json::to_vec(&note)
            .map_err(|e| Error::other("a note can not be written as JSON").because(e))?;
        if text.len() as u64 > LARGEST {
            return Err(Error::other("the pod has too many hooks"));
        }
        self.store.put(&self.key(pod)?, Bytes::from(text)).await
    }

    /// Nothing is owed to it any more.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn remove(&self, pod: &Asked) -> Result<()> {
        self.store.delete(&self.key(pod)?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_note_tells_neither_names_nor_commands_where_they_are_nobodys_business() {
        let hook = crate::hooks::ask::Hook {
            origin: "annotation".into(),
            container: "c".into(),
            command: vec!["secret-command".into()],
            on_error: crate::hooks::ask::OnError::Fail,
            timeout: std::time::Duration::from_secs(1),
        };
        let pod = Asked {
            namespace: "secret-namespace".into(),
            name: "secret-pod".into(),
            uid: "u-1".into(),
            hooks: crate::hooks::ask::PodHooks {
                post: vec![hook],
                ..Default::default()
            },
        };
        for names in [false, true] {
            let notes = Notes {
                store: Store::in_memory(),
                cluster: Some("k".into()),
                backup: "b".into(),
                run: "r".into(),
                schedule: Some("secret-schedule".into()),
                names,
                process: Process::default(),
            };
            notes.put(&pod).await.unwrap();
            let key = format!("{HOOKS}r.u-1.json");
            let text = notes.store.get(&key, LARGEST).await.unwrap();
            let text = String::from_utf8(text.to_vec()).unwrap();
            assert!(!text.contains("secret-command"), "{text}");
            assert_eq!(text.contains("secret-"), names, "{text}");
            notes.remove(&pod).await.unwrap();
            assert!(notes.store.find(&key, LARGEST).await.unwrap().is_none());
        }
    }

    #[test]
    fn keys_of_notes_stay_in_their_folder() {
        assert_eq!(
            stem("a1", "b-2").as_deref(),
            Some("plugins/kubectl-backup/hooks/a1.b-2")
        );
        for odd in ["", "..", "a/b", "a.b", "ä", &"x".repeat(129)] {
            assert_eq!(stem(odd, "u"), None, "{odd}");
            assert_eq!(stem("r", odd), None, "{odd}");
        }
    }
}
