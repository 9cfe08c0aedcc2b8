//! Where the records of restores are: the location, or a folder of the user's own where the location takes no writes, or only what is signed counts there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::TryStreamExt;
use tokio::io::AsyncWriteExt;

use super::journal::{ANNOTATION_OPTIONS, Earlier, Header, LARGEST};
use crate::api::{Phase, Restore};
use crate::error::{Error, Kind, Result};
use crate::layout::{RESTORES, RestoreKeys};
use crate::location::Store;
use crate::location::store::Created;
use crate::name::Name;

/// Where journals are: the location, or a folder where that is read-only or asks for signatures.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Store(Store),
    Folder(PathBuf),
}

impl Place {
    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        match self {
            Self::Store(store) => store.put(key, bytes).await,
            Self::Folder(folder) => {
                let path = folder.join(key);
                let part = path.with_extension("part");
                let write = async {
                    if let Some(parent) = path.parent() {
                        tokio::fs::create_dir_all(parent).await?;
                    }
                    // Objects may be Secrets.
                    let mut options = tokio::fs::OpenOptions::new();
                    let options = options.create(true).write(true).truncate(true).mode(0o600);
                    let mut file = options.open(&part).await?;
                    file.write_all(&bytes).await?;
                    file.sync_all().await?;
                    tokio::fs::rename(&part, &path).await?;
                    if let Some(parent) = path.parent() {
                        tokio::fs::File::open(parent).await?.sync_all().await?;
                    }
                    Ok::<_, std::io::Error>(())
                };
                write.await.map_err(|e| {
                    Error::other(format!("{} can not be written", path.display())).because(e)
                })
            }
        }
    }

    /// Writes the first segment, where nobody else did: false where another's stands. A store that knows no such condition takes it all the same.
    pub(super) async fn begin(&self, key: &str, bytes: Bytes) -> Result<bool> {
        match self {
            Self::Store(store) => match store.create(key, bytes.clone()).await {
                Ok(Created::Yes) => Ok(true),
                // Our own answer may have been lost on the way.
                Ok(Created::Exists) => Ok(self.find(key).await? == Some(bytes)),
                // The condition may be what it does not like.
                Err(e) if matches!(e.kind(), Kind::Other | Kind::Invalid) => {
                    store.put(key, bytes).await.map(|()| true)
                }
                Err(e) => Err(e),
            },
            Self::Folder(_) => {
                if self.find(key).await?.is_some() {
                    return Ok(false);
                }
                self.put(key, bytes).await.map(|()| true)
            }
        }
    }

    pub(super) async fn find(&self, key: &str) -> Result<Option<Bytes>> {
        self.find_within(key, LARGEST).await
    }

    /// What is there, of at most so many bytes.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn find_within(&self, key: &str, most: u64) -> Result<Option<Bytes>> {
        match self {
            Self::Store(store) => store.find(key, most).await,
            Self::Folder(folder) => match tokio::fs::read(folder.join(key)).await {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::other(format!(
                    "{} can not be read",
                    folder.join(key).display()
                ))
                .because(e)),
            },
        }
    }

    /// Keys below a folder.
    pub(super) async fn list(&self, below: &str) -> Result<Vec<String>> {
        match self {
            Self::Store(store) => {
                store
                    .list(below)
                    .map_ok(|entry| entry.key)
                    .try_collect()
                    .await
            }
            Self::Folder(folder) => Ok(files(folder, below).await),
        }
    }

    /// The restores that began here and left no record: one list, of which names alone are kept.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn unfinished(&self) -> Result<Vec<Name>> {
        // Whether it began, and whether it has a record.
        let mut seen: BTreeMap<Name, (bool, bool)> = BTreeMap::new();
        let mut note = |key: &str| {
            let rest = key
                .strip_prefix(RESTORES)
                .and_then(|rest| rest.split_once('/'));
            let Some((name, file)) = rest.filter(|(_, file)| !file.contains('/')) else {
                return;
            };
            if let Ok(name) = name.parse::<Name>() {
                let keys = RestoreKeys::new(&name);
                let (begun, recorded) = seen.entry(name).or_default();
                *begun |= keys.journal(0).ends_with(&format!("/{file}"));
                *recorded |= keys.marker().ends_with(&format!("/{file}"));
            }
        };
        match self {
            Self::Store(store) => {
                let mut keys = store.list(RESTORES);
                while let Some(entry) = keys.try_next().await? {
                    note(&entry.key);
                }
            }
            Self::Folder(folder) => files(folder, RESTORES)
                .await
                .iter()
                .for_each(|key| note(key)),
        }
        let open = seen
            .into_iter()
            .filter(|(_, (begun, recorded))| *begun && !*recorded);
        Ok(open.map(|(name, _)| name).collect())
    }

    /// Removes a file; fine where it is absent.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn remove(&self, key: &str) -> Result<()> {
        match self {
            Self::Store(store) => store.delete(key).await,
            Self::Folder(folder) => match tokio::fs::remove_file(folder.join(key)).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    let path = folder.join(key);
                    Err(Error::other(format!("{} can not be removed", path.display())).because(e))
                }
                _ => Ok(()),
            },
        }
    }

    /// What is known of the restore of this name.
    ///
    /// # Errors
    /// `AlreadyExists`, where the name's folder holds something that is not ours.
    pub(super) async fn earlier(&self, name: &Name) -> Result<Option<Earlier>> {
        let keys = RestoreKeys::new(name);
        let marker = match self.find(&keys.marker()).await? {
            Some(bytes) => serde_json::from_slice::<Restore>(&bytes).ok(),
            None => None,
        };
        let header = match self.find(&keys.journal(0)).await? {
            Some(bytes) => Some(Header::read(&bytes)?),
            None => None,
        };
        let finished = marker.as_ref().and_then(|m| m.status.completion_timestamp);
        let whole = marker
            .as_ref()
            .is_some_and(|m| m.status.phase == Phase::Completed);
        let recorded = marker.as_ref().and_then(|m| {
            Some((
                m.metadata.annotations.get(ANNOTATION_OPTIONS)?.clone(),
                m.status.start_timestamp?,
                m.spec.clone(),
            ))
        });
        let header = header.map(|h| (h.options_hash, h.started, h.spec));
        match header.or(recorded) {
            Some((options_hash, started, spec)) => Ok(Some(Earlier {
                name: name.clone(),
                options_hash,
                started,
                spec,
                finished,
                whole,
            })),
            None if self.list(&keys.folder()).await?.is_empty() => Ok(None),
            None => Err(Error::new(
                Kind::AlreadyExists,
                format!("{} holds a restore that is not ours", keys.folder()),
            )
            .hint("give this restore another name")),
        }
    }
}

async fn files(root: &Path, below: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.join(below)];
    while let Some(folder) = folders.pop() {
        let Ok(mut entries) = tokio::fs::read_dir(&folder).await else {
            continue;
        };
        while let Ok(Some(entry)) = entries.next_entry().await {
            if entry.file_type().await.is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if let Ok(key) = entry.path().strip_prefix(root) {
                found.push(key.to_string_lossy().into_owned());
            }
        }
    }
    found
}
