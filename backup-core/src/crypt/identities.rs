//! Who opens a backup: files with private keys, and a passphrase. Reads no file itself, and asks nobody.

use std::fmt;
use std::io::{BufRead, ErrorKind, Read as _};

use age::secrecy::SecretString;
use age::{Callbacks, DecryptError, Identity, IdentityFile};
use zeroize::Zeroizing;

use super::opener::{Opened, decrypt};
use super::{BackupKey, LARGEST_KEY_FILE, MOST_WORK, MOST_WORK_OF_OWN, WORK};
use crate::error::{Error, Kind, Result};

/// Private keys, and a passphrase.
#[derive(Clone, Default)]
pub struct Identities {
    /// What the files hold, by their names.
    files: Vec<(String, Zeroizing<Vec<u8>>)>,
    passphrase: Option<SecretString>,
    /// No more work than we write is done for anybody.
    careful: bool,
}

/// Tells the files' names alone.
impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.files.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

/// Answers with the passphrase that was given, to whatever has one.
#[derive(Clone)]
struct Given(Option<SecretString>);

impl Callbacks for Given {
    fn display_message(&self, _: &str) {}

    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }

    fn request_public_string(&self, _: &str) -> Option<String> {
        None
    }

    fn request_passphrase(&self, _: &str) -> Option<SecretString> {
        self.0.clone()
    }
}

impl Identities {
    /// With a passphrase, for a backup that is encrypted with one and for files that have one.
    pub fn new(passphrase: Option<SecretString>) -> Self {
        Self {
            files: Vec::new(),
            passphrase,
            careful: false,
        }
    }

    /// For who has others beside it that need memory and time: a passphrase is tried with the work that we write at most, 256 MiB, whatever a file asks for.
    #[must_use]
    pub fn beside_others(mut self) -> Self {
        self.careful = true;
        self
    }

