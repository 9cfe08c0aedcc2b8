//! Encrypted snapshots: what of a manifest stands in the clear, how the whole of it is opened, and their keys. Each has a key of its own, as a backup has
//! ([`crypt`](crate::crypt)): its data and its manifest are for that key, and the key is for the recipients, in a small file that [`rekey`] writes anew.
//! The layout is in [`manifest`](super::manifest), what it protects in docs/encryption.md. Reads no identity itself.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::catalog::{self, Entry};
use super::manifest::{LARGEST, Manifest};
use crate::api::BackupStorageLocation;
use crate::catalog::replace_key;
use crate::crypt::armor::{armored, unarmored};
use crate::crypt::{
    BackupKey, Identities, LARGEST_KEY_FILE, PLAIN, RECIPIENTS, Recipients, SecretString,
};
use crate::error::{Error, Result};
use crate::layout::SnapshotKeys;
use crate::location::{KeyFiles, Location, Store};
use crate::name::Name;

/// `data.encryption` of what is encrypted here.
pub const AGE: &str = "age";

/// Fields that stand in the clear, whole.
const CLEAR: [&str; 10] = [
    "format",
    "cluster",
    "name",
    "config",
    "createdAt",
    "expiresAt",
    "data",
    "kubernetesVersion",
    "targetRevision",
    "tool",
];

/// Of these fields some parts.
const CLEAR_IN_PART: [(&str, &[&str]); 3] = [
    ("snapshot", &["bytes"]),
    ("facts", &["revision"]),
    ("etcd", &["version", "clusterId", "memberId"]),
];

/// For whom a snapshot is encrypted.
#[derive(Clone, Debug)]
pub struct Encryption {
    recipients: Recipients,
    passphrase: Option<SecretString>,
}

impl Encryption {
    /// For these; nothing where there is none.
    ///
    /// # Errors
    /// `Invalid`: a passphrase that is not there.
    pub fn of(recipients: Recipients, passphrase: Option<SecretString>) -> Result<Option<Self>> {
        if recipients.is_empty() {
            return Ok(None);
        }
        // Refused before anybody waits for a snapshot.
        if recipients.is_passphrase() && passphrase.is_none() {
            recipients.sealing(None)?;
        }
        Ok(Some(Self {
            recipients,
            passphrase,
        }))
    }

    /// For those of a location, taken where nobody knows a passphrase.
    ///
    /// # Errors
    /// `Invalid`: recipients that can not be used, and a passphrase.
    pub fn of_location(location: &BackupStorageLocation) -> Result<Option<Self>> {
        let recipients = Recipients::of_location(location)?;
        if recipients.is_passphrase() {
            return Err(Error::invalid(format!(
                "snapshots in location {:?} are to be encrypted with a passphrase, and a launcher knows none",
                location.metadata.name
            ))
            .hint("give the location public keys as its recipients (annotation kubectl-backup/recipients)"));
        }
        Self::of(recipients, None)
    }

    /// What tells the recipients from others.
    pub fn fingerprints(&self) -> Vec<String> {
        self.recipients.fingerprints()
    }

    /// A file that has no key of its own.
    pub(crate) fn sealing(&self) -> Result<crate::crypt::file::Sealing> {
        self.recipients.sealing(self.passphrase.as_ref())
    }

    /// A fresh key, and its files.
    pub(crate) fn key(&self) -> Result<(BackupKey, KeyFiles)> {
        let key = BackupKey::generate();
        let files = KeyFiles::new(&self.recipients, &key, self.passphrase.as_ref())?;
        Ok((key, files))
    }

    /// Whether these identities open what is encrypted so. Reads nothing and writes nothing.
    ///
    /// # Errors
    /// `Unauthorized` where none does.
    pub fn is_opened_by(&self, identities: &Identities) -> Result<()> {
        let (_, files) = self.key()?;
        let who = self.fingerprints().join(", ");
        identities.open(&files.key, &who).map(|_| ())
    }
}

