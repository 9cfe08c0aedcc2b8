//! The password of a repository: made once, at random, kept in the bucket beside the repository, and never replaced. Where the location has recipients it is encrypted for them,
//! and a writer knows it only by what it kept when it made it. See docs/volumes.md for why a lost cache begins another repository.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use age::secrecy::ExposeSecret as _;
use bytes::Bytes;

use crate::crypt::{BackupKey, Identities, LARGEST_KEY_FILE, Recipients, SecretString};
use crate::error::{Error, Result};
use crate::layout::VolumeKeys;
use crate::location::{Store, sha256};

/// A password of ours has 74 letters.
const LONGEST: u64 = 1024;

/// What a writer keeps of the keys that it made, so that it can add to what it began. By the SHA-256 of what stands in the bucket: what somebody exchanged there is
/// not found here. Never needed to restore.
pub trait KeyCache: Send + Sync {
    /// The password whose sealed form has this digest.
    ///
    /// # Errors
    /// When it can not be looked for.
    fn get(&self, digest: &str) -> Result<Option<SecretString>>;

    /// Keeps one.
    ///
    /// # Errors
    /// When it can not be kept: then nothing is begun with it.
    fn put(&self, digest: &str, password: &SecretString) -> Result<()>;
}

/// A cache that ends with the process.
#[derive(Default)]
pub struct KeptInMemory(Mutex<BTreeMap<String, SecretString>>);

impl KeyCache for KeptInMemory {
    fn get(&self, digest: &str) -> Result<Option<SecretString>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(all.get(digest).cloned())
    }

    fn put(&self, digest: &str, password: &SecretString) -> Result<()> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(digest.to_owned(), password.clone());
        Ok(())
    }
}

/// For whom passwords are sealed, and who opens those that are.
pub struct Keyring<'a> {
    /// The location's recipients; none, and passwords stand in the clear.
    pub recipients: &'a Recipients,
    /// Where the recipient is a passphrase.
    pub passphrase: Option<&'a SecretString>,
    /// Whoever restores, and a writer who happens to have one.
    pub identities: &'a Identities,
    /// What the writer kept.
    pub cache: &'a dyn KeyCache,
}

/// A password, and how it stands in the bucket.
#[derive(Clone)]
pub(super) struct Password {
    text: SecretString,
    /// Its key, and what is written there.
    pub(super) key: String,
    pub(super) bytes: Bytes,
}

impl Password {
    /// What rustic and restic take.
    pub(super) fn text(&self) -> &str {
        self.text.expose_secret()
    }
}

fn parsed(key: &str, bytes: &[u8]) -> Result<SecretString> {
    let text = std::str::from_utf8(bytes)
        .map(str::trim)
        .unwrap_or_default();
    if text.is_empty() || text.contains(char::is_control) {
        return Err(Error::corrupt(format!("what {key} holds is no password")));
    }
    Ok(text.to_owned().into())
}

impl Keyring<'_> {
    /// Makes a fresh one for this repository; a sealed one is in the cache when this returns. Nothing is written to the bucket.
    pub(super) fn make(&self, keys: &VolumeKeys) -> Result<Password> {
        // 256 random bits, as the secret of a fresh X25519 identity: what seals and opens those is there already.
        let secret = BackupKey::generate();
        let text = secret.text();
        if self.recipients.is_empty() {
            let bytes = format!("{}\n", text.expose_secret()).into();
            return Ok(Password {
                text,
                key: keys.key(),
                bytes,
            });
        }
        let bytes = self.recipients.wrap(&secret, self.passphrase)?;
        self.cache.put(&sha256(&bytes), &text)?;
        Ok(Password {
            text,
            key: keys.sealed_key(),
            bytes,
        })
    }

    /// The password of this repository, for one who adds to it: as the location has it today, sealed or not. Nothing where it is not there, or can not be opened by
    /// what this writer knows.
    pub(super) async fn of_writer(
        &self,
        store: &Store,
        keys: &VolumeKeys,
    ) -> Result<Option<Password>> {
        let sealed = !self.recipients.is_empty();
        let key = if sealed {
            keys.sealed_key()
        } else {
            keys.key()
        };
        let Some(bytes) = store.find(&key, LARGEST_KEY_FILE).await? else {
            return Ok(None);
        };
        if !sealed {
            return Ok(parsed(&key, &bytes)
                .ok()
                .map(|text| Password { text, key, bytes }));
        }
        let digest = sha256(&bytes);
        let text = match self.cache.get(&digest)? {
            Some(text) => text,
            None if self.identities.is_empty() => return Ok(None),
            None => match self.identities.open(&bytes, &self.whom()) {
                Ok(secret) => {
                    let text = secret.text();
                    self.cache.put(&digest, &text)?;
                    text
                }
                Err(_) => return Ok(None),
            },
        };
        Ok(Some(Password { text, key, bytes }))
    }

    /// The password for one who reads, whatever the location has today.
    ///
    /// # Errors
    /// `NotFound` where none stands there, `Unauthorized` where no identity fits.
    pub(super) async fn of_reader(&self, store: &Store, keys: &VolumeKeys) -> Result<Password> {
        let key = keys.key();
        if let Some(bytes) = store.find(&key, LONGEST).await? {
            let text = parsed(&key, &bytes)?;
            return Ok(Password { text, key, bytes });
        }
        let key = keys.sealed_key();
        let Some(bytes) = store.find(&key, LARGEST_KEY_FILE).await? else {
            return Err(Error::not_found(format!(
                "neither {} nor {key} is in {}: nobody can open the repository beside it",
                keys.key(),
                store.place()
            ))
            .hint("put the key back from a copy of the bucket"));
        };
        let text = match self.cache.get(&sha256(&bytes))? {
            Some(text) => text,
            None => {
                let opened = self.identities.open(&bytes, &self.whom());
                opened
                    .map_err(|e| e.context(format!("{key} can not be opened")))?
                    .text()
            }
        };
        Ok(Password { text, key, bytes })
    }

    fn whom(&self) -> String {
        if self.recipients.is_empty() {
            return "the recipients of its location".to_owned();
        }
        self.recipients.fingerprints().join(", ")
    }
}
