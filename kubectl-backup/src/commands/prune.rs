//! `prune`: removes what is expired, what is too much of a schedule, and what dead runs left.

use backup_core::catalog::{self, Keep, PruneOptions, Pruned};
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::snapshot::heirs::Heirs;
use backup_core::volume;
use backup_core::volume::expiry::{Look, Outcome};
use clap::Args;
use tokio::sync::watch;

use super::{csi, owed};
use crate::context::Context;
use crate::copies::Keys;
use crate::expiry::{self, Told};
use crate::flags::RemovalArgs;
use crate::many::{self, Many, ManyArgs};
use backup_cli::error::{Exit, Result};
use backup_cli::locations;
use backup_cli::output::counted;

/// What stops it; without it, it is only told.
type Stop = watch::Receiver<bool>;

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
/// of a schedule always stays; one whose archive is lost does not count. Backups that other tools made are never touched. Snapshots of volumes' files go
/// with their backup; those that no backup names are noted, and forgotten by a prune a day later; what no snapshot needs is marked, and freed by a prune a day after that, where --identity
/// or this machine can open the repository. Where no
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
    /// Drop what was noted of snapshots of volumes in their storage and can not be read any more; the snapshots stay there
    #[arg(long)]
    drop_damaged: bool,
    #[command(flatten)]
    removal: RemovalArgs,
    #[command(flatten)]
    many: ManyArgs,
}

/// What would be pruned in a location.
struct Would {
    location: Location,
    all: Vec<Pruned>,
    /// In repositories of volumes.
    volumes: Looked,
}

/// What a look through repositories came to.
struct Looked {
    all: Vec<Outcome>,
    /// Done, but where it could not go on.
    exit: Exit,
}

impl Would {
    /// How many would go.
    fn goes(&self) -> usize {
        let goes = |one: &&Pruned| match one {
            Pruned::Kept(..) | Pruned::Failed(..) | Pruned::Unknown(..) => false,
            Pruned::Snapshots(outcome) => outcome.removes(),
            _ => true,
        };
        let volumes = self.volumes.all.iter().filter(|one| one.removes());
        self.all.iter().filter(goes).count() + volumes.count()
    }

