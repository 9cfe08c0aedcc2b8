//! `etcd schedule delete`: removes EtcdBackupConfigs.

use backup_core::api::EtcdBackupConfig;
use backup_core::api::hosted::DeletionPolicy;
use clap::Args;

use crate::commands::etcd::objects::{self, Object};
use crate::commands::etcd::scope::ScopeArgs;
use crate::context::Context;
use crate::flags::RemovalArgs;
use backup_cli::error::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd schedule delete daily-backup
  kubectl backup etcd schedule delete daily-backup weekly --cluster zvc78xnnz7 --yes";

/// Delete schedules of snapshots
///
/// The snapshots stay in their bucket, unless the object's deletionPolicy is Delete.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// Names of EtcdBackupConfigs
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    removal: RemovalArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: DeleteArgs) -> Result<Exit> {
    let mut found: Vec<Object<EtcdBackupConfig>> = Vec::new();
    // Nothing is deleted before every name was found.
    for name in &args.names {
        let one = scope.one::<EtcdBackupConfig>(context, name).await?;
        if !found
            .iter()
            .any(|other| other.it.metadata.uid == one.it.metadata.uid)
        {
            found.push(one);
        }
    }
    let list: Vec<_> = found.iter().map(what).collect();
    let question = format!("delete {}?", list.join(", "));
    let agreed = args.removal.agreed(&context.ui, &question)?;
    for one in &found {
        if agreed {
            objects::delete(context.cluster().await?, one).await?;
        }
        args.removal.tell(&context.ui, &one.title(), "deleted")?;
    }
    Ok(Exit::Done)
}

/// The object, and what becomes of its snapshots.
fn what(config: &Object<EtcdBackupConfig>) -> String {
    let rows = config.it.status.iter().flat_map(|status| status.rows());
    let good = rows.filter(|row| row.is_good()).count();
    match config.it.spec.deletion_policy {
        DeletionPolicy::Retain => format!("{} (its snapshots stay)", config.title()),
        DeletionPolicy::Delete => format!("{} with its {good} snapshots", config.title()),
    }
}
