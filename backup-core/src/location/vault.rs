//! Encrypted backups of a location, or the encrypted Secrets of one, seen as if they were plain: a [`Backend`] over another one, so that what writes, reads, claims and removes backups is one
//! code for both. Keys below `backups/` lead into the vault, where files are sealed for the backup's key; claims, `key.age` and `recipients.txt` stand there
//! as they are; every other key is the location's own. Sizes are those of what was sealed, but for the marker's. Without a key the marker shows its part in
//! the clear, files can be listed and removed, and nothing else. To copy them as they are they are shown sealed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backend::{Backend, Failure, Reading};
use super::kept::Kept;
use super::store::{Created, Entry};
use crate::api::{Backup, BackupStatus, EXPIRES};
use crate::catalog::{CLUSTER_UID, SCHEDULE_NAME};
use crate::crypt::BackupKey;
use crate::crypt::armor::{armored, unarmored};
use crate::crypt::file::{CHUNK, HEAD, Opening, SEALED_CHUNK, Sealing, plain_size};
use crate::error::{Error, Kind, Result};
use crate::layout::{BACKUPS, BackupKeys, Sealed, VAULT};

/// Annotation that tells what of a backup is encrypted: `age`, in the part of a marker that stands in the clear, or `secrets`; ours.
pub const ENCRYPTION: &str = "kubectl-backup/encryption";

/// A marker of 4 MiB, sealed and armored, and its part in the clear.
pub(crate) const LARGEST_MANIFEST: u64 = 12 << 20;

/// Keys of files that are remembered: of one backup there are no more.
const REMEMBERED: usize = 64;

/// `manifest.json`.
#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    /// What anybody may read.
    backup: Value,
    /// The whole marker for the backup's key, armored.
    sealed: String,
}

/// What of a marker anybody may read: no name of an object, no label or annotation that a user gave, nothing of what was asked for.
fn in_the_clear(marker: &Backup) -> Backup {
    let (meta, status) = (&marker.metadata, &marker.status);
    let mut clear = Backup {
        api_version: marker.api_version.clone(),
        kind: marker.kind.clone(),
        status: BackupStatus {
            failure_reason: None,
            rest: serde_json::Map::new(),
            ..status.clone()
        },
        ..Backup::default()
    };
    clear.metadata.name.clone_from(&meta.name);
    clear.metadata.namespace.clone_from(&meta.namespace);
    clear.metadata.creation_timestamp = meta.creation_timestamp;
    let of = |all: &BTreeMap<String, String>, known: &[&str]| -> BTreeMap<_, _> {
        let known = known.iter().filter_map(|key| all.get_key_value(*key));
        known.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    clear.metadata.labels = of(&meta.labels, &[SCHEDULE_NAME]);
    clear.metadata.annotations = of(
        &meta.annotations,
        &[
            CLUSTER_UID,
            EXPIRES,
            // The attempt that made it: a controller knows by it that it is its own.
            "kubectl-backup/run",
            "velero.io/source-cluster-k8s-gitversion",
            "velero.io/source-cluster-k8s-major-version",
            "velero.io/source-cluster-k8s-minor-version",
        ],
    );
    clear
        .metadata
        .annotations
        .insert(ENCRYPTION.to_owned(), "age".to_owned());
    clear
}

/// The marker with its part in the clear.
fn manifest(key: &BackupKey, marker: &Bytes) -> Result<Bytes> {
    let unfit = |e: serde_json::Error| Error::other("the marker is no JSON").because(e);
    let backup: Backup = serde_json::from_slice(marker).map_err(unfit)?;
    let manifest = Manifest {
        version: 1,
        backup: serde_json::to_value(in_the_clear(&backup)).map_err(unfit)?,
        sealed: armored(&key.seal(marker.clone())?),
    };
    let bytes = serde_json::to_vec_pretty(&manifest).map_err(unfit)?;
    Ok(bytes.into())
}

/// The marker in it, with the key the whole one.
fn marker(key: Option<&BackupKey>, bytes: &[u8]) -> Result<Bytes> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|e| Error::corrupt("it is no manifest of an encrypted backup").because(e))?;
    if manifest.version != 1 {
        return Err(Error::corrupt(format!(
            "it is of version {}, which this program does not know",
            manifest.version
        ))
        .hint("use a newer version of this program"));
    }
    let clear = |value: &Value| {
        serde_json::to_vec_pretty(value)
            .map(Bytes::from)
            .map_err(|e| Error::corrupt("its part in the clear is no JSON").because(e))
    };
    let Some(key) = key else {
        return clear(&manifest.backup);
    };
    let sealed = unarmored(&manifest.sealed)
        .ok_or_else(|| Error::corrupt("its encrypted part was altered or cut"))?;
    let whole = key.open(&sealed)?;
    let backup: Backup = serde_json::from_slice(&whole)
        .map_err(|e| Error::corrupt("its encrypted part is no backup").because(e))?;
    let meant = serde_json::to_value(in_the_clear(&backup));
    if meant.ok().as_ref() != Some(&manifest.backup) {
        return Err(Error::corrupt(
            "its part in the clear is not what the encrypted part says: somebody altered it",
        ));
    }
    Ok(whole)
}

