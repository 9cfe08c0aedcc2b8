//! The two ends of a snapshot's life in its target: begun so that another run can clean up after this one, and made visible by its
//! manifest: last, once, create-only.

use std::time::Duration;

use bytes::Bytes;

use super::Target;
use super::sink::{Part, Sink};
use crate::crypt::file::Sealing;
use crate::crypt::{BackupKey, LARGEST_KEY_FILE};
use crate::error::{Error, Kind, Result};
use crate::etcd::catalog;
use crate::etcd::manifest::{Compression, LARGEST, Manifest};
use crate::etcd::sealed::{Encryption, seal};
use crate::layout::SnapshotKeys;
use crate::location::store::{Created, Uploaded};
use crate::location::{KeyFiles, Store};
use crate::progress::Progress;

/// How long a store that may be dead is given to remove what was written.
const CLEAN: Duration = Duration::from_secs(30);

/// A snapshot on its way.
pub(super) struct Begun<'a> {
    target: &'a Target,
    run: &'a str,
    file: String,
    /// Whether the store refuses to create what exists.
    refuses: bool,
    key: Option<Keyed>,
    encrypted: bool,
    /// What encrypts its bytes on their way into the sink.
    pub(super) sealing: Option<Sealing>,
    pub(super) sink: Sink,
}

/// A snapshot's own key, and the files that stand beside its data.
struct Keyed {
    key: BackupKey,
    files: KeyFiles,
}

/// One whose bytes are stored. In a location nothing names them yet.
pub(super) struct Stored<'a> {
    target: &'a Target,
    run: &'a str,
    file: String,
    refuses: bool,
    key: Option<Keyed>,
    encrypted: bool,
    uploaded: Uploaded,
}

impl<'a> Begun<'a> {
    /// Begins to write. In a location the upload's id is noted first.
    ///
    /// # Errors
    /// The store's or the file system's.
    pub(super) async fn new(
        target: &'a Target,
        run: &'a str,
        compression: &Compression,
        encryption: Option<&Encryption>,
    ) -> Result<Self> {
        let mut refuses = false;
        let (mut key, mut sealing) = (None, None);
        match (encryption, target) {
            (None, _) => {}
            (Some(encryption), Target::Snapshot { .. }) => {
                let (own, files) = encryption.key()?;
                sealing = Some(own.sealing()?);
                key = Some(Keyed { key: own, files });
            }
            (Some(encryption), Target::Object { .. } | Target::File { .. }) => {
                sealing = Some(encryption.sealing()?);
            }
        }
        let (file, sink) = match target {
            Target::Snapshot { store, keys } => {
                let is_packed = *compression == Compression::Zstd;
                let file = SnapshotKeys::data_file(run, is_packed, key.is_some());
                let mut upload = store.upload(&keys.file(&file))?;
                let id = upload.announce().await?;
                let note = serde_json::to_vec(&id).expect("a note is always JSON");
                let begun = async {
                    let refuses = store.probe_create(&keys.upload(run), note.into()).await?;
                    if let Some(Keyed { files, .. }) = &key {
                        put_key(store, keys, run, files).await?;
                    }
                    Ok(refuses)
                };
                refuses = match begun.await {
                    Ok(refuses) => refuses,
                    Err(e) => {
                        if key.is_some() {
                            drop_key(target, run).await;
                        }
                        upload.abort().await;
                        drop_note(target, run).await;
                        return Err(e);
                    }
                };
                (file, Sink::Upload(Box::new(upload)))
            }
            Target::Object { store, key } => {
                let file = key.rsplit('/').next().unwrap_or(key).to_owned();
                (file, Sink::Upload(Box::new(store.upload(key)?)))
            }
            Target::File { path, replace } => {
                let file = path.file_name().unwrap_or_default();
                let part = Part::begin(path, *replace, run)?;
                (
                    file.to_string_lossy().into_owned(),
                    Sink::File(Box::new(part)),
                )
            }
        };
        Ok(Self {
            target,
            run,
            file,
            refuses,
            key,
            encrypted: encryption.is_some(),
            sealing,
            sink,
        })
    }

