//! Copies of the files of a backup's claims, and snapshots: who uses them now is gathered, groups and places are planned (pure), movers read what is copied, and what came of each claim is
//! kept for the report. Which claims are copied is decided in [`choice`](super::choice).

mod cuts;
mod one;
mod plan;
mod users;
mod way;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::cuts::Cuts;
use self::one::Inner;
pub(super) use self::plan::Group;
use self::plan::{Job, Task};
use self::users::Users;
use super::choice::{self, Choice, Choices, Copied};
use super::gather::Gathered;
use super::options::{BackupOptions, SNAPSHOT_USUAL};
use super::page::{Hooked, Seen};
use super::report::Log;
use crate::cluster::Cluster;
use crate::crypt::{Identities, Recipients, SecretString};
use crate::error::{Error, Result};
use crate::location::{Location, Store};
use crate::mover::{Mover, MoverOptions, Movers};
use crate::progress::Progress;
use crate::records::copies::{Hooks, Outcome};
use crate::snapshot::cut::Wanted;
use crate::volume::key::KeyCache;
use crate::volume::store::{Of, QUIET};

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
    single: Mutex<Vec<Task>>,
    /// The snapshots.
    pub(super) cuts: Cuts,
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
    /// Of these snapshots are made.
    cuts: Vec<Wanted>,
}

