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
use crate::location::store::{StoreSource, is_absent};
use crate::location::vault::ENCRYPTION;
use crate::location::{Location, Store};
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

/// The archive of a backup with its Secrets in their place, where they stand apart and the location has their key; else as it is.
///
/// # Errors
/// `Corrupt`, where anything is not what the marker says; the store's.
pub async fn join(
    location: &Location,
    backup: &Backup,
    name: &Name,
    archive: Archive<StoreSource>,
) -> Result<Archive<StoreSource>> {
    let locked = archive.index.resources().iter().any(|row| row.apart > 0);
    let Some(apart) = Apart::of(backup)? else {
        return match locked {
            true => Err(Error::corrupt(format!(
                "the index of backup {name} says that its Secrets are encrypted, and its marker does not: one of them was altered"
            ))),
            false => Ok(archive),
        };
    };
    let Some(key) = &location.apart else {
        return Ok(archive);
    };
    let secrets = apart.open(&location.store, name, key).await?;
    archive.join(secrets)
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
