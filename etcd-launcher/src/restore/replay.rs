//! The work of a rollback that goes forward: a kept state becomes a snapshot again. Where its database has all that its write-ahead log
//! knows, as after a stop in peace, that is the snapshot. Else a copy is run alone on unix sockets until its log is applied.
//! The kept state itself is only read.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use backup_core::etcd::{Database, Facts};
use backup_core::progress::Progress;
use backup_core::{Error, Kind as ErrorKind, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::entry::{Content, Former, Snapshot};
use super::etcdutl::Tool;
use super::job::Builder;
use super::plan::{AttemptId, Plan};
use super::version::Line;
use super::wal::tail::Tail;
use super::work::Work;
use super::{dir, etcdutl, fence, fit, proof};
use crate::source::blocking;

/// A log takes no longer to be applied: 10,000 to 100,000 entries.
const START: Duration = Duration::from_secs(120);

/// etcd ends sooner when nobody watches it.
const STOP: Duration = Duration::from_secs(30);

/// The socket, in the copy.
const SOCKET: &str = "client.sock";

/// A rollback from a kept state.
pub(crate) struct FromKept<'a> {
    /// What is the same whatever is restored.
    pub(crate) builder: Builder<'a>,
    /// The etcd that applies the log where that is needed: `--etcd`.
    pub(crate) etcd: Option<PathBuf>,
    /// The kept `member`.
    pub(crate) kept: PathBuf,
    /// What was noted before it was replaced.
    pub(crate) former: Option<Former>,
    /// The data dir.
    pub(crate) root: PathBuf,
    /// What the copy became.
    pub(crate) facts: Option<Facts>,
}

impl FromKept<'_> {
    /// Makes a snapshot of the kept state at `spool`: a database without a trailer.
    ///
    /// # Errors
    /// Where it is not what was noted, does not fit here, or etcd does not start on a copy.
    pub(crate) async fn look(
        &mut self,
        attempt: &AttemptId,
        name: &str,
        spool: &Path,
    ) -> Result<Snapshot> {
        let progress = self.builder.progress;
        let copy = dir::copy_in(&self.root, attempt);
        progress.step("reading the log of the kept state");
        let tail = blocking(|| Tail::read(&self.kept.join("wal")))?;
        let facts = Database::open(&self.kept.join("snap").join("db"))?.facts(progress)?;
        progress.step("copying the kept state");
        self.copy(&copy)?;
        if facts.consistent_index < tail.last_index {
            let etcd = self.etcd(fit::line_of(&facts)).await?;
            progress.step("applying its log");
            Tail::read(&copy.join("member").join("wal"))?.commit_all()?;
            run(&etcd, name, &copy, self.builder.lock()?).await?;
        }
        let db = copy.join("member").join("snap").join("db");
        let moved = fs::rename(&db, spool)
            .or_else(|_| fs::copy(&db, spool).map(|_| ()))
            .and_then(|()| fs::remove_dir_all(&copy));
        moved.map_err(|e| Error::other(format!("can not move {}", db.display())).because(e))?;
        progress.step("comparing with what was noted");
        let database = Database::open(spool)?;
        let shown = self.kept.display().to_string();
        let (snapshot, facts, _) = proof::snapshot(&database, &shown, progress)?;
        if let Some(former) = &self.former {
            compare(former, &snapshot, &database, progress)?;
        }
        self.builder.fits(&facts, None).await?;
        self.facts = Some(facts);
        Ok(snapshot)
    }
}

impl Work for FromKept<'_> {
    async fn fetch(&mut self, plan: &Plan, spool: &Path) -> Result<Snapshot> {
        self.look(&plan.attempt, &plan.name, spool).await
    }

    async fn build(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        spool: &Path,
        side: &Path,
    ) -> Result<()> {
        let facts = self.facts.clone().unwrap_or_default();
        self.builder
            .build(plan, snapshot, &facts, spool, side)
            .await
    }

    async fn prove(&mut self, plan: &Plan, snapshot: &Snapshot, member: &Path) -> Result<()> {
        self.builder.prove(plan, snapshot, member)
    }
}

/// Index and term of the last entry in a kept state's log.
///
/// # Errors
/// Kind `Corrupt`, where etcd would not read it either.
pub(crate) fn tail(kept: &Path) -> Result<(u64, u64)> {
    let tail = blocking(|| Tail::read(&kept.join("wal")))?;
    Ok((tail.last_index, tail.last_term))
}

/// Compares what a kept state became with what was noted of it. The log may have known more than the database did; the noted
/// revision is looked at then.
fn compare(
    former: &Former,
    snapshot: &Snapshot,
    database: &Database,
    progress: &dyn Progress,
) -> Result<()> {
    if snapshot.revision < former.revision {
        return Err(Error::corrupt(format!(
            "the kept state is at revision {} and was at {} when it was replaced",
            snapshot.revision, former.revision
        )));
    }
    // A launcher that ended before it had read them.
    let Some(noted) = &former.content else {
        return Ok(());
    };
    let then = if snapshot.revision == former.revision {
        snapshot.content.clone()
    } else {
        match blocking(|| database.digest(Some(former.revision), progress)) {
            Ok(digest) => Content::from(digest),
            // Its log compacted it further: what it was then can not be told any more.
            Err(e) if e.kind() == ErrorKind::Invalid => return Ok(()),
            Err(e) => return Err(e),
        }
    };
    if then != *noted {
        return Err(Error::corrupt(format!(
            "the kept state holds other keys at revision {} than when it was replaced",
            former.revision
        )));
    }
    Ok(())
}

