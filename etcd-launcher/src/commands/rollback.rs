//! `rollback`: brings back what a restore replaced: by the exchange undone while nobody can have seen the new state, else by a new restore
//! from the kept one.

use std::path::PathBuf;

use backup_cli::error::{Exit, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::ui::Ui;
use backup_core::error::quoted;
use backup_core::progress::Progress;
use backup_core::{Error, Kind};
use clap::Args;
use jiff::Timestamp;

use super::data_dir::{DataDirArgs, Taken, ToolArgs};
use super::restore;
use crate::restore::asked::Asked;
use crate::restore::decide::RollingBack;
use crate::restore::dir::DataDir;
use crate::restore::entry::Attempt;
use crate::restore::offline::{self, Restored, Wish};
use crate::restore::plan::{AttemptId, By, Carried, Purpose};
use crate::restore::replay::FromKept;
use crate::restore::step::Step;

const EXAMPLES: &str = "\
Examples:
  etcd-launcher rollback --data-dir /var/lib/etcd";

/// Bring back the state that a restore replaced, with etcd stopped
///
/// An unfinished restore is given up. A restored state that no etcd has run on is exchanged back. Where one has, clients have seen its
/// revisions, and etcd would leave them hanging on lower ones: the kept state is restored as a snapshot is, above all revisions.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    data_dir: DataDirArgs,
    #[command(flatten)]
    tools: ToolArgs,
    /// The attempt to roll back, from `status`; default: the last one
    #[arg(long, value_name = "ID")]
    attempt: Option<AttemptId>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs the command.
pub(crate) async fn run(ui: &Ui, args: RollbackArgs) -> Result<Exit> {
    let path = &args.data_dir.data_dir;
    ui.confirm(
        args.yes,
        &format!("roll back the restore in {}?", path.display()),
    )?;
    let mut taken = Taken::take(ui, path, args.tools.spool_dir.as_deref())?;
    let old = taken.old.clone();
    let decided = offline::rollback(
        &mut taken.dir,
        &taken.fence,
        args.attempt.as_ref(),
        By::Offline,
    )
    .map_err(|e| restore::failed(&mut taken, &old, e))?;
    match decided {
        RollingBack::Abandon(id) => ui.line(&format!(
            "attempt {id} was given up before its exchange: {} holds {} as before",
            taken.dir.root().display(),
            taken.dir.carried()?
        ))?,
        RollingBack::Back(id) => ui.line(&format!(
            "attempt {id} was rolled back: {} holds {} again, as it was",
            taken.dir.root().display(),
            taken.dir.carried()?
        ))?,
        RollingBack::Finish(id) => {
            return restore::tell(ui, &taken, &Restored::Now(id), None);
        }
        RollingBack::Done(id) => tell_done(ui, &taken, &id)?,
        RollingBack::Forward { of, .. } => return forward(ui, &args, taken, &of).await,
    }
    Ok(Exit::Done)
}

fn tell_done(ui: &Ui, taken: &Taken, id: &AttemptId) -> Result<()> {
    let attempt = taken.dir.attempt(id)?;
    let what = match attempt.step {
        Step::Abandoned => "was given up already",
        Step::RolledBack => "was rolled back already",
        _ => "was the rollback, and is in place already",
    };
    ui.line(&format!(
        "attempt {id} {what}: {} holds {}",
        taken.dir.root().display(),
        taken.dir.carried()?
    ))?;
    if let Some(earlier) = taken.dir.in_effect()?
        && earlier.id() != id
    {
        ui.line(&format!(
            "that is the state of attempt {0}; to roll it back: etcd-launcher rollback --data-dir {1} --attempt {0}",
            earlier.id(),
            quoted(&taken.dir.root().to_string_lossy())
        ))?;
    }
    Ok(())
}

/// Restores what an attempt replaced.
async fn forward(ui: &Ui, args: &RollbackArgs, mut taken: Taken, of: &AttemptId) -> Result<Exit> {
    let bar = ui.progress();
    let (wish, mut work) = from_kept(ui, &args.tools, &taken, of, By::Offline, &bar).await?;
    let old = taken.old.clone();
    let restored = tokio::select! {
        restored = offline::restore(&mut taken.dir, &taken.fence, wish, &mut work) => restored,
        true = interrupted() => Err(Error::new(Kind::Interrupted, "interrupted")),
    };
    drop(work);
    drop(bar);
    match restored {
        Ok(restored) => restore::tell(ui, &taken, &restored, None),
        Err(e) => Err(restore::failed(&mut taken, &old, e)),
    }
}

/// What a rollback of this attempt that goes forward is to do, and its work.
///
/// # Errors
/// Where the kept state is not there any more, or is one of several members'.
pub(super) async fn from_kept<'a>(
    ui: &Ui,
    tools: &ToolArgs,
    taken: &Taken,
    of: &AttemptId,
    by: By,
    progress: &'a dyn Progress,
) -> Result<(Wish, FromKept<'a>)> {
    let attempt = taken.dir.attempt(of)?.clone();
    let kept = check_kept(&taken.dir, &attempt)?;
    ui.note(&format!(
        "etcd has run on the restored state: the kept one ({}) is restored above its revisions",
        attempt.plan.old
    ));
    let wish = Wish {
        asked: Asked {
            snapshot: kept.display().to_string(),
            token: None,
            target_revision: None,
            another_cluster: true,
            ..attempt.plan.asked
        },
        purpose: Purpose::Rollback { of: of.clone() },
        by,
        token: format!("etcd-launcher-{}", AttemptId::random()),
        marks: taken.mark().into_iter().collect(),
        former: taken.former.clone(),
        now_ms: Timestamp::now().as_millisecond(),
    };
    let facts = taken.facts.as_ref();
    let work = FromKept {
        builder: tools.builder(&taken.dir, facts, true, progress).await?,
        etcd: tools.etcd.clone(),
        former: attempt.former,
        root: taken.dir.root().to_owned(),
        kept,
        facts: None,
    };
    Ok((wish, work))
}

/// The kept state of an attempt, where it is the one that was replaced.
///
/// # Errors
/// Where it is not there any more, or is one of several members'.
pub(super) fn check_kept(dir: &DataDir, attempt: &Attempt) -> Result<PathBuf> {
    let kept = dir.side(attempt.id());
    if attempt.plan.old == Carried::Absent {
        return Err(Error::not_found(format!(
            "there is nothing to roll back to: {} was empty before attempt {}",
            dir.root().display(),
            attempt.id()
        ))
        .into());
    }
    let carried = dir.carried_by(&kept)?;
    if !carried.is_same(&attempt.plan.old) {
        return Err(Error::not_found(format!(
            "{} holds {carried}, not the {} that attempt {} replaced",
            kept.display(),
            attempt.plan.old,
            attempt.id()
        ))
        .hint("the kept state was moved or removed: restore a snapshot instead")
        .into());
    }
    if attempt.plan.members.len() > 1 {
        let db = kept.join("snap").join("db");
        return Err(Error::invalid(format!(
            "the cluster has {} members, and all have to start from the same state",
            attempt.plan.members.len()
        ))
        .hint(format!(
            "choose one member's kept state and restore it on all: etcd-launcher restore {} ..",
            quoted(&db.to_string_lossy())
        ))
        .into());
    }
    Ok(kept)
}
