//! `prune`: removes what is expired, what is too much of a schedule, and what dead runs left.

use backup_core::catalog::{self, PruneOptions, Pruned};
use backup_core::location::Location;
use backup_core::name::Name;
use clap::Args;

use crate::context::Context;
use crate::flags::RemovalArgs;
use backup_cli::error::{Exit, Result};
use backup_cli::locations;
use backup_cli::output::counted;

const EXAMPLES: &str = "\
Examples:
  kubectl backup prune --dry-run
  kubectl backup prune --yes
  kubectl backup prune --keep 7 --schedule nightly --yes";

/// Remove expired backups and what runs that died left behind
///
/// A backup goes when it is expired by this machine's clock and by the store's; where these differ by over 5 minutes nothing
/// goes. With --keep, of each schedule the newest good backups stay and older ones go, expired or not. The newest good backup
/// of a schedule always stays; one whose archive is lost does not count. Backups that other tools made are never touched. In a location
/// that Velero uses, other clusters' backups stay too, and Velero itself removes every backup that is expired: make those that have to
/// stay with --ttl never.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PruneArgs {
    /// How many good backups of each schedule stay (completed ones are good; at least 1)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Look at the backups of this schedule only
    #[arg(long, value_name = "SCHEDULE", value_parser = Name::foreign)]
    schedule: Option<Name>,
    #[command(flatten)]
    removal: RemovalArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: PruneArgs) -> Result<Exit> {
    let ui = &context.ui;
    let location = context.location_to_write().await?;
    context
        .guard(&location, "prune", args.removal.asks_nothing())
        .await?;
    let host = context.host();
    let cluster = context.identity().await?;
    let options = |dry_run| PruneOptions {
        now: context.now,
        host: &host,
        dry_run,
        keep: args.keep.map(|keep| keep as usize),
        schedule: args.schedule.as_ref().map(Name::as_str),
        cluster,
    };
    let would = catalog::prune(&location, &options(true)).await?;
    let goes = would
        .iter()
        .filter(|one| !matches!(one, Pruned::Kept(..) | Pruned::Failed(..)))
        .count();
    if args.removal.is_dry() || goes == 0 {
        for one in &would {
            told(context, &args.removal, one, "would be pruned")?;
        }
        if goes == 0 {
            ui.note(&format!(
                "nothing to prune in {}",
                locations::place(&location.spec)
            ));
        }
        return Ok(exit(&would));
    }
    if !args.removal.yes && !args.removal.names_only() {
        for one in &would {
            told(context, &args.removal, one, "would be pruned")?;
        }
    }
    let question = format!(
        "remove {} from {}?",
        counted(goes as u64, "item"),
        locations::place(&location.spec)
    );
    ui.confirm(args.removal.yes, &question)?;
    let kept = keeps_versions(&location, &would).await?;
    let done = catalog::prune(&location, &options(false)).await?;
    for one in &done {
        told(context, &args.removal, one, "pruned")?;
    }
    if kept {
        ui.note("the bucket keeps versions: what was pruned is hidden, and takes its room until a lifecycle rule removes old versions");
    }
    Ok(exit(&done))
}

/// Whether what is pruned is hidden only; what holds of one backup of a bucket holds of all.
async fn keeps_versions(location: &Location, would: &[Pruned]) -> Result<bool> {
    let expired = would.iter().find_map(|one| match one {
        Pruned::Expired(name) | Pruned::Beyond(name) => Some(name),
        _ => None,
    });
    Ok(match expired {
        Some(name) => catalog::kept(&location.store, name).await?.versions,
        None => false,
    })
}

/// What was kept for a reason is no failure; what could not be removed is: who runs this every night hears of it by the exit code alone.
pub(super) fn exit(done: &[Pruned]) -> Exit {
    if done.iter().any(|one| matches!(one, Pruned::Failed(..))) {
        Exit::Incomplete
    } else {
        Exit::Done
    }
}

/// What became of one, or its name alone.
fn told(context: &Context, removal: &RemovalArgs, one: &Pruned, verb: &str) -> Result<()> {
    match one {
        Pruned::Expired(name) | Pruned::Beyond(name) | Pruned::Stale(name)
            if removal.names_only() =>
        {
            context.ui.line(&format!("backup/{name}"))
        }
        Pruned::StaleClaim(_) if removal.names_only() => Ok(()),
        _ => tell(context, one, verb),
    }
}

fn tell(context: &Context, one: &Pruned, verb: &str) -> Result<()> {
    let text = sentence(one, verb);
    match one {
        Pruned::Kept(..) => {
            context.ui.note(&text);
            Ok(())
        }
        Pruned::Failed(..) => {
            context.ui.say(&text);
            Ok(())
        }
        _ => context.ui.line(&text),
    }
}

/// What became of one, in words.
pub(super) fn sentence(one: &Pruned, verb: &str) -> String {
    match one {
        Pruned::Expired(name) => format!("backup/{name} {verb} (expired)"),
        Pruned::Beyond(name) => format!("backup/{name} {verb} (newer ones of its schedule stay)"),
        Pruned::Stale(name) => format!("backup/{name} {verb} (left by a run that died)"),
        Pruned::StaleClaim(name) => {
            format!("backup/{name}: the claim of a run that died {verb}, the backup stays")
        }
        Pruned::Kept(name, why) => format!("backup/{name} kept: {why}"),
        Pruned::Failed(name, why) => format!("backup/{name} not pruned: {why}"),
    }
}
