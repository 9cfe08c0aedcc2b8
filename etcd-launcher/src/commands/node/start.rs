//! `node start`: starts a control plane that is stopped for nothing any more. Moves no state of etcd.

use backup_cli::error::{Exit, Result};
use backup_cli::ui::Ui;
use backup_core::Error;
use clap::Args;

use super::{KubeletArgs, Node};
use crate::node::folders::Place;
use crate::node::stand::{self, Stand};
use crate::restore::dir::DataDir;
use crate::restore::plan::Carried;

const EXAMPLES: &str = "\
Examples:
  etcd-launcher node start --yes";

/// Start the control plane that `node fence` stopped, on the data as they are
///
/// In the middle of a restore or of a rollback it refuses: those start what they stopped.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    kubelet: KubeletArgs,
    /// Start it even where the data dir is empty: etcd begins an empty cluster
    #[arg(long)]
    empty_cluster: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs the command.
pub(super) fn run(ui: &Ui, args: &StartArgs) -> Result<Exit> {
    let mut node = Node::find(ui, &args.kubelet)?;
    node.check_kubelet()?;
    ui.confirm(args.yes, "start the control plane of this node?")?;
    let dir = node.open(None)?;
    node.look_again()?;
    let last = super::last(&dir)?;
    match stand::stand(node.found.record.as_ref(), last.as_ref()) {
        Stand::Fenced | Stand::GivenUp | Stand::Idle | Stand::Prepared => {
            give_back(ui, &node, &dir, args.empty_cluster)
        }
        stands => Err(Error::invalid(format!(
            "the control plane is stopped for what is not done yet: {}",
            stand::next(stands, last.as_ref(), node.found.etcd_place())
        ))
        .into()),
    }
}

/// Starts the control plane on what the data dir holds.
pub(super) fn give_back(ui: &Ui, node: &Node, dir: &DataDir, empty_cluster: bool) -> Result<Exit> {
    let carried = dir.carried()?;
    if node.found.lying(Place::Out).next().is_none() {
        node.folders.lower()?;
        ui.line(&format!(
            "{} holds {carried} as before, and nothing was stopped",
            node.data_dir.display()
        ))?;
        return Ok(Exit::Done);
    }
    if carried == Carried::Absent && !empty_cluster {
        ui.say(&format!(
            "{} is empty: an etcd would begin an empty cluster there, so the control plane stays stopped; its manifests are in {}",
            node.data_dir.display(),
            node.folders.fence().display()
        ));
        ui.say("restore a snapshot with `etcd-launcher node restore`; where an empty cluster is what you want: etcd-launcher node start --empty-cluster");
        return Ok(Exit::Incomplete);
    }
    node.give_back()?;
    node.folders.lower()?;
    ui.line(&format!(
        "{} holds {carried}, and the control plane's manifests are back in {}: the kubelet starts them",
        node.data_dir.display(),
        node.folders.pods().display()
    ))?;
    Ok(Exit::Done)
}
