//! `delete`: removes backups from their location.

use backup_core::{Error, Kind, catalog};
use clap::Args;

use crate::context::Context;
use crate::flags::{self, RemovalArgs};
use backup_cli::error::{Exit, Result};
use backup_cli::locations;

const EXAMPLES: &str = "\
Examples:
  kubectl backup delete nightly
  kubectl backup delete web-1 web-2 --yes
  kubectl backup delete web-1 --dry-run";

/// Delete backups
///
/// Removes all files of the backups from their location. What a backup of Velero's holds elsewhere, such as volume
/// snapshots, would stay behind: that is told, and needs --force. So does a backup that its bucket locks: it is hidden then,
/// and its versions stay until the lock ends.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// Names of backups
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    removal: RemovalArgs,
    /// Delete even where something would stay behind elsewhere
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DeleteArgs) -> Result<Exit> {
    let location = context.location_to_write().await?;
    let mut names = Vec::new();
    for name in &args.names {
        let name = flags::known_name(name)?;
        // Nothing is deleted before every name was found.
        let entry = catalog::get(&location.store, &name).await?;
        if !args.force && catalog::is_at_work(&entry.backup) {
            return Err(Error::other(format!(
                "backup {:?} is in phase {}: Velero is at work on it and would write parts of it anew",
                name.as_str(),
                entry.backup.status.phase
            ))
            .hint("wait until `kubectl backup get` shows it finished; --force where that Velero is gone")
            .into());
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    context
        .guard(&location, "delete", args.removal.asks_nothing())
        .await?;
    let mut kept = Vec::new();
    for name in &names {
        kept.push(catalog::kept(&location.store, name).await?);
        let leaks = catalog::leaks(&location.store, name).await?;
        for leak in &leaks {
            context.ui.warn(&format!("backup/{name}: {leak}"));
        }
        if !leaks.is_empty() && !args.force {
            return Err(Error::other(format!(
                "backup {:?} holds data elsewhere that would stay behind",
                name.as_str()
            ))
            .hint("let Velero delete it, or add --force and remove the rest by hand")
            .into());
        }
    }
    for (name, kept) in names.iter().zip(&kept) {
        if kept.is_locked(context.now) && !args.force {
            return Err(Error::new(
                Kind::Forbidden,
                format!("backup {:?} is {kept}: the bucket keeps it", name.as_str()),
            )
            .hint("delete it after that; --force hides it now, and all of its versions stay in the bucket")
            .into());
        }
    }
    let list = names
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let question = format!("delete {list} from {}?", locations::place(&location.spec));
    let agreed = args.removal.agreed(&context.ui, &question)?;
    for (name, kept) in names.iter().zip(&kept) {
        if agreed {
            catalog::delete(&location.store, name, &context.host()).await?;
        }
        let how = match (kept.versions, kept.is_locked(context.now)) {
            (false, false) => "deleted".to_owned(),
            (_, false) => "hidden (the bucket keeps its versions)".to_owned(),
            (_, true) => format!("hidden (the bucket keeps its versions, {kept})"),
        };
        let title = format!("backup/{name}");
        args.removal.tell(&context.ui, &title, &how)?;
    }
    Ok(Exit::Done)
}
