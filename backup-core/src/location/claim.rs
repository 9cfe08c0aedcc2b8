//! The right of one run to write, or to delete, one backup's folder. The protocol is the crate's promise that two runs never mix
//! their files: see [`Claim::take`]. It needs list-after-write only: a listing shows every object whose PUT was answered before the listing
//! was asked for and that nobody removed.
//!
//! # Why two creates never both go on
//!
//! A run goes on only when a listing that it asked for after its claim's PUT was answered shows its own claim and nothing else. Take two
//! runs A and B of one name, and let A's claim have been answered first. B lists after its own claim was answered, hence after A's was.
//! So B's listing shows A's claim, unless A removed it before. A removes its claim in three cases:
//!
//! 1. It withdrew at once: then A did not go on.
//! 2. It went on, gave up, and removed its files first and its claim last: then A is over, nothing of it is under way, and B may go on.
//!    Where A does not know whether something it sent is still under way, it leaves the claim.
//! 3. It finished. Before its marker it listed once more ([`Claim::confirm`]) and saw no claim of B. So B's claim was answered after that
//!    listing began, and every file of A but SHA256SUMS and the marker was answered before: B's listing, asked for later still, shows them, and B
//!    withdraws. It does not matter that a listing is no snapshot: each of these files stood through all of it.
//!
//! Both may withdraw, when each sees the other; both going on would need each to have listed before the other's claim was answered and
//! after its own, which can not be. Three runs or more: any two of them.
//!
//! A run that sleeps is fenced by time: its claim is refreshed every 30 s, and once the last refresh is over 10 minutes old, by a clock that goes on in
//! a sleeping machine, it sends no attempt any more. A claim is stale, and only then touched by `prune`, when it is over an hour
//! old by the store's clock.
//!
//! # Deletions that are tried again
//!
//! A controller that was told to delete a backup tries until nothing of it is left, and need not wait an hour for its own dead attempt. Such a deletion has
//! an owner, whose id its claims bear; they are refreshed every 10 s, its fence falls 30 s after the last refresh, and another attempt of the same owner takes its claim for dead when
//! it was not refreshed for a minute and a half by the store's clock: a minute is left for what is under way. For all others it is a claim like any other.

mod folder;
mod lease;
mod left;
mod shared;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::store::{Created, Entry, Store, Upload};
use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::name::Name;
use crate::stopwatch::awake_or_asleep;
use folder::obstacle;
use lease::{SOON, USUAL, keep_fresh};

pub use folder::STALE;
pub(crate) use folder::{Folder, dead_from, describe, has_marker, is_stale, may_write, read_claim};
pub(crate) use lease::{ClaimFile, Lease, UploadId, abort};
pub(super) use left::Left;
pub(crate) use shared::{MOST_SKEW, SharedClaim};

/// How often [`Claim::confirm`] looks again for a run that only has to notice us.
const LOOKS: u32 = if cfg!(test) { 1 } else { 15 };
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

/// How often a marker's PUT that nobody answered is settled by reading and sent again.
const MARKER_TRIES: u32 = 12;

/// What a run does in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Writes a new backup.
    Create,
    /// Deletes one.
    Delete,
    /// Removes what is expired or stale.
    Prune,
    /// Begins the repository of a volume.
    Begin,
}

/// A claim that is held and kept fresh by a task of its own.
pub struct Claim {
    name: Name,
    keys: BackupKeys,
    purpose: Purpose,
    lease: Arc<Lease>,
    /// Whether the store refuses to create what exists.
    refuses: bool,
    /// What was there when it was taken.
    found: Folder,
    /// Claims of dead attempts of the same owner.
    abandoned: Vec<Entry>,
    stop: watch::Sender<bool>,
    refresher: Option<JoinHandle<()>>,
    /// Once it says so no other run is waited for.
    stopped: Option<watch::Receiver<bool>>,
}

