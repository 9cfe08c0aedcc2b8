//! Objects below a location's prefix: get, put, list, upload in parts. Hides whether it is a bucket or a folder. Errors name the key and
//! the location, and say which setting to look at. Everything that is repeated is repeated here: a [`Backend`] tries once.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::backend::{Backend, Failure, Reading};
use super::claim::Left;
use super::kept::Kept;
use super::lend::Lending;
pub use super::upload::{Upload, Uploaded};
use super::vault::{Scheme, Vault};
use crate::archive::read::Source;
use crate::crypt::BackupKey;
use crate::error::{Error, Kind, Result};
use crate::layout::VolumeKeys;

/// Objects below a prefix.
#[derive(Clone)]
pub struct Store {
    pub(super) backend: Arc<dyn Backend>,
    /// Empty, or ending with a slash.
    prefix: Arc<str>,
    read_only: bool,
    /// Where this shows the location's encrypted backups: what it shows them of.
    outside: Option<Arc<dyn Backend>>,
    /// Claims that could not be taken along, where they are noted.
    pub(super) left: Option<Left>,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key below the prefix.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When the store last wrote it, by the store's clock.
    pub modified: Timestamp,
}

/// How a create-only PUT ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was not there, and is now.
    Yes,
    /// Something was there, and still is.
    Exists,
}

/// How long a failing operation is tried again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// A user waits, and the location may never have worked: no new attempt after 12 s.
    Quick,
    /// A pod is kept quiet for it, as a database that a hook froze: no new attempt after half a minute.
    Quiet,
    /// A run has hours of work in it, and the location did work: no new attempt after 3 minutes.
    Long,
}

impl Patience {
    fn limits(self) -> (u32, Duration) {
        match self {
            Self::Quick => (6, Duration::from_secs(12)),
            Self::Quiet => (9, Duration::from_secs(30)),
            Self::Long => (24, Duration::from_secs(180)),
        }
    }
}

/// Asked before each attempt of a write; an error ends it.
pub(crate) type Fence<'a> = &'a (dyn Fn() -> Result<()> + Send + Sync);

