//! Reads a database while it streams by, in one pass and bounded memory: each block is noted as a candidate page, and at the end what the
//! newest meta's root reaches is judged.
//!
//! Nothing is judged in passing, for free pages keep what they held, and etcd does not store which are free. Of each page about 24 bytes are
//! kept, of each entry of bucket `key` about 3, of each child of a branch 1 to 3; the last two are bounded by 32 MiB each, whatever
//! comes. Which keys are live is not remembered but reckoned: a first version counts one, a removal takes one away, and of what is
//! compacted every entry counts, for a compaction leaves one of each key.

mod candidates;
mod judge;
mod notes;

use aws_lc_rs::digest::{Context, SHA256};

use super::bolt::file::{TRAILER, known, no_database, split};
use super::bolt::{META, Meta, PAGE_SIZES, newest};
use super::database::wrong_trailer;
use super::facts::Facts;
use crate::error::Result;
use crate::location::hex;
use candidates::Candidates;

/// What the stream is called in messages.
const NAME: &str = "the snapshot";

/// A database that streams by.
pub struct Walk {
    /// The last bytes that came: the trailer, if nothing follows them.
    held: Vec<u8>,
    /// All that came.
    bytes: u64,
    sha256: Context,
    /// Bytes of a page that is not whole yet, or all of them while the size of a page is not known.
    block: Vec<u8>,
    pages: Option<Candidates>,
}

/// What a stream turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// What the database says of itself.
    pub facts: Facts,
    /// Buckets (`meta`, `members`, `cluster`, `alarm`, `auth`) that could not be read in passing: what the facts say of them is empty,
    /// not known. Ask the live cluster. `key` where even the revision may be too low: read the database again, from a file.
    pub missed: Vec<&'static str>,
    /// SHA-256 of the database without its trailer, in hexadecimal digits. A trailer that says otherwise is an error.
    pub sha256: String,
    /// Whether there was a trailer.
    pub has_trailer: bool,
    /// All bytes that came, the trailer included.
    pub bytes: u64,
}

impl Default for Walk {
    fn default() -> Self {
        Self::new()
    }
}

impl Walk {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self {
            held: Vec::new(),
            bytes: 0,
            sha256: Context::new(&SHA256),
            block: Vec::new(),
            pages: None,
        }
    }

    /// The next bytes, in pieces of any size.
    ///
    /// # Errors
    /// `Corrupt`, as soon as it can be no database.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        const HELD: usize = TRAILER as usize;
        self.bytes += bytes.len() as u64;
        if let Some(rest) = bytes.len().checked_sub(HELD) {
            let held = std::mem::take(&mut self.held);
            self.pass(&held)?;
            self.pass(&bytes[..rest])?;
            self.held = held;
            self.held.clear();
            self.held.extend_from_slice(&bytes[rest..]);
            return Ok(());
        }
        self.held.extend_from_slice(bytes);
        if let Some(over) = self.held.len().checked_sub(HELD) {
            let passing: Vec<u8> = self.held.drain(..over).collect();
            self.pass(&passing)?;
        }
        Ok(())
    }

    /// Bytes that came so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that the database has by its own word, without a trailer, as soon as its first page told; not to be relied on.
    #[must_use]
    pub fn claimed(&self) -> Option<u64> {
        let meta = self.meta()?;
        meta.high_water.checked_mul(u64::from(meta.page_size))
    }

    fn meta(&self) -> Option<Meta> {
        let pages = self.pages.as_ref()?;
        newest(pages.metas[0], pages.metas[1]).or_else(|| Meta::parse(&self.block))
    }

    /// After the last byte: judges what is reachable.
    ///
    /// # Errors
    /// `Corrupt`: cut, altered, or no database.
    pub fn finish(mut self) -> Result<Walked> {
        // What is no database was not cut, whatever its size.
        known(self.meta(), self.bytes, NAME)?;
        let (length, has_trailer) = split(self.bytes, NAME)?;
        if !has_trailer {
            let held = std::mem::take(&mut self.held);
            self.pass(&held)?;
        }
        // What is left in the block is no page: pages may be larger than what a file's size is a multiple of.
        let pages = self.pages.ok_or_else(|| no_database(NAME))?;
        let sha256 = hex(self.sha256.finish().as_ref());
        if has_trailer && hex(&self.held) != sha256 {
            return Err(wrong_trailer(NAME, &hex(&self.held), &sha256));
        }
        let (facts, missed) = judge::judge(pages, length)?;
        Ok(Walked {
            facts,
            missed,
            sha256,
            has_trailer,
            bytes: self.bytes,
        })
    }

    /// Bytes that belong to the database.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.sha256.update(bytes);
        if self.pages.is_none() {
            self.block.extend_from_slice(bytes);
            let Some(size) = page_size(&self.block)? else {
                return Ok(());
            };
            self.pages = Some(Candidates::new(size));
            // The first pages were held back until it was known what a page is.
            let all = std::mem::take(&mut self.block);
            return self.cut(&all);
        }
        if !self.block.is_empty() {
            let size = self.page_size();
            let missing = size - self.block.len();
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() < size {
                return Ok(());
            }
            let block = std::mem::take(&mut self.block);
            if let Some(pages) = &mut self.pages {
                pages.take(&block);
            }
            self.block = block;
            self.block.clear();
        }
        self.cut(bytes)
    }

    fn cut(&mut self, bytes: &[u8]) -> Result<()> {
        let size = self.page_size();
        let mut pieces = bytes.chunks_exact(size);
        if let Some(pages) = &mut self.pages {
            for piece in &mut pieces {
                pages.take(piece);
            }
        }
        self.block.extend_from_slice(pieces.remainder());
        Ok(())
    }

    fn page_size(&self) -> usize {
        self.pages.as_ref().map_or(1, Candidates::page_size)
    }
}

/// The size of a page, as soon as a valid meta tells it: the first one, or where that is torn the second.
fn page_size(begin: &[u8]) -> Result<Option<u32>> {
    if begin.len() < META {
        return Ok(None);
    }
    if let Some(meta) = Meta::parse(begin) {
        return Ok(Some(meta.page_size));
    }
    let mut size = PAGE_SIZES.start;
    while PAGE_SIZES.contains(&size) {
        let Some(page) = begin.get(size as usize..size as usize + META) else {
            return Ok(None);
        };
        if Meta::parse(page).is_some_and(|meta| meta.page_size == size) {
            return Ok(Some(size));
        }
        size *= 2;
    }
    Err(no_database(NAME))
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
