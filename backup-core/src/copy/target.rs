//! Whether a copy may come into the target, whether it stands there, and who could open it there. Writes nothing but the probe that tells two places from one.

use super::gather::Plan;
use crate::catalog::Entry;
use crate::crypt::{LARGEST_KEY_FILE, Recipients};
use crate::error::{Error, Kind, Result, quoted};
use crate::layout::{BackupKeys, PROBES};
use crate::location::claim::Folder;
use crate::location::guard::Guard;
use crate::location::store::is_absent;
use crate::location::vault::LARGEST_MANIFEST;
use crate::location::{Location, Store, guard};

/// The target's guard keeps clusters apart: what counts is whose the backup is, not where the copying is done. A guard is not passed by not knowing that.
pub(super) async fn is_let_in(
    target: &Location,
    entry: &Entry,
    cluster: Option<&str>,
) -> Result<()> {
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

pub(super) fn others(
    target: &Location,
    entry: &Entry,
    cluster: Option<&str>,
    other: &str,
) -> Error {
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

/// Whether the target has this very backup already.
pub(super) async fn stands(source: &Location, target: &Location, plan: &Plan) -> Result<bool> {
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

/// Who opens the copy, where those are others than who opens what is made in the target.
pub(super) async fn whose_keys(
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
