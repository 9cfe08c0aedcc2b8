//! A database file: opened read-only, read by ranges, every page and length checked. Changes nothing, maps nothing into memory.

mod survey;

use std::fs::File;
use std::io;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

use super::bolt::Bucket;
use super::bolt::file::{PageFile, TRAILER};
use super::bolt::walk::{Order, Problems, Walker};
use super::buckets::{MOST_ENTRIES, SMALL, settle};
use super::digest::LiveDigest;
use super::facts::Facts;
use super::hashkv::{self, HashKv};
use crate::error::{Error, Kind, Result};
use crate::location::hex;
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
    pages: PageFile,
    trailer: Trailer,
}

/// What a database turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// What it says of itself; of what is damaged, what could be read.
    pub facts: Facts,
    /// Over its live keys at its latest revision; the same holds.
    pub digest: LiveDigest,
    /// Everything that is wrong, a sentence each; none where the database is whole.
    pub problems: Vec<String>,
}

impl Database {
    /// Opens a file; nothing but its metas is read yet.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` where it is no database, or was cut.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| {
            let kind = match e.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::Forbidden,
                _ => Kind::Other,
            };
            Error::new(kind, format!("can not open {name}")).because(e)
        })?;
        Self::from_file(file, &name)
    }

    /// The same of an open file, which may have no name any more; `name` is for messages.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn from_file(file: File, name: &str) -> Result<Self> {
        let about = file
            .metadata()
            .map_err(|e| Error::other(format!("can not read {name}")).because(e))?;
        if !about.is_file() {
            return Err(Error::invalid(format!("{name} is no file")).hint(
                "name the snapshot itself; in a data directory the database is member/snap/db",
            ));
        }
        let pages = PageFile::open(file, name)?;
        let mut trailer = Trailer::None;
        if pages.has_trailer() {
            let mut sha256 = [0; TRAILER as usize];
            pages.read_at(&mut sha256, pages.bytes())?;
            trailer = Trailer::Sha256(sha256);
        }
        Ok(Self { pages, trailer })
    }

    /// Bytes of the database, without the trailer.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pages.bytes()
    }

    /// What stands behind the pages; not checked.
    #[must_use]
    pub fn trailer(&self) -> Trailer {
        self.trailer
    }

    /// Whether no member ever ran on it: it has no bucket `key`, and tells of no entry of a raft log. Such a one is left by an etcd that ended while it began its log, on a full
    /// disk for one.
    ///
    /// # Errors
    /// `Corrupt` at the first page that can not be followed.
    pub fn is_unused(&self) -> Result<bool> {
        let silent = &crate::progress::Silent;
        let mut walker = Walker::new(&self.pages, Problems::Fatal, silent);
        let buckets = walker.buckets()?;
        let mut facts = Facts::default();
        self.small(&mut walker, &buckets, &mut facts)?;
        Ok(key_bucket(&buckets).is_none() && facts.consistent_index == 0)
    }

    /// The greatest revision in bucket `key`. Less than [`Facts::revision`] where the last changes are compacted away; `etcdutl snapshot restore
    /// --bump-revision` counts from here. Reads a path down the tree.
    ///
    /// # Errors
    /// `Corrupt` at the first page that can not be followed.
    pub fn last_revision(&self) -> Result<i64> {
        let silent = &crate::progress::Silent;
        let buckets = Walker::new(&self.pages, Problems::Fatal, silent).buckets()?;
        let key = key_bucket(&buckets)
            .ok_or_else(|| Error::corrupt(format!("{} {NO_KEYS}", self.pages.name())))?;
        survey::latest(self, key)
    }

    pub(super) fn pages(&self) -> &PageFile {
        &self.pages
    }

    /// Reads the file once and returns the SHA-256 of the database without its trailer, in hexadecimal digits.
    ///
    /// # Errors
    /// `Corrupt` where there is a trailer and it says otherwise.
    pub fn check_trailer(&self, progress: &dyn Progress) -> Result<String> {
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.bytes() {
            let piece = (self.bytes() - at).min(buffer.len() as u64) as usize;
            self.pages.read_at(&mut buffer[..piece], at)?;
            context.update(&buffer[..piece]);
            progress.done(0, piece as u64);
            at += piece as u64;
        }
        let found = hex(context.finish().as_ref());
        match self.trailer {
            Trailer::Sha256(sha256) if hex(&sha256) != found => {
                Err(wrong_trailer(self.pages.name(), &hex(&sha256), &found))
            }
            _ => Ok(found),
        }
    }

    /// What the database says of itself. Reads the whole tree of bucket `key`.
    ///
    /// # Errors
    /// `Corrupt` at the first page that can not be followed.
    pub fn facts(&self, progress: &dyn Progress) -> Result<Facts> {
        let survey = survey::survey(self, false, Problems::Fatal, progress)?;
        Ok(survey.facts)
    }

    /// What the small buckets and one path down the tree tell: members, alarms, the latest and the compacted revisions. Keys are not counted.
    ///
    /// # Errors
    /// `Corrupt` at the first page that can not be followed.
    pub fn glance(&self) -> Result<Facts> {
        Ok(self.history()?.0)
    }

    /// Everything that is wrong with the database, a sentence each; none where it is whole. Reads the file, then every reachable page.
    ///
    /// # Errors
    /// When the file can not be read.
    pub fn verify(&self, progress: &dyn Progress) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        match self.check_trailer(progress) {
            Err(e) if e.kind() == Kind::Corrupt => problems.push(e.to_string()),
            checked => {
                checked?;
            }
        }
        problems.extend(self.examine(progress)?.problems);
        Ok(problems)
    }

    /// Facts, digest and problems in one walk. The trailer is not looked at.
    ///
    /// # Errors
    /// When the file can not be read.
    pub fn examine(&self, progress: &dyn Progress) -> Result<Examined> {
        survey::survey(self, true, Problems::noted(), progress)
    }

    /// The digest over the live keys at a revision, the latest where none is given.
    ///
    /// # Errors
    /// `Corrupt`; `Invalid` for a revision that is compacted or yet to come.
    pub fn digest(&self, at: Option<i64>, progress: &dyn Progress) -> Result<LiveDigest> {
        survey::digest(self, at, progress)
    }

    /// etcd's HashKV at a revision, the latest where none is given.
    ///
    /// # Errors
    /// As [`Database::digest`].
    pub fn hash_kv(&self, at: Option<i64>, progress: &dyn Progress) -> Result<HashKv> {
        let (facts, key) = self.history()?;
        let at = reachable(&facts, at)?;
        let compacted = match facts.compact_revision.max(facts.scheduled_compact_revision) {
            0 => -1,
            compacted => compacted,
        };
        hashkv::hash_kv(self, &key, at, compacted, progress)
    }

    /// The latest and the compacted revisions, and bucket `key`; reads a path down the tree, and the small buckets.
    fn history(&self) -> Result<(Facts, Bucket)> {
        let silent = &crate::progress::Silent;
        let mut walker = Walker::new(&self.pages, Problems::Fatal, silent);
        let mut facts = Facts::default();
        let buckets = walker.buckets()?;
        self.small(&mut walker, &buckets, &mut facts)?;
        let key = key_bucket(&buckets)
            .ok_or_else(|| Error::corrupt(format!("{} {NO_KEYS}", self.pages.name())))?;
        facts.revision = survey::latest(self, key)?;
        settle(&mut facts);
        Ok((facts, key.clone()))
    }

    /// Reads the small buckets into `facts`.
    fn small(
        &self,
        walker: &mut Walker<'_>,
        buckets: &[(Vec<u8>, Bucket)],
        facts: &mut Facts,
    ) -> Result<()> {
        for small in &SMALL {
            let found = buckets
                .iter()
                .find(|(name, _)| name == small.name.as_bytes());
            let Some((_, bucket)) = found else { continue };
            let mut count = 0;
            walker.bucket(small.name, bucket, Order::Ascending, &mut |entry| {
                count += 1;
                if count > MOST_ENTRIES {
                    return Err("is one of more entries than etcd makes".to_owned());
                }
                (small.take)(facts, entry.key, entry.value)
            })?;
        }
        Ok(())
    }
}

/// Ends a sentence about a database.
const NO_KEYS: &str = "has no bucket \"key\": it is a database, and none of etcd";

fn key_bucket(buckets: &[(Vec<u8>, Bucket)]) -> Option<&Bucket> {
    let found = buckets
        .iter()
        .find(|(name, _)| name == super::entry::KEY_BUCKET);
    found.map(|(_, bucket)| bucket)
}

pub(super) fn wrong_trailer(name: &str, promised: &str, found: &str) -> Error {
    Error::corrupt(format!(
        "{name} was altered: its trailer promises SHA-256 {promised}, its content has {found}"
    ))
    .hint("fetch it again, or use another snapshot")
}

/// The revision that is asked for, or the latest, where history still tells it.
fn reachable(facts: &Facts, at: Option<i64>) -> Result<i64> {
    let at = at.unwrap_or(facts.revision);
    let compacted = facts.compact_revision.max(facts.scheduled_compact_revision);
    if at > facts.revision || at < compacted {
        return Err(Error::invalid(format!(
            "revision {at} is not in the database, which tells of {compacted} to {}",
            facts.revision
        )));
    }
    Ok(at)
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
pub(in crate::etcd) mod tests;
