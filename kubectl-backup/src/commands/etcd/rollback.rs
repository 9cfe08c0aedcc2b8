//! `etcd rollback`: takes a completed restore back, by a restore of the state that it replaced.

use backup_core::Error;
use backup_core::api::hosted::KEPT;
use backup_core::api::{EtcdRestore, EtcdRestoreSpec, RestorePhase};
use clap::Args;

use super::restore::make::{self, MakeArgs};
use super::scope::{ControlPlane, ScopeArgs};
use crate::context::Context;
use crate::flags;
use backup_cli::error::{CommandError, Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd rollback cluster-restore
  kubectl backup etcd rollback cluster-restore --cluster zvc78xnnz7 --yes --wait";

/// Take a completed restore of etcd back
///
/// Makes another EtcdRestore, of the state from before, which the members keep: clients have seen the revisions of the restored state, and would be
/// left hanging on lower ones. The launchers bring the kept state to the destination as a snapshot and restore it on every member. What was
/// written since the restore is gone then; it can be rolled back in turn. Launchers keep the newest of such states and those of the last days
/// (`etcd-launcher run --keep-states, --keep-states-for`); what is older can not be taken back. A restore that is not completed is given up with `etcd abort`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RollbackArgs {
    /// Name of the EtcdRestore
    name: String,
    #[command(flatten)]
    make: MakeArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: RollbackArgs) -> Result<Exit> {
    let restored = scope.one::<EtcdRestore>(context, &args.name).await?;
    let attempt = completed(&restored.it, &context.program)?;
    let spec = restored.it.spec.clone();
    let plane = ControlPlane {
        cluster: spec.cluster.name.clone(),
        namespace: restored.namespace().to_owned(),
    };
    let stem = format!("{}-rollback", restored.name());
    let name = flags::generated_name(&stem, context.now);
    let spec = EtcdRestoreSpec {
        backup_name: format!("{KEPT}{attempt}"),
        ..spec
    };
    let to = format!("the state from before {}", restored.title());
    make::make(context, &plane, &name, spec, &to, &args.make).await
}

/// The id of a completed restore's attempt: only what is completed can be taken back.
fn completed(restore: &EtcdRestore, program: &str) -> Result<String, CommandError> {
    let name = restore.metadata.name.as_deref().unwrap_or_default();
    let status = restore.status.clone().unwrap_or_default();
    let attempt = status.attempt.unwrap_or_default();
    let is_committed = attempt.step.is_some_and(|step| step.is_committed());
    let attempt = attempt.id;
    let error = match status.phase {
        Some(RestorePhase::Completed) if attempt.is_empty() => Error::other(format!(
            "restore {name:?} does not tell which state it replaced"
        ))
        .hint("no etcd-launcher made it: restore a snapshot instead"),
        Some(RestorePhase::Completed) => return Ok(attempt),
        Some(phase) if phase.is_final() => Error::other(format!(
            "restore {name:?} is in phase {phase}: the old state serves already"
        ))
        .hint("there is nothing to take back"),
        _ if is_committed => Error::other(format!(
            "restore {name:?} is committed and not completed yet: {}",
            status.message.unwrap_or_default()
        ))
        .hint(format!(
            "it is finished first; `{program} etcd restore describe {name}` shows what it waits for"
        )),
        phase => {
            let phase = phase.map_or("not begun".to_owned(), |phase| phase.to_string());
            Error::other(format!("restore {name:?} is not completed: {phase}"))
                .hint(format!("`{program} etcd abort {name}` gives it up"))
        }
    };
    Err(error.into())
}
