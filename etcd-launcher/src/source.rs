//! Where a snapshot comes from: a file, or an object in a store; plain, gzip or zstd by content, and encrypted with age around that. Brings it whole and
//! checked onto the disk.
//! Decides nothing about the snapshot but whether it is one.

mod at;
mod spool;
mod unpack;

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use backup_cli::error::Result;
use backup_cli::locations::LocationArgs;
use backup_core::crypt::{Identities, Opener};
use backup_core::etcd::stream::{Walk, Walked};
use backup_core::etcd::{Database, Facts, LiveDigest};
use backup_core::location::hex;
use backup_core::progress::Progress;
use backup_core::{Error, Kind};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::io::AsyncReadExt;

pub(crate) use at::At;
pub(crate) use spool::{Part, unnamed};
pub(crate) use unpack::plain;

/// Bytes that are read from a file at a time.
const CHUNK: usize = 256 << 10;

/// A snapshot, and who opens it where it is encrypted.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Where it is.
    pub(crate) at: At,
    opener: Opener,
    /// What is not encrypted is not what is meant.
    only_encrypted: bool,
    /// Why the key beside it is no help, where nothing else opens it.
    closed: Option<Arc<Error>>,
}

/// What the snapshot's manifest promised; what is absent is not checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// SHA-256 of the stored bytes, compressed as they are.
    pub(crate) stored_sha256: Option<String>,
    /// SHA-256 of the database without its trailer.
    pub(crate) sha256: Option<String>,
    /// The digest over its live keys.
    pub(crate) digest: Option<LiveDigest>,
}

/// How much may come, and how slowly.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Most bytes of the database, unpacked: etcd's quota.
    pub(crate) most: u64,
    /// Bytes that must stay free on the file system.
    pub(crate) keep_free: u64,
    /// No byte for so long ends it.
    pub(crate) stall: Duration,
    /// How its user makes room.
    pub(crate) more_room: &'static str,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            most: 64 << 30,
            keep_free: 64 << 20,
            stall: Duration::from_secs(60),
            more_room: "make space, or choose another folder",
        }
    }
}

/// A snapshot on the disk, checked.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// The database with its trailer where it has one; 0600. It need not outlive the machine: who starts again fetches again.
    pub(crate) path: PathBuf,
    /// Whether it has a trailer: `etcdutl snapshot restore` needs `--skip-hash-check` where not.
    pub(crate) has_trailer: bool,
    /// SHA-256 of the database without its trailer, in hexadecimal digits.
    pub(crate) sha256: String,
    /// What it says of itself.
    pub(crate) facts: Facts,
    /// Over its live keys at its latest revision.
    pub(crate) digest: LiveDigest,
}

/// What came by.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    /// What it turned out to be.
    pub(crate) walked: Walked,
    /// SHA-256 of the bytes as they were stored, in hexadecimal digits.
    pub(crate) stored_sha256: String,
}

/// A source that is being read.
struct Opened {
    /// Its bytes, where that is known before they come.
    length: Option<u64>,
    chunks: BoxStream<'static, backup_core::Result<Bytes>>,
}

impl Source {
    /// One that lies there, opened by this where it is encrypted.
    pub(crate) fn new(at: At, opener: Opener) -> Self {
        Self {
            only_encrypted: matches!(opener, Opener::Key(_)) || at.is_called_encrypted(),
            at,
            opener,
            closed: None,
        }
    }

    /// The same, which has to be encrypted where that is `asked`: a plain one was put in its place.
    pub(crate) fn encrypted(mut self, asked: bool) -> Self {
        self.only_encrypted |= asked;
        self
    }

    /// What a user named: a path, `file:///path`, `s3://bucket/key?endpoint=..&region=..`. Of the snapshot nothing is read yet; where it has the name of an
    /// encrypted one in a location, the key that lies beside it is.
    ///
    /// # Errors
    /// A usage error, for a URL that can not be meant; a key that was altered. One that none of the identities opens is told when the snapshot is read: they
    /// may open the snapshot itself.
    pub(crate) async fn parse(
        text: &str,
        location: &LocationArgs,
        identities: Identities,
    ) -> Result<Self> {
        let at = At::parse(text, location)?;
        let Some(key) = at.key_beside().await? else {
            return Ok(Self::new(at, Opener::Identities(identities)));
        };
        let tried = identities.clone();
        let opened = tokio::task::spawn_blocking(move || tried.open(&key, "its recipients")).await;
        let opened = opened.map_err(|e| Error::other("opening the key broke off").because(e))?;
        match opened.map_err(|e| e.context(format!("{at} can not be opened"))) {
            Ok(key) => Ok(Self::new(at, Opener::Key(key))),
            Err(e) if e.kind() == Kind::Unauthorized => Ok(Self {
                closed: Some(Arc::new(e)),
                ..Self::new(at, Opener::Identities(identities))
            }),
            Err(e) => Err(e.into()),
        }
    }

