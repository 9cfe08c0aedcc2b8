//! Whether a database holds what it has to: the looks into databases that a restore rests on. Reads only.

use std::path::Path;

use backup_core::etcd::{Database, Facts, LiveDigest, Trailer};
use backup_core::progress::Progress;
use backup_core::{Error, Result};

use super::entry::{Content, Former, Snapshot};
use super::fit;
use super::plan::Plan;

impl From<LiveDigest> for Content {
    fn from(digest: LiveDigest) -> Self {
        Self {
            keys: digest.keys,
            sha256: digest.sha256,
        }
    }
}

/// Reads the database of a folder `member` while etcd is stopped.
///
/// # Errors
/// Where there is none, or it can not be read.
pub(crate) fn former(member: &Path, progress: &dyn Progress) -> Result<(Former, Facts)> {
    let database = Database::open(&member.join("snap").join("db"))?;
    let facts = database.facts(progress)?;
    let former = Former {
        revision: facts.revision,
        content: database.digest(None, progress)?.into(),
        members: fit::member_ids(&facts).collect(),
    };
    Ok((former, facts))
}

/// Checks a database file from end to end, and says what it is.
///
/// # Errors
/// Kind `Corrupt`, naming the first problem.
pub(crate) fn snapshot(path: &Path, progress: &dyn Progress) -> Result<(Snapshot, Facts)> {
    let database = Database::open(path)?;
    let sha256 = database.check_trailer(progress)?;
    if let Some(problem) = database.verify(progress)?.into_iter().next() {
        return Err(Error::corrupt(format!(
            "{} is damaged: {problem}",
            path.display()
        )));
    }
    let facts = database.facts(progress)?;
    let snapshot = Snapshot {
        sha256,
        bytes: database.bytes(),
        trailer: database.trailer() != Trailer::None,
        revision: facts.revision,
        content: database.digest(None, progress)?.into(),
    };
    Ok((snapshot, facts))
}

/// Checks that a built member holds the snapshot's keys at the target revision, everything before it marked as compacted.
///
/// # Errors
/// Kind `Corrupt`, saying what differs.
pub(crate) fn built(
    plan: &Plan,
    snapshot: &Snapshot,
    member: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let database = Database::open(&member.join("snap").join("db"))?;
    let wrong = |what: String| {
        Err(Error::corrupt(format!(
            "what etcdutl wrote is wrong: {what}"
        )))
    };
    if let Some(problem) = database.verify(progress)?.into_iter().next() {
        return wrong(problem);
    }
    let facts = database.facts(progress)?;
    if facts.revision != plan.target_revision {
        return wrong(format!(
            "it is at revision {}, not {}",
            facts.revision, plan.target_revision
        ));
    }
    if facts.scheduled_compact_revision != plan.target_revision {
        return wrong(format!(
            "it is compacted to {}, not {}",
            facts.scheduled_compact_revision, plan.target_revision
        ));
    }
    let content = Content::from(database.digest(None, progress)?);
    if content != snapshot.content {
        return wrong(format!(
            "it has {} keys ({}), the snapshot {} ({})",
            content.keys, content.sha256, snapshot.content.keys, snapshot.content.sha256
        ));
    }
    let mut ids: Vec<_> = fit::member_ids(&facts).collect();
    let mut wanted: Vec<_> = plan.members.iter().map(|p| p.id(&plan.token)).collect();
    ids.sort();
    wanted.sort();
    if ids != wanted {
        return wrong("its members are not those of the plan".into());
    }
    Ok(())
}
