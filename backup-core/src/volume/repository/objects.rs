//! A repository's objects as rustic asks for them, in a [`Store`]: its prefix, its retries and its failures are those of everything else. What may be written is decided
//! by what the run is for; a snapshot is never written from here, but held until everything that it promises was looked at.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};
use tokio::runtime::Handle;

use super::super::rails::Rail;
use super::keyfile;
use crate::error::{Error, Kind, Result};
use crate::location::claim::SharedClaim;
use crate::location::{Store, sha256};

/// A snapshot has a few hundred bytes, an index of 50,000 blobs a few megabytes. It is held whole, and some at once.
const LARGEST_SMALL: u64 = 16 << 20;
const LARGEST_INDEX: u64 = 64 << 20;
/// rustic packs no more than this together, and a blob may be larger than that by itself.
const LARGEST_PACK: u64 = u32::MAX as u64;

/// More objects of a kind than this are no repository of ours.
const MOST: usize = 8_000_000;

/// Packs are read in blocks of this size, and so many of these are kept: what lies together in a volume lies together in packs.
const BLOCK: u64 = 2 << 20;
const BLOCKS: usize = 12;

/// What a run may do.
#[derive(Clone)]
pub(in super::super) enum Access {
    /// Nothing is written.
    Read,
    /// The key and the configuration are, once.
    Begin(Arc<SharedClaim>),
    /// Packs, indexes and, at the end, one snapshot.
    Backup(Arc<SharedClaim>),
    /// Packs and indexes are written and removed.
    Prune(Arc<SharedClaim>),
}

/// A block of a pack that somebody fetches, or has fetched.
type Block = Arc<Mutex<Option<Bytes>>>;

/// The objects of one repository.
pub(in super::super) struct Objects {
    store: Store,
    /// With its slash.
    folder: String,
    runtime: Handle,
    access: Access,
    /// The snapshot that was to be written.
    held: Mutex<Option<(Id, Bytes)>>,
    /// What failed first, in our words.
    failure: Mutex<Option<Error>>,
    failed: Arc<AtomicBool>,
    /// Nothing more is asked of the store.
    ended: AtomicBool,
    sizes: Mutex<Option<Arc<BTreeMap<Id, u64>>>>,
    blocks: Mutex<VecDeque<((Id, u64), Block)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut(key: &str, size: u64, end: u64) -> Error {
    Error::corrupt(format!(
        "{key} has {size} bytes and should have {end} at least"
    ))
}

fn digest(id: &Id) -> String {
    id.to_hex().as_str().to_owned()
}

impl Objects {
    pub(in super::super) fn new(store: &Store, folder: &str, access: Access) -> Arc<Self> {
        Arc::new(Self {
            // A repository is encrypted by itself: it stands in the plain part of a location.
            store: store.outside(),
            folder: folder.to_owned(),
            runtime: Handle::current(),
            access,
            held: Mutex::default(),
            failure: Mutex::default(),
            failed: Arc::default(),
            ended: AtomicBool::new(false),
            sizes: Mutex::default(),
            blocks: Mutex::default(),
        })
    }

    pub(super) fn key(&self, kind: FileType, id: &Id) -> String {
        let (folder, id) = (&self.folder, digest(id));
        match kind {
            FileType::Config => format!("{folder}config"),
            FileType::Pack => format!("{folder}data/{}/{id}", &id[..2]),
            kind => format!("{folder}{}/{id}", kind.dirname()),
        }
    }

    /// What failed first; asked when rustic is done, whose own words are about itself.
    pub(super) fn failure(&self) -> Option<Error> {
        locked(&self.failure).take()
    }