    /// Who is told that nothing fits looks for the right identity: where the key is what is missing, that is told.
    fn unopened(&self, e: Error) -> Error {
        if e.kind() != Kind::Unauthorized || matches!(self.opener, Opener::Key(_)) {
            return e;
        }
        let hint = match (&self.closed, self.at.needed_beside()) {
            (Some(closed), _) => {
                let told = Error::new(closed.kind(), closed.to_string());
                return told.hint(closed.hint_text().unwrap_or_default());
            }
            (None, Some(key)) => format!("{key} has to lie beside it: bring that file too"),
            (None, None) => return e,
        };
        let hint = match e.hint_text() {
            Some(more) => format!("{hint}; then {more}"),
            None => hint,
        };
        e.hint(hint)
    }

    /// A plain database in a file of this machine, to be read where it is. Nothing where it has to be unpacked or brought here.
    ///
    /// # Errors
    /// `NotFound`, and a file that can not be read.
    pub(crate) fn in_place(&self) -> Result<Option<Database>> {
        let At::File(path) = &self.at else {
            return Ok(None);
        };
        if self.only_encrypted || !is_regular(path)? || unpack::is_packed(path)? {
            return Ok(None);
        }
        Ok(Some(Database::open(path)?))
    }

    /// Whether a running etcd has the file open: what it writes meanwhile may look like damage. The lock is given back at once.
    pub(crate) fn is_in_use(&self) -> bool {
        let At::File(path) = &self.at else {
            return false;
        };
        let locked = std::fs::File::open(path)
            .map(|file| flock(&file, FlockOperation::NonBlockingLockShared));
        matches!(locked, Ok(Err(Errno::WOULDBLOCK)))
    }

    /// Reads the snapshot to its end and keeps nothing of it.
    ///
    /// # Errors
    /// As [`Source::fetch`].
    pub(crate) async fn pass(&self, limits: &Limits, progress: &dyn Progress) -> Result<Passed> {
        self.through(limits, progress, |_, _| Ok(())).await
    }

