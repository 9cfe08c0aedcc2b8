//! `schedule delete`: removes Schedules.

use clap::Args;

use super::objects::{self, Known};
use crate::context::Context;
use crate::flags::RemovalArgs;
use backup_cli::error::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup schedule delete nightly
  kubectl backup schedule delete nightly weekly --yes";

/// Delete schedules; their backups stay until they expire
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeleteArgs {
    /// Names of schedules
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    removal: RemovalArgs,
}

/// Runs the command.
pub(super) async fn run(context: &Context, namespace: &str, args: DeleteArgs) -> Result<Exit> {
    let found = objects::several(context, namespace, &args.names).await?;
    let list: Vec<_> = found.iter().map(Known::title).collect();
    let question = format!("delete {}? The backups stay", list.join(", "));
    let agreed = args.removal.agreed(&context.ui, &question)?;
    for known in &found {
        if agreed {
            objects::delete(context, namespace, known).await?;
        }
        args.removal.tell(&context.ui, &known.title(), "deleted")?;
    }
    Ok(Exit::Done)
}