    /// Tells all of it, before it is done or instead.
    fn tell(&self, context: &Context, removal: &RemovalArgs) -> Result<()> {
        for one in &self.all {
            told(context, removal, one, "would be pruned")?;
        }
        for outcome in &self.volumes.all {
            tell_volume(context, removal, outcome, true)?;
        }
        Ok(())
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
    let all = attempt(context, args, &location, None).await?;
    let volumes = volumes(context, args, &location, None).await;
    let would = Would {
        location,
        all,
        volumes,
    };
    if would.goes() > 0 && !args.removal.yes && !args.removal.is_dry() && !args.removal.names_only()
    {
        would.tell(context, &args.removal)?;
    }
    Ok(would)
}

/// The same, where what ends it keeps no backup from being pruned: it is told, and the whole is incomplete.
async fn volumes(
    context: &Context,
    args: &PruneArgs,
    location: &Location,
    stop: Option<&Stop>,
) -> Looked {
    match look_through(context, args, location, stop).await {
        Ok(all) => Looked {
            exit: expiry::exit(&all),
            all,
        },
        Err(e) => {
            let e = e
                .into_error()
                .context("repositories of volumes are not looked through");
            context.ui.warn(&e.sentence());
            Looked {
                all: Vec::new(),
                exit: Exit::Incomplete,
            }
        }
    }
}

/// What is to be done in repositories of volumes, whichever backups they are of; nothing where one schedule alone is meant.
async fn look_through(
    context: &Context,
    args: &PruneArgs,
    location: &Location,
    stop: Option<&Stop>,
) -> Result<Vec<Outcome>> {
    if args.schedule.is_some() {
        return Ok(Vec::new());
    }
    let keys = Keys::of_reader(context, location)?;
    let look = Look {
        now: context.now,
        host: &context.host(),
        dry_run: stop.is_none(),
        cluster: context.identity().await?,
        keyring: &keys.ring(),
        stopped: stop,
        came_to: None,
    };
    Ok(volume::expiry::look(location, &look).await?)
}

async fn attempt(
    context: &Context,
    args: &PruneArgs,
    location: &Location,
    stop: Option<&Stop>,
) -> Result<Vec<Pruned>> {
    let reached = csi::reached(context).await;
    let options = PruneOptions {
        now: context.now,
        host: &context.host(),
        dry_run: stop.is_none(),
        keep: args
            .keep
            .map_or(Keep::Unexpired, |keep| Keep::Each(keep as usize)),
        schedule: args.schedule.as_ref().map(Name::as_str),
        cluster: context.identity().await?,
        own_only: false,
        longer: None,
        stopped: stop,
        going: None,
        wanted: None,
        heirs: Some(Heirs {
            cluster: reached.as_ref().ok().copied(),
            stop,
        }),
        leaves: None,
    };
    Ok(catalog::prune(location, &options).await?)
}

/// Does it where that is asked, and tells what became of all.
async fn prune(context: &Context, args: &PruneArgs, would: &Would) -> Result<Exit> {
    let Would { location, all, .. } = would;
    let owed = match args.removal.is_dry() {
        true => Exit::Done,
        false => owed::settle(context, location).await?,
    };
    let nothing = || {
        let place = locations::place(&location.spec);
        let text = format!("nothing to prune in {place}");
        context.ui.note(&text);
    };
    if args.removal.is_dry() {
        would.tell(context, &args.removal)?;
        if would.goes() == 0 {
            nothing();
        }
        let csi = csi::orphans(context, location, true, args.drop_damaged).await?;
        return Ok(many::worst([owed, exit(all), would.volumes.exit, csi]));
    }
    let stop = &context.cancel("what was not come to stays");
    // What is only looked at, or left alone, is not looked at twice.
    let kept = keeps_versions(location, all).await;
    let again;
    let done = match all.iter().any(|one| !is_left(one)) {
        true => {
            again = attempt(context, args, location, Some(stop)).await?;
            &again
        }
        false => all,
    };
    for one in done {
        told(context, &args.removal, one, "pruned")?;
    }
    for name in all
        .iter()
        .filter_map(going)
        .filter(|_| context.is_stopped())
    {
        if !done.iter().any(|one| going(one) == Some(name)) {
            let why = "this was stopped before".to_owned();
            tell(context, &Pruned::Kept(name.clone(), why), "pruned")?;
        }
    }
    context.was_not_stopped()?;
    if would.goes() == 0 {
        nothing();
    }
    if kept {
        context.ui.note("the bucket keeps versions: what was pruned is hidden, and takes its room until a lifecycle rule removes old versions");
    }
    // Whatever went: what was noted before, and space.
    let volumes = volumes(context, args, location, Some(stop)).await;
    for outcome in &volumes.all {
        tell_volume(context, &args.removal, outcome, false)?;
    }
    context.was_not_stopped()?;
    let csi = csi::orphans(context, location, false, args.drop_damaged).await?;
    Ok(many::worst([owed, exit(done), volumes.exit, csi]))
}

/// The backup of which something goes, or would, or can not.
fn going(one: &Pruned) -> Option<&Name> {
    match one {
        Pruned::Expired(name)
        | Pruned::Beyond(name)
        | Pruned::Stale(name)
        | Pruned::StaleClaim(name)
        | Pruned::Kept(name, _)
        | Pruned::Failed(name, _)
        | Pruned::Unknown(name, _) => Some(name),
        Pruned::Snapshots(_) | Pruned::InStorage(..) => None,
    }
}

/// Whether nothing is to be done about it.
fn is_left(one: &Pruned) -> bool {
    matches!(
        one,
        Pruned::Kept(..) | Pruned::Failed(..) | Pruned::Unknown(..)
    )
}

/// What became of a repository of a volume.
fn tell_volume(
    context: &Context,
    removal: &RemovalArgs,
    outcome: &Outcome,
    dry_run: bool,
) -> Result<()> {
    let (how, text) = expiry::sentence(outcome, dry_run);
    match how {
        Told::Done if removal.names_only() => Ok(()),
        Told::Done => context.line(&text),
        Told::Note => {
            context.ui.note(&text);
            Ok(())
        }
        Told::Trouble => {
            context.ui.say(&text);
            Ok(())
        }
    }
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
    let outcomes = done.iter().filter_map(|one| match one {
        Pruned::Snapshots(outcome) => Some(outcome),
        _ => None,
    });
    let is_trouble = |one: &Pruned| matches!(one, Pruned::Failed(..) | Pruned::Unknown(..));
    if done.iter().any(is_trouble) {
        return Exit::Incomplete;
    }
    expiry::exit(outcomes)
}

/// The same after a backup that stands: what lasts until somebody says that a damaged backup may go is told, and makes no backup that succeeded an incomplete one, which a Job would make again.
pub(super) fn exit_after(done: &[Pruned]) -> Exit {
    let passes = |one: &&Pruned| !matches!(one, Pruned::Unknown(..));
    let passing: Vec<_> = done.iter().filter(passes).cloned().collect();
    exit(&passing)
}

/// What became of one, or its name alone.
fn told(context: &Context, removal: &RemovalArgs, one: &Pruned, verb: &str) -> Result<()> {
    match one {
        Pruned::Expired(name) | Pruned::Beyond(name) | Pruned::Stale(name)
            if removal.names_only() =>
        {
            context.line(&format!("backup/{name}"))
        }
        Pruned::StaleClaim(_) | Pruned::InStorage(..) if removal.names_only() => Ok(()),
        Pruned::Snapshots(outcome) => tell_volume(context, removal, outcome, verb != "pruned"),
        _ => tell(context, one, verb),
    }
}

fn tell(context: &Context, one: &Pruned, verb: &str) -> Result<()> {
    let text = sentence(one, verb);
    match one {
        Pruned::Kept(..) | Pruned::InStorage(..) => {
            context.ui.note(&text);
            Ok(())
        }
        Pruned::Failed(..) | Pruned::Unknown(..) => {
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
        Pruned::Failed(name, why) | Pruned::Unknown(name, why) => {
            format!("backup/{name} not pruned: {why}")
        }
        Pruned::Snapshots(outcome) => expiry::sentence(outcome, verb != "pruned").1,
        Pruned::InStorage(name, many) => {
            let many = counted(*many as u64, "snapshot");
            format!("backup/{name}: {many} deleted")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_old_backup_ends_a_prune_incomplete_and_no_backup_that_was_made_before_it() {
        let of = |one: fn(Name, String) -> Pruned| one("old".parse().unwrap(), String::new());
        let [unknown, failed, kept] = [Pruned::Unknown, Pruned::Failed, Pruned::Kept].map(of);
        let both = [unknown.clone(), failed];
        let lasting = [unknown, kept];
        assert_eq!(exit(&lasting), Exit::Incomplete);
        assert_eq!(exit_after(&lasting), Exit::Done);
        // What may pass is the night's own.
        assert_eq!(exit_after(&both), Exit::Incomplete);
    }
}
