//! `etcd restore`: the commands about EtcdRestores.

mod create;
mod describe;
mod get;
pub(super) mod make;

use clap::Subcommand;

use super::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};

/// What to do about restores.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RestoreCommand {
    Create(create::CreateArgs),
    Get(get::GetArgs),
    Describe(describe::DescribeArgs),
}

/// Runs one of them.
pub(crate) async fn run(
    context: &Context,
    scope: &ScopeArgs,
    command: RestoreCommand,
) -> Result<Exit> {
    match command {
        RestoreCommand::Create(args) => create::run(context, scope, args).await,
        RestoreCommand::Get(args) => get::run(context, scope, args).await,
        RestoreCommand::Describe(args) => describe::run(context, scope, args).await,
    }
}
