//! What a backup consists of, and what of it lies elsewhere and does not come along. What is damaged, or not finished, is refused; only the source is read.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::CopyOptions;
use crate::archive::SECRETS;
use crate::archive::read::Archive;
use crate::catalog::{self, Digests, Entry};
use crate::crypt::{LARGEST_KEY_FILE, check_key_file};
use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::location::claim::Folder;
use crate::location::{Location, Store, sha256};
use crate::name::Name;
use crate::records::snapshots::{StorageSnapshot, owned};

/// No signature is longer.
const LARGEST_SIGNATURE: u64 = 4 << 10;

/// A file of the backup.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) key: String,
    pub(super) size: u64,
    /// What its SHA-256 has to be, where somebody wrote that down.
    pub(super) sha256: Option<String>,
}

/// What the backup consists of.
pub(super) struct Plan {
    pub(super) entry: Entry,
    /// All but the marker, SHA256SUMS and its signature.
    pub(super) files: Vec<File>,
    /// SHA256SUMS and its signature, as they stand, with their keys.
    pub(super) seals: Vec<(String, Bytes)>,
    /// Whether its Secrets are encrypted apart.
    pub(super) apart: bool,
    pub(super) warnings: Vec<String>,
    /// Whether files of volumes lie in repositories.
    pub(super) has_copies: bool,
    /// Snapshots in their storage: the original's.
    pub(super) cuts: Vec<StorageSnapshot>,
}

impl Plan {
    /// Files of the copy, and their bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        let small = self
            .seals
            .iter()
            .map(|(_, bytes)| bytes)
            .chain([&self.entry.raw]);
        let (mut files, mut bytes) = (self.files.len() as u64, 0);
        for one in small {
            files += 1;
            bytes += one.len() as u64;
        }
        (
            files,
            bytes + self.files.iter().map(|file| file.size).sum::<u64>(),
        )
    }
}

/// What the backup consists of; one whose own list of files does not hold is refused.
pub(super) async fn gather(source: &Location, name: &Name) -> Result<Plan> {
    let store = &source.store;
    let entry = catalog::get(store, name).await?;
    if catalog::is_at_work(&entry.backup) {
        return Err(Error::other(format!(
            "backup {name} is in phase {}: it is not finished",
            entry.backup.status.phase
        ))
        .hint("copy it when `kubectl backup get` shows it finished"));
    }
    let keys = BackupKeys::new(name);
    let found = Folder::read(store, &keys, "").await?;
    if catalog::names_us(&entry.backup) {
        ours(store, &keys, entry, found).await
    } else {
        // What a dead run of ours may have left in its folder is not its own.
        let left = [keys.index(), keys.digests(), keys.signature()];
        Ok(foreign(entry, found, &left))
    }
}

pub(super) fn damaged(name: &Name, why: &str) -> Error {
    Error::corrupt(format!(
        "backup {name} is damaged and was not copied: {why}"
    ))
    .hint(format!(
        "`kubectl backup verify {name}` tells what else is wrong; copy one that is whole"
    ))
}

/// A backup of ours is what its SHA256SUMS names.
async fn ours(store: &Store, keys: &BackupKeys, entry: Entry, found: Folder) -> Result<Plan> {
    let name = entry.name.clone();
    let folder = keys.folder();
    let (bytes, digests) = match catalog::read_digests(store, keys).await {
        Ok(Some(read)) => read,
        Ok(None) => return Err(damaged(&name, "SHA256SUMS is missing")),
        Err(e) if e.kind() == Kind::Corrupt => {
            return Err(damaged(&name, "SHA256SUMS can not be read").because(e));
        }
        Err(e) => return Err(e),
    };
    let marker = file_name(&folder, &keys.marker());
    if digests.of(&marker) != Some(sha256(&entry.raw).as_str()) {
        return Err(damaged(&name, &format!("{marker} is not what was written")));
    }
    let mut files = listed(&name, keys, &digests, &found)?;
    let apart = entry.apart()?;
    if apart.is_some() {
        files.extend(of_secrets_key(&name, keys, &found)?);
        let key = keys.secrets_key();
        let wrapped = store.get(&key, LARGEST_KEY_FILE).await?;
        check_key_file(&wrapped).map_err(|e| damaged(&name, &key).because(e))?;
    }
    let mut seals = vec![(keys.digests(), bytes)];
    if let Some(signature) = store.find(&keys.signature(), LARGEST_SIGNATURE).await? {
        seals.push((keys.signature(), signature));
    }
    let known: BTreeSet<&str> = files
        .iter()
        .map(|file| file.key.as_str())
        .chain(seals.iter().map(|(key, _)| key.as_str()))
        .collect();
    let unknown = found
        .files
        .iter()
        .filter(|file| !known.contains(file.key.as_str()));
    let warnings = unknown
        .map(|file| format!("{} is no file of the backup and was not copied", file.key))
        .collect();
    Ok(Plan {
        entry,
        files,
        seals,
        apart: apart.is_some(),
        has_copies: false,
        cuts: Vec::new(),
        warnings,
    })
}

