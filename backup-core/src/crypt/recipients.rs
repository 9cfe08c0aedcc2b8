//! For whom a backup is encrypted: public keys, or a passphrase.

use age::secrecy::SecretString;
use age::{Encryptor, Recipient as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;

use super::file::Sealing;
use super::{BackupKey, ENCRYPT, WORK};
use crate::api::BackupStorageLocation;
use crate::error::{Error, Result};

/// Annotation of a location with its recipients, one a line; ours.
pub const RECIPIENTS: &str = "kubectl-backup/recipients";

/// The annotation's value where nothing is encrypted, on purpose.
pub const PLAIN: &str = "none";

/// In the place of a recipient: whoever knows the passphrase.
pub const PASSPHRASE: &str = "passphrase";

/// Letters of an age key that tell it from others; the whole key is public, too.
const SHORT: usize = 16;

#[derive(Clone)]
enum Recipient {
    Age(age::x25519::Recipient),
    Ssh(age::ssh::Recipient),
    Passphrase,
}

/// For whom a backup is encrypted.
#[derive(Clone, Default)]
pub struct Recipients {
    /// As they were given, and parsed.
    all: Vec<(String, Recipient)>,
}

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fingerprints()).finish()
    }
}

impl Recipients {
    /// Reads recipients, one a line; empty lines and comments are passed over, as `age -R` does.
    ///
    /// # Errors
    /// `Invalid`: a line that is none, and a passphrase beside others.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut all: Vec<(String, Recipient)> = Vec::new();
        for line in lines.into_iter().flat_map(str::lines).map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !all.iter().any(|(known, _)| known == line) {
                all.push((line.to_owned(), recipient(line)?));
            }
        }
        let has_passphrase = all
            .iter()
            .any(|(_, one)| matches!(one, Recipient::Passphrase));
        if has_passphrase && all.len() > 1 {
            return Err(
                Error::invalid("a passphrase can not stand beside other recipients")
                    .hint("give the one word passphrase, or public keys"),
            );
        }
        Ok(Self { all })
    }

    /// Those of a location.
    ///
    /// # Errors
    /// As [`Recipients::parse`], naming the location; none, where it is to encrypt something: whoever wrote that counts on it.
    pub fn of_location(location: &BackupStorageLocation) -> Result<Self> {
        let annotations = &location.metadata.annotations;
        let (said, name) = (annotations.get(RECIPIENTS), &location.metadata.name);
        let said = said.filter(|said| said.trim() != PLAIN);
        let all = Self::parse(said.map(String::as_str)).map_err(|e| {
            e.context(format!(
                "the recipients of location {name:?} can not be used (annotation {RECIPIENTS})"
            ))
        })?;
        match annotations.get(ENCRYPT) {
            Some(word) if all.is_empty() => Err(Error::invalid(format!(
                "location {name:?} is to encrypt {word:?} (annotation {ENCRYPT}), and has no recipients"
            ))
            .hint("say for whom with annotation kubectl-backup/recipients (`location set NAME --recipient KEY`)")),
            _ => Ok(all),
        }
    }

    /// These and others.
    ///
    /// # Errors
    /// A passphrase beside others.
    pub fn and(&self, others: &Self) -> Result<Self> {
        let lines = self.all.iter().chain(&others.all);
        Self::parse(lines.map(|(line, _)| line.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether it is a passphrase.
    pub fn is_passphrase(&self) -> bool {
        matches!(self.all.as_slice(), [(_, Recipient::Passphrase)])
    }

    /// As [`Recipients::parse`] reads them.
    pub fn to_lines(&self) -> String {
        let lines: Vec<_> = self.all.iter().map(|(line, _)| line.as_str()).collect();
        lines.join("\n")
    }

    /// What tells them from others: the beginning of age keys, fingerprints of SSH keys as `ssh-keygen -l` shows them.
    pub fn fingerprints(&self) -> Vec<String> {
        self.all
            .iter()
            .map(|(_, one)| match one {
                Recipient::Age(key) => {
                    let text = key.to_string();
                    format!("{}...", text.get(..SHORT).unwrap_or(&text))
                }
                Recipient::Ssh(
                    age::ssh::Recipient::SshRsa(key, _) | age::ssh::Recipient::SshEd25519(key, _),
                ) => {
                    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
                    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest))
                }
                Recipient::Passphrase => PASSPHRASE.to_owned(),
            })
            .collect()
    }

    /// Those that are keys.
    fn keys(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.all.iter().filter_map(|(_, one)| match one {
            Recipient::Age(key) => Some(key as &dyn age::Recipient),
            Recipient::Ssh(key) => Some(key as &dyn age::Recipient),
            Recipient::Passphrase => None,
        })
    }

    /// The passphrase, where they are one.
    fn scrypt(&self, passphrase: Option<&SecretString>) -> Result<Option<age::scrypt::Recipient>> {
        if !self.is_passphrase() {
            return Ok(None);
        }
        let passphrase = passphrase.ok_or_else(|| {
            Error::invalid("the backup is to be encrypted with a passphrase, and none is given")
                .hint("give the file that holds it: --passphrase-file FILE")
        })?;
        let mut scrypt = age::scrypt::Recipient::new(passphrase.clone());
        scrypt.set_work_factor(WORK);
        Ok(Some(scrypt))
    }

    /// `key.age`: the key, encrypted for all of them.
    ///
    /// # Errors
    /// No recipient; a passphrase that is not there.
    pub fn wrap(&self, key: &BackupKey, passphrase: Option<&SecretString>) -> Result<Bytes> {
        let encryptor = match self.scrypt(passphrase)? {
            Some(scrypt) => {
                Encryptor::with_recipients(std::iter::once(&scrypt as &dyn age::Recipient))
            }
            None => Encryptor::with_recipients(self.keys()),
        };
        let encryptor = encryptor
            .map_err(|e| Error::invalid("the recipients can not be used").because(e.to_string()))?;
        key.wrap(encryptor)
    }

    /// Begins a file for all of them, with no key between.
    ///
    /// # Errors
    /// As [`Recipients::wrap`].
    pub(crate) fn sealing(&self, passphrase: Option<&SecretString>) -> Result<Sealing> {
        match self.scrypt(passphrase)? {
            Some(scrypt) => Sealing::begin_for([&scrypt as &dyn age::Recipient]),
            None => Sealing::begin_for(self.keys()),
        }
    }

    /// Whom a file that names recipients names, for messages: anybody may have written it.
    pub fn told(bytes: &[u8]) -> String {
        let names: Vec<String> = String::from_utf8_lossy(bytes)
            .lines()
            .take(20)
            .map(|line| {
                line.chars()
                    .filter(char::is_ascii_graphic)
                    .take(60)
                    .collect()
            })
            .collect();
        match names.is_empty() {
            true => "others".to_owned(),
            false => names.join(", "),
        }
    }
}

