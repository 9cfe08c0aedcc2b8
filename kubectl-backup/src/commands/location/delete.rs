//! `location delete`: forget where backups live.

use clap::Args;

use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::locations::file;

const EXAMPLES: &str = "\
Examples:
  kubectl backup location delete offsite
  kubectl backup location delete offsite disk --yes";

/// Forget locations
///
/// The backups in them stay, and so do the files with credentials.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// Names of locations
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Do not ask
    #[arg(short, long, visible_alias = "confirm")]
    yes: bool,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: DeleteArgs) -> Result<Exit> {
    let path = context.paths.locations();
    let all = file::read(&path)?.locations;
    // Nothing is forgotten before every name was found.
    let mut names = Vec::new();
    for name in args.names {
        super::own(context, &all, &name)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let question = format!("forget {}? The backups stay", names.join(", "));
    context.ui.confirm(args.yes, &question)?;
    // Read again: another one may have been created while somebody thought.
    let mut all = file::read(&path)?.locations;
    all.retain(|location| !names.contains(&location.metadata.name));
    file::write(&path, &all)?;
    names.iter().try_for_each(|name| {
        let line = format!("backupstoragelocation/{name} deleted");
        context.ui.line(&line)
    })?;
    Ok(Exit::Done)
}
