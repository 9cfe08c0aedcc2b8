//! `schedule trigger`: a backup of a schedule now, beside its slots.

use clap::Args;

use super::objects;
use crate::context::Context;
use crate::flags;
use crate::in_cluster::{self, Ended, Work};
use backup_cli::error::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup schedule trigger nightly
  kubectl backup schedule trigger nightly --wait";

/// Ask for a backup of a schedule now
///
/// Makes a Backup of the schedule's template; the controller makes the backup, also where the schedule is paused. The schedule's slots do not move.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TriggerArgs {
    /// Name of the schedule
    name: String,
    /// Wait for its end; exit code 1 where it failed, 3 where something is missing
    #[arg(long)]
    wait: bool,
    /// Print the name alone
    #[arg(short, long, value_name = "FORMAT", value_parser = ["name"])]
    output: Option<String>,
}

/// Runs the command.
pub(super) async fn run(context: &Context, namespace: &str, args: TriggerArgs) -> Result<Exit> {
    let known = objects::one(context, namespace, &args.name).await?;
    let name = flags::generated_name(known.name(), context.now);
    let mut backup = known.it.backup(&known.raw, &name);
    backup["metadata"]["namespace"] = namespace.into();
    let made = objects::create(context, namespace, "backups", &backup).await?;
    let done = if args.output.is_some() {
        ""
    } else {
        " created"
    };
    context.ui.line(&format!("backup/{name}{done}"))?;
    if !args.wait {
        return Ok(Exit::Done);
    }
    Ok(
        match in_cluster::follow(context, namespace, Work::Backup, &made).await? {
            Ended::Done(_, exit) => exit,
            Ended::Left => Exit::Interrupted,
        },
    )
}