/// Errors where a location without recipients holds encrypted snapshots of the cluster, the newest of them: an object that was replaced loses its annotations, and
/// nobody would see that what is taken is plain from then on. Who means that says so: [`PLAIN`].
///
/// # Errors
/// `Invalid`, naming the snapshot; the store's.
pub async fn not_lost(location: &Location, cluster: &Name) -> Result<()> {
    if location.spec.metadata.annotations.contains_key(RECIPIENTS) {
        return Ok(());
    }
    let (all, _) = catalog::list(&location.store, cluster).await?;
    match all.last() {
        Some(newest) if newest.is_locked() => Err(Error::invalid(format!(
            "location {:?} lost its recipients: it names none, and its newest snapshot of cluster {cluster}, {}, is encrypted",
            location.spec.metadata.name,
            newest.keys.name()
        ))
        .hint(format!(
            "set its annotation {RECIPIENTS} again, or to {PLAIN:?} where snapshots are to be plain from now on"
        ))),
        _ => Ok(()),
    }
}

/// What of a manifest stands in the clear.
fn in_the_clear(whole: &Value) -> Map<String, Value> {
    let mut clear = Map::new();
    for field in CLEAR {
        if let Some(value) = whole.get(field) {
            clear.insert(field.to_owned(), value.clone());
        }
    }
    for (field, parts) in CLEAR_IN_PART {
        let mut some = Map::new();
        for part in parts {
            if let Some(value) = whole.get(field).and_then(|value| value.get(part)) {
                some.insert((*part).to_owned(), value.clone());
            }
        }
        clear.insert(field.to_owned(), some.into());
    }
    clear
}