/// Tries until it succeeds, the answer is final, patience ends, or the fence falls. What any attempt left in doubt stays in doubt.
pub(crate) async fn repeat<T, F, Fut>(
    patience: Patience,
    fence: Option<Fence<'_>>,
    mut attempt: F,
) -> Result<T, Failure>
where
    F: FnMut() -> Fut + Send,
    Fut: Future<Output = Result<T, Failure>> + Send,
{
    let (most, long) = patience.limits();
    let began = Instant::now();
    let mut pause = Duration::from_millis(200);
    let mut in_doubt = false;
    let mut tried = 0;
    loop {
        if let Some(Err(error)) = fence.map(|fence| fence()) {
            return Err(Failure {
                in_doubt,
                ..Failure::final_answer(error)
            });
        }
        let failure = match attempt().await {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        tried += 1;
        in_doubt |= failure.in_doubt;
        if !failure.transient || tried >= most || began.elapsed() + pause > long {
            return Err(Failure {
                in_doubt,
                ..failure
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

impl Store {
    pub(crate) fn new(backend: Arc<dyn Backend>, prefix: &str, read_only: bool) -> Self {
        let prefix = prefix.trim_matches('/');
        Self {
            backend,
            prefix: if prefix.is_empty() {
                "".into()
            } else {
                format!("{prefix}/").into()
            },
            read_only,
            outside: None,
            left: None,
        }
    }

    /// The location's plain backups; itself, where it shows those.
    pub fn outside(&self) -> Self {
        match &self.outside {
            Some(outside) => Self {
                backend: outside.clone(),
                outside: None,
                ..self.clone()
            },
            None => self.clone(),
        }
    }

    /// The location's encrypted backups in the place of its plain ones: without the key of a backup, what stands of it in the clear. One key fits one backup.
    pub fn vault(&self, key: Option<&BackupKey>) -> Self {
        let outside = self.outside().backend;
        let prefix = self.prefix.clone();
        let vault = Vault::new(outside.clone(), prefix, Scheme::Backups, key.cloned());
        Self {
            backend: Arc::new(vault),
            outside: Some(outside),
            ..self.clone()
        }
    }

    /// The location's plain backups, with the sealed Secrets of one of them opened with its key where they stand.
    pub(crate) fn with_secrets(&self, key: &BackupKey) -> Self {
        let (outside, prefix) = (self.outside().backend, self.prefix.clone());
        let opened = Vault::new(outside, prefix, Scheme::Secrets, Some(key.clone()));
        Self {
            backend: Arc::new(opened),
            outside: None,
            ..self.clone()
        }
    }

    /// The location's encrypted backups with every file as it stands, to be copied: the marker is the whole manifest.
    pub(crate) fn ciphertext(&self) -> Self {
        let outside = self.outside().backend;
        let vault = Vault::as_it_stands(outside.clone(), self.prefix.clone());
        Self {
            backend: Arc::new(vault),
            outside: Some(outside),
            ..self.clone()
        }
    }

    /// Whether it shows the location's encrypted backups.
    pub fn is_vault(&self) -> bool {
        self.outside.is_some()
    }

    /// A store in this process's memory, which ends with it; for tests.
    pub fn in_memory() -> Self {
        let objects = Arc::new(object_store::memory::InMemory::new());
        let bucket = super::bucket::Bucket {
            objects: objects.clone(),
            writes: objects.clone(),
            parts: objects,
            place: "memory".to_owned(),
            words: &super::failure::S3,
            tags: object_store::TagSet::default(),
            signer: None,
            lender: Err("it is this process's memory".to_owned()),
        };
        Self::new(Arc::new(bucket), "", false)
    }

    /// For tests: the same, which refuses to be written to.
    #[cfg(test)]
    pub(crate) fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// What it is, for messages: `bucket "b" at http://127.0.0.1:9000`.
    pub fn place(&self) -> &str {
        self.backend.place()
    }

    /// Where it is, with its prefix: what names it, as it is reached from here.
    pub(crate) fn at(&self) -> String {
        format!("{} {}", self.backend.place(), self.prefix)
    }

    pub(super) fn full(&self, key: &str) -> Result<String> {
        let odd =
            |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
        if key.trim_end_matches('/').split('/').any(odd) {
            return Err(Error::invalid(format!("key {key:?} is not allowed")));
        }
        Ok(format!("{}{key}", self.prefix))
    }

    /// Errors unless something may be written here.
    pub(super) fn writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::new(
                Kind::Forbidden,
                format!("{} is read-only here", self.place()),
            )
            .hint(
                "the location's spec.accessMode is ReadOnly; set it to ReadWrite to write to it",
            ));
        }
        Ok(())
    }

    async fn read<T, F, Fut>(&self, key: &str, attempt: F) -> Result<T>
    where
        F: Fn(String) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        let full = self.full(key)?;
        repeat(Patience::Quick, None, || attempt(full.clone()))
            .await
            .map_err(|failure| failure.error)
    }

    /// A small object, whole: at most `most` bytes.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when it is larger.
    pub async fn get(&self, key: &str, most: u64) -> Result<Bytes> {
        let place = self.place();
        self.read(key, |full| async move {
            let reading = self.backend.get(&full, None).await?;
            if reading.size > most {
                return Err(Failure::final_answer(Error::corrupt(format!(
                    "{key} in {place} has {} bytes, which is more than the {most} such a file may have",
                    reading.size
                ))));
            }
            collect(reading, most, key, place).await
        })
        .await
    }

    /// The same, or nothing where it is absent.
    ///
    /// # Errors
    /// As [`Store::get`], but for `NotFound`.
    pub async fn find(&self, key: &str, most: u64) -> Result<Option<Bytes>> {
        match self.get(key, most).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Its size and time.
    ///
    /// # Errors
    /// `NotFound`, and the store's.
    pub async fn head(&self, key: &str) -> Result<Entry> {
        let found = self
            .read(key, |full| async move { self.backend.head(&full).await })
            .await?;
        Ok(Entry {
            key: key.to_owned(),
            ..found
        })
    }

    /// Exactly these bytes.
    ///
    /// # Errors
    /// `Corrupt`, when the object is shorter.
    pub async fn range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (place, length) = (self.place(), range.end - range.start);
        let range = &range;
        self.read(key, |full| async move {
            let reading = self.backend.get(&full, Some(range.clone())).await?;
            if reading.size < range.end {
                return Err(Failure::final_answer(Error::corrupt(format!(
                    "{key} in {place} ends at byte {}, before byte {}",
                    reading.size, range.end
                ))));
            }
            collect(reading, length, key, place).await
        })
        .await
        .and_then(|bytes| {
            if bytes.len() as u64 == length {
                return Ok(bytes);
            }
            Err(Error::corrupt(format!(
                "{place} answered {} bytes of {key} where {length} were asked for",
                bytes.len()
            )))
        })
    }

    /// All of it, in chunks. A connection that breaks is taken up where it was, as long as the object is the same.
    ///
    /// # Errors
    /// `NotFound`, and the store's.
    pub async fn stream(&self, key: &str) -> Result<BoxStream<'static, Result<Bytes>>> {
        let full = self.full(key)?;
        let reading = self
            .read(
                key,
                |full| async move { self.backend.get(&full, None).await },
            )
            .await?;
        let state = Streaming {
            backend: self.backend.clone(),
            key: full,
            at: 0,
            size: reading.size,
            version: reading.version,
            body: reading.body,
        };
        Ok(stream::try_unfold(state, |mut state| async move {
            Ok(state.next().await?.map(|chunk| (chunk, state)))
        })
        .boxed())
    }

    /// Writes a small object, over what was there.
    ///
    /// # Errors
    /// The store's.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.put_fenced(key, bytes, false, Patience::Quick, None)
            .await
            .map(|_| ())
            .map_err(|failure| failure.error)
    }

    /// Writes a small object only where none was (the store must be known to refuse a second one). An answer that was lost on the way makes
    /// the attempt after it say `Exists`: who must know whose bytes stand reads them back.
    ///
    /// # Errors
    /// The store's.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<Created> {
        self.put_fenced(key, bytes, true, Patience::Quick, None)
            .await
            .map_err(|failure| failure.error)
    }

    pub(super) async fn put_fenced(
        &self,
        key: &str,
        bytes: Bytes,
        create: bool,
        patience: Patience,
        fence: Option<Fence<'_>>,
    ) -> Result<Created, Failure> {
        self.writable().map_err(Failure::final_answer)?;
        let full = self.full(key).map_err(Failure::final_answer)?;
        let full = full.as_str();
        repeat(patience, fence, || {
            let bytes = bytes.clone();
            async move { self.backend.put(full, bytes, create).await }
        })
        .await
    }

    /// Writes `bytes` at a key that nobody else uses, twice and create-only, and tells whether the second was refused. Some stores do not know
    /// the condition (then it is written plainly), others accept it and overwrite.
    ///
    /// # Errors
    /// The store's; what was sent may stand then.
    pub async fn probe_create(&self, key: &str, bytes: Bytes) -> Result<bool> {
        let first = self
            .put_fenced(key, bytes.clone(), true, Patience::Quick, None)
            .await;
        match first {
            Ok(_) => Ok(self.create(key, bytes).await? == Created::Exists),
            // Unknown to the store, or refused in a way of its own: where the plain PUT is accepted, it was the condition.
            Err(failure) if failure.unsupported || failure.error.kind() == Kind::Other => {
                self.put(key, bytes).await?;
                Ok(false)
            }
            Err(failure) => Err(failure.error),
        }
    }

    /// Removes an object; fine where it is absent.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.delete_fenced(key, None)
            .await
            .map_err(|failure| failure.error)
    }

    pub(super) async fn delete_fenced(
        &self,
        key: &str,
        fence: Option<Fence<'_>>,
    ) -> Result<(), Failure> {
        self.writable().map_err(Failure::final_answer)?;
        let full = self.full(key).map_err(Failure::final_answer)?;
        let full = full.as_str();
        repeat(Patience::Quick, fence, || self.backend.delete(full)).await
    }

    /// What would stay of an object that is removed; nothing where there is none.
    ///
    /// # Errors
    /// The store's: then nobody knows.
    pub async fn kept(&self, key: &str) -> Result<Kept> {
        self.read(key, |full| async move { self.backend.kept(&full).await })
            .await
    }

    /// Everything below a folder (`backups/x/`), in no particular order. Keys that do not lie in the folder, or could lead out of it, are
    /// passed over, whatever the store says.
    pub fn list(&self, folder: &str) -> BoxStream<'static, Result<Entry>> {
        let full = match self.full(folder) {
            Ok(full) => full,
            Err(e) => return stream::once(async { Err(e) }).boxed(),
        };
        let state = Listing {
            body: self.backend.list(&full, None),
            backend: self.backend.clone(),
            folder: full,
            prefix: self.prefix.len(),
            last: None,
        };
        stream::try_unfold(state, |mut state| async move {
            Ok(state.next().await?.map(|entry| (entry, state)))
        })
        .boxed()
    }

    /// Everything below a folder, sorted by key; more than `most` is `Corrupt`.
    ///
    /// # Errors
    /// The store's.
    pub async fn entries(&self, folder: &str, most: usize) -> Result<Vec<Entry>> {
        let mut found: Vec<Entry> = self.list(folder).take(most + 1).try_collect().await?;
        if found.len() > most {
            return Err(Error::corrupt(format!(
                "{folder} in {} holds more than {most} files",
                self.place()
            )));
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// The names of the folders directly in a folder (`backups/`), sorted.
    ///
    /// # Errors
    /// The store's.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let mut found = self
            .read(
                folder,
                |full| async move { self.backend.folders(&full).await },
            )
            .await?;
        found.retain(|name| !name.is_empty() && name != "." && name != "..");
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The names of the folders at the top of the location.
    ///
    /// # Errors
    /// The store's.
    pub async fn top_folders(&self) -> Result<Vec<String>> {
        repeat(Patience::Quick, None, || self.backend.folders(&self.prefix))
            .await
            .map_err(|failure| failure.error)
    }

    /// An address by which whoever knows it may read the object for so long; nothing where the store has no such thing.
    ///
    /// # Errors
    /// When the key is not allowed, or the credentials can not be had.
    pub async fn signed(&self, key: &str, lasts: Duration) -> Result<Option<String>> {
        let full = self.full(key)?;
        let signed = self.backend.signed(&full, lasts).await;
        signed.map_err(|failure| failure.error)
    }

    /// Who lends credentials for everything of a volume here, of all its repositories; else why nobody does.
    ///
    /// # Errors
    /// Why, for people.
    pub(crate) fn lending(&self, keys: &VolumeKeys) -> Result<Lending, String> {
        let first = keys.numbered(1).repository();
        let prefix = self.full(first.trim_end_matches('/'));
        Ok(Lending {
            lender: self.outside().backend.lender()?,
            prefix: prefix.map_err(|e| e.sentence())?,
        })
    }

    /// Begins a large object that belongs to no backup; see [`Claim::upload`](super::claim::Claim::upload) for those that do.
    ///
    /// # Errors
    /// Where nothing may be written, and when the key is not allowed.
    pub fn upload(&self, key: &str) -> Result<Upload> {
        Upload::new(self, key, None)
    }

    /// An object as a source of bytes.
    pub fn source(&self, key: String) -> StoreSource {
        StoreSource {
            store: self.clone(),
            key,
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("place", &self.place())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Whether an object is absent, in a bucket that is there.
pub(crate) fn is_absent(error: &Error) -> bool {
    error.kind() == Kind::NotFound && error.hint_text().is_none()
}

async fn collect(reading: Reading, most: u64, key: &str, place: &str) -> Result<Bytes, Failure> {
    let mut body = reading.body;
    let mut collected = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        if (collected.len() + chunk.len()) as u64 > most {
            return Err(Failure::final_answer(Error::corrupt(format!(
                "{place} sends more of {key} than the {most} bytes asked for"
            ))));
        }
        if collected.is_empty() && chunk.len() as u64 == most.min(reading.size) {
            return Ok(chunk);
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(collected.freeze())
}

struct Streaming {
    backend: Arc<dyn Backend>,
    key: String,
    at: u64,
    size: u64,
    version: Option<String>,
    body: BoxStream<'static, Result<Bytes, Failure>>,
}

impl Streaming {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.next().await {
                Some(Ok(chunk)) => {
                    self.at += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                None if self.at >= self.size => return Ok(None),
                Some(Err(failure)) if !failure.transient => return Err(failure.error),
                // A body that ends early is a broken connection as well.
                Some(Err(_)) | None => self.take_up().await?,
            }
        }
    }

    async fn take_up(&mut self) -> Result<()> {
        let rest = self.at..self.size;
        let (backend, key) = (&self.backend, &self.key);
        let reading = repeat(Patience::Long, None, || {
            backend.get(key, Some(rest.clone()))
        })
        .await
        .map_err(|failure| failure.error)?;
        if reading.size != self.size || reading.version != self.version {
            return Err(Error::corrupt(format!(
                "{} in {} was written anew while it was read",
                self.key,
                self.backend.place()
            )));
        }
        self.body = reading.body;
        Ok(())
    }
}

struct Listing {
    backend: Arc<dyn Backend>,
    folder: String,
    prefix: usize,
    last: Option<String>,
    body: BoxStream<'static, Result<Entry, Failure>>,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<Entry>> {
        let mut tried = 0;
        loop {
            let entry = match self.body.next().await {
                None => return Ok(None),
                Some(Ok(entry)) => entry,
                Some(Err(failure)) => {
                    tried += 1;
                    let resumable = self.last.is_none() || self.backend.lists_in_order();
                    if !failure.transient || !resumable || tried > 4 {
                        return Err(failure.error);
                    }
                    tokio::time::sleep(Duration::from_millis(200 << tried)).await;
                    self.body = self.backend.list(&self.folder, self.last.as_deref());
                    continue;
                }
            };
            self.last = Some(entry.key.clone());
            let inside = entry.key.strip_prefix(&self.folder).is_some_and(|rest| {
                rest.split('/')
                    .all(|part| !part.is_empty() && part != "." && part != "..")
            });
            if inside {
                return Ok(Some(Entry {
                    key: entry.key[self.prefix..].to_owned(),
                    ..entry
                }));
            }
        }
    }
}

/// An object of a store, read by ranges.
#[derive(Clone, Debug)]
pub struct StoreSource {
    store: Store,
    key: String,
}

#[async_trait]
impl Source for StoreSource {
    async fn len(&self) -> Result<u64> {
        Ok(self.store.head(&self.key).await?.size)
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.range(&self.key, range).await
    }

    async fn stream(&self) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.store.stream(&self.key).await
    }
}

#[cfg(test)]
mod tests;
