//! Encryption of backups on this machine, with age: for whom ([`Recipients`]), by whom ([`Identities`]), one key per backup ([`BackupKey`]), and files sealed
//! for that key alone. Knows no bucket: what of a location is sealed is [`vault`](crate::location::vault)'s. Keys and passphrases are in no output and in no
//! error. The layout and what it protects are in docs/encryption.md.

pub(crate) mod armor;
pub(crate) mod file;
mod identities;
mod key;
mod mode;
mod opener;
mod recipients;

pub use age::secrecy::{ExposeSecret, SecretString};
pub use identities::Identities;
pub use key::{BackupKey, LARGEST_KEY_FILE, check_key_file};
pub use mode::{ENCRYPT, Encrypt};
pub use opener::{Opened, Opener};
pub use recipients::{PASSPHRASE, PLAIN, RECIPIENTS, Recipients};

/// The work factor of scrypt that is written, and the largest one that is tried: whoever may write to the bucket chooses it.
const WORK: u8 = 18;
const MOST_WORK: u8 = 20;
/// The same of a user's own identity file.
const MOST_WORK_OF_OWN: u8 = 22;

/// The passphrase that a file holds: all of it, without the line's end; nothing where it is empty.
pub fn passphrase(mut text: String) -> Option<SecretString> {
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests;
