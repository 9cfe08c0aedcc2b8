//! `restore delete`: removes the records of restores.

use backup_core::api::Phase;
use backup_core::name::Name;
use backup_core::restore::{self, Left};
use backup_core::{Error, catalog};
use clap::Args;

use crate::context::{Context, Place};
use crate::flags::{self, RemovalArgs};
use crate::many::{self, ManyArgs};
use backup_cli::error::{Exit, Result};
use backup_cli::output::counted;

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore delete nightly-20261121020000
  kubectl backup restore delete nightly-20261121020000 web-20261120020000 --yes
  kubectl backup restore delete nightly-20261121020000 --workspace production --yes";

/// Delete the records of restores
///
/// What they restored stays in the cluster, and their backups stay as well. The originals of what a restore deleted to create it anew
/// (--existing-resource-policy=recreate) are kept in its record and go with it; they are counted before it is asked. A restore that is
/// not finished goes on by its record, so that needs --force; its backup is no longer kept from `delete` and `prune` then. So does what Velero left of a restore.
/// Volumes that a restore began to fill in this cluster and that are bound to nobody yet go with it, as their class says; where one is full already, that needs --force, too.
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
    #[command(flatten)]
    many: ManyArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DeleteArgs) -> Result<Exit> {
    let Some(many) = args.many.resolve(context)? else {
        let found = find(context, &args).await?;
        let question = format!("delete the records of {}?", list(&found));
        let agreed = args.removal.agreed(&context.ui, &question)?;
        delete(context, &args, &found, agreed).await?;
        return Ok(Exit::Done);
    };
    let found = many.each(|member| find(&member.context, &args)).await;
    many.are_still_distinct()?;
    let mut parts = Vec::new();
    for (member, found) in &found {
        if let Ok(found) = found {
            parts.push(format!("{} of {}", list(found), member.name));
        }
    }
    if !parts.is_empty() {
        let question = format!("delete the records of {}?", parts.join(", and "));
        args.removal.agreed(&context.ui, &question)?;
    }
    let (args, agreed) = (&args, !args.removal.is_dry());
    let done = many::then(&found, |member, found| {
        delete(&member.context, args, found, agreed)
    });
    let done = done.await;
    let exits = done.iter().map(|(_, done)| many::exit_of(done));
    Ok(many::worst(exits))
}

/// A restore, where its record is, how many originals it keeps, and what is left of its claims in this cluster.
type Found = Vec<(Name, Place, u64, Left)>;

fn list(found: &Found) -> String {
    let names = found.iter();
    let names: Vec<_> = names
        .map(|(name, _, kept, left)| format!("{name}{}{}", originals(*kept), filling(left)))
        .collect();
    names.join(", ")
}

/// ` (with 3 originals of what it recreated)`
fn originals(kept: u64) -> String {
    match kept {
        0 => String::new(),
        kept => format!(" (with {} of what it recreated)", counted(kept, "original")),
    }
}

/// ` (with the volume that was being filled for shop/data)`
fn filling(left: &Left) -> String {
    if left.is_empty() {
        return String::new();
    }
    let mut of = left.filling.clone();
    of.extend(left.volumes.iter().map(|volume| format!("volume {volume}")));
    format!(" (with what was being filled: {})", of.join(", "))
}

/// What is left of a restore's claims here. Who has no cluster at hand deletes the record alone.
async fn left(context: &Context, name: &Name, force: bool) -> Result<Left> {
    let looked = async {
        let cluster = context.cluster().await?;
        Ok::<_, backup_cli::error::CommandError>(restore::left(cluster, name).await?)
    };
    let left = match looked.await {
        Ok(left) => left,
        Err(e) => {
            context.ui.warn(&format!(
                "whether volumes of restore {name} are still being filled is not known: {}",
                e.error().sentence()
            ));
            Left::default()
        }
    };
    if let (Some(volume), false) = (left.volumes.first(), force) {
        return Err(Error::other(format!(
            "restore {:?} has filled volume {volume}, and its claim is not bound to it yet",
            name.as_str()
        ))
        .hint("repeat its `restore create` to finish it, or add --force to give its data up")
        .into());
    }
    Ok(left)
}

/// Nothing is deleted before every name was found.
async fn find(context: &Context, args: &DeleteArgs) -> Result<Found> {
    let mut found: Found = Vec::new();
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
        if !found.iter().any(|(other, ..)| *other == name) {
            let agreed = args.removal.asks_nothing();
            context.guard(&place.location, "delete", agreed).await?;
            let kept = catalog::kept_by_restore(&place.location.store, &name).await?;
            let left = left(context, &name, args.force).await?;
            found.push((name, place, kept, left));
        }
    }
    Ok(found)
}

async fn delete(context: &Context, args: &DeleteArgs, found: &Found, agreed: bool) -> Result<()> {
    for (name, place, kept, left) in found {
        if agreed && !left.is_empty() {
            left.clear(context.cluster().await?).await?;
        }
        if agreed {
            catalog::delete_restore(&place.location.store, name).await?;
        }
        let title = context.titled(&format!("restore/{name}"));
        let verb = format!("deleted{}{}", originals(*kept), filling(left));
        args.removal.tell(&context.ui, &title, &verb)?;
    }
    Ok(())
}