    /// Gives it up because of `why`, which is returned; nothing stays, or the note that `sweep` goes by.
    pub(super) async fn abort(self, why: Error, progress: &dyn Progress) -> Error {
        let (target, run) = (self.target, self.run);
        if self.key.is_some() {
            drop_key(target, run).await;
        }
        if self.sink.abort().await {
            drop_note(target, run).await;
        } else if let Target::Snapshot { store, keys } = target {
            progress.warn(&format!(
                "what was sent to {} could not be removed; a later sweep of {} does it",
                store.place(),
                keys.folder()
            ));
        }
        why
    }

    /// Writes the rest. A file has its name then, and an object stands.
    ///
    /// # Errors
    /// The store's or the file system's; what was written is removed.
    pub(super) async fn finish(self) -> Result<Stored<'a>> {
        let Self {
            target,
            run,
            file,
            refuses,
            key,
            encrypted,
            sealing: _,
            sink,
        } = self;
        let uploaded = match sink.finish().await {
            Ok(uploaded) => uploaded,
            Err(e) => {
                // An answer that was lost may have been a yes.
                remove(target, run, &file).await;
                return Err(e);
            }
        };
        let stored = Stored {
            target,
            run,
            file,
            refuses,
            key,
            encrypted,
            uploaded,
        };
        if let Err(e) = stored.check().await {
            stored.remove().await;
            return Err(e);
        }
        Ok(stored)
    }
}

impl Stored<'_> {
    /// The name of the data's file.
    pub(super) fn file(&self) -> String {
        self.file.clone()
    }

    pub(super) fn uploaded(&self) -> &Uploaded {
        &self.uploaded
    }

    /// Whether it may still be taken back: what a file or a single object was is known to the user.
    pub(super) fn is_hidden(&self) -> bool {
        matches!(self.target, Target::Snapshot { .. })
    }

    /// Whether its bytes are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The name of the file with its key.
    pub(super) fn key_file(&self) -> Option<String> {
        self.key.as_ref().map(|_| SnapshotKeys::key_file(self.run))
    }

    /// The manifest, and as it is stored: no longer than may be.
    fn bounded(&self, mut manifest: Manifest) -> Result<(Manifest, Vec<u8>)> {
        let bytes = |manifest: &Manifest| match &self.key {
            Some(Keyed { key, .. }) => seal(manifest, key),
            None => Ok(manifest.bytes()),
        };
        let mut written = bytes(&manifest)?;
        // Names of resources are whatever somebody wrote; all else is short.
        if written.len() as u64 > LARGEST {
            manifest.facts.keys.resources = None;
            written = bytes(&manifest)?;
        }
        Ok((manifest, written))
    }

    /// What the store says it has is what was sent.
    async fn check(&self) -> Result<()> {
        self.check_data().await?;
        let (Some(Keyed { files, .. }), Target::Snapshot { store, keys }) =
            (&self.key, self.target)
        else {
            return Ok(());
        };
        // Without it nobody could ever read the snapshot.
        let key = keys.file(&SnapshotKeys::key_file(self.run));
        if store.find(&key, LARGEST_KEY_FILE).await?.as_ref() == Some(&files.key) {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "{key} in {} is not the key that was written there",
            store.place()
        ))
        .hint("somebody else changed or removed it: take the snapshot again"))
    }

    async fn check_data(&self) -> Result<()> {
        let (store, key) = match self.target {
            Target::Snapshot { store, keys } => (store, keys.file(&self.file)),
            Target::Object { store, key } => (store, key.clone()),
            Target::File { .. } => return Ok(()),
        };
        let found = store.head(&key).await?.size;
        if found == self.uploaded.bytes {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "{key} in {} has {found} bytes, and {} were sent",
            store.place(),
            self.uploaded.bytes
        ))
        .hint("something between here and the store alters objects; check the location with `kubectl backup location check`"))
    }

    /// Takes it back, as far as the store answers.
    pub(super) async fn remove(&self) {
        remove(self.target, self.run, &self.file).await;
    }

    /// Writes the manifest where there is one; from here on nothing is removed unless it is known not to stand.
    ///
    /// # Errors
    /// `AlreadyExists` where another run was faster; the store's, saying whether it is known that the snapshot does not stand.
    pub(super) async fn publish(self, manifest: Manifest) -> Result<Manifest> {
        let (manifest, bytes) = match self.bounded(manifest) {
            Ok(bounded) => bounded,
            Err(e) => {
                self.remove().await;
                return Err(e);
            }
        };
        let Target::Snapshot { store, keys } = self.target else {
            return Ok(manifest);
        };
        match put_manifest(store, keys, bytes.into(), self.refuses).await {
            Ok(()) => {
                drop_note(self.target, self.run).await;
                Ok(manifest)
            }
            Err(e) if e.kind() == Kind::AlreadyExists || is_refusal(e.kind()) => {
                self.remove().await;
                Err(e)
            }
            Err(e) => Err(Error::new(
                e.kind(),
                format!(
                    "it is not known whether snapshot {} stands: the store did not answer when its manifest was written",
                    keys.name()
                ),
            )
            .hint("look for it once the location is reachable: if it is there, it is complete")
            .because(e)),
        }
    }
}