    /// Adds what a file holds.
    pub fn add(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.push((name.to_owned(), Zeroizing::new(bytes)));
    }

    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.passphrase.is_none()
    }

    /// The passphrase.
    pub fn passphrase(&self) -> Option<&SecretString> {
        self.passphrase.as_ref()
    }

    /// Opens `key.age`. `who` is whom the backup is encrypted for, for messages.
    ///
    /// # Errors
    /// `Unauthorized` where no identity fits, or none is given; `Invalid` for a file that holds none; `Corrupt` for a `key.age` that is none.
    pub fn open(&self, key_age: &[u8], who: &str) -> Result<BackupKey> {
        if key_age.len() as u64 > LARGEST_KEY_FILE {
            return Err(Error::corrupt("key.age is larger than 64 KiB"));
        }
        let opened = self.reader_of(key_age, "key.age", &format!(" for {who}"))?;
        let mut text = Zeroizing::new(String::new());
        opened
            .take(LARGEST_KEY_FILE)
            .read_to_string(&mut text)
            .map_err(|e| Error::corrupt("key.age was altered or cut").because(e))?;
        BackupKey::parse(&text)
    }

    /// What a file of age holds, whoever made it: each piece is proved before it comes out.
    ///
    /// # Errors
    /// `Unauthorized` where no identity fits, or none is given; `Invalid` for an identity file that holds none; `Corrupt` for a file that is none of age.
    pub fn reader<R: BufRead>(&self, file: R) -> Result<Opened<R>> {
        self.reader_of(file, "its header", "")
    }

    fn reader_of<R: BufRead>(&self, file: R, what: &str, who: &str) -> Result<Opened<R>> {
        let mut all: Vec<Box<dyn Identity>> = Vec::new();
        let (mut last, mut locked) = (Vec::new(), Vec::new());
        for (name, bytes) in &self.files {
            self.read(name, bytes, &mut all, &mut last, &mut locked)?;
        }
        if let Some(passphrase) = &self.passphrase {
            let mut scrypt = age::scrypt::Identity::new(passphrase.clone());
            scrypt.set_max_work_factor(if self.careful { WORK } else { MOST_WORK });
            all.push(Box::new(scrypt));
        }
        // Those that end the search where their own passphrase is another.
        all.append(&mut last);
        let no = |e: DecryptError| self.refused(&e, what, who, &locked);
        decrypt(file, all.iter().map(|one| &**one)).map_err(no)
    }

    fn refused(&self, e: &DecryptError, what: &str, who: &str, locked: &[String]) -> Error {
        let with_passphrase = match locked {
            [] => String::new(),
            files => format!(
                "; {} has a passphrase: give --passphrase-file FILE",
                files.join(", ")
            ),
        };
        let hint = format!(
            "give the private key with --identity FILE (an age identity or an SSH key), or the passphrase with --passphrase-file FILE{with_passphrase}"
        );
        match e {
            DecryptError::NoMatchingKeys
            | DecryptError::KeyDecryptionFailed
            | DecryptError::DecryptionFailed => {
                let none = match e {
                    _ if self.is_empty() => "no identity is given",
                    DecryptError::NoMatchingKeys => "no identity that is given fits",
                    DecryptError::KeyDecryptionFailed => {
                        "the passphrase of an identity is another one"
                    }
                    _ => "the passphrase is another one",
                };
                Error::new(
                    Kind::Unauthorized,
                    format!("it is encrypted{who}, and {none}"),
                )
                .hint(hint)
            }
            DecryptError::ExcessiveWork { required, .. } => Error::corrupt(format!(
                "{what} asks for 2^{required} steps of work to try a passphrase, and no more than 2^{MOST_WORK} are done"
            )),
            DecryptError::Io(e) if e.kind() != ErrorKind::UnexpectedEof => {
                Error::other(format!("{what} can not be read")).because(e.to_string())
            }
            _ => Error::corrupt(format!("{what} was altered or cut")),
        }
    }

    /// Reads one file: an age identity file, one that is encrypted, or an SSH key.
    fn read(
        &self,
        name: &str,
        bytes: &[u8],
        all: &mut Vec<Box<dyn Identity>>,
        last: &mut Vec<Box<dyn Identity>>,
        locked: &mut Vec<String>,
    ) -> Result<()> {
        let odd = |why: String| {
            Error::invalid(format!("{name} holds no identity: {why}"))
                .hint("an identity is a file of age-keygen (AGE-SECRET-KEY-1...), or an SSH private key, ed25519 or rsa")
        };
        let given = Given(self.passphrase.clone());
        let is_locked_without = |locked: &mut Vec<String>| {
            if self.passphrase.is_none() {
                locked.push(name.to_owned());
            }
            self.passphrase.is_none()
        };
        let begins = |text: &str| bytes.trim_ascii_start().starts_with(text.as_bytes());
        if begins("-----BEGIN AGE") || begins("age-encryption.org/") {
            if is_locked_without(locked) {
                return Ok(());
            }
            let armored = age::armor::ArmoredReader::new(std::io::Cursor::new(bytes.to_vec()));
            let file = age::encrypted::Identity::from_buffer(
                armored,
                Some(name.to_owned()),
                given,
                Some(if self.careful { WORK } else { MOST_WORK_OF_OWN }),
            );
            let file = file.map_err(|e| odd(e.to_string()))?;
            let file =
                file.ok_or_else(|| odd("it is encrypted, but not with a passphrase".to_owned()))?;
            last.push(Box::new(file));
            return Ok(());
        }
        if begins("-----BEGIN") {
            let key = age::ssh::Identity::from_buffer(bytes, Some(name.to_owned()));
            match key.map_err(|_| odd("the SSH key can not be read".to_owned()))? {
                age::ssh::Identity::Unsupported(_) => {
                    return Err(odd("SSH keys of this kind can not be used".to_owned()));
                }
                key @ age::ssh::Identity::Encrypted(_) => {
                    if !is_locked_without(locked) {
                        last.push(Box::new(key.with_callbacks(given)));
                    }
                }
                key @ age::ssh::Identity::Unencrypted(_) => all.push(Box::new(key)),
            }
            return Ok(());
        }
        // Its own errors name a line, and nothing of it.
        let file = IdentityFile::from_buffer(bytes).map_err(|e| odd(e.to_string()))?;
        let file = file.into_identities().map_err(|e| odd(e.to_string()))?;
        if file.is_empty() {
            return Err(odd("it is empty".to_owned()));
        }
        all.extend(file);
        Ok(())
    }
}
