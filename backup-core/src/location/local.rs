//! A folder as a [`Backend`]. A file is written beside its place under a hidden name (`.<file>.<id>.part`), flushed to the disk, and takes
//! its name in one step; files are 0600, folders 0700. No link is followed and nothing outside the folder is touched.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Credentials;
use super::backend::{Backend, Failure, Reading};
use super::store::{Created, Entry};
use crate::api::BackupStorageLocation;
use crate::error::{Error, Kind, Result};

const CHUNK: usize = 256 << 10;

/// Folders below each other that a listing goes down.
const DEEPEST: usize = 16;

/// Opens a folder; nothing is created before the first write.
///
/// # Errors
/// `Invalid`: config keys, and a bucket that is not an absolute path.
pub(crate) fn open(
    spec: &BackupStorageLocation,
    _credentials: &Credentials,
) -> Result<Arc<dyn Backend>> {
    super::known_keys("local", &spec.spec.config, &[])?;
    let root = PathBuf::from(&spec.spec.object_storage.bucket);
    if !root.is_absolute() {
        return Err(Error::invalid(format!(
            "objectStorage.bucket {:?} is not an absolute folder",
            spec.spec.object_storage.bucket
        ))
        .hint("for provider local, objectStorage.bucket is a folder such as /srv/backups"));
    }
    Ok(Arc::new(Folder {
        place: format!("folder {}", root.display()),
        root,
    }))
}

#[derive(Clone, Debug)]
struct Folder {
    root: PathBuf,
    place: String,
}

impl Folder {
    fn path(&self, key: &str) -> Result<PathBuf, Failure> {
        let mut path = self.root.clone();
        for part in key.trim_end_matches('/').split('/') {
            if part.is_empty() || part == "." || part == ".." || part.contains('\0') {
                return Err(Failure::final_answer(Error::invalid(format!(
                    "key {key:?} is not allowed"
                ))));
            }
            path.push(part);
        }
        Ok(path)
    }

    /// The hidden name of what is on its way to `key`. The id may come from a claim that anybody wrote.
    fn staged(&self, key: &str, id: &str) -> Result<PathBuf, Failure> {
        let path = self.path(key)?;
        let plain =
            !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        match (path.file_name().and_then(OsStr::to_str), plain) {
            (Some(file), true) => Ok(path.with_file_name(format!(".{file}.{id}.part"))),
            _ => Err(Failure::final_answer(Error::invalid(format!(
                "upload id {id:?} of {key} is not allowed"
            )))),
        }
    }

    fn failure(&self, doing: &str, error: std::io::Error) -> Failure {
        let (kind, hint) = match error.kind() {
            ErrorKind::NotFound => (Kind::NotFound, None),
            ErrorKind::PermissionDenied => (
                Kind::Forbidden,
                Some("check the owner and the mode of the folder that objectStorage.bucket names"),
            ),
            ErrorKind::NotADirectory => (
                Kind::Invalid,
                Some(
                    "objectStorage.bucket must name a folder, and no part of its path may be a file",
                ),
            ),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (
                Kind::Other,
                Some(
                    "the disk is full: free some space, or remove expired backups with `kubectl backup prune`",
                ),
            ),
            ErrorKind::ReadOnlyFilesystem => (
                Kind::Forbidden,
                Some(
                    "the file system is mounted read-only; set spec.accessMode to ReadOnly, or mount it for writing",
                ),
            ),
            ErrorKind::FileTooLarge => (
                Kind::Other,
                Some("the file system or `ulimit -f` does not allow files of this size"),
            ),
            _ => (Kind::Other, None),
        };
        let mut said =
            Error::new(kind, format!("can not {doing} in {}", self.place)).because(error);
        if let Some(hint) = hint {
            said = said.hint(hint);
        }
        Failure::final_answer(said)
    }

