//! `node fence`: stops the control plane of a node, and proves that it is gone.

use backup_cli::error::{Exit, Result};
use backup_cli::ui::Ui;
use clap::Args;

use super::{KubeletArgs, Node, shown};
use crate::node::folders::Place;

const EXAMPLES: &str = "\
Examples:
  etcd-launcher node fence --yes
  etcd-launcher node start --yes";

/// Stop etcd, API server, controller manager and scheduler, and keep them stopped
///
/// `node restore` does this by itself. By itself it is for what is done by hand on stopped data, such as the same restore on each of
/// several nodes; `node start` brings the control plane back.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FenceArgs {
    #[command(flatten)]
    kubelet: KubeletArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs the command.
pub(super) async fn run(ui: &Ui, args: &FenceArgs) -> Result<Exit> {
    let mut node = Node::find(ui, &args.kubelet)?;
    node.check_kubelet()?;
    ui.confirm(args.yes, "stop the control plane of this node?")?;
    // Held, so that nobody of us works on the data meanwhile.
    let _dir = node.open(None)?;
    node.look_again()?;
    let record = node.found.record.clone();
    let bar = ui.progress();
    let stopped = node
        .stop(record.as_ref().and_then(|r| r.attempt.as_ref()), &bar)
        .await;
    drop(bar);
    stopped.map_err(|e| node.undo(ui, record.is_some(), e))?;
    node.look_again()?;
    let parts: Vec<String> = node
        .found
        .lying(Place::Out)
        .map(|m| m.part.to_string())
        .collect();
    ui.line(&format!(
        "stopped: {}; their manifests are in {}",
        parts.join(", "),
        shown(node.folders.fence())
    ))?;
    ui.line(&format!(
        "to restore etcd: etcd-launcher node restore SNAPSHOT (or etcd-launcher restore SNAPSHOT --data-dir {}); to start all again: etcd-launcher node start",
        shown(&node.data_dir)
    ))?;
    Ok(Exit::Done)
}
