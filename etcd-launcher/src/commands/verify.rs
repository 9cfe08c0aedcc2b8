//! `verify`: reads a snapshot whole and checks it.

use std::path::PathBuf;

use backup_cli::encryption::IdentityArgs;
use backup_cli::error::{Exit, Result};
use backup_cli::locations::LocationArgs;
use backup_cli::output::{self, counted};
use backup_cli::ui::Ui;
use backup_core::etcd::{Database, Facts, HashKv, LiveDigest, Trailer};
use backup_core::progress::Progress;
use backup_core::{Error, Kind};
use clap::Args;
use serde::Serialize;

use super::describe::{IN_USE, Machine};
use super::origin::paths;
use crate::source::{Limits, Source, blocking, unnamed};

const EXAMPLES: &str = "\
Examples:
  etcd-launcher verify snapshot.db
  etcd-launcher verify 's3://backups/cluster-xyz/nightly.db.gz?region=eu-1' --spool-dir /var/tmp";

/// Read a snapshot whole and check it
///
/// Checks the SHA-256 at its end, every page of its trees, that every key is a revision and that every value decodes. Shows the digest over the live
/// keys, and the hash that `etcdctl endpoint hashkv` shows of a member with the same data. What is packed or lies in a store is unpacked into a
/// file without a name first. Exit code 1 where anything is wrong.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// File or URL of the snapshot
    #[arg(value_name = "FILE|URL")]
    snapshot: String,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Folder with space for the snapshot, where it has to be unpacked; it is gone afterwards
    #[arg(long, value_name = "FOLDER")]
    spool_dir: Option<PathBuf>,
    /// How the result is printed, in place of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Machine>,
}

/// The result for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    snapshot: String,
    /// Whether nothing is wrong.
    ok: bool,
    problems: Vec<String>,
    /// Whether the snapshot brings a checksum of its own.
    has_trailer: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    facts: Facts,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<LiveDigest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_kv: Option<HashKv>,
}

/// Runs the command.
pub(crate) async fn run(ui: &Ui, location: &LocationArgs, args: &VerifyArgs) -> Result<Exit> {
    let identities = args.identity.read(&paths())?;
    let source = Source::parse(&args.snapshot, location, identities).await?;
    let source = source.encrypted(args.identity.is_named());
    if source.is_in_use() {
        ui.warn(IN_USE);
    }
    let bar = ui.progress();
    let database = match source.in_place()? {
        Some(database) => database,
        None => spool(&source, args, &bar).await?,
    };
    bar.step(&format!("checking {source}"));
    bar.expect_bytes(4 * database.bytes());
    let verified = blocking(|| verify(&source, &database, &bar))?;
    drop(bar);
    let exit = if verified.ok {
        Exit::Done
    } else {
        Exit::Failed
    };
    if !verified.has_trailer {
        ui.note("it has no checksum at its end, as files out of a data directory have none: what was altered and still fits is not noticed");
    }
    if let Some(machine) = args.output {
        output::print(ui, machine.into(), &verified)?;
        return Ok(exit);
    }
    for problem in &verified.problems {
        ui.line(problem)?;
    }
    match (&verified.digest, &verified.hash_kv) {
        (Some(digest), Some(hash)) if verified.ok => ui.line(&format!(
            "{source} verified: {} at revision {}, {}\nSHA-256 of its live keys {}\nHashKV {} at revision {}, {}",
            counted(digest.keys, "key"),
            digest.revision,
            output::size(verified.facts.bytes),
            digest.sha256,
            hash.hash,
            hash.revision,
            if hash.compact_revision < 0 {
                "never compacted".to_owned()
            } else {
                format!("compacted up to {}", hash.compact_revision)
            },
        ))?,
        _ => ui.say(&format!(
            "{source} is damaged: {}",
            counted(verified.problems.len() as u64, "problem")
        )),
    }
    Ok(exit)
}

/// Brings a snapshot that can not be read where it is into a file without a name.
async fn spool(source: &Source, args: &VerifyArgs, progress: &dyn Progress) -> Result<Database> {
    let default = paths();
    let folder = args.spool_dir.as_deref().unwrap_or(default.spool());
    let (file, writer) = unnamed(folder)?;
    source.bring(writer, &Limits::default(), progress).await?;
    Ok(Database::from_file(file, &source.to_string())?)
}

fn verify(
    source: &Source,
    database: &Database,
    progress: &dyn Progress,
) -> Result<Verified, Error> {
    let mut problems = Vec::new();
    let sha256 = match database.check_trailer(progress) {
        Ok(sha256) => Some(sha256),
        Err(altered) if altered.kind() == Kind::Corrupt => {
            problems.push(altered.to_string());
            None
        }
        Err(error) => return Err(error),
    };
    let examined = database.examine(progress)?;
    problems.extend(examined.problems);
    let ok = problems.is_empty();
    // Of what is damaged there is no digest that could be compared with anything.
    let hash_kv = ok.then(|| database.hash_kv(None, progress)).transpose()?;
    Ok(Verified {
        snapshot: source.to_string(),
        ok,
        problems,
        has_trailer: database.trailer() != Trailer::None,
        sha256,
        facts: examined.facts,
        digest: ok.then_some(examined.digest),
        hash_kv,
    })
}
