//! Post hooks that dead runs owe to pods: found by their notes, and run. docs/hooks.md says when a run is dead, and why two that find a note do not both go on.

mod taken;

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

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

use taken::{show, take};

/// The annotation that a controller of this program gives the Backup that it makes: with the attempt. What is copied from a bucket loses it.
pub const RUN: &str = "kubectl-backup/run";

/// Notes that are looked at; a bucket may hold any number.
const MOST: usize = 10_000;

/// Pods whose post hooks run beside each other.
const AT_A_TIME: usize = 8;

/// A run shows itself every half minute: one that did not for longer than this may be dead.
const UNSEEN: SignedDuration = SignedDuration::from_mins(2);

/// And one that did not for so long is.
const DEAD_AFTER: SignedDuration = SignedDuration::from_mins(11);

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
    /// What stops it: no further hook is begun, and none is awaited.
    pub cancel: &'a watch::Receiver<bool>,
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

/// How many notes of post hooks a location has, of whatever cluster.
///
/// # Errors
/// The store's. A location where nobody may list notes has none.
pub async fn count(location: &Location) -> Result<usize> {
    Ok(notes(&location.store.outside()).await?.len())
}

async fn notes(store: &Store) -> Result<Vec<Entry>> {
    let mut found = match store.entries(HOOKS, MOST).await {
        Ok(found) => found,
        Err(e) if e.kind() == Kind::Forbidden => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    found.retain(|entry| entry.key.ends_with(".json"));
    Ok(found)
}

/// Whether it is the location that fails, and not one file of it.
fn is_of_all(e: &Error) -> bool {
    matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized)
}