/// What is sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Whole backups, in a folder beside `backups/`.
    Backups,
    /// The Secrets of plain backups, where they stand.
    Secrets,
}

/// A location's backend, with `backups/` leading into its vault, or with the sealed Secrets of plain backups opened.
pub(super) struct Vault {
    inner: Arc<dyn Backend>,
    /// The location's prefix: empty, or ending with a slash.
    prefix: Arc<str>,
    scheme: Scheme,
    key: Option<BackupKey>,
    /// Whether every file is what stands there: nothing is sealed and nothing opened.
    as_it_stands: bool,
    /// Keys of files, by where they stand.
    openings: Mutex<BTreeMap<String, Arc<Opening>>>,
}

impl Vault {
    pub(super) fn new(
        inner: Arc<dyn Backend>,
        prefix: Arc<str>,
        scheme: Scheme,
        key: Option<BackupKey>,
    ) -> Self {
        Self {
            inner,
            prefix,
            scheme,
            key,
            as_it_stands: false,
            openings: Mutex::default(),
        }
    }

    /// The same with every file as it stands.
    pub(super) fn as_it_stands(inner: Arc<dyn Backend>, prefix: Arc<str>) -> Self {
        Self {
            as_it_stands: true,
            ..Self::new(inner, prefix, Scheme::Backups, None)
        }
    }

    /// Where a whole key leads: into the vault, or nothing where it is the location's own.
    fn place(&self, key: &str) -> Option<Sealed> {
        let key = key.strip_prefix(&*self.prefix)?;
        let sealed = match self.scheme {
            Scheme::Backups => key.starts_with(BACKUPS).then(|| Sealed::of(key)),
            Scheme::Secrets => {
                BackupKeys::is_sealed_secrets(key).then(|| Sealed::Encrypted(key.to_owned()))
            }
        }?;
        Some(match self.as_it_stands {
            true => Sealed::Clear(sealed.key().to_owned()),
            false => sealed,
        })
    }

    /// The whole key at which it stands.
    fn stands(&self, key: &str) -> String {
        match self.place(key) {
            Some(sealed) => format!("{}{}", self.prefix, sealed.key()),
            None => key.to_owned(),
        }
    }

    /// A folder's.
    fn folder(&self, folder: &str) -> (String, bool) {
        match folder.strip_prefix(&*self.prefix) {
            Some(inside) if self.scheme == Scheme::Backups && inside.starts_with(BACKUPS) => {
                (format!("{}{VAULT}{inside}", self.prefix), true)
            }
            _ => (folder.to_owned(), false),
        }
    }

    fn key(&self, of: &str) -> Result<&BackupKey> {
        self.key.as_ref().ok_or_else(|| {
            Error::new(
                Kind::Unauthorized,
                format!("{} in {} is encrypted", self.short(of), self.inner.place()),
            )
            .hint("give the private key of one of its recipients with --identity FILE, or the passphrase with --passphrase-file FILE")
        })
    }

