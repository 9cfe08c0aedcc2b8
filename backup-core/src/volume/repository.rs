//! The one place that knows rustic: a repository of restic's format below a folder of a [`Store`](crate::location::Store). Everything here waits, so it runs on a thread that may;
//! nothing here decides whether a snapshot may appear, that is [`store`](super::store)'s. rustic keeps no locks and reads none: nobody is kept out by this module.

mod archive;
mod keyfile;
mod node;
mod objects;
mod show;
mod walk;

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use jiff::{Span, Timestamp};
use rustic_core::repofile::{BlobType, MasterKey, SnapshotFile, SnapshotId, StringList};
use rustic_core::{
    BackupOptions, CheckOptions, ConfigOptions, Credentials, DataId, FileType, Id, IndexedFull,
    KeyOptions, OpenStatus, ParentOptions, PruneOptions, Repository, RepositoryBackends,
    RepositoryOptions, RusticError, TreeId, WriteBackend as _,
};

use super::entry::Entry;
use super::rails::Rail;
use super::source::{Counted, Opened, Source, Tally};
use crate::error::{Error, Kind, Result};
use crate::location::{Sha256, sha256};
use walk::{Before, Stored, Walk};

pub(super) use objects::{Access, Objects};
pub use show::Part;

/// Whose snapshots these are; restic groups them by it.
const HOST: &str = "kubectl-backup";

/// The bytes after which a pack of files' content is full.
const PACK: ByteSize = ByteSize::mib(16);

/// Blobs that are fetched ahead of what is written, and by how many.
const AHEAD: u64 = 24 << 20;
const MOST_AHEAD: usize = 512;
const FETCHERS: usize = 4;

/// A file that is listed and not archived.
#[cfg(test)]
pub(super) const DROPPED: &str = "dropped-by-the-archiver";

/// A snapshot as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id: 64 hex digits.
    pub id: String,
    /// When it was made, by the clock of whoever made it.
    pub time: Timestamp,
    /// `backup=...`, `backup-uid=...`, `run=...`
    pub tags: Vec<String>,
    /// Whether this program made it.
    pub is_ours: bool,
}

/// What an archived snapshot came to, before it is published.
pub(super) struct Archived {
    /// Its id, its key in the store and its bytes.
    pub(super) id: String,
    pub(super) key: String,
    pub(super) bytes: Bytes,
    /// What was read.
    pub(super) counted: Counted,
    /// Bytes that were added to the repository, as they stand there.
    pub(super) added_bytes: u64,
    tree: TreeId,
    /// What it builds upon.
    parent: Option<String>,
    /// What was read; the rest was taken over from the parent.
    opened: Opened,
    unlocked: Unlocked,
}

/// What opens a repository without the work that a password costs; it is held in memory alone.
#[derive(Clone)]
pub(super) struct Unlocked(MasterKey);

/// What is restored into.
pub trait Target {
    /// The next entry, in the order of a listing; the content of a file follows.
    ///
    /// # Errors
    /// What ends the restore; what is wrong with one entry alone is noted by the target.
    fn entry(&mut self, entry: &Entry) -> Result<()>;

    /// The next bytes of the last file.
    ///
    /// # Errors
    /// As above.
    fn data(&mut self, bytes: Bytes) -> Result<()>;

    /// All entries came.
    ///
    /// # Errors
    /// As above.
    fn finish(&mut self) -> Result<()>;
}

/// What a prune did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Bytes that were marked now: they are removed by a prune that comes after the time that is kept.
    pub marked_bytes: u64,
    /// Bytes that were marked before and are still kept.
    pub waiting_bytes: u64,
    /// Bytes that were removed.
    pub removed_bytes: u64,
    /// From when on a prune removes what is marked, where something is.
    pub next: Option<Timestamp>,
}

/// rustic's words, without its advice to report.
fn said(error: &RusticError) -> String {
    let text = error.display_log();
    let text = text.strip_prefix("Error: ").unwrap_or(&text);
    text.split(" (kind: related to")
        .next()
        .unwrap_or(text)
        .trim()
        .to_owned()
}

/// An open repository.
pub(super) struct Open {
    repository: Repository<OpenStatus>,
    objects: Arc<Objects>,
}

fn repository(objects: &Arc<Objects>) -> Result<Repository<()>> {
    let options = RepositoryOptions::default().no_cache(true);
    let backends = RepositoryBackends::new(Arc::clone(objects) as _, None);
    Repository::new(&options, &backends).map_err(|e| failed(objects, "be used", &e))
}

