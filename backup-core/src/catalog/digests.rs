//! `SHA256SUMS`: a line `<hex>  <file>` per file of a backup, as `sha256sum -c` reads it. Files stand directly in the folder.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures::StreamExt;

use super::{LARGEST_MARKER, read_all};
use crate::error::{Error, Result};
use crate::layout::BackupKeys;
use crate::location::{Store, hex, sha256};
use crate::name::Name;

const LARGEST: u64 = 4 << 20;

/// Digests of a backup's files, by file name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    files: BTreeMap<String, String>,
}

fn is_file_name(file: &str) -> bool {
    !file.is_empty()
        && file.len() <= 300
        && file != "."
        && file != ".."
        && !file.contains(|c: char| c == '/' || c == '\\' || c.is_control() || c.is_whitespace())
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Digests {
    /// Of no file yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file: its name in the folder (a whole key does as well) and the SHA-256 of its bytes, lower-case hex.
    #[must_use]
    pub fn add(mut self, file: &str, sha256: &str) -> Self {
        let file = file.rsplit('/').next().unwrap_or(file);
        debug_assert!(is_file_name(file) && is_digest(sha256), "{file} {sha256}");
        self.files.insert(file.to_owned(), sha256.to_owned());
        self
    }

    /// Adds a file whose bytes are at hand.
    #[must_use]
    pub fn add_bytes(self, file: &str, bytes: &[u8]) -> Self {
        self.add(file, &sha256(bytes))
    }

    /// The digest of a file.
    pub fn of(&self, file: &str) -> Option<&str> {
        self.files.get(file).map(String::as_str)
    }

    /// Files and digests, sorted by file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(file, digest)| (file.as_str(), digest.as_str()))
    }

    /// The file's content: sorted lines.
    pub fn to_bytes(&self) -> Bytes {
        let mut text = String::new();
        for (file, digest) in &self.files {
            text.push_str(digest);
            text.push_str("  ");
            text.push_str(file);
            text.push('\n');
        }
        text.into()
    }

    /// Reads what [`Digests::to_bytes`] wrote.
    ///
    /// # Errors
    /// `Corrupt`, naming the line.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Error::corrupt("SHA256SUMS is not text").because(e))?;
        let mut files = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let bad =
                |why: &str| Error::corrupt(format!("line {} of SHA256SUMS {why}", number + 1));
            let (digest, file) = line
                .split_once("  ")
                .ok_or_else(|| bad("is not a digest, two spaces and a file"))?;
            if !is_digest(digest) {
                return Err(bad("does not begin with a SHA-256"));
            }
            if !is_file_name(file) {
                return Err(bad("names no file of the folder"));
            }
            if files.insert(file.to_owned(), digest.to_owned()).is_some() {
                return Err(bad("names a file a second time"));
            }
        }
        Ok(Self { files })
    }
}

/// The file as it stands, and what it says; nothing where it is absent.
///
/// # Errors
/// `Corrupt`, and the store's.
pub(crate) async fn read_digests(
    store: &Store,
    keys: &BackupKeys,
) -> Result<Option<(Bytes, Digests)>> {
    let Some(bytes) = store.find(&keys.digests(), LARGEST).await? else {
        return Ok(None);
    };
    let digests = Digests::parse(&bytes)?;
    Ok(Some((bytes, digests)))
}

/// What comparing a backup's files with their digests showed.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Files that are as they were written.
    pub good: Vec<String>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// Files that SHA256SUMS does not name, claims and itself left out.
    pub unlisted: Vec<String>,
    /// Bytes read.
    pub bytes: u64,
}

/// Reads every file of a backup and compares it with SHA256SUMS, or with what was `signed` of that where somebody has. Finding something wrong is no error.
///
/// # Errors
/// `NotFound`, where there is no backup; the store's.
pub async fn verify_files(
    store: &Store,
    name: &Name,
    signed: Option<&Digests>,
) -> Result<Verified> {
    let keys = BackupKeys::new(name);
    let folder = keys.folder();
    let digests = match signed {
        Some(signed) => signed.clone(),
        None => {
            let Some(sums) = store.find(&keys.digests(), LARGEST).await? else {
                super::get(store, name).await?;
                return Ok(Verified {
                    problems: vec!["SHA256SUMS is missing".to_owned()],
                    ..Verified::default()
                });
            };
            match Digests::parse(&sums) {
                Ok(digests) => digests,
                Err(e) => {
                    return Ok(Verified {
                        problems: vec![format!("SHA256SUMS is damaged: {e}")],
                        ..Verified::default()
                    });
                }
            }
        }
    };
    let mut found = Verified::default();
    let listed: Vec<(String, u64)> = store
        .entries(&folder, 100_000)
        .await?
        .into_iter()
        .map(|entry| (entry.key[folder.len()..].to_owned(), entry.size))
        .collect();
    let marker = keys.marker()[folder.len()..].to_owned();
    if digests.of(&marker).is_none() {
        found
            .problems
            .push(format!("{marker} is not named in SHA256SUMS"));
    }
    for (file, _) in &listed {
        let known = digests.of(file).is_some()
            || BackupKeys::claim_run(file).is_some()
            || BackupKeys::is_of_key(file)
            || BackupKeys::is_of_secrets_key(file)
            || [keys.digests(), keys.signature()].contains(&(folder.clone() + file));
        if !known {
            found.unlisted.push(file.clone());
        }
    }
    let mut present = Vec::new();
    for (file, digest) in digests.iter() {
        match listed.iter().find(|(name, _)| name == file) {
            None => found.problems.push(format!("{file} is missing")),
            Some((_, size)) if file == marker && *size > LARGEST_MARKER => {
                found.problems.push(format!("{file} has {size} bytes"));
            }
            Some(_) => present.push((file.to_owned(), digest.to_owned())),
        }
    }
    let read = read_all(present, |(file, digest)| {
        let key = format!("{folder}{file}");
        async move {
            let mut context = digest::Context::new(&digest::SHA256);
            let mut bytes = 0;
            let mut body = store.stream(&key).await?;
            while let Some(chunk) = body.next().await {
                let chunk = chunk?;
                bytes += chunk.len() as u64;
                context.update(&chunk);
            }
            let is = hex(context.finish().as_ref());
            Ok::<_, Error>((file, digest == is, bytes))
        }
    })
    .await?;
    for (file, good, bytes) in read {
        found.bytes += bytes;
        if good {
            found.good.push(file);
        } else {
            found.problems.push(format!(
                "{file} is not what was written: its SHA-256 is another"
            ));
        }
    }
    Ok(found)
}