    /// Set once something failed.
    pub(super) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.failed)
    }

    /// Ends what is done with it, for this reason: what was sent is answered, and nothing more is asked.
    pub(in super::super) fn end(&self, why: Error) {
        // In this order: whoever sees that something failed sees that it was ended, and whoever sees that finds this reason.
        let mut failure = locked(&self.failure);
        self.ended.store(true, Ordering::SeqCst);
        failure.get_or_insert(why);
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Whether it was ended.
    pub(in super::super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether something failed: then nothing more is read or sent.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// The snapshot that is held back.
    pub(super) fn held(&self) -> Option<(Id, Bytes)> {
        locked(&self.held).take()
    }

    fn fail(&self, error: Error) -> Box<RusticError> {
        let said = RusticError::new(ErrorKind::Backend, error.sentence());
        locked(&self.failure).get_or_insert(error);
        self.failed.store(true, Ordering::SeqCst);
        said
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> RusticResult<T> {
        if self.has_ended() {
            return Err(self.fail(Error::new(Kind::Interrupted, "it was stopped")));
        }
        self.runtime.block_on(work).map_err(|e| self.fail(e))
    }

    fn refuse<T>(&self, what: &str) -> RusticResult<T> {
        Err(self.fail(Error::other(format!("{what} is not for this run"))))
    }

    pub(super) fn list(&self, kind: FileType) -> RusticResult<Vec<(Id, u64)>> {
        let folder = format!("{}{}/", self.folder, kind.dirname());
        let most = if kind == FileType::Key {
            keyfile::MOST
        } else {
            MOST
        };
        self.wait(async {
            let mut found = Vec::new();
            let mut listing = self.store.list(&folder);
            while let Some(entry) = listing.next().await {
                let entry = entry?;
                let name = entry.key.rsplit('/').next().unwrap_or_default();
                // Whatever else lies there is nobody's.
                if let Ok(id) = name.parse::<Id>()
                    && self.key(kind, &id) == entry.key
                {
                    found.push((id, entry.size));
                }
                if found.len() > most {
                    return Err(Error::corrupt(format!(
                        "{folder} holds more than {most} objects, and none of ours does"
                    )));
                }
            }
            Ok(found)
        })
    }

    /// The packs that stand there now, by their sizes.
    fn sizes(&self) -> RusticResult<Arc<BTreeMap<Id, u64>>> {
        let mut sizes = locked(&self.sizes);
        if let Some(sizes) = &*sizes {
            return Ok(Arc::clone(sizes));
        }
        let listed = Arc::new(self.list(FileType::Pack)?.into_iter().collect());
        *sizes = Some(Arc::clone(&listed));
        Ok(listed)
    }

    fn block(&self, id: &Id, number: u64, size: u64) -> RusticResult<Bytes> {
        let block = {
            let mut blocks = locked(&self.blocks);
            let wanted = (*id, number);
            match blocks.iter().position(|(known, _)| *known == wanted) {
                Some(at) => {
                    let found = blocks
                        .remove(at)
                        .map(|(_, block)| block)
                        .unwrap_or_default();
                    blocks.push_back((wanted, Arc::clone(&found)));
                    found
                }
                None => {
                    let fresh = Block::default();
                    blocks.push_back((wanted, Arc::clone(&fresh)));
                    if blocks.len() > BLOCKS {
                        blocks.pop_front();
                    }
                    fresh
                }
            }
        };
        let mut block = locked(&block);
        if let Some(bytes) = &*block {
            return Ok(bytes.clone());
        }
        let begin = number * BLOCK;
        let range = begin..size.min(begin + BLOCK);
        let key = self.key(FileType::Pack, id);
        let bytes = self.wait(self.store.range(&key, range))?;
        *block = Some(bytes.clone());
        Ok(bytes)
    }

    fn of_pack(&self, id: &Id, offset: u64, length: u64) -> RusticResult<Bytes> {
        let sizes = self.sizes()?;
        let (Some(size), end) = (sizes.get(id).copied(), offset + length) else {
            return Err(self.fail(Error::corrupt(format!(
                "{} is not there: files of this volume are lost",
                self.key(FileType::Pack, id)
            ))));
        };
        if end > size || length > LARGEST_PACK {
            let key = self.key(FileType::Pack, id);
            return Err(self.fail(cut(&key, size, end)));
        }
        if length > 2 * BLOCK {
            let key = self.key(FileType::Pack, id);
            return self.wait(self.store.range(&key, offset..end));
        }
        let mut found = BytesMut::new();
        let mut at = offset;
        while at < end {
            let number = at / BLOCK;
            let bytes = self.block(id, number, size)?;
            let from = (at - number * BLOCK) as usize;
            let to = ((end - number * BLOCK) as usize).min(bytes.len());
            if found.is_empty() && at == offset && to - from == length as usize {
                return Ok(bytes.slice(from..to));
            }
            found.extend_from_slice(&bytes[from..to]);
            at = number * BLOCK + to as u64;
        }
        Ok(found.freeze())
    }

    async fn write(&self, kind: FileType, id: &Id, bytes: Bytes) -> Result<()> {
        let not_for = |what: &str| Error::other(format!("{what} are not for this run"));
        let ((Access::Begin(claim), FileType::Key | FileType::Config)
        | (Access::Backup(claim) | Access::Prune(claim), FileType::Pack | FileType::Index)) =
            (&self.access, kind)
        else {
            return Err(not_for(kind.dirname()));
        };
        // An index names packs: those of a run that was taken for dead may be marked by now.
        if kind == FileType::Index {
            claim
                .confirm_unless(Rail::OwnClaim.is_off(), Rail::PruneClaim.is_off())
                .await?;
        }
        claim.write(&self.key(kind, id), bytes).await
    }
}

impl ReadBackend for Objects {
    fn location(&self) -> String {
        format!("{} in {}", self.folder, self.store.place())
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if kind == FileType::Config {
            // One object, whose name is no digest.
            let key = self.key(kind, &Id::default());
            let found = self.wait(self.store.find(&key, LARGEST_SMALL))?;
            return Ok(found
                .map(|bytes| (Id::default(), bytes.len() as u32))
                .into_iter()
                .collect());
        }
        let listed = self.list(kind)?;
        let sizes = listed.into_iter().map(|(id, size)| {
            let size = u32::try_from(size).map_err(|_| {
                let key = self.key(kind, &id);
                self.fail(Error::corrupt(format!("{key} is larger than 4 GiB")))
            })?;
            Ok((id, size))
        });
        sizes.collect()
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        let most = match kind {
            FileType::Config | FileType::Snapshot => LARGEST_SMALL,
            FileType::Key => keyfile::LONGEST,
            FileType::Index => LARGEST_INDEX,
            FileType::Pack => LARGEST_PACK,
        };
        let key = self.key(kind, id);
        self.wait(async {
            let bytes = self.store.get(&key, most).await?;
            // Each names itself: one that was put in the place of another is seen.
            if kind != FileType::Config && sha256(&bytes) != digest(id) {
                return Err(Error::corrupt(format!(
                    "{key} in {} is not what was written: its SHA-256 is another",
                    self.store.place()
                )));
            }
            // It says itself how much work and memory it takes to look whether it fits.
            if kind == FileType::Key && !keyfile::is_bearable(&bytes) {
                return Err(Error::corrupt(format!(
                    "{key} in {} asks for more work or memory than a key of restic's does",
                    self.store.place()
                ))
                .hint("this program did not write it; where another key stands beside it, remove this one"));
            }
            Ok(bytes)
        })
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        if kind == FileType::Pack && !matches!(self.access, Access::Prune(_)) {
            return self.of_pack(id, offset.into(), length.into());
        }
        let range = u64::from(offset)..u64::from(offset) + u64::from(length);
        let key = self.key(kind, id);
        self.wait(async {
            let read = self.store.range(&key, range.clone()).await;
            // Stores have no word of their own for an object that ends before.
            if matches!(&read, Err(e) if e.kind() == Kind::Other) {
                let size = self.store.head(&key).await?.size;
                if size < range.end {
                    return Err(cut(&key, size, range.end));
                }
            }
            read
        })
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        self.key(kind, id)
    }
}

impl WriteBackend for Objects {
    fn write_bytes(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        if self.has_failed() {
            return self.refuse("writing after a failure");
        }
        let mut pieces = content.into_vec();
        let bytes = match pieces.len() {
            1 => pieces.swap_remove(0),
            _ => pieces.concat().into(),
        };
        // A pack is held once while it is sent.
        drop(pieces);
        if kind == FileType::Snapshot {
            if !matches!(self.access, Access::Backup(_)) {
                return self.refuse("a snapshot");
            }
            *locked(&self.held) = Some((*id, bytes));
            return Ok(());
        }
        self.wait(self.write(kind, id, bytes))
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        match (&self.access, kind) {
            (Access::Prune(claim), FileType::Pack | FileType::Index) => self.wait(async {
                claim.alive()?;
                claim.remove(&self.key(kind, id)).await
            }),
            _ => self.refuse("removing"),
        }
    }
}
