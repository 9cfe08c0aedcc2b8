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
/// not found here. Bound to its volume (`CLUSTER/NAMESPACE/UID`): what was copied from beside another one is not found for this one. Never needed to restore. What lies where others
/// may cut or alter it is written as [`KeptKey`], so that what comes back is what was kept, or nothing.
pub trait KeyCache: Send + Sync {
    /// The password of this volume whose sealed form has this digest; nothing where it was not kept, or not whole.
    ///
    /// # Errors
    /// When it can not be looked for.
    fn get(&self, volume: &str, digest: &str) -> Result<Option<Kept>>;

    /// Keeps one.
    ///
    /// # Errors
    /// When it can not be kept: then nothing is begun with it.
    fn put(&self, volume: &str, digest: &str, password: &SecretString) -> Result<()>;

    /// Makes a fresh password and its sealed form, for these recipients; it is kept when this returns.
    ///
    /// # Errors
    /// A passphrase that is not there; as [`KeyCache::put`].
    fn make(
        &self,
        volume: &str,
        recipients: &Recipients,
        passphrase: Option<&SecretString>,
    ) -> Result<(SecretString, Bytes)> {
        let secret = fresh();
        let text = secret.text();
        let sealed = recipients.wrap(&secret, passphrase)?;
        self.put(volume, &sha256(&sealed), &text)?;
        Ok((text, sealed))
    }
}

/// A password that was kept.
#[derive(Clone)]
pub struct Kept {
    /// What rustic and restic take.
    pub password: SecretString,
    /// Whether it is proven to be of the volume that was asked for. What was kept before this was written down is good for one's own work with that volume, and given to nobody else.
    pub is_bound: bool,
}

/// 256 random bits, as the secret of a fresh X25519 identity: what seals and opens those is there already.
fn fresh() -> BackupKey {
    BackupKey::generate()
}

/// A key as a cache writes it: the password, a space, and a SHA-256 over its volume, the digest of its sealed form and the password. A file that was cut, altered or put in the
/// place of another holds none. Formerly the volume was not in it.
pub struct KeptKey;

impl KeptKey {
    /// No file of one is longer, in bytes.
    pub const LONGEST: u64 = LONGEST;

    fn proof(volume: &str, digest: &str, password: &str) -> String {
        sha256(format!("{volume} {digest} {password}").as_bytes())
    }

    fn former_proof(digest: &str, password: &str) -> String {
        sha256(format!("{digest} {password}").as_bytes())
    }

    /// What is written for a password of this volume whose sealed form has this digest.
    pub fn write(volume: &str, digest: &str, password: &SecretString) -> SecretString {
        let text = password.expose_secret();
        format!("{text} {}\n", Self::proof(volume, digest, text)).into()
    }

    /// The password that these bytes keep, if they are whole and of this volume and the sealed form with this digest.
    pub fn read(volume: &str, digest: &str, bytes: &[u8]) -> Option<Kept> {
        let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let (text, proof) = line.split_once(' ')?;
        if text.is_empty() {
            return None;
        }
        let is_bound = proof == Self::proof(volume, digest, text);
        let is_whole = is_bound || proof == Self::former_proof(digest, text);
        is_whole.then(|| Kept {
            password: text.to_owned().into(),
            is_bound,
        })
    }
}

/// A cache that ends with the process.
#[derive(Default)]
pub struct KeptInMemory(Mutex<BTreeMap<(String, String), SecretString>>);

impl KeyCache for KeptInMemory {
    fn get(&self, volume: &str, digest: &str) -> Result<Option<Kept>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get(&(volume.to_owned(), digest.to_owned())).cloned();
        Ok(kept.map(|password| Kept {
            password,
            is_bound: true,
        }))
    }

    fn put(&self, volume: &str, digest: &str, password: &SecretString) -> Result<()> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((volume.to_owned(), digest.to_owned()), password.clone());
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
        if self.recipients.is_empty() {
            let text = fresh().text();
            let bytes = format!("{}\n", text.expose_secret()).into();
            return Ok(Password {
                text,
                key: keys.key(),
                bytes,
            });
        }
        let (text, bytes) = self
            .cache
            .make(&keys.volume(), self.recipients, self.passphrase)?;
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
        let kept = self.cache.get(&keys.volume(), &sha256(&bytes))?;
        Ok(kept.map(|kept| Password {
            text: kept.password,
            key,
            bytes,
        }))
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
        let text = match self.cache.get(&keys.volume(), &sha256(&bytes)) {
            Ok(Some(kept)) => kept.password,
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