/// A handful of packs are on their way at any time: restic's own size of them, whatever the volume's, bounds what a backup takes.
fn configured() -> ConfigOptions {
    let mut options = ConfigOptions::default();
    options.set_datapack_size = Some(PACK);
    options.set_datapack_growfactor = Some(0);
    options.set_treepack_growfactor = Some(0);
    options
}

/// The store's own failure where there was one, else rustic's.
fn failed(objects: &Objects, what: &str, error: &RusticError) -> Error {
    objects.failure().unwrap_or_else(|| {
        Error::corrupt(format!("the repository can not {what}: {}", said(error)))
    })
}

/// Whether it says something of what is stored, and not of the store alone: one that does not answer has lost nothing yet.
fn is_damage(failure: &Error) -> bool {
    matches!(failure.kind(), Kind::Corrupt | Kind::NotFound)
}

impl Open {
    /// Writes the key and the configuration of a repository that is not there.
    pub(super) fn begin(objects: Arc<Objects>, password: &str) -> Result<Self> {
        let repository = repository(&objects)?;
        let master = MasterKey::new();
        let key = keyfile::made(&master, password, HOST)?;
        let id: Id = sha256(&key)
            .parse()
            .map_err(|e: Box<RusticError>| failed(&objects, "be begun", &e))?;
        let begun = objects
            .write_bytes(FileType::Key, &id, false, key.into())
            .and_then(|()| {
                let master = Credentials::Masterkey(master);
                repository.init(&master, &KeyOptions::default(), &configured())
            });
        let repository = begun.map_err(|e| failed(&objects, "be begun", &e))?;
        Ok(Self {
            repository,
            objects,
        })
    }

    /// Opens one that is there.
    pub(super) fn by_password(objects: Arc<Objects>, password: &str) -> Result<Self> {
        Self::by(objects, &Credentials::password(password))
    }

    /// Opens one that was opened before.
    pub(super) fn with(objects: Arc<Objects>, unlocked: &Unlocked) -> Result<Self> {
        Self::by(objects, &Credentials::Masterkey(unlocked.0.clone()))
    }

    /// What opens it again.
    pub(super) fn unlocked(&self) -> Unlocked {
        Unlocked(self.repository.key())
    }

    fn by(objects: Arc<Objects>, credentials: &Credentials) -> Result<Self> {
        let opened = repository(&objects)?.open(credentials).map_err(|e| {
            if e.is_incorrect_password() {
                return Error::new(
                    Kind::Unauthorized,
                    "the password that stands beside the repository does not open it",
                )
                .hint(
                    "somebody replaced the key or the repository's own keys; nothing was written",
                );
            }
            failed(&objects, "be opened", &e)
        })?;
        Ok(Self {
            repository: opened,
            objects,
        })
    }