    /// A key below the location's prefix.
    fn short<'a>(&self, stands: &'a str) -> &'a str {
        stands.strip_prefix(&*self.prefix).unwrap_or(stands)
    }

    /// Says of which file an error is.
    fn about(&self, stands: &str, e: Error) -> Failure {
        let what = format!(
            "{} in {} can not be read",
            self.short(stands),
            self.inner.place()
        );
        Failure::final_answer(match e.kind() {
            Kind::Corrupt => e.context(what),
            _ => e,
        })
    }

    fn openings(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Opening>>> {
        self.openings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of a file that stands.
    async fn opening(&self, stands: &str) -> Result<Arc<Opening>, Failure> {
        if let Some(known) = self.openings().get(stands) {
            return Ok(Arc::clone(known));
        }
        let key = self.key(stands).map_err(Failure::final_answer)?;
        let mut reading = self.inner.get(stands, Some(0..HEAD)).await?;
        let mut head = BytesMut::new();
        while let Some(chunk) = reading.body.next().await {
            head.extend_from_slice(&chunk?);
            if head.len() as u64 > HEAD {
                break;
            }
        }
        if (head.len() as u64) < HEAD && reading.size >= HEAD {
            let e = Error::new(
                Kind::Unreachable,
                format!("{} broke off", self.short(stands)),
            );
            return Err(Failure {
                transient: true,
                ..Failure::final_answer(e)
            });
        }
        let opening = key.opening(&head).map_err(|e| self.about(stands, e))?;
        let opening = Arc::new(opening);
        let mut openings = self.openings();
        if openings.len() >= REMEMBERED {
            openings.clear();
        }
        openings.insert(stands.to_owned(), Arc::clone(&opening));
        Ok(opening)
    }

    /// The marker, whole.
    async fn marker(&self, stands: &str) -> Result<(Bytes, Option<String>), Failure> {
        let mut reading = self.inner.get(stands, None).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = reading.body.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() as u64 > LARGEST_MANIFEST {
                let e = Error::corrupt(format!("it is larger than {} MiB", LARGEST_MANIFEST >> 20));
                return Err(self.about(stands, e));
            }
        }
        let marker = marker(self.key.as_ref(), &bytes).map_err(|e| self.about(stands, e))?;
        Ok((marker, reading.version))
    }

    /// Bytes of a sealed file.
    async fn open(&self, stands: &str, range: Option<Range<u64>>) -> Result<Reading, Failure> {
        let opening = self.opening(stands).await?;
        let sealed = match &range {
            None => HEAD..u64::MAX,
            Some(range) => {
                let first = HEAD + range.start / CHUNK * SEALED_CHUNK;
                let chunks = range.end.div_ceil(CHUNK);
                first..HEAD + chunks * SEALED_CHUNK
            }
        };
        // What stands may be shorter than the range asks for, but where it begins has to be in it.
        let whole = range.is_none();
        let asked = (!whole).then(|| sealed.clone());
        let reading = self.inner.get(stands, asked).await?;
        let odd = || {
            let e = Error::corrupt("it has a size that no encrypted file has: it was cut");
            self.about(stands, e)
        };
        let (chunks, size) = plain_size(reading.size).ok_or_else(odd)?;
        let Range { start, end } = range.unwrap_or(0..size);
        let name = format!(
            "{} in {} can not be read",
            self.short(stands),
            self.inner.place()
        );
        let state = Body {
            inner: reading.body,
            opening,
            buffer: BytesMut::new(),
            head: if whole { HEAD as usize } else { 0 },
            number: start / CHUNK,
            chunks,
            last: (reading.size - HEAD) - (chunks - 1) * SEALED_CHUNK,
            skip: (start % CHUNK) as usize,
            left: end.min(size).saturating_sub(start),
            unproven: size == 0,
            name,
        };
        let body = stream::try_unfold(state, |mut state| async move {
            Ok(state.next().await?.map(|chunk| (chunk, state)))
        });
        Ok(Reading {
            size,
            version: reading.version,
            body: body.boxed(),
        })
    }
}

