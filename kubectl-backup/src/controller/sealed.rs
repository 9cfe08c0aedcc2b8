//! Encrypted backups: recipients are public keys, so a controller makes backups for them; it has no identity, so it reads none. Their objects say so by an
//! annotation, and tell where their files lie. Of those whose Secrets alone are encrypted it reads the rest.

use backup_core::apart::Apart;
use backup_core::api::{Backup, BackupStorageLocation};
use backup_core::catalog::{self, Entry};
use backup_core::crypt::{Encrypt, Recipients};
use backup_core::error::{Error, Result};
use backup_core::location::Location;
pub(crate) use backup_core::location::vault::ENCRYPTION;
use backup_core::name::Name;
use backup_core::signature::{self, Signatures, VERIFY_KEYS};
use serde_json::Value;

use super::objects::annotation;
use super::sync;

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

/// What an object is to bear of how its backup stands, whatever its maker, its bucket or anybody wrote there before; nothing of a plain one.
pub(crate) fn word(backup: &Backup, encrypted: bool) -> Option<&'static str> {
    let is_apart = || !matches!(Apart::of(backup), Ok(None));
    match encrypted {
        true => Some(ALL),
        false => is_apart().then_some(Encrypt::Secrets.word()),
    }
}

/// The location with the files of the backup of an object, and what stands there of it. Of a plain backup and an encrypted one of its name it is the one that
/// began with the object: its annotation, which anybody may have written, says only which one is looked at first, and which one it is where neither did.
///
/// # Errors
/// The store's; `Corrupt`, where the marker is none.
pub(crate) async fn find(
    location: Location,
    object: &Value,
    name: &Name,
) -> Result<(Location, Option<Entry>)> {
    let vault = location.vault();
    let is_its = |entry: &Option<Entry>| {
        let entry = entry.as_ref();
        entry.is_some_and(|entry| sync::is_same(object, &entry.backup))
    };
    let (first, second) = match is_encrypted(object) {
        true => (vault, location),
        false => (location, vault),
    };
    let there = catalog::find_here(&first.store, name).await?;
    if is_its(&there) {
        return Ok((first, there));
    }
    let other = catalog::find_here(&second.store, name).await?;
    Ok(match (is_its(&other), &there, &other) {
        (true, ..) | (false, None, Some(_)) => (second, other),
        _ => (first, there),
    })
}

#[cfg(test)]
mod tests {
    use backup_core::layout::BackupKeys;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn an_object_is_of_the_backup_that_began_with_it_whatever_its_annotation_says() {
        let location = Location::in_memory("x");
        let name: Name = "b".parse().unwrap();
        let put = async |store: &backup_core::location::Store, began: &str| {
            let marker = json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "b"},
                "status": {"phase": "Completed", "startTimestamp": began}});
            let key = BackupKeys::new(&name).marker();
            store.put(&key, marker.to_string().into()).await.unwrap();
        };
        let object = |word: &str, began: &str| json!({"metadata": {"annotations": {ENCRYPTION: word}}, "status": {"startTimestamp": began}});
        let (early, late) = ("2026-11-21T02:00:00Z", "2026-11-21T03:00:00Z");
        let found = async |object: Value| {
            let (place, entry) = find(location.clone(), &object, &name).await.unwrap();
            (place.store.is_vault(), entry.is_some())
        };
        // It is gone: what is left of it is looked for where it is said to have been.
        assert_eq!(found(object(ALL, early)).await, (true, false));
        put(&location.store, early).await;
        for word in [ALL, "secrets", "any"] {
            assert_eq!(found(object(word, early)).await, (false, true), "{word}");
        }
        // Another one of the name, of the other sort.
        put_sealed(&location, &name, late).await;
        for word in [ALL, "secrets"] {
            assert_eq!(found(object(word, early)).await, (false, true), "{word}");
            assert_eq!(found(object(word, late)).await, (true, true), "{word}");
        }
    }

    async fn put_sealed(location: &Location, name: &Name, began: &str) {
        let clear = json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "b"},
            "status": {"phase": "Completed", "startTimestamp": began}});
        let manifest = json!({"version": 1, "backup": clear, "sealed": ""});
        let key = format!("plugins/kubectl-backup/backups/{name}/manifest.json");
        let bytes = manifest.to_string();
        location.store.put(&key, bytes.into()).await.unwrap();
    }

    #[test]
    fn what_an_object_bears_is_how_its_backup_stands() {
        let backup = |annotations: Value| -> Backup {
            serde_json::from_value(json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "b", "annotations": annotations}}))
                .unwrap()
        };
        assert_eq!(word(&backup(json!({ENCRYPTION: "age"})), false), None);
        assert_eq!(word(&backup(json!({})), true), Some(ALL));
        let ours = json!({ENCRYPTION: "secrets", "kubectl-backup/cluster-uid": "u", "kubectl-backup/version": "v0.1.0"});
        assert_eq!(word(&backup(ours), false), Some("secrets"));
    }
}
