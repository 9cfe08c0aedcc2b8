//! A data dir: its places, its lock, its journal, and what its folders say. Moves nothing.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{Error, Kind as ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};

use super::entry::{Attempt, Entry, Former};
use super::files::{Disk, Files, Kind};
use super::journal::{self, Journal};
use super::plan::{AttemptId, Carried};
use super::slots::{Content, Slots, Truth};
use super::step::Step;
use super::wal;

/// etcd's folder.
pub(crate) const MEMBER: &str = "member";

/// How long the end of another process is waited for: a killed launcher's etcdutl, as a rule.
const PATIENCE: Duration = Duration::from_secs(5);

/// A data dir that nobody else of us works on.
pub(crate) struct DataDir {
    root: PathBuf,
    pub(super) files: Arc<dyn Files>,
    pub(super) journal: Journal,
    lock: Option<OwnedFd>,
    spools: PathBuf,
}

impl DataDir {
    /// Takes it; the folder has to be there.
    ///
    /// # Errors
    /// Kind `AlreadyExists` where another process works on it; kind `Corrupt` for a damaged journal.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let (root, lock) = opened(path)?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(e) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if Instant::now() > deadline {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("another etcd-launcher works on {}", root.display()),
                )
                .because(e)
                .hint("wait for its end, or stop it; nothing was done here"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Self::with(root, Arc::new(Disk), Some(lock.into()))
    }

    /// Looks at it without taking it: what is read may change meanwhile, and nothing may be written.
    ///
    /// # Errors
    /// Kind `Corrupt` for a damaged journal.
    pub(crate) fn look(path: &Path) -> Result<Self> {
        let (root, _) = opened(path)?;
        Self::with(root, Arc::new(Disk), None)
    }

    pub(super) fn with(
        root: PathBuf,
        files: Arc<dyn Files>,
        lock: Option<OwnedFd>,
    ) -> Result<Self> {
        let journal = Journal::read(Arc::clone(&files), root.join(journal::NAME))?;
        Ok(Self {
            spools: root.clone(),
            root,
            files,
            journal,
            lock,
        })
    }

    /// Has this called after each record of the journal.
    pub(crate) fn set_hook(&mut self, hook: journal::Hook) {
        self.journal.set_hook(hook);
    }

    /// Its path, with no link in it.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The lock, to be inherited by a program that works below this folder: then it lasts as long as that program.
    ///
    /// # Errors
    /// When it can not be duplicated.
    pub(crate) fn lock_for_child(&self) -> Result<Option<OwnedFd>> {
        let duplicate = self.lock.as_ref().map(OwnedFd::try_clone).transpose();
        duplicate.map_err(|e| Error::other("can not hand on the lock").because(e))
    }

    /// All attempts, the oldest first.
    pub(crate) fn attempts(&self) -> &[Attempt] {
        self.journal.attempts()
    }

    /// An attempt as the journal tells it now.
    ///
    /// # Errors
    /// Kind `NotFound`.
    pub(crate) fn attempt(&self, id: &AttemptId) -> Result<&Attempt> {
        let found = self.attempts().iter().find(|attempt| attempt.id() == id);
        found.ok_or_else(|| {
            Error::not_found(format!(
                "the journal in {} knows no attempt {id}",
                self.root.display()
            ))
        })
    }

    /// Records that an attempt came so far.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub(crate) fn record(&mut self, id: &AttemptId, step: Step) -> Result<()> {
        self.journal.append(&Entry::new(id, step))
    }

    /// Notes, after the commit, what the state was that was replaced.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub(crate) fn note_former(&mut self, id: &AttemptId, former: Former) -> Result<()> {
        let mut entry = Entry::new(id, Step::Committed);
        entry.former = Some(former);
        self.journal.append(&entry)
    }

    /// `member`
    pub(crate) fn member(&self) -> PathBuf {
        self.root.join(MEMBER)
    }

    /// The folder of an attempt.
    pub(crate) fn side_folder(&self, id: &AttemptId) -> PathBuf {
        self.root.join(format!(".restore-{id}"))
    }

    /// The `member` of an attempt.
    pub(crate) fn side(&self, id: &AttemptId) -> PathBuf {
        self.side_folder(id).join(MEMBER)
    }

    /// The folder in which a side is built; whatever lies in it may be removed at any time.
    pub(crate) fn part(&self, id: &AttemptId) -> PathBuf {
        self.root.join(format!(".restore-{id}.part"))
    }

    /// Where a state waits between two renames.
    pub(super) fn aside(&self, id: &AttemptId) -> PathBuf {
        self.side_folder(id).join("aside")
    }

    /// Has snapshots spooled in another folder.
    pub(crate) fn set_spool_folder(&mut self, folder: PathBuf) {
        self.spools = folder;
    }

    /// Where an attempt's snapshot is spooled.
    pub(crate) fn spool(&self, id: &AttemptId) -> PathBuf {
        self.spools.join(format!(".restore-{id}.db"))
    }

    /// Where a copy of a kept state is run; whatever lies in it may be removed at any time.
    pub(crate) fn copy(&self, id: &AttemptId) -> PathBuf {
        copy_in(&self.root, id)
    }

    /// What the folder `member` carries.
    ///
    /// # Errors
    /// When folders can not be read.
    pub(crate) fn carried(&self) -> Result<Carried> {
        self.carried_by(&self.member())
    }

    /// What a folder like `member` carries, by the first segment of its write-ahead log.
    ///
    /// # Errors
    /// When folders can not be read.
    pub(crate) fn carried_by(&self, member: &Path) -> Result<Carried> {
        self.read_carried(member)
            .map_err(|e| Error::other(format!("can not read {}", member.display())).because(e))
    }

    fn read_carried(&self, member: &Path) -> io::Result<Carried> {
        let unreadable = |why: String| Ok(Carried::Unreadable { why });
        match self.files.kind(member)? {
            Kind::Absent => return Ok(Carried::Absent),
            Kind::Folder => {}
            _ => return unreadable("it is no folder".into()),
        }
        let folder = member.join("wal");
        if self.files.kind(&folder)? != Kind::Folder {
            return unreadable("it has no write-ahead log".into());
        }
        let names = self.files.list(&folder)?;
        let first = names
            .iter()
            .filter_map(|name| Some((wal::sequence(name.to_str()?)?, name)))
            .min();
        let Some((_, name)) = first else {
            return unreadable("its write-ahead log has no segment".into());
        };
        match wal::owner(&self.files.read(&folder.join(name), wal::HEAD)?) {
            Ok(owner) => Ok(Carried::Cluster {
                cluster_id: owner.cluster,
                member_id: owner.member,
            }),
            Err(why) => unreadable(format!("{} {why}", name.display())),
        }
    }

    /// Where the states of an attempt are.
    ///
    /// # Errors
    /// When folders can not be read.
    pub(crate) fn slots(&self, attempt: &Attempt) -> Result<Slots> {
        let plan = &attempt.plan;
        let content = |carried: Carried| match carried {
            Carried::Absent => Content::Absent,
            found if found.cluster() == Some(plan.cluster_id) => Content::New,
            found if found.is_same(&plan.old) => Content::Old,
            _ => Content::Foreign,
        };
        Ok(Slots {
            member: content(self.carried()?),
            side: content(self.carried_by(&self.side(attempt.id()))?),
            aside: content(self.carried_by(&self.aside(attempt.id()))?),
            had_old: plan.old != Carried::Absent,
        })
    }

    /// Whether an attempt's state is in place. An attempt that never came to the exchange was not exchanged, whatever lies in its side.
    ///
    /// # Errors
    /// When folders can not be read.
    pub(crate) fn truth(&self, attempt: &Attempt) -> Result<Truth> {
        let truth = self.slots(attempt)?.truth();
        if !attempt.may_be_exchanged && truth != Truth::Before {
            return Ok(Truth::Elsewhere);
        }
        Ok(truth)
    }

    /// The attempt whose state `member` carries, where it is of one.
    ///
    /// # Errors
    /// When folders can not be read.
    pub(crate) fn in_effect(&self) -> Result<Option<&Attempt>> {
        let cluster = self.carried()?.cluster();
        Ok(self
            .attempts()
            .iter()
            .rev()
            .find(|a| a.may_be_exchanged && Some(a.plan.cluster_id) == cluster))
    }
}

/// As [`DataDir::copy`].
pub(super) fn copy_in(root: &Path, id: &AttemptId) -> PathBuf {
    root.join(format!(".restore-{id}.copy"))
}

fn opened(path: &Path) -> Result<(PathBuf, File)> {
    let failed = |e: io::Error| {
        let kind = match e.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Forbidden,
            _ => ErrorKind::Other,
        };
        Error::new(
            kind,
            format!("can not open the data dir {}", path.display()),
        )
        .because(e)
    };
    let root = path.canonicalize().map_err(failed)?;
    let folder = File::open(&root).map_err(failed)?;
    if !folder.metadata().map_err(failed)?.is_dir() {
        return Err(Error::invalid(format!("{} is no folder", root.display())));
    }
    Ok((root, folder))
}
