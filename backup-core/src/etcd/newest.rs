//! Which record of a key is its newest, told by a walk from the newest revision to the oldest that remembers every key it saw.
//!
//! Memory is bounded whatever the database: a key is remembered as the first 16 bytes of its SHA-256, at most [`MOST_KEYS`] at a time (36
//! MiB; 53 MiB for the moment in which the set grows). Keys fall into 256 parts by the first byte of the hash. Where they are more than
//! fit, a pass looks after the lower parts only, and further passes after the rest: what is tallied is tallied by part.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use aws_lc_rs::digest::{SHA256, digest};

use crate::error::{Error, Result};

/// Parts that keys fall into.
pub(super) const PARTS: usize = 256;

/// Keys that are remembered at a time: what fills a table of two million places.
#[cfg(not(test))]
const MOST_KEYS: usize = (1 << 21) / 8 * 7;
/// Small enough that tests see more than one pass.
#[cfg(test)]
const MOST_KEYS: usize = 1 << 10;

/// What is known of a key, when one of its records comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// It is the newest one of its key, which falls into this part.
    Newest(usize),
    /// A newer one was there.
    Older,
    /// Another pass looks after this key.
    Elsewhere,
}

/// Which keys were seen, and a tally for each part of them.
pub(super) struct Newest<T> {
    seen: HashSet<[u8; 16], BuildHasherDefault<Head>>,
    /// The parts that this pass looks after.
    from: usize,
    to: usize,
    /// By part; complete for parts before `from`, and for those of this pass at its end.
    pub tallies: Vec<T>,
}

impl<T: Default + Clone> Newest<T> {
    /// Before the first pass.
    pub(super) fn new() -> Self {
        Self {
            seen: HashSet::default(),
            from: 0,
            to: PARTS,
            tallies: vec![T::default(); PARTS],
        }
    }

    /// Whether this is the newest record of `key`, of those seen in this pass.
    ///
    /// # Errors
    /// Where there are more keys than a hundred passes could look after.
    pub(super) fn sight(&mut self, key: &[u8]) -> Result<Sighting> {
        let hash = digest(&SHA256, key);
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_ref()[..16]);
        let part = usize::from(short[0]);
        if !(self.from..self.to).contains(&part) {
            return Ok(Sighting::Elsewhere);
        }
        if !self.seen.insert(short) {
            return Ok(Sighting::Older);
        }
        if self.seen.len() > MOST_KEYS {
            self.narrow()?;
            if part >= self.to {
                return Ok(Sighting::Elsewhere);
            }
        }
        Ok(Sighting::Newest(part))
    }

    /// Leaves the upper half of the parts to a later pass.
    fn narrow(&mut self) -> Result<()> {
        let half = (self.to - self.from) / 2;
        if half == 0 {
            return Err(Error::other(format!(
                "the database has more than {} keys, which is more than can be told apart in bounded memory",
                PARTS * MOST_KEYS
            )));
        }
        self.to = self.from + half;
        let to = self.to;
        self.seen.retain(|short| usize::from(short[0]) < to);
        self.tallies[to..].fill(T::default());
        Ok(())
    }

    /// Ends a pass; whether there is another one to make.
    pub(super) fn next_pass(&mut self) -> bool {
        let width = self.to - self.from;
        self.seen.clear();
        self.from = self.to;
        self.to = PARTS.min(self.from + width);
        self.from < PARTS
    }
}

/// The hash of what is a hash already: its last eight bytes, for the first ones tell the part.
#[derive(Default)]
struct Head(u64);

impl Hasher for Head {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk::<8>() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    /// Lengths of arrays come first, and tell nothing.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_keys_than_fit_are_counted_over_several_passes() {
        let keys = 20 * MOST_KEYS;
        let mut newest: Newest<u64> = Newest::new();
        let mut passes = 0;
        loop {
            passes += 1;
            // Every key twice: the second sighting never counts.
            for index in (0..keys).chain(0..keys) {
                if let Sighting::Newest(part) = newest.sight(&index.to_be_bytes()).unwrap() {
                    newest.tallies[part] += 1;
                }
            }
            if !newest.next_pass() {
                break;
            }
        }
        assert_eq!(newest.tallies.iter().sum::<u64>(), keys as u64);
        assert!(passes > 10, "{passes}");
    }

    #[test]
    fn one_pass_does_where_all_fit() {
        let mut newest: Newest<u64> = Newest::new();
        assert_eq!(newest.sight(b"a").unwrap(), newest_part(b"a"));
        assert_eq!(newest.sight(b"b").unwrap(), newest_part(b"b"));
        assert_eq!(newest.sight(b"a").unwrap(), Sighting::Older);
        assert!(!newest.next_pass());
    }

    fn newest_part(key: &[u8]) -> Sighting {
        Sighting::Newest(usize::from(digest(&SHA256, key).as_ref()[0]))
    }
}
