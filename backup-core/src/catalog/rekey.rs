//! The key of an encrypted backup for other recipients: its key file alone is written, never its data.

use crate::crypt::LARGEST_KEY_FILE;
use crate::error::{Error, Result};
use crate::layout::BackupKeys;
use crate::location::claim::has_marker;
use crate::location::{KeyFiles, Store};
use crate::name::Name;

/// Writes the key of an encrypted backup anew in the place of `opened`, and reads back what stands then. The data is not touched.
///
/// # Errors
/// `NotFound`, where the backup was removed meanwhile; another key file than the one that was opened; the store's.
pub async fn rekey(store: &Store, name: &Name, opened: &[u8], files: &KeyFiles) -> Result<()> {
    let (vault, keys) = (store.vault(None), BackupKeys::new(name));
    let before = vault.get(&keys.key(), LARGEST_KEY_FILE).await?;
    if before != opened {
        return Err(Error::other(format!(
            "the key of backup {name} was written anew while it was opened: nothing was changed"
        ))
        .hint("somebody else is at work on it; look with `kubectl backup describe`, and run the command again"));
    }
    vault.put(&keys.key(), files.key.clone()).await?;
    let stands = vault.get(&keys.key(), LARGEST_KEY_FILE).await;
    if !matches!(&stands, Ok(stands) if *stands == files.key) {
        let why = match stands {
            Err(e) => e,
            Ok(_) => Error::other("the store did not keep what was written"),
        };
        if let Err(back) = vault.put(&keys.key(), before).await {
            return Err(why
                .context(format!(
                    "the new key of backup {name} could not be read back, and its old one could not be put back ({}): either may stand",
                    back.sentence()
                ))
                .hint("keep the old identity and the new one; run the command again with both"));
        }
        return Err(why.context(format!(
            "backup {name} has its old key again: the new one could not be read back"
        )));
    }
    vault
        .put(&keys.recipients(), files.recipients.clone())
        .await?;
    if !has_marker(&vault, &keys).await? {
        // A deletion was quicker: it removes its files once.
        vault.delete(&keys.key()).await?;
        vault.delete(&keys.recipients()).await?;
        return Err(Error::not_found(format!(
            "backup {name} was deleted by somebody else just now"
        )));
    }
    Ok(())
}
