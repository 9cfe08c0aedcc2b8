//! A rollback of a completed restore is a restore, forward: of the state that it replaced, which every member keeps. An EtcdRestore asks for it
//! with `backupName: kept-ATTEMPT`. All members have to start from the same state, so one of them brings its own to the destination as a
//! snapshot of that name, and all restore that. Which one: the log that goes furthest, as raft itself would choose, of a majority at least;
//! then it has all that was ever acknowledged. The kept state itself is only read.

use std::path::PathBuf;
use std::time::Duration;

use backup_core::api::hosted::KEPT;
use backup_core::crypt::Recipients;
use backup_core::etcd::manifest::Etcd;
use backup_core::etcd::sealed::{self, Encryption};
use backup_core::etcd::take::{Origin, Target, store};
use backup_core::etcd::{Database, LiveDigest};
use backup_core::layout::SnapshotKeys;
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::progress::Progress;
use backup_core::{Error, Kind, Result};
use jiff::{SignedDuration, Timestamp};

use super::fitness;
use super::hosting::{Hosting, RestoreView};
use super::records::Kept;
use crate::destination;
use crate::etcd_args::EtcdArgs;
use crate::restore::dir::DataDir;
use crate::restore::entry::Attempt as Known;
use crate::restore::etcdutl::Tool;
use crate::restore::exchange;
use crate::restore::plan::{AttemptId, By, Carried};
use crate::restore::replay::{FromKept, tail};
use crate::restore::step::Step;
use crate::source::{blocking, plain};

/// The attempt whose replaced state is asked for, where a restore asks for one.
pub(crate) fn named(backup: &str) -> Option<AttemptId> {
    backup.strip_prefix(KEPT)?.parse().ok()
}

/// The kept state, where it is what that attempt replaced.
fn kept(dir: &DataDir, of: &AttemptId) -> Result<Option<(Known, PathBuf)>> {
    let Ok(known) = dir.attempt(of) else {
        return Ok(None);
    };
    let side = dir.side(of);
    let carried = dir.carried_by(&side)?;
    let is_it = known.step == Step::Committed
        && carried != Carried::Absent
        && carried.is_same(&known.plan.old);
    Ok(is_it.then(|| (known.clone(), side)))
}

/// How much of what restores replaced stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    /// So many of the newest states in any case; at least 1.
    pub(crate) newest: usize,
    /// And each for so long.
    pub(crate) least: Duration,
}

/// Removes what this member keeps beyond that, but nothing that is asked for. Says what it did; nothing where it did nothing.
pub(crate) fn prune(dir: &DataDir, keeping: Keeping, asked: &[AttemptId]) -> Option<String> {
    let keep = keeping.newest;
    let before = SignedDuration::try_from(keeping.least)
        .ok()
        .and_then(|least| Timestamp::now().checked_sub(least).ok())?;
    match blocking(|| exchange::forget(dir, By::Run, keep, before, asked)) {
        Ok(removed) if removed.is_empty() => None,
        Ok(removed) => {
            let ids: Vec<String> = removed.iter().map(AttemptId::to_string).collect();
            Some(format!(
                "removed the states that were replaced by the attempts {}; the newest {keep} are kept",
                ids.join(", ")
            ))
        }
        // It takes space, and nothing else.
        Err(e) => Some(e.sentence()),
    }
}

/// What this member keeps.
///
/// # Errors
/// Kind `Corrupt` for a log or a database that can not be read.
pub(crate) fn look(dir: &DataDir, of: &AttemptId, progress: &dyn Progress) -> Result<Kept> {
    let Some((_, side)) = kept(dir, of)? else {
        let was_here = dir
            .attempt(of)
            .is_ok_and(|known| known.step == Step::Committed && known.plan.old != Carried::Absent);
        return Ok(Kept {
            gone: was_here && dir.carried_by(&dir.side(of))? == Carried::Absent,
            ..Kept::default()
        });
    };
    let (index, term) = tail(&side)?;
    let database = Database::open(&side.join("snap").join("db"))?;
    let facts = blocking(|| database.facts(progress))?;
    Ok(Kept {
        term,
        index,
        voters: facts.members.len(),
        gone: false,
    })
}

