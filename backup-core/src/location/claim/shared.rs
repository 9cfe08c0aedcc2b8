//! Claims of which several may stand at a time: on the repository of a volume, any number of backups, or one run that has to be alone. The protocol is that of
//! [`Claim`](super::Claim): write, then list. Two runs of which one has to be alone never both go on, for whichever claim was answered first is in
//! the other's listing. They may both withdraw.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::store::{Entry, Patience, Store, is_absent};
use super::folder::{describe, is_stale, read_claim};
use super::lease::{self, ClaimFile, Lease, USUAL, keep_fresh};
use super::{BETWEEN_LOOKS, LOOKS, Purpose};
use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::stopwatch::awake_or_asleep;

/// Claims in one folder; dead ones go with the next run that is alone.
const MOST_CLAIMS: usize = 10_000;

/// The clocks of a store and of this machine may differ by so much where something is removed by its age.
pub(crate) const MOST_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A claim on a folder of claims, kept fresh by a task of its own.
pub(crate) struct SharedClaim {
    folder: String,
    what: String,
    purpose: Purpose,
    patience: Patience,
    lease: Arc<Lease>,
    /// Claims that were dead when this one was taken.
    dead: Vec<Entry>,
    taken_at: Timestamp,
    in_doubt: AtomicBool,
    stop: watch::Sender<bool>,
    refresher: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// The claims of a folder, without one's own.
async fn others(store: &Store, folder: &str, own: &str) -> Result<(Option<Entry>, Vec<Entry>)> {
    let mut all = store.entries(folder, MOST_CLAIMS).await?;
    all.retain(|entry| BackupKeys::claim_run(&entry.key[folder.len()..]).is_some());
    let at = all.iter().position(|entry| entry.key == own);
    let own = at.map(|at| all.remove(at));
    Ok((own, all))
}

/// What another run is there for.
#[derive(Clone, Copy, PartialEq)]
enum Theirs {
    /// Its claim went after it was listed: it is over, or withdrew.
    Over,
    /// One that can not be read has to be taken for one that is alone.
    Unread,
    Is(Purpose),
}

impl Theirs {
    async fn of(store: &Store, claim: &Entry) -> Result<Self> {
        if let Some(file) = read_claim(store, &claim.key).await? {
            return Ok(Self::Is(file.purpose));
        }
        match store.head(&claim.key).await {
            Ok(_) => Ok(Self::Unread),
            Err(e) if is_absent(&e) => Ok(Self::Over),
            Err(e) => Err(e),
        }
    }

    /// Whether it may stand beside one of this purpose.
    fn is_beside(self, own: Purpose) -> bool {
        self == Self::Over || (own, self) == (Purpose::Create, Self::Is(Purpose::Create))
    }
}

impl SharedClaim {
    /// Takes the folder (with its slash): with [`Purpose::Create`] beside others of that purpose, else alone. `what` is for messages: `the repository of
    /// volume ...`. Claims of dead runs hinder nobody.
    ///
    /// # Errors
    /// `AlreadyExists` while another run hinders it.
    pub(crate) async fn take(
        store: &Store,
        folder: &str,
        what: &str,
        purpose: Purpose,
        host: &str,
    ) -> Result<Self> {
        let run = uuid::Uuid::new_v4().simple().to_string();
        let key = format!("{folder}claim-{run}.json");
        let file = ClaimFile::new(run, purpose, host);
        let began = awake_or_asleep();
        let taken = async {
            store.put(&key, Lease::body(&file)).await?;
            let (own, others) = others(store, folder, &key).await?;
            let Some(own) = own else {
                return Err(lease::unlisted(store));
            };
            let now = own.modified;
            let (dead, live): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|other| is_stale(other, now));
            for other in &live {
                let theirs = Theirs::of(store, other).await?;
                if !theirs.is_beside(purpose) {
                    return Err(in_the_way(store, what, other, theirs).await);
                }
            }
            Ok((now, dead))
        };
        let (taken_at, dead) = match taken.await {
            Ok(taken) => taken,
            Err(e) => return Err(lease::withdraw(store, &key, e).await),
        };
        let lease = Arc::new(Lease::new(
            store,
            folder.to_owned(),
            key,
            file,
            began,
            USUAL,
        ));
        let (stop, stopped) = watch::channel(false);
        let refresher = tokio::spawn(keep_fresh(lease.clone(), stopped));
        Ok(Self {
            folder: folder.to_owned(),
            what: what.to_owned(),
            purpose,
            patience: Patience::Long,
            lease,
            dead,
            taken_at,
            in_doubt: AtomicBool::new(false),
            stop,
            refresher: std::sync::Mutex::new(Some(refresher)),
        })
    }

    /// The same, whose writes wait so long for the store.
    pub(crate) fn with_patience(self, patience: Patience) -> Self {
        // Taken apart it would have no end.
        let mut claim = self;
        claim.patience = patience;
        claim
    }

    /// The run's id.
    pub(crate) fn run(&self) -> &str {
        let file = &self.lease.key[self.folder.len()..];
        BackupKeys::claim_run(file).unwrap_or_default()
    }

    /// The store's clock when it was taken.
    pub(crate) fn taken_at(&self) -> Timestamp {
        self.taken_at
    }

