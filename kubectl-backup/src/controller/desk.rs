//! What every kind works with: the API server, the copies of all objects, who is at work on which of them, and the clock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use backup_cli::locations::LocationArgs;
use backup_cli::ui::Ui;
use backup_core::cluster::Cluster;
use backup_core::error::Result;
use backup_core::hooks::Process;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::{Notify, OnceCell, Semaphore, watch};

use super::expiry::Collected;
use super::history::History;
use super::http::Health;
use super::known::Known;
use super::launchers::Launchers;
use super::locations::Checked;
use super::objects::{Objects, name, uid};
use super::repositories::Owed;
use super::sync::Synced;
use super::{backups, schedules};
use crate::copies::CopyArgs;

/// Pieces of small work at a time: backups and restores are counted apart.
const SMALL: usize = 16;

/// After work that failed, its object is left alone for so long, doubled each time.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Gives the time.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How the controller was started.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The namespace that is served.
    pub(crate) namespace: String,
    /// Backups at a time.
    pub(crate) concurrent_backups: usize,
    /// Whether Restores are served.
    pub(crate) restores: bool,
    /// Between two checks of a location that does not say it.
    pub(crate) validation_frequency: SignedDuration,
    /// Between two syncs of a location that does not say it.
    pub(crate) sync_period: SignedDuration,
    /// Between two removals of what is expired.
    pub(crate) collection_frequency: SignedDuration,
    /// How volumes are copied.
    pub(crate) copies: CopyArgs,
    /// Where archives of other tools are rewritten for reading.
    pub(crate) spool_dir: PathBuf,
    /// Where the journals of restores go whose location takes no writes.
    pub(crate) state_dir: PathBuf,
    /// How locations that objects name are opened.
    pub(crate) locations: LocationArgs,
}

/// A piece of work on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A few requests.
    Small,
    /// A backup is made.
    Backup,
    /// A backup is restored.
    Restore,
    /// A location is synced.
    Location,
    /// Expired backups of a location are removed: beside all other work on it, for it may take hours.
    Expiry,
    /// What is owed in a location's repositories of volumes is done: beside all other work on it but backups.
    Repositories,
    /// A backup is deleted.
    Deletion,
    /// A backup is copied to another location: beside all other work on it, for a copy that fails is tried for ever.
    Copy,
}

impl Work {
    /// What it is known by: of equal keys there is one piece at a time.
    fn key(self, uid: &str) -> String {
        match self {
            Self::Expiry => format!("{uid}{BESIDE}expiry"),
            Self::Repositories => format!("{uid}{BESIDE}repositories"),
            Self::Copy => format!("{uid}{BESIDE}copy"),
            _ => uid.to_owned(),
        }
    }
}

/// In a key, between an object's uid and what is done beside its other work.
const BESIDE: char = '/';

/// The object of a key.
fn of_key(key: &str) -> &str {
    key.split_once(BESIDE).map_or(key, |(uid, _)| uid)
}

struct Doing {
    work: Work,
    /// The object as it was: another one may have its name by now.
    object: Arc<Value>,
    /// The location in which it is done, where that matters.
    place: Option<String>,
    stop: watch::Sender<bool>,
}

