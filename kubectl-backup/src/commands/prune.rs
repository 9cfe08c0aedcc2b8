//! `prune`: removes what is expired, what is too much of a schedule, and what dead runs left.

use backup_core::catalog::{self, Keep, PruneOptions, Pruned};
use backup_core::location::Location;
use backup_core::name::Name;
use clap::Args;

use super::owed;
use crate::context::Context;
use crate::flags::RemovalArgs;
use crate::many::{self, Many, ManyArgs};
use backup_cli::error::{Exit, Result};
use backup_cli::locations;
use backup_cli::output::counted;

const EXAMPLES: &str = "\
Examples:
  kubectl backup prune --dry-run
  kubectl backup prune --yes
  kubectl backup prune --keep 7 --schedule nightly --yes
  kubectl backup prune --workspace production --yes";

/// Remove expired backups and what runs that died left behind
///
/// A backup goes when it is expired by this machine's clock and by the store's; where these differ by over 5 minutes nothing
/// goes. With --keep, of each schedule the newest good backups stay and older ones go, expired or not. The newest good backup
/// of a schedule always stays; one whose archive is lost does not count. Backups that other tools made are never touched. Snapshots of volumes' files stay in
/// their repositories, which is told. Where no
/// guard tells whose a location is, as in one that Velero uses, other clusters' backups stay too; there Velero itself removes every backup that is expired: make those that have to
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
    #[command(flatten)]
    many: ManyArgs,
}

/// What would be pruned in a location.
struct Would {
    location: Location,
    all: Vec<Pruned>,
}

impl Would {
    /// How many would go.
    fn goes(&self) -> usize {
        let stays = |one: &&Pruned| matches!(one, Pruned::Kept(..) | Pruned::Failed(..));
        self.all.iter().filter(|one| !stays(one)).count()
    }

    /// `3 items from s3://backups/prod`
    fn sum(&self) -> String {
        let place = locations::place(&self.location.spec);
        format!("{} from {place}", counted(self.goes() as u64, "item"))
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: PruneArgs) -> Result<Exit> {
    if let Some(many) = args.many.resolve(context)? {
        return several(context, &args, &many).await;
    }
    let would = look(context, &args).await?;
    if would.goes() > 0 && !args.removal.is_dry() {
        let question = format!("remove {}?", would.sum());
        context.ui.confirm(args.removal.yes, &question)?;
    }
    prune(context, &args, &would).await
}

/// In the locations of several clusters; one question for all.
async fn several(context: &Context, args: &PruneArgs, many: &Many) -> Result<Exit> {
    many.are_distinct().await?;
    let found = many.each(|member| look(&member.context, args)).await;
    many.are_still_distinct()?;
    let sums: Vec<_> = found
        .iter()
        .filter_map(|(member, would)| Some((member, would.as_ref().ok()?)))
        .filter(|(_, would)| would.goes() > 0)
        .map(|(member, would)| format!("{} ({})", would.sum(), member.name))
        .collect();
    if !sums.is_empty() && !args.removal.is_dry() {
        let question = format!("remove {}?", sums.join(", "));
        context.ui.confirm(args.removal.yes, &question)?;
    }
    let done = many::then(&found, |member, would| prune(&member.context, args, would));
    let done = done.await.into_iter();
    Ok(many::worst(
        done.map(|(_, done)| done.unwrap_or_else(|exit| exit)),
    ))
}

async fn look(context: &Context, args: &PruneArgs) -> Result<Would> {
    let location = context.location_to_write().await?;
    context
        .guard(&location, "prune", args.removal.asks_nothing())
        .await?;
    let all = attempt(context, args, &location, true).await?;
    let would = Would { location, all };
    if would.goes() > 0 && !args.removal.yes && !args.removal.is_dry() && !args.removal.names_only()
    {
        for one in &would.all {
            told(context, &args.removal, one, "would be pruned")?;
        }
    }
    Ok(would)
}

async fn attempt(
    context: &Context,
    args: &PruneArgs,
    location: &Location,
    dry_run: bool,
) -> Result<Vec<Pruned>> {
    let options = PruneOptions {
        now: context.now,
        host: &context.host(),
        dry_run,
        keep: args
            .keep
            .map_or(Keep::Unexpired, |keep| Keep::Each(keep as usize)),
        schedule: args.schedule.as_ref().map(Name::as_str),
        cluster: context.identity().await?,
        own_only: false,
        longer: None,
        stopped: None,
        going: None,
        wanted: None,
    };
    Ok(catalog::prune(location, &options).await?)
}

/// Does it where that is asked, and tells what became of all.
async fn prune(context: &Context, args: &PruneArgs, would: &Would) -> Result<Exit> {
    let Would { location, all } = would;
    let owed = match args.removal.is_dry() {
        true => Exit::Done,
        false => owed::settle(context, location).await?,
    };
    if args.removal.is_dry() || would.goes() == 0 {
        for one in all {
            told(context, &args.removal, one, "would be pruned")?;
        }
        if would.goes() == 0 {
            context.ui.note(&format!(
                "nothing to prune in {}",
                locations::place(&location.spec)
            ));
        }
        return Ok(many::worst([owed, exit(all)]));
    }
    let kept = keeps_versions(location, all).await;
    let stays = stays(location, all).await;
    let done = attempt(context, args, location, false).await?;
    for one in &done {
        told(context, &args.removal, one, "pruned")?;
    }
    for stays in stays {
        context.ui.note(&stays);
    }
    if kept {
        context.ui.note("the bucket keeps versions: what was pruned is hidden, and takes its room until a lifecycle rule removes old versions");
    }
    Ok(many::worst([owed, exit(&done)]))
}

/// What of backups that go stays in repositories of volumes, a sentence each. What can not be told keeps nothing from going.
async fn stays(location: &Location, would: &[Pruned]) -> Vec<String> {
    let mut told = Vec::new();
    for one in would {
        let (Pruned::Expired(name) | Pruned::Beyond(name)) = one else {
            continue;
        };
        if let Ok(Some(stays)) = catalog::copies_elsewhere(&location.store, name).await {
            told.push(format!("backup/{name}: {stays}"));
        }
    }
    told
}

/// Whether what is pruned is hidden only; what holds of one backup of a bucket holds of all.
async fn keeps_versions(location: &Location, would: &[Pruned]) -> bool {
    let expired = would.iter().find_map(|one| match one {
        Pruned::Expired(name) | Pruned::Beyond(name) => Some(name),
        _ => None,
    });
    let Some(name) = expired else { return false };
    // Whether it may be removed was asked of each.
    let kept = catalog::kept(&location.store, name).await;
    kept.is_ok_and(|kept| kept.versions)
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
            context.line(&format!("backup/{name}"))
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
        _ => context.line(&text),
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
