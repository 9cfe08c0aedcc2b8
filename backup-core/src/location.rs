//! Where backups live: a BackupStorageLocation and its credentials become a [`Store`]. Reads no environment and asks no user.

pub mod aws;
pub mod check;
pub mod claim;
pub mod guard;
pub mod local;
pub mod store;
pub mod url;

use std::path::PathBuf;

use crate::api::BackupStorageLocation;
use crate::error::Result;

pub use store::Store;

/// A location that can be used.
#[derive(Clone, Debug)]
pub struct Location {
    /// Its name, or the URL it was given by.
    pub name: String,
    /// Where it is.
    pub spec: BackupStorageLocation,
    /// Its objects, below the prefix.
    pub store: Store,
    /// Whether an installed Velero shares it; then it gets no guard.
    pub shared_with_velero: bool,
}

/// What a provider may need besides the location's spec; read by the caller.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The credentials file's content, in Velero's format for the provider.
    pub file: Option<Vec<u8>>,
    /// The environment's variables, for the SDK's usual names; empty where a file is given.
    pub environment: Vec<(String, String)>,
    /// PEM of further CAs to trust.
    pub ca_pem: Option<Vec<u8>>,
    /// The file's path, for messages.
    pub path: Option<PathBuf>,
}

/// Opens a location. Nothing is sent yet.
///
/// # Errors
/// `Invalid`, naming the setting: unknown provider, unknown config key, no bucket, unusable credentials file.
pub fn open(spec: &BackupStorageLocation, credentials: &Credentials) -> Result<Location> {
    let _ = (spec, credentials);
    todo!()
}
