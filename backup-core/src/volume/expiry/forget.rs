//! What happens in one repository: snapshots are removed by their ids, and the whole of it once there is none. Always alone in it, and never with a key: what is removed is named by
//! keys of the bucket. What a listing shows is believed only so far as the one before it showed what was known to be there.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::note;
use crate::error::{Error, Result};
use crate::layout::VolumeKeys;
use crate::location::Store;
use crate::location::claim::SharedClaim;
use crate::records::copies::is_digest;
use crate::volume::store::VolumeStore;

/// No repository has more snapshots.
const MOST: usize = 1_000_000;

/// Objects that are listed before they are removed, and removed at a time.
const AT_ONCE: usize = 10_000;
const AT_A_TIME: usize = 16;

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// So many snapshots.
    pub snapshots: usize,
    /// With them, or without any, the repository.
    pub whole: bool,
}

/// The ids of a repository's snapshots that are meant.
pub(super) async fn listed(
    store: &Store,
    keys: &VolumeKeys,
    meant: impl Fn(&str) -> bool,
) -> Result<(BTreeSet<String>, bool)> {
    let folder = format!("{}snapshots/", keys.repository());
    let mut listing = store.list(&folder);
    let (mut found, mut any) = (BTreeSet::new(), false);
    while let Some(entry) = listing.try_next().await? {
        let name = &entry.key[folder.len()..];
        if !is_digest(name) {
            continue;
        }
        any = true;
        if meant(name) {
            found.insert(name.to_owned());
        }
        if found.len() > MOST {
            return Err(Error::corrupt(format!("{folder} holds too many objects")));
        }
    }
    Ok((found, any))
}

impl VolumeStore {
    /// Removes these snapshots, alone; their files stay until a prune, and so does the repository. One that is not there is fine.
    ///
    /// # Errors
    /// `AlreadyExists` while anybody else is at work; `Invalid` for what is no id.
    pub async fn forget(&self, number: u32, ids: &[String], host: &str) -> Result<Forgotten> {
        match self.has_any(number, ids).await? {
            true => self.go(number, ids, host, |_| false).await,
            false => Ok(Forgotten::default()),
        }
    }

    /// The same, and the repository goes with its last snapshots where it may: what a backup names in it is there, whatever a listing shows.
    ///
    /// # Errors
    /// As [`VolumeStore::forget`]; and the store's, where a part of the repository is left: it has no snapshot then.
    pub(super) async fn expire(
        &self,
        number: u32,
        ids: &[String],
        may_go_whole: bool,
        host: &str,
    ) -> Result<Forgotten> {
        // A listing that shows none of those that go may be one that does not say what is there.
        match self.has_any(number, ids).await? {
            true => {
                let may_go = |before: &BTreeSet<String>| may_go_whole && !before.is_empty();
                self.go(number, ids, host, may_go).await
            }
            false => Ok(Forgotten::default()),
        }
    }

    /// Removes the repository, where it has no snapshot.
    ///
    /// # Errors
    /// As [`VolumeStore::expire`].
    pub(super) async fn clear(&self, number: u32, host: &str) -> Result<Forgotten> {
        self.go(number, &[], host, <BTreeSet<String>>::is_empty)
            .await
    }

    /// Whether any of these is there: no claim is taken where there is nothing to do, as for a copy of a backup whose data is elsewhere.
    async fn has_any(&self, number: u32, ids: &[String]) -> Result<bool> {
        let meant: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let (found, _) = listed(self.plain(), &self.keys(number), |id| meant.contains(id)).await?;
        Ok(!found.is_empty())
    }

    /// `may_go`: whether the repository may go with its last snapshot, by what was listed under the claim before anything was removed.
    async fn go(
        &self,
        number: u32,
        ids: &[String],
        host: &str,
        may_go: impl Fn(&BTreeSet<String>) -> bool,
    ) -> Result<Forgotten> {
        if let Some(odd) = ids.iter().find(|id| !is_digest(id)) {
            return Err(Error::invalid(format!("{odd:?} is no id of a snapshot")));
        }
        let keys = self.keys(number);
        let store = self.plain();
        let meant: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let is_meant = |id: &str| meant.contains(id);
        let claim = self.alone(&keys, host).await?;
        let gone = async {
            let (before, _) = listed(store, &keys, |_| true).await?;
            let goes: Vec<_> = before.iter().filter(|id| is_meant(id)).collect();
            let is_last = goes.len() == before.len();
            if !is_last {
                // A store's clock may tell whole seconds alone.
                let now = Timestamp::from_second(claim.taken_at().as_second());
                let note = note::reclaim(now.unwrap_or(Timestamp::MIN))?;
                claim.write(&keys.reclaim(), note).await?;
            }
            for id in &goes {
                self.may_go_on()?;
                claim.confirm().await?;
                let key = format!("{}snapshots/{id}", keys.repository());
                claim.remove(&key).await?;
            }
            let mut whole = is_last && may_go(&before);
            for _ in 0..2 {
                whole = whole && !listed(store, &keys, |_| false).await?.1;
            }
            if whole {
                self.may_go_on()?;
                claim.confirm().await?;
                self.remove(&keys, &claim).await.map_err(|e| {
                    e.context(format!(
                        "a part of {} is left: the next `kubectl backup prune` a day later removes it",
                        super::shown(&keys)
                    ))
                })?;
            }
            Ok(Forgotten {
                snapshots: goes.len(),
                whole,
            })
        }
        .await;
        claim.release().await;
        gone
    }

    /// Removes all of a repository: what index names goes after what names it, so that what is left at any moment is one that can be added to, or one without a
    /// configuration, which nobody adds to.
    async fn remove(&self, keys: &VolumeKeys, claim: &SharedClaim) -> Result<()> {
        let folder = keys.repository();
        for part in ["index/", "data/"] {
            self.remove_below(&format!("{folder}{part}"), claim).await?;
        }
        claim.remove(&format!("{folder}config")).await?;
        self.remove_below(&folder, claim).await?;
        for key in [
            keys.key(),
            keys.sealed_key(),
            keys.orphans(),
            keys.reclaim(),
        ] {
            claim.remove(&key).await?;
        }
        Ok(())
    }

    async fn remove_below(&self, folder: &str, claim: &SharedClaim) -> Result<()> {
        let store = self.plain();
        let mut last = None;
        loop {
            let all: Vec<_> = store.list(folder).take(AT_ONCE).try_collect().await?;
            let Some(first) = all.first().map(|entry| entry.key.clone()) else {
                return Ok(());
            };
            if last.as_ref() == Some(&first) {
                return Err(Error::other(format!(
                    "{first} was removed, and {} lists it still",
                    store.place()
                )));
            }
            last = Some(first);
            stream::iter(all.into_iter().map(Ok))
                .try_for_each_concurrent(AT_A_TIME, |entry| async move {
                    self.may_go_on()?;
                    claim.remove(&entry.key).await
                })
                .await?;
        }
    }
}
