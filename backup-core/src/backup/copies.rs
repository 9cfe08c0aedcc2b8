//! Copies of the files of a backup's claims: who uses them now is gathered, groups and places are planned (pure), movers read what is copied, and what came of each claim is
//! kept for the report. Which claims are copied is decided in [`choice`](super::choice).

mod one;
mod plan;
mod users;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::one::Inner;
pub(super) use self::plan::Group;
use self::plan::Job;
use self::users::Users;
use super::BackupOptions;
use super::choice::{self, Choice, Choices, Copied, Wanted};
use super::gather::Gathered;
use super::page::{Hooked, Seen};
use super::report::Log;
use crate::cluster::Cluster;
use crate::crypt::{Identities, Recipients, SecretString};
use crate::error::Result;
use crate::location::Location;
use crate::mover::{Mover, MoverOptions, Movers};
use crate::progress::Progress;
use crate::records::copies::Hooks;
use crate::volume::key::KeyCache;
use crate::volume::store::Of;

/// A copy tells so often how far it is.
const TELLS: Duration = Duration::from_secs(1);

/// How the files of volumes are copied.
#[derive(Clone)]
pub struct CopyOptions {
    /// How movers are made.
    pub movers: MoverOptions,
    /// For whom the keys of repositories are encrypted; nobody where they stand in the clear.
    pub recipients: Recipients,
    /// Of a passphrase among them.
    pub passphrase: Option<SecretString>,
    /// Who may open keys that were made before.
    pub identities: Identities,
    /// Keys that this writer made before.
    pub cache: Arc<dyn KeyCache>,
    /// The uid of the Backup's object, by which snapshots name it; the run's id where there is no object.
    pub uid: Option<String>,
}

impl std::fmt::Debug for CopyOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyOptions")
            .field("movers", &self.movers)
            .field("recipients", &self.recipients.fingerprints())
            .finish_non_exhaustive()
    }
}

/// All copies of a run.
pub(super) struct Copying {
    inner: Arc<Inner>,
    backup: BackupOptions,
    permits: Arc<Semaphore>,
    copied: Mutex<Copied>,
    /// Claims of no pod with hooks.
    single: Mutex<Vec<Job>>,
}

/// A claim whose mover runs.
struct Ready {
    job: Job,
    mover: Mover,
}

