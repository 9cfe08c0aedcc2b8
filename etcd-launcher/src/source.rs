//! Where a snapshot comes from: a file, or an object in a store; plain, gzip or zstd by content. Brings it whole and checked onto the disk.
//! Decides nothing about the snapshot but whether it is one.
#![allow(dead_code, reason = "commands follow")]

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_cli::error::Result;
use backup_cli::locations::LocationArgs;
use backup_core::Error;
use backup_core::etcd::{Facts, LiveDigest};
use backup_core::location::Store;
use backup_core::progress::Progress;

/// Where a snapshot comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
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

/// What the snapshot's manifest promised; what is absent is not checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// SHA-256 of the stored bytes, compressed as they are.
    pub(crate) stored_sha256: Option<String>,
    /// SHA-256 of the database without its trailer.
    pub(crate) sha256: Option<String>,
    /// The digest over its live keys.
    pub(crate) digest: Option<LiveDigest>,
}

/// How much may come, and how slowly.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Most bytes of the database, unpacked: etcd's quota.
    pub(crate) most: u64,
    /// Bytes that must stay free on the file system.
    pub(crate) keep_free: u64,
    /// No byte for so long ends it.
    pub(crate) stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            most: 64 << 30,
            keep_free: 64 << 20,
            stall: Duration::from_secs(60),
        }
    }
}

/// A snapshot on the disk, checked.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// The database with its trailer where it has one; 0600, synced.
    pub(crate) path: PathBuf,
    /// Its bytes, the trailer included.
    pub(crate) bytes: u64,
    /// Whether it has a trailer: `etcdutl snapshot restore` needs `--skip-hash-check` where not.
    pub(crate) has_trailer: bool,
    /// SHA-256 of the database without its trailer, in hexadecimal digits.
    pub(crate) sha256: String,
    /// SHA-256 of the bytes as they were stored, in hexadecimal digits.
    pub(crate) stored_sha256: String,
    /// What it says of itself.
    pub(crate) facts: Facts,
    /// Over its live keys at its latest revision.
    pub(crate) digest: LiveDigest,
}

impl Source {
    /// What a user named: a path, `file:///path`, `s3://bucket/key?endpoint=..&region=..`. Nothing is read yet.
    ///
    /// # Errors
    /// A usage error, for a URL that can not be meant.
    pub(crate) fn parse(_text: &str, _location: &LocationArgs) -> Result<Self> {
        Err(Error::other("not built yet").into())
    }

    /// Brings the snapshot to `to`: unpacked into `<to>.part` beside it, synced, its trailer, structure and every promise checked, renamed.
    /// On an error nothing stays.
    ///
    /// # Errors
    /// `NotFound` and the store's; `Corrupt` for what is no whole snapshot; too large, or no space, with numbers; a stall.
    pub(crate) async fn fetch(
        &self,
        _to: &Path,
        _expected: &Expected,
        _limits: &Limits,
        _progress: &dyn Progress,
    ) -> Result<Fetched> {
        Err(Error::other("not built yet").into())
    }
}

/// As it was named, for messages; no parameters of a URL, for they may hold secrets.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Object { store, key } => write!(f, "{key} in {}", store.place()),
        }
    }
}
