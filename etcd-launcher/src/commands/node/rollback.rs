//! `node rollback`: gives up what a restore of this node began, or brings back what it replaced, and starts the control plane again.

use backup_cli::error::{Exit, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::ui::Ui;
use backup_core::{Error, Kind};
use clap::Args;

use super::start::give_back;
use super::{KubeletArgs, Node, restore, shown};
use crate::commands::data_dir::{Taken, ToolArgs};
use crate::commands::rollback::{check_kept, from_kept};
use crate::node::stand::{self, Stand};
use crate::restore::decide::{self, RollingBack};
use crate::restore::dir::DataDir;
use crate::restore::offline::{self, Ready};
use crate::restore::plan::{AttemptId, By};
use crate::restore::{exchange, step::Step};

const EXAMPLES: &str = "\
Examples:
  etcd-launcher node rollback --yes";

/// Bring back what a restore on this node replaced, or give up what was begun, and start the control plane
///
/// An unfinished restore is given up. A restored state that no etcd has run on is
/// exchanged back. Where one has, clients have seen its revisions: the kept state is restored as a snapshot is, above all of them.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    kubelet: KubeletArgs,
    #[command(flatten)]
    tools: ToolArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What is in place behind the rollback.
enum Place {
    /// The state from before: what ran on it may run again.
    Old,
    /// The state of an attempt that went forward.
    Forward(AttemptId),
}

/// Runs the command.
pub(super) async fn run(ui: &Ui, args: &RollbackArgs) -> Result<Exit> {
    let mut node = Node::find(ui, &args.kubelet)?;
    node.check_kubelet()?;
    ui.confirm(args.yes, "roll back what was done to this node's etcd?")?;
    let mut dir = node.open(args.tools.spool_dir.as_deref())?;
    node.look_again()?;
    let record = node.found.record.clone();
    let last = super::last(&dir)?;
    let stands = stand::stand(record.as_ref(), last.as_ref());
    // To start what a fence stopped and to take a restore back are two things: said twice, the one must not become the other.
    if stands == Stand::Fenced {
        return Err(Error::invalid("the control plane was stopped by itself, and no restore of this node is under way")
            .hint(format!(
                "start it on the data as they are: etcd-launcher node start; take a restore of the data dir back: etcd-launcher rollback --data-dir {}",
                shown(&node.data_dir)
            ))
            .into());
    }
    // What moves no state needs nothing stopped.
    let in_effect = dir
        .in_effect()?
        .map(|attempt| offline::found(&dir, attempt))
        .transpose()?;
    let decided = decide::rollback(last.as_ref(), in_effect.as_ref(), None, By::Node)?;
    match decided {
        RollingBack::Abandon(id) if !dir.attempt(&id)?.may_be_exchanged => {
            exchange::abandon(&mut dir, &id, "it was rolled back")?;
            return give_back(ui, &node, &dir, false);
        }
        RollingBack::Done(id) if record.is_none() => {
            ui.line(&format!(
                "attempt {id} is rolled back already: {} holds {}",
                node.data_dir.display(),
                dir.carried()?
            ))?;
            return Ok(Exit::Done);
        }
        RollingBack::Done(_) if stands == Stand::GivenUp => {
            return give_back(ui, &node, &dir, false);
        }
        // What can not be brought back is said while the control plane runs.
        RollingBack::Forward { of, .. } => {
            check_kept(&dir, dir.attempt(&of)?)?;
        }
        _ => {}
    }
    let of = last.map(|found| found.attempt.id().clone());
    let bar = ui.progress();
    let done = async {
        node.stop(of.as_ref(), &bar).await?;
        let mut taken = Taken::of(ui, dir)?;
        let decided = offline::rollback(&mut taken.dir, &taken.fence, None, By::Node)?;
        let place = match decided {
            RollingBack::Abandon(_) | RollingBack::Back(_) => Place::Old,
            RollingBack::Done(id)
                if matches!(
                    taken.dir.attempt(&id)?.step,
                    Step::RolledBack | Step::Abandoned
                ) =>
            {
                Place::Old
            }
            RollingBack::Finish(id) | RollingBack::Done(id) => Place::Forward(id),
            RollingBack::Forward { of, .. } => {
                let (wish, mut work) =
                    from_kept(ui, &args.tools, &taken, &of, By::Node, &bar).await?;
                let ready = tokio::select! {
                    ready = offline::prepare(&mut taken.dir, &wish, &mut work) => ready?,
                    true = interrupted() => return Err(Error::new(Kind::Interrupted, "interrupted").into()),
                };
                let (Ready::ToExchange(id) | Ready::Already(id)) = ready;
                node.wait_until_gone(&bar).await?;
                node.folders.raise(Some(&id))?;
                exchange::exchange(&mut taken.dir, &id, &taken.fence, wish.former.clone())?;
                Place::Forward(id)
            }
        };
        Ok((taken.dir, place))
    };
    let done: Result<(DataDir, Place)> = done.await;
    drop(bar);
    let (dir, place) = done.map_err(|e| node.undo(ui, record.is_some(), e))?;
    match place {
        Place::Forward(id) => restore::start(ui, &node, dir, &id).await,
        Place::Old => give_back(ui, &node, &dir, false),
    }
}
