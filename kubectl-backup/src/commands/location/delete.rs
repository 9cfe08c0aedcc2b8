//! `location delete`: forget where backups live.

use backup_core::api::BackupStorageLocation;
use clap::Args;

use crate::context::Context;
use crate::flags::RemovalArgs;
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
    #[command(flatten)]
    removal: RemovalArgs,
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
    let is_default =
        |one: &BackupStorageLocation| one.spec.default && names.contains(&one.metadata.name);
    let default = all.iter().find(|one| is_default(one));
    let which = default.map_or_else(String::new, |default| {
        format!(" ({} is used where none is named)", default.metadata.name)
    });
    let question = format!("forget {}{which}? The backups stay", names.join(", "));
    let agreed = args.removal.agreed(&context.ui, &question)?;
    if agreed {
        file::change(&path, |all| {
            all.retain(|location| !names.contains(&location.metadata.name));
            Ok(())
        })?;
    }
    names.iter().try_for_each(|name| {
        let title = format!("backupstoragelocation/{name}");
        args.removal.tell(&context.ui, &title, "deleted")
    })?;
    if let Some(default) = default.filter(|_| agreed) {
        context.ui.warn(&format!(
            "{} was used where none is named: from now on that is the location of the cluster's Velero, or a folder of this machine",
            default.metadata.name
        ));
    }
    Ok(Exit::Done)
}
