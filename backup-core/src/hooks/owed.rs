//! Post hooks that dead runs owe to pods: found by their notes, and run. docs/hooks.md says when a run is dead, and why two that find a note do not both go on.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize as _;
use serde_json::Value;

use super::ask::{self, Hook, SpecHooks};
use super::bracket::{describe, line};
use super::exec::Target;
use super::note::{LARGEST, Note, VERSION, stem};
use super::process::Process;
use super::{Pod, When, rights};
use crate::api::BackupSpec;
use crate::catalog::store_time;
use crate::cluster::{Cluster, page};
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::layout::{BackupKeys, HOOKS};
use crate::location::Location;
use crate::location::claim::{dead_from, may_write};
use crate::location::store::{Entry, Store, is_absent};
use crate::name::Name;

/// The annotation that a controller of this program gives the Backup that it makes: with the attempt. What is copied from a bucket loses it.
pub const RUN: &str = "kubectl-backup/run";

/// Notes that are looked at; a bucket may hold any number.
const MOST: usize = 10_000;

/// A taker that did not end by then is dead.
const TAKEN: SignedDuration = SignedDuration::from_mins(15);

/// How often one that met another tries again.
const TRIES: u32 = 3;

/// A pod, or an object with a spec, is not larger than etcd takes.
const LARGEST_OBJECT: usize = 4 << 20;

/// Pods of a page, where one is looked for by its uid.
const PODS: usize = 500;

/// Who looks.
#[derive(Clone, Copy, Debug)]
pub struct Settling<'a> {
    /// The cluster whose pods are meant.
    pub cluster: &'a Cluster,
    /// The location with the notes.
    pub location: &'a Location,
    /// The uid of its kube-system, where it is known.
    pub identity: Option<&'a str>,
    /// Where Schedules are believed to say what is run.
    pub namespaces: &'a [String],
    /// Where a controller of this program makes Backups: those that it made are believed, too. Never Velero's, whose sync copies any word of a bucket.
    pub served: &'a [String],
    /// Who it is.
    pub me: &'a Process,
}

/// What became of what is owed to one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Whether somebody has to do something.
    pub is_trouble: bool,
    /// A sentence.
    pub text: String,
}

fn good(text: String) -> Settled {
    Settled {
        is_trouble: false,
        text,
    }
}

fn trouble(text: String) -> Settled {
    Settled {
        is_trouble: true,
        text,
    }
}

