//! The key of one backup: an age identity of its own. In the bucket it stands encrypted for the location's recipients, so that these can change without
//! touching the data.

use std::fmt;
use std::io::Write as _;

use age::secrecy::{ExposeSecret as _, SecretString};
use bytes::Bytes;

use super::file::{self, Opening, Sealing, Unsealing};
use crate::error::{Error, Result};

/// `key.age` of a few hundred recipients is smaller.
pub const LARGEST_KEY_FILE: u64 = 64 << 10;

/// What a key has to be long as it stands encrypted: its line without an end, and 16 bytes that prove it.
const LEAST_SEALED: usize = 74 + 16;

/// Errors unless a key file looks like one: an age file with somebody who opens it, and room for a key. Whether it opens, only an identity tells.
///
/// # Errors
/// `Corrupt`.
pub fn check_key_file(file: &[u8]) -> Result<()> {
    let odd = || Error::corrupt("it is no key encrypted with age: it was altered or cut");
    if file.len() as u64 > LARGEST_KEY_FILE {
        return Err(odd());
    }
    let mut rest = file;
    age::Decryptor::new(&mut rest).map_err(|e| odd().because(e))?;
    let header = file.get(..file.len() - rest.len()).unwrap_or_default();
    let is_for_somebody = header.windows(4).any(|window| window == b"\n-> ");
    match is_for_somebody && rest.len() >= LEAST_SEALED {
        true => Ok(()),
        false => Err(odd()),
    }
}

/// The key of one backup.
#[derive(Clone)]
pub struct BackupKey {
    identity: age::x25519::Identity,
    recipient: age::x25519::Recipient,
}

/// Tells nothing.
impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupKey")
    }
}

impl BackupKey {
    /// A fresh one.
    pub fn generate() -> Self {
        Self::of(age::x25519::Identity::generate())
    }

    fn of(identity: age::x25519::Identity) -> Self {
        Self {
            recipient: identity.to_public(),
            identity,
        }
    }

    /// The public half: it tells this key from every other, and opens nothing.
    pub fn public(&self) -> String {
        self.recipient.to_string()
    }

    /// From what `key.age` holds: the first line that is no comment, as any age tool reads it.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim);
        let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        let identity = line.unwrap_or_default().parse();
        identity
            .map(Self::of)
            .map_err(|_| Error::corrupt("what key.age holds is no key of a backup"))
    }

    /// What `key.age` holds.
    pub(crate) fn text(&self) -> SecretString {
        self.identity.to_string()
    }

    /// Begins a file for this key.
    pub(crate) fn sealing(&self) -> Result<Sealing> {
        Sealing::begin(&self.recipient)
    }

    /// A small file for this key.
    pub(crate) fn seal(&self, bytes: Bytes) -> Result<Bytes> {
        file::seal(&self.recipient, bytes)
    }

    /// The key to a file, by its first bytes.
    pub(crate) fn opening(&self, head: &[u8]) -> Result<Opening> {
        Opening::begin(&self.identity, head)
    }

    /// What a small file holds.
    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Bytes> {
        file::open(&self.identity, sealed)
    }

    /// A file of this key, as it comes.
    pub(crate) fn unsealing(&self) -> Unsealing {
        Unsealing::new(&self.identity)
    }

    /// As any age tool uses it.
    pub(super) fn identity(&self) -> &age::x25519::Identity {
        &self.identity
    }

    /// Encrypts the key itself.
    pub(super) fn wrap(&self, encryptor: age::Encryptor) -> Result<Bytes> {
        let mut out = Vec::new();
        let failed =
            |e: std::io::Error| Error::other("the backup's key can not be encrypted").because(e);
        let mut writer = encryptor.wrap_output(&mut out).map_err(failed)?;
        let text = self.text();
        writer
            .write_all(text.expose_secret().as_bytes())
            .and_then(|()| writer.write_all(b"\n"))
            .and_then(|()| writer.finish().map(|_| ()))
            .map_err(failed)?;
        if out.len() as u64 > LARGEST_KEY_FILE {
            return Err(Error::invalid(
                "these are too many recipients: key.age may have 64 KiB",
            ));
        }
        Ok(out.into())
    }
}
