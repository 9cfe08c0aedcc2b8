//! `copy`: a whole backup into another location.

use std::path::PathBuf;

use backup_core::copy::{self, Copied, CopyOptions};
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::{Error, catalog};
use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::flags;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Document, Format, counted};

const EXAMPLES: &str = "\
Examples:
  kubectl backup copy nightly --to offsite
  kubectl backup copy nightly --location prod --to 'gs://second-copies/prod' --to-credentials-file ./key.json
  kubectl backup copy nightly --to offsite -o json";

/// Copy a whole backup to another location, of any provider
///
/// All of its files, byte for byte, each checked against SHA256SUMS on the way; Velero's backups as well. The copy is a backup as any other: listed,
/// verified, restored, expired and deleted in its own location. Where the copy stands already, nothing is done. An interrupted copy leaves no backup, and
/// begins again. What a backup of Velero's holds elsewhere, such as volume snapshots, is not copied: that is told, and needs --without-volumes. Nor are the files
/// of volumes that a backup of this program has in repositories: that is told, and the exit code is 3, unless --without-volumes says that it is fine.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CopyArgs {
    /// Name of the backup
    name: String,
    /// Location to copy it to: a name from `location get`, or a URL
    #[arg(long, value_name = "NAME|URL")]
    to: String,
    /// Copy the objects alone, where data of volumes lies elsewhere
    #[arg(long)]
    without_volumes: bool,
    /// File with the credentials of the location that is copied to, where it was not remembered with any; --credentials-file is for the one that is read
    #[arg(long, value_name = "FILE")]
    to_credentials_file: Option<PathBuf>,
    /// CA to trust for the location that is copied to, PEM; --cacert is for the one that is read
    #[arg(long, value_name = "FILE")]
    to_cacert: Option<PathBuf>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// What came of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    backup: &'a str,
    from: &'a str,
    to: &'a str,
    /// Whether anything was written: the same copy may have stood before.
    copied: bool,
    files: u64,
    bytes: u64,
    /// Whether files of volumes lie in repositories, which were not copied.
    lacks_volumes: bool,
    /// Whether the location does not know that snapshots of the copy are the original's.
    lacks_note: bool,
    warnings: &'a [String],
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: CopyArgs) -> Result<Exit> {
    let ui = &context.ui;
    let name = flags::known_name(&args.name)?;
    let target = context
        .other_location(&args.to, args.to_credentials_file, args.to_cacert)
        .await?;
    let (place, entry) = context.look_up_backup(&name).await?;
    let source = &place.location;
    refuse_same(source, &target)?;
    ui.note(&format!(
        "copying backup {} from {} to {}",
        entry.name,
        locations::place_and_endpoint(&source.spec),
        locations::place_and_endpoint(&target.spec)
    ));
    warn_expired(context, &entry);
    // Whose a backup of Velero's is, the folder knows in which it lies, if anybody does.
    let cluster = place.cluster.clone();
    let done = copy_to(
        context,
        source,
        &target,
        &name,
        cluster,
        args.without_volumes,
    )
    .await?;
    for warning in &done.warnings {
        ui.warn(warning);
    }
    tell(
        context,
        args.output,
        entry.name.as_str(),
        source,
        &target,
        &done,
    )?;
    Ok(exit(&done))
}

/// A copy of a backup that lacks the files of its volumes is not the whole of it; one that its location will not let go by itself is no whole one either.
pub(super) fn exit(done: &Copied) -> Exit {
    match done.lacks_volumes || done.lacks_note {
        true => Exit::Incomplete,
        false => Exit::Done,
    }
}

/// Copies it and shows how far it is; the first Ctrl-C takes everything back.
pub(super) async fn copy_to(
    context: &Context,
    source: &Location,
    target: &Location,
    name: &Name,
    cluster: Option<String>,
    without_volumes: bool,
) -> Result<Copied> {
    let options = CopyOptions {
        name: name.clone(),
        without_volumes,
        cluster,
        host: context.host(),
    };
    let cancel = context.cancel("nothing half-written stays");
    let bar = context.ui.progress();
    Ok(copy::copy(source, target, &options, cancel, &bar).await?)
}

/// Two locations that are spelled alike; the library finds those that are not.
fn refuse_same(source: &Location, target: &Location) -> Result<()> {
    let place = |location: &Location| locations::place_and_endpoint(&location.spec);
    if place(source) != place(target) {
        return Ok(());
    }
    Err(CommandError::usage(
        Error::invalid(format!(
            "the backup is in {} already: a copy there would be no second one",
            place(target)
        ))
        .hint("name another location with --to, or the one to copy from with --location"),
    ))
}

/// What is expired is the first to go where it is copied to.
fn warn_expired(context: &Context, entry: &catalog::Entry) {
    let end = entry.backup.expiration();
    if let Some(end) = end.filter(|end| *end <= context.now) {
        context.ui.warn(&format!(
            "backup {} is expired since {end:.0}: the next `prune` of the location that it is copied to may remove it there",
            entry.name
        ));
    }
}

fn tell(
    context: &Context,
    format: Format,
    name: &str,
    source: &Location,
    target: &Location,
    done: &Copied,
) -> Result<()> {
    let ui = &context.ui;
    let verb = if done.stood {
        "stands already in"
    } else {
        "copied to"
    };
    match format {
        Format::Table | Format::Wide => ui.line(&format!(
            "backup/{name} {verb} {}: {}, {}",
            target.name,
            counted(done.files, "file"),
            output::size(done.bytes)
        )),
        Format::Name => ui.line(&format!("backup/{name}")),
        format => {
            let told = Told {
                backup: name,
                from: &source.name,
                to: &target.name,
                copied: !done.stood,
                files: done.files,
                bytes: done.bytes,
                lacks_volumes: done.lacks_volumes,
                lacks_note: done.lacks_note,
                warnings: &done.warnings,
            };
            output::print(ui, format, &Document::new("BackupCopy", &told))
        }
    }
}
