//! `restore`: the commands about restores.

mod create;
mod delete;
mod describe;
mod get;
mod logs;

use clap::Subcommand;

use crate::context::Context;
use backup_cli::error::{Exit, Result};

/// What to do about restores.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RestoreCommand {
    Create(Box<create::CreateArgs>),
    Get(get::GetArgs),
    Describe(describe::DescribeArgs),
    Logs(logs::LogsArgs),
    Delete(delete::DeleteArgs),
}

/// Runs one of them.
pub(crate) async fn run(context: &Context, command: RestoreCommand) -> Result<Exit> {
    match command {
        RestoreCommand::Create(args) => create::run(context, *args).await,
        RestoreCommand::Get(args) => get::run(context, args).await,
        RestoreCommand::Describe(args) => describe::run(context, args).await,
        RestoreCommand::Logs(args) => logs::run(context, args).await,
        RestoreCommand::Delete(args) => delete::run(context, args).await,
    }
}