    /// Every snapshot, oldest first.
    pub(super) fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let all = self.repository.get_all_snapshots();
        let all = all.map_err(|e| failed(&self.objects, "be listed", &e))?;
        let mut all: Vec<_> = all.into_iter().map(listed).collect();
        all.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
        Ok(all)
    }

    /// Reads the source and stores what is new. What is unchanged since `parent` is not read. No snapshot appears: it is in what this returns.
    pub(super) fn archive(
        self,
        source: &dyn Source,
        parent: Option<&str>,
        tags: &[String],
    ) -> Result<Archived> {
        let objects = Arc::clone(&self.objects);
        let unlocked = self.unlocked();
        let indexed = self
            .repository
            .to_indexed_ids()
            .map_err(|e| failed(&objects, "be read", &e))?;
        let tally = Tally::until(objects.over());
        let reading = archive::Reading::new(source.entries()?, &tally, &objects);
        let mut snapshot = SnapshotFile {
            hostname: HOST.to_owned(),
            program_version: format!("kubectl-backup {}", env!("CARGO_PKG_VERSION")),
            ..SnapshotFile::default()
        };
        for tag in tags {
            snapshot.tags.add(tag.clone());
        }
        let mut parents = ParentOptions::default();
        match parent {
            // Without one it would take whichever is the latest.
            None => parents.force = true,
            Some(_) if Rail::ExactParent.is_off() => {}
            Some(parent) => parents.parents = vec![parent.to_owned()],
        }
        let mut options = BackupOptions::default();
        options.parent_opts = parents;
        options.no_scan = true;
        let paths = [node::ROOT.into()];
        let saved = indexed.archive(&options, &reading, snapshot, &paths);
        // Whatever rustic made of it, the store's own failure comes first.
        if let Some(failure) = objects.failure() {
            return Err(failure);
        }
        let counted = tally.counted();
        if !Rail::SourceErrors.is_off() {
            counted.veto()?;
        }
        let snapshot = saved.map_err(|e| failed(&objects, "be added to", &e))?;
        let (id, bytes) = objects
            .held()
            .ok_or_else(|| Error::other("the repository wrote no snapshot"))?;
        Ok(Archived {
            id: id.to_hex().as_str().to_owned(),
            key: objects.key(FileType::Snapshot, &id),
            bytes,
            counted,
            added_bytes: snapshot.summary.map_or(0, |sum| sum.data_added_packed),
            tree: snapshot.tree,
            parent: parent.map(str::to_owned),
            opened: tally.opened(),
            unlocked,
        })
    }

    /// This one.
    pub(super) fn snapshot(&self, id: &str) -> Result<Snapshot> {
        self.find(id).map(listed)
    }

    fn find(&self, id: &str) -> Result<SnapshotFile> {
        let id = SnapshotId::from(parsed(id)?);
        self.repository.get_file::<SnapshotFile>(&id).map_err(|e| {
            let e = failed(&self.objects, "give this snapshot", &e);
            if e.kind() == Kind::NotFound {
                return Error::not_found(format!("there is no snapshot {}", id.to_hex().as_str()));
            }
            e
        })
    }

    /// Hands a snapshot's entries and their content to a target.
    pub(super) fn restore(self, id: &str, target: &mut dyn Target) -> Result<()> {
        let tree = self.find(id)?.tree;
        let objects = self.objects;
        let repository = self
            .repository
            .to_indexed()
            .map_err(|e| failed(&objects, "be read", &e))?;
        let ended = hand_on(&repository, Walk::new(&repository, tree), target);
        // What the store said is told rather than what came of it.
        ended.map_err(|e| objects.failure().unwrap_or(e))?;
        target.finish()
    }

    /// What is wrong with the repository; with `read_data` every blob that a snapshot needs is read, and compared with its name.
    pub(super) fn check(&self, read_data: bool) -> Result<Vec<String>> {
        // rustic's own reading of data ends in a panic where its threads are slow to end, and compares no blob with its name.
        let results = self
            .repository
            .check(CheckOptions::default())
            .map_err(|e| failed(&self.objects, "be checked", &e))?;
        if let Some(failure) = self.objects.failure() {
            return match is_damage(&failure) {
                true => Ok(vec![failure.sentence()]),
                false => Err(failure),
            };
        }
        let bad = results.is_ok().is_err();
        let found = results.0.iter().map(|(_, error)| error.to_string());
        let mut found: Vec<_> = if bad { found.collect() } else { Vec::new() };
        if read_data {
            self.read_all(&mut found)?;
        }
        Ok(found)
    }

    fn read_all(&self, found: &mut Vec<String>) -> Result<()> {
        let ours = self.snapshots()?.into_iter().filter(|one| one.is_ours);
        let ours: Vec<_> = ours.map(|one| self.find(&one.id)).collect::<Result<_>>()?;
        let opened = Self::with(Arc::clone(&self.objects), &self.unlocked())?;
        let repository = opened
            .repository
            .to_indexed()
            .map_err(|e| failed(&self.objects, "be read", &e))?;
        // As they lie in their packs.
        let mut blobs = BTreeSet::new();
        for snapshot in ours {
            for stored in Walk::new(&repository, snapshot.tree) {
                let stored = match stored {
                    Ok(stored) => stored,
                    Err(e) => {
                        found.push(format!("snapshot {}: {}", snapshot.id, e.sentence()));
                        continue;
                    }
                };
                for id in stored.content {
                    match repository.get_index_entry(&id) {
                        Ok(at) => drop(blobs.insert((at.pack, at.location.offset, id))),
                        Err(e) => found.push(format!("{}: {}", stored.entry.path, said(&e))),
                    }
                }
            }
        }
        let blobs: Vec<_> = blobs.into_iter().collect();
        let problems = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for part in blobs.chunks(blobs.len().div_ceil(FETCHERS).max(1)) {
                let (repository, problems) = (&repository, &problems);
                scope.spawn(move || {
                    for (_, _, id) in part {
                        if let Err(e) = walk::blob(repository, &(*id).into(), BlobType::Data) {
                            let mut problems =
                                problems.lock().unwrap_or_else(PoisonError::into_inner);
                            problems.push(e.sentence());
                        }
                    }
                });
            }
        });
        found.append(
            &mut problems
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
        );
        match self.objects.failure() {
            Some(failure) if !is_damage(&failure) => {
                Err(failure.context("not all that it holds could be read"))
            }
            // It is among them.
            _ => Ok(()),
        }
    }

    /// Marks what no snapshot needs, and removes what was marked so long ago.
    pub(super) fn prune(&self, keep_delete: Duration) -> Result<Pruned> {
        let mut options = PruneOptions::default();
        let seconds = i64::try_from(keep_delete.as_secs()).unwrap_or(i64::MAX);
        options.keep_delete = Span::new()
            .try_seconds(seconds)
            .map_err(|e| Error::invalid("this is no time to keep something").because(e))?;
        options.instant_delete = Rail::TwoPhases.is_off();
        let failed = |what, e: Box<RusticError>| failed(&self.objects, what, &e);
        let plan = self.repository.prune_plan(&options);
        let plan = plan.map_err(|e| failed("be pruned", e))?;
        let sum = plan.stats.size_sum();
        let done = Pruned {
            marked_bytes: sum.remove + sum.repack + plan.stats.size_unref,
            waiting_bytes: plan.stats.size_to_delete.keep,
            removed_bytes: plan.stats.size_to_delete.remove,
            next: None,
        };
        let pruned = self.repository.prune(&options, plan);
        if let Some(failure) = self.objects.failure() {
            return Err(failure);
        }
        pruned.map_err(|e| failed("be pruned", e))?;
        Ok(done)
    }
}

