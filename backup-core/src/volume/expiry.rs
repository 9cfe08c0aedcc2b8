//! Snapshots that go: those of a backup that was deleted, and those that no backup names any more; the space that they took; and repositories without any. docs/volumes.md,
//! "Expiry and prune", says in what order, and why nothing is lost at any step. Which backups go is decided by others. No key is needed but to free space.
//!
//! `named` is what the backups of a location own, `note` what stands beside a repository, `forget` what happens in one of them, [`look`] how all of a cluster's are looked through.

mod forget;
mod look;
mod named;
pub(super) mod note;

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::watch;

pub use forget::Forgotten;
pub use look::{CameTo, Look, look};

use super::key::Keyring;
use super::store::{KEEP_MARKED, VolumeStore};
use crate::backup::cancelled;
use crate::error::{Error, Kind};
use crate::layout::VolumeKeys;
use crate::location::Store;
use crate::records::snapshots::{FileSnapshot, Owned};
use named::Named;

/// What became of something, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Snapshots were forgotten; others stay in the repository.
    Forgotten {
        /// `restic/<cluster>/<namespace>/<volume>`
        repository: String,
        /// How many.
        snapshots: usize,
    },
    /// The repository went, with its last snapshots.
    Removed {
        /// As above.
        repository: String,
        /// How many.
        snapshots: usize,
    },
    /// No backup names these, or it has none: noted now, and gone in a look after this time.
    Noted {
        /// As above.
        repository: String,
        /// How many; none where the repository has no snapshot.
        snapshots: usize,
        /// From when on.
        after: Timestamp,
    },
    /// A prune went through the repository.
    Reclaimed {
        /// As above.
        repository: String,
        /// Bytes that were removed.
        freed: u64,
        /// Bytes that are removed by a prune after this time.
        waiting: Option<(u64, Timestamp)>,
    },
    /// A prune would free space in the repository, or mark some.
    Reclaimable {
        /// As above.
        repository: String,
    },
    /// A prune would free space, and nobody here can open the repository.
    Closed {
        /// As above.
        repository: String,
        /// Who could.
        why: String,
    },
    /// It stays for now, for somebody is at work in it, or this was stopped.
    Kept {
        /// As above.
        repository: String,
        /// Why.
        why: String,
    },
    /// What had to be done could not be, and why.
    Failed {
        /// As above.
        repository: String,
        /// Why.
        why: String,
    },
    /// What no backup names was not looked for, and why.
    Skipped(String),
    /// Nothing can be told as unnamed, and why: until somebody mends that, nothing is forgotten.
    Blind(String),
}

impl Outcome {
    /// Whether it is, or would be, a removal.
    pub fn removes(&self) -> bool {
        matches!(self, Self::Forgotten { .. } | Self::Removed { .. })
    }

    /// For a repository that could not be worked in.
    fn not_done(keys: &VolumeKeys, error: &Error) -> Self {
        let (repository, why) = (shown(keys), error.sentence());
        match error.kind() {
            Kind::AlreadyExists | Kind::Interrupted => Self::Kept { repository, why },
            _ => Self::Failed { repository, why },
        }
    }
}

/// Whether it is the store that can not be worked with, and not one thing in it.
fn is_of_all(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unreachable | Kind::Unauthorized)
}

/// What was not come to.
fn stopped(keys: &VolumeKeys) -> Outcome {
    Outcome::Kept {
        repository: shown(keys),
        why: "this was stopped before".to_owned(),
    }
}

/// Whether it is to end.
fn is_stopped(stopped: Option<&watch::Receiver<bool>>) -> bool {
    stopped.is_some_and(|stopped| *stopped.borrow())
}

/// What only reads, to its end; nothing where it is stopped before.
async fn unless_stopped<T>(
    stopped: Option<&watch::Receiver<bool>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let Some(stopped) = stopped else {
        return Some(work.await);
    };
    tokio::select! {
        biased;
        () = cancelled(stopped.clone()) => None,
        done = work => Some(done),
    }
}

/// A repository, for people.
fn shown(keys: &VolumeKeys) -> String {
    keys.repository().trim_end_matches('/').to_owned()
}

