//! Repositories in memory: what is promised of a snapshot, of keys and of claims.

mod claims;
mod hostile;
mod keys;
mod rails;
mod round_trip;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::watch;

use super::Target;
use super::entry::{Entry, EntryPath, Moment, What};
use super::key::{KeptInMemory, KeyCache, Keyring};
use super::source::{Content, Entries, Found, Opener, Source};
use super::store::{Base, Of, Saved, VolumeStore};
use crate::crypt::{Identities, Recipients};
use crate::error::{Error, Result};
use crate::layout::VolumeKeys;
use crate::location::Store;
use crate::location::trial::{Fate, Trial};

pub(super) fn entry(path: &str, what: What, size: u64) -> Entry {
    Entry {
        path: EntryPath::new(path),
        what,
        mode: 0o640,
        uid: 1000,
        gid: 1000,
        size,
        mtime: Moment(1_700_000_000, 5),
        ctime: Moment(1_700_000_000, 6),
        inode: 7,
        device: 8,
        links: 1,
        attributes: Vec::new(),
    }
}

type Hook = dyn Fn() -> Result<()> + Send + Sync;

/// A volume that a test makes.
pub(super) struct Made {
    entries: Vec<(Entry, Option<io::Result<Vec<u8>>>)>,
    ended: Box<Hook>,
}

impl Made {
    /// With these files at its root.
    pub(super) fn of(files: &[(&str, &[u8])]) -> Self {
        let mut made = Self {
            entries: vec![(entry("", What::Folder, 0), None)],
            ended: Box::new(|| Ok(())),
        };
        for (path, bytes) in files {
            made = made.file(path, bytes.len() as u64, bytes);
        }
        made
    }

    /// A file that says to have another size.
    pub(super) fn file(mut self, path: &str, size: u64, bytes: &[u8]) -> Self {
        let file = entry(path, What::File, size);
        self.entries.push((file, Some(Ok(bytes.to_vec()))));
        self
    }

    pub(super) fn unreadable(mut self, path: &str) -> Self {
        let refused = Err(io::ErrorKind::PermissionDenied.into());
        self.entries
            .push((entry(path, What::File, 9), Some(refused)));
        self
    }

    /// What happens when all was read and stored, and no snapshot stands yet.
    pub(super) fn ending(mut self, hook: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        self.ended = Box::new(hook);
        self
    }
}

impl Source for Made {
    fn entries(&self) -> Result<Entries> {
        let all: Vec<_> = self
            .entries
            .iter()
            .map(|(entry, content)| Found {
                entry: entry.clone(),
                content: content.as_ref().map(|content| {
                    let content = match content {
                        Ok(bytes) => Ok(bytes.clone()),
                        Err(e) => Err(e.kind()),
                    };
                    Box::new(move || {
                        let bytes = content?;
                        Ok(Box::new(io::Cursor::new(bytes)) as Box<dyn Content>)
                    }) as Opener
                }),
            })
            .map(Ok)
            .collect();
        Ok(Box::new(all.into_iter()))
    }

    fn ended(&self) -> Result<()> {
        (self.ended)()
    }
}

/// What comes back, in memory.
#[derive(Default)]
pub(super) struct Back(pub(super) Vec<(Entry, Vec<u8>)>);

impl Target for Back {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.0.push((entry.clone(), Vec::new()));
        Ok(())
    }

    fn data(&mut self, bytes: Bytes) -> Result<()> {
        let last = self.0.last_mut();
        let last = last.ok_or_else(|| Error::corrupt("bytes of nothing"))?;
        last.1.extend_from_slice(&bytes);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A location with one volume in it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) store: Store,
    pub(super) keys: VolumeKeys,
    pub(super) cache: Arc<dyn KeyCache>,
    pub(super) recipients: Recipients,
    pub(super) identities: Identities,
}

impl Place {
    pub(super) fn new() -> Self {
        Self {
            store: Store::in_memory(),
            keys: VolumeKeys::new("c", "n", "u").unwrap(),
            cache: Arc::new(KeptInMemory::default()),
            recipients: Recipients::default(),
            identities: Identities::default(),
        }
    }

    pub(super) fn ring(&self) -> Keyring<'_> {
        Keyring {
            recipients: &self.recipients,
            passphrase: None,
            identities: &self.identities,
            cache: &*self.cache,
        }
    }

    pub(super) fn volume(&self) -> VolumeStore {
        VolumeStore::new(&self.store, &self.keys)
    }

    pub(super) async fn backup(&self, made: Made, base: Base) -> Result<Saved> {
        let of = Of {
            backup: "b".to_owned(),
            uid: "uid".to_owned(),
            host: "here".to_owned(),
        };
        let source = Arc::new(made);
        let (_never, stop) = watch::channel(false);
        let volume = self.volume();
        volume.backup(source, &self.ring(), &of, &base, stop).await
    }

    pub(super) async fn restore(&self, saved: &Saved) -> Result<Vec<(Entry, Vec<u8>)>> {
        let volume = self.volume();
        let ring = self.ring();
        let back = volume.restore(saved.repository, &saved.snapshot, &ring, Back::default());
        Ok(back.await?.0)
    }

    /// The same place, whose claims are not there any more once a snapshot was written; all else is as it is judged.
    pub(super) fn losing_its_claim(
        &self,
        judge: impl Fn(&str, &str) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let written = Arc::new(AtomicBool::new(false));
        let is_lost = Arc::clone(&written);
        let trial = Trial::of(&self.store)
            .judged(move |verb, key| {
                if verb == "put" && key.contains("/snapshots/") {
                    written.store(true, Ordering::SeqCst);
                }
                judge(verb, key)
            })
            .hiding(move |folder| folder.ends_with(".claims/") && is_lost.load(Ordering::SeqCst));
        Self {
            store: trial.store(),
            ..self.clone()
        }
    }

    /// The keys of all objects of this kind: `snapshots`, `data`.
    pub(super) async fn objects(&self, kind: &str) -> Vec<String> {
        let all = self.store.entries("restic/", 10_000).await.unwrap();
        let all = all.into_iter().map(|entry| entry.key);
        all.filter(|key| key.contains(&format!("/{kind}/")))
            .collect()
    }
}

/// Bytes that do not compress, of a seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Runs what waits inside of a hook, which is on a thread of its own.
pub(super) fn wait<T>(handle: &tokio::runtime::Handle, work: impl Future<Output = T>) -> T {
    handle.block_on(work)
}
