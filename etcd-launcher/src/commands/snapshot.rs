//! `snapshot`: takes a snapshot of a live etcd into a location, an object or a file.

mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_cli::encryption::{PassphraseArgs, RecipientArgs};
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::locations::LocationArgs;
use backup_cli::output::{self, Description, Format, OutputArgs, counted};
use backup_cli::ui::Ui;
use backup_core::Kind;
use backup_core::etcd::manifest::{Compression, Manifest};
use backup_core::etcd::sealed::Encryption;
use backup_core::etcd::take::{AskHashKv, Options, Taken, take};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::members::MemberArgs;
use target::Place;

const EXAMPLES: &str = "\
Examples:
  etcd-launcher snapshot /backup/etcd.db
  etcd-launcher snapshot --location s3://backups/prod --cluster zvc78xnnz7 --name before-upgrade
  etcd-launcher snapshot /backup/etcd.db.zst.age --recipients-file team.pub
  etcd-launcher snapshot s3://backups/etcd.db.zst?region=eu-1 --endpoints https://10.0.0.1:2379,https://10.0.0.2:2379 \\
    --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt --key /etc/kubernetes/pki/etcd/server.key";

/// Take a snapshot of a live etcd
///
/// Takes it from a healthy member that has caught up, rather from a follower than from the leader, and checks it on the way: the digest that
/// etcd sends with it and every page that is in use. It becomes visible when it is whole, and never before. Into a location it is written
/// compressed, with a manifest that says what it is, and encrypted where the location has recipients; a file or a single object is exactly what
/// `etcdctl snapshot save` writes, compressed where its name ends with .zst, and a file of age for --recipient where it ends with .age.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SnapshotArgs {
    /// File or URL of the object to write, in place of a location
    #[arg(value_name = "FILE|URL")]
    target: Option<String>,
    /// Name of the snapshot in the location [default: snapshot-<time>]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Name of the cluster in the location
    #[arg(
        long,
        value_name = "NAME",
        env = "KUBECTL_BACKUP_CLUSTER",
        hide_env_values = true
    )]
    cluster: Option<String>,
    /// Which members.
    #[command(flatten)]
    members: MemberArgs,
    /// Replace the file where it exists
    #[arg(long)]
    force: bool,
    /// Take it even where no member sees a leader: it may lack what others have
    #[arg(long, hide_short_help = true)]
    without_quorum: bool,
    /// How it is stored
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "HOW",
        hide_short_help = true
    )]
    compression: Packing,
    /// Folder for what a slow store does not take in time (an unnamed file; without it a slow store ends the snapshot)
    #[arg(
        long,
        value_name = "FOLDER",
        env = "KUBECTL_BACKUP_SPOOL_DIR",
        hide_short_help = true,
        hide_env_values = true
    )]
    spool_dir: Option<PathBuf>,
    /// How long a slow store may hold etcd up [default: 60s, or the time that 20 MB/s take]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, hide_short_help = true)]
    hold_limit: Option<Duration>,
    /// Whether the member counts its HashKV for the manifest; auto: where it has too little data to notice
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_short_help = true
    )]
    hash_kv: When,
    /// For whom it is encrypted.
    #[command(flatten, next_help_heading = "Encryption")]
    recipients: RecipientArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `--compression`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Packing {
    /// zstd in a location and where the name ends with .zst
    #[default]
    Auto,
    /// Always.
    Zstd,
    /// Never.
    None,
}

/// `--hash-kv`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum When {
    /// Where nobody notices.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Runs the command.
