//! The proof that no etcd runs on a data dir, and that its folder can be moved at all. Starts and stops nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use backup_core::etcd::Database;
use backup_core::{Error, Result};
use rustix::fs::{AtFlags, CWD, FlockOperation, StatxAttributes, StatxFlags, flock, statx};

use super::dir::DataDir;

/// Says whether somebody who was not there before uses the old state.
pub(crate) trait Stopped {
    /// An error where somebody does.
    ///
    /// # Errors
    /// Kind `Other`, naming the process.
    fn check(&self) -> Result<()>;
}

/// etcd's own lock, held: an exclusive flock on `member/snap/db`, which goes with the file wherever it is moved.
#[derive(Debug)]
pub(crate) struct Fence {
    db: Option<File>,
    path: PathBuf,
}

impl Fence {
    /// Takes the lock; where there is no database, there is nothing to take.
    ///
    /// # Errors
    /// Where etcd holds it.
    pub(crate) fn take(dir: &DataDir) -> Result<Self> {
        let path = database(dir);
        let db = match File::open(&path) {
            Ok(db) => Some(db),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                return Err(Error::other(format!("can not open {}", path.display())).because(e));
            }
        };
        let fence = Self { db, path };
        if let Some(db) = &fence.db
            && let Err(e) = flock(db, FlockOperation::NonBlockingLockExclusive)
        {
            let who = fence.users().first().map_or_else(String::new, |pid| {
                format!(" (process {pid}, {})", command_of(*pid))
            });
            return Err(Error::other(format!(
                "etcd still runs on {}: it holds {}{who}",
                dir.root().display(),
                fence.path.display()
            ))
            .because(e)
            .hint("stop it first (a static pod: move its manifest out of the manifests folder) and wait until the process is gone"));
        }
        fence.check()?;
        Ok(fence)
    }

    /// Processes that have the database open, besides this one; those of other users are seen by root only.
    fn users(&self) -> Vec<u32> {
        let Some(Ok(ours)) = self.db.as_ref().map(File::metadata) else {
            return Vec::new();
        };
        let me = std::process::id();
        let Ok(processes) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != me)
            .filter(|pid| {
                let open = fs::read_dir(format!("/proc/{pid}/fd"));
                open.is_ok_and(|mut open| {
                    open.any(|fd| {
                        fd.and_then(|fd| fs::metadata(fd.path()))
                            .is_ok_and(|f| (f.dev(), f.ino()) == (ours.dev(), ours.ino()))
                    })
                })
            })
            .collect()
    }
}

impl Stopped for Fence {
    fn check(&self) -> Result<()> {
        match self.users().first() {
            None => Ok(()),
            Some(pid) => Err(Error::other(format!(
                "process {pid} ({}) opened {} meanwhile",
                command_of(*pid),
                self.path.display()
            ))
            .hint("keep etcd from being started until the restore is done, then try again")),
        }
    }
}

fn command_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

/// Checks that `member` is a folder that can be renamed as a whole: no link, no mount point, nor are the folders in it, and the
/// write-ahead log lies inside. An absent one is fine.
///
/// # Errors
/// Kind `Invalid`, naming what is in the way.
pub(crate) fn check_layout(dir: &DataDir) -> Result<()> {
    let member = dir.member();
    let wrong = |path: &Path, what: &str, hint: String| {
        Err(Error::invalid(format!("{} is {what}", path.display())).hint(hint))
    };
    for folder in [&member, &member.join("snap"), &member.join("wal")] {
        let found = match fs::symlink_metadata(folder) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                return Err(Error::other(format!("can not read {}", folder.display())).because(e));
            }
        };
        if !found.is_dir() {
            let what = if found.is_symlink() {
                "a link"
            } else {
                "no folder"
            };
            let hint = if folder.ends_with("wal") {
                "an etcd with a --wal-dir of its own is not restored: move the log into the data dir first, and start etcd without --wal-dir".to_owned()
            } else {
                "etcd's folders have to lie in the data dir themselves".to_owned()
            };
            return wrong(folder, what, hint);
        }
        if is_mount_point(folder, &found)? {
            return wrong(
                folder,
                "a mount point, which can not be exchanged",
                format!(
                    "mount the volume at {} instead (a data dir that is a mount point is fine)",
                    dir.root().display()
                ),
            );
        }
    }
    let wal = member.join("wal");
    if lacks_log(dir) && !never_began(dir)? {
        return Err(Error::invalid(format!(
            "{} has a database but no write-ahead log: etcd keeps its log elsewhere (--wal-dir), or it is lost",
            member.display()
        ))
        .hint(format!(
            "where it is elsewhere, move it to {} and start etcd without --wal-dir; where it is lost, move {} away by hand and restore into the empty data dir",
            wal.display(),
            member.display()
        )));
    }
    Ok(())
}

