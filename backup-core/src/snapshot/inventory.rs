//! What snapshots a run of a backup made: an object beside the backups that stands from before the first is asked for until the last is gone. It is in the clear, and holds no names of
//! claims or namespaces. Nothing is removed but what has the digest of this location, and no more of the cluster than objects of this run.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::layout::SNAPSHOT_NOTES;
use crate::location::{Store, sha256};
use crate::name::Name;
use crate::records::copies::{CsiSnapshot, is_handle};

/// No such object is larger.
const LARGEST: u64 = 16 << 20;

/// Those that are looked at; a bucket may hold any number.
const MOST: usize = 10_000;

/// No run has so many snapshots.
const MOST_SNAPSHOTS: usize = 20_000;

const VERSION: u32 = 1;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    /// The run makes snapshots, or died while it did. None of them is in a backup.
    Noted,
    /// They are taken away again.
    Removing,
    /// All handles are here, and the backup may stand: no snapshot goes because of one look.
    Sealed,
    /// No object of the run is left in the cluster.
    Left,
    /// The backup goes, and some may be gone already.
    Expiring,
    /// The backup is a copy: its snapshots are another location's, and go with the original.
    Copied,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub(crate) driver: String,
    pub(crate) handle: String,
    /// The VolumeSnapshotClass; empty where names are nobody's business.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) class: String,
    pub(crate) cut: Timestamp,
    /// The driver may have been told to delete it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) going: bool,
    /// It has: that is known until the backup is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) gone: bool,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.driver, self.handle)
    }
}

/// All of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inventory {
    version: u32,
    /// The uid of kube-system.
    pub(crate) cluster: String,
    /// The digest of the location.
    pub(crate) place: String,
    pub(crate) backup: String,
    pub(crate) backup_uid: String,
    pub(crate) run: String,
    pub(crate) state: State,
    pub(crate) snapshots: Vec<Entry>,
    /// Since when no marker of the backup was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) missing: Option<Timestamp>,
}

/// What names a location: whoever reaches it in another way takes it for another one.
pub(crate) fn place(store: &Store) -> String {
    sha256(store.outside().at().as_bytes())[..16].to_owned()
}

/// The key of a run's; what leads out of the folder is none.
pub(super) fn key(run: &str) -> Option<String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_plain = !run.is_empty() && run.len() <= 63 && run.bytes().all(known);
    is_plain.then(|| format!("{SNAPSHOT_NOTES}{run}.json"))
}

impl Inventory {
    /// None yet, of a run in a cluster.
    pub(crate) fn new(
        store: &Store,
        cluster: &str,
        (backup, uid): (&str, &str),
        run: &str,
    ) -> Self {
        Self {
            version: VERSION,
            cluster: cluster.to_owned(),
            place: place(store),
            backup: backup.to_owned(),
            backup_uid: uid.to_owned(),
            run: run.to_owned(),
            state: State::Noted,
            snapshots: Vec::new(),
            missing: None,
        }
    }

    /// Adds one.
    pub(crate) fn add(&mut self, snapshot: &CsiSnapshot, names: bool) {
        self.snapshots.push(Entry {
            driver: snapshot.driver.clone(),
            handle: snapshot.handle.clone(),
            class: if names {
                snapshot.class.clone()
            } else {
                String::new()
            },
            cut: snapshot.cut,
            going: false,
            gone: false,
        });
    }

    /// Those that are there still.
    pub(crate) fn standing(&self) -> impl Iterator<Item = &Entry> {
        self.snapshots.iter().filter(|one| !one.gone)
    }

    /// Whether nothing is left of it to see to.
    pub(crate) fn is_over(&self) -> bool {
        self.standing().next().is_none()
    }

    /// Whether this one is among them.
    pub(crate) fn has(&self, driver: &str, handle: &str) -> bool {
        let mut all = self.snapshots.iter();
        all.any(|one| one.driver == driver && one.handle == handle)
    }

    /// What stands under this key; nothing where that is none.
    fn read(at: &str, bytes: &[u8]) -> Option<Self> {
        let found: Self = serde_json::from_slice(bytes).ok()?;
        let fits = |one: &Entry| {
            let is_name = |text: &str| Name::foreign(text).is_ok();
            let is_class = one.class.is_empty() || is_name(&one.class);
            is_handle(&one.handle) && is_name(&one.driver) && is_class
        };
        let is_whole = found.version == VERSION
            && key(&found.run).as_deref() == Some(at)
            && found.snapshots.len() <= MOST_SNAPSHOTS
            && found.snapshots.iter().all(fits)
            && Name::foreign(&found.backup).is_ok();
        is_whole.then_some(found)
    }

    fn key(&self) -> Result<String> {
        key(&self.run).ok_or_else(|| Error::other("the run's id can be no part of a key"))
    }