/// A sealed file on its way to who reads it.
struct Body {
    inner: BoxStream<'static, Result<Bytes, Failure>>,
    opening: Arc<Opening>,
    buffer: BytesMut,
    /// Bytes before the first chunk that come along.
    head: usize,
    number: u64,
    chunks: u64,
    /// Size of the last chunk as it stands.
    last: u64,
    skip: usize,
    left: u64,
    /// Nothing was sealed, says the size alone: the chunk that has to prove it is still to be opened.
    unproven: bool,
    /// For messages.
    name: String,
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while (self.left > 0 || self.unproven) && self.number < self.chunks {
            let is_last = self.number + 1 == self.chunks;
            let length = if is_last { self.last } else { SEALED_CHUNK } as usize;
            while self.buffer.len() < self.head + length {
                match self.inner.next().await {
                    Some(chunk) => self.buffer.extend_from_slice(&chunk?),
                    // A broken connection: the caller takes it up where it was.
                    None => return Ok(None),
                }
            }
            let _ = self.buffer.split_to(std::mem::take(&mut self.head));
            let mut sealed = self.buffer.split_to(length);
            let opened = self.opening.chunk(self.number, is_last, &mut sealed);
            let plain = opened
                .map_err(|e| Failure::final_answer(e.context(self.name.clone())))?
                .len();
            self.number += 1;
            self.unproven = false;
            sealed.truncate(plain);
            let from = std::mem::take(&mut self.skip).min(plain);
            let mut bytes = sealed.freeze().slice(from..);
            bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= bytes.len() as u64;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Backend for Vault {
    fn place(&self) -> &str {
        self.inner.place()
    }

    async fn head(&self, key: &str) -> Result<Entry, Failure> {
        let stands = self.stands(key);
        let mut entry = self.inner.head(&stands).await?;
        if let Some(Sealed::Encrypted(_)) = self.place(key) {
            entry.size = plain_size(entry.size).map_or(0, |(_, size)| size);
        }
        Ok(entry)
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading, Failure> {
        let stands = self.stands(key);
        match self.place(key) {
            None | Some(Sealed::Clear(_)) => self.inner.get(&stands, range).await,
            Some(Sealed::Encrypted(_)) => self.open(&stands, range).await,
            Some(Sealed::Manifest(_)) => {
                let (marker, version) = self.marker(&stands).await?;
                let size = marker.len() as u64;
                let Range { start, end } = range.unwrap_or(0..size);
                let part = marker.slice(start.min(size) as usize..end.min(size) as usize);
                Ok(Reading {
                    size,
                    version,
                    body: stream::once(async { Ok(part) }).boxed(),
                })
            }
        }
    }

    async fn put(&self, key: &str, bytes: Bytes, create: bool) -> Result<Created, Failure> {
        let stands = self.stands(key);
        let sealed = match self.place(key) {
            None | Some(Sealed::Clear(_)) => Ok(bytes),
            Some(Sealed::Encrypted(_)) => self.key(&stands).and_then(|key| key.seal(bytes)),
            Some(Sealed::Manifest(_)) => self.key(&stands).and_then(|key| manifest(key, &bytes)),
        };
        let sealed = sealed.map_err(Failure::final_answer)?;
        self.openings().remove(&stands);
        self.inner.put(&stands, sealed, create).await
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        let stands = self.stands(key);
        self.openings().remove(&stands);
        self.inner.delete(&stands).await
    }

    fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Entry, Failure>> {
        let (stands, in_vault) = self.folder(folder);
        if !in_vault {
            return self.inner.list(folder, after);
        }
        let after = after.map(|key| self.stands(key));
        let prefix = Arc::clone(&self.prefix);
        let as_it_stands = self.as_it_stands;
        let seen = move |mut entry: Entry| {
            let (key, sealed) = Sealed::back(entry.key.strip_prefix(&*prefix)?)?;
            entry.key = format!("{prefix}{key}");
            if let Sealed::Encrypted(_) = sealed
                && !as_it_stands
            {
                entry.size = plain_size(entry.size).map_or(0, |(_, size)| size);
            }
            Some(entry)
        };
        self.inner
            .list(&stands, after.as_deref())
            .try_filter_map(move |entry| futures::future::ready(Ok(seen(entry))))
            .boxed()
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Failure> {
        self.inner.folders(&self.folder(folder).0).await
    }

    fn lists_in_order(&self) -> bool {
        // In a vault names are in another order than what stands for them.
        self.scheme == Scheme::Secrets && self.inner.lists_in_order()
    }

    async fn begin(&self, key: &str) -> Result<String, Failure> {
        self.inner.begin(&self.stands(key)).await
    }

    async fn part(
        &self,
        key: &str,
        id: &str,
        number: usize,
        at: u64,
        bytes: Bytes,
    ) -> Result<String, Failure> {
        let stands = self.stands(key);
        self.inner.part(&stands, id, number, at, bytes).await
    }

    async fn complete(&self, key: &str, id: &str, parts: Vec<String>) -> Result<(), Failure> {
        let stands = self.stands(key);
        self.openings().remove(&stands);
        self.inner.complete(&stands, id, parts).await
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), Failure> {
        self.inner.abort(&self.stands(key), id).await
    }

    async fn may_write(&self, key: &str) -> Result<(), Failure> {
        self.inner.may_write(&self.stands(key)).await
    }

    async fn kept(&self, key: &str) -> Result<Kept, Failure> {
        self.inner.kept(&self.stands(key)).await
    }

    async fn signed(&self, key: &str, lasts: Duration) -> Result<Option<String>, Failure> {
        match self.place(key) {
            None => self.inner.signed(key, lasts).await,
            // Whoever got it would get what nobody can read.
            Some(_) => Ok(None),
        }
    }

    async fn sweep(&self, folder: &str) -> Result<(), Failure> {
        self.inner.sweep(&self.folder(folder).0).await
    }

    fn sealing(&self, key: &str) -> Result<Option<Sealing>> {
        match self.place(key) {
            Some(Sealed::Encrypted(stands)) => self.key(&stands)?.sealing().map(Some),
            // Neither is ever uploaded in parts.
            None | Some(Sealed::Clear(_) | Sealed::Manifest(_)) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
