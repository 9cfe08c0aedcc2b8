//! The Secrets of a plain backup that are encrypted apart from the rest: what the marker says of them, and how they are opened and shown in their place among
//! the others. Encrypts nothing and asks nobody for a key: that is [`crypt`](crate::crypt)'s and the caller's. The layout is in docs/encryption.md.
//!
//! What binds them to their backup is the marker, which SHA256SUMS covers and with it a signature: it holds the public half of the key, so that no other key
//! file can take the place of this one though `rekey` writes it anew, and the digest of the table of contents of their index, which covers every byte of index
//! and archive. So nothing of another backup can stand for them, nor anything that was sealed for the same key later.

use std::collections::BTreeMap;

use crate::api::Backup;
use crate::archive::read::{Archive, Source as _};
use crate::archive::row::ResourceRow;
use crate::catalog::names_us;
use crate::crypt::BackupKey;
use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::location::Store;
use crate::location::store::{StoreSource, is_absent};
use crate::location::vault::ENCRYPTION;
use crate::name::Name;

/// What [`ENCRYPTION`] says of such a backup.
const WORD: &str = "secrets";

/// Annotations of such a backup's marker: how many Secrets there are, the public half of their key, and the digest of their index's table of contents.
const COUNT: &str = "kubectl-backup/secrets";
const KEY: &str = "kubectl-backup/secrets-key";
const INDEX: &str = "kubectl-backup/secrets-index";

/// Annotations that only a backup of this kind has, whatever its user gave.
pub(crate) const ANNOTATIONS: [&str; 4] = [ENCRYPTION, COUNT, KEY, INDEX];

/// Secrets that stand apart, as the marker tells of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    /// How many there are.
    pub count: u64,
    /// The public half of their key.
    pub key: String,
    /// SHA-256 of the table of contents of their index, lower-case hex.
    pub index: String,
}

impl Apart {
    /// What the marker says; nothing where the backup has no Secrets apart.
    ///
    /// # Errors
    /// `Corrupt`, where it says so and not what they are.
    pub fn of(backup: &Backup) -> Result<Option<Self>> {
        let annotations = &backup.metadata.annotations;
        let is_apart = annotations.get(ENCRYPTION).is_some_and(|word| word == WORD);
        if !is_apart || !names_us(backup) {
            return Ok(None);
        }
        let said = |key: &str| annotations.get(key).cloned();
        let read = || {
            Some(Self {
                count: said(COUNT)?.parse().ok()?,
                key: said(KEY)?,
                index: said(INDEX)?,
            })
        };
        read().map(Some).ok_or_else(|| {
            Error::corrupt(format!(
                "the marker of backup {} says that its Secrets are encrypted, and not what they are: it was altered",
                backup.metadata.name.escape_debug()
            ))
        })
    }

    /// As annotations of the marker.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        [
            (ENCRYPTION, WORD.to_owned()),
            (COUNT, self.count.to_string()),
            (KEY, self.key.clone()),
            (INDEX, self.index.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// Errors unless this is their key.
    ///
    /// # Errors
    /// `Corrupt`: what stands as its key file is another backup's.
    pub fn fits(&self, name: &Name, key: &BackupKey) -> Result<()> {
        if key.public() == self.key {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "secrets.key.age of backup {name} holds the key of something else: a file of another backup was put in its place"
        ))
        .hint("look who can write there; another copy of this backup may have the right one"))
    }

    /// Opens them alone, as an archive of its own.
    ///
    /// # Errors
    /// `Corrupt`, where anything is not what the marker says; the store's.
    pub async fn open(
        &self,
        store: &Store,
        name: &Name,
        key: &BackupKey,
    ) -> Result<Archive<StoreSource>> {
        self.fits(name, key)?;
        let keys = BackupKeys::new(name);
        let [archive, index] = sources(store, &keys, key);
        let open = async {
            // A file that is sealed for another key is found before anything is done with the rest.
            archive.read(0..1).await?;
            Archive::open(archive, index).await
        };
        let opened = open.await.map_err(|e| {
            let e = match is_absent(&e) {
                true => Error::corrupt("a file of them is missing").because(e),
                false => e,
            };
            match e.kind() {
                Kind::Corrupt => e.context(format!("the Secrets of backup {name} can not be read")),
                _ => e,
            }
        })?;
        let header = opened.index.check_rest().await?;
        if opened.index.seal() != self.index || header.backup != name.as_str() {
            return Err(Error::corrupt(format!(
                "the Secrets of backup {name} are not those that it was made with: they are of another backup, or were written anew"
            ))
            .hint("take another backup or another copy of it, and look who can write there"));
        }
        Ok(opened)
    }
}

/// Their archive and their index, opened with the key.
pub fn sources(store: &Store, keys: &BackupKeys, key: &BackupKey) -> [StoreSource; 2] {
    let store = store.with_secrets(key);
    [keys.secrets_archive(), keys.secrets_index()].map(|key| store.source(key))
}

/// The archive of a backup with its Secrets in their place, where they stand apart and their key is given; else as it is.
///
/// # Errors
/// `Corrupt`, where anything is not what the marker says; the store's.
pub async fn join(
    store: &Store,
    key: Option<&BackupKey>,
    backup: &Backup,
    name: &Name,
    archive: Archive<StoreSource>,
) -> Result<Archive<StoreSource>> {
    let rows = archive.index.resources().iter();
    let locked = rows.fold(0_u64, |all, row| all.saturating_add(row.apart));
    let apart = Apart::of(backup)?;
    let said = apart.as_ref().map_or(0, |apart| apart.count);
    if locked != said {
        return Err(Error::corrupt(format!(
            "the index of backup {name} says that {locked} Secrets are encrypted, and its marker {said}: one of them was altered"
        )));
    }
    match (apart, key) {
        (Some(apart), Some(key)) => archive.join(apart.open(store, name, key).await?),
        _ => Ok(archive),
    }
}

/// Errors where Secrets stand apart from an archive that is to be read without its index, or beside another tool's marker: nothing in the archive tells of
/// them, so that they would be missed by nobody.
///
/// # Errors
/// `Corrupt`, with what stands there; the store's.
pub async fn refuse_hidden(store: &Store, name: &Name, marker: Option<&Backup>) -> Result<()> {
    let apart = marker.map(Apart::of).transpose()?.flatten();
    let keys = BackupKeys::new(name);
    if apart.is_some() {
        return Err(Error::corrupt(format!(
            "the Secrets of backup {name} are encrypted, and {} is missing: without it they can not be read",
            keys.index()
        ))
        .hint("take another copy of the backup, and look who can write there; --exclude-resources secrets restores the rest"));
    }
    for key in [keys.secrets_archive(), keys.secrets_key()] {
        match store.head(&key).await {
            Ok(_) => {
                return Err(Error::corrupt(format!(
                    "backup {name} has {key}, and its marker says nothing of encrypted Secrets: it was altered, or put in the place of another"
                ))
                .hint("look who can write there; where another tool made the backup after a run of this program had died under its name, remove that file; --exclude-resources secrets restores the rest"));
            }
            Err(e) if is_absent(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether a row tells of Secrets that are there and were not opened.
pub fn is_locked(row: &ResourceRow) -> bool {
    row.apart > 0
}

/// Who asks for Secrets that were not opened.
pub fn locked(name: &Name) -> Error {
    Error::new(
        Kind::Unauthorized,
        format!("the Secrets of backup {name} are encrypted"),
    )
    .hint("give the private key of one of their recipients with --identity FILE, or the passphrase with --passphrase-file FILE; or leave them out with --exclude-resources secrets")
}

#[cfg(test)]
mod tests;
