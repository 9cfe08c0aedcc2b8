//! Reads a database while it streams by, in one pass and bounded memory: each block is noted as a candidate page, and at the end what the
//! newest meta's root reaches is judged.

use super::facts::Facts;
use crate::error::{Error, Result};

/// A database that streams by.
#[derive(Debug, Default)]
pub struct Walk {}

/// What a stream turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// What the database says of itself.
    pub facts: Facts,
    /// Buckets (`members`, `alarm`, `cluster`, `auth`, `meta`) that could not be read in passing: what the facts say of them is empty,
    /// not known. Ask the live cluster.
    pub missed: Vec<&'static str>,
    /// SHA-256 of the database without its trailer, in hexadecimal digits. A trailer that says otherwise is an error.
    pub sha256: String,
    /// Whether there was a trailer.
    pub has_trailer: bool,
    /// All bytes that came, the trailer included.
    pub bytes: u64,
}

impl Walk {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// The next bytes, in pieces of any size.
    ///
    /// # Errors
    /// `Corrupt`, as soon as it can be no database.
    pub fn feed(&mut self, _bytes: &[u8]) -> Result<()> {
        Err(Error::other("not built yet"))
    }

    /// After the last byte: judges what is reachable.
    ///
    /// # Errors
    /// `Corrupt`: cut, altered, or no database.
    pub fn finish(self) -> Result<Walked> {
        Err(Error::other("not built yet"))
    }
}
