//! `restore logs`: the log of a restore.

use backup_core::layout::RestoreKeys;
use backup_core::records;
use clap::Args;

use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore logs nightly-20261121020000
  kubectl backup restore logs nightly-20261121020000 --location s3://backups/prod";

/// Print the log of a restore
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    /// Name of the restore
    name: String,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: LogsArgs) -> Result<Exit> {
    let name = flags::known_name(&args.name)?;
    let (place, _) = context.find_restore(&name).await?;
    let log = records::text(&place.location.store, &RestoreKeys::new(&name).logs()).await?;
    if log.is_empty() {
        context.ui.say(&format!("restore/{name} has no log"));
    }
    context.ui.lines(&log)?;
    Ok(Exit::Done)
}
