//! `etcd download`: a snapshot as a file that etcdutl takes.

use std::path::PathBuf;

use backup_core::etcd::readback;
use backup_core::progress::Progress;
use backup_core::{Error, Kind};
use clap::Args;

use super::find;
use super::scope::ScopeArgs;
use crate::commands::download::{exists, publish};
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::locations::file;
use backup_cli::output;

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd download daily-backup-2026-11-20t01-00-00
  kubectl backup etcd download daily-backup-2026-11-20t01-00-00 --output-file /tmp/snapshot.db --force";

/// Download a snapshot of etcd
///
/// The file is what `etcdctl snapshot save` writes: `etcdutl snapshot restore` takes it. It holds every object of the cluster, Secrets among
/// them: only its owner may read it. It is checked before it gets its name.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DownloadArgs {
    /// Name of the snapshot
    name: String,
    /// File to write [default: NAME.db]
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// Replace the file where it exists
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: DownloadArgs) -> Result<Exit> {
    let found = find::one(context, scope, &args.name).await?;
    let target = args
        .output_file
        .unwrap_or_else(|| PathBuf::from(format!("{}.db", found.name)));
    if !args.force && target.exists() {
        return Err(exists(&target).into());
    }
    let (location, entry) = found.unlocked(context).await?;
    let mut part = target.clone().into_os_string();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let refused =
        |e: std::io::Error| Error::other(format!("can not write {}", part.display())).because(e);
    let bar = context.ui.progress();
    bar.step(&format!("downloading {}", target.display()));
    let out = file::create_private(&part).map_err(refused)?;
    let written = tokio::select! {
        written = readback::write(&location.store, &entry, out, &bar) => written,
        true = interrupted() => Err(Error::new(Kind::Interrupted, "interrupted; nothing was written")),
    };
    drop(bar);
    let written = written.and_then(|()| publish(&part, &target, args.force));
    if written.is_err() {
        // The error says what went wrong.
        let _ = std::fs::remove_file(&part);
    }
    written?;
    context.ui.line(&format!(
        "snapshot/{} downloaded to {} ({})",
        found.name,
        target.display(),
        output::size(entry.manifest.snapshot.bytes)
    ))?;
    Ok(Exit::Done)
}
