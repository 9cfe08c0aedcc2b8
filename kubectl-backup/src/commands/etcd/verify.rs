//! `etcd verify`: reads a snapshot back and checks it.

use backup_core::etcd::readback;
use backup_core::progress::Progress;
use clap::Args;

use super::find;
use super::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, counted};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd verify daily-backup-2026-11-20t01-00-00
  kubectl backup etcd verify daily-backup-2026-11-20t01-00-00 --location s3://etcd-snapshots";

/// Read a snapshot of etcd back and check every byte of it
///
/// Checks the digest of the stored file, that of the database, its structure, and that it says of itself what the manifest says.
/// Exit code 1 where anything is wrong.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// Name of the snapshot
    name: String,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: VerifyArgs) -> Result<Exit> {
    let ui = &context.ui;
    let found = find::one(context, scope, &args.name).await?;
    let (location, entry) = found.entry(context).await?;
    let bar = ui.progress();
    bar.step("reading the snapshot");
    let problems = readback::verify(&location.store, &entry, &bar).await?;
    drop(bar);
    for problem in &problems {
        ui.line(problem)?;
    }
    let manifest = &entry.manifest;
    if problems.is_empty() {
        ui.line(&format!(
            "snapshot/{} verified: revision {}, {}, sha256 {}",
            manifest.name,
            manifest.facts.revision,
            output::size(manifest.snapshot.bytes),
            manifest.snapshot.sha256
        ))?;
        return Ok(Exit::Done);
    }
    ui.say(&format!(
        "snapshot/{} is damaged: {}",
        manifest.name,
        counted(problems.len() as u64, "problem")
    ));
    Ok(Exit::Failed)
}
