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
/// not found here. Never needed to restore. What lies where others may cut or alter it is written as [`KeptKey`], so that what comes back is what was kept, or nothing.
pub trait KeyCache: Send + Sync {
    /// The password whose sealed form has this digest; nothing where it was not kept, or not whole.
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

/// A key as a cache writes it: the password, a space, and a SHA-256 over the digest of its sealed form and the password. A file that was cut, altered or put in the
/// place of another holds none.
pub struct KeptKey;

impl KeptKey {
    /// No file of one is longer, in bytes.
    pub const LONGEST: u64 = LONGEST;

    fn proof(digest: &str, password: &str) -> String {
        sha256(format!("{digest} {password}").as_bytes())
    }

    /// What is written for a password whose sealed form has this digest.
    pub fn write(digest: &str, password: &SecretString) -> SecretString {
        let text = password.expose_secret();
        format!("{text} {}\n", Self::proof(digest, text)).into()
    }

    /// The password that these bytes keep, if they are whole and of the sealed form with this digest.
    pub fn read(digest: &str, bytes: &[u8]) -> Option<SecretString> {
        let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let (text, proof) = line.split_once(' ')?;
        let is_whole = !text.is_empty() && proof == Self::proof(digest, text);
        is_whole.then(|| text.to_owned().into())
    }
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
    /// Whoever restores.
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

    /// The password of this repository, for one who adds to it: as the location has it today, sealed or not. A sealed one is taken from the cache alone, whatever
    /// identity this writer has: anybody can seal a password of his own for the location's recipients. Nothing where it is not there, or was not kept.
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
        let Some(text) = self.cache.get(&sha256(&bytes))? else {
            return Ok(None);
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
        let text = match self.cache.get(&sha256(&bytes)) {
            Ok(Some(text)) => text,
            // What is wrong with the cache is a writer's business.
            Ok(None) | Err(_) => {
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
