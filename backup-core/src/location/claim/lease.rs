//! What keeps a claim: its object, its refresher, and the fence that every write of its run passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::super::backend::Failure;
use super::super::store::{Entry, Patience, Store, is_absent, repeat};
use super::Purpose;
use crate::error::{Error, Kind, Result};
use crate::stopwatch::{awake_or_asleep, since};

/// How a claim is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// It is written anew so often.
    refresh: Duration,
    /// Its run writes nothing more once the last refresh is older.
    pub(super) lost: Duration,
}

/// As a rule.
pub(super) const USUAL: Pace = Pace {
    refresh: Duration::from_secs(30),
    lost: LOST,
};

/// A run writes nothing more once its last refresh is older, as a rule.
pub(super) const LOST: Duration = Duration::from_secs(600);

/// Where the run's owner tries again.
pub(super) const SOON: Pace = Pace {
    refresh: Duration::from_secs(10),
    lost: Duration::from_secs(30),
};

/// A store that gave no answer is waited for so long once more.
const UNANSWERED: Duration = Duration::from_secs(3);

/// An upload in parts that a claim names, so that another run can abort it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadId {
    /// The object's key.
    pub key: String,
    /// The store's id.
    pub id: String,
}

/// What a claim's object holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClaimFile {
    pub run: String,
    pub purpose: Purpose,
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub started: Option<Timestamp>,
    #[serde(default)]
    pub uploads: Vec<UploadId>,
}

impl ClaimFile {
    /// What a run's claim holds when it is written first.
    pub(super) fn new(run: String, purpose: Purpose, host: &str) -> Self {
        Self {
            run,
            purpose,
            host: host.chars().take(200).collect(),
            started: Some(Timestamp::now()),
            uploads: Vec::new(),
        }
    }
}

/// Why nothing can be claimed where a listing does not show what was written before it.
pub(super) fn unlisted(store: &Store) -> Error {
    Error::other(format!(
        "{} does not list what was just written to it",
        store.place()
    ))
    .hint("backups need a store that lists an object as soon as its PUT is answered")
}

/// Takes a claim back that did not hold, whatever the reason: it would hinder others for an hour. Nothing else was sent under it. A store that did not answer
/// before is not waited for as long as one that did; what can not be removed then is stale in an hour, and so is a claim that arrives after its removal.
pub(super) async fn withdraw(store: &Store, key: &str, why: Error) -> Error {
    let deleting = store.delete(key);
    let is_gone = match why.kind() {
        Kind::Unreachable => tokio::time::timeout(UNANSWERED, deleting).await,
        _ => Ok(deleting.await),
    };
    if !matches!(is_gone, Ok(Ok(()))) {
        store.leave(key);
    }
    why
}

/// What a claim, its refresher and its uploads share.
pub(crate) struct Lease {
    pub(super) store: Store,
    /// The folder that is claimed, with its slash.
    pub(super) folder: String,
    pub(super) key: String,
    pub(super) file: Mutex<ClaimFile>,
    /// Keys this run wrote or began to write.
    pub(super) written: std::sync::Mutex<BTreeSet<String>>,
    /// Those that were answered for, with their bytes: what a backup may not lack when its marker is written.
    pub(super) finished: std::sync::Mutex<BTreeMap<String, u64>>,
    /// [`awake_or_asleep`] in milliseconds, from before the last refresh that was answered.
    pub(super) refreshed: AtomicU64,
    pub(super) lost: AtomicBool,
    /// How many things were sent that may still be done later.
    pub(super) in_doubt: AtomicU64,
    pub(super) marker_sent: AtomicBool,
    pub(super) pace: Pace,
}

/// Counts what was begun as in doubt until it is known how it ended; a dropped future never says.
fn settle<T>(lease: &Lease, result: Result<T, Failure>) -> Result<T> {
    if result
        .as_ref()
        .err()
        .is_none_or(|failure| !failure.in_doubt)
    {
        lease.in_doubt.fetch_sub(1, Ordering::SeqCst);
    }
    result.map_err(|failure| failure.error)
}

impl Lease {
    /// That of a claim which was written from `began` on, by [`awake_or_asleep`], and stands.
    pub(super) fn new(
        store: &Store,
        folder: String,
        key: String,
        file: ClaimFile,
        began: Duration,
        pace: Pace,
    ) -> Self {
        Self {
            store: store.clone(),
            folder,
            key,
            file: Mutex::new(file),
            written: std::sync::Mutex::default(),
            finished: std::sync::Mutex::default(),
            refreshed: AtomicU64::new(began.as_millis() as u64),
            lost: AtomicBool::new(false),
            in_doubt: AtomicU64::new(0),
            marker_sent: AtomicBool::new(false),
            pace,
        }
    }