/// Whether the destination has it as a snapshot already.
///
/// # Errors
/// `Corrupt` where a plain one stands in a location with recipients: it is not what we brought; the hosting API's and the store's.
pub(crate) async fn is_published(hosting: &Hosting, restore: &RestoreView) -> Result<bool> {
    let location = fitness::location(hosting, restore).await?;
    let asked = restore.text("backupName");
    match destination::find(&location, &hosting.names.cluster, asked).await {
        Ok(found) => {
            let asked = !Recipients::of_location(&location.spec)?.is_empty();
            if asked && !found.is_locked() {
                return Err(plain(&found.source.to_string()));
            }
            Ok(true)
        }
        Err(e) if e.kind() == Kind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// For whom the kept state is encrypted in the destination. All members read it from there: so whoever opens it has to be known before.
///
/// # Errors
/// `Unauthorized` where the restore names no identity that opens what is encrypted for the location's recipients; the hosting API's.
pub(crate) async fn encryption(
    location: &Location,
    hosting: &Hosting,
    restore: &RestoreView,
) -> Result<Option<Encryption>> {
    let Some(encryption) = Encryption::of_location(&location.spec)? else {
        let cluster = Name::foreign(&hosting.names.cluster)?;
        sealed::not_lost(location, &cluster).await?;
        return Ok(None);
    };
    let identities = fitness::identities(hosting, restore).await?;
    let tried = encryption.clone();
    // The work of a passphrase takes a while.
    let opened = tokio::task::spawn_blocking(move || tried.is_opened_by(&identities)).await;
    let opened = opened.map_err(|e| Error::other("trying the identity broke off").because(e))?;
    opened.map_err(|e| {
        let reference = restore.reference();
        let wanted = fitness::wanted(restore, &reference.namespace);
        destination::of_secret(e, &wanted).context(
            "the kept state is encrypted in the destination, and could not be read from there",
        )
    })?;
    Ok(Some(encryption))
}

/// Brings this member's kept state to the destination.
///
/// # Errors
/// Where it is not what was noted when it was replaced, can not be started alone, or the store does not take it.
pub(crate) async fn publish(
    dir: &DataDir,
    args: &EtcdArgs,
    restore: &RestoreView,
    (of, attempt): (&AttemptId, &AttemptId),
    hosting: &Hosting,
    tools: &fitness::Tools,
    progress: &'static dyn Progress,
) -> Result<()> {
    let Some((known, side)) = kept(dir, of)? else {
        return Err(Error::not_found(format!(
            "{} does not hold what attempt {of} replaced",
            dir.side_folder(of).display()
        ))
        .hint("it was moved or removed: restore a snapshot instead"));
    };
    let (cluster_id, member_id) = match &known.plan.old {
        Carried::Cluster {
            cluster_id,
            member_id,
        } => (cluster_id.to_string(), member_id.to_string()),
        _ => Default::default(),
    };
    let etcd = Tool::ask(args.program(), "--version").await?;
    let mut work = FromKept {
        builder: fitness::builder(dir, args, &etcd, Default::default(), tools, progress)?,
        etcd: Some(args.program().to_owned()),
        kept: side,
        former: known.former.clone(),
        root: dir.root().to_owned(),
        facts: None,
    };
    let spool = dir.spool(attempt);
    let snapshot = work.look(attempt, args.name(), &spool).await?;
    let location = fitness::location(hosting, restore).await?;
    // Asked again: the location may have other recipients than when the restore was let in.
    let encryption = encryption(&location, hosting, restore).await?;
    let keys = SnapshotKeys::new(
        &Name::foreign(&hosting.names.cluster)?,
        &Name::foreign(restore.text("backupName"))?,
    );
    let target = Target::Snapshot {
        store: location.store,
        keys,
    };
    let origin = Origin {
        etcd: Etcd {
            version: etcd.version.to_string(),
            cluster_id,
            member_id,
            member_name: args.name().to_owned(),
            ..Etcd::default()
        },
        digest: LiveDigest {
            revision: snapshot.revision,
            keys: snapshot.content.keys,
            sha256: snapshot.content.sha256,
        },
        tool: concat!("etcd-launcher v", env!("CARGO_PKG_VERSION")).to_owned(),
        encryption,
    };
    let stored = store(&spool, snapshot.bytes, origin, &target, progress).await;
    std::fs::remove_file(&spool)
        .map_err(|e| Error::other(format!("can not remove {}", spool.display())).because(e))?;
    match stored {
        Err(e) if e.kind() == Kind::AlreadyExists => Ok(()),
        stored => stored.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_of_an_attempt_makes_a_name_one_of_a_kept_state() {
        let id = AttemptId::random();
        assert_eq!(named(&format!("kept-{id}")), Some(id));
        for name in [
            "kept-",
            "kept-2026-11-20t01-00-00",
            "daily-2026-11-20t01-00-00",
            "",
        ] {
            assert_eq!(named(name), None, "{name}");
        }
    }
}
