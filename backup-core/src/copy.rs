//! Copies a whole backup into another location, byte for byte: a second copy with another provider, or in another account. Gathers what the backup consists
//! of, refuses what is damaged or would mislead before anything is written, then writes under a claim in the order of every backup: files, SHA256SUMS and its
//! signature, the marker last and create-only. Nothing of the source is changed, and nothing is decoded and encoded again: the marker keeps the name of the
//! location that it was made for, and an encrypted backup stays encrypted for whom it was. No key is needed for that: its digests are sealed, too, and each
//! file is read back.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::watch;

use crate::archive::SECRETS;
use crate::archive::read::Archive;
use crate::archive::write::Sink as _;
use crate::backup::{cancelled, refuse_other_of_name};
use crate::catalog::{self, Digests, Entry};
use crate::crypt::{Encrypt, LARGEST_KEY_FILE, Recipients, check_key_file};
use crate::error::{Error, Kind, Result, quoted};
use crate::layout::{BackupKeys, PROBES};
use crate::location::claim::{Claim, Folder, Purpose};
use crate::location::guard::{Coming, Guard};
use crate::location::store::is_absent;
use crate::location::vault::LARGEST_MANIFEST;
use crate::location::{Location, Sha256, Store, guard, sha256};
use crate::name::Name;
use crate::progress::Progress;
use crate::records::snapshots::{StorageSnapshot, owned};
use crate::signature;
use crate::snapshot::known;

/// Files on their way at a time. Each of them holds at most three parts of 8 MiB.
const AT_A_TIME: usize = 3;

/// No signature is longer.
const LARGEST_SIGNATURE: u64 = 4 << 10;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// The backup.
    pub name: Name,
    /// Copy it though data of its volumes lies elsewhere and is not copied.
    pub without_volumes: bool,
    /// The uid of the cluster whose backup it is, where the backup does not say so itself.
    pub cluster: Option<String>,
    /// The machine's name, for the claim.
    pub host: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Files of the copy.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The same backup was there before, whole; nothing was written.
    pub stood: bool,
    /// What the user should know, a sentence each.
    pub warnings: Vec<String>,
    /// Whether files of volumes lie in repositories, which were not copied, and nobody said that this is fine.
    pub lacks_volumes: bool,
}

/// A file of the backup.
#[derive(Clone, Debug)]
struct File {
    key: String,
    size: u64,
    /// What its SHA-256 has to be, where somebody wrote that down.
    sha256: Option<String>,
}

/// What the backup consists of.
struct Plan {
    entry: Entry,
    /// All but the marker, SHA256SUMS and its signature.
    files: Vec<File>,
    /// SHA256SUMS and its signature, as they stand, with their keys.
    seals: Vec<(String, Bytes)>,
    /// Whether its Secrets are encrypted apart.
    apart: bool,
    warnings: Vec<String>,
    /// Whether files of volumes lie in repositories.
    has_copies: bool,
    /// Snapshots in their storage: the original's.
    cuts: Vec<StorageSnapshot>,
}