    /// Errors where this machine's clock and the store's differ by so much that ages mean nothing.
    pub(crate) fn clocks_agree(&self) -> Result<()> {
        let apart = Timestamp::now().duration_since(self.taken_at).abs();
        if apart <= MOST_SKEW {
            return Ok(());
        }
        Err(Error::other(format!(
            "the clocks of this machine and of {} differ by {} minutes",
            self.lease.store.place(),
            apart.as_mins()
        ))
        .hint("nothing was removed, for ages mean nothing then; set the clock"))
    }

    /// Errors once the claim is not ours for certain.
    pub(crate) fn alive(&self) -> Result<()> {
        self.lease.alive()
    }

    /// Lists again: our claim is there and fresh, and nobody's is that may not stand beside it. One who comes too late is given half a minute to notice.
    ///
    /// # Errors
    /// When it was lost; and when another one stays.
    pub(crate) async fn confirm(&self) -> Result<()> {
        self.confirm_unless(false, false).await
    }

    /// The same for tests of what it guards: without looking for the own claim, or for those of prunes.
    pub(crate) async fn confirm_unless(
        &self,
        own_is_off: bool,
        others_are_off: bool,
    ) -> Result<()> {
        let store = &self.lease.store;
        let mut looks = 0;
        loop {
            if !own_is_off {
                self.alive()?;
            }
            let (own, others) = others(store, &self.folder, &self.lease.key).await?;
            if own.is_none() && !own_is_off {
                self.lease.lost.store(true, Ordering::SeqCst);
                return Err(Error::other(format!(
                    "the claim on {} was removed by somebody else",
                    self.what
                ))
                .hint(
                    "another run took this one for dead; nothing more is written; run it again",
                ));
            }
            let mut hindered = None;
            for other in others.iter().filter(|other| !self.dead.contains(other)) {
                let theirs = Theirs::of(store, other).await?;
                if !others_are_off && !theirs.is_beside(self.purpose) {
                    hindered = Some((other, theirs));
                    break;
                }
            }
            let Some((other, theirs)) = hindered else {
                return Ok(());
            };
            looks += 1;
            if looks >= LOOKS {
                return Err(in_the_way(store, &self.what, other, theirs).await);
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Writes an object as long as the claim is ours.
    pub(crate) async fn write(&self, key: &str, bytes: Bytes) -> Result<()> {
        let fence = || self.alive();
        let store = &self.lease.store;
        let sent = store.put_fenced(key, bytes, false, self.patience, Some(&fence));
        sent.await.map(|_| ()).map_err(|failure| {
            self.in_doubt.fetch_or(failure.in_doubt, Ordering::SeqCst);
            failure.error
        })
    }

    /// Removes an object as long as the claim is ours.
    pub(crate) async fn remove(&self, key: &str) -> Result<()> {
        let fence = || self.alive();
        let removed = self.lease.store.delete_fenced(key, Some(&fence)).await;
        removed.map_err(|failure| failure.error)
    }

    /// Removes the claims of dead runs, for one who is alone. One that was refreshed meanwhile lives, and then this run is not alone.
    pub(crate) async fn bury(&self) -> Result<()> {
        if self.dead.is_empty() {
            return Ok(());
        }
        for dead in &self.dead {
            let now = self.lease.store.head(&dead.key).await;
            if now.is_ok_and(|now| now.modified == dead.modified) {
                self.remove(&dead.key).await?;
            }
        }
        // A run that looked for its claim just before that, and wrote it just after, is seen here.
        self.confirm().await
    }

    fn refresher(&self) -> Option<JoinHandle<()>> {
        let mut refresher = self
            .refresher
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        refresher.take()
    }

    /// The end: removes the claim, unless something that was sent may still arrive; then it is stale in an hour, or goes with those that are noted at the store. Whoever still has it writes
    /// nothing more with it.
    pub(crate) async fn release(&self) {
        self.stop.send_replace(true);
        if let Some(refresher) = self.refresher() {
            let _ = refresher.await;
        }
        self.lease.lost.store(true, Ordering::SeqCst);
        let (store, key) = (&self.lease.store, &self.lease.key);
        let may_go = !self.in_doubt.load(Ordering::SeqCst);
        if !may_go || store.delete(key).await.is_err() {
            store.leave(key);
        }
    }
}

impl Drop for SharedClaim {
    /// Dropped without an end, the claim stays, and an hour later it is stale.
    fn drop(&mut self) {
        if let Some(refresher) = self.refresher() {
            refresher.abort();
        }
    }
}

async fn in_the_way(store: &Store, what: &str, other: &Entry, theirs: Theirs) -> Error {
    let who = describe(store, other).await;
    let doing = match theirs {
        Theirs::Is(Purpose::Create) => "a backup is at work in",
        Theirs::Is(Purpose::Begin) => "another run begins",
        Theirs::Is(Purpose::Prune) => "a prune is at work in",
        Theirs::Is(Purpose::Delete) => "another run removes",
        Theirs::Unread | Theirs::Over => "a run of a newer version is at work in",
    };
    Error::new(Kind::AlreadyExists, format!("{doing} {what} ({who})"))
        .hint("wait for it; a run that died hinders nobody an hour after its last sign of life")
}
