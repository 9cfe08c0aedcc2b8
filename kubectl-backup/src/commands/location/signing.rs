//! `--signing-key-file` and `--verify-key`: how the backups of a remembered location are signed. The private key itself is never kept, its path is; public keys
//! are kept whole, so that nothing has to be there on the day of a restore.

use std::path::Path;

use backup_core::api::BackupStorageLocation;
use backup_core::signature::{self, Signatures, VERIFY_KEYS, VerifyKey};
use clap::Args;

use super::create::{absolute, refused};
use crate::commands::create::signing_key;
use backup_cli::error::{CommandError, Result};
use backup_cli::locations::SIGNING_KEY_FILE;
use backup_core::Error;

/// How backups are signed.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Signatures")]
pub(super) struct SigningArgs {
    /// File with the Ed25519 private key (PKCS#8, PEM) that signs the backups that are made here; its path is remembered
    #[arg(long, value_name = "FILE")]
    signing_key_file: Option<String>,
    /// File with an Ed25519 public key (PEM) of which one has to have signed each backup that is read here; it is remembered itself (can be repeated)
    #[arg(long, value_name = "FILE")]
    verify_key: Vec<String>,
}

impl SigningArgs {
    pub(super) fn is_given(&self) -> bool {
        self.signing_key_file.is_some() || !self.verify_key.is_empty()
    }

    /// Remembers it beside the location; an empty text takes it away.
    pub(super) fn put(&self, location: &mut BackupStorageLocation) -> Result<()> {
        match self.signing_key_file.as_deref() {
            None => {}
            Some("") => drop(location.metadata.annotations.remove(SIGNING_KEY_FILE)),
            Some(path) => {
                let path = absolute(Path::new(path))?;
                // What could not sign is not remembered.
                signing_key(&path)?;
                location
                    .metadata
                    .annotations
                    .insert(SIGNING_KEY_FILE.to_owned(), path.display().to_string());
            }
        }
        match self.verify_key.as_slice() {
            [] => {}
            [none] if none.is_empty() => {
                drop(location.metadata.annotations.remove(VERIFY_KEYS));
            }
            files => {
                let mut keys: Vec<VerifyKey> = Vec::new();
                for file in files {
                    let found = public_keys(file)?;
                    keys.extend(
                        found
                            .into_iter()
                            .filter(|key| !keys.contains(key))
                            .collect::<Vec<_>>(),
                    );
                }
                location
                    .metadata
                    .annotations
                    .insert(VERIFY_KEYS.to_owned(), signature::to_text(&keys));
            }
        }
        if self.is_given() {
            fits(location)?;
        }
        Ok(())
    }
}

fn public_keys(file: &str) -> Result<Vec<VerifyKey>> {
    if file.is_empty() {
        return Err(refused(
            "--verify-key without a file takes all keys away, and stands alone",
            "name each key that is to count",
        ));
    }
    let unusable =
        |e: Error| CommandError::usage(e.context(format!("--verify-key {file} can not be used")));
    let pem = std::fs::read(file)
        .map_err(|e| unusable(Error::invalid("it can not be read").because(e)))?;
    VerifyKey::all_from_pem(&pem).map_err(unusable)
}

/// What is signed there has to be taken there.
fn fits(location: &BackupStorageLocation) -> Result<()> {
    let annotations = &location.metadata.annotations;
    let (Some(path), Some(keys)) = (
        annotations.get(SIGNING_KEY_FILE),
        annotations.get(VERIFY_KEYS),
    ) else {
        return Ok(());
    };
    let signatures = Signatures {
        sign: Some(signing_key(Path::new(path))?.into()),
        keys: signature::from_text(keys)?,
    };
    let name = &location.metadata.name;
    signatures.may_write(name).map_err(CommandError::usage)
}
