//! `delete`: removes backups from their location.

use backup_core::catalog::{self, Entry, Here, Maker};
use backup_core::location::guard::Guard;
use backup_core::location::kept::Kept;
use backup_core::location::{Location, Store};
use backup_core::name::Name;
use backup_core::records::snapshots::Owned;
use backup_core::snapshot::known::{About, Known};
use backup_core::volume::expiry::Outcome;
use backup_core::{Error, Kind, records, volume};
use clap::Args;
use tokio::sync::watch;

use super::{csi, owed};
use crate::context::{Context, Place};
use crate::expiry;
use crate::flags::{self, RemovalArgs};
use crate::many;
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
/// and its versions stay until the lock ends. Where no guard keeps clusters apart, as in a location that Velero uses, a
/// backup of another cluster is deleted where the question that names that cluster is answered, or with --force. Its snapshots of volumes' files are
/// forgotten; that needs no key. Where one can not be, the backup is deleted all the same, and the next prune tries again.
/// Its snapshots of volumes in their storage are deleted first; where one can not be, the backup is kept, or with --force
/// nothing is known of that snapshot from then on. So --force does with those of a backup that is gone already.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// Names of backups
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    removal: RemovalArgs,
    /// Delete even where something would stay behind elsewhere, or where the backup may be another cluster's
    #[arg(long)]
    force: bool,
}

/// A backup that goes.
struct Going {
    name: Name,
    /// Where its files are.
    store: Store,
    /// Whose it is, where it is not known to be this cluster's and no guard says so.
    other: Option<String>,
    /// What its bucket keeps of it; nothing where it does not tell.
    kept: Option<Kept>,
    /// What it has in repositories of volumes.
    owned: Owned,
    /// What is known of its snapshots in their storage.
    cuts: About,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DeleteArgs) -> Result<Exit> {
    let location = context.location_to_write().await?;
    let mut found = Vec::new();
    let mut lost = Vec::new();
    for name in &args.names {
        let name = flags::known_name(name)?;
        // Nothing is deleted before every name was found.
        let entry = match catalog::get(&location.store, &name).await {
            // Its snapshots may be known still.
            Err(e)
                if e.kind() == Kind::NotFound
                    && args.force
                    && csi::is_lost(&location, &name).await? =>
            {
                lost.push(name);
                continue;
            }
            found => found?,
        };
        if !args.force && catalog::is_at_work(&entry.backup) {
            return Err(Error::other(format!(
                "backup {:?} is in phase {}: Velero is at work on it and would write parts of it anew",
                name.as_str(),
                entry.backup.status.phase
            ))
            .hint("wait until `kubectl backup get` shows it finished; --force where that Velero is gone")
            .into());
        }
        if !found.iter().any(|other: &Entry| other.name == name) {
            found.push(entry);
        }
    }
    let agreed = args.removal.asks_nothing();
    // Whose a location is that has a guard, it says; where there is none, each backup has to.
    let here = match context.guard(&location, "delete", agreed).await? {
        Guard::Open => Some(context.here(&Place::of(&location)).await?),
        Guard::Ours | Guard::Unknown | Guard::Other(_) => None,
    };
    for name in &lost {
        csi::disown(context, &location, name, &args.removal).await?;
    }
    if found.is_empty() {
        return Ok(Exit::Done);
    }
    let known = Known::read(&location.store).await?;
    let mut going = Vec::new();
    for entry in found {
        let other = here
            .as_ref()
            .and_then(|here| whose(context, &location, here, &entry));
        refuse_unasked(&args, &entry.name, other.as_deref())?;
        if let Some(other) = other.as_ref().filter(|_| args.removal.is_dry()) {
            context
                .ui
                .warn(&format!("backup/{} is of {other}", entry.name));
        }
        let store = entry.store(&location.store);
        // An encrypted one is ours: nothing of it is elsewhere.
        if !entry.encrypted {
            refuse_leaks(context, &location, &args, &entry.name).await?;
        }
        let kept = kept(context, &store, &args, &entry.name).await?;
        let owned = owned(context, &store, &args, &entry.name).await?;
        let names = owned.as_ref().map(|owned| &owned.cuts[..]);
        let cuts = known.about(&location.store, &entry.name, names).await?;
        if let Some(lacks) = cuts.lacks().filter(|_| args.removal.is_dry()) {
            context.ui.warn(&format!("backup/{}: {lacks}", entry.name));
        }
        going.push(Going {
            store,
            name: entry.name,
            other,
            kept,
            owned: owned.unwrap_or_default(),
            cuts,
        });
    }
    let question = format!(
        "delete {} from {}?",
        list(&going),
        locations::place(&location.spec)
    );
    let agreed = args.removal.agreed(&context.ui, &question)?;
    let (mut exit, mut stop) = (Exit::Done, None);
    if agreed {
        exit = owed::settle(context, &location).await?;
        stop = Some(context.cancel("what was not come to stays"));
    }
    let mut gone = Owned::default();
    let mut failed = Ok(());
    for one in &going {
        if context.is_stopped() {
            let text = format!("backup/{} stays: this was stopped before", one.name);
            context.ui.note(&text);
            continue;
        }
        if agreed {
            match csi::expire(context, &location, &one.name, &one.cuts, args.force).await {
                Ok(true) => {}
                Ok(false) => {
                    exit = Exit::Incomplete;
                    continue;
                }
                Err(e) => {
                    failed = Err(e);
                    break;
                }
            }
        }
        if agreed {
            failed = catalog::delete(&one.store, &one.name, &context.host()).await;
        }
        // What went before has left its snapshots.
        if failed.is_err() {
            break;
        }
        if agreed {
            // It is gone: what stays of this is found by whoever looks for orphans.
            let _ = one.cuts.bury(&location.store).await;
        }
        gone.files.extend(one.owned.files.iter().cloned());
        let how = match &one.kept {
            Some(kept) if kept.is_locked(context.now) => {
                format!("hidden (the bucket keeps its versions, {kept})")
            }
            Some(kept) if kept.versions => "hidden (the bucket keeps its versions)".to_owned(),
            Some(_) | None => "deleted".to_owned(),
        };
        let title = format!("backup/{}", one.name);
        args.removal.tell(&context.ui, &title, &how)?;
    }
    let snapshots = snapshots(context, &location, gone, stop.as_ref()).await?;
    failed?;
    context.was_not_stopped()?;
    Ok(many::worst([exit, snapshots]))
}