    /// Writes it, and reads it back.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn put(&self, store: &Store) -> Result<()> {
        let store = store.outside();
        let text = serde_json::to_vec(self).map_err(|e| {
            Error::other("the inventory of snapshots can not be written as JSON").because(e)
        })?;
        let key = self.key()?;
        store.put(&key, text.into()).await?;
        match self.again(&store).await? {
            Some(found) if found == *self => Ok(()),
            _ => Err(Error::other(format!("{key} is not what was written there"))),
        }
    }

    /// What stands in its place by now; nothing where it is gone, or is none any more.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn again(&self, store: &Store) -> Result<Option<Self>> {
        let key = self.key()?;
        let found = store.outside().find(&key, LARGEST).await?;
        Ok(found.and_then(|bytes| Self::read(&key, &bytes)))
    }

    /// Writes it over what was read, where that stands still: whether it did. What somebody took away meanwhile does not come back.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn replace(&self, store: &Store, was: &Self) -> Result<bool> {
        let stands = self.again(store).await?.as_ref() == Some(was);
        if stands {
            self.put(store).await?;
        }
        Ok(stands)
    }

    /// Takes it away.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn remove(&self, store: &Store) -> Result<()> {
        store.outside().delete(&self.key()?).await
    }
}

/// What stands under a key in the folder of inventories.
#[derive(Debug)]
pub(super) enum Found {
    /// One.
    Read(Inventory),
    /// What can not be read as one, and why.
    Unread(String),
    /// Nothing.
    Absent,
}

/// What stands under this key: what is damaged, too large, or not to be read is unread.
///
/// # Errors
/// The store's, where it answers nobody.
pub(super) async fn at(store: &Store, key: &str) -> Result<Found> {
    Ok(match store.outside().find(key, LARGEST).await {
        Err(e) if !is_of_all(&e) => Found::Unread(e.sentence()),
        found => match found? {
            None => Found::Absent,
            Some(bytes) => Inventory::read(key, &bytes).map_or_else(
                || Found::Unread("it is damaged, or of a newer version".to_owned()),
                Found::Read,
            ),
        },
    })
}

/// Whether what stands under this key is an inventory of no version, so that nobody will ever read it.
///
/// # Errors
/// The store's.
pub(super) async fn is_damaged(store: &Store, key: &str) -> Result<bool> {
    let bytes = match store.outside().find(key, LARGEST).await {
        // No version makes one so large.
        Err(e) if e.kind() == Kind::Corrupt => return Ok(true),
        Err(e) if e.kind() == Kind::Forbidden => return Ok(false),
        found => found?,
    };
    let is_newer = |bytes: &[u8]| {
        let found: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
        let version = found.and_then(|found| found["version"].as_u64());
        version.is_some_and(|version| version > u64::from(VERSION))
    };
    Ok(bytes.is_some_and(|bytes| Inventory::read(key, &bytes).is_none() && !is_newer(&bytes)))
}

/// All inventories of a location, as far as they can be read.
#[derive(Default)]
pub(crate) struct Listed {
    pub(crate) all: Vec<Inventory>,
    /// The keys of those that can not be, and why.
    pub(crate) unread: Vec<(String, String)>,
    /// Why they can not be listed.
    pub(crate) unlisted: Option<Error>,
}

/// Whether the store answers nobody.
fn is_of_all(e: &Error) -> bool {
    matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized)
}

/// Lists them.
///
/// # Errors
/// The store's, where it answers nobody.
pub(crate) async fn list(store: &Store) -> Result<Listed> {
    let mut listed = Listed::default();
    let entries = match store.outside().entries(SNAPSHOT_NOTES, MOST).await {
        Err(e) if !is_of_all(&e) => {
            listed.unlisted = Some(e);
            return Ok(listed);
        }
        entries => entries?,
    };
    for entry in entries {
        match at(store, &entry.key).await? {
            Found::Read(one) => listed.all.push(one),
            // It keeps no other from being seen to.
            Found::Unread(why) => listed.unread.push((entry.key, why)),
            // It went just now.
            Found::Absent => {}
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_inventory_is_believed_only_under_its_own_key_and_with_handles_that_can_be() {
        let store = Store::in_memory();
        let mut one = Inventory::new(&store, "c", ("b", "u"), "0123-ab");
        one.put(&store).await.unwrap();
        assert_eq!(list(&store).await.unwrap().all, [one.clone()]);
        let bytes = serde_json::to_vec(&one).unwrap();
        let other = "plugins/kubectl-backup/snapshots/x.json";
        store.put(other, bytes.into()).await.unwrap();
        store
            .put("plugins/kubectl-backup/snapshots/y.json", "{}".into())
            .await
            .unwrap();
        let listed = list(&store).await.unwrap();
        assert_eq!((listed.all.len(), listed.unread.len()), (1, 2));
        for handle in ["", "a\nb", &"x".repeat(3000)] {
            let mut odd = one.clone();
            odd.snapshots.push(Entry {
                driver: "d.io".into(),
                handle: handle.into(),
                class: String::new(),
                cut: Timestamp::UNIX_EPOCH,
                going: false,
                gone: false,
            });
            assert!(odd.put(&store).await.is_err(), "{handle:.9}");
        }
        for odd in ["", "..", "a/b", "a.b", "\u{e4}", &"x".repeat(64)] {
            one.run = odd.to_owned();
            assert!(one.key().is_err(), "{odd}");
        }
    }
}
