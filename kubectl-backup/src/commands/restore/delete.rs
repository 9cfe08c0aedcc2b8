//! `restore delete`: removes the records of restores.

use backup_core::api::Phase;
use backup_core::{Error, catalog};
use clap::Args;

use crate::context::Context;
use crate::flags::{self, RemovalArgs};
use backup_cli::error::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore delete nightly-20261121020000
  kubectl backup restore delete nightly-20261121020000 web-20261120020000 --yes";

/// Delete the records of restores
///
/// What they restored stays in the cluster, and their backups stay as well. A restore that is not finished goes on by its record, so that
/// needs --force; its backup is no longer kept from `delete` and `prune` then. So does what Velero left of a restore.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// Names of restores
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    removal: RemovalArgs,
    /// Delete the record of a restore that is not finished too
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DeleteArgs) -> Result<Exit> {
    let mut found = Vec::new();
    // Nothing is deleted before every name was found.
    for name in &args.names {
        let name = flags::known_name(name)?;
        let (place, restore) = context.find_restore(&name).await?;
        if !args.force && restore.status.phase == Phase::Other(catalog::UNKNOWN.to_owned()) {
            return Err(Error::other(format!(
                "restore {:?} has no record in the bucket: it is Velero's, whose record is in its cluster",
                name.as_str()
            ))
            .hint("`velero restore delete` removes both; --force removes what is in the bucket")
            .into());
        }
        if !args.force && restore.status.phase == Phase::InProgress {
            return Err(Error::other(format!(
                "restore {:?} is not finished: without its record it can not go on",
                name.as_str()
            ))
            .hint("repeat its `restore create` to finish it, or add --force")
            .into());
        }
        if !found.iter().any(|(other, _)| *other == name) {
            let agreed = args.removal.asks_nothing();
            context.guard(&place.location, "delete", agreed).await?;
            found.push((name, place));
        }
    }
    let list: Vec<_> = found.iter().map(|(name, _)| name.to_string()).collect();
    let question = format!("delete the records of {}?", list.join(", "));
    let agreed = args.removal.agreed(&context.ui, &question)?;
    for (name, place) in &found {
        if agreed {
            catalog::delete_restore(&place.location.store, name).await?;
        }
        let title = format!("restore/{name}");
        args.removal.tell(&context.ui, &title, "deleted")?;
    }
    Ok(Exit::Done)
}
