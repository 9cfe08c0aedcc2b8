//! `etcd snapshot`: asks for one snapshot, now.

use std::time::Duration;

use backup_core::api::hosted::ClusterReference;
use backup_core::api::{EtcdBackupConfig, EtcdBackupConfigSpec};
use clap::Args;

use super::follow;
use super::objects::{self, meta};
use super::request::{self, WaitArgs};
use super::schedule::create::destination;
use super::scope::ScopeArgs;
use crate::context::Context;
use crate::flags::{self, DryRun};
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, OutputArgs};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd snapshot before-upgrade --cluster zvc78xnnz7
  kubectl backup etcd snapshot before-upgrade --cluster zvc78xnnz7 --destination s3 --wait";

/// Take a snapshot of etcd now
///
/// Makes an EtcdBackupConfig without a schedule, on which the launcher beside etcd takes one snapshot. Deleting that object
/// leaves the snapshot where it is.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SnapshotArgs {
    /// Name of the EtcdBackupConfig; the snapshot is named after it and the time
    name: String,
    /// BackupStorageLocation to store it in [default: the one in the namespace, or the default one of several]
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Print the object that would be made, and make nothing
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: SnapshotArgs) -> Result<Exit> {
    let plane = scope.control_plane(context).await?;
    let name = flags::known_name(&args.name)?;
    let spec = EtcdBackupConfigSpec {
        // KKP's kind wants one.
        name: Some(name.to_string()),
        cluster: ClusterReference::to(&plane.cluster),
        destination: destination(context, &plane, args.destination.as_deref()).await?,
        ..EtcdBackupConfigSpec::default()
    };
    let mut config = EtcdBackupConfig::new(name.as_str(), spec);
    config.metadata = meta(&plane.namespace, name.as_str());
    if args.dry_run == DryRun::Client {
        return request::show(context, &args.output, &config);
    }
    let made = objects::create(context.cluster().await?, &config).await?;
    request::print(context, &args.output, &made, "created")?;
    let timeout: Option<Duration> = args.wait.timeout;
    if !args.wait.wait {
        context.ui.note(&format!(
            "see what becomes of it: {} etcd get -n {}{}",
            context.program,
            plane.namespace,
            context.flags_again()
        ));
        return Ok(Exit::Done);
    }
    let row = follow::snapshot(context, &plane, &made, timeout).await?;
    let size = row.backup_size.and_then(|bytes| u64::try_from(bytes).ok());
    context.ui.line(&format!(
        "snapshot/{} completed{}{}",
        row.backup_name,
        size.map_or_else(String::new, |bytes| format!(", {}", output::size(bytes))),
        row.revision
            .map_or_else(String::new, |revision| format!(", revision {revision}")),
    ))?;
    Ok(Exit::Done)
}
