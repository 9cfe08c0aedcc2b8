//! The files of one volume in a location: its repositories, who may be at work in them, and when a snapshot appears. The guard rails of docs/volumes.md are laid here.

mod told;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::begin::{self, Chosen};
use super::expiry::note;
use super::key::Keyring;
use super::rails::Rail;
use super::repository::{Access, Archived, Objects, Open, Part, Pruned, Snapshot, Target};
use super::source::{Counted, Source};
use crate::error::{Error, Kind, Result};
use crate::layout::VolumeKeys;
use crate::location::claim::{MOST_SKEW, Purpose, SharedClaim};
use crate::location::store::Patience;
use crate::location::{Store, sha256};

/// What was marked is kept for so long at least.
pub const KEEP_MARKED: Duration = Duration::from_secs(24 * 3600);

/// How long a store may say nothing while pods are kept quiet for what is written to it.
pub(crate) const QUIET: Duration = Duration::from_secs(30);

/// Which backup a snapshot is made for.
#[derive(Clone, Debug)]
pub struct Of {
    /// Its name.
    pub backup: String,
    /// Its uid.
    pub uid: String,
    /// Where this runs, for the claim.
    pub host: String,
}

impl Of {
    /// What a snapshot carries that this run made for it.
    fn tags(&self, run: &str) -> [String; 3] {
        [
            format!("backup={}", self.backup),
            format!("backup-uid={}", self.uid),
            format!("run={run}"),
        ]
    }
}

/// What a backup builds upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// The newest snapshot of this program in the repository.
    Newest,
    /// This one.
    Exactly(String),
    /// None: everything is read.
    Nothing,
}

/// A snapshot that stands.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Which repository of the volume it is in.
    pub repository: u32,
    /// Its exact id.
    pub snapshot: String,
    /// What it builds upon.
    pub base: Option<String>,
    /// The run that made it.
    pub run: String,
    /// What was read.
    pub counted: Counted,
    /// What was added to the repository, as it stands there.
    pub added_bytes: u64,
    /// Why another repository was begun, where one was.
    pub begun_because: Option<String>,
    /// When it was begun.
    pub began: Timestamp,
}

/// The repositories of one volume.
#[derive(Clone, Debug)]
pub struct VolumeStore {
    /// The plain part of a location: a repository is encrypted by itself.
    store: Store,
    keys: VolumeKeys,
    /// Numbers of repositories that somebody else has listed, for one who may not list the folder where they are.
    known: Option<Vec<u32>>,
    /// What stops one who is alone.
    stopped: Option<watch::Receiver<bool>>,
    /// Whether a pod is kept quiet while a backup is made.
    is_quiet: bool,
}

/// Runs what waits where waiting hinders nobody.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(
            Error::other("the work on a volume ended in a defect of this program")
                .hint("please report it; nothing that was finished before is touched")
                .because(e),
        ),
    }
}

/// Ends what is done with these objects once it is stopped.
fn end_by(
    mut stopped: watch::Receiver<bool>,
    all: Vec<Arc<Objects>>,
    why: &'static str,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if stopped.wait_for(|stopped| *stopped).await.is_ok() {
            for objects in all {
                objects.end(Error::new(Kind::Interrupted, why));
            }
        }
    })
}

impl VolumeStore {
    /// Those of this volume.
    pub fn new(store: &Store, keys: &VolumeKeys) -> Self {
        Self {
            store: store.outside(),
            keys: keys.clone(),
            known: None,
            stopped: None,
            is_quiet: false,
        }
    }

    /// Once this says so, what is done alone ([`VolumeStore::prune`], [`VolumeStore::forget`]) ends with the next request, and takes its claim along.
    pub fn until(self, stopped: Option<&watch::Receiver<bool>>) -> Self {
        Self {
            stopped: stopped.cloned(),
            ..self
        }
    }

    /// Whether it is to go on.
    ///
    /// # Errors
    /// `Interrupted`.
    pub(super) fn may_go_on(&self) -> Result<()> {
        let is_stopped = |stopped: &watch::Receiver<bool>| *stopped.borrow();
        match self.stopped.as_ref().is_some_and(is_stopped) {
            true => Err(Error::new(Kind::Interrupted, "it was stopped")),
            false => Ok(()),
        }
    }

