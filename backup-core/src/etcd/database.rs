//! A database file: opened read-only, read by ranges, every page and length checked. Changes nothing, maps nothing into memory.

use std::fs::File;
use std::path::Path;

use super::digest::LiveDigest;
use super::facts::Facts;
use super::hashkv::HashKv;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// What stands behind the pages of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailer {
    /// Nothing: a file out of a data directory.
    None,
    /// The SHA-256 that `etcdctl snapshot save` leaves.
    Sha256([u8; 32]),
}

/// A database of etcd, or a snapshot of one.
#[derive(Debug)]
pub struct Database {
    _file: File,
}

impl Database {
    /// Opens a file; nothing but its metas is read yet.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` where it is no database, or was cut.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::other("can not open").because(e))?;
        Self::from_file(file, &path.display().to_string())
    }

    /// The same of an open file, which may have no name any more; `name` is for messages.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn from_file(_file: File, _name: &str) -> Result<Self> {
        Err(Error::other("not built yet"))
    }

    /// Bytes of the database, without the trailer.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        0
    }

    /// What stands behind the pages; not checked.
    #[must_use]
    pub fn trailer(&self) -> Trailer {
        Trailer::None
    }

    /// Reads the file once and returns the SHA-256 of the database without its trailer, in hexadecimal digits.
    ///
    /// # Errors
    /// `Corrupt` where there is a trailer and it says otherwise.
    pub fn check_trailer(&self, _progress: &dyn Progress) -> Result<String> {
        Err(Error::other("not built yet"))
    }

    /// What the database says of itself. Reads the whole tree of bucket `key`.
    ///
    /// # Errors
    /// `Corrupt` at the first page that can not be followed.
    pub fn facts(&self, _progress: &dyn Progress) -> Result<Facts> {
        Err(Error::other("not built yet"))
    }

    /// Everything that is wrong with the database, a sentence each; none where it is whole. Reads every reachable page.
    ///
    /// # Errors
    /// When the file can not be read.
    pub fn verify(&self, _progress: &dyn Progress) -> Result<Vec<String>> {
        Err(Error::other("not built yet"))
    }

    /// The digest over the live keys at a revision, the latest where none is given.
    ///
    /// # Errors
    /// `Corrupt`; `Invalid` for a revision that is compacted or yet to come.
    pub fn digest(&self, _at: Option<i64>, _progress: &dyn Progress) -> Result<LiveDigest> {
        Err(Error::other("not built yet"))
    }

    /// etcd's HashKV at a revision, the latest where none is given.
    ///
    /// # Errors
    /// As [`Database::digest`].
    pub fn hash_kv(&self, _at: Option<i64>, _progress: &dyn Progress) -> Result<HashKv> {
        Err(Error::other("not built yet"))
    }
}