/// An answer, of one who did not do it.
fn is_refusal(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Forbidden | Kind::Unauthorized | Kind::Invalid | Kind::NotFound
    )
}

/// Writes it where none is. Of two runs, a store that refuses a second create lets one pass; one that does not is asked just before and just after,
/// which leaves a gap of one request.
async fn put_manifest(
    store: &Store,
    keys: &SnapshotKeys,
    bytes: Bytes,
    refuses: bool,
) -> Result<()> {
    let key = keys.manifest();
    let look = || async {
        match store.find(&key, LARGEST).await {
            // Longer than any of ours.
            Err(e) if e.kind() == Kind::Corrupt => Err(catalog::taken(keys)),
            Ok(Some(stands)) if stands != bytes => Err(catalog::taken(keys)),
            found => Ok(found?.is_some()),
        }
    };
    look().await?;
    let written = if refuses {
        store.create(&key, bytes.clone()).await.map(|_: Created| ())
    } else {
        store.put(&key, bytes.clone()).await
    };
    // Whatever was answered: what stands there tells, and an answer that was lost was a yes if it is ours.
    match (look().await, written) {
        (Ok(true), _) => Ok(()),
        (Err(e), _) if e.kind() == Kind::AlreadyExists => Err(e),
        (_, Err(e)) | (Err(e), Ok(())) => Err(e),
        (Ok(false), Ok(())) => Err(Error::other(format!(
            "{} does not show {key}, which it said to have written",
            store.place()
        ))),
    }
}

async fn remove(target: &Target, run: &str, file: &str) {
    let Target::Snapshot { store, keys } = target else {
        if let Target::Object { store, key } = target {
            let _ = tokio::time::timeout(CLEAN, store.delete(key)).await;
        }
        return;
    };
    if SnapshotKeys::key_beside(file).is_some() {
        drop_key(target, run).await;
    }
    // What can not be removed is named by no manifest, and `sweep` removes it.
    let removed = tokio::time::timeout(CLEAN, store.delete(&keys.file(file))).await;
    if removed.is_ok_and(|removed| removed.is_ok()) {
        drop_note(target, run).await;
    }
}

/// The files of a key, of which [`drop_key`] removes what is left.
async fn put_key(store: &Store, keys: &SnapshotKeys, run: &str, files: &KeyFiles) -> Result<()> {
    let key = SnapshotKeys::key_file(run);
    if let Some(recipients) = SnapshotKeys::recipients_file(&key) {
        let recipients = keys.file(&recipients);
        store.put(&recipients, files.recipients.clone()).await?;
    }
    store.put(&keys.file(&key), files.key.clone()).await
}

async fn drop_key(target: &Target, run: &str) {
    let Target::Snapshot { store, keys } = target else {
        return;
    };
    let key = SnapshotKeys::key_file(run);
    let recipients = SnapshotKeys::recipients_file(&key);
    let both = async {
        for file in recipients.iter().chain([&key]) {
            let _ = store.delete(&keys.file(file)).await;
        }
    };
    // As with the data: `sweep` removes what is left.
    let _ = tokio::time::timeout(CLEAN, both).await;
}

async fn drop_note(target: &Target, run: &str) {
    if let Target::Snapshot { store, keys } = target {
        let _ = tokio::time::timeout(CLEAN, store.delete(&keys.upload(run))).await;
    }
}

#[cfg(test)]
mod tests;
