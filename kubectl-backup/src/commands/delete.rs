//! `delete`: removes backups from their location.

use backup_core::catalog::{self, Entry, Here, Maker};
use backup_core::layout::BackupKeys;
use backup_core::location::guard::Guard;
use backup_core::location::kept::Kept;
use backup_core::location::{Location, Store};
use backup_core::name::Name;
use backup_core::{Error, Kind};
use clap::Args;

use super::owed;
use crate::context::{Context, Place};
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
/// and its versions stay until the lock ends. Where no guard keeps clusters apart, as in a location that Velero uses, a
/// backup of another cluster is deleted where the question that names that cluster is answered, or with --force. Snapshots of volumes' files stay in their
/// repositories, which is told.
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
    /// What of it stays in repositories of volumes.
    stays: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DeleteArgs) -> Result<Exit> {
    let location = context.location_to_write().await?;
    let mut found = Vec::new();
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
        let stays = stays(&location.store, &entry, args.force).await?;
        going.push(Going {
            store,
            name: entry.name,
            other,
            kept,
            stays,
        });
    }
    let question = format!(
        "delete {} from {}?",
        list(&going),
        locations::place(&location.spec)
    );
    let agreed = args.removal.agreed(&context.ui, &question)?;
    let mut exit = Exit::Done;
    if agreed {
        exit = owed::settle(context, &location).await?;
    }
    for Going {
        name,
        store,
        kept,
        stays,
        ..
    } in &going
    {
        if agreed {
            catalog::delete(store, name, &context.host()).await?;
        }
        let how = match kept {
            Some(kept) if kept.is_locked(context.now) => {
                format!("hidden (the bucket keeps its versions, {kept})")
            }
            Some(kept) if kept.versions => "hidden (the bucket keeps its versions)".to_owned(),
            Some(_) | None => "deleted".to_owned(),
        };
        let title = format!("backup/{name}");
        args.removal.tell(&context.ui, &title, &how)?;
        if let Some(stays) = stays {
            context.ui.note(&format!("{title}: {stays}"));
        }
    }
    Ok(exit)
}

/// What of a backup stays in repositories of volumes, in words.
async fn stays(store: &Store, entry: &Entry, force: bool) -> Result<Option<String>> {
    if entry.encrypted {
        // Which they are is sealed, and whoever deletes needs no key.
        let key = BackupKeys::new(&entry.name).volumes();
        return match store.vault(None).head(&key).await {
            Ok(_) => Ok(Some(
                "snapshots of volumes that it has stay in their repositories".to_owned(),
            )),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        };
    }
    match catalog::copies_elsewhere(store, &entry.name).await {
        Err(e) if force && matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => Ok(Some(format!(
            "which snapshots of volumes stay can not be told: {}",
            e.sentence()
        ))),
        told => Ok(told?),
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
