//! Where a snapshot lies, from what a user named, and the key that lies beside it where it is an encrypted one of a location. Reads nothing of the snapshot.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;

use backup_cli::error::{CommandError, Result};
use backup_cli::locations::LocationArgs;
use backup_core::Error;
use backup_core::crypt::LARGEST_KEY_FILE;
use backup_core::layout::SnapshotKeys;
use backup_core::location::{Store, url};
use bytes::Bytes;

use super::open_failed;

/// Where a snapshot comes from.
#[derive(Clone, Debug)]
pub(crate) enum At {
    /// A file on this machine.
    File(PathBuf),
    /// An object in a store; from a URL, or found by the catalog.
    Object {
        /// Where it lies.
        store: Store,
        /// Its key below the store's prefix.
        key: String,
    },
}

impl At {
    /// What a user named; nothing is read.
    ///
    /// # Errors
    /// A usage error, for a URL that can not be meant.
    pub(super) fn parse(text: &str, location: &LocationArgs) -> Result<Self> {
        let Some(mut spec) = url::parse(text).map_err(CommandError::usage)? else {
            if text.is_empty() {
                let error = Error::invalid("no snapshot is named").hint("name a file or a URL");
                return Err(CommandError::usage(error));
            }
            return Ok(Self::File(PathBuf::from(text)));
        };
        let place = &mut spec.spec.object_storage;
        if spec.spec.provider == "local" {
            return Ok(Self::File(PathBuf::from(&place.bucket)));
        }
        let path = place.prefix.take().unwrap_or_default();
        let ends_in_folder = text
            .split('?')
            .next()
            .is_some_and(|text| text.ends_with('/'));
        if path.is_empty() || ends_in_folder {
            return Err(CommandError::usage(
                Error::invalid(format!("{text:?} names no object")).hint(
                    "name the snapshot itself, as in s3://bucket/folder/snapshot.db?region=eu-1",
                ),
            ));
        }
        let (folder, key) = path.rsplit_once('/').unwrap_or(("", &path));
        place.prefix = Some(folder.to_owned()).filter(|folder| !folder.is_empty());
        Ok(Self::Object {
            key: key.to_owned(),
            store: location.open(&spec)?.store,
        })
    }

    /// Its name without folder.
    fn file_name(&self) -> &str {
        match self {
            Self::Object { key, .. } => key.rsplit('/').next().unwrap_or(key),
            Self::File(path) => {
                let name = path.file_name().and_then(|name| name.to_str());
                name.unwrap_or_default()
            }
        }
    }

    /// Whether its name says that it is encrypted.
    pub(super) fn is_called_encrypted(&self) -> bool {
        self.file_name().ends_with(".age")
    }

    /// The name of the key that has to lie beside it; nothing where it may have none.
    pub(super) fn needed_beside(&self) -> Option<String> {
        let file = self.file_name();
        SnapshotKeys::key_beside(file).filter(|_| SnapshotKeys::is_data(file))
    }

    /// The key of an encrypted snapshot of a location, where its name may be that of one and a key lies beside it.
    pub(super) async fn key_beside(&self) -> Result<Option<Bytes>> {
        let Some(beside) = SnapshotKeys::key_beside(self.file_name()) else {
            return Ok(None);
        };
        match self {
            Self::Object { store, key } => {
                let beside = match key.rsplit_once('/') {
                    None => beside,
                    Some((folder, _)) => format!("{folder}/{beside}"),
                };
                Ok(store.find(&beside, LARGEST_KEY_FILE).await?)
            }
            Self::File(path) => {
                let beside = path.with_file_name(beside);
                let mut bytes = Vec::new();
                let file = match std::fs::File::open(&beside) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    file => file.map_err(|e| open_failed(&beside, e))?,
                };
                file.take(LARGEST_KEY_FILE + 1)
                    .read_to_end(&mut bytes)
                    .map_err(|e| open_failed(&beside, e))?;
                Ok(Some(bytes.into()))
            }
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Object { store, key } => write!(f, "{key} in {}", store.place()),
        }
    }
}
