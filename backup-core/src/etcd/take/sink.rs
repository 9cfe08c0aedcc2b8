//! Where a snapshot's bytes go: an object of a store, or a file. Nothing of it is visible before the end, and nothing is left of one that
//! is given up.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use tokio::io::AsyncWriteExt as _;

use crate::archive::write::Sink as _;
use crate::error::{Error, Kind, Result};
use crate::etcd::manifest::Compression;
use crate::location::hex;
use crate::location::store::{Upload, Uploaded};

/// A store that does not answer may not keep a program from ending.
const ABORT: Duration = Duration::from_secs(30);

/// One of the two.
pub(super) enum Sink {
    Upload(Box<Upload>),
    File(Box<Part>),
}

impl Sink {
    /// Errors where it is known already that `bytes` do not fit.
    pub(super) fn room_for(&self, bytes: u64, compression: &Compression) -> Result<()> {
        match self {
            Self::File(part) if *compression == Compression::None => part.room_for(bytes),
            Self::File(_) | Self::Upload(_) => Ok(()),
        }
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match self {
            Self::Upload(upload) => upload.write(bytes).await,
            Self::File(part) => part.write(&bytes).await,
        }
    }

    /// Makes it visible, whole.
    pub(super) async fn finish(self) -> Result<Uploaded> {
        match self {
            Self::Upload(upload) => upload.finish().await,
            Self::File(part) => part.finish().await,
        }
    }

    /// Leaves nothing of it; false where the store did not do it.
    pub(super) async fn abort(self) -> bool {
        match self {
            Self::Upload(upload) => tokio::time::timeout(ABORT, upload.give_up())
                .await
                .is_ok_and(|given_up| given_up.is_ok()),
            Self::File(part) => {
                part.remove();
                true
            }
        }
    }
}

/// A file under a name of its own beside its place: `<file>.<run>.part`, 0600.
pub(super) struct Part {
    path: PathBuf,
    target: PathBuf,
    replace: bool,
    file: tokio::fs::File,
    digest: Context,
    bytes: u64,
}

impl Part {
    /// Begins a file; with `replace` it may take the place of one that is there.
    ///
    /// # Errors
    /// `AlreadyExists`; where the folder is not there or may not be written.
    pub(super) fn begin(target: &Path, replace: bool, run: &str) -> Result<Self> {
        if !replace && target.symlink_metadata().is_ok() {
            return Err(exists(target));
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{run}.part"));
        let path = target.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| refused(target, e))?;
        Ok(Self {
            path,
            target: target.to_owned(),
            replace,
            file: file.into(),
            digest: Context::new(&SHA256),
            bytes: 0,
        })
    }

    fn room_for(&self, bytes: u64) -> Result<()> {
        let folder = match self.target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Who can not be asked is not asked again: the write itself tells.
        let Ok(room) = rustix::fs::statvfs(folder) else {
            return Ok(());
        };
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free >= bytes {
            return Ok(());
        }
        Err(Error::other(format!(
            "{} has {} MiB free, and the snapshot needs {} MiB",
            folder.display(),
            free >> 20,
            bytes.div_ceil(1 << 20)
        ))
        .hint("free some space, name a file elsewhere, or end its name with .zst to have it compressed"))
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        let written = self.file.write_all(bytes).await;
        written.map_err(|e| refused(&self.target, e))
    }

    async fn finish(mut self) -> Result<Uploaded> {
        match self.publish().await {
            Ok(()) => Ok(Uploaded {
                bytes: self.bytes,
                sha256: hex(self.digest.finish().as_ref()),
            }),
            Err(e) => {
                self.remove();
                Err(e)
            }
        }
    }

    async fn publish(&mut self) -> Result<()> {
        let flushed = async {
            self.file.flush().await?;
            self.file.sync_all().await
        };
        flushed.await.map_err(|e| refused(&self.target, e))?;
        place(&self.path, &self.target, self.replace)
    }

    fn remove(&self) {
        // The error that led here says what went wrong.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Gives the file its name, and makes that last; without `replace` never over another, not even one that came in between.
fn place(part: &Path, target: &Path, replace: bool) -> Result<()> {
    let flags = if replace {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    match rustix::fs::renameat_with(CWD, part, CWD, target, flags) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Err(exists(target)),
        // Not every file system has it; a link has the same meaning.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => std::fs::hard_link(part, target)
            .and_then(|()| std::fs::remove_file(part))
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => exists(target),
                _ => refused(target, e),
            })?,
        Err(e) => return Err(refused(target, e.into())),
    }
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Some network file systems do not flush folders; then the server's promise has to do.
    match std::fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(e) if e.raw_os_error() == Some(Errno::IO.raw_os_error()) => Err(refused(target, e)),
        _ => Ok(()),
    }
}

pub(super) fn exists(target: &Path) -> Error {
    Error::new(
        Kind::AlreadyExists,
        format!("{} exists already", target.display()),
    )
    .hint("add --force to replace it, or name another file")
}

fn refused(target: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let (kind, hint) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => (Kind::NotFound, "make its folder first"),
        ErrorKind::PermissionDenied => (Kind::Forbidden, "check the owner and mode of its folder"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (
            Kind::Other,
            "the disk is full: free some space, or name a file elsewhere",
        ),
        _ => (Kind::Other, "name a file elsewhere"),
    };
    Error::new(kind, format!("can not write {}", target.display()))
        .hint(hint)
        .because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_takes_its_name_only_when_it_is_whole_and_never_another_ones() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x.db");
        let mut part = Part::begin(&target, false, "r").unwrap();
        part.write(b"abc").await.unwrap();
        assert!(!target.exists());
        let written = part.finish().await.unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"abc");
        assert_eq!(written.bytes, 3);
        assert_eq!(written.sha256, crate::location::sha256(b"abc"));
        let refused = Part::begin(&target, false, "r").err().unwrap();
        assert_eq!(refused.kind(), Kind::AlreadyExists);
        // One that came in between.
        let other = folder.path().join("y.db");
        let part = Part::begin(&other, false, "r").unwrap();
        std::fs::write(&other, "theirs").unwrap();
        assert_eq!(part.finish().await.unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(std::fs::read(&other).unwrap(), b"theirs");
        let mut part = Part::begin(&other, true, "r").unwrap();
        part.write(b"ours").await.unwrap();
        part.finish().await.unwrap();
        assert_eq!(std::fs::read(&other).unwrap(), b"ours");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_file_that_is_given_up_and_only_its_owner_may_read_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let part = Part::begin(&folder.path().join("x.db"), false, "r").unwrap();
        let mode = part.path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Sink::File(Box::new(part)).abort().await);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_snapshot_that_does_not_fit_is_refused_with_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::begin(&folder.path().join("x.db"), false, "r").unwrap();
        let refused = part.room_for(u64::MAX).unwrap_err();
        assert!(refused.to_string().contains("MiB free"), "{refused}");
        part.room_for(1).unwrap();
        part.remove();
    }
}