impl Archived {
    /// Reads the tree back, in a repository that knows nothing but what stands in the store: it is what was listed, what was not read is as the snapshot before has it, and
    /// every pack that it needs is there.
    pub(super) fn verify(&self, objects: Arc<Objects>) -> Result<()> {
        let opened = Open::with(Arc::clone(&objects), &self.unlocked)?;
        let parent = self.parent.as_deref();
        let parent = parent.map(|id| opened.find(id)).transpose()?;
        let repository = opened
            .repository
            .to_indexed()
            .map_err(|e| failed(&objects, "be read back", &e))?;
        let mut walk = Walk::new(&repository, self.tree);
        let parent = parent.map(|parent| Walk::new(&repository, parent.tree));
        let walked = self.compare(&mut walk, Before::new(parent));
        let packs = walk.packs;
        if !Rail::TreeWalked.is_off() {
            walked.map_err(|e| objects.failure().unwrap_or(e))?;
        }
        if Rail::PacksListed.is_off() {
            return Ok(());
        }
        let listed = objects.list(FileType::Pack);
        let listed = listed.map_err(|e| failed(&objects, "be listed", &e))?;
        let listed: std::collections::BTreeMap<Id, u64> = listed.into_iter().collect();
        let missing = packs.iter().find(|(pack, end)| {
            let size = listed.get(&***pack);
            size.is_none_or(|size| size < *end)
        });
        if let Some((pack, _)) = missing {
            return Err(Error::corrupt(format!(
                "{} was stored and is not there any more, or is cut",
                objects.key(FileType::Pack, pack)
            ))
            .hint("no snapshot was made; a lifecycle rule of the bucket, another program or a person removes what stands below restic/: end that, then run it again"));
        }
        Ok(())
    }

    fn compare<S: IndexedFull>(
        &self,
        walk: &mut Walk<'_, S>,
        mut before: Before<'_, S>,
    ) -> Result<()> {
        let (mut entries, mut digest) = (0, Sha256::default());
        while let Some(stored) = walk.next() {
            let stored = stored?;
            let bytes = walk.located(&stored)?;
            let entry = &stored.entry;
            if entry.is_file() && bytes != entry.size {
                return Err(Error::corrupt(format!(
                    "of {} {bytes} bytes are stored, and it was listed with {}",
                    entry.path, entry.size
                )));
            }
            // rustic reads the snapshot before without comparing its folders with their names.
            if entry.is_file() && !self.opened.has(entries) && !before.has(&stored) {
                return Err(Error::corrupt(format!(
                    "{} was not read, and is not as the snapshot has it that this one builds upon",
                    entry.path
                ))
                .hint("no snapshot was made; somebody alters what stands below restic/: find out who, and read every file anew"));
            }
            entries += 1;
            entry.digest(&mut digest);
        }
        if entries != self.counted.entries || digest.finish() != self.counted.digest {
            return Err(Error::other(format!(
                "what is stored is not what was listed: {entries} entries, {} were listed",
                self.counted.entries
            ))
            .hint("no snapshot was made; please report it"));
        }
        Ok(())
    }
}

/// A blob as it lies in its pack, for tests that alter it.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(super) struct Lying {
    pub(super) is_folder: bool,
    pub(super) pack: String,
    pub(super) bytes: std::ops::Range<usize>,
    /// How long it is when it is read.
    pub(super) length: u32,
}

