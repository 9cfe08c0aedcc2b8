//! `etcd abort`: asks the launchers to give a restore up; or does what they would, where none is alive.

mod force;

use backup_core::Error;
use backup_core::api::hosted::ABORT;
use backup_core::api::{EtcdRestore, RestorePhase};
use clap::Args;

use super::objects;
use super::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{CommandError, Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd abort cluster-restore
  kubectl backup etcd abort cluster-restore --cluster zvc78xnnz7
  kubectl backup etcd abort cluster-restore --force";

/// Ask for a restore of etcd to be given up, with the old state brought back
///
/// Sets the annotation kubectl-backup/abort=true on the EtcdRestore; the launchers act on it. Once the restored state is committed there is
/// no way back but `etcd rollback`.
///
/// Where no launcher is alive nobody acts. With --force that is made sure of for a minute; then the end is written down here, and the control plane
/// gets its replicas back. Launchers that come back later obey that: they put the old state in its place before they start etcd.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AbortArgs {
    /// Name of the EtcdRestore
    name: String,
    /// Give it up with no launcher alive
    #[arg(long)]
    force: bool,
    /// StatefulSet of etcd
    #[arg(long, value_name = "NAME", default_value = "etcd", requires = "force")]
    statefulset: String,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: AbortArgs) -> Result<Exit> {
    let restore = scope.one::<EtcdRestore>(context, &args.name).await?;
    refuse(&restore.it, &context.program)?;
    let cluster = context.cluster().await?;
    if args.force {
        return force::run(context, cluster, restore, &args.statefulset).await;
    }
    let asked = objects::annotate(cluster, &restore, [(ABORT, "true")].into()).await?;
    context
        .ui
        .line(&format!("{} asked to abort", asked.title()))?;
    context.ui.note(&format!(
        "see what becomes of it: {} etcd restore describe {} -n {}",
        context.program,
        asked.name(),
        asked.namespace()
    ));
    Ok(Exit::Done)
}

/// What is over, or can not go back any more, is not asked.
fn refuse(restore: &EtcdRestore, program: &str) -> Result<(), CommandError> {
    let name = restore.metadata.name.as_deref().unwrap_or_default();
    let status = restore.status.clone().unwrap_or_default();
    let rollback = format!("`{program} etcd rollback {name}` brings the state from before it back");
    let committed = status
        .attempt
        .and_then(|attempt| attempt.step)
        .is_some_and(|step| step.is_committed());
    let error = match status.phase {
        Some(RestorePhase::Completed) => Error::other(format!(
            "restore {name:?} is completed: there is nothing to abort"
        ))
        .hint(rollback),
        Some(phase) if phase.is_final() => {
            return Err(
                Error::other(format!("restore {name:?} is over already: {phase}"))
                    .hint("the old state serves; make another EtcdRestore to try again")
                    .into(),
            );
        }
        _ if committed => Error::other(format!(
            "restore {name:?} is committed and is finished first: {}",
            status.message.unwrap_or_default()
        ))
        .hint(format!("once it is completed, {rollback}")),
        _ => return Ok(()),
    };
    Err(error.into())
}