impl GroupReady {
    /// Namespace and name of those whose files are copied.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        let jobs = self.claims.iter().map(|ready| &ready.job);
        jobs.map(|job| (job.namespace.clone(), job.claim.clone()))
            .collect()
    }
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
        (backup, run, identity): (&BackupOptions, &str, Option<&str>),
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
                store: location.store.outside().noting_left(),
                mover_credentials: location
                    .spec
                    .metadata
                    .annotations
                    .get(super::MOVER_CREDENTIALS)
                    .cloned(),
                ephemeral: backup.allows_ephemeral().unwrap_or_default(),
                options: options.clone(),
                of,
                log: Arc::clone(log),
            }),
            backup: backup.clone(),
            permits: Arc::new(Semaphore::new(parallel)),
            copied: Mutex::default(),
            single: Mutex::default(),
            cuts: Cuts::new(
                cluster,
                &location.store,
                &cuts::Of {
                    identity,
                    backup: backup.name.as_str(),
                    uid: options.uid.as_deref().unwrap_or(run),
                    run,
                    timeout: backup.snapshot_timeout().unwrap_or(SNAPSHOT_USUAL),
                },
            ),
        }
    }

    /// What is done with the claims that were seen.
    pub(super) fn choices(&self, seen: &Seen, gathered: &Gathered) -> Choices {
        choice::choose(seen, choice::Wanted::of(&self.backup, gathered))
    }

    /// Plans the copies of what was chosen: groups with these pods, and, for [`Copying::rest`], claims of none of them.
    pub(super) async fn plan(
        &self,
        choices: &Choices,
        hooked: Vec<Hooked>,
        progress: &dyn Progress,
    ) -> Vec<Group> {
        let (mut tasks, mut copies, mut cuts) = (Vec::new(), 0, 0);
        for ((namespace, claim), chosen) in choices {
            match &chosen.choice {
                Choice::Copy(copy) => {
                    copies += 1;
                    let job = Job::new(namespace, claim, &chosen.claim, copy);
                    tasks.push(Task::Copy(job));
                }
                Choice::Cut(cut) => {
                    cuts += 1;
                    tasks.push(Task::Cut(Wanted {
                        namespace: namespace.clone(),
                        claim: claim.clone(),
                        uid: chosen.claim.uid.clone(),
                        class: cut.class.clone(),
                        driver: cut.driver.clone(),
                        volume: cut.volume.clone(),
                        is_asked: cut.is_asked,
                    }));
                }
                _ => {}
            }
        }
        if tasks.is_empty() {
            return plan::groups(hooked, Vec::new(), &BTreeMap::new()).0;
        }
        let volumes = |many: usize| match many {
            1 => "1 volume".to_owned(),
            many => format!("{many} volumes"),
        };
        if copies > 0 {
            let image = &self.inner.options.movers.image;
            let text = format!(
                "the files of {} are copied, by pods of image {image}",
                volumes(copies)
            );
            progress.note(&text);
        }
        if cuts > 0 {
            progress.note(&format!(
                "snapshots of {} are made in their storage",
                volumes(cuts)
            ));
            self.cuts
                .prepare()
                .await
                .iter()
                .for_each(|text| progress.warn(text));
        }
        let mut namespaces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for task in &tasks {
            let (namespace, claim) = task.claim();
            let claims = namespaces.entry(namespace.to_owned()).or_default();
            claims.insert(claim.to_owned());
        }
        let users = self.inner.users.gather(namespaces).await;
        let (groups, single) = plan::groups(hooked, tasks, &users);
        *lock(&self.single) = single;
        groups
    }

    /// Brings up the movers of a group; those of its claims that have one. A pod that is made quiet waits for no image.
    pub(super) async fn ready(&self, tasks: Vec<Task>, progress: &dyn Progress) -> GroupReady {
        let (mut jobs, mut cuts) = (Vec::new(), Vec::new());
        for task in tasks {
            match task {
                Task::Copy(job) => jobs.push(job),
                Task::Cut(wanted) => cuts.push(wanted),
            }
        }
        let mut permits = Vec::new();
        if !jobs.is_empty() {
            // Closed by nobody.
            permits.extend(Arc::clone(&self.permits).acquire_owned().await.ok());
        }
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
                Ok(mover) => {
                    if let Some(text) = self.inner.tell_of(&job, &mover) {
                        progress.note(&text);
                    }
                    claims.push(Ready { job, mover });
                }
                Err(e) => self.keep(&job, Err(e)),
            }
        }
        GroupReady {
            permits,
            claims,
            cuts,
        }
    }

    /// Makes snapshots of the claims of a group, and copies those whose files are asked for. What comes of each is kept.
    pub(super) async fn copy(&self, group: GroupReady, hooks: Hooks, progress: &dyn Progress) {
        let GroupReady {
            permits,
            claims,
            cuts,
        } = group;
        self.cuts.cut(cuts, hooks).await;
        // Pods that are quiet for all of these are waited for by none of them anew.
        let store = match hooks {
            Hooks::None => self.inner.store.clone(),
            _ => self.inner.store.impatient(QUIET),
        };
        let waiting = Mutex::new(VecDeque::from(claims));
        let lanes = permits.into_iter().map(|permit| async {
            loop {
                let next = lock(&waiting).pop_front();
                let Some(Ready { job, mover }) = next else {
                    break;
                };
                self.one(job, mover, (hooks, &store), progress).await;
            }
            drop(permit);
        });
        tokio::select! {
            _ = futures::future::join_all(lanes) => {}
            () = self.give_way(&waiting) => {}
        }
    }

    /// Movers that wait for their turn stand in nobody's way: those that would are taken away. Does not end.
    async fn give_way(&self, waiting: &Mutex<VecDeque<Ready>>) {
        loop {
            tokio::time::sleep(one::LOOKS).await;
            let all: Vec<_> = lock(waiting)
                .iter()
                .filter(|ready| ready.mover.inside().is_none())
                .map(|ready| (ready.job.clone(), ready.mover.node().to_owned()))
                .collect();
            for (job, node) in all {
                let Some(why) = self.inner.wanted(&job, &node).await else {
                    continue;
                };
                let mut waiting = lock(waiting);
                let at = waiting.iter().position(|ready| ready.job.uid == job.uid);
                // One whose turn came meanwhile is looked at there.
                let Some(Ready { job, mover }) = at.and_then(|at| waiting.remove(at)) else {
                    continue;
                };
                drop(waiting);
                self.keep(&job, Err(Error::other(why)));
                let inner = Arc::clone(&self.inner);
                let removed = async move { inner.remove(mover, &job).await };
                self.inner.movers.spawn(removed);
            }
        }
    }

    /// Copies the claims of no pod with hooks.
    pub(super) async fn rest(&self, progress: &dyn Progress) {
        let single = std::mem::take(&mut *lock(&self.single));
        let (cuts, single) = single
            .into_iter()
            .partition::<Vec<_>, _>(|task| matches!(task, Task::Cut(_)));
        let cuts = self.ready(cuts, progress).await;
        self.copy(cuts, Hooks::None, progress).await;
        stream::iter(single)
            .map(|task| self.alone(task, progress))
            .buffer_unordered(self.inner.options.movers.parallel.max(1))
            .collect::<()>()
            .await;
    }

    async fn alone(&self, task: Task, progress: &dyn Progress) {
        let ready = self.ready(vec![task], progress).await;
        self.copy(ready, Hooks::None, progress).await;
    }

    async fn one(
        &self,
        job: Job,
        mover: Mover,
        (hooks, store): (Hooks, &Store),
        progress: &dyn Progress,
    ) {
        progress.step(&format!("copying volume {}", job.name()));
        let came = Arc::new(AtomicU64::new(0));
        let inner = Arc::clone(&self.inner);
        let to = (hooks, store.clone());
        let work = inner.copy(job.clone(), mover, to, Arc::clone(&came));
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
        if let Ok((saved, because)) = &copied {
            let exec = saved.copy.exec_because.as_ref();
            let exec =
                exec.map(|why| format!("copied over exec, and not straight to the store: {why}"));
            for why in because.iter().chain(&exec) {
                progress.warn(&format!("volume {}: {why}", job.name()));
            }
        }
        self.keep(&job, copied.map(|(saved, _)| saved));
    }

    fn keep(&self, job: &Job, copied: Result<crate::records::copies::Saved>) {
        let key = (job.namespace.clone(), job.claim.clone());
        let copied = copied.map(|saved| Outcome::Saved(Box::new(saved)));
        let copied = copied.map_err(|e| e.sentence());
        lock(&self.copied).insert(key, copied);
    }

    /// The pods of these claims were not quiet to the end: rows of those that were copied say so. Which these are.
    pub(super) fn were_not_quiet(&self, claims: &[(String, String)]) -> Vec<String> {
        let mut copied = lock(&self.copied);
        let mut names = Vec::new();
        for key in claims {
            if let Some(Ok(Outcome::Saved(saved))) = copied.get_mut(key) {
                saved.hooks = Some(Hooks::Failed);
                names.push(format!("{}/{}", key.0, key.1));
            }
        }
        names
    }

    /// Ends all that is under way and removes every mover; what could not be removed comes back, a sentence each.
    pub(super) async fn settle(&self) -> Vec<String> {
        self.inner.movers.settle().await
    }

    /// Takes claims on repositories away that copies could not take along, for the store did not answer: it does by now. They would keep every prune away for an hour.
    pub(super) async fn let_go(&self, progress: &dyn Progress) {
        if self.inner.store.has_left() {
            progress
                .step("waiting until nothing can arrive any more that the store did not answer");
        }
        self.inner.store.clear_left().await;
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
