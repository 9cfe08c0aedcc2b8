//! From a plan to a proven side: fetched, built, proven, durable. Touches nothing of the old state; may be called again after any crash.

use std::io;
use std::path::Path;

use aws_lc_rs::digest;
use backup_core::{Error, Kind as ErrorKind, Result};

use super::dir::{DataDir, MEMBER};
use super::entry::{Attempt, Entry};
use super::files::{self, Kind};
use super::plan::{Carried, Plan};
use super::step::Step;
use super::work::Work;
use super::{exchange, revision};

/// As much of each file as changes when etcd starts on it: the first records of a log, the two meta pages of a database.
const PRINTED: u64 = 64 << 10;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// The side is proven: the exchange may follow.
    Proven,
    /// The snapshot's revision reaches the target: a new plan is needed, the spool stays.
    TargetTooLow(i64),
}

/// Brings an attempt to `Proven`. With a plan that differs from the one recorded (a new target revision) it starts over.
///
/// # Errors
/// Where the snapshot or the side is not what it has to be; the old state is as it was.
pub(crate) async fn prepare(
    dir: &mut DataDir,
    plan: &Plan,
    work: &mut impl Work,
) -> Result<Prepared> {
    let id = &plan.attempt;
    if let Ok(attempt) = dir.attempt(id) {
        if attempt.may_be_exchanged {
            return Err(Error::other(format!(
                "attempt {id} came to the exchange already"
            )));
        }
        if attempt.plan.cluster_id != plan.cluster_id {
            return Err(Error::other(format!(
                "attempt {id} was planned with another token"
            )));
        }
        if attempt.step == Step::Proven && attempt.plan == *plan && !is_started(dir, attempt)? {
            return Ok(Prepared::Proven);
        }
    }
    let mut planned = Entry::new(id, Step::Planned);
    planned.plan = Some(Box::new(plan.clone()));
    dir.journal.append(&planned)?;

    let spool = dir.spool(id);
    let snapshot = work.fetch(plan, &spool).await?;
    if revision::is_reached(plan.target_revision, snapshot.revision) {
        return Ok(Prepared::TargetTooLow(snapshot.revision));
    }
    let mut fetched = Entry::new(id, Step::Fetched);
    fetched.snapshot = Some(snapshot.clone());
    dir.journal.append(&fetched)?;

    let root = dir.root().to_owned();
    let (part, folder) = (dir.part(id), dir.side_folder(id));
    let told =
        |e: io::Error| Error::other(format!("can not write below {}", root.display())).because(e);
    exchange::remove_new(dir, id)?;
    dir.files.create_folder(&part).map_err(told)?;
    work.build(plan, &snapshot, &spool, &part).await?;
    dir.record(id, Step::Built)?;

    let member = part.join(MEMBER);
    let carried = dir.carried_by(&member)?;
    let wanted = Carried::Cluster {
        cluster_id: plan.cluster_id,
        member_id: plan.member_id,
    };
    if carried != wanted {
        return Err(Error::corrupt(format!(
            "{} holds {carried}, not cluster {} as computed",
            member.display(),
            plan.cluster_id
        )));
    }
    work.prove(plan, &snapshot, &member).await?;
    let like = match dir.files.kind(&dir.member()).map_err(told)? {
        Kind::Folder => dir.member(),
        _ => dir.root().to_owned(),
    };
    files::give_tree(&*dir.files, &member, &like).map_err(told)?;
    files::sync_tree(&*dir.files, &part).map_err(told)?;
    dir.files.rename(&part, &folder).map_err(told)?;
    dir.files.sync(dir.root()).map_err(told)?;
    let mut proven = Entry::new(id, Step::Proven);
    proven.print = Some(print(dir, &dir.side(id)).map_err(told)?);
    dir.journal.append(&proven)?;
    exchange::remove_spool(dir, id).map_err(told)?;
    Ok(Prepared::Proven)
}

/// Whether the new state is not any more what was proven: etcd ran on it, wherever it lies now.
///
/// # Errors
/// When the folders can not be read.
pub(crate) fn is_started(dir: &DataDir, attempt: &Attempt) -> Result<bool> {
    let Some(proven) = &attempt.print else {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("attempt {} was never proven", attempt.id()),
        ));
    };
    for member in [
        dir.member(),
        dir.side(attempt.id()),
        dir.aside(attempt.id()),
    ] {
        if dir.carried_by(&member)?.cluster() == Some(attempt.plan.cluster_id) {
            let now = print(dir, &member).map_err(|e| {
                Error::other(format!("can not read {}", member.display())).because(e)
            })?;
            return Ok(now != *proven);
        }
    }
    // It is gone: nobody can say that nobody saw it.
    Ok(true)
}

/// A digest over the names and heads of a member's files. etcd appends to its log and commits to its database as soon as it starts.
fn print(dir: &DataDir, member: &Path) -> io::Result<String> {
    let mut sum = digest::Context::new(&digest::SHA256);
    for folder in ["snap", "wal"] {
        let folder = member.join(folder);
        for name in dir.files.list(&folder)? {
            let path = folder.join(&name);
            let head = match dir.files.kind(&path)? {
                Kind::File => dir.files.read(&path, PRINTED)?,
                _ => Vec::new(),
            };
            for part in [name.as_encoded_bytes(), &head] {
                sum.update(&(part.len() as u64).to_be_bytes());
                sum.update(part);
            }
        }
    }
    Ok(hex(sum.finish().as_ref()))
}

/// Bytes as hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