/// Forgets the snapshots of backups that are gone, where there is what stops it, and tells it. Their space is a prune's: it may take long, and no backup of the volume is made meanwhile.
async fn snapshots(
    context: &Context,
    location: &Location,
    mut gone: Owned,
    stop: Option<&watch::Receiver<bool>>,
) -> Result<Exit> {
    let (store, host) = (&location.store, context.host());
    let forgotten = match stop {
        Some(_) => volume::expiry::forget(store, &mut gone, &host, stop).await,
        None => volume::expiry::would_forget(&gone),
    };
    let mut exit = Exit::Done;
    for outcome in &forgotten {
        let (_, text) = expiry::sentence(outcome, stop.is_none());
        if outcome.removes() {
            context.ui.note(&text);
            continue;
        }
        // Whoever asked for it hears that it is not done, for whatever reason.
        exit = Exit::Incomplete;
        context.ui.warn(&format!(
            "{text}; `kubectl backup prune` finds what no backup names, and forgets it a day later"
        ));
    }
    if forgotten.iter().any(is_left) {
        context.ui.note(
            "the space is marked by the next `kubectl backup prune`, and freed by one a day later",
        );
    }
    Ok(exit)
}

/// Whether others' snapshots stay in the repository: what no one needs there any more takes its room until a prune.
fn is_left(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Forgotten { .. })
}

/// What the backup has in repositories of volumes, and in their storage. Where that can not be told it is deleted only where that is asked for.
async fn owned(
    context: &Context,
    store: &Store,
    args: &DeleteArgs,
    name: &Name,
) -> Result<Option<Owned>> {
    match records::snapshots::owned(store, name).await {
        Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {
            let e = e.context(format!(
                "which snapshots of volumes backup {:?} has can not be told",
                name.as_str()
            ));
            if !args.force {
                let hint = "--force deletes it all the same: prune finds what no backup names, and forgets it a day later";
                return Err(e.hint(hint).into());
            }
            context.ui.warn(&e.sentence());
            Ok(None)
        }
        owned => Ok(Some(owned?)),
    }
}

/// `a, b (of cluster prod-eu)`
fn list(going: &[Going]) -> String {
    let named = going.iter().map(|one| match &one.other {
        Some(other) => format!("{} (of {other})", one.name),
        None => one.name.to_string(),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// Whose a backup is, where it is not known to be this cluster's.
fn whose(context: &Context, location: &Location, here: &Here, entry: &Entry) -> Option<String> {
    let hidden = location.shared_with_velero
        && catalog::names_us(&entry.backup)
        && here.maker(entry) == Maker::Unsaid;
    let unsaid = || hidden.then(|| "a cluster that it does not name".to_owned());
    context.stranger(here, entry).or_else(unsaid)
}

/// Who is asked reads whose it is; who asked for no question may not know.
fn refuse_unasked(args: &DeleteArgs, name: &Name, other: Option<&str>) -> Result<()> {
    let Some(other) = other.filter(|_| args.removal.yes && !args.force) else {
        return Ok(());
    };
    Err(Error::new(
        Kind::Forbidden,
        format!(
            "backup {:?} is of {other}, and not known to be this cluster's",
            name.as_str()
        ),
    )
    .hint("no guard keeps clusters apart there: delete it by its own cluster, or add --force")
    .into())
}

async fn refuse_leaks(
    context: &Context,
    location: &Location,
    args: &DeleteArgs,
    name: &Name,
) -> Result<()> {
    let leaks = match catalog::leaks(&location.store, name).await {
        Err(e) if args.force && e.kind() == Kind::Corrupt => vec![e.sentence()],
        leaks => leaks?,
    };
    for leak in &leaks {
        context.ui.warn(&format!("backup/{name}: {leak}"));
    }
    if leaks.is_empty() || args.force {
        return Ok(());
    }
    Err(Error::other(format!(
        "backup {:?} holds data elsewhere that would stay behind",
        name.as_str()
    ))
    .hint("let Velero delete it, or add --force and remove the rest by hand")
    .into())
}

/// What the bucket keeps of it; what is locked, or may be, is hidden only where that is asked for.
async fn kept(
    context: &Context,
    store: &Store,
    args: &DeleteArgs,
    name: &Name,
) -> Result<Option<Kept>> {
    match catalog::kept(store, name).await {
        Ok(kept) if kept.is_locked(context.now) && !args.force => Err(Error::new(
            Kind::Forbidden,
            format!("backup {:?} is {kept}: the bucket keeps it", name.as_str()),
        )
        .hint("delete it after that; --force hides it now, and all of its versions stay in the bucket")
        .into()),
        Ok(kept) => Ok(Some(kept)),
        Err(_) if args.force => Ok(None),
        Err(e) => Err(e
            .context(format!(
                "the bucket does not tell whether backup {:?} is locked",
                name.as_str()
            ))
            .hint("--force deletes it all the same; where it is locked that hides it, and its versions stay")
            .into()),
    }
}
