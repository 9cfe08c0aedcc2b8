//! `etcd schedule`: the commands about EtcdBackupConfigs with a schedule.

pub(super) mod create;
mod delete;
mod get;

use clap::Subcommand;

use super::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};

/// What to do about schedules.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    Create(create::CreateArgs),
    Get(get::GetArgs),
    Delete(delete::DeleteArgs),
}

/// Runs one of them.
pub(crate) async fn run(
    context: &Context,
    scope: &ScopeArgs,
    command: ScheduleCommand,
) -> Result<Exit> {
    match command {
        ScheduleCommand::Create(args) => create::run(context, scope, args).await,
        ScheduleCommand::Get(args) => get::run(context, scope, args).await,
        ScheduleCommand::Delete(args) => delete::run(context, scope, args).await,
    }
}
