//! The commands that go straight to a location.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use backup_core::Error;
use backup_core::crypt::{Identities, Recipients, SecretString};
use backup_core::location::Location;
use backup_core::location::guard::{self, Coming};
use backup_core::volume::VolumeStore;
use backup_core::volume::folder::{FolderSource, FolderTarget};
use backup_core::volume::key::Keyring;
use backup_core::volume::source::Source;
use backup_core::volume::store::{Base, KEEP_MARKED, Of};
use backup_core::volume::wire::{Asking, WireSource};
use clap::Args;
use serde_json::json;

use super::{VolumeName, named, straight, warned};
use crate::context::Context;
use crate::key_cache::Keys;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::{counted, size};

#[derive(Clone, Debug, Args)]
pub(super) struct KeyArgs {
    /// Folder that keeps the keys which this machine made: without it each run begins a new repository where keys are encrypted
    #[arg(long, value_name = "FOLDER")]
    key_cache: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct BackupArgs {
    /// The folder
    folder: PathBuf,
    /// CLUSTER/NAMESPACE/UID of the claim
    volume: VolumeName,
    /// Name of the backup that it is for
    #[arg(long, value_name = "NAME")]
    backup: String,
    /// Its uid
    #[arg(long, value_name = "UID", default_value = "")]
    backup_uid: String,
    /// Build upon exactly this snapshot rather than upon the newest
    #[arg(long, value_name = "ID", conflicts_with = "force_read")]
    base: Option<String>,
    /// Read every file, whatever the snapshot before says
    #[arg(long)]
    force_read: bool,
    /// Let programs of their own list and send the folder, as a pod does
    #[arg(long)]
    apart: bool,
    /// Let a program of its own archive the folder with credentials that are lent to it, as a pod does
    #[arg(long, conflicts_with_all = ["apart", "base", "force_read"])]
    straight: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct RestoreArgs {
    /// The empty folder
    folder: PathBuf,
    /// CLUSTER/NAMESPACE/UID of the claim
    volume: VolumeName,
    /// The snapshot's exact id
    #[arg(long, value_name = "ID")]
    snapshot: String,
    /// Which repository of the volume
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    repository: u32,
    #[command(flatten)]
    keys: KeyArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct SnapshotsArgs {
    /// CLUSTER/NAMESPACE/UID of the claim
    volume: VolumeName,
    #[command(flatten)]
    keys: KeyArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct CheckArgs {
    /// CLUSTER/NAMESPACE/UID of the claim
    volume: VolumeName,
    /// Read every byte
    #[arg(long)]
    read_data: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ForgetArgs {
    /// CLUSTER/NAMESPACE/UID of the claim
    volume: VolumeName,
    /// Exact ids of snapshots
    #[arg(required = true)]
    snapshots: Vec<String>,
    /// Which repository of the volume
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    repository: u32,
    #[command(flatten)]
    keys: KeyArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct PruneArgs {
    /// CLUSTER/NAMESPACE/UID of the claim
    volume: VolumeName,
    /// Which repository of the volume
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    repository: u32,
    /// How long to keep what is marked: 24h at least
    #[arg(long, value_name = "TIME", default_value = "24h")]
    keep_marked: humantime::Duration,
    #[command(flatten)]
    keys: KeyArgs,
}

/// What opens and seals keys.
struct Opened {
    location: Location,
    recipients: Recipients,
    passphrase: Option<SecretString>,
    identities: Identities,
    cache: Keys,
}

impl Opened {
    async fn new(context: &Context, keys: &KeyArgs, writes: bool) -> Result<Self> {
        let location = if writes {
            context.location_to_write().await?
        } else {
            context.location_to_check().await?
        };
        Ok(Self {
            recipients: Recipients::of_location(&location.spec)?,
            passphrase: context.identity_args().passphrase()?,
            identities: context.identities()?,
            cache: Keys::new(keys.key_cache.as_deref()),
            location,
        })
    }

    fn ring(&self) -> Keyring<'_> {
        Keyring {
            recipients: &self.recipients,
            passphrase: self.passphrase.as_ref(),
            identities: &self.identities,
            cache: &self.cache,
        }
    }

    fn volume(&self, name: &VolumeName) -> VolumeStore {
        VolumeStore::new(&self.location.store, &name.0)
    }
}

/// The two programs of a pod, here.
fn apart(folder: &Path) -> Result<Arc<dyn Source>, Error> {
    let failed = |e: std::io::Error| Error::other("the mover can not be started").because(e);
    let program = std::env::current_exe().map_err(failed)?;
    let start = |verb: &str, stdin: Stdio| -> std::io::Result<Child> {
        Command::new(&program)
            .args(["mover", verb])
            .arg(folder)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
    };
    let mut list = start("list", Stdio::null()).map_err(failed)?;
    let mut send = start("send", Stdio::piped()).map_err(failed)?;
    let missing = || Error::other("the mover has no streams");
    let listing = list.stdout.take().ok_or_else(missing)?;
    let asking = Asking {
        to: Box::new(send.stdin.take().ok_or_else(missing)?),
        from: Box::new(BufReader::with_capacity(
            1 << 20,
            send.stdout.take().ok_or_else(missing)?,
        )),
    };
    let exit = move || {
        for (verb, mut child) in [("list", list), ("send", send)] {
            let status = child
                .wait()
                .map_err(|e| Error::other("the mover can not be awaited").because(e))?;
            if !status.success() {
                return Err(Error::other(format!("`mover {verb}` ended with {status}")));
            }
        }
        Ok(())
    };
    Ok(Arc::new(WireSource::new(
        Box::new(BufReader::with_capacity(1 << 20, listing)),
        asking,
        Box::new(exit),
    )))
}

pub(super) async fn backup(context: &Context, args: BackupArgs) -> Result<Exit> {
    let opened = Opened::new(context, &args.keys, true).await?;
    if opened.recipients.is_empty() {
        // A key in the clear is no better than a plain backup.
        guard::enter(&opened.location, None, Coming::Plain).await?;
    }
    let source: Arc<dyn Source> = if args.apart {
        apart(&args.folder)?
    } else {
        Arc::new(FolderSource::new(&args.folder))
    };
    let base = match (args.base, args.force_read) {
        (Some(id), _) => Base::Exactly(id),
        (None, true) => Base::Nothing,
        (None, false) => Base::Newest,
    };
    let of = Of {
        backup: args.backup,
        uid: args.backup_uid,
        host: context.host(),
    };
    let (volume, ring) = (opened.volume(&args.volume), opened.ring());
    let stop = context.cancel("no snapshot was made");
    let saved = if args.straight {
        straight::archive(&args.folder, &volume, &ring, &of, stop).await?
    } else {
        volume.backup(source, &ring, &of, &base, stop).await?
    };
    if let Some(why) = &saved.begun_because {
        context.ui.warn(&format!(
            "another repository was begun, and everything copied into it: {why}"
        ));
    }
    let counts = &saved.counted;
    let changed = "changed while it was read: it is kept as long as it was listed";
    warned(context, &counts.changed, counts.changed_count, changed);
    let vanished = "was deleted before it was looked at: it is not in the snapshot";
    warned(context, &counts.vanished, counts.vanished_count, vanished);
    context.ui.note(&format!(
        "{}, {}, {} added",
        counted(counts.entries, "entry").replace("entrys", "entries"),
        size(counts.bytes),
        size(saved.added_bytes)
    ));
    let line = json!({
        "repository": saved.repository,
        "snapshot": saved.snapshot,
        "base": saved.base,
        "run": saved.run,
        "entries": counts.entries,
        "files": counts.files,
        "bytes": counts.bytes,
        "readBytes": counts.read_bytes,
        "addedBytes": saved.added_bytes,
        "changedWhileRead": counts.changed_count,
        "vanished": counts.vanished_count,
        "began": saved.began,
    });
    context.ui.line(&line.to_string())?;
    Ok(Exit::Done)
}

pub(super) async fn restore(context: &Context, args: RestoreArgs) -> Result<Exit> {
    let opened = Opened::new(context, &args.keys, false).await?;
    let target = FolderTarget::new(&args.folder)?;
    let target = opened
        .volume(&args.volume)
        .restore(args.repository, &args.snapshot, &opened.ring(), target)
        .await?;
    let restored = target.restored();
    let line = json!({
        "entries": restored.entries,
        "files": restored.files,
        "bytes": restored.bytes,
        "troubles": restored.trouble_count,
    });
    context.ui.line(&line.to_string())?;
    Ok(named(context, &restored.troubles, restored.trouble_count))
}

/// The volume's repositories.
async fn repositories(opened: &Opened, name: &VolumeName) -> Result<Vec<u32>> {
    let numbers = opened.volume(name).repositories().await?;
    if numbers.is_empty() {
        return Err(Error::not_found(format!(
            "there is no repository of volume {} in {}",
            name.0.repository().trim_end_matches('/'),
            opened.location.store.place()
        ))
        .hint("look at the uids of the cluster and of the claim, and at the location")
        .into());
    }
    Ok(numbers)
}

/// One that fails does not keep the others from being looked at.
fn failed(context: &Context, number: u32, error: &Error) {
    context
        .ui
        .warn(&format!("repository {number}: {}", error.sentence()));
}

/// At the end, what was not looked at.
fn ended(context: &Context, failed: &[u32], of: usize, exit: Exit) -> Exit {
    if failed.is_empty() {
        return exit;
    }
    let numbers: Vec<_> = failed.iter().map(u32::to_string).collect();
    context.ui.warn(&format!(
        "{} of {of} repositories could not be looked at: {}",
        failed.len(),
        numbers.join(", ")
    ));
    Exit::Failed
}

pub(super) async fn snapshots(context: &Context, args: SnapshotsArgs) -> Result<Exit> {
    let opened = Opened::new(context, &args.keys, false).await?;
    let volume = opened.volume(&args.volume);
    let numbers = repositories(&opened, &args.volume).await?;
    let mut unseen = Vec::new();
    for number in &numbers {
        let found = match volume.list(*number, &opened.ring()).await {
            Ok(found) => found,
            Err(e) => {
                failed(context, *number, &e);
                unseen.push(*number);
                continue;
            }
        };
        for snapshot in found {
            let line = json!({
                "repository": number,
                "snapshot": snapshot.id,
                "time": snapshot.time,
                "tags": snapshot.tags,
                "ours": snapshot.is_ours,
            });
            context.ui.line(&line.to_string())?;
        }
    }
    Ok(ended(context, &unseen, numbers.len(), Exit::Done))
}

pub(super) async fn check(context: &Context, args: CheckArgs) -> Result<Exit> {
    let opened = Opened::new(context, &args.keys, false).await?;
    let volume = opened.volume(&args.volume);
    let numbers = repositories(&opened, &args.volume).await?;
    let (mut exit, mut unseen) = (Exit::Done, Vec::new());
    for number in &numbers {
        let found = match volume.check(*number, &opened.ring(), args.read_data).await {
            Ok(found) => found,
            Err(e) => {
                failed(context, *number, &e);
                unseen.push(*number);
                continue;
            }
        };
        for problem in &found {
            context
                .ui
                .line(&format!("repository {number}: {problem}"))?;
            exit = Exit::Failed;
        }
    }
    Ok(ended(context, &unseen, numbers.len(), exit))
}

pub(super) async fn forget(context: &Context, args: ForgetArgs) -> Result<Exit> {
    let opened = Opened::new(context, &args.keys, true).await?;
    let stop = context.cancel("nothing more is removed, and the next one goes on");
    opened
        .volume(&args.volume)
        .until(Some(&stop))
        .forget(args.repository, &args.snapshots, &context.host())
        .await?;
    Ok(Exit::Done)
}

pub(super) async fn prune(context: &Context, args: PruneArgs) -> Result<Exit> {
    let keep: Duration = args.keep_marked.into();
    if keep < KEEP_MARKED {
        return Err(CommandError::usage(
            Error::invalid("what is marked is kept for 24 hours at least")
                .hint("a backup that was begun before it was marked may still need it"),
        ));
    }
    let opened = Opened::new(context, &args.keys, true).await?;
    let stop = context.cancel("nothing more is removed, and the next one goes on");
    let pruned = opened
        .volume(&args.volume)
        .until(Some(&stop))
        .prune(args.repository, &opened.ring(), &context.host(), keep)
        .await?;
    let line = json!({
        "markedBytes": pruned.marked_bytes,
        "waitingBytes": pruned.waiting_bytes,
        "removedBytes": pruned.removed_bytes,
        "keptUntil": context.now.checked_add(keep).ok(),
    });
    context.ui.line(&line.to_string())?;
    Ok(Exit::Done)
}