    /// Errors once the claim is not ours for certain.
    pub(crate) fn alive(&self) -> Result<()> {
        let since = since(Duration::from_millis(self.refreshed.load(Ordering::SeqCst)));
        if since > self.pace.lost {
            self.lost.store(true, Ordering::SeqCst);
        }
        if self.lost.load(Ordering::SeqCst) {
            return Err(Error::other(format!(
                "the claim on {} was lost: it could not be refreshed for {} s, or somebody removed it",
                self.folder,
                since.as_secs()
            ))
            .hint("the machine slept or the location was unreachable; nothing more is written; run the command again"));
        }
        Ok(())
    }

    pub(super) fn body(file: &ClaimFile) -> Bytes {
        serde_json::to_vec(file)
            .expect("a claim is always JSON")
            .into()
    }

    /// Writes the claim anew. The lock keeps two of them from overtaking each other. A claim that somebody removed is not brought back: a machine that
    /// was stopped for hours does not know by its own clock that others took it for dead.
    async fn refresh(&self, file: &ClaimFile) -> Result<()> {
        self.alive()?;
        if let Err(e) = self.store.head(&self.key).await {
            if is_absent(&e) {
                self.lost.store(true, Ordering::SeqCst);
                return self.alive();
            }
            return Err(e);
        }
        let began = awake_or_asleep();
        let fence = || self.alive();
        self.store
            .put_fenced(
                &self.key,
                Self::body(file),
                false,
                Patience::Quick,
                Some(&fence),
            )
            .await
            .map_err(|failure| failure.error)?;
        self.refreshed
            .store(began.as_millis() as u64, Ordering::SeqCst);
        Ok(())
    }

    /// Names an upload in the claim, which is durable when this returns.
    pub(crate) async fn add_upload(&self, key: &str, id: &str) -> Result<()> {
        self.remember(key);
        let mut file = self.file.lock().await;
        file.uploads.push(UploadId {
            key: key.to_owned(),
            id: id.to_owned(),
        });
        self.refresh(&file).await
    }

    fn remember(&self, key: &str) {
        self.written
            .lock()
            .expect("nobody panics while holding it")
            .insert(key.to_owned());
    }

    /// Writes a file of the backup.
    pub(crate) async fn write(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.alive()?;
        self.remember(key);
        let size = bytes.len() as u64;
        let fence = || self.alive();
        self.in_doubt.fetch_add(1, Ordering::SeqCst);
        let sent = self
            .store
            .put_fenced(key, bytes, false, Patience::Long, Some(&fence))
            .await;
        settle(self, sent)?;
        self.finish(key, size);
        Ok(())
    }

    fn finish(&self, key: &str, size: u64) {
        self.finished
            .lock()
            .expect("nobody panics while holding it")
            .insert(key.to_owned(), size);
    }

    /// A file that was answered for and that the folder lacks, or has with another size.
    pub(super) fn missing(&self, files: &[Entry]) -> Option<String> {
        let finished = self
            .finished
            .lock()
            .expect("nobody panics while holding it");
        finished
            .iter()
            .find(|(key, size)| {
                !files
                    .iter()
                    .any(|file| file.key == **key && file.size == **size)
            })
            .map(|(key, _)| key.clone())
    }

    /// Makes an upload visible; from then on the claim does not name it.
    pub(crate) async fn complete<F>(
        &self,
        key: &str,
        id: &str,
        size: u64,
        complete: impl FnOnce() -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        self.alive()?;
        self.in_doubt.fetch_add(1, Ordering::SeqCst);
        let sent = complete().await;
        settle(self, sent)?;
        self.finish(key, size);
        let mut file = self.file.lock().await;
        file.uploads
            .retain(|upload| upload.key != key || upload.id != id);
        Ok(())
    }

    pub(super) async fn remove(&self, key: &str) -> Result<()> {
        self.alive()?;
        let fence = || self.alive();
        self.in_doubt.fetch_add(1, Ordering::SeqCst);
        let sent = self.store.delete_fenced(key, Some(&fence)).await;
        settle(self, sent)
    }
}

/// Aborts an upload that some claim names; the claim may be anybody's, so its keys are checked as every key is.
pub(crate) async fn abort(store: &Store, upload: &UploadId) -> Result<()> {
    store.writable()?;
    let full = store.full(&upload.key)?;
    repeat(Patience::Quick, None, || {
        store.backend.abort(&full, &upload.id)
    })
    .await
    .map_err(|failure| failure.error)
}

pub(super) async fn keep_fresh(lease: Arc<Lease>, mut stop: watch::Receiver<bool>) {
    let refresh = lease.pace.refresh;
    let mut pause = refresh;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
        // Held while it is sent, so that an upload's id that comes meanwhile is not written over.
        let file = lease.file.lock().await;
        let refreshed = lease.refresh(&file).await;
        drop(file);
        if lease.alive().is_err() {
            return;
        }
        pause = if refreshed.is_ok() {
            refresh
        } else {
            refresh / 3
        };
    }
}
