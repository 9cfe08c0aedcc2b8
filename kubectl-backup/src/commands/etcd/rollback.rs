//! `etcd rollback`: asks the launchers to take a completed restore back.

use backup_core::Error;
use backup_core::api::hosted::ROLLBACK;
use backup_core::api::{EtcdRestore, RestorePhase};
use clap::Args;

use super::objects;
use super::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{CommandError, Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd rollback cluster-restore
  kubectl backup etcd rollback cluster-restore --cluster zvc78xnnz7 --yes";

/// Ask for a completed restore of etcd to be taken back
///
/// Sets the annotation kubectl-backup/rollback=true on the EtcdRestore; the launchers act on it: they restore the state from before, which
/// they kept. What was written since the restore is gone then. A restore that is not completed is given up with `etcd abort`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RollbackArgs {
    /// Name of the EtcdRestore
    name: String,
    /// Do not ask
    #[arg(short, long, visible_alias = "confirm")]
    yes: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: RollbackArgs) -> Result<Exit> {
    let restore = scope.one::<EtcdRestore>(context, &args.name).await?;
    refuse(&restore.it, &context.program)?;
    context.ui.confirm(
        args.yes,
        &format!(
            "bring etcd of cluster {} back to the state from before {}? What was written since is gone then, and its API server is down meanwhile.",
            restore.it.spec.cluster.name,
            restore.title()
        ),
    )?;
    let cluster = context.cluster().await?;
    let asked = objects::annotate(cluster, &restore, [(ROLLBACK, "true")].into()).await?;
    context
        .ui
        .line(&format!("{} asked to roll back", asked.title()))?;
    context.ui.note(&format!(
        "see what becomes of it: {} etcd restore describe {} -n {}",
        context.program,
        asked.name(),
        asked.namespace()
    ));
    Ok(Exit::Done)
}

/// Only what is completed can be taken back.
fn refuse(restore: &EtcdRestore, program: &str) -> Result<(), CommandError> {
    let name = restore.metadata.name.as_deref().unwrap_or_default();
    let phase = restore
        .status
        .as_ref()
        .and_then(|status| status.phase.as_ref());
    let error = match phase {
        Some(RestorePhase::Completed) => return Ok(()),
        Some(phase) if phase.is_final() => Error::other(format!(
            "restore {name:?} is in phase {phase}: the old state serves already"
        ))
        .hint("there is nothing to take back"),
        phase => {
            let phase = phase.map_or("not begun", |phase| phase.as_str());
            Error::other(format!("restore {name:?} is not completed: {phase}"))
                .hint(format!("`{program} etcd abort {name}` gives it up"))
        }
    };
    Err(error.into())
}