/// The manifest as it is stored, for this key.
///
/// # Errors
/// `Other`, where it can not be encrypted.
pub(super) fn seal(manifest: &Manifest, key: &BackupKey) -> Result<Vec<u8>> {
    let unfit = |e: serde_json::Error| Error::other("the manifest is no JSON").because(e);
    let whole = manifest.bytes();
    let mut clear = in_the_clear(&serde_json::from_slice(&whole).map_err(unfit)?);
    let sealed = armored(&key.seal(whole.into())?);
    clear.insert("sealed".to_owned(), sealed.into());
    let mut bytes = serde_json::to_vec_pretty(&clear).map_err(unfit)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Whether all that is in the one is in the other, with the same value.
fn is_within(clear: &Value, whole: &Value) -> bool {
    match (clear, whole) {
        (Value::Object(clear), Value::Object(whole)) => clear.iter().all(|(field, value)| {
            whole
                .get(field)
                .is_some_and(|other| is_within(value, other))
        }),
        _ => clear == whole,
    }
}

/// The whole manifest of a sealed one.
fn open(entry: &Entry, key: &BackupKey) -> Result<Manifest> {
    let of = entry.keys.manifest();
    let odd = |why: &str| Error::corrupt(format!("{of} can not be opened: {why}"));
    let sealed = entry.manifest.sealed.as_deref().and_then(unarmored);
    let sealed = sealed.ok_or_else(|| odd("its encrypted part was altered or cut"))?;
    let whole = key
        .open(&sealed)
        .map_err(|e| e.context(format!("the encrypted part of {of} can not be opened")))?;
    let manifest = Manifest::parse(&whole, &entry.keys)?;
    let clear: Option<Map<String, Value>> = serde_json::from_slice(&entry.raw).ok();
    let whole: Option<Value> = serde_json::from_slice(&whole).ok();
    let (Some(mut clear), Some(whole)) = (clear, whole) else {
        return Err(odd("it is no JSON"));
    };
    clear.remove("sealed");
    if !is_within(&clear.into(), &whole) || manifest.sealed.is_some() {
        return Err(odd(
            "its part in the clear is not what the encrypted part says: somebody altered it",
        ));
    }
    Ok(manifest)
}

/// The name of the key file of an encrypted snapshot.
fn key_file(entry: &Entry) -> Result<(String, String)> {
    let key = entry.manifest.data.key.as_deref();
    let recipients = key.and_then(SnapshotKeys::recipients_file);
    match (key, recipients) {
        (Some(key), Some(recipients)) => Ok((entry.keys.file(key), entry.keys.file(&recipients))),
        _ => Err(Error::corrupt(format!(
            "{} names no key",
            entry.keys.manifest()
        ))),
    }
}

/// For whom a snapshot is encrypted, as stands beside it; anybody who may write there may have written that.
///
/// # Errors
/// `Corrupt` where its manifest names no key; the store's.
pub async fn recipients(store: &Store, entry: &Entry) -> Result<String> {
    let (_, recipients) = key_file(entry)?;
    let said = store.find(&recipients, LARGEST_KEY_FILE).await?;
    Ok(Recipients::told(&said.unwrap_or_default()))
}

/// The snapshot's own key, and the file that holds it as it was read.
async fn key_of(
    store: &Store,
    entry: &Entry,
    identities: &Identities,
) -> Result<(BackupKey, Bytes)> {
    let (key, _) = key_file(entry)?;
    let who = recipients(store, entry).await?;
    let name = entry.keys.name();
    let Some(wrapped) = store.find(&key, LARGEST_KEY_FILE).await? else {
        return Err(Error::corrupt(format!(
            "snapshot {name} can not be opened: its key {key} is missing"
        ))
        .hint("nobody can open it without that file; use another snapshot"));
    };
    let (stands, identities) = (wrapped.clone(), identities.clone());
    // The work of a passphrase takes a while.
    let opened = tokio::task::spawn_blocking(move || identities.open(&wrapped, &who)).await;
    let opened = opened.map_err(|e| Error::other("opening the key broke off").because(e))?;
    let opened = opened.map_err(|e| e.context(format!("snapshot {name} can not be opened")))?;
    Ok((opened, stands))
}

impl Entry {
    /// Whether it is encrypted, and was not opened.
    pub fn is_locked(&self) -> bool {
        self.manifest.sealed.is_some()
    }

    /// The snapshot as who may read it sees it; one that is not encrypted as it is.
    ///
    /// # Errors
    /// `Unauthorized` where no identity fits; `Corrupt` where what stands was altered; the store's.
    pub async fn unlocked(&self, store: &Store, identities: &Identities) -> Result<Self> {
        if !self.is_locked() {
            return Ok(self.clone());
        }
        let (key, _) = key_of(store, self, identities).await?;
        Ok(Self {
            manifest: open(self, &key)?,
            key: Some(key),
            ..self.clone()
        })
    }
}

/// Encrypts the key of a snapshot for others, and touches nothing else.
///
/// # Errors
/// `Invalid` where it is not encrypted; `Unauthorized` where no identity fits; `NotFound` where it was deleted meanwhile; the store's.
pub async fn rekey(
    store: &Store,
    entry: &Entry,
    identities: &Identities,
    encryption: &Encryption,
) -> Result<()> {
    let name = entry.keys.name();
    if !entry.is_locked() {
        return Err(
            Error::invalid(format!("snapshot {name} is not encrypted: it has no key"))
                .hint("snapshots of a location with recipients are encrypted when they are taken"),
        );
    }
    let (key, opened) = key_of(store, entry, identities).await?;
    // A key that fits nothing is handed to nobody: whoever may write to the bucket may have put it there.
    open(entry, &key)?;
    let files = KeyFiles::new(&encryption.recipients, &key, encryption.passphrase.as_ref())?;
    let (key, recipients) = key_file(entry)?;
    let what = format!("snapshot {name}");
    replace_key(store, &key, &recipients, &opened, &files, &what).await?;
    let stands = store.find(&entry.keys.manifest(), LARGEST).await?;
    if stands.as_ref() != Some(&entry.raw) {
        // A deletion was quicker: it removes its files once.
        store.delete(&key).await?;
        store.delete(&recipients).await?;
        return Err(Error::not_found(format!(
            "{what} was deleted by somebody else just now"
        )));
    }
    Ok(())
}

/// All files that a manifest names.
pub(super) fn files(manifest: &Manifest) -> Vec<String> {
    let data = &manifest.data;
    let recipients = data.key.as_deref().and_then(SnapshotKeys::recipients_file);
    let all = [Some(data.file.clone()), data.key.clone(), recipients];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