impl Claim {
    /// Takes the folder of `name`: puts the claim (twice, create-only: the probe of whether the store refuses a second create), lists, and
    /// withdraws when anything else is there. A delete and a prune expect files; a prune expects dead runs' claims as well.
    ///
    /// # Errors
    /// `AlreadyExists`, saying whether a marker, a live claim or a stale claim holds the name.
    pub async fn take(store: &Store, name: &Name, purpose: Purpose, host: &str) -> Result<Self> {
        Self::take_as(store, name, purpose, host, None).await
    }

    /// The same for a deletion that is tried again: dead attempts of the same owner (letters and digits) are no obstacle.
    ///
    /// # Errors
    /// As [`Claim::take`].
    pub(crate) async fn take_again(
        store: &Store,
        name: &Name,
        host: &str,
        owner: &str,
    ) -> Result<Self> {
        Self::take_as(store, name, Purpose::Delete, host, Some(owner)).await
    }

    async fn take_as(
        store: &Store,
        name: &Name,
        purpose: Purpose,
        host: &str,
        owner: Option<&str>,
    ) -> Result<Self> {
        let keys = BackupKeys::new(name);
        let random = uuid::Uuid::new_v4().simple();
        let run = owner.map_or_else(|| random.to_string(), |owner| format!("{owner}-{random}"));
        let key = keys.claim(&run);
        let file = ClaimFile::new(run, purpose, host);
        let began = awake_or_asleep();
        let taken = async {
            let refuses = store.probe_create(&key, Lease::body(&file)).await?;
            let mut found = Folder::read(store, &keys, &key).await?;
            let Some(own) = &found.own else {
                return Err(lease::unlisted(store));
            };
            let now = own.modified;
            let abandoned = owner.map_or_else(Vec::new, |owner| found.abandoned(owner, now));
            if let Some(error) = obstacle(store, name, purpose, &found, now).await? {
                return Err(error);
            }
            Ok((refuses, found, abandoned))
        };
        let (refuses, found, abandoned) = match taken.await {
            Ok(taken) => taken,
            Err(e) => return Err(lease::withdraw(store, &key, e).await),
        };
        let pace = if owner.is_some() { SOON } else { USUAL };
        let lease = Arc::new(Lease::new(store, keys.folder(), key, file, began, pace));
        let (stop, stopped) = watch::channel(false);
        let refresher = tokio::spawn(keep_fresh(lease.clone(), stopped));
        Ok(Self {
            name: name.clone(),
            keys,
            purpose,
            lease,
            refuses,
            found,
            abandoned,
            stop,
            refresher: Some(refresher),
            stopped: None,
        })
    }

    /// Has it wait for no other run once this says so.
    pub(crate) fn stopped_by(&mut self, stopped: Option<&watch::Receiver<bool>>) {
        self.stopped = stopped.cloned();
    }

    /// The folder's keys.
    pub fn keys(&self) -> &BackupKeys {
        &self.keys
    }

    /// The run's id.
    pub(crate) fn run(&self) -> &str {
        let file = self.lease.key.rsplit('/').next().unwrap_or_default();
        BackupKeys::claim_run(file).unwrap_or_default()
    }

    /// Says whether the run may still write, for who works beside it.
    pub(crate) fn pulse(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        let lease = Arc::clone(&self.lease);
        Box::new(move || lease.alive().is_ok())
    }

    /// What stood in the folder when it was taken.
    pub(crate) fn found(&self) -> &Folder {
        &self.found
    }

    /// Claims of dead attempts of the same owner, which are no part of what was found.
    pub(crate) fn abandoned(&self) -> &[Entry] {
        &self.abandoned
    }

