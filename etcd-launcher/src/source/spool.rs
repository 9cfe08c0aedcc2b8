//! Files that a snapshot is brought into: 0600, never following a link, gone again unless they are kept. Space is looked at before and while
//! it is taken.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backup_core::etcd::Database;
use backup_core::{Error, Result};
use rustix::fs::OFlags;

/// Bytes that are written between two looks at the space that is left.
const LOOK: u64 = 64 << 20;

/// Space that a database needs besides its claim: the trailer, and what the file system keeps of it.
const BESIDES: u64 = 1 << 20;

/// A file on its way to its name.
pub(crate) struct Part {
    file: File,
    part: PathBuf,
    to: PathBuf,
    is_kept: bool,
}

impl Part {
    /// Creates `<to>.part`, in the place of one that was left behind.
    ///
    /// # Errors
    /// When it can not be created.
    pub(crate) fn create(to: &Path) -> Result<Self> {
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        match fs::remove_file(&part) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(failed("create", &part, e));
            }
            _ => {}
        }
        Ok(Self {
            file: private(&part)?,
            part,
            to: to.to_owned(),
            is_kept: false,
        })
    }

    /// Writes into it.
    ///
    /// # Errors
    /// When the system gives no second handle.
    pub(crate) fn writer(&self) -> Result<Writer> {
        let file = self
            .file
            .try_clone()
            .map_err(|e| failed("write", &self.part, e))?;
        Ok(Writer::new(file, &self.part))
    }

    /// What was written, as a database; `name` is for messages.
    ///
    /// # Errors
    /// As [`Database::from_file`].
    pub(crate) fn database(&self, name: &str) -> Result<Database> {
        let file = File::open(&self.part).map_err(|e| failed("read", &self.part, e))?;
        Database::from_file(file, name)
    }

    /// Gives it its name. The disk is not waited for, which takes as long as the download.
    ///
    /// # Errors
    /// When it can not be renamed; then it is gone.
    pub(crate) fn keep(mut self) -> Result<()> {
        fs::rename(&self.part, &self.to).map_err(|e| failed("write", &self.to, e))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            // What went wrong was told; a leftover is replaced by the next attempt.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// A file without a name in a folder, which is made where it is not there: it goes away with the process, whatever ends it.
///
/// # Errors
/// When it can not be created.
pub(crate) fn unnamed(folder: &Path) -> Result<(File, Writer)> {
    let hint = "choose another folder with --spool-dir";
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| failed("create", folder, e).hint(hint))?;
    let path = folder.join(format!(".snapshot-{}", uuid::Uuid::new_v4()));
    let file = private(&path).map_err(|e| e.hint(hint))?;
    fs::remove_file(&path).map_err(|e| failed("remove", &path, e))?;
    let second = file.try_clone().map_err(|e| failed("write", &path, e))?;
    Ok((file, Writer::new(second, folder)))
}

fn private(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(|e| failed("create", path, e))
}

fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::other(format!("can not {doing} {}", path.display())).because(error)
}

/// Writes what comes, as long as there is space for it.
pub(crate) struct Writer {
    file: File,
    place: PathBuf,
    written: u64,
    next_look: u64,
}

impl Writer {
    fn new(file: File, place: &Path) -> Self {
        Self {
            file,
            place: place.to_owned(),
            written: 0,
            next_look: 0,
        }
    }

    /// The next bytes of a database of `claimed` bytes by its own word. So many bytes stay free for others.
    ///
    /// # Errors
    /// When there is no space, with numbers, and when the disk does not take it.
    pub(crate) fn write(
        &mut self,
        bytes: &[u8],
        claimed: Option<u64>,
        keep_free: u64,
    ) -> Result<()> {
        if self.written >= self.next_look
            && let Some(claimed) = claimed
        {
            self.look(claimed.saturating_add(BESIDES), keep_free)?;
            self.next_look = self.written + LOOK;
        }
        self.file
            .write_all(bytes)
            .map_err(|e| failed("write", &self.place, e))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn look(&self, needed: u64, keep_free: u64) -> Result<()> {
        let space = rustix::fs::fstatvfs(&self.file)
            .map_err(|e| failed("look at the space of", &self.place, e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let still = needed.saturating_sub(self.written);
        if free < still.saturating_add(keep_free) {
            return Err(Error::other(format!(
                "no space for the snapshot at {}: {} MiB are free, {} MiB more are needed and {} MiB must stay free",
                self.place.display(),
                free >> 20,
                still.div_ceil(1 << 20),
                keep_free >> 20
            ))
            .hint("make space, or choose another folder"));
        }
        Ok(())
    }
}
