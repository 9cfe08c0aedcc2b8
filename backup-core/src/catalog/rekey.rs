//! The key of an encrypted backup for other recipients: its key file alone is written, never its data.

use bytes::Bytes;

use super::{Entry, KeyPlace};
use crate::crypt::LARGEST_KEY_FILE;
use crate::error::{Error, Kind, Result};
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

/// What stands where a key was written.
#[derive(Debug, PartialEq, Eq)]
enum Stands {
    /// What was written.
    Written,
    /// The key of somebody who wrote at the same time; its recipients were told that it is theirs, and what is put over it locks them out.
    Another,
    /// Nobody knows: most likely what was written, which can be opened; what was there before may open nothing any more.
    Unknown,
    /// Nothing that anybody can open.
    Nothing,
}

impl Stands {
    fn of(read: &Result<Bytes>, written: &[u8]) -> Self {
        match read {
            Ok(stands) if *stands == written => Self::Written,
            Ok(stands) if stands.starts_with(b"age-encryption.org/v1\n") => Self::Another,
            Err(e) if e.kind() != Kind::NotFound => Self::Unknown,
            _ => Self::Nothing,
        }
    }
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
    let why = match (Stands::of(&stands, &files.key), stands) {
        (Stands::Written, _) => {
            return store.put(recipients, files.recipients.clone()).await;
        }
        (Stands::Another, _) => {
            return Err(Error::other(format!(
                "the key of {what} is not the one that was just written: somebody else wrote it at the same time, and theirs is left as it stands"
            ))
            .hint("see with `describe` for whom it is; where that is not meant, rekey again with one of their identities"));
        }
        (Stands::Unknown, Err(e)) => {
            return Err(e
                .context(format!(
                    "the new key of {what} was written and could not be read back: it may stand, or the old one"
                ))
                .hint("keep the old identity and the new one; run the command again with both"));
        }
        (_, Err(e)) => e,
        (_, Ok(_)) => Error::other("the store did not keep what was written"),
    };
    if let Err(back) = store.put(key, before).await {
        return Err(why
            .context(format!(
                "the new key of {what} could not be read back, and its old one could not be put back ({}): either may stand",
                back.sentence()
            ))
            .hint("keep the old identity and the new one; run the command again with both"));
    }
    Err(why.context(format!(
        "{what} has its old key again: the new one could not be read back"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_key_is_put_back_only_where_nothing_stands_that_anybody_can_open() {
        let written = b"age-encryption.org/v1\nours";
        let failed = |kind| Err(Error::new(kind, "x"));
        for (read, want) in [
            (Ok(Bytes::from_static(written)), Stands::Written),
            (
                Ok(Bytes::from_static(b"age-encryption.org/v1\ntheirs")),
                Stands::Another,
            ),
            (Ok(Bytes::from_static(b"age-encr")), Stands::Nothing),
            (Ok(Bytes::new()), Stands::Nothing),
            (failed(Kind::NotFound), Stands::Nothing),
            (failed(Kind::Unreachable), Stands::Unknown),
        ] {
            assert_eq!(Stands::of(&read, written), want, "{read:?}");
        }
    }
}