/// The key of encrypted Secrets and for whom it is: no digest is kept of them, for they are written anew for other recipients.
fn of_secrets_key(name: &Name, keys: &BackupKeys, found: &Folder) -> Result<Vec<File>> {
    [keys.secrets_key(), keys.secrets_recipients()]
        .into_iter()
        .map(|key| {
            let there = found.files.iter().find(|one| one.key == key);
            let there = there.ok_or_else(|| damaged(name, &format!("{key} is missing")))?;
            if there.size > LARGEST_KEY_FILE {
                let why = format!("{key} has {} bytes, which no such file has", there.size);
                return Err(damaged(name, &why));
            }
            Ok(File {
                key,
                size: there.size,
                sha256: None,
            })
        })
        .collect()
}

/// The files that SHA256SUMS names, all of which have to be there.
fn listed(name: &Name, keys: &BackupKeys, digests: &Digests, found: &Folder) -> Result<Vec<File>> {
    let folder = keys.folder();
    let mut files = Vec::new();
    for (file, digest) in digests.iter() {
        let key = format!("{folder}{file}");
        if key == keys.marker() {
            continue;
        }
        let seal = key == keys.digests() || key == keys.signature();
        if seal || BackupKeys::claim_run(file).is_some() {
            let why = format!("SHA256SUMS names {file}, which is no file of a backup");
            return Err(damaged(name, &why));
        }
        let Some(there) = found.files.iter().find(|one| one.key == key) else {
            return Err(damaged(name, &format!("{file} is missing")));
        };
        files.push(File {
            key,
            size: there.size,
            sha256: Some(digest.to_owned()),
        });
    }
    Ok(files)
}

/// What has no list that can be read, another tool's or an encrypted one, is what lies in its folder, but for these.
pub(super) fn foreign(entry: Entry, found: Folder, left: &[String]) -> Plan {
    let files = found.files.into_iter();
    Plan {
        entry,
        files: files
            .filter(|file| !left.contains(&file.key))
            .map(|file| File {
                key: file.key,
                size: file.size,
                sha256: None,
            })
            .collect(),
        seals: Vec::new(),
        apart: false,
        warnings: Vec::new(),
        has_copies: false,
        cuts: Vec::new(),
    }
}

pub(super) fn file_name(folder: &str, key: &str) -> String {
    key.strip_prefix(folder).unwrap_or(key).to_owned()
}

pub(super) fn not_in_the_copy(what: &str) -> String {
    format!("not in the copy: {what}")
}

/// What of the backup lies elsewhere and does not come along: refused, unless that is said to be fine.
pub(super) async fn volumes(source: &Location, options: &CopyOptions) -> Result<Vec<String>> {
    let name = &options.name;
    let told = |what: String| not_in_the_copy(&what);
    let elsewhere = match catalog::leaks(&source.store, name).await {
        Ok(elsewhere) => elsewhere,
        Err(e) if options.without_volumes && e.kind() == Kind::Corrupt => {
            return Ok(vec![told(format!("what {e} would tell of volumes"))]);
        }
        Err(e) => {
            return Err(e.context(format!(
                "can not tell whether data of backup {name}'s volumes lies elsewhere"
            )));
        }
    };
    if elsewhere.is_empty() || options.without_volumes {
        return Ok(elsewhere.into_iter().map(told).collect());
    }
    Err(Error::other(format!(
        "backup {name} holds data of volumes elsewhere, which would not be in the copy: {}",
        elsewhere.join("; ")
    ))
    .hint("add --without-volumes to copy its objects alone"))
}

/// Whether a backup of ours has no Secret in it, as those have none that were made without them where Secrets are encrypted.
pub(super) async fn holds_no_secret(store: &Store, entry: &Entry) -> Result<bool> {
    if !catalog::is_ours(store, entry).await? {
        return Ok(false);
    }
    let keys = BackupKeys::new(&entry.name);
    let [archive, index] = [keys.archive(), keys.index()].map(|key| store.source(key));
    let index = Archive::open(archive, index).await?.index;
    let rows = index.resources().iter();
    let mut secrets = rows.filter(|row| row.resource == SECRETS);
    Ok(index.frames(SECRETS) == 0 && secrets.all(|row| row.objects() == 0))
}

/// The snapshots in their storage that a backup names; where that is not understood, nobody does of its copy either.
pub(super) async fn cuts(store: &Store, name: &Name) -> Result<Vec<StorageSnapshot>> {
    match owned(store, name).await {
        Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => Ok(Vec::new()),
        owned => Ok(owned?.cuts),
    }
}