/// What every kind works with.
pub(crate) struct Desk {
    pub(crate) ui: Arc<Ui>,
    pub(crate) cluster: Cluster,
    pub(crate) settings: Settings,
    /// The machine's name, for claims.
    pub(crate) host: String,
    /// This process, for what it owes to pods.
    pub(crate) process: Process,
    /// An id of this process.
    pub(crate) run: String,
    clock: Clock,
    pub(crate) locations: Objects,
    pub(crate) backups: Objects,
    pub(crate) downloads: Objects,
    pub(crate) schedules: Objects,
    pub(crate) deletions: Objects,
    pub(crate) restores: Objects,
    pub(crate) questions: Objects,
    /// What is known of the locations' last syncs, by uid.
    pub(crate) synced: Mutex<BTreeMap<String, Synced>>,
    /// Names of the backups that are being deleted, and whether their snapshots are waited for.
    deleting: Mutex<BTreeMap<String, bool>>,
    /// What is known of the removal of expired backups, by the location's uid.
    pub(crate) collected: Mutex<BTreeMap<String, Collected>>,
    /// What is to be done in repositories of volumes, by the location's uid.
    pub(crate) owed: Mutex<BTreeMap<String, Owed>>,
    /// What is known of etcd-launchers.
    pub(crate) launchers: Arc<tokio::sync::Mutex<Launchers>>,
    identity: OnceCell<Option<String>>,
    /// The definition of Backups knows no phase Queued.
    pub(crate) knows_no_queue: AtomicBool,
    queue_told: Mutex<Option<Instant>>,
    /// How the loop does.
    pub(crate) health: Health,
    history: Mutex<History>,
    /// What is known of the locations' last checks, by uid.
    pub(crate) checked: Mutex<BTreeMap<String, Checked>>,
    terms: Mutex<Known<schedules::Terms>>,
    asked: Mutex<Known<backups::Asked>>,
    changed: Arc<Notify>,
    busy: Mutex<BTreeMap<String, Doing>>,
    failures: Mutex<BTreeMap<String, (Instant, Duration)>>,
    small: Semaphore,
}

impl Desk {
    /// Begins to copy the objects.
    pub(crate) fn new(
        ui: Arc<Ui>,
        cluster: Cluster,
        settings: Settings,
        process: Process,
        clock: Clock,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let objects =
            |kind, plural| Objects::start(&cluster, &settings.namespace, kind, plural, &changed);
        Self {
            locations: objects("BackupStorageLocation", "backupstoragelocations"),
            backups: objects("Backup", "backups"),
            downloads: objects("DownloadRequest", "downloadrequests"),
            schedules: objects("Schedule", "schedules"),
            deletions: objects("DeleteBackupRequest", "deletebackuprequests"),
            restores: objects("Restore", "restores"),
            questions: objects("ServerStatusRequest", "serverstatusrequests"),
            synced: Mutex::default(),
            deleting: Mutex::default(),
            collected: Mutex::default(),
            owed: Mutex::default(),
            launchers: Arc::default(),
            identity: OnceCell::new(),
            knows_no_queue: AtomicBool::new(false),
            queue_told: Mutex::default(),
            ui,
            cluster,
            settings,
            host: process.host.clone(),
            process,
            run: uuid(),
            clock,
            health: Health::default(),
            history: Mutex::default(),
            checked: Mutex::default(),
            terms: Mutex::default(),
            asked: Mutex::default(),
            changed,
            busy: Mutex::default(),
            failures: Mutex::default(),
            small: Semaphore::new(SMALL),
        }
    }

    /// The kinds that are served.
    fn kinds(&self) -> [&Objects; 7] {
        [
            &self.locations,
            &self.backups,
            &self.schedules,
            &self.deletions,
            &self.restores,
            &self.downloads,
            &self.questions,
        ]
    }

    /// Whether all objects were read once: nothing is decided before.
    pub(crate) fn is_whole(&self) -> bool {
        self.kinds().iter().all(|kind| kind.mirror().is_whole())
    }

    /// Why objects can not be read at the moment.
    pub(crate) fn failed(&self) -> Option<String> {
        self.kinds().iter().find_map(|kind| kind.mirror().failed())
    }

