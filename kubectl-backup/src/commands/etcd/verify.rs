//! `etcd verify`: reads a snapshot back and checks it.

use backup_core::etcd::readback;
use backup_core::progress::Progress;
use clap::Args;
use serde::Serialize;

use super::find;
use super::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Document, Format, counted};

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
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// What was found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    snapshot: String,
    /// Whether nothing is wrong.
    verified: bool,
    revision: i64,
    bytes: u64,
    sha256: String,
    problems: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: VerifyArgs) -> Result<Exit> {
    let ui = &context.ui;
    let found = find::one(context, scope, &args.name).await?;
    let (location, entry) = found.unlocked(context).await?;
    let bar = ui.progress();
    bar.step("reading the snapshot");
    let problems = readback::verify(&location.store, &entry, &bar).await?;
    drop(bar);
    let manifest = &entry.manifest;
    let verified = Verified {
        snapshot: manifest.name.clone(),
        verified: problems.is_empty(),
        revision: manifest.facts.revision,
        bytes: manifest.snapshot.bytes,
        sha256: manifest.snapshot.sha256.clone(),
        problems,
    };
    match args.output {
        Format::Table | Format::Wide => tell(context, &verified)?,
        Format::Name => ui.line(&format!("snapshot/{}", manifest.name))?,
        format => output::print(
            ui,
            format,
            &Document::new("SnapshotVerification", &verified),
        )?,
    }
    if verified.verified {
        return Ok(Exit::Done);
    }
    ui.say(&format!(
        "snapshot/{} is damaged: {}",
        manifest.name,
        counted(verified.problems.len() as u64, "problem")
    ));
    Ok(Exit::Failed)
}

fn tell(context: &Context, verified: &Verified) -> Result<()> {
    if !verified.verified {
        return verified
            .problems
            .iter()
            .try_for_each(|problem| context.ui.line(problem));
    }
    context.ui.line(&format!(
        "snapshot/{} verified: revision {}, {}, sha256 {}",
        verified.snapshot,
        verified.revision,
        output::size(verified.bytes),
        verified.sha256
    ))
}
