//! `--identity`, `--passphrase-file`, `--recipient` and what they name: files are read here, keys are understood in [`backup_core::crypt`]. Nothing of a private
//! key or a passphrase is printed.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use backup_core::Error;
use backup_core::crypt::{self, Identities, Recipients, SecretString};
use backup_core::error::quoted;
use clap::Args;

use crate::error::{CommandError, Result};
use crate::paths::Paths;

/// Keys and passphrases have a few kilobytes at most.
const LARGEST: u64 = 1 << 20;

/// Who opens encrypted backups.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Encryption")]
pub struct IdentityArgs {
    /// File with a private key that opens encrypted backups: an age identity, or an SSH key; can be repeated [default: $XDG_CONFIG_HOME/kubectl-backup/identities, where it is there]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KUBECTL_BACKUP_IDENTITY",
        hide_short_help = true,
        hide_env_values = true
    )]
    identity: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// What is known by heart.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Encryption")]
pub struct PassphraseArgs {
    /// File with the passphrase of an encrypted backup, of an identity or of an SSH key
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    passphrase_file: Option<PathBuf>,
}

/// For whom backups are encrypted.
#[derive(Clone, Debug, Default, Args)]
pub struct RecipientArgs {
    /// Encrypt for this public key: age1..., ssh-ed25519 ..., ssh-rsa ..., or the word passphrase (can be repeated)
    #[arg(long, value_name = "KEY")]
    recipient: Vec<String>,
    /// File with public keys to encrypt for, one a line
    #[arg(long, value_name = "FILE")]
    recipients_file: Vec<PathBuf>,
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Error> {
    let failed = |e| Error::invalid(format!("can not read {what} {}", path.display())).because(e);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::invalid(format!(
            "{what} {} is larger than 1 MiB",
            path.display()
        )));
    }
    Ok(bytes)
}

fn text(path: &Path, what: &str) -> Result<String, Error> {
    String::from_utf8(read(path, what)?)
        .map_err(|_| Error::invalid(format!("{what} {} is no text", path.display())))
}

impl RecipientArgs {
    /// Whether any is given.
    pub fn is_given(&self) -> bool {
        !self.recipient.is_empty() || !self.recipients_file.is_empty()
    }

    /// Those that are given.
    ///
    /// # Errors
    /// A file that can not be read; what is no public key.
    pub fn read(&self) -> Result<Recipients> {
        let mut lines = self.recipient.clone();
        for path in &self.recipients_file {
            lines.push(text(path, "the recipients in").map_err(CommandError::usage)?);
        }
        let recipients = Recipients::parse(lines.iter().map(String::as_str));
        let recipients = recipients.map_err(CommandError::usage)?;
        if self.is_given() && recipients.is_empty() {
            return Err(CommandError::usage(Error::invalid(
                "no recipient is given: the files name none",
            )));
        }
        Ok(recipients)
    }
}

impl PassphraseArgs {
    /// The passphrase, without the line's end.
    ///
    /// # Errors
    /// A file that can not be read, or is empty.
    pub fn passphrase(&self) -> Result<Option<SecretString>> {
        let Some(path) = &self.passphrase_file else {
            return Ok(None);
        };
        let text = text(path, "the passphrase in").map_err(CommandError::usage)?;
        let passphrase = crypt::passphrase(text).ok_or_else(|| {
            CommandError::usage(Error::invalid(format!(
                "the passphrase in {} is empty",
                path.display()
            )))
        })?;
        Ok(Some(passphrase))
    }
}

impl IdentityArgs {
    /// Whether any is given with the command itself; what the variable `KUBECTL_BACKUP_IDENTITY` names, or the user's own file, is for whatever it opens.
    pub fn is_given(&self, variable: Option<&str>) -> bool {
        let of_variable = |path: &PathBuf| path.to_str() == variable;
        let mut identities = self.identity.iter();
        !identities.all(of_variable) || self.passphrase.passphrase_file.is_some()
    }

    /// Whether a flag names one: then what is read is meant to be encrypted. What the environment and the user's own file name is there for whatever comes.
    pub fn is_named(&self) -> bool {
        let own = std::env::var_os("KUBECTL_BACKUP_IDENTITY").map(PathBuf::from);
        let mut named = self.identity.iter();
        named.any(|path| Some(path) != own.as_ref()) || self.passphrase.passphrase_file.is_some()
    }

    /// These flags as words of a command line, a space before each.
    pub fn again(&self) -> String {
        let word = |flag: &str, path: &Path| format!(" {flag} {}", quoted(&path.to_string_lossy()));
        let identities = self.identity.iter().map(|path| word("--identity", path));
        let passphrase = self.passphrase.passphrase_file.iter();
        let passphrase = passphrase.map(|path| word("--passphrase-file", path));
        identities.chain(passphrase).collect()
    }

    /// The passphrase, as [`PassphraseArgs::passphrase`].
    ///
    /// # Errors
    /// A file that can not be read, or is empty.
    pub fn passphrase(&self) -> Result<Option<SecretString>> {
        self.passphrase.passphrase()
    }

    /// Whoever may open what is encrypted: the files that flags name, or the user's own.
    ///
    /// # Errors
    /// A file that is named and can not be read.
    pub fn read(&self, paths: &Paths) -> Result<Identities> {
        let mut identities = Identities::new(self.passphrase()?);
        let named = self.identity.iter();
        let mut all: Vec<_> = named
            .filter(|path| !path.as_os_str().is_empty())
            .cloned()
            .collect();
        let own = paths.identities();
        if all.is_empty() && own.is_file() {
            all.push(own);
        }
        for path in &all {
            let bytes = read(path, "the identity").map_err(CommandError::usage)?;
            identities.add(&path.display().to_string(), bytes);
        }
        Ok(identities)
    }
}