fn recipient(line: &str) -> Result<Recipient> {
    let shown: String = line.chars().take(24).filter(|c| !c.is_control()).collect();
    if line.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") || line.contains("PRIVATE KEY") {
        // Nothing of it is repeated.
        return Err(Error::invalid("a recipient is a public key, and this is a private one")
            .hint("`age-keygen -y FILE` prints the public key of an age identity; of an SSH key it is in the file beside it, .pub"));
    }
    if line == PASSPHRASE {
        return Ok(Recipient::Passphrase);
    }
    if line.starts_with("age1") {
        return line.parse().map(Recipient::Age).map_err(|why| {
            Error::invalid(format!("{shown:?}... is no recipient of age: {why}"))
                .hint("it is the whole line that age-keygen prints as the public key")
        });
    }
    if !line.starts_with("ssh-") {
        return Err(Error::invalid(format!("{shown:?} is no recipient")).hint(
            "recipients are age1..., ssh-ed25519 ..., ssh-rsa ..., or the one word passphrase",
        ));
    }
    use age::ssh::ParseRecipientKeyError as Bad;
    let key: age::ssh::Recipient = line.parse().map_err(|why| {
        let why = match why {
            Bad::Ignore | Bad::Invalid(_) => "it can not be read",
            Bad::RsaModulusTooLarge => "its modulus is larger than 4096 bits",
            Bad::RsaModulusTooSmall => "its modulus is smaller than 2048 bits",
            Bad::Unsupported(_) => "keys of its type can not be used",
        };
        Error::invalid(format!(
            "{shown:?}... is no SSH key that can be used: {why}"
        ))
        .hint("SSH keys are ssh-ed25519 and ssh-rsa of 2048 to 4096 bits")
    })?;
    // What can not encrypt is refused where it is given, not when a backup is made.
    key.wrap_file_key(&age_core::format::FileKey::new(Box::new([0; 16])))
        .map_err(|e| Error::invalid(format!("{shown:?}... can not be used: {e}")))?;
    Ok(Recipient::Ssh(key))
}
