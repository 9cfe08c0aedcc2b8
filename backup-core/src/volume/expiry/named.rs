//! What the backups of a location own in repositories, all of them: plain and encrypted, with a marker or not, whoever made them. Reads only, and needs no key. Also who is at work on
//! one. Bounded: of each thing that is named 32 bytes are held, and of no more than a million.

use std::collections::{BTreeSet, HashSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::is_of_all;
use crate::catalog::read_digests;
use crate::error::{Kind, Result};
use crate::layout::{BACKUPS, BackupKeys, VolumeKeys};
use crate::location::Store;
use crate::location::claim::Folder;
use crate::name::Name;
use crate::records::snapshots::{Owned, lost, owned};

/// Snapshots and repositories.
const MOST: usize = 1_000_000;

/// Backups that are read at a time: a list may have 64 MiB.
const AT_A_TIME: usize = 4;

/// A SHA-256.
type Digest = [u8; 32];

/// What backups own, and who is at work.
#[derive(Default)]
pub(super) struct Named {
    things: HashSet<Digest>,
    /// Whether any backup has a marker.
    pub(super) any_stands: bool,
    /// Runs with a claim in a backup's folder that may be alive.
    pub(super) runs: BTreeSet<String>,
    unread: Vec<String>,
    is_full: bool,
}

/// What one folder says.
struct Said {
    owned: Result<Owned, String>,
    stands: bool,
    runs: Vec<String>,
}

impl Named {
    /// Reads all folders of backups. At this time of the store claims are judged; with the latest of all times, none is alive.
    ///
    /// # Errors
    /// The store's. What can not be read or understood of a backup is in [`Named::unread`].
    pub(super) async fn read(store: &Store, now: Timestamp) -> Result<Self> {
        let mut all = Self::default();
        for store in [store.outside(), store.vault(None)] {
            let store = &store;
            // What has no name of a backup is nobody's.
            let folders = store.folders(BACKUPS).await?.into_iter();
            let names: Vec<_> = folders
                .filter_map(|name| Name::foreign(&name).ok())
                .collect();
            let mut said = stream::iter(names)
                .map(|name| async move {
                    match said(store, &name, now).await {
                        Err(e) if !is_of_all(&e) => Ok(Said {
                            owned: Err(format!("backup {name}: {}", e.sentence())),
                            stands: false,
                            runs: Vec::new(),
                        }),
                        said => said,
                    }
                })
                .buffer_unordered(AT_A_TIME);
            while let Some(said) = said.try_next().await? {
                all.add(said);
            }
        }
        Ok(all)
    }

    fn add(&mut self, said: Said) {
        self.any_stands |= said.stands;
        self.runs.extend(said.runs);
        let owned = match said.owned {
            Ok(owned) => owned,
            Err(why) => return self.unread.push(why),
        };
        for file in &owned.files {
            if self.things.len() >= MOST {
                self.is_full = true;
                return;
            }
            self.things.insert(snapshot(&file.id));
            self.things.insert(repository(&file.keys));
        }
    }

    /// Whether a backup names this snapshot.
    pub(super) fn has_snapshot(&self, id: &str) -> bool {
        self.things.contains(&snapshot(id))
    }

    /// Whether a backup names a snapshot in this repository.
    pub(super) fn has_repository(&self, keys: &VolumeKeys) -> bool {
        self.things.contains(&repository(keys))
    }

    /// Why not all is known that backups name; then nothing may be taken for unnamed.
    pub(super) fn unread(&self) -> Option<String> {
        if self.is_full {
            return Some(format!(
                "the backups name more than {MOST} snapshots and repositories"
            ));
        }
        let first = self.unread.first()?;
        Some(match self.unread.len() - 1 {
            0 => format!("what a backup has in repositories can not be read: {first}"),
            more => format!(
                "what backups have in repositories can not be read: {first}, and of {more} more"
            ),
        })
    }
}

/// The claims are listed with the files, and the files read after that: a run whose claim is not there any more has written all it ever will. As a listing is no point in time,
/// what a run may have written while it was made is asked for by name.
async fn said(store: &Store, name: &Name, now: Timestamp) -> Result<Said> {
    let keys = BackupKeys::new(name);
    let folder = Folder::read(store, &keys, "").await?;
    let has = |key: &str| folder.files.iter().any(|file| file.key == key);
    let (lists, digests) = ([keys.snapshots(), keys.volumes()], keys.digests());
    let read = if folder.marker.is_none() || lists.iter().any(|key| has(key)) {
        owned(store, name).await
    } else if !store.is_vault() && folder.marker.is_some() && has(&digests) {
        none(store, &keys).await
    } else {
        Ok(Owned::default())
    };
    // An encrypted one that is being written, removed or copied may have its rows alone: its run is waited for, and what it owns is named in a moment, or nobody's.
    let is_between = store.is_vault()
        && folder.marker.is_none()
        && !folder.claims.is_empty()
        && !has(&keys.snapshots());
    let owned = match read {
        Err(e) if is_between && e.kind() == Kind::Corrupt => Owned::default(),
        owned => owned?,
    };
    let prefix = keys.folder();
    let run = |key: &str| {
        let file = key.strip_prefix(&prefix)?;
        BackupKeys::claim_run(file).map(str::to_owned)
    };
    let live = folder.live_claims(now);
    Ok(Said {
        owned: Ok(owned),
        stands: folder.marker.is_some(),
        runs: live.filter_map(|claim| run(&claim.key)).collect(),
    })
}

/// That a plain backup owns nothing, by its digests: a list that was lost would make its data anybody's.
async fn none(store: &Store, keys: &BackupKeys) -> Result<Owned> {
    let Some((_, digests)) = read_digests(store, keys).await? else {
        return Ok(Owned::default());
    };
    for key in [keys.snapshots(), keys.volumes()] {
        if digests.of(&key[keys.folder().len()..]).is_some() {
            return Err(lost(&key));
        }
    }
    Ok(Owned::default())
}

fn snapshot(id: &str) -> Digest {
    let digest = |at: usize| u8::from_str_radix(id.get(2 * at..2 * at + 2)?, 16).ok();
    // Whoever asks for what is no digest gets what nobody names.
    std::array::from_fn(|at| digest(at).unwrap_or_default())
}

fn repository(keys: &VolumeKeys) -> Digest {
    snapshot(&crate::location::sha256(keys.repository().as_bytes()))
}
