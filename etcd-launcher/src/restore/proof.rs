//! Whether a database holds what it has to: the looks into databases that a restore rests on. Reads only.

use std::path::Path;

use backup_core::etcd::{Database, Facts, LiveDigest, Trailer};
use backup_core::progress::Progress;
use backup_core::{Error, Result};

use super::entry::{Content, Former, Snapshot};
use super::fit;
use super::plan::Plan;
use crate::source::blocking;

impl From<LiveDigest> for Content {
    fn from(digest: LiveDigest) -> Self {
        Self {
            keys: digest.keys,
            sha256: digest.sha256,
        }
    }
}

/// What a state that is to be replaced holds.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What its database says, as far as it could be read.
    pub(crate) facts: Facts,
    /// What it is, where it is whole.
    pub(crate) former: Option<Former>,
    /// What is wrong with it, otherwise.
    pub(crate) problem: Option<String>,
}

/// Reads the database of a folder `member` while etcd is stopped.
///
/// # Errors
/// Where there is none, or it is none.
pub(crate) fn seen(member: &Path, progress: &dyn Progress) -> Result<Seen> {
    let database = Database::open(&member.join("snap").join("db"))?;
    let examined = blocking(|| database.examine(progress))?;
    let problem = examined.problems.into_iter().next();
    let former = Former {
        revision: examined.facts.revision,
        content: Some(examined.digest.into()),
        members: fit::member_ids(&examined.facts).collect(),
    };
    Ok(Seen {
        facts: examined.facts,
        former: problem.is_none().then_some(former),
        problem,
    })
}

/// What a stopped state is without a look at its keys, which takes seconds a control plane would be away for.
///
/// # Errors
/// Where there is none, or it is none.
pub(crate) fn glance(member: &Path) -> Result<Former> {
    let facts = Database::open(&member.join("snap").join("db"))?.glance()?;
    Ok(Former {
        revision: facts.revision,
        content: None,
        members: fit::member_ids(&facts).collect(),
    })
}

/// Checks a database from end to end, and says what it is.
///
/// # Errors
/// Kind `Corrupt`, naming the first problem.
pub(crate) fn snapshot(
    database: &Database,
    name: &str,
    progress: &dyn Progress,
) -> Result<(Snapshot, Facts, LiveDigest)> {
    let sha256 = blocking(|| database.check_trailer(progress))?;
    let examined = blocking(|| database.examine(progress))?;
    if let Some(problem) = examined.problems.first() {
        return Err(
            Error::corrupt(format!("{name} is damaged: {problem}")).hint("use another snapshot")
        );
    }
    let snapshot = Snapshot {
        sha256,
        bytes: database.bytes(),
        trailer: database.trailer() != Trailer::None,
        revision: examined.facts.revision,
        content: examined.digest.clone().into(),
        cluster: None,
        members: fit::member_ids(&examined.facts).collect(),
    };
    Ok((snapshot, examined.facts, examined.digest))
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
    progress.expect_bytes(database.bytes());
    let wrong = |what: String| {
        Err(Error::corrupt(format!(
            "what etcdutl wrote is wrong: {what}"
        )))
    };
    let examined = blocking(|| database.examine(progress))?;
    if let Some(problem) = examined.problems.into_iter().next() {
        return wrong(problem);
    }
    let facts = examined.facts;
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
    let content = Content::from(examined.digest);
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
