//! `mover`: what runs beside a volume, and the same between a folder of this machine and a location. Hidden: users see `create` and `restore`, which start it.

mod hold;
mod stored;
mod straight;

use std::io;
use std::path::PathBuf;

use backup_core::Error;
use backup_core::layout::VolumeKeys;
use backup_core::volume::entry::EntryPath;
use backup_core::volume::folder;
use backup_core::volume::source::Trouble;
use backup_core::volume::straight::pod;
use backup_core::volume::wire;
use clap::{Args, Subcommand};

use crate::context::Context;
use backup_cli::error::{Exit, Result};

/// Copy the files of a volume
///
/// Runs in the pod that has the volume, or anywhere with a folder. `list`, `send`, `receive` and `archive` speak over their standard streams; the others go to the location that
/// --location names.
#[derive(Clone, Debug, Args)]
pub(crate) struct MoverArgs {
    #[command(subcommand)]
    command: MoverCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum MoverCommand {
    /// Wait beside a volume, until nobody was heard of for ten minutes
    Hold,
    /// Tell who waits that somebody is there
    Beat,
    /// Tell who waits to end
    End,
    /// List a folder on standard output
    List(FolderArgs),
    /// Send the files that standard input asks for
    Send(FolderArgs),
    /// Bring back into an empty folder what standard input brings
    Receive(ReceiveArgs),
    /// Archive a folder to the store that standard input names, with the credentials that come there
    Archive(FolderArgs),
    /// Copy a folder into the repository of a volume
    Backup(stored::BackupArgs),
    /// Bring one snapshot back into an empty folder
    Restore(stored::RestoreArgs),
    /// List the snapshots of a volume
    Snapshots(stored::SnapshotsArgs),
    /// Look for damage in the repositories of a volume
    Check(stored::CheckArgs),
    /// Remove snapshots by their ids
    Forget(stored::ForgetArgs),
    /// Mark what no snapshot needs, and remove what was marked a day before
    Prune(stored::PruneArgs),
}

#[derive(Clone, Debug, Args)]
struct FolderArgs {
    /// The folder
    folder: PathBuf,
}

#[derive(Clone, Debug, Args)]
struct ReceiveArgs {
    /// The folder
    folder: PathBuf,
    /// Remove everything below the folder first: what a run of the same restore left that died
    #[arg(long)]
    over_own: bool,
}

/// A volume, as its repositories are named.
#[derive(Clone, Debug)]
struct VolumeName(VolumeKeys);

impl std::str::FromStr for VolumeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('/');
        let (Some(cluster), Some(namespace), Some(uid), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::invalid(
                "a volume is named CLUSTER/NAMESPACE/UID: the uids of its cluster and of its claim",
            ));
        };
        VolumeKeys::new(cluster, namespace, uid).map(Self)
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: MoverArgs) -> Result<Exit> {
    hold::be_expendable();
    match args.command {
        MoverCommand::Hold => hold::run().await,
        MoverCommand::Beat => {
            hold::beat();
            Ok(Exit::Done)
        }
        MoverCommand::End => {
            hold::end();
            Ok(Exit::Done)
        }
        MoverCommand::List(args) => {
            hold::beat();
            let ended = on_a_thread(move || {
                let mut to = io::BufWriter::new(io::stdout().lock());
                wire::list(&args.folder, &mut to)
            });
            Ok(tell(context, &ended.await?))
        }
        MoverCommand::Send(args) => {
            hold::beat();
            let ended = on_a_thread(move || {
                let mut to = io::BufWriter::new(io::stdout().lock());
                wire::send(&args.folder, &mut io::stdin().lock(), &mut to)
            });
            Ok(tell(context, &ended.await?))
        }
        MoverCommand::Receive(args) => {
            let ended = on_a_thread(move || {
                if args.over_own {
                    folder::clear(&args.folder)?;
                }
                let mut from = io::BufReader::with_capacity(1 << 20, io::stdin().lock());
                wire::receive(&args.folder, &mut from)
            })
            .await?;
            // One line: whoever sent it reads it.
            let line = serde_json::to_string(&ended)
                .map_err(|e| Error::other("the result can not be written").because(e))?;
            context.ui.line(&line)?;
            Ok(tell(context, &ended))
        }
        MoverCommand::Archive(args) => {
            hold::beat();
            pod::archive(&args.folder, io::stdin(), io::stdout()).await?;
            Ok(Exit::Done)
        }
        MoverCommand::Backup(args) => stored::backup(context, args).await,
        MoverCommand::Restore(args) => stored::restore(context, args).await,
        MoverCommand::Snapshots(args) => stored::snapshots(context, args).await,
        MoverCommand::Check(args) => stored::check(context, args).await,
        MoverCommand::Forget(args) => stored::forget(context, args).await,
        MoverCommand::Prune(args) => stored::prune(context, args).await,
    }
}

/// What waits on streams does not hold up the rest.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::other("the mover ended in a defect").because(e))?
}

fn tell(context: &Context, ended: &wire::Ended) -> Exit {
    named(context, &ended.troubles, ended.trouble_count)
}

/// Names what could not be done.
fn named(context: &Context, troubles: &[Trouble], count: u64) -> Exit {
    for trouble in troubles {
        context
            .ui
            .warn(&format!("{}: {}", trouble.path, trouble.what));
    }
    let more = count - troubles.len() as u64;
    if more > 0 {
        context.ui.warn(&format!("and {more} more"));
    }
    if count == 0 {
        Exit::Done
    } else {
        Exit::Incomplete
    }
}

/// Says this of each of these paths, of which so many are not named.
fn warned(context: &Context, paths: &[EntryPath], count: u64, what: &str) {
    for path in paths {
        context.ui.warn(&format!("{path} {what}"));
    }
    let more = count - paths.len() as u64;
    if more > 0 {
        context.ui.warn(&format!("and {more} more {what}"));
    }
}