    /// Brings the snapshot to `to`: unpacked into `<to>.part` beside it, its trailer, structure and every promise checked, renamed.
    /// On an error nothing stays.
    ///
    /// # Errors
    /// `NotFound` and the store's; `Corrupt` for what is no whole snapshot; too large, or no space, with numbers; a stall.
    pub(crate) async fn fetch(
        &self,
        to: &Path,
        expected: &Expected,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<Fetched> {
        let part = Part::create(to)?;
        let passed = self.bring(part.writer()?, limits, progress).await?;
        let Passed {
            walked,
            stored_sha256,
        } = passed;
        self.promised(
            "stored file",
            expected.stored_sha256.as_ref(),
            &stored_sha256,
        )?;
        self.promised("database", expected.sha256.as_ref(), &walked.sha256)?;
        let database = part.database(&self.to_string())?;
        progress.step(&format!("checking {self}"));
        progress.expect_bytes(database.bytes());
        let examined = blocking(|| database.examine(progress))?;
        if let Some(first) = examined.problems.first() {
            let more = match examined.problems.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            return Err(Error::corrupt(format!("{self} is damaged: {first}{more}"))
                .hint("use another snapshot")
                .into());
        }
        if let Some(digest) = &expected.digest
            && !digest.same_keys(&examined.digest)
        {
            return Err(Error::corrupt(format!(
                "{self} holds other keys than its manifest says: {} with digest {}, not {} with {}",
                examined.digest.keys, examined.digest.sha256, digest.keys, digest.sha256
            ))
            .hint("use another snapshot")
            .into());
        }
        part.keep()?;
        Ok(Fetched {
            path: to.to_owned(),
            has_trailer: walked.has_trailer,
            sha256: walked.sha256,
            facts: examined.facts,
            digest: examined.digest,
        })
    }

    /// Unpacks the snapshot into a file; its trailer is checked, its structure only as far as it can be in passing.
    ///
    /// # Errors
    /// As [`Source::fetch`].
    pub(crate) async fn bring(
        &self,
        mut writer: spool::Writer,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<Passed> {
        let room = limits.clone();
        self.through(limits, progress, move |bytes, claimed| {
            writer.write(bytes, claimed, &room)
        })
        .await
    }

    fn promised(&self, what: &str, promised: Option<&String>, found: &str) -> Result<()> {
        match promised {
            Some(promised) if promised != found => Err(Error::corrupt(format!(
                "{self} was altered: its manifest promises SHA-256 {promised} of the {what}, which has {found}"
            ))
            .hint("fetch it again, or use another snapshot")
            .into()),
            _ => Ok(()),
        }
    }

    /// Unpacks, and gives each piece to `each` together with the size of the database by its own word.
    async fn through(
        &self,
        limits: &Limits,
        progress: &dyn Progress,
        mut each: impl FnMut(&[u8], Option<u64>) -> backup_core::Result<()> + Send + 'static,
    ) -> Result<Passed> {
        let Opened { length, mut chunks } = self.open().await?;
        progress.step(&format!("reading {self}"));
        progress.expect_bytes(length.unwrap_or_default());
        let (sender, feed) = unpack::feed();
        let (name, most, opener) = (self.to_string(), limits.most, self.opener.clone());
        let only_encrypted = self.only_encrypted;
        let worker = tokio::task::spawn_blocking(move || {
            let mut walk = Walk::new();
            unpack::unpack(feed, (&opener, only_encrypted), &name, &mut |piece| {
                walk.feed(piece)?;
                let claimed = walk.claimed();
                let so_far = claimed.unwrap_or_default().max(walk.bytes());
                if so_far > most {
                    return Err(too_large(&name, so_far, most));
                }
                each(piece, claimed)
            })?;
            walk.finish().map_err(|error| error.of_snapshot(&name))
        });
        let mut stored = Context::new(&SHA256);
        let reading = async {
            while let Some(chunk) = tokio::time::timeout(limits.stall, chunks.next())
                .await
                .map_err(|_| self.stalled(limits.stall))?
            {
                let chunk = chunk?;
                stored.update(&chunk);
                progress.done(0, chunk.len() as u64);
                // The other side is gone only when it failed; its error is the one that is told.
                if sender.send(Some(chunk)).await.is_err() {
                    return Ok(());
                }
            }
            let _ = sender.send(None).await;
            Ok::<_, Error>(())
        };
        let read = reading.await;
        drop(sender);
        let worked = worker
            .await
            .map_err(|e| Error::other("unpacking stopped").because(e))?;
        read?;
        Ok(Passed {
            walked: worked.map_err(|e| self.unopened(e))?,
            stored_sha256: hex(stored.finish().as_ref()),
        })
    }

    async fn open(&self) -> Result<Opened> {
        match &self.at {
            At::Object { store, key } => {
                let length = store.head(key).await.map_err(absent)?.size;
                Ok(Opened {
                    length: Some(length),
                    chunks: store.stream(key).await?,
                })
            }
            At::File(path) => {
                let failed = |e| open_failed(path, e);
                let length = is_regular(path)?
                    .then(|| std::fs::metadata(path).map(|about| about.len()))
                    .transpose()
                    .map_err(failed)?;
                let file = tokio::fs::File::open(path).await.map_err(failed)?;
                let name = path.display().to_string();
                Ok(Opened {
                    length,
                    chunks: chunks(file, name),
                })
            }
        }
    }

    fn stalled(&self, stall: Duration) -> Error {
        let seconds = stall.as_secs();
        Error::new(
            Kind::Unreachable,
            format!("{self}: no byte came for {seconds} s"),
        )
        .hint("the store answers, and sends nothing; try again, or bring the snapshot here another way")
    }
}

/// As it was named, for messages; no parameters of a URL, for they may hold secrets.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}

/// Work that reads files and reckons; other tasks go on meanwhile where the runtime has threads for them.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Puts the snapshot's name into errors of a stream that has none.
trait OfSnapshot {
    fn of_snapshot(self, name: &str) -> Self;
}

impl OfSnapshot for Error {
    fn of_snapshot(self, name: &str) -> Self {
        let text = self.to_string();
        match text.strip_prefix("the snapshot ") {
            Some(rest) => {
                let named = Self::new(self.kind(), format!("{name} {rest}"));
                match self.hint_text() {
                    Some(hint) => named.hint(hint),
                    None => named,
                }
            }
            None => self,
        }
    }
}

/// A store that has no such object says no more than that.
fn absent(e: Error) -> Error {
    if e.kind() == Kind::NotFound && e.hint_text().is_none() {
        e.hint("check the bucket and the name of the object")
    } else {
        e
    }
}

fn too_large(name: &str, bytes: u64, most: u64) -> Error {
    Error::corrupt(format!(
        "{name} is too large: a database of {} MiB, where at most {} MiB are allowed",
        bytes.div_ceil(1 << 20),
        most >> 20
    ))
    .hint("etcd would not start with it: raise --quota-backend-bytes, of etcd and wherever else it is given")
}

/// Whether it is a file that can be read twice; a pipe can not.
fn is_regular(path: &Path) -> Result<bool> {
    let about = std::fs::metadata(path).map_err(|e| open_failed(path, e))?;
    if about.is_dir() {
        return Err(Error::invalid(format!("{} is a folder", path.display()))
            .hint("name the snapshot itself; in a data directory the database is member/snap/db")
            .into());
    }
    let kind = about.file_type();
    if kind.is_block_device() || kind.is_char_device() && path != Path::new("/dev/stdin") {
        return Err(Error::invalid(format!("{} is a device", path.display())).into());
    }
    Ok(about.is_file())
}

fn open_failed(path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        std::io::ErrorKind::PermissionDenied => Kind::Forbidden,
        _ => Kind::Other,
    };
    Error::new(kind, format!("can not open {}", path.display())).because(error)
}

fn chunks(file: tokio::fs::File, name: String) -> BoxStream<'static, backup_core::Result<Bytes>> {
    stream::try_unfold((file, name), |(mut file, name)| async move {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let got = file
            .read_buf(&mut buffer)
            .await
            .map_err(|e| Error::other(format!("can not read {name}")).because(e))?;
        Ok((got > 0).then(|| (buffer.freeze(), (file, name))))
    })
    .boxed()
}

#[cfg(test)]
mod tests;
