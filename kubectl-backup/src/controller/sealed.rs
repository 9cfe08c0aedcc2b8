//! Encrypted backups: recipients are public keys, so a controller makes backups for them; it has no identity, so it reads none. Their objects say so by an
//! annotation, and tell where their files lie. Of those whose Secrets alone are encrypted it reads the rest.

use backup_core::api::BackupStorageLocation;
use backup_core::catalog::{self, Entry};
use backup_core::crypt::{Encrypt, Recipients};
use backup_core::error::{Error, Result};
use backup_core::location::Location;
pub(crate) use backup_core::location::vault::ENCRYPTION;
use backup_core::name::Name;
use backup_core::signature::{self, Signatures, VERIFY_KEYS};
use serde_json::Value;

use super::objects::annotation;

/// What an object of an encrypted backup bears; another word is that of a plain one, of which the Secrets alone are encrypted.
pub(crate) const ALL: &str = "age";

/// Whether an object stands for an encrypted backup.
pub(crate) fn is_encrypted(object: &Value) -> bool {
    annotation(object, ENCRYPTION) == Some(ALL)
}

/// Whether an object stands for a plain backup whose Secrets are encrypted.
pub(crate) fn has_sealed_secrets(object: &Value) -> bool {
    annotation(object, ENCRYPTION).is_some_and(|word| word != ALL)
}

/// Why no backup can be made in a location by a controller, whatever it is of: recipients or keys that it can not do anything with.
///
/// # Errors
/// Where there is such a reason.
pub(crate) fn may_be_made(location: &BackupStorageLocation) -> Result<()> {
    let name = &location.metadata.name;
    let recipients = Recipients::of_location(location)?;
    if recipients.is_passphrase() {
        return Err(Error::invalid(format!(
            "backups in location {name:?} are encrypted with a passphrase, and a controller has none"
        ))
        .hint("give the location public keys as recipients, or use `kubectl backup create`"));
    }
    Encrypt::of_location(location)?;
    let Some(keys) = location.metadata.annotations.get(VERIFY_KEYS) else {
        return Ok(());
    };
    let signatures = Signatures {
        sign: None,
        keys: signature::from_text(keys)?,
    };
    signatures.may_write(name)
}

/// The location as a backup of it is made: encrypted, all of it or its Secrets, where it has recipients.
///
/// # Errors
/// As [`may_be_made`].
pub(crate) fn seal(location: Location) -> Result<Location> {
    may_be_made(&location.spec)?;
    let recipients = Recipients::of_location(&location.spec)?;
    match Encrypt::of_location(&location.spec)? {
        None => Ok(location),
        Some(Encrypt::All) => location.sealed(&recipients, None),
        Some(Encrypt::Secrets) => location.sealed_secrets(&recipients, None),
    }
}

/// The location with the files of the backup of an object, and what stands there of it. Where a plain backup and an encrypted one have its name, the object
/// says which one it is.
///
/// # Errors
/// The store's; `Corrupt`, where the marker is none.
pub(crate) async fn find(
    location: Location,
    object: &Value,
    name: &Name,
) -> Result<(Location, Option<Entry>)> {
    if is_encrypted(object) {
        let vault = location.vault();
        let entry = catalog::find(&vault.store, name).await?;
        return Ok((vault, entry));
    }
    let entry = catalog::find(&location.store, name).await?;
    Ok(match entry {
        Some(entry) if entry.encrypted => (location.vault(), Some(entry)),
        entry => (location, entry),
    })
}
