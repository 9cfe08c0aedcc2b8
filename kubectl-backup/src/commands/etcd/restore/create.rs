//! `etcd restore create`: an EtcdRestore.

use backup_core::api::EtcdRestoreSpec;
use backup_core::api::hosted::ClusterReference;
use backup_core::etcd::names;
use backup_core::{Error, Kind};
use clap::Args;

use crate::commands::etcd::destination;
use crate::commands::etcd::find::{self, Snapshot};
use crate::commands::etcd::restore::make::{self, MakeArgs};
use crate::commands::etcd::scope::{ControlPlane, ScopeArgs};
use crate::context::Context;
use crate::flags::{self, of_flag};
use backup_cli::error::{CommandError, Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd restore create cluster-restore --from-snapshot daily-backup-2026-11-20t01-00-00 --cluster zvc78xnnz7
  kubectl backup etcd restore create --from-snapshot daily-backup-2026-11-20t01-00-00 --cluster zvc78xnnz7 --yes --wait";

/// Bring a hosted cluster's etcd back to a snapshot
///
/// Makes an EtcdRestore, on which the launchers beside etcd act: they prove the snapshot, pause the cluster, change over and unpause it. Until the
/// new state is proven the old one is not touched, and `etcd abort` brings it back; afterwards `etcd rollback` does.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CreateArgs {
    /// Name of the EtcdRestore [default: CLUSTER-<time>]
    name: Option<String>,
    /// Snapshot to go back to
    #[arg(long, value_name = "SNAPSHOT")]
    from_snapshot: String,
    /// BackupStorageLocation that has it [default: the one of the EtcdBackupConfig that took it]
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    #[command(flatten)]
    make: MakeArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: CreateArgs) -> Result<Exit> {
    of_flag("--from-snapshot", names::check(&args.from_snapshot))?;
    let plane = scope.control_plane(context).await?;
    let name = match &args.name {
        Some(name) => flags::known_name(name)?.to_string(),
        None => flags::generated_name(&plane.cluster, context.now),
    };
    let (snapshot, destination) = choose(context, &plane, &args).await?;
    let spec = EtcdRestoreSpec {
        cluster: ClusterReference::to(&plane.cluster),
        backup_name: snapshot.clone(),
        destination: Some(destination),
        ..EtcdRestoreSpec::default()
    };
    make::make(context, &plane, &name, spec, &snapshot, &args.make).await
}

/// The snapshot's name in full, and where it is: as an EtcdBackupConfig lists it; one that none lists needs its destination named.
async fn choose(
    context: &Context,
    plane: &ControlPlane,
    args: &CreateArgs,
) -> Result<(String, String)> {
    let asked = &args.from_snapshot;
    let here = ScopeArgs {
        cluster: Some(plane.cluster.clone()),
        namespace: Some(plane.namespace.clone()),
        ..ScopeArgs::default()
    };
    let all = find::of_objects(context, &here).await?;
    let names = destination::names(context.cluster().await?, &plane.namespace).await;
    if let (Some(destination), Some(names)) = (&args.destination, &names)
        && !names.contains(destination)
    {
        return Err(
            destination::missing(destination, &plane.namespace, Some(names.clone())).into(),
        );
    }
    let found = match find::choose(asked, &all, Some(&plane.cluster)) {
        Ok(found) => found,
        Err(e) if e.kind() == Kind::NotFound && args.destination.is_some() => {
            context.ui.note(&format!(
                "no EtcdBackupConfig lists {asked}: the launcher looks for it in destination {}",
                args.destination.as_deref().unwrap_or_default()
            ));
            return Ok((asked.clone(), args.destination.clone().unwrap_or_default()));
        }
        Err(e) => return Err(unlisted(e, asked)),
    };
    refuse(found)?;
    let destination = args.destination.as_deref().unwrap_or(found.destination());
    Ok((found.name.clone(), destination.to_owned()))
}

fn unlisted(e: Error, asked: &str) -> CommandError {
    if e.kind() != Kind::NotFound {
        return CommandError::usage(e);
    }
    let there = e.hint_text().unwrap_or_default().to_owned();
    Error::not_found(format!(
        "no EtcdBackupConfig of the cluster lists snapshot {asked:?}"
    ))
    .hint(format!(
        "{there}; for one that only a bucket knows, name it with --destination"
    ))
    .into()
}

/// What was not taken to its end, or is being removed, is no snapshot.
fn refuse(found: &Snapshot) -> Result<()> {
    if found.is_good() {
        return Ok(());
    }
    let error = Error::other(format!(
        "snapshot {:?} can not be restored: it is {}",
        found.name,
        found.status()
    ));
    Err(match found.message() {
        "" => error.hint("choose one that `etcd get` lists as Completed"),
        message => error.because(message.to_owned()),
    }
    .into())
}
