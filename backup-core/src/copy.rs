//! Copies a whole backup into another location, byte for byte: a second copy with another provider, or in another account. Gathers what the backup consists
//! of, refuses what is damaged or would mislead before anything is written, then writes under a claim in the order of every backup: files, SHA256SUMS and its
//! signature, the marker last and create-only. Nothing of the source is changed, and nothing is decoded and encoded again: the marker keeps the name of the
//! location that it was made for, and an encrypted backup stays encrypted for whom it was. No key is needed for that: its digests are sealed, too, and each
//! file is read back.

mod gather;
mod target;
mod write;

use tokio::sync::watch;

use crate::backup::refuse_other_of_name;
use crate::catalog;
use crate::crypt::Encrypt;
use crate::error::{Error, Kind, Result, quoted};
use crate::layout::BackupKeys;
use crate::location::claim::{Claim, Folder, Purpose};
use crate::location::guard::Coming;
use crate::location::vault::LARGEST_MANIFEST;
use crate::location::{Location, guard};
use crate::name::Name;
use crate::progress::Progress;
use crate::signature;
use crate::snapshot::known;
use gather::{
    Plan, cuts, damaged, file_name, foreign, gather, holds_no_secret, not_in_the_copy, volumes,
};
use target::{is_let_in, others, stands, whose_keys};
use write::Work;

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
    /// Whether the target does not know that snapshots of the copy in their storage are the original's: it keeps the copy until somebody says that it may go.
    pub lacks_note: bool,
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
            lacks_note: false,
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
    let unnoted = match written.await {
        Ok(unnoted) => unnoted,
        Err(e) => {
            claim.withdraw().await;
            return Err(e);
        }
    };
    if let Err(e) = claim.put_marker(plan.entry.raw.clone()).await {
        // Takes nothing back once the marker was sent.
        claim.withdraw().await;
        return Err(e);
    }
    claim.release().await;
    let mut warnings = plan.warnings;
    // Who may write backups alone has a second copy all the same.
    warnings.extend(unnoted.first().map(|why| {
        format!(
            "the copy is whole, and it could not be noted in location {} that its snapshots are the original's ({why}): `delete` and `prune` keep it there until `kubectl backup delete {} --location {} --force`, which touches none of them",
            quoted(&target.name),
            options.name,
            quoted(&target.name)
        )
    }));
    Ok(Copied {
        files,
        bytes,
        stood: false,
        lacks_volumes: plan.has_copies && !options.without_volumes,
        lacks_note: !unnoted.is_empty(),
        warnings,
    })
}

#[cfg(test)]
mod tests;