    /// The same where a pod is kept quiet while a backup is made: it waits for a store that does not answer for half a minute, and not for three.
    #[must_use]
    pub fn quiet(self, is_quiet: bool) -> Self {
        Self { is_quiet, ..self }
    }

    fn what(keys: &VolumeKeys) -> String {
        format!("the repository {}", keys.repository().trim_end_matches('/'))
    }

    fn objects(&self, keys: &VolumeKeys, access: Access) -> Arc<Objects> {
        Objects::new(&self.store, &keys.repository(), access)
    }

    async fn reader(&self, keys: &VolumeKeys, ring: &Keyring<'_>) -> Result<Open> {
        let password = ring.of_reader(&self.store, keys).await?;
        let objects = self.objects(keys, Access::Read);
        on_a_thread(move || Open::by_password(objects, password.text())).await
    }

    /// Copies what the source has into a repository of the volume. The snapshot stands when this returns, or there is none. Asked to stop, it ends soon and takes its claim along.
    ///
    /// # Errors
    /// Whatever keeps a snapshot from appearing; `AlreadyExists` while a prune is at work.
    pub async fn backup(
        &self,
        source: Arc<dyn Source>,
        ring: &Keyring<'_>,
        of: &Of,
        base: &Base,
        stop: watch::Receiver<bool>,
    ) -> Result<Saved> {
        let began = Timestamp::now();
        let Chosen {
            keys,
            unlocked,
            claim,
            because,
        } = begin::choose(
            &self.store,
            &self.keys,
            self.known.as_deref(),
            ring,
            &of.host,
        )
        .await?;
        let patience = if self.is_quiet {
            Patience::Quiet
        } else {
            Patience::Long
        };
        let claim = Arc::new(claim.with_patience(patience));
        let access = Access::Backup(Arc::clone(&claim));
        let objects = self.objects(&keys, access.clone());
        let tags = of.tags(claim.run());
        let wanted = base.clone();
        let back = self.objects(&keys, access);
        let ending = vec![Arc::clone(&objects), Arc::clone(&back)];
        let asked = end_by(stop, ending, "the backup was stopped");
        let archived = on_a_thread(move || {
            let open = Open::with(objects, &unlocked)?;
            let parent = match wanted {
                Base::Nothing => None,
                Base::Exactly(id) => {
                    let known = open.snapshots()?;
                    if !known.iter().any(|known| known.id == id) {
                        return Err(Error::not_found(format!(
                            "there is no snapshot {id} to build upon"
                        )));
                    }
                    Some(id)
                }
                Base::Newest => {
                    let known = open.snapshots()?;
                    let ours = known.into_iter().filter(|known| known.is_ours);
                    ours.map(|known| known.id).next_back()
                }
            };
            let archived = open.archive(&*source, parent.as_deref(), &tags)?;
            if !Rail::SenderExit.is_off() {
                source.ended()?;
            } else {
                let _ = source.ended();
            }
            archived.verify(back)?;
            Ok((archived, parent))
        })
        .await;
        // From here on it is a matter of moments.
        asked.abort();
        let published = match archived {
            Ok((archived, base)) => self
                .publish(&claim, &archived)
                .await
                .map(|()| (archived, base)),
            Err(e) => Err(e),
        };
        let run = claim.run().to_owned();
        claim.release().await;
        let (archived, base) = published?;
        Ok(Saved {
            repository: keys.number(),
            snapshot: archived.id,
            base,
            run,
            counted: archived.counted,
            added_bytes: archived.added_bytes,
            begun_because: because,
            began,
        })
    }