fn database(dir: &DataDir) -> PathBuf {
    dir.member().join("snap").join("db")
}

/// Whether there is a database and no log.
fn lacks_log(dir: &DataDir) -> bool {
    database(dir).exists() && !dir.member().join("wal").exists()
}

/// Whether an etcd ended there before it began its log. Then no log is lost, and nothing is in the database.
///
/// # Errors
/// When the database can not be read.
pub(crate) fn never_began(dir: &DataDir) -> Result<bool> {
    if !lacks_log(dir) {
        return Ok(false);
    }
    let path = database(dir);
    let found = fs::metadata(&path)
        .map_err(|e| Error::other(format!("can not read {}", path.display())).because(e))?;
    // What can not be followed may have been used.
    let is_unused = || Database::open(&path).and_then(|database| database.is_unused());
    Ok(found.len() == 0 || is_unused().unwrap_or(false))
}

/// Whether something is mounted right there.
///
/// # Errors
/// When it can not be looked at.
pub(crate) fn is_mount_point(path: &Path, found: &fs::Metadata) -> Result<bool> {
    // The attribute knows bind mounts of the same file system too; kernels before 5.8 do not have it.
    if let Ok(stat) = statx(
        CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS,
    ) && stat
        .stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT)
    {
        return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    let above = path.parent().unwrap_or(path);
    let above = fs::symlink_metadata(above)
        .map_err(|e| Error::other(format!("can not read {}", above.display())).because(e))?;
    Ok(above.dev() != found.dev())
}

/// Bytes that may still be written on the file system of this folder.
///
/// # Errors
/// When it can not be asked.
pub(crate) fn free_space(folder: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(folder).map_err(|e| {
        Error::other(format!(
            "can not ask for free space at {}",
            folder.display()
        ))
        .because(e)
    })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_dir() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["member/snap", "member/wal"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("member/snap/db"), "db").unwrap();
        let dir = DataDir::take(folder.path()).unwrap();
        (folder, dir)
    }

    #[test]
    fn a_database_that_somebody_holds_is_refused_and_one_that_is_free_is_held() {
        let (folder, dir) = data_dir();
        let db = folder.path().join("member/snap/db");
        let holder = File::open(&db).unwrap();
        flock(&holder, FlockOperation::LockExclusive).unwrap();
        let refused = Fence::take(&dir).unwrap_err();
        assert!(refused.to_string().contains("still runs"), "{refused}");
        drop(holder);
        let fence = Fence::take(&dir).unwrap();
        fence.check().unwrap();
        let other = File::open(&db).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
    }

    #[test]
    fn a_process_that_waits_for_the_database_is_seen() {
        let (folder, dir) = data_dir();
        let fence = Fence::take(&dir).unwrap();
        let db = File::open(folder.path().join("member/snap/db")).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(db)
            .spawn()
            .unwrap();
        let seen = fence.check();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            seen.unwrap_err()
                .to_string()
                .contains(&child.id().to_string())
        );
    }

    #[test]
    fn one_process_at_a_time_works_on_a_data_dir() {
        let (folder, dir) = data_dir();
        let refused = DataDir::take(folder.path()).err().unwrap();
        assert!(refused.to_string().contains("another etcd-launcher"));
        DataDir::look(folder.path()).unwrap();
        drop(dir);
        DataDir::take(folder.path()).unwrap();
    }

    #[test]
    fn a_log_that_was_never_begun_is_not_missed() {
        let (folder, dir) = data_dir();
        fs::remove_dir(folder.path().join("member/wal")).unwrap();
        let db = folder.path().join("member/snap/db");
        fs::write(&db, "").unwrap();
        assert!(never_began(&dir).unwrap());
        check_layout(&dir).unwrap();
        fs::write(&db, "no database").unwrap();
        check_layout(&dir).unwrap_err();
    }

    #[test]
    fn a_write_ahead_log_elsewhere_and_links_are_refused() {
        let (folder, dir) = data_dir();
        check_layout(&dir).unwrap();
        let wal = folder.path().join("member/wal");
        fs::remove_dir(&wal).unwrap();
        let refused = check_layout(&dir).unwrap_err();
        assert!(refused.to_string().contains("--wal-dir"), "{refused}");
        std::os::unix::fs::symlink("/tmp", &wal).unwrap();
        let refused = check_layout(&dir).unwrap_err();
        assert!(refused.hint_text().unwrap().contains("--wal-dir"));
        fs::remove_dir_all(folder.path().join("member")).unwrap();
        check_layout(&dir).unwrap();
    }
}