    /// Runs file work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Self) -> Result<T, std::io::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this).map_err(|e| this.failure(&doing, e)))
            .await
            .unwrap_or_else(|e| {
                Err(Failure::final_answer(
                    Error::other("file work broke off").because(e),
                ))
            })
    }

    /// A new hidden file; its folders are made where they are missing. A folder may be removed between the two steps.
    fn make(&self, path: &Path) -> std::io::Result<File> {
        let mut tried = 0;
        loop {
            if let Some(parent) = path.parent() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(parent)?;
            }
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(path);
            tried += 1;
            match made {
                Err(e) if e.kind() == ErrorKind::NotFound && tried < 8 => {}
                made => return made,
            }
        }
    }

    fn store(
        &self,
        path: &Path,
        staged: &Path,
        bytes: &[u8],
        create: bool,
    ) -> std::io::Result<Created> {
        let mut file = self.make(staged)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| place(staged, path, create));
        if !matches!(written, Ok(Created::Yes)) {
            let _ = fs::remove_file(staged);
        }
        written
    }

    /// Removes folders that became empty, up to but not including the first two levels.
    fn tidy(&self, path: &Path) {
        let mut next = path.parent();
        while let Some(folder) = next {
            let below = folder
                .strip_prefix(&self.root)
                .map_or(0, |p| p.components().count());
            if below < 2 || fs::remove_dir(folder).is_err() {
                return;
            }
            next = folder.parent();
        }
    }
}

/// Gives a finished file its name, and makes that last.
fn place(staged: &Path, path: &Path, create: bool) -> std::io::Result<Created> {
    if create {
        match rustix::fs::renameat_with(CWD, staged, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(Created::Exists),
            // Not every file system has it; a link has the same meaning.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::hard_link(staged, path) {
                Ok(()) => fs::remove_file(staged)?,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Created::Exists),
                Err(e) => return Err(e),
            },
            Err(e) => return Err(e.into()),
        }
    } else {
        fs::rename(staged, path)?;
    }
    if let Some(parent) = path.parent() {
        // Some network file systems do not flush folders; then the server's promise has to do.
        match File::open(parent).and_then(|folder| folder.sync_all()) {
            Err(e) if e.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Err(e),
            _ => {}
        }
    }
    Ok(Created::Yes)
}

fn read(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::new(
            ErrorKind::NotFound,
            "it is not a plain file",
        ))
    }
}

fn is_staged(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".part")
}

