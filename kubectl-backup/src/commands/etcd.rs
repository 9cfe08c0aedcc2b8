//! `etcd`: the commands about snapshots of hosted control planes' etcd. Snapshots are taken and restored by the launchers beside etcd; these
//! commands write and read the objects they act on, and read the bucket.

mod abort;
mod delete;
mod describe;
mod destination;
mod download;
mod find;
mod follow;
mod get;
pub(crate) mod launcher;
pub(crate) mod objects;
pub(crate) mod proposed;
mod rekey;
mod request;
mod restore;
mod rollback;
mod schedule;
pub(crate) mod scope;
mod snapshot;
mod verify;

use clap::{Args, Subcommand};

use crate::context::Context;
use backup_cli::error::{Exit, Result};

/// Back up and restore the etcd of hosted control planes
///
/// Snapshots are taken, and restores are carried out, by the etcd-launcher beside each etcd, on objects of the kinds EtcdBackupConfig and
/// EtcdRestore. With --location the commands that read snapshots need no cluster: they read the bucket alone.
#[derive(Clone, Debug, Args)]
pub(crate) struct EtcdArgs {
    /// Which control planes.
    #[command(flatten)]
    pub(crate) scope: scope::ScopeArgs,
    /// What to do.
    #[command(subcommand)]
    command: EtcdCommand,
}

/// What to do about etcd.
#[derive(Clone, Debug, Subcommand)]
enum EtcdCommand {
    Get(get::GetArgs),
    Describe(describe::DescribeArgs),
    Verify(verify::VerifyArgs),
    Download(download::DownloadArgs),
    Delete(delete::DeleteArgs),
    Rekey(rekey::RekeyArgs),
    Snapshot(snapshot::SnapshotArgs),
    /// Take snapshots by a schedule
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Bring etcd back to a snapshot
    #[command(subcommand)]
    Restore(restore::RestoreCommand),
    Abort(abort::AbortArgs),
    Rollback(rollback::RollbackArgs),
}

/// Runs one of them.
pub(crate) async fn run(context: &Context, args: EtcdArgs) -> Result<Exit> {
    let scope = &args.scope;
    match args.command {
        EtcdCommand::Get(args) => get::run(context, scope, args).await,
        EtcdCommand::Describe(args) => describe::run(context, scope, args).await,
        EtcdCommand::Verify(args) => verify::run(context, scope, args).await,
        EtcdCommand::Download(args) => download::run(context, scope, args).await,
        EtcdCommand::Rekey(args) => rekey::run(context, scope, args).await,
        EtcdCommand::Delete(args) => delete::run(context, scope, args).await,
        EtcdCommand::Snapshot(args) => snapshot::run(context, scope, args).await,
        EtcdCommand::Schedule(command) => schedule::run(context, scope, command).await,
        EtcdCommand::Restore(command) => restore::run(context, scope, command).await,
        EtcdCommand::Abort(args) => abort::run(context, scope, args).await,
        EtcdCommand::Rollback(args) => rollback::run(context, scope, args).await,
    }
}
