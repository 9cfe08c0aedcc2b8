//! `logs`: the log of a backup.

use backup_core::layout::BackupKeys;
use backup_core::records;
use clap::Args;

use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup logs nightly
  kubectl backup logs nightly --location s3://backups/prod";

/// Print the log of a backup
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    /// Name of the backup
    name: String,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: LogsArgs) -> Result<Exit> {
    let (place, entry) = context.find_backup(&flags::known_name(&args.name)?).await?;
    let log = records::text(&place.location.store, &BackupKeys::new(&entry.name).logs()).await?;
    if log.is_empty() {
        context.ui.say(&format!("backup/{} has no log", entry.name));
    }
    context.ui.lines(&log)?;
    Ok(Exit::Done)
}