impl Plan {
    /// Files of the copy, and their bytes.
    fn totals(&self) -> (u64, u64) {
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

/// Copies a backup. Stopped, failed or killed on the way there is no backup of that name in the target; what a killed run left, `prune` removes there.
///
/// # Errors
/// No such backup; one that is damaged, still being made, or has volumes' data elsewhere; a target that is read-only, is another cluster's, is the source
/// itself, or has another backup of that name; and the stores'.
pub async fn copy(
    source: &Location,
    target: &Location,
    options: &CopyOptions,
    cancel: watch::Receiver<bool>,
    progress: &dyn Progress,
) -> Result<Copied> {
    if target.is_read_only() {
        return Err(Error::new(
            Kind::Forbidden,
            format!("location {:?} is read-only", target.name),
        )
        .hint("its accessMode says so; name another one with --to"));
    }
    progress.step("looking at the backup");
    if catalog::get(&source.store, &options.name).await?.encrypted {
        return sealed(source, target, options, cancel, progress).await;
    }
    refuse_other_of_name(target, &options.name).await?;
    // Neither what would not be read where it is, nor what would not be read where it goes.
    let here = signature::check(source, &options.name).await?;
    let there = signature::check_for(&source.store, target, &options.name).await?;
    let mut plan = gather(source, &options.name).await?;
    // A copy has the bytes of what is copied: it can not be encrypted on its way.
    let fits = Encrypt::of_location(&target.spec)? == Some(Encrypt::Secrets)
        && (plan.apart || holds_no_secret(&source.store, &plan.entry).await?);
    if !fits {
        target.refuse_plain("copies of plain backups")?;
    }
    let sums = plan.seals.first().map(|(_, bytes)| bytes);
    for vouched in here.iter().chain(&there) {
        vouched.is(&plan.entry, sums)?;
    }
    let warnings = volumes(source, options).await?;
    plan.warnings.extend(warnings);
    if let Some(stays) = catalog::copies_elsewhere(&source.store, &options.name).await? {
        plan.warnings.push(not_in_the_copy(&stays));
        plan.has_copies = true;
    }
    if let Some(stay) = catalog::snapshots_elsewhere(&source.store, &options.name).await? {
        plan.warnings.push(stay);
        plan.has_copies = true;
    }
    plan.cuts = cuts(&source.store, &options.name).await?;
    carry_out(source, target, options, plan, cancel, progress).await
}

/// Whether a backup of ours has no Secret in it, as those have none that were made without them where Secrets are encrypted.
async fn holds_no_secret(store: &Store, entry: &Entry) -> Result<bool> {
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

/// The same with an encrypted backup, as its files stand.
async fn sealed(
    source: &Location,
    target: &Location,
    options: &CopyOptions,
    cancel: watch::Receiver<bool>,
    progress: &dyn Progress,
) -> Result<Copied> {
    if let Some(signed) = [source, target]
        .into_iter()
        .find(|location| location.asks_for_signatures())
    {
        return Err(Error::invalid(format!(
            "location {} asks for signatures, and encrypted backups are not signed yet",
            quoted(&signed.name)
        ))
        .hint("copy it to a location without keys to verify with"));
    }
    let as_they_stand = |location: &Location| Location {
        store: location.store.ciphertext(),
        key_files: None,
        ..location.clone()
    };
    let (from, to) = (as_they_stand(source), as_they_stand(target));
    refuse_other_of_name(&to, &options.name).await?;
    let keys = BackupKeys::new(&options.name);
    let mut entry = catalog::get(&source.store.vault(None), &options.name).await?;
    entry.raw = from.store.get(&keys.marker(), LARGEST_MANIFEST).await?;
    let found = Folder::read(&from.store, &keys, "").await?;
    let mut plan = foreign(entry, found, &[]);
    for key in [keys.key(), keys.recipients()] {
        if !plan.files.iter().any(|file| file.key == key) {
            let why = format!("{} is missing", file_name(&keys.folder(), &key));
            return Err(damaged(&options.name, &why));
        }
    }
    plan.warnings
        .extend(whose_keys(&from, target, &keys).await?);
    if plan.files.iter().any(|file| file.key == keys.volumes()) {
        // Whether there are any is sealed.
        plan.warnings.push(not_in_the_copy(
            "snapshots of volumes that it has stay in their repositories",
        ));
    }
    plan.cuts = cuts(&source.store.vault(None), &options.name).await?;
    carry_out(&from, &to, options, plan, cancel, progress).await
}

/// The snapshots in their storage that a backup names; where that is not understood, nobody does of its copy either.
async fn cuts(store: &Store, name: &Name) -> Result<Vec<StorageSnapshot>> {
    match owned(store, name).await {
        Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => Ok(Vec::new()),
        owned => Ok(owned?.cuts),
    }
}

/// Who opens the copy, where those are others than who opens what is made in the target.
async fn whose_keys(
    from: &Location,
    target: &Location,
    keys: &BackupKeys,
) -> Result<Option<String>> {
    let said = from.store.get(&keys.recipients(), LARGEST_KEY_FILE).await?;
    // Anybody may have written it.
    let mut has: Vec<String> = String::from_utf8_lossy(&said)
        .lines()
        .take(20)
        .map(|line| {
            let plain = line.chars().filter(char::is_ascii_graphic);
            plain.take(60).collect()
        })
        .collect();
    let mut wants = Recipients::of_location(&target.spec)?.fingerprints();
    if wants.is_empty() {
        return Ok(None);
    }
    has.sort();
    wants.sort();
    Ok((has != wants).then(|| {
        format!(
            "the copy is encrypted for {}, as what is copied, and not for {}, for whom backups in location {} are; `kubectl backup rekey {} --location {}` changes that",
            has.join(", "),
            wants.join(", "),
            quoted(&target.name),
            keys.name(),
            quoted(&target.name)
        )
    }))
}

/// Writes what was planned.
async fn carry_out(
    source: &Location,
    target: &Location,
    options: &CopyOptions,
    plan: Plan,
    cancel: watch::Receiver<bool>,
    progress: &dyn Progress,
) -> Result<Copied> {
    let (files, bytes) = plan.totals();
    // Before the target gets so much as a probe.
    let cluster = catalog::made_by(&plan.entry).or(options.cluster.as_deref());
    is_let_in(target, &plan.entry, cluster).await?;
    if stands(source, target, &plan).await? {
        return Ok(Copied {
            files,
            bytes,
            stood: true,
            lacks_volumes: plan.has_copies && !options.without_volumes,
            warnings: plan.warnings,
        });
    }
    if let Some(other) = guard::enter(target, cluster, Coming::of(target)?).await? {
        return Err(others(target, &plan.entry, cluster, &other));
    }
    // Short, and not to be left half done.
    let claim = Claim::take(&target.store, &options.name, Purpose::Create, &options.host).await?;
    progress.expect_bytes(bytes);
    let work = Work {
        source,
        target,
        plan: &plan,
        claim: &claim,
        cancel,
        over: watch::channel(false).0,
        progress,
    };
    let written = async {
        work.files().await?;
        // Whoever removes the copy knows that they stay.
        known::copied(&target.store, &options.name, &work.plan.cuts).await
    };
    if let Err(e) = written.await {
        claim.withdraw().await;
        return Err(e);
    }
    if let Err(e) = claim.put_marker(plan.entry.raw.clone()).await {
        // Takes nothing back once the marker was sent.
        claim.withdraw().await;
        return Err(e);
    }
    claim.release().await;
    Ok(Copied {
        files,
        bytes,
        stood: false,
        lacks_volumes: plan.has_copies && !options.without_volumes,
        warnings: plan.warnings,
    })
}

/// What the backup consists of; one whose own list of files does not hold is refused.
async fn gather(source: &Location, name: &Name) -> Result<Plan> {
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

fn damaged(name: &Name, why: &str) -> Error {
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
fn foreign(entry: Entry, found: Folder, left: &[String]) -> Plan {
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

fn file_name(folder: &str, key: &str) -> String {
    key.strip_prefix(folder).unwrap_or(key).to_owned()
}

fn not_in_the_copy(what: &str) -> String {
    format!("not in the copy: {what}")
}

/// What of the backup lies elsewhere and does not come along: refused, unless that is said to be fine.
async fn volumes(source: &Location, options: &CopyOptions) -> Result<Vec<String>> {
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

/// Whether the target has this very backup already.
async fn stands(source: &Location, target: &Location, plan: &Plan) -> Result<bool> {
    let name = &plan.entry.name;
    let keys = BackupKeys::new(name);
    let other = |why: &str| {
        Error::new(
            Kind::AlreadyExists,
            format!("location {:?} has a backup {name} already, and {why}", target.name),
        )
        .hint(format!(
            "look at it: kubectl backup verify {name} --location {}; where it can go, delete it there and copy again",
            quoted(&target.name)
        ))
    };
    let there = match target.store.find(&keys.marker(), LARGEST_MANIFEST).await {
        Ok(Some(there)) => there,
        Ok(None) => return Ok(false),
        Err(e) if e.kind() == Kind::Corrupt => return Err(other("it is not this one").because(e)),
        Err(e) => return Err(e),
    };
    if there != plan.entry.raw {
        return Err(other("it is not this one"));
    }
    if is_same(&source.store, &target.store).await? {
        return Err(Error::invalid(format!(
            "location {:?} and location {:?} are the same place: a copy there would be no second one",
            source.name, target.name
        ))
        .hint("name another location with --to"));
    }
    let found = Folder::read(&target.store, &keys, "").await?;
    let seals = plan.seals.iter();
    let wanted = plan
        .files
        .iter()
        .map(|file| (&file.key, file.size))
        .chain(seals.map(|(key, bytes)| (key, bytes.len() as u64)));
    for (key, size) in wanted {
        // Each place may have given its key to others since.
        let of_keys = [
            keys.secrets_key(),
            keys.secrets_recipients(),
            keys.key(),
            keys.recipients(),
        ];
        let rekeyed = of_keys.contains(key);
        if !found
            .files
            .iter()
            .any(|file| file.key == *key && (file.size == size || rekeyed))
        {
            return Err(other(&format!("{key} is missing there, or another one")));
        }
    }
    for (key, bytes) in &plan.seals {
        if target.store.get(key, bytes.len() as u64).await? != *bytes {
            return Err(other(&format!("{key} is another one there")));
        }
    }
    Ok(true)
}

/// Whether what is written to one store is seen in the other, by whatever names they go.
async fn is_same(one: &Store, other: &Store) -> Result<bool> {
    let key = format!("{PROBES}same-{}", uuid::Uuid::new_v4().simple());
    other.put(&key, "same\n".into()).await?;
    let seen = one.head(&key).await;
    other.delete(&key).await?;
    match seen {
        Ok(_) => Ok(true),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The target's guard keeps clusters apart: what counts is whose the backup is, not where the copying is done. A guard is not passed by not knowing that.
async fn is_let_in(target: &Location, entry: &Entry, cluster: Option<&str>) -> Result<()> {
    match guard::read(target, cluster).await? {
        Guard::Open | Guard::Ours => Ok(()),
        Guard::Other(other) => Err(others(target, entry, cluster, &other)),
        Guard::Unknown => Err(Error::new(
            Kind::AlreadyExists,
            format!(
                "location {} is for the backups of one cluster, and whose backup {} is can not be told",
                quoted(&target.name),
                entry.name
            ),
        )
        .hint(ELSEWHERE)),
    }
}

const ELSEWHERE: &str = "use another location, or a folder of it: --to NAME/FOLDER";

fn others(target: &Location, entry: &Entry, cluster: Option<&str>, other: &str) -> Error {
    Error::new(
        Kind::AlreadyExists,
        format!(
            "location {} is for the backups of another cluster ({other}), and backup {} is of {}",
            quoted(&target.name),
            entry.name,
            cluster.unwrap_or("none that is known")
        ),
    )
    .hint(ELSEWHERE)
}

/// The work under a claim, up to the marker.
struct Work<'a> {
    source: &'a Location,
    target: &'a Location,
    plan: &'a Plan,
    claim: &'a Claim,
    cancel: watch::Receiver<bool>,
    /// Whether one file failed: the others, too, are ended where it is known what became of them, so that nothing of them is left.
    over: watch::Sender<bool>,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    async fn files(&self) -> Result<()> {
        self.progress.step(&format!(
            "copying {} to {}",
            self.plan.entry.name, self.target.name
        ));
        let ended: Vec<Result<()>> = stream::iter(self.plan.files.clone())
            .map(|file| async move {
                let ended = self.file(&file).await;
                if ended.is_err() {
                    self.over.send_replace(true);
                }
                ended
            })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        // In the order in which they ended: the first error is the cause.
        ended.into_iter().collect::<Result<()>>()?;
        // A backup that is deleted meanwhile loses its marker first.
        let marker = self.claim.keys().marker();
        let now = self.source.store.find(&marker, LARGEST_MANIFEST).await?;
        if now.as_ref() != Some(&self.plan.entry.raw) {
            return Err(Error::other(format!(
                "backup {} was deleted or written anew while it was copied",
                self.plan.entry.name
            ))
            .hint("look with `kubectl backup get`, and run the command again"));
        }
        self.claim.confirm().await?;
        for (key, bytes) in &self.plan.seals {
            self.claim.put(key, bytes.clone()).await?;
            self.progress.done(0, bytes.len() as u64);
        }
        self.heed()
    }

    fn heed(&self) -> Result<()> {
        if *self.cancel.borrow() {
            return Err(Error::new(
                Kind::Interrupted,
                format!(
                    "copying backup {} was stopped; there is no backup of that name in location {:?}",
                    self.plan.entry.name, self.target.name
                ),
            ));
        }
        if *self.over.borrow() {
            return Err(Error::other("another file could not be copied"));
        }
        Ok(())
    }

    /// Ends when nothing more is to be copied.
    async fn stopped(&self) {
        tokio::select! {
            () = cancelled(self.cancel.clone()) => {}
            () = cancelled(self.over.subscribe()) => {}
        }
    }

    /// One file, and whether what arrived is what was to come.
    async fn file(&self, file: &File) -> Result<()> {
        self.heed()?;
        let mut upload = self.claim.upload(&file.key).await?;
        let mut body = self.source.store.stream(&file.key).await?;
        let sent = async {
            loop {
                let chunk = tokio::select! {
                    chunk = body.next() => chunk,
                    () = self.stopped() => return self.heed(),
                };
                let Some(chunk) = chunk.transpose()? else {
                    return Ok(());
                };
                let bytes = chunk.len() as u64;
                upload.write(chunk).await?;
                self.progress.done(0, bytes);
            }
        };
        if let Err(e) = sent.await {
            upload.abort().await;
            return Err(e);
        }
        let uploaded = upload.finish().await?;
        let name = &self.plan.entry.name;
        let shown = file_name(&self.claim.keys().folder(), &file.key);
        match &file.sha256 {
            Some(wanted) if *wanted != uploaded.sha256 => {
                let why = format!("{shown} is not what was written: its SHA-256 is another");
                Err(damaged(name, &why))
            }
            Some(_) => Ok(()),
            None if uploaded.bytes != file.size => Err(Error::other(format!(
                "{shown} of backup {name} had {} bytes, and {} came: it was written anew while it was copied",
                file.size, uploaded.bytes
            ))
            .hint("run the command again")),
            // Nobody wrote down what it has to be: what stands there now is compared with what was sent.
            None if self.written(&file.key).await? == uploaded.sha256 => Ok(()),
            None => Err(Error::corrupt(format!(
                "{shown} of backup {name} reads otherwise in location {:?} than it was written there",
                self.target.name
            ))
            .hint("the store alters what it is given; check it with `kubectl backup location check`")),
        }
    }

    /// The SHA-256 of what stands in the target.
    async fn written(&self, key: &str) -> Result<String> {
        let mut digest = Sha256::default();
        let mut body = self.target.store.stream(key).await?;
        while let Some(chunk) = body.next().await {
            digest.update(&chunk?);
        }
        Ok(digest.finish())
    }
}

#[cfg(test)]
mod tests;