/// Claims of a group, ready to be copied.
pub(super) struct GroupReady {
    permits: Vec<OwnedSemaphorePermit>,
    claims: Vec<Ready>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copying {
    /// None yet; of a backup with these options, and its run.
    pub(super) fn new(
        cluster: &Cluster,
        location: &Location,
        options: &CopyOptions,
        (backup, run): (&BackupOptions, &str),
        log: &Arc<Log>,
    ) -> Self {
        let of = Of {
            backup: backup.name.to_string(),
            uid: options.uid.clone().unwrap_or_else(|| run.to_owned()),
            host: backup.host.clone(),
        };
        let parallel = options.movers.parallel.max(1);
        Self {
            inner: Arc::new(Inner {
                movers: Movers::new(cluster, &options.movers, run),
                users: Users::new(cluster, run),
                cluster: cluster.clone(),
                store: location.store.outside(),
                options: options.clone(),
                of,
                log: Arc::clone(log),
            }),
            backup: backup.clone(),
            permits: Arc::new(Semaphore::new(parallel)),
            copied: Mutex::default(),
            single: Mutex::default(),
        }
    }

    /// What is done with the claims that were seen.
    pub(super) fn choices(&self, seen: &Seen, gathered: &Gathered) -> Choices {
        choice::choose(seen, Wanted::of(&self.backup, gathered))
    }

    /// Plans the copies of what was chosen: groups with these pods, and, for [`Copying::rest`], claims of none of them.
    pub(super) async fn plan(
        &self,
        choices: &Choices,
        hooked: Vec<Hooked>,
        progress: &dyn Progress,
    ) -> Vec<Group> {
        let mut jobs = Vec::new();
        for ((namespace, claim), chosen) in choices {
            if let Choice::Copy(copy) = &chosen.choice {
                jobs.push(Job::new(namespace, claim, &chosen.claim, copy));
            }
        }
        if jobs.is_empty() {
            return plan::groups(hooked, Vec::new(), &BTreeMap::new()).0;
        }
        let image = &self.inner.options.movers.image;
        progress.note(&format!(
            "the files of {} are copied, by pods of image {image}",
            match jobs.len() {
                1 => "1 volume".to_owned(),
                many => format!("{many} volumes"),
            }
        ));
        let mut namespaces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for job in &jobs {
            let claims = namespaces.entry(job.namespace.clone()).or_default();
            claims.insert(job.claim.clone());
        }
        let users = self.inner.users.gather(namespaces).await;
        let (groups, single) = plan::groups(hooked, jobs, &users);
        *lock(&self.single) = single;
        groups
    }

    /// Brings up the movers of a group; those of its claims that have one. A pod that is made quiet waits for no image.
    pub(super) async fn ready(&self, jobs: Vec<Job>, progress: &dyn Progress) -> GroupReady {
        let mut permits = Vec::new();
        // Closed by nobody.
        permits.extend(Arc::clone(&self.permits).acquire_owned().await.ok());
        while permits.len() < jobs.len()
            && let Ok(more) = Arc::clone(&self.permits).try_acquire_owned()
        {
            permits.push(more);
        }
        let started = jobs.into_iter().map(|job| async {
            progress.step(&format!("making the mover of volume {}", job.name()));
            let started = self.inner.start(&job).await;
            (job, started)
        });
        let mut claims = Vec::new();
        for (job, started) in futures::future::join_all(started).await {
            match started {
                Ok(mover) => claims.push(Ready { job, mover }),
                Err(e) => self.keep(&job, Err(e)),
            }
        }
        GroupReady { permits, claims }
    }

    /// Copies the claims of a group. What comes of each is kept.
    pub(super) async fn copy(&self, group: GroupReady, hooks: Hooks, progress: &dyn Progress) {
        let GroupReady { permits, claims } = group;
        let waiting = Mutex::new(VecDeque::from(claims));
        let lanes = permits.into_iter().map(|permit| async {
            loop {
                let next = lock(&waiting).pop_front();
                let Some(Ready { job, mover }) = next else {
                    break;
                };
                self.one(job, mover, hooks, progress).await;
            }
            drop(permit);
        });
        futures::future::join_all(lanes).await;
    }

    /// Copies the claims of no pod with hooks.
    pub(super) async fn rest(&self, progress: &dyn Progress) {
        let single = std::mem::take(&mut *lock(&self.single));
        stream::iter(single)
            .map(|job| self.alone(job, progress))
            .buffer_unordered(self.inner.options.movers.parallel.max(1))
            .collect::<()>()
            .await;
    }

    async fn alone(&self, job: Job, progress: &dyn Progress) {
        let ready = self.ready(vec![job], progress).await;
        self.copy(ready, Hooks::None, progress).await;
    }

    async fn one(&self, job: Job, mover: Mover, hooks: Hooks, progress: &dyn Progress) {
        progress.step(&format!("copying volume {}", job.name()));
        let came = Arc::new(AtomicU64::new(0));
        let inner = Arc::clone(&self.inner);
        let work = inner.copy(job.clone(), mover, hooks, Arc::clone(&came));
        let copied = self.inner.movers.task(work);
        tokio::pin!(copied);
        let began = Instant::now();
        let mut told = 0;
        let copied = loop {
            tokio::select! {
                copied = &mut copied => break copied,
                () = tokio::time::sleep(TELLS) => {
                    if began.elapsed() < TELLS * 2 {
                        progress.step(&format!("copying volume {}", job.name()));
                    }
                    let now = came.load(Ordering::Relaxed);
                    progress.done(0, now - told);
                    told = now;
                }
            }
        };
        let copied = copied.and_then(|copied| copied);
        if let Ok((_, Some(why))) = &copied {
            progress.warn(&format!("volume {}: {why}", job.name()));
        }
        self.keep(&job, copied.map(|(saved, _)| saved));
    }

    fn keep(&self, job: &Job, copied: Result<crate::records::copies::Saved>) {
        let key = (job.namespace.clone(), job.claim.clone());
        let copied = copied.map_err(|e| e.sentence());
        lock(&self.copied).insert(key, copied);
    }

    /// Ends all that is under way and removes every mover; what could not be removed comes back, a sentence each.
    pub(super) async fn settle(&self) -> Vec<String> {
        self.inner.movers.settle().await
    }

    /// What came of all claims.
    pub(super) fn copied(&self) -> Copied {
        lock(&self.copied).clone()
    }

    /// By which uid snapshots name the backup.
    pub(super) fn backup_uid(&self) -> &str {
        &self.inner.of.uid
    }
}