    /// The uid of this cluster's kube-system; nothing where it may not be read.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn identity(&self) -> Result<Option<&str>> {
        let identity = self.identity.get_or_try_init(|| self.cluster.identity());
        identity.await.map(Option::as_deref)
    }

    /// The same, where it was learned already.
    pub(crate) fn known_identity(&self) -> Option<&str> {
        self.identity.get()?.as_deref()
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Ends when something changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How many pieces of such work there are.
    pub(crate) fn count(&self, work: Work) -> usize {
        let busy = self.busy();
        busy.values().filter(|doing| doing.work == work).count()
    }

    /// Whether such work is done in a location.
    pub(crate) fn is_at_work_in(&self, work: Work, place: &str) -> bool {
        let busy = self.busy();
        let mut with = busy.values().filter(|doing| doing.work == work);
        with.any(|doing| doing.place.as_deref() == Some(place))
    }

    /// The uids of objects with such work.
    pub(crate) fn all_with(&self, work: Work) -> Vec<String> {
        let busy = self.busy();
        let with = busy.iter().filter(|(_, doing)| doing.work == work);
        with.map(|(key, _)| of_key(key).to_owned()).collect()
    }

    /// Whether nothing is done, and nothing failed a moment ago, on this object; but for what is done beside.
    pub(crate) fn is_free(&self, object: &Value) -> bool {
        self.is_free_key(uid(object))
    }

    /// The same of work that has a key of its own.
    pub(crate) fn is_free_for(&self, object: &Value, work: Work) -> bool {
        self.is_free_key(&work.key(uid(object)))
    }

    fn is_free_key(&self, key: &str) -> bool {
        let failures = self
            .failures
            .lock()
            .expect("nobody panics while holding it");
        !self.busy().contains_key(key)
            && failures
                .get(key)
                .is_none_or(|(until, _)| *until <= Instant::now())
    }

    /// Whether such work goes on for an object that had this one's name, and is gone.
    pub(crate) fn is_at_anothers(&self, object: &Value, work: Work) -> bool {
        let busy = self.busy();
        busy.iter().any(|(key, doing)| {
            doing.work == work && of_key(key) != uid(object) && name(&doing.object) == name(object)
        })
    }

    /// Asks such work on an object to stop.
    pub(crate) fn stop(&self, uid: &str, work: Work) {
        if let Some(doing) = self.busy().get(&work.key(uid)) {
            doing.stop.send_replace(true);
        }
    }

    /// Asks such work to stop where it is over for the object that it began with.
    pub(crate) fn stop_where(&self, work: Work, is_over: impl Fn(&Value) -> bool) {
        let busy = self.busy();
        for doing in busy.values().filter(|doing| doing.work == work) {
            if is_over(&doing.object) {
                doing.stop.send_replace(true);
            }
        }
    }

    /// Asks all work to stop.
    pub(crate) fn stop_all(&self) {
        for doing in self.busy().values() {
            doing.stop.send_replace(true);
        }
    }

    /// Whether nothing is at work.
    pub(crate) fn is_idle(&self) -> bool {
        self.busy().is_empty()
    }

    /// Works on an object that is free, on a task of its own. What fails is told, and tried again after a while.
    pub(crate) fn begin<F, Fut>(self: &Arc<Self>, object: &Arc<Value>, work: Work, task: F)
    where
        F: FnOnce(Arc<Self>, Arc<Value>, watch::Receiver<bool>) -> Fut,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.begin_at(object, work, None, task);
    }

    /// The same, in a location.
    pub(crate) fn begin_in<F, Fut>(
        self: &Arc<Self>,
        object: &Arc<Value>,
        work: Work,
        place: &str,
        task: F,
    ) where
        F: FnOnce(Arc<Self>, Arc<Value>, watch::Receiver<bool>) -> Fut,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.begin_at(object, work, Some(place.to_owned()), task);
    }

    fn begin_at<F, Fut>(
        self: &Arc<Self>,
        object: &Arc<Value>,
        work: Work,
        place: Option<String>,
        task: F,
    ) where
        F: FnOnce(Arc<Self>, Arc<Value>, watch::Receiver<bool>) -> Fut,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let key = work.key(uid(object));
        let (stop, stopped) = watch::channel(false);
        let name = name(object).to_owned();
        let doing = Doing {
            work,
            object: Arc::clone(object),
            place,
            stop,
        };
        if self.busy().insert(key.clone(), doing).is_some() {
            // Nobody begins two: `is_free` was asked.
            debug_assert!(false, "two pieces of work on one object");
        }
        let at = Busy {
            desk: Arc::clone(self),
            key,
        };
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let future = task(Arc::clone(self), Arc::clone(object), stopped);
        tokio::spawn(async move {
            let desk = &at.desk;
            let ended = match work {
                Work::Small => {
                    let _permit = desk.small.acquire().await;
                    future.await
                }
                Work::Backup
                | Work::Restore
                | Work::Location
                | Work::Expiry
                | Work::Repositories
                | Work::Deletion
                | Work::Copy => future.await,
            };
            match ended {
                Ok(()) => {
                    desk.failures().remove(&at.key);
                }
                Err(e) => {
                    desk.ui.warn(&format!("{kind} {name}: {}", e.sentence()));
                    let mut failures = desk.failures();
                    let pause = failures
                        .get(&at.key)
                        .map_or(PAUSE, |(_, last)| (*last * 2).min(LONGEST_PAUSE));
                    failures.insert(at.key.clone(), (Instant::now() + pause, pause));
                }
            }
        });
    }

    /// Forgets what is known of objects that are gone.
    pub(crate) fn forget(&self, is_there: impl Fn(&str) -> bool) {
        self.failures().retain(|key, _| is_there(of_key(key)));
        fn of<T>(known: &Mutex<BTreeMap<String, T>>) -> MutexGuard<'_, BTreeMap<String, T>> {
            known.lock().expect("nobody panics while holding it")
        }
        of(&self.checked).retain(|uid, _| is_there(uid));
        of(&self.synced).retain(|uid, _| is_there(uid));
        of(&self.collected).retain(|uid, _| is_there(uid));
        of(&self.owed).retain(|uid, _| is_there(uid));
        self.terms().retain(&is_there);
        self.asked().retain(&is_there);
    }

    /// When work on an object failed last, where what came after has not succeeded.
    pub(crate) fn failed_at(&self, object: &Value) -> Option<Instant> {
        let (until, pause) = *self.failures().get(uid(object))?;
        until.checked_sub(pause)
    }

    /// Names of the backups that are being deleted, and whether their snapshots are waited for.
    pub(crate) fn deleting(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.deleting
            .lock()
            .expect("nobody panics while holding it")
    }

    /// What happened to objects, as far as it was seen.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nobody panics while holding it")
    }

    /// All objects.
    pub(crate) fn objects(&self) -> Vec<Arc<Value>> {
        let kinds = self.kinds().into_iter();
        kinds.flat_map(|kind| kind.mirror().all()).collect()
    }

    /// When backups that wait were told their places last.
    pub(crate) fn queue_told(&self) -> MutexGuard<'_, Option<Instant>> {
        self.queue_told
            .lock()
            .expect("nobody panics while holding it")
    }

    /// What the Schedules ask for.
    pub(crate) fn terms(&self) -> MutexGuard<'_, Known<schedules::Terms>> {
        self.terms.lock().expect("nobody panics while holding it")
    }

    /// What Backups that wait ask for.
    pub(crate) fn asked(&self) -> MutexGuard<'_, Known<backups::Asked>> {
        self.asked.lock().expect("nobody panics while holding it")
    }

    fn busy(&self) -> MutexGuard<'_, BTreeMap<String, Doing>> {
        self.busy.lock().expect("nobody panics while holding it")
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, Duration)>> {
        self.failures
            .lock()
            .expect("nobody panics while holding it")
    }
}

/// Work on an object; it ends with this, even by a panic.
struct Busy {
    desk: Arc<Desk>,
    key: String,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.desk.busy().remove(&self.key);
        self.desk.changed.notify_one();
    }
}

fn uuid() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut random = [0_u64; 2];
    for part in &mut random {
        *part = std::hash::RandomState::new().build_hasher().finish();
    }
    format!("{:016x}{:016x}", random[0], random[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_and_copies_go_on_beside_other_work_on_their_object() {
        let keys = [
            Work::Small,
            Work::Backup,
            Work::Restore,
            Work::Location,
            Work::Deletion,
        ];
        for work in keys {
            assert_eq!(work.key("u-1"), "u-1");
        }
        for work in [Work::Expiry, Work::Repositories, Work::Copy] {
            let beside = work.key("u-1");
            assert_ne!(beside, "u-1");
            assert_eq!((of_key(&beside), of_key("u-1")), ("u-1", "u-1"));
        }
    }
}