impl FromKept<'_> {
    /// The etcd of the release line that wrote the state: the one that was named, else `etcd-3.6` or `etcd` where tools are looked for.
    async fn etcd(&self, line: Line) -> Result<PathBuf> {
        if let Some(path) = &self.etcd {
            return Ok(path.clone());
        }
        for folder in &self.builder.search {
            for name in [format!("etcd-{line}"), "etcd".to_owned()] {
                let path = folder.join(name);
                if path.is_file()
                    && let Ok(tool) = Tool::ask(&path, "--version").await
                    && tool.version.line == line
                {
                    return Ok(path);
                }
            }
        }
        Err(Error::invalid(format!(
            "no etcd {line} was found, which is needed to apply the log of the kept state: it was not stopped in peace"
        ))
        .hint("name it with --etcd PATH"))
    }

    /// Copies what etcd needs of the kept state.
    fn copy(&self, copy: &Path) -> Result<()> {
        let failed = |e: io::Error| {
            Error::other(format!(
                "can not copy {} to {}",
                self.kept.display(),
                copy.display()
            ))
            .because(e)
        };
        let files = self.files().map_err(failed)?;
        let bytes = files.iter().map(|(_, bytes)| bytes).sum();
        let database = files.iter().map(|(_, bytes)| bytes).max().copied();
        let free = fence::free_space(&self.builder.data_dir)?;
        fit::check_space(
            database.unwrap_or(0),
            free.saturating_sub(bytes),
            &self.builder.data_dir,
            self.builder.more_room,
        )?;
        if copy.exists() {
            fs::remove_dir_all(copy).map_err(failed)?;
        }
        for (file, _) in files {
            let to = copy.join("member").join(&file);
            let folder = to.parent().unwrap_or(copy);
            fs::DirBuilder::new()
                .recursive(true)
                .create(folder)
                .and_then(|()| fs::copy(self.kept.join(&file), &to))
                .map_err(failed)?;
        }
        // etcd insists on folders that only their owner may enter.
        for folder in ["", "member", "member/snap", "member/wal"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(copy.join(folder), mode).map_err(failed)?;
        }
        Ok(())
    }

    /// The files of a member, relative to it, with their sizes.
    fn files(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for (folder, wanted) in [("snap", ["db", "snap"]), ("wal", ["wal", "wal"])] {
            for entry in fs::read_dir(self.kept.join(folder))? {
                let entry = entry?;
                let name = PathBuf::from(entry.file_name());
                let kind = name.extension().or(name.file_name()).unwrap_or_default();
                let found = entry.metadata()?;
                if found.is_file() && wanted.iter().any(|w| kind == *w) {
                    files.push((Path::new(folder).join(name), found.len()));
                }
            }
        }
        Ok(files)
    }
}

/// Runs etcd on a copy until it serves, then stops it: everything that was committed is in its database then.
async fn run(etcd: &Path, name: &str, copy: &Path, lock: Option<OwnedFd>) -> Result<()> {
    let failed = |what: &str| Error::other(format!("{}: {what}", etcd.display()));
    let log = copy.join("etcd.log");
    let output = File::create(&log).map_err(|e| failed("can not write its log").because(e))?;
    let errors = output
        .try_clone()
        .map_err(|e| failed("can not write its log").because(e))?;
    // Relative, for the path of a socket has no more than 107 bytes. The copy is thrown away: nothing of it has to survive.
    let mut child = Command::new(etcd)
        .args(["--name", name, "--data-dir", ".", "--force-new-cluster"])
        .args(["--unsafe-no-fsync", "--auto-compaction-retention=0"])
        .arg(format!("--listen-client-urls=unix://{SOCKET}"))
        .arg("--advertise-client-urls=http://127.0.0.1:1")
        .arg("--listen-peer-urls=unix://peer.sock")
        .current_dir(copy)
        .env_clear()
        .stdin(lock.map_or_else(Stdio::null, Stdio::from))
        .stdout(output)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed("can not be run").because(e))?;
    let served = serves(&mut child, copy).await;
    let stopped = stop(&mut child).await;
    if let Err(e) = served.and(stopped) {
        let told = fs::read(&log).unwrap_or_default();
        return Err(failed("could not apply the log of the kept state")
            .because(e.because(etcdutl::tail(&told))));
    }
    Ok(())
}

/// Waits until etcd answers a linearizable read: everything before it is applied.
async fn serves(child: &mut Child, copy: &Path) -> Result<()> {
    let folder = File::open(copy)
        .map_err(|e| Error::other(format!("can not open {}", copy.display())).because(e))?;
    let socket =
        PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd())).join(SOCKET);
    let deadline = Instant::now() + START;
    loop {
        if let Ok(true) = is_healthy(&socket).await {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Error::other(format!("it ended with {status}")));
        }
        if Instant::now() > deadline {
            return Err(Error::other(format!("it does not serve after {START:?}")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn is_healthy(socket: &Path) -> io::Result<bool> {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.take(64 << 10).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).contains("\"health\":\"true\""))
    };
    tokio::time::timeout(Duration::from_secs(10), ask)
        .await
        .unwrap_or(Ok(false))
}

async fn stop(child: &mut Child) -> Result<()> {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok())
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let ended = tokio::time::timeout(STOP, child.wait()).await;
    match ended {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(Error::other("it can not be waited for").because(e)),
        Err(_) => {
            let _ = child.kill().await;
            Err(Error::other(format!("it did not stop within {STOP:?}")))
        }
    }
}