pub(crate) async fn run(ui: Arc<Ui>, location: &LocationArgs, args: SnapshotArgs) -> Result<Exit> {
    let now = Timestamp::now();
    let mut place = Place::of(&args, location, now)?;
    let recipients = place.recipients.and(&args.recipients.read()?)?;
    let encryption = Encryption::of(recipients, args.passphrase.passphrase()?);
    let encryption = encryption.map_err(CommandError::usage)?;
    for note in &place.notes {
        ui.note(note);
    }
    place.suits(encryption.is_some())?;
    if encryption.is_none() {
        place.takes_plain().await?;
    }
    let mut options = Options::new(
        args.members.endpoints(),
        args.members.access()?,
        concat!("etcd-launcher v", env!("CARGO_PKG_VERSION")),
    );
    options.without_quorum = args.without_quorum;
    options.compression = match args.compression {
        Packing::Zstd => Compression::Zstd,
        Packing::Auto if place.is_packed() => Compression::Zstd,
        Packing::Auto | Packing::None => Compression::None,
    };
    options.encryption = encryption;
    options.spool.clone_from(&args.spool_dir);
    options.hold_limit = args.hold_limit;
    options.hash_kv = match args.hash_kv {
        When::Auto => AskHashKv::Harmless,
        When::Always => AskHashKv::Always,
        When::Never => AskHashKv::Never,
    };
    let cancel = cancel(Arc::clone(&ui));
    let began = Instant::now();
    let bar = ui.progress();
    let mut taken = take(&options, &place.target, cancel.clone(), &bar).await;
    // Two of the same second, under a name that nobody chose.
    if matches!(&taken, Err(e) if e.kind() == Kind::AlreadyExists) && place.rename() {
        taken = take(&options, &place.target, cancel, &bar).await;
    }
    drop(bar);
    let taken = taken?;
    print(&ui, &args.output, &place, &taken, began.elapsed())?;
    if let Some(encryption) = &options.encryption {
        let whom = encryption.fingerprints().join(", ");
        ui.note(&format!(
            "it is encrypted for {whom}: nobody reads it without one of their keys"
        ));
    }
    Ok(Exit::Done)
}

/// The first Ctrl-C (or SIGTERM) asks the work to stop; the second one stops at once.
fn cancel(ui: Arc<Ui>) -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        if interrupted().await {
            ui.say("stopping; what was sent is removed (press Ctrl-C again to stop at once)");
            // The work may be over already.
            let _ = stop.send(true);
        }
        if interrupted().await {
            ui.warn("stopped at once: what was sent may be left, without a name");
            std::process::exit(Exit::Interrupted as i32);
        }
        // Dropping the sender would look like an answer.
        std::future::pending::<()>().await;
    });
    stopped
}

/// What `-o json` prints: the manifest, and where the snapshot is.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(rename = "where")]
    place: String,
    #[serde(flatten)]
    manifest: &'a Manifest,
}

fn print(ui: &Ui, output: &OutputArgs, place: &Place, taken: &Taken, took: Duration) -> Result<()> {
    let manifest = &taken.manifest;
    match output.output {
        Format::Name => ui.line(&place.name())?,
        Format::Json | Format::Yaml => output::print(
            ui,
            output.output,
            &Printed {
                place: place.shown(manifest),
                manifest,
            },
        )?,
        Format::Table | Format::Wide => {
            ui.line(&format!("{} saved", place.name()))?;
            ui.line(&describe(place, manifest))?;
        }
    }
    if taken.spooled {
        ui.note("the store was slow: a part of it went through the spool");
    }
    ui.note(&format!("took {}", output::took(took)));
    Ok(())
}

fn describe(place: &Place, manifest: &Manifest) -> String {
    let (facts, data, etcd) = (&manifest.facts, &manifest.data, &manifest.etcd);
    let mut text = Description::default();
    text.field(1, "Where", place.shown(manifest));
    text.field(1, "Revision", facts.revision.to_string());
    let keys = match (facts.keys.live, facts.keys.exact) {
        (Some(live), true) => output::count(live),
        (Some(live), false) => format!("about {}", output::count(live)),
        (None, _) => "not counted".to_owned(),
    };
    let revisions = counted(facts.keys.revisions, "revision");
    text.field(1, "Keys", format!("{keys} ({revisions})"));
    let stored = match data.compression {
        Compression::None => String::new(),
        _ => format!(", stored in {}", output::size(data.bytes)),
    };
    let size = output::size(manifest.snapshot.bytes);
    let used = output::size(facts.bytes_in_use);
    text.field(1, "Size", format!("{size}, {used} in use{stored}"));
    text.field(1, "SHA-256", &manifest.snapshot.sha256);
    if manifest.data.compression != Compression::None {
        text.field(1, "SHA-256 as stored", &data.sha256);
    }
    if let Some(hash) = &manifest.hash_kv {
        text.field(1, "HashKV", hash.hash.to_string());
    }
    let name = if etcd.member_name.is_empty() {
        &etcd.member_id
    } else {
        &etcd.member_name
    };
    let role = if etcd.leader { "leader" } else { "follower" };
    text.field(
        1,
        "Member",
        format!(
            "{name} at {} ({role}), etcd {}",
            etcd.endpoint, etcd.version
        ),
    );
    text.render()
}

/// A usage error.
fn usage(error: backup_core::Error) -> CommandError {
    CommandError::usage(error)
}