    /// The one place where a snapshot is written.
    async fn publish(&self, claim: &SharedClaim, archived: &Archived) -> Result<()> {
        let no = |e: Error| e.context("no snapshot was made");
        claim
            .confirm_unless(Rail::OwnClaim.is_off(), Rail::PruneClaim.is_off())
            .await
            .map_err(no)?;
        let Archived { id, key, bytes, .. } = archived;
        claim.write(key, bytes.clone()).await.map_err(|e| {
            e.context(format!(
                "snapshot {id} could not be written; where {key} appears later, no backup names it"
            ))
        })?;
        let stands = match self.store.get(key, bytes.len() as u64).await {
            Ok(stands) if sha256(&stands) == *id => Ok(()),
            Ok(_) => Err(Error::corrupt(format!(
                "{key} does not hold what was just written to it"
            ))),
            Err(e) => Err(e.context(format!("snapshot {id} could not be read back"))),
        };
        // A machine that was stopped between the look and the answer: what it wrote is named by nobody, and goes again. Whatever was read back.
        let looked = if Rail::SecondLook.is_off() {
            Ok(())
        } else {
            claim.confirm_unless(false, Rail::PruneClaim.is_off()).await
        };
        let Err(e) = looked.and(stands) else {
            return Ok(());
        };
        match self.store.delete(key).await {
            Ok(()) => Err(no(e)),
            Err(stays) => Err(e
                .context(format!(
                    "snapshot {id} is not to be used, and {key} could not be removed ({})",
                    stays.sentence()
                ))
                .hint("remove that object: no backup names it, and what it needs may be gone")),
        }
    }

