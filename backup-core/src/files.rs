//! The files of a volume in a backup, for who looks at them without a restore: listed, or one of them read.

use crate::crypt::{Identities, Recipients};
use crate::error::{Error, Result};
use crate::layout::VolumeKeys;
use crate::location::Location;
use crate::name::Name;
use crate::records::copies::{self, FileCopy, Outcome};
use crate::signature;
use crate::volume::key::{KeptInMemory, Keyring};
use crate::volume::{Part, Target, VolumeStore};

/// A claim whose files a backup has.
#[derive(Clone, Debug)]
pub struct Files {
    volume: VolumeStore,
    /// Which copy it is.
    pub copy: FileCopy,
}

/// Finds the files of a claim in a backup.
///
/// # Errors
/// `NotFound` where the backup has none of it, with what became of its data; what can not be read.
pub async fn find(
    location: &Location,
    backup: &Name,
    namespace: &str,
    claim: &str,
) -> Result<Files> {
    let store = signature::small_files(location, backup).await?;
    let copies = copies::copies(&store, backup).await?;
    let none = |why: String| {
        Error::not_found(format!(
            "backup {backup} has no files of claim {namespace}/{claim}: {why}"
        ))
        .hint(format!(
            "`kubectl backup describe {backup}` tells what became of each claim's data"
        ))
    };
    let copies = copies.ok_or_else(|| none("it kept none of any volume".to_owned()))?;
    let mut rows = copies.rows.iter();
    let row = rows.find(|row| row.namespace == namespace && row.claim == claim);
    let row = row.ok_or_else(|| none("it does not know this claim".to_owned()))?;
    let saved = match &row.outcome {
        Outcome::Saved(saved) => saved,
        Outcome::Snapshot(_) => {
            let why = "its data is a snapshot in its storage, of which a restore makes a volume";
            return Err(none(why.to_owned()));
        }
        Outcome::Failed(why)
        | Outcome::LeftOut(why)
        | Outcome::NotAsked(why)
        | Outcome::Nothing(why)
        | Outcome::NotUnderstood(why) => return Err(none(why.clone())),
    };
    let place: VolumeKeys = copies.place(row)?;
    Ok(Files {
        volume: VolumeStore::new(&location.store, &place),
        copy: saved.copy.clone(),
    })
}

impl Files {
    /// Hands them to a target: all with their content, as to a restore, or this part.
    ///
    /// # Errors
    /// `NotFound`, `Unauthorized`, `Corrupt`; and the target's.
    pub async fn show<T: Target + Send + 'static>(
        &self,
        part: Option<Part>,
        identities: &Identities,
        target: T,
    ) -> Result<T> {
        let (cache, recipients) = (KeptInMemory::default(), Recipients::default());
        let ring = Keyring {
            recipients: &recipients,
            passphrase: None,
            identities,
            cache: &cache,
        };
        let FileCopy {
            repository,
            snapshot,
            ..
        } = &self.copy;
        let volume = &self.volume;
        match part {
            Some(part) => {
                volume
                    .show(*repository, snapshot, &ring, part, target)
                    .await
            }
            None => volume.restore(*repository, snapshot, &ring, target).await,
        }
    }
}