fn entry(key: String, meta: &fs::Metadata) -> Entry {
    Entry {
        key,
        size: meta.len(),
        modified: meta
            .modified()
            .ok()
            .and_then(|time| Timestamp::try_from(time).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

/// Everything below a folder, in the keys' order within each folder.
fn walk(path: &Path, key: &str, deep: usize, found: &mut Vec<Entry>) -> std::io::Result<()> {
    let mut names = Vec::new();
    match fs::read_dir(path) {
        Ok(read) => {
            for item in read {
                names.push(item?.file_name());
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    names.sort();
    for name in names {
        let Some(name) = name.to_str() else { continue };
        if is_staged(name) {
            continue;
        }
        let path = path.join(name);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            // It went away between the two calls.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if meta.is_dir() && deep < DEEPEST {
            walk(&path, &format!("{key}{name}/"), deep + 1, found)?;
        } else if meta.is_file() {
            found.push(entry(format!("{key}{name}"), &meta));
        }
    }
    Ok(())
}

#[async_trait]
impl Backend for Folder {
    fn place(&self) -> &str {
        &self.place
    }

    async fn head(&self, key: &str) -> Result<Entry, Failure> {
        let path = self.path(key)?;
        let key = key.to_owned();
        self.blocking(format!("read {key}"), move |_| {
            let meta = read(&path)?.metadata()?;
            Ok(entry(key, &meta))
        })
        .await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading, Failure> {
        let path = self.path(key)?;
        let doing = format!("read {key}");
        let (file, size, left) = self
            .blocking(doing.clone(), move |_| {
                let mut file = read(&path)?;
                let size = file.metadata()?.len();
                let range = range.unwrap_or(0..size);
                file.seek(SeekFrom::Start(range.start))?;
                Ok((file, size, range.end.min(size).saturating_sub(range.start)))
            })
            .await?;
        let body = stream::try_unfold(
            (self.clone(), file, left, doing),
            |(this, mut file, left, doing)| async move {
                if left == 0 {
                    return Ok(None);
                }
                let (chunk, file) = this
                    .blocking(doing.clone(), move |_| {
                        let mut chunk = vec![0; left.min(CHUNK as u64) as usize];
                        file.read_exact(&mut chunk)?;
                        Ok((Bytes::from(chunk), file))
                    })
                    .await?;
                let left = left - chunk.len() as u64;
                Ok(Some((chunk, (this, file, left, doing))))
            },
        );
        Ok(Reading {
            size,
            version: None,
            body: body.boxed(),
        })
    }

    async fn put(&self, key: &str, bytes: Bytes, create: bool) -> Result<Created, Failure> {
        let path = self.path(key)?;
        let staged = self.staged(key, &uuid::Uuid::new_v4().simple().to_string())?;
        self.blocking(format!("write {key}"), move |this| {
            this.store(&path, &staged, &bytes, create)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        let path = self.path(key)?;
        self.blocking(format!("remove {key}"), move |this| {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => this.tidy(&path),
            }
            Ok(())
        })
        .await
    }

    fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Entry, Failure>> {
        let this = self.clone();
        let folder = folder.trim_end_matches('/').to_owned();
        let after = after.map(str::to_owned);
        stream::once(async move {
            let path = this.path(&folder)?;
            let found = this
                .blocking(format!("list {folder}/"), move |_| {
                    let mut found = Vec::new();
                    walk(&path, &format!("{folder}/"), 0, &mut found)?;
                    found.retain(|entry| after.as_ref().is_none_or(|after| entry.key > *after));
                    Ok(found)
                })
                .await?;
            Ok(stream::iter(found.into_iter().map(Ok)))
        })
        .flat_map(|found: Result<_, Failure>| match found {
            Ok(found) => found.left_stream(),
            Err(e) => stream::once(async { Err(e) }).right_stream(),
        })
        .boxed()
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Failure> {
        let path = self.path(folder)?;
        self.blocking(format!("list {folder}"), move |_| {
            let mut found = Vec::new();
            let items = match fs::read_dir(&path) {
                Ok(items) => items,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(found),
                Err(e) => return Err(e),
            };
            for item in items {
                let item = item?;
                if item.file_type()?.is_dir()
                    && let Some(name) = item.file_name().to_str()
                {
                    found.push(name.to_owned());
                }
            }
            Ok(found)
        })
        .await
    }

    fn lists_in_order(&self) -> bool {
        false
    }

    async fn begin(&self, key: &str) -> Result<String, Failure> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let staged = self.staged(key, &id)?;
        self.blocking(format!("write {key}"), move |this| {
            this.make(&staged).map(|_| ())
        })
        .await?;
        Ok(id)
    }

    async fn part(
        &self,
        key: &str,
        id: &str,
        _number: usize,
        at: u64,
        bytes: Bytes,
    ) -> Result<String, Failure> {
        let staged = self.staged(key, id)?;
        self.blocking(format!("write {key}"), move |_| {
            OpenOptions::new()
                .write(true)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(staged)?
                .write_all_at(&bytes, at)
        })
        .await?;
        Ok(String::new())
    }

    async fn complete(&self, key: &str, id: &str, _parts: Vec<String>) -> Result<(), Failure> {
        let path = self.path(key)?;
        let staged = self.staged(key, id)?;
        self.blocking(format!("write {key}"), move |_| {
            OpenOptions::new()
                .write(true)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&staged)?
                .sync_all()?;
            place(&staged, &path, false).map(|_| ())
        })
        .await
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), Failure> {
        let staged = self.staged(key, id)?;
        self.blocking(format!("remove what was written of {key}"), move |this| {
            match fs::remove_file(&staged) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => this.tidy(&staged),
            }
            Ok(())
        })
        .await
    }

    /// A claim's own staged file may be another run's that begins at this moment: those go after an hour.
    async fn sweep(&self, folder: &str) -> Result<(), Failure> {
        let path = self.path(folder)?;
        self.blocking(format!("clean {folder}"), move |this| {
            let items = match fs::read_dir(&path) {
                Ok(items) => items,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            };
            for item in items {
                let item = item?;
                let name = item.file_name();
                let Some(name) = name.to_str().filter(|name| is_staged(name)) else {
                    continue;
                };
                let old = item
                    .metadata()?
                    .modified()?
                    .elapsed()
                    .is_ok_and(|age| age > Duration::from_secs(3600));
                if old || !name.starts_with(".claim-") {
                    match fs::remove_file(item.path()) {
                        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                        _ => {}
                    }
                }
            }
            this.tidy(&path.join("x"));
            Ok(())
        })
        .await
    }
}
