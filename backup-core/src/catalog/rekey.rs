//! The key of an encrypted backup for other recipients: its key file alone is written, never its data.

use super::{Entry, KeyPlace};
use crate::crypt::LARGEST_KEY_FILE;
use crate::error::{Error, Result};
use crate::layout::BackupKeys;
use crate::location::claim::has_marker;
use crate::location::{KeyFiles, Store};

/// Writes the key of an encrypted backup, or of the Secrets of a plain one, anew in the place of `opened`, and reads back what stands then. The data is not
/// touched, and neither are its digests: none covers a key file, for the marker tells which key it has to hold.
///
/// # Errors
/// `Invalid`, where nothing of the backup is encrypted; `NotFound`, where it was removed meanwhile; another key file than the one that was opened; the store's.
pub async fn rekey(store: &Store, entry: &Entry, opened: &[u8], files: &KeyFiles) -> Result<()> {
    let name = &entry.name;
    let Some(KeyPlace {
        store,
        key,
        recipients,
    }) = entry.key_place(store)?
    else {
        return Err(Error::invalid(format!(
            "nothing of backup {name} is encrypted"
        )));
    };
    let what = format!("backup {name}");
    replace_key(&store, &key, &recipients, opened, files, &what).await?;
    if !has_marker(&store, &BackupKeys::new(name)).await? {
        // A deletion was quicker: it removes its files once.
        store.delete(&key).await?;
        store.delete(&recipients).await?;
        return Err(Error::not_found(format!(
            "backup {name} was deleted by somebody else just now"
        )));
    }
    Ok(())
}

/// Writes a key file and the one that tells whom it is for in the place of `opened`, and reads back what stands then. `what` is whose key it is, for messages.
///
/// # Errors
/// Another key file than the one that was opened; the store's: the message says which of the two stands.
pub(crate) async fn replace_key(
    store: &Store,
    key: &str,
    recipients: &str,
    opened: &[u8],
    files: &KeyFiles,
    what: &str,
) -> Result<()> {
    let before = store.get(key, LARGEST_KEY_FILE).await?;
    if before != opened {
        return Err(Error::other(format!(
            "the key of {what} was written anew while it was opened: nothing was changed"
        ))
        .hint("somebody else is at work on it; look with `describe`, and run the command again"));
    }
    store.put(key, files.key.clone()).await?;
    let stands = store.get(key, LARGEST_KEY_FILE).await;
    if !matches!(&stands, Ok(stands) if *stands == files.key) {
        let why = match stands {
            Err(e) => e,
            Ok(_) => Error::other("the store did not keep what was written"),
        };
        if let Err(back) = store.put(key, before).await {
            return Err(why
                .context(format!(
                    "the new key of {what} could not be read back, and its old one could not be put back ({}): either may stand",
                    back.sentence()
                ))
                .hint("keep the old identity and the new one; run the command again with both"));
        }
        return Err(why.context(format!(
            "{what} has its old key again: the new one could not be read back"
        )));
    }
    store.put(recipients, files.recipients.clone()).await
}