#[cfg(test)]
impl Open {
    /// Every blob of a snapshot, a folder's before what is in it.
    pub(super) fn lying(self, snapshot: &str) -> Vec<Lying> {
        let mut folders = vec![self.find(snapshot).unwrap().tree];
        let objects = self.objects;
        let repository = self.repository.to_indexed().unwrap();
        let mut all = Vec::new();
        let mut add = |is_folder, id: Id| {
            let at = if is_folder {
                repository.get_index_entry(&TreeId::from(id))
            } else {
                repository.get_index_entry(&DataId::from(id))
            };
            let at = at.unwrap();
            let start = at.location.offset as usize;
            all.push(Lying {
                is_folder,
                pack: objects.key(FileType::Pack, &at.pack),
                bytes: start..start + at.location.length as usize,
                length: at.data_length(),
            });
        };
        while let Some(folder) = folders.pop() {
            add(true, *folder);
            for node in repository.get_tree(&folder).unwrap().nodes {
                folders.extend(node.subtree);
                for id in node.content.into_iter().flatten() {
                    add(false, *id);
                }
            }
        }
        all
    }
}

fn listed(snapshot: SnapshotFile) -> Snapshot {
    Snapshot {
        id: snapshot.id.to_hex().as_str().to_owned(),
        time: snapshot.time.timestamp(),
        tags: snapshot.tags.iter().cloned().collect(),
        is_ours: is_ours(&snapshot),
    }
}

fn is_ours(snapshot: &SnapshotFile) -> bool {
    snapshot.hostname == HOST && snapshot.paths == paths()
}

fn paths() -> StringList {
    let mut paths = StringList::default();
    paths.add(node::ROOT.to_owned());
    paths
}

fn parsed(id: &str) -> Result<Id> {
    let is_hex = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let parsed = is_hex.then(|| id.parse().ok()).flatten();
    parsed.ok_or_else(|| Error::invalid(format!("{id:?} is no id of a snapshot")))
}

/// What is handed on next: an entry, or a blob that somebody fetches.
enum Next {
    Entry(Box<Entry>),
    Blob(u64, Receiver<Result<Bytes>>),
}

type Job = (DataId, SyncSender<Result<Bytes>>);

/// Walks, fetches blobs ahead, and hands both on in their order.
fn hand_on<S: IndexedFull + Sync>(
    repository: &Repository<S>,
    mut walk: Walk<'_, S>,
    target: &mut dyn Target,
) -> Result<()>
where
    Repository<S>: Sync,
{
    let (jobs, taken) = sync_channel::<Job>(MOST_AHEAD);
    let taken = Arc::new(Mutex::new(taken));
    // The jobs end with the closure, and with them those who wait for one.
    std::thread::scope(move |scope| {
        for _ in 0..FETCHERS {
            let taken = Arc::clone(&taken);
            scope.spawn(move || {
                loop {
                    let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((id, answer)) = job else { return };
                    let blob = walk::blob(repository, &id.into(), BlobType::Data);
                    // Nobody waits for it any more where the restore ended.
                    let _ = answer.send(blob);
                }
            });
        }
        let mut queue = VecDeque::new();
        let mut ahead = 0;
        let mut content: std::vec::IntoIter<DataId> = Vec::new().into_iter();
        let mut over = false;
        loop {
            while !over && ahead < AHEAD && queue.len() < MOST_AHEAD {
                if let Some(id) = content.next() {
                    let length = repository
                        .get_index_entry(&id)
                        .map_err(|e| Error::corrupt(said(&e)))?
                        .data_length();
                    let (answer, blob) = sync_channel(1);
                    jobs.send((id, answer))
                        .map_err(|_| Error::other("nothing is read any more"))?;
                    ahead += u64::from(length);
                    queue.push_back(Next::Blob(length.into(), blob));
                    continue;
                }
                match walk.next().transpose()? {
                    None => over = true,
                    Some(stored) => {
                        let Stored {
                            entry,
                            content: blobs,
                        } = stored;
                        queue.push_back(Next::Entry(Box::new(entry)));
                        content = blobs.into_iter();
                    }
                }
            }
            match queue.pop_front() {
                None => return Ok(()),
                Some(Next::Entry(entry)) => target.entry(&entry)?,
                Some(Next::Blob(length, blob)) => {
                    ahead -= length;
                    let bytes = blob
                        .recv()
                        .map_err(|_| Error::other("nothing is read any more"))??;
                    target.data(bytes)?;
                }
            }
        }
    })
}
