//! The key that a backup is signed with: the flag's, or the one whose path its location remembers.

use std::path::Path;
use std::sync::Arc;

use backup_core::Error;
use backup_core::location::Location;
use backup_core::signature::SigningKey;

use backup_cli::error::{CommandError, Result};
use backup_cli::locations::SIGNING_KEY_FILE;

/// Reads a private key.
///
/// # Errors
/// A file that can not be read, or holds something else.
pub(crate) fn signing_key(path: &Path) -> Result<SigningKey> {
    let unusable = |e: Error| {
        CommandError::usage(e.context(format!(
            "the signing key {} can not be used",
            path.display()
        )))
    };
    let pem = std::fs::read(path)
        .map_err(|e| unusable(Error::invalid("it can not be read").because(e)))?;
    SigningKey::from_pem(&pem).map_err(unusable)
}

/// Gives the location its key, where there is one.
pub(super) fn ready(location: &mut Location, given: Option<&Path>) -> Result<()> {
    let remembered = location.spec.metadata.annotations.get(SIGNING_KEY_FILE);
    if let Some(path) = given.or(remembered.map(Path::new)) {
        location.signatures.sign = Some(Arc::new(signing_key(path)?));
    }
    Ok(())
}
