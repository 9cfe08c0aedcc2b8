//! `schedule`: the commands about Schedules, Velero's kind. They write and read objects of the cluster; backups are made of them by the controller.

mod create;
mod delete;
mod describe;
mod get;
pub(crate) mod objects;
mod pause;
mod trigger;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::flags::ControllerNamespace;
use backup_cli::error::{Exit, Result};

/// Make backups by a schedule
///
/// Schedules are objects of Velero's kind in the cluster, and `kubectl backup controller` makes their backups. What Velero's own command makes of them, these
/// commands show and change too.
#[derive(Clone, Debug, Args)]
pub(crate) struct ScheduleArgs {
    #[command(flatten)]
    namespace: ControllerNamespace,
    /// What to do.
    #[command(subcommand)]
    command: ScheduleCommand,
}

/// What to do about schedules.
#[derive(Clone, Debug, Subcommand)]
enum ScheduleCommand {
    Create(Box<create::CreateArgs>),
    Get(get::GetArgs),
    Describe(describe::DescribeArgs),
    Pause(pause::PauseArgs),
    Unpause(pause::UnpauseArgs),
    Trigger(trigger::TriggerArgs),
    Delete(delete::DeleteArgs),
}

/// Runs one of them.
pub(crate) async fn run(context: &Context, args: ScheduleArgs) -> Result<Exit> {
    let namespace = args.namespace.as_str();
    match args.command {
        ScheduleCommand::Create(args) => create::run(context, namespace, *args).await,
        ScheduleCommand::Get(args) => get::run(context, namespace, args).await,
        ScheduleCommand::Describe(args) => describe::run(context, namespace, args).await,
        ScheduleCommand::Pause(args) => pause::pause(context, namespace, args).await,
        ScheduleCommand::Unpause(args) => pause::unpause(context, namespace, args).await,
        ScheduleCommand::Trigger(args) => trigger::run(context, namespace, args).await,
        ScheduleCommand::Delete(args) => delete::run(context, namespace, args).await,
    }
}