    /// The store's clock when the claim was taken.
    pub(crate) fn taken_at(&self) -> Timestamp {
        self.found
            .own
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |own| own.modified)
    }

    fn owned(&self, key: &str) -> Result<()> {
        let file = key.strip_prefix(&self.keys.folder()).unwrap_or_default();
        if file.is_empty() || BackupKeys::claim_run(file).is_some() || key == self.keys.marker() {
            return Err(Error::other(format!(
                "{key} is no file of backup {}",
                self.name
            )));
        }
        Ok(())
    }

    /// Starts an upload whose id is in the claim before its first part is sent.
    ///
    /// # Errors
    /// The store's; and when the claim was lost.
    pub async fn upload(&self, key: &str) -> Result<Upload> {
        self.owned(key)?;
        self.lease.alive()?;
        Upload::new(&self.lease.store, key, Some(self.lease.clone()))
    }

    /// Writes a small file of the backup.
    ///
    /// # Errors
    /// The store's; and when the claim was lost.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.owned(key)?;
        self.lease.write(key, bytes).await
    }

    /// Removes a file of the folder, for a delete or a prune.
    ///
    /// # Errors
    /// The store's; and when the claim was lost.
    pub(crate) async fn remove(&self, key: &str) -> Result<()> {
        self.lease.remove(key).await
    }

    /// Lists again: our claim is there and no other, and it is fresh. Before SHA256SUMS, and before the marker. Another claim is a run that
    /// comes too late and is about to notice: it is given half a minute to withdraw.
    ///
    /// # Errors
    /// When it was lost; `Interrupted`, where whoever holds it is stopped while another one stands.
    pub async fn confirm(&self) -> Result<()> {
        self.confirm_beside(&[]).await
    }

    /// The same beside claims that are known to be dead runs'.
    pub(crate) async fn confirm_beside(&self, dead: &[&Entry]) -> Result<()> {
        let mut looks = 0;
        loop {
            self.lease.alive()?;
            let now = Folder::read(&self.lease.store, &self.keys, &self.lease.key).await?;
            self.lease.alive()?;
            if now.own.is_none() {
                self.lease.lost.store(true, Ordering::SeqCst);
                return Err(Error::other(format!(
                    "the claim on backup {} was removed by somebody else",
                    self.name
                ))
                .hint("another run took this one for dead; nothing more is written; run the command again"));
            }
            if now.marker.is_some() && self.purpose == Purpose::Create {
                return Err(Error::new(
                    Kind::AlreadyExists,
                    format!("backup {} was written by somebody else meanwhile", self.name),
                )
                .hint("something that knows no claims, such as a Velero server, writes to this location under the same names"));
            }
            if let Some(key) = self.lease.missing(&now.files) {
                return Err(Error::other(format!(
                    "{key} was written by this run and is not there any more, or not as it was written"
                ))
                .hint("a person, a lifecycle rule of the bucket or another run removed it; the backup is given up; run the command again"));
            }
            // A claim that was refreshed since is not dead.
            let Some(other) = now.claims.iter().find(|other| !dead.contains(other)) else {
                return Ok(());
            };
            if self
                .stopped
                .as_ref()
                .is_some_and(|stopped| *stopped.borrow())
            {
                return Err(Error::new(
                    Kind::Interrupted,
                    format!(
                        "this was stopped while another run claims backup {} as well",
                        self.name
                    ),
                ));
            }
            looks += 1;
            if looks >= LOOKS {
                let who = describe(&self.lease.store, other).await;
                return Err(Error::new(
                    Kind::AlreadyExists,
                    format!("another run claims backup {} as well ({who})", self.name),
                )
                .hint("run the command again under another name; `kubectl backup prune` removes what dead runs left"));
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Confirms, then writes the marker, create-only where the store was proven to refuse a second create; from its PUT on nothing is deleted.
    ///
    /// # Errors
    /// When it is known not to stand, or not known whether it does (the message says which).
    pub async fn put_marker(&self, marker: Bytes) -> Result<()> {
        self.confirm().await?;
        let (store, key) = (&self.lease.store, self.keys.marker());
        let full = store.full(&key)?;
        self.lease.marker_sent.store(true, Ordering::SeqCst);
        let mut in_doubt = false;
        let mut pause = Duration::from_millis(200);
        let mut tried = 0;
        loop {
            if let Err(e) = self.lease.alive() {
                return Err(self.no_marker(e, in_doubt));
            }
            let sent = store.backend.put(&full, marker.clone(), self.refuses).await;
            let failure = match sent {
                Ok(Created::Yes) => return Ok(()),
                Ok(Created::Exists) => None,
                Err(failure) => Some(failure),
            };
            in_doubt |= failure.as_ref().is_none_or(|f| f.in_doubt || f.transient);
            // Whatever was answered: what stands there tells.
            match store.find(&key, marker.len() as u64).await {
                Ok(Some(stands)) if stands == marker => return Ok(()),
                Err(e) if e.kind() != Kind::Corrupt => {
                    if tried + 1 >= MARKER_TRIES || failure.as_ref().is_some_and(|f| !f.transient) {
                        return Err(self.no_marker(failure.map_or(e, |f| f.error), in_doubt));
                    }
                }
                Ok(None) => {
                    if let Some(failure) = failure
                        && (!failure.transient || tried + 1 >= MARKER_TRIES)
                    {
                        return Err(self.no_marker(failure.error, in_doubt));
                    }
                }
                // Longer than ours, or other bytes.
                Ok(Some(_)) | Err(_) => {
                    return Err(Error::new(
                        Kind::AlreadyExists,
                        format!(
                            "backup {} was written by somebody else meanwhile; its marker is not ours",
                            self.name
                        ),
                    )
                    .hint("something that knows no claims, such as a Velero server, writes to this location under the same names"));
                }
            }
            tried += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    fn no_marker(&self, cause: Error, in_doubt: bool) -> Error {
        let name = &self.name;
        if in_doubt {
            Error::new(
                cause.kind(),
                format!("it is not known whether backup {name} stands: the store did not answer when its marker was written"),
            )
            .hint(format!("look with `kubectl backup get {name}` once the location is reachable: if it is there, it is complete"))
            .because(cause)
        } else {
            let message = format!("backup {name} does not stand: its marker could not be written");
            cause.context(message)
        }
    }

    /// After the marker: removes the claim alone.
    pub async fn release(mut self) {
        self.end_refresher().await;
        // What can not be removed now is a stale claim in an hour, and prune removes it.
        let _ = self.lease.store.delete(&self.lease.key).await;
    }

    /// Before the marker: removes our files, then the claim. Where it is not certain that the folder is still ours, that the marker was not sent, or
    /// that nothing of ours is under way, the claim stays and prune does the rest.
    pub async fn withdraw(mut self) {
        self.end_refresher().await;
        if self.lease.marker_sent.load(Ordering::SeqCst) {
            return;
        }
        let _ = self.clear().await;
    }

    async fn clear(&self) -> Result<()> {
        let lease = &self.lease;
        let store = &lease.store;
        lease.alive()?;
        let found = Folder::read(store, &self.keys, &lease.key).await?;
        if found.own.is_none() {
            return Ok(());
        }
        // Whoever wrote that marker may have written the files of Velero's names, over ours: what goes then is ours alone.
        let is_shared = |key: &String| {
            let alone = [
                self.keys.index(),
                self.keys.secrets_archive(),
                self.keys.secrets_index(),
                self.keys.secrets_key(),
                self.keys.secrets_recipients(),
                self.keys.digests(),
                self.keys.signature(),
            ];
            found.marker.is_some() && !alone.contains(key)
        };
        let in_doubt = lease.in_doubt.load(Ordering::SeqCst) > 0;
        let uploads = lease.file.lock().await.uploads.clone();
        for upload in uploads {
            abort(store, &upload).await?;
        }
        let written = lease
            .written
            .lock()
            .expect("nobody panics while holding it")
            .clone();
        for key in written.iter().filter(|key| !is_shared(key)) {
            lease.remove(key).await?;
        }
        if !in_doubt {
            // While the claim stands: afterwards what no listing shows may be the next run's.
            self.sweep().await?;
            store.delete(&lease.key).await?;
        }
        Ok(())
    }

    /// Removes what no listing shows.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let full = self.lease.store.full(&self.keys.folder())?;
        self.lease
            .store
            .backend
            .sweep(&full)
            .await
            .map_err(|failure| failure.error)
    }

    async fn end_refresher(&mut self) {
        self.stop.send_replace(true);
        if let Some(refresher) = self.refresher.take() {
            let _ = refresher.await;
        }
    }
}

impl Drop for Claim {
    /// Dropped without an end, the claim stays, and an hour later it is stale.
    fn drop(&mut self) {
        if let Some(refresher) = &self.refresher {
            refresher.abort();
        }
    }
}

#[cfg(test)]
mod tests;