/// Runs the post hooks that dead runs owe to pods of this cluster; those of runs that may live are told and left alone.
///
/// # Errors
/// The store's, where it is not one file that can not be read. A location where nobody may list notes has none.
pub async fn settle(settling: &Settling<'_>) -> Result<Vec<Settled>> {
    let store = settling.location.store.outside();
    let mut told = Vec::new();
    let (mut of_here, mut unread, mut refused) = (Vec::new(), 0, Vec::new());
    for entry in notes(&store).await? {
        let read = match store.find(&entry.key, LARGEST).await {
            Ok(Some(bytes)) => read(&entry, &bytes),
            Ok(None) => continue,
            Err(e) if e.kind() == Kind::Corrupt => None,
            Err(e) if is_of_all(&e) => return Err(e),
            Err(e) => {
                refused.push(e.sentence());
                continue;
            }
        };
        match read {
            Some(note) if settling.may_be_of_here(&note) => of_here.push((entry.key, note)),
            Some(_) => {}
            None => unread += 1,
        }
    }
    let (mut dead, mut at_work) = (Vec::new(), BTreeSet::new());
    if !of_here.is_empty() {
        let now = settling.time(&store).await?;
        for (key, note) in of_here {
            match settling.life(&note, now).await {
                Ok(Life::Dead) => {
                    dead.push((key, note));
                    continue;
                }
                Ok(Life::Own) => {}
                Ok(Life::Perhaps(until)) => told.push(Settled {
                    // One that shows itself ends its bracket on its own.
                    is_trouble: until.duration_since(now) < DEAD_AFTER - UNSEEN,
                    text: format!(
                        "{} is owed its post hook by {} since {:.0}, which may still be at work; if it gives no sign of life for 11 minutes, the next command runs the hook",
                        title(&note),
                        who(&note),
                        note.noted
                    ),
                }),
                Err(e) if is_of_all(&e) => return Err(e),
                Err(e) => told.push(trouble(format!(
                    "{} is owed its post hook by {}, and whether that is still at work can not be seen: {}",
                    title(&note),
                    who(&note),
                    e.sentence()
                ))),
            }
            at_work.insert(note.uid);
        }
    }
    let mut pods: BTreeMap<String, Vec<(String, Note)>> = BTreeMap::new();
    for (key, note) in dead {
        // What another run has made quiet is not to be woken by this.
        if !at_work.contains(&note.uid) {
            pods.entry(note.uid.clone()).or_default().push((key, note));
        }
    }
    let all = stream::iter(pods.into_values()).map(|notes| settling.pod(&store, notes));
    // None is left in the middle because another one failed.
    let all: Vec<_> = all.buffered(AT_A_TIME).collect().await;
    for one in all {
        told.extend(one?);
    }
    if unread > 0 {
        told.push(trouble(format!(
            "{unread} files in {HOOKS} can not be read as notes of post hooks"
        )));
    }
    if let Some(why) = refused.first() {
        told.push(trouble(format!(
            "{} notes of post hooks can not be read: {why}",
            refused.len()
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
    /// It is a bracket of this very process.
    Own,
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

    /// Whether a note may be of this cluster. Where a uid is not known, its pod's tells.
    fn may_be_of_here(&self, note: &Note) -> bool {
        self.is_of_here(note) || note.cluster.is_none() || self.identity.is_none()
    }

    /// Whether it is certain.
    fn is_of_here(&self, note: &Note) -> bool {
        self.identity.is_some() && note.cluster.as_deref() == self.identity
    }

    fn is_stopped(&self) -> bool {
        *self.cancel.borrow()
    }

    /// What is owed to one pod, by one run after the other.
    async fn pod(&self, store: &Store, notes: Vec<(String, Note)>) -> Result<Vec<Settled>> {
        let mut told = Vec::new();
        for (key, note) in notes {
            if self.is_stopped() {
                break;
            }
            match self.one(store, &key, &note).await {
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
        Ok(told)
    }

    async fn one(&self, store: &Store, key: &str, note: &Note) -> Result<Vec<Settled>> {
        if self.location.is_read_only() {
            return Ok(vec![trouble(format!(
                "{} is owed its post hook by {}, which is dead; in a read-only location nobody can say that he runs it",
                title(note),
                who(note)
            ))]);
        }
        let Some(taken) = take(store, key, self.me).await? else {
            return Ok(vec![trouble(format!(
                "{} is owed its post hook, which another command has taken upon itself: if that died, the next command after 5 minutes runs it",
                title(note)
            ))]);
        };
        let run = async {
            // Who held it before may have done it.
            match store.head(key).await {
                Ok(_) => {}
                Err(e) if is_absent(&e) => return Ok(Vec::new()),
                Err(e) => return Err(e),
            }
            if self.is_at_work(store, key, note).await? {
                return Ok(vec![good(format!(
                    "{} is owed its post hook by {}, and another backup is at work in it: it runs when that has ended",
                    title(note),
                    who(note)
                ))]);
            }
            self.run(store, key, note).await
        };
        let run = tokio::select! {
            run = run => run,
            never = show(store, &taken, self.me) => never,
        };
        // One that stays is passed over in a while.
        let _ = store.delete(&taken).await;
        run
    }

    /// Whether another run has made the same pod quiet since notes were read.
    async fn is_at_work(&self, store: &Store, key: &str, note: &Note) -> Result<bool> {
        let end = format!(".{}.json", note.uid);
        let found = notes(store).await?.into_iter();
        let others: Vec<_> = found
            .filter(|entry| entry.key != key && entry.key.ends_with(&end))
            .collect();
        if others.is_empty() {
            return Ok(false);
        }
        let now = self.time(store).await?;
        for entry in others {
            let Some(bytes) = store.find(&entry.key, LARGEST).await? else {
                continue;
            };
            if let Some(other) = read(&entry, &bytes)
                && !matches!(self.life(&other, now).await?, Life::Dead)
            {
                return Ok(true);
            }
        }
        Ok(false)
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
                Ok(claim) if may_write(&claim, now) && *self.me == note.process => {
                    return Ok(Life::Own);
                }
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
        let Some(pod) = self.find(note).await? else {
            // Of another cluster, for all that is known, where it waits to be thawed.
            if !self.is_of_here(note) {
                return Ok(vec![good(format!(
                    "{} is owed its post hook by {}, and is not in this cluster, of which or of whose uid nothing is known: its note stays ({key})",
                    title(note),
                    who(note)
                ))]);
            }
            store.delete(key).await?;
            return Ok(vec![good(format!(
                "{} was owed its post hook by {}, and is gone: nothing is to be run",
                title(note),
                who(note)
            ))]);
        };
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        if pod.has_ended() {
            store.delete(key).await?;
            return Ok(vec![good(format!(
                "pod {namespace}/{name} was owed its post hook by {}, and has ended: nothing is to be run",
                who(note)
            ))]);
        }
        let hooks = self.hooks(note, &pod).await?;
        let mut told = Vec::new();
        let known: BTreeSet<_> = hooks.iter().map(Hook::digest).collect();
        let mut unknown = note.hooks.clone();
        unknown.retain(|digest| !known.contains(digest));
        if !unknown.is_empty() {
            told.push(trouble(format!(
                "pod {namespace}/{name} is owed a post hook by {}, and neither its annotations nor a Schedule or Backup that is believed has that command any more: see what it needs, run it by hand, and remove {key} from the location",
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
            if self.is_stopped() {
                is_settled = false;
                break;
            }
            let stop = async {
                crate::backup::cancelled(self.cancel.clone()).await;
                "this command was stopped while it ran".to_owned()
            };
            let ran = target.run(hook, stop).await;
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
        if is_settled && unknown.is_empty() {
            store.delete(key).await?;
        } else if is_settled && !hooks.is_empty() {
            // What has run is not run again for what nobody knows.
            let rest = Note {
                hooks: unknown,
                ..note.clone()
            };
            let text = serde_json::to_vec(&rest)
                .map_err(|e| Error::other("a note can not be written as JSON").because(e))?;
            store.put(key, text.into()).await?;
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
                Ok(body) => match Pod::answered(&body) {
                    Some(pod) => Ok(Some(pod).filter(is_it)),
                    None => Err(Error::other("the server's answer is no pod")),
                },
                Err(e) if e.is_not_found() => Ok(None),
                Err(e) => Err(e.into()),
            };
        }
        let mut token = String::new();
        loop {
            let (pods, next) = self.listed::<Pod>("/api/v1/pods", &token).await?;
            if let Some(pod) = pods.into_iter().find(is_it) {
                return Ok(Some(pod));
            }
            match next {
                Some(next) => token = next,
                None => return Ok(None),
            }
        }
    }

    /// A page of a list, and the token of the next.
    async fn listed<T: DeserializeOwned>(
        &self,
        path: &str,
        token: &str,
    ) -> Result<(Vec<T>, Option<String>)> {
        #[derive(serde::Deserialize)]
        struct List<T> {
            metadata: ListMeta,
            items: Option<Vec<T>>,
        }
        #[derive(serde::Deserialize)]
        struct ListMeta {
            #[serde(default, rename = "continue")]
            token: String,
        }
        let body = self.cluster.get(&page(path, PODS, token)).await;
        let body = body.map_err(|e| {
            Error::from(e).context(format!(
                "{path} can not be listed, and the note has no name"
            ))
        })?;
        let list: List<T> = serde_json::from_slice(&body)
            .map_err(|e| Error::other("the server's answer is no list").because(e))?;
        let next = Some(list.metadata.token).filter(|next| !next.is_empty() && next != token);
        Ok((list.items.unwrap_or_default(), next))
    }

    /// What is owed to it, as the cluster says it now.
    ///
    /// # Errors
    /// Where it can not be asked. What it answers to be absent asks for nothing.
    async fn hooks(&self, note: &Note, pod: &Pod) -> Result<Vec<Hook>> {
        let mut specs = vec![SpecHooks::default()];
        let found = owed(pod, &specs, &note.hooks);
        let has_all = |found: &[Hook]| found.len() >= note.hooks.len();
        if has_all(&found) {
            return Ok(found);
        }
        for namespace in self.served {
            if let Some(backup) = self.object(namespace, "backups", &note.backup).await?
                // A Backup without it may be a bucket's.
                && backup["metadata"]["annotations"][RUN].is_string()
            {
                specs.extend(asked(backup.pointer("/spec"), pod));
            }
        }
        for namespace in self.namespaces {
            if let Some(name) = &note.schedule {
                let schedule = self.object(namespace, "schedules", name).await?;
                let template = schedule.as_ref().and_then(|s| s.pointer("/spec/template"));
                specs.extend(asked(template, pod));
                continue;
            }
            if has_all(&owed(pod, &specs, &note.hooks)) {
                break;
            }
            // It names none where names are nobody's business.
            let path = format!("/apis/velero.io/v1/namespaces/{namespace}/schedules");
            let mut token = String::new();
            loop {
                let (schedules, next) = match self.listed::<Value>(&path, &token).await {
                    Err(e) if e.kind() == Kind::NotFound => break,
                    listed => listed?,
                };
                let templates = schedules.iter().map(|s| s.pointer("/spec/template"));
                specs.extend(templates.filter_map(|template| asked(template, pod)));
                match next {
                    Some(next) => token = next,
                    None => break,
                }
            }
        }
        Ok(owed(pod, &specs, &note.hooks))
    }

    /// An object of Velero's kinds; nothing where there is none.
    async fn object(&self, namespace: &str, plural: &str, name: &str) -> Result<Option<Value>> {
        if Name::foreign(name).is_err() {
            return Ok(None);
        }
        let path = format!("/apis/velero.io/v1/namespaces/{namespace}/{plural}/{name}");
        match self.cluster.get_bounded(&path, LARGEST_OBJECT).await {
            Ok(body) => serde_json::from_slice(&body).map(Some).map_err(|e| {
                Error::other(format!("the server's answer to {path} is no object")).because(e)
            }),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
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

#[cfg(test)]
mod tests;