/// So many snapshots of a repository went, or would.
fn went(keys: &VolumeKeys, forgotten: &Forgotten) -> Outcome {
    let (repository, snapshots) = (shown(keys), forgotten.snapshots);
    match forgotten.whole {
        true => Outcome::Removed {
            repository,
            snapshots,
        },
        false => Outcome::Forgotten {
            repository,
            snapshots,
        },
    }
}

/// Snapshots by their repository.
fn by_repository(owned: &Owned) -> Vec<(VolumeKeys, Vec<String>)> {
    let mut all: BTreeMap<String, (VolumeKeys, Vec<String>)> = BTreeMap::new();
    for FileSnapshot { keys, id } in &owned.files {
        let of = all
            .entry(keys.repository())
            .or_insert_with(|| (keys.clone(), Vec::new()));
        of.1.push(id.clone());
    }
    all.into_values().collect()
}

/// Forgets what backups owned that are gone, but for what another one names. Says what became of each repository in which there was something to do; what could not be
/// done is an orphan. What was not come to when it was stopped, which is told as well, is left in `owned`.
pub async fn forget(
    store: &Store,
    owned: &mut Owned,
    host: &str,
    stop: Option<&watch::Receiver<bool>>,
) -> Vec<Outcome> {
    if owned.files.is_empty() {
        return Vec::new();
    }
    let store = store.outside();
    // Who is at work does not matter to what had an owner.
    let named = match unless_stopped(stop, Named::read(&store, Timestamp::MAX)).await {
        Some(Ok(named)) => named.unread().map_or(Ok(named), Err),
        Some(Err(e)) => Err(e.sentence()),
        None => Err(String::new()),
    };
    let mut told = Vec::new();
    for (keys, mut ids) in by_repository(&std::mem::take(owned)) {
        let mut leave = |ids: Vec<String>| {
            let of = |id| FileSnapshot {
                keys: keys.clone(),
                id,
            };
            owned.files.extend(ids.into_iter().map(of));
        };
        if is_stopped(stop) {
            told.push(stopped(&keys));
            leave(ids);
            continue;
        }
        let named = match &named {
            Ok(named) => named,
            Err(why) => {
                let (repository, why) = (shown(&keys), why.clone());
                told.push(Outcome::Failed { repository, why });
                continue;
            }
        };
        ids.retain(|id| !named.has_snapshot(id));
        let volume = VolumeStore::new(&store, &keys).until(stop);
        let may_go_whole = !named.has_repository(&keys);
        let expired = volume.expire(keys.number(), &ids, may_go_whole, host);
        match expired.await {
            Ok(forgotten) if forgotten.snapshots == 0 => {}
            Ok(forgotten) => told.push(went(&keys, &forgotten)),
            Err(e) => {
                told.push(Outcome::not_done(&keys, &e));
                if e.kind() == Kind::Interrupted {
                    leave(ids);
                }
            }
        }
    }
    told
}

/// What forgetting these would do; nobody is asked what stands.
pub fn would_forget(owned: &Owned) -> Vec<Outcome> {
    let would = |(keys, ids): (VolumeKeys, Vec<String>)| Outcome::Forgotten {
        repository: shown(&keys),
        snapshots: ids.len(),
    };
    by_repository(owned).into_iter().map(would).collect()
}

/// Frees what may be freed by now in a repository, and marks the rest.
async fn reclaim_one(
    store: &Store,
    keys: &VolumeKeys,
    keyring: &Keyring<'_>,
    host: &str,
    stop: Option<&watch::Receiver<bool>>,
) -> Outcome {
    let volume = VolumeStore::new(store, keys).until(stop);
    let pruned = volume.prune(keys.number(), keyring, host, KEEP_MARKED);
    match pruned.await {
        Ok(pruned) => Outcome::Reclaimed {
            repository: shown(keys),
            freed: pruned.removed_bytes,
            waiting: pruned
                .next
                .map(|next| (pruned.marked_bytes + pruned.waiting_bytes, next)),
        },
        Err(e) if e.kind() == Kind::Unauthorized => Outcome::Closed {
            repository: shown(keys),
            why: e.sentence(),
        },
        Err(e) => Outcome::not_done(keys, &e),
    }
}

#[cfg(test)]
mod tests;