/// Runs the post hooks that dead runs owe to pods of this cluster; those of runs that may live are told and left alone.
///
/// # Errors
/// The store's. A location where nobody may list notes has none.
pub async fn settle(settling: &Settling<'_>) -> Result<Vec<Settled>> {
    let store = settling.location.store.outside();
    let found = match store.entries(HOOKS, MOST).await {
        Ok(found) => found,
        Err(e) if e.kind() == Kind::Forbidden => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let notes: Vec<Entry> = found
        .into_iter()
        .filter(|entry| entry.key.ends_with(".json"))
        .collect();
    let mut told = Vec::new();
    let (mut of_here, mut unread) = (Vec::new(), 0);
    for entry in notes {
        let read = match store.find(&entry.key, LARGEST).await {
            Ok(Some(bytes)) => read(&entry, &bytes),
            Ok(None) => continue,
            Err(e) if e.kind() == Kind::Corrupt => None,
            Err(e) => return Err(e),
        };
        match read {
            Some(note) if settling.is_of_here(&note) => of_here.push((entry.key, note)),
            Some(_) => {}
            None => unread += 1,
        }
    }
    let (mut dead, mut at_work) = (Vec::new(), BTreeSet::new());
    if !of_here.is_empty() {
        let now = settling.time(&store).await?;
        for (key, note) in of_here {
            match settling.life(&note, now).await? {
                Life::Dead => dead.push((key, note)),
                Life::Perhaps(until) => {
                    told.push(trouble(format!(
                        "{} is owed its post hook by {}, which may still be at work; if it gives no more sign of life, the next command after {until:.0} runs the hook",
                        title(&note),
                        who(&note)
                    )));
                    at_work.insert(note.uid);
                }
            }
        }
    }
    for (key, note) in dead {
        // What another run has made quiet is not to be woken by this.
        if at_work.contains(&note.uid) {
            continue;
        }
        match settling.one(&store, &key, &note).await {
            Ok(word) => told.extend(word),
            // One pod that is out of reach keeps no other from being thawed.
            Err(e) if e.kind() != Kind::Unauthorized => told.push(trouble(format!(
                "{} is owed its post hook, which could not be run: {}",
                title(&note),
                e.sentence()
            ))),
            Err(e) => return Err(e),
        }
    }
    if unread > 0 {
        told.push(trouble(format!(
            "{unread} files in {HOOKS} can not be read as notes of post hooks"
        )));
    }
    Ok(told)
}

/// Reads a note; what is none, or is not what its key says, is nothing.
fn read(entry: &Entry, bytes: &[u8]) -> Option<Note> {
    let note: Note = serde_json::from_slice(bytes).ok()?;
    let key = format!("{}.json", stem(&note.run, &note.uid)?);
    (note.version == VERSION && key == entry.key && note.hooks.len() <= 1000).then_some(note)
}

/// A word of a note, of which a bucket can not make more than a word.
fn plain(text: &str) -> String {
    let shown = text.chars().filter(char::is_ascii_graphic).take(253);
    shown.collect()
}

fn title(note: &Note) -> String {
    match (&note.namespace, &note.pod) {
        (Some(namespace), Some(pod)) => format!("pod {}/{}", plain(namespace), plain(pod)),
        _ => format!("the pod with uid {}", plain(&note.uid)),
    }
}

fn who(note: &Note) -> String {
    format!(
        "the run that made backup {} on {}",
        plain(&note.backup),
        match note.process.host.as_str() {
            "" => "an unknown host".to_owned(),
            host => plain(host),
        }
    )
}

/// Whether a run is dead.
enum Life {
    Dead,
    /// It may live, and when it will be taken for dead.
    Perhaps(Timestamp),
}

impl Settling<'_> {
    /// The store's time, where it may be asked for it.
    async fn time(&self, store: &Store) -> Result<Timestamp> {
        match store_time(store).await {
            Ok(now) => Ok(now),
            Err(e) if e.kind() == Kind::Forbidden || self.location.is_read_only() => {
                Ok(Timestamp::now())
            }
            Err(e) => Err(e),
        }
    }

    fn is_of_here(&self, note: &Note) -> bool {
        match (&note.cluster, self.identity) {
            (Some(its), Some(own)) => its == own,
            // Whose pod it is, its uid tells.
            _ => true,
        }
    }

    async fn one(&self, store: &Store, key: &str, note: &Note) -> Result<Vec<Settled>> {
        if self.location.is_read_only() {
            return Ok(vec![trouble(format!(
                "{} is owed its post hook by {}, which is dead; in a read-only location nobody can say that he runs it",
                title(note),
                who(note)
            ))]);
        }
        let Some(taken) = take(store, key).await? else {
            return Ok(vec![good(format!(
                "{} is owed its post hook, which another command is about to run",
                title(note)
            ))]);
        };
        let run = async {
            // Who held it before may have done it.
            match store.head(key).await {
                Ok(_) => self.run(store, key, note).await,
                Err(e) if is_absent(&e) => Ok(Vec::new()),
                Err(e) => Err(e),
            }
        };
        let run = run.await;
        // One that stays is passed over in a while.
        let _ = store.delete(&taken).await;
        run
    }

    async fn life(&self, note: &Note, now: Timestamp) -> Result<Life> {
        if self.me.sees_dead(&note.process) {
            return Ok(Life::Dead);
        }
        if let Some((namespace, pod)) = note.process.pod.as_deref().and_then(|p| p.split_once('/'))
        {
            let is_known = |text: &str| plain(text) == text && !text.contains('/');
            let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
            // Only where controllers are: a note may name any.
            if self.namespaces.iter().any(|known| known == namespace)
                && is_known(pod)
                && let Err(e) = self.cluster.get_bounded(&path, LARGEST_OBJECT).await
                && e.is_not_found()
            {
                return Ok(Life::Dead);
            }
        }
        let Ok(name) = Name::foreign(&note.backup) else {
            return Ok(Life::Dead);
        };
        let store = &self.location.store;
        let claim = BackupKeys::new(&name).claim(&note.run);
        // The same backup, encrypted or not.
        for place in [store.outside(), store.vault(None)] {
            match place.head(&claim).await {
                Ok(claim) if may_write(&claim, now) => {
                    return Ok(Life::Perhaps(dead_from(&claim)));
                }
                Ok(_) => {}
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Life::Dead)
    }

    /// Runs what is owed, by whoever has taken the note.
    async fn run(&self, store: &Store, key: &str, note: &Note) -> Result<Vec<Settled>> {
        let pod = self.find(note).await?.filter(|pod| !pod.has_ended());
        let Some(pod) = pod else {
            store.delete(key).await?;
            return Ok(vec![good(format!(
                "{} was owed its post hook by {}, and is gone: nothing is to be run",
                title(note),
                who(note)
            ))]);
        };
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        let hooks = self.hooks(note, &pod).await?;
        let mut told = Vec::new();
        let known: BTreeSet<_> = hooks.iter().map(Hook::digest).collect();
        if note.hooks.iter().any(|digest| !known.contains(digest)) {
            told.push(trouble(format!(
                "pod {namespace}/{name} is owed a post hook by {}, and neither its annotations nor a Schedule or Backup has that command any more: see what it needs, and run it by hand",
                who(note)
            )));
        }
        let lacking = rights::missing(self.cluster, [namespace.clone()].into()).await;
        if let (Some(why), false) = (lacking.get(namespace), hooks.is_empty()) {
            return Ok(vec![trouble(format!(
                "pod {namespace}/{name} is owed its post hook by {}, which is dead, and {why}: a user who may has to give a command on this location",
                who(note)
            ))]);
        }
        let target = Target {
            cluster: self.cluster,
            namespace,
            name,
            uid: &note.uid,
            even_deleted: true,
        };
        let mut is_settled = true;
        for hook in &hooks {
            let ran = target.run(hook, std::future::pending()).await;
            is_settled &= ran.is_settled();
            let what = describe(namespace, name, When::Post, hook);
            let text = format!(
                "{}, owed by {}",
                line(&what, &ran.without_output()),
                who(note)
            );
            told.push(match ran.failure() {
                None => good(text),
                Some(_) => trouble(text),
            });
        }
        if is_settled {
            store.delete(key).await?;
        }
        Ok(told)
    }

    /// The pod, where it is still there.
    async fn find(&self, note: &Note) -> Result<Option<Pod>> {
        let is_it = |pod: &Pod| pod.metadata.uid == note.uid;
        if let (Some(namespace), Some(name)) = (&note.namespace, &note.pod) {
            let segment = |text: &str| {
                let known =
                    |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
                !text.is_empty() && text.bytes().all(known) && !text.contains("..")
            };
            if !segment(namespace) || !segment(name) {
                return Err(Error::corrupt("its note names no pod"));
            }
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
            return match self.cluster.get_bounded(&path, LARGEST_OBJECT).await {
                Ok(body) => Ok(Pod::read(&body).filter(is_it)),
                Err(e) if e.is_not_found() => Ok(None),
                Err(e) => Err(e.into()),
            };
        }
        let mut token = String::new();
        loop {
            let path = page("/api/v1/pods", PODS, &token);
            let body = self.cluster.get(&path).await.map_err(|e| {
                Error::from(e).context("pods can not be listed, and its note has no name")
            })?;
            #[derive(serde::Deserialize)]
            struct List {
                #[serde(default)]
                metadata: ListMeta,
                items: Option<Vec<Pod>>,
            }
            #[derive(Default, serde::Deserialize)]
            #[serde(default)]
            struct ListMeta {
                #[serde(rename = "continue")]
                token: String,
            }
            let list: List = serde_json::from_slice(&body)
                .map_err(|e| Error::other("the server's answer is no list of pods").because(e))?;
            if let Some(pod) = list.items.into_iter().flatten().find(is_it) {
                return Ok(Some(pod));
            }
            if list.metadata.token.is_empty() || list.metadata.token == token {
                return Ok(None);
            }
            token = list.metadata.token;
        }
    }

    /// What is owed to it, as the cluster says it now.
    async fn hooks(&self, note: &Note, pod: &Pod) -> Result<Vec<Hook>> {
        let mut specs = vec![SpecHooks::default()];
        let backup = Some(note.backup.as_str());
        let places = [
            ("backups", self.served, backup, "/spec"),
            (
                "schedules",
                self.namespaces,
                note.schedule.as_deref(),
                "/spec/template",
            ),
        ];
        for (plural, namespaces, name, pointer) in places {
            let Some(name) = name.filter(|name| Name::foreign(name).is_ok()) else {
                continue;
            };
            for namespace in namespaces {
                let path = format!("/apis/velero.io/v1/namespaces/{namespace}/{plural}/{name}");
                let Ok(body) = self.cluster.get_bounded(&path, LARGEST_OBJECT).await else {
                    continue;
                };
                let object: Value = serde_json::from_slice(&body).unwrap_or_default();
                // A Backup without it may be a bucket's.
                let is_made = object["metadata"]["annotations"][RUN].is_string();
                if plural == "schedules" || is_made {
                    specs.extend(asked(object.pointer(pointer), pod));
                }
            }
        }
        Ok(owed(pod, &specs, &note.hooks))
    }
}

/// What the spec of a backup asks of a pod that it takes. Of another one it never asked anything.
fn asked(spec: Option<&Value>, pod: &Pod) -> Option<SpecHooks> {
    let spec = spec?;
    let filter = Filter::of(&BackupSpec::deserialize(spec).ok()?);
    filter.validate().ok()?;
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let is_taken = filter.namespace(&pod.metadata.namespace) && filter.labels(&labels);
    is_taken.then(|| SpecHooks::read(&spec["hooks"]).ok())?
}

/// Of all that these ask of a pod, what is owed to it, each once and in its order.
fn owed(pod: &Pod, specs: &[SpecHooks], digests: &[String]) -> Vec<Hook> {
    let pods = super::pods();
    let all = specs
        .iter()
        .flat_map(|spec| ask::of_backup(pod, spec, &pods).post);
    let mut hooks: Vec<Hook> = Vec::new();
    for hook in all {
        let digest = hook.digest();
        if digests.contains(&digest) && !hooks.iter().any(|known| known.digest() == digest) {
            hooks.push(hook);
        }
    }
    hooks
}

/// Says that this one runs the hooks of a note; nothing where another one says so, too. It needs list-after-write only.
async fn take(store: &Store, note: &str) -> Result<Option<String>> {
    let stem = note.strip_suffix(".json").unwrap_or(note);
    let prefix = format!("{stem}.taken-");
    let mut tries = 0;
    loop {
        let own = format!("{prefix}{}", uuid::Uuid::new_v4().simple());
        store.put(&own, "taken\n".into()).await?;
        let found = store.entries(HOOKS, 2 * MOST).await;
        let found = match found {
            Ok(found) => found,
            Err(e) => {
                let _ = store.delete(&own).await;
                return Err(e);
            }
        };
        let mine = found.iter().find(|entry| entry.key == own);
        let is_alone = mine.is_some_and(|mine| {
            let others = found
                .iter()
                .filter(|e| e.key.starts_with(&prefix) && e.key != own);
            let is_old = |other: &Entry| mine.modified.duration_since(other.modified) > TAKEN;
            others.into_iter().all(is_old)
        });
        if is_alone {
            // What dead takers left.
            for other in found
                .iter()
                .filter(|e| e.key.starts_with(&prefix) && e.key != own)
            {
                let _ = store.delete(&other.key).await;
            }
            return Ok(Some(own));
        }
        store.delete(&own).await?;
        tries += 1;
        if tries >= TRIES {
            return Ok(None);
        }
        // Not both at the same pace.
        let random = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
        tokio::time::sleep(Duration::from_millis(200 + random * 8)).await;
    }
}

#[cfg(test)]
mod tests;