    /// Restores exactly this snapshot of the repository with this number, and gives the target back.
    ///
    /// # Errors
    /// `NotFound`, `Unauthorized`, `Corrupt`; and the target's.
    pub async fn restore<T: Target + Send + 'static>(
        &self,
        number: u32,
        snapshot: &str,
        ring: &Keyring<'_>,
        mut target: T,
    ) -> Result<T> {
        let open = self.reader(&self.keys.numbered(number), ring).await?;
        let id = snapshot.to_owned();
        on_a_thread(move || {
            open.restore(&id, &mut target)?;
            Ok(target)
        })
        .await
    }

    /// Hands a part of this snapshot to the target, and gives that back.
    ///
    /// # Errors
    /// As [`VolumeStore::restore`].
    pub async fn show<T: Target + Send + 'static>(
        &self,
        number: u32,
        snapshot: &str,
        ring: &Keyring<'_>,
        part: Part,
        mut target: T,
    ) -> Result<T> {
        let open = self.reader(&self.keys.numbered(number), ring).await?;
        let id = snapshot.to_owned();
        on_a_thread(move || {
            open.show(&id, &part, &mut target)?;
            Ok(target)
        })
        .await
    }

    /// The numbers of the volume's repositories.
    ///
    /// # Errors
    /// The store's.
    pub async fn repositories(&self) -> Result<Vec<u32>> {
        begin::numbers(&self.store, &self.keys, self.known.as_deref()).await
    }

    /// The snapshots of one of them, oldest first.
    ///
    /// # Errors
    /// As [`VolumeStore::restore`].
    pub async fn list(&self, number: u32, ring: &Keyring<'_>) -> Result<Vec<Snapshot>> {
        let open = self.reader(&self.keys.numbered(number), ring).await?;
        on_a_thread(move || open.snapshots()).await
    }

    /// What is wrong with one of them; with `read_data` every byte is read.
    ///
    /// # Errors
    /// As [`VolumeStore::restore`].
    pub async fn check(
        &self,
        number: u32,
        ring: &Keyring<'_>,
        read_data: bool,
    ) -> Result<Vec<String>> {
        let open = self.reader(&self.keys.numbered(number), ring).await?;
        on_a_thread(move || open.check(read_data)).await
    }

    /// The keys of one of them.
    pub(super) fn keys(&self, number: u32) -> VolumeKeys {
        self.keys.numbered(number)
    }

    /// The plain part of the location.
    pub(super) fn plain(&self) -> &Store {
        &self.store
    }

    /// The claim of one who is alone in a repository. Claims of dead runs are gone then, and clocks agree.
    pub(super) async fn alone(&self, keys: &VolumeKeys, host: &str) -> Result<Arc<SharedClaim>> {
        // Off for tests alone: as if it might stand beside backups.
        let purpose = if Rail::PruneAlone.is_off() {
            Purpose::Create
        } else {
            Purpose::Prune
        };
        let folder = keys.claims();
        let claim =
            SharedClaim::take(&self.store, &folder, &Self::what(keys), purpose, host).await?;
        let ready = async {
            claim.clocks_agree()?;
            claim.bury().await
        };
        if let Err(e) = ready.await {
            claim.release().await;
            return Err(e);
        }
        Ok(Arc::new(claim))
    }

    /// Marks what no snapshot needs, and removes what was marked at least `keep_marked` ago ([`KEEP_MARKED`] where a user does not say more), alone.
    ///
    /// # Errors
    /// `AlreadyExists` while anybody else is at work; where clocks or listings give no ground to remove anything; what a look at the repository finds afterwards; `Interrupted`, and the
    /// next one goes on.
    pub async fn prune(
        &self,
        number: u32,
        ring: &Keyring<'_>,
        host: &str,
        keep_marked: Duration,
    ) -> Result<Pruned> {
        let keys = self.keys.numbered(number);
        let password = ring.of_reader(&self.store, &keys).await?;
        self.may_go_on()?;
        let claim = self.alone(&keys, host).await?;
        let objects = self.objects(&keys, Access::Prune(Arc::clone(&claim)));
        let asked = self
            .stopped
            .clone()
            .map(|stopped| end_by(stopped, vec![Arc::clone(&objects)], "the prune was stopped"));
        let pruned = on_a_thread(move || {
            let open = Open::by_password(Arc::clone(&objects), password.text())?;
            let ids = |open: &Open| -> Result<Vec<String>> {
                let all = open.snapshots()?;
                Ok(all.into_iter().map(|snapshot| snapshot.id).collect())
            };
            let (first, second) = (ids(&open)?, ids(&open)?);
            if first.is_empty() {
                return Err(Error::other(
                    "the store lists no snapshot, and then nothing is pruned: it may be that it does not say what is there",
                )
                .hint("a volume without snapshots goes as a whole, with its last backup"));
            }
            if first != second {
                return Err(Error::other("two listings of the snapshots differ, and nothing is pruned")
                    .hint("the store does not list all that is there; try later"));
            }
            let pruned = open.prune(keep_marked)?;
            let problems = open.check(false).map_err(|e| {
                e.context("the prune is done, and what it left could not be looked at")
            })?;
            // What was not looked at any more is no damage.
            if objects.has_ended() {
                return Err(Error::new(Kind::Interrupted, "the prune was stopped"));
            }
            if problems.is_empty() {
                return Ok(pruned);
            }
            Err(Error::corrupt(format!(
                "after the prune the repository is damaged: {}",
                problems.join("; ")
            ))
            .hint("nothing is removed in the run that marks it: check the repository with restic, and the store"))
        })
        .await;
        if let Some(asked) = asked {
            asked.abort();
        }
        let noted = match pruned {
            Ok(pruned) => Self::note(&keys, &claim, pruned, keep_marked).await,
            Err(e) => Err(e),
        };
        claim.release().await;
        noted
    }

    /// Notes from when on the next prune makes sense; nothing, where nothing is marked.
    async fn note(
        keys: &VolumeKeys,
        claim: &SharedClaim,
        pruned: Pruned,
        keep_marked: Duration,
    ) -> Result<Pruned> {
        if pruned.marked_bytes + pruned.waiting_bytes == 0 {
            claim.remove(&keys.reclaim()).await?;
            return Ok(pruned);
        }
        // What is marked bears the time of this machine.
        let after = keep_marked + MOST_SKEW.unsigned_abs();
        let next = Timestamp::now().saturating_add(after);
        let next = next.unwrap_or(Timestamp::MAX);
        claim.write(&keys.reclaim(), note::reclaim(next)?).await?;
        Ok(Pruned {
            next: Some(next),
            ..pruned
        })
    }
}

#[cfg(test)]
impl VolumeStore {
    /// Every blob of a snapshot, where it lies.
    pub(super) async fn lying(
        &self,
        number: u32,
        snapshot: &str,
        ring: &Keyring<'_>,
    ) -> Vec<super::repository::Lying> {
        let open = self
            .reader(&self.keys.numbered(number), ring)
            .await
            .unwrap();
        let id = snapshot.to_owned();
        on_a_thread(move || Ok(open.lying(&id))).await.unwrap()
    }
}
