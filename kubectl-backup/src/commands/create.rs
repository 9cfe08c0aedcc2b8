//! `create`: back up now.

mod asked;
mod copies;
mod handed;
mod several;
mod sign;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::api::{Backup, BackupSpec, Phase};
use backup_core::backup::{self, BackupOptions, BackupReport, CopyOptions};
use backup_core::catalog::SCHEDULE_NAME;
use backup_core::crypt::{Encrypt, Identities, Recipients};
use backup_core::filter::Filter;
use backup_core::{Kind, name::Name};
use clap::Args;

use self::asked::AskedArgs;
use crate::commands::owed;
use crate::context::Context;
use crate::copies::{CopyArgs, Keys};
use crate::encryption::{EncryptArgs, RecipientArgs, Sealing};
use crate::flags::{self, DryRun, FilterArgs, VolumeArgs};
use crate::in_cluster::InClusterArgs;
use crate::key_cache;
use crate::many::{self, ManyArgs};
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Format, OutputArgs};

pub(crate) use sign::signing_key;

const EXAMPLES: &str = "\
Examples:
  kubectl backup create
  kubectl backup create nightly --ttl 30d
  kubectl backup create web -n shop --selector app=web
  kubectl backup create shop -n shop --default-volumes-to-fs-backup
  kubectl backup create --from-schedule nightly --keep 7
  kubectl backup create --dry-run=client --exclude-namespaces kube-system
  kubectl backup create --recipients-file team.pub
  kubectl backup create --recipients-file team.pub --encrypt secrets
  kubectl backup create --contexts prod-eu,prod-us --location offsite
  kubectl backup create --in-cluster=auto";

/// Back up the cluster, or a part of it, now
///
/// Reads every object that the filters let through, at one point in time, and writes a backup that Velero can read too.
/// Without filters the whole cluster is saved. Files of volumes are copied where they are asked for; each claim is named with what became of its data.
/// The work is done where this program runs, or with --in-cluster by a controller.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CreateArgs {
    /// Name of the backup [default: backup-<time>, or <schedule>-<time>]
    name: Option<String>,
    /// What a generated name begins with, where a workspace says it.
    #[arg(skip)]
    stem: Option<String>,
    /// Which objects.
    #[command(flatten)]
    filter: FilterArgs,
    /// Cluster-scoped kinds to take (comma list, can be repeated)
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        help_heading = "Which objects",
        hide_short_help = true
    )]
    include_cluster_scoped_resources: Vec<String>,
    /// Cluster-scoped kinds to leave out (comma list, can be repeated)
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        help_heading = "Which objects",
        hide_short_help = true
    )]
    exclude_cluster_scoped_resources: Vec<String>,
    /// Namespaced kinds to take (comma list, can be repeated)
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        help_heading = "Which objects",
        hide_short_help = true
    )]
    include_namespace_scoped_resources: Vec<String>,
    /// Namespaced kinds to leave out (comma list, can be repeated)
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        help_heading = "Which objects",
        hide_short_help = true
    )]
    exclude_namespace_scoped_resources: Vec<String>,
    /// Leave out events, leases, endpoints and endpoint slices
    #[arg(long, help_heading = "Which objects")]
    skip_noise: bool,
    /// What else, in Velero's words.
    #[command(flatten)]
    asked: AskedArgs,
    /// Labels of the backup, key=value (comma list, can be repeated)
    #[arg(long, value_name = "LABELS")]
    labels: Vec<String>,
    /// Annotations of the backup, key=value (comma list, can be repeated)
    #[arg(long, value_name = "ANNOTATIONS")]
    annotations: Vec<String>,
    /// How long the backup is kept: 720h, 30d or never [default: 720h]
    #[arg(
        long,
        value_name = "DURATION",
        env = "KUBECTL_BACKUP_TTL",
        hide_env_values = true
    )]
    ttl: Option<String>,
    /// Until when the backup is kept: 2027-01-31 or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "DATE")]
    expires: Option<String>,
    /// Which volumes.
    #[command(flatten)]
    volumes: VolumeArgs,
    /// Read all kinds at one revision
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    point_in_time: bool,
    /// File with the Ed25519 private key (PKCS#8, PEM) that signs the backup [default: the one that its location remembers]
    #[arg(
        long,
        value_name = "FILE",
        env = "KUBECTL_BACKUP_SIGNING_KEY_FILE",
        hide_env_values = true,
        hide_short_help = true
    )]
    signing_key_file: Option<PathBuf>,
    /// Print the backup that would be made, and make none
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
    /// Accepted for Velero's sake: this command always waits.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait: Option<bool>,
    #[command(flatten)]
    copies: CopyArgs,
    #[command(flatten)]
    recipients: RecipientArgs,
    #[command(flatten)]
    encrypt: EncryptArgs,
    #[command(flatten)]
    in_cluster: InClusterArgs,
    #[command(flatten)]
    many: ManyArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: CreateArgs) -> Result<Exit> {
    if let Some(many) = args.many.resolve(context)? {
        return several::run(context, &args, &many).await;
    }
    if let Some(exit) = handed::run(context, &args).await? {
        return Ok(exit);
    }
    let ui = &context.ui;
    if args.dry_run == DryRun::Client {
        let marker = planned(context, &args).await?;
        return match args.output.output {
            Format::Name => ui.line(&format!("backup/{}", marker.metadata.name)),
            Format::Table | Format::Wide => output::print(ui, Format::Yaml, &marker),
            format => output::print(ui, format, &marker),
        }
        .map(|()| Exit::Done);
    }
    let made = make(context, &args).await?;
    summary::print(context, &args.output, &made.report)?;
    summary::tell(context, &made.report, made.took);
    Ok(exit(&made))
}

/// What came of it.
struct Made {
    report: BackupReport,
    took: Duration,
    /// Of what was owed to pods before it, of its copies, and of what was pruned after it.
    after: Exit,
}

/// The backup that would be made.
async fn planned(context: &Context, args: &CreateArgs) -> Result<Backup> {
    let (options, location) = asked::resolve(context, args).await?;
    let location = match location {
        Some(name) => name,
        None => context.location_name().await?,
    };
    Ok(backup::planned(&options, &location))
}

/// Makes it.
async fn make(context: &Context, args: &CreateArgs) -> Result<Made> {
    let ui = &context.ui;
    let (mut options, location) = asked::resolve(context, args).await?;
    let cluster = context.cluster().await?;
    let mut location = match location {
        Some(name) => context.location_named(&name).await?,
        None => context.location_to_write().await?,
    };
    sign::ready(&mut location, args.signing_key_file.as_deref())?;
    let Sealing {
        location,
        recipients,
        encrypt,
    } = context.sealed(location, &args.recipients, args.encrypt)?;
    ui.note(&format!(
        "backing up {} of context {:?} ({}) to {}",
        scope(args, &options),
        cluster.context(),
        cluster.server(),
        locations::place_and_endpoint(&location.spec)
    ));
    if !recipients.is_empty() {
        let who = recipients.fingerprints().join(", ");
        ui.note(&match encrypt {
            Encrypt::All => format!("encrypted for {who}; Velero can not read it"),
            Encrypt::Secrets => {
                format!("Secrets are encrypted for {who}; Velero restores the rest")
            }
        });
    }
    let copies = args.copies.of_cluster(cluster).await;
    options.copies = Some(Arc::new(copying(context, &copies, &recipients)?));
    let is_seen = recipients.is_empty() || encrypt == Encrypt::Secrets;
    if location.shared_with_velero
        && is_seen
        && let Some(warning) = short_lived(&options)
    {
        ui.warn(&warning);
    }
    // A pod may wait to be thawed since before.
    let owed = owed::settle(context, &location).await?;
    let began = Instant::now();
    let cancel = context.cancel("nothing half-written stays");
    let bar = ui.progress();
    let mut made = backup::create(cluster, &location, &options, cancel.clone(), &bar).await;
    if args.name.is_none() && matches!(&made, Err(e) if e.kind() == Kind::AlreadyExists) {
        options.name = suffixed(&options.name)?;
        made = backup::create(cluster, &location, &options, cancel, &bar).await;
    }
    drop(bar);
    let report = made?;
    let took = began.elapsed();
    // The backup stands, whatever comes of its copies and of the others.
    let copied = copies::make(context, &location, &options.name).await;
    let copied = copied.unwrap_or_else(|e| {
        ui.error(&e);
        Exit::Incomplete
    });
    let pruned = args.asked.prune(context, &location).await;
    let pruned = pruned.unwrap_or_else(|e| {
        ui.error(&e);
        Exit::Incomplete
    });
    Ok(Made {
        report,
        took,
        after: many::worst([owed, copied, pruned]),
    })
}

/// How volumes are copied: their keys are encrypted for whom the backup is.
fn copying(context: &Context, copies: &CopyArgs, recipients: &Recipients) -> Result<CopyOptions> {
    let is_sealed = !recipients.is_empty();
    let folder = context.paths.volume_keys();
    let keys = Keys {
        recipients: recipients.clone(),
        passphrase: match is_sealed {
            true => context.identity_args().passphrase()?,
            false => None,
        },
        identities: match is_sealed {
            true => context.identities()?,
            false => Identities::default(),
        },
        cache: Arc::new(key_cache::Keys::new(is_sealed.then_some(folder.as_path()))),
    };
    Ok(copies.options(keys, None))
}

/// What `prune` promises of a schedule's newest backup, Velero does not: it deletes whatever is expired.
fn short_lived(options: &BackupOptions) -> Option<String> {
    let schedule = options.labels.get(SCHEDULE_NAME)?;
    let end = options.expires?;
    Some(format!(
        "Velero, whose location this is, deletes this backup at {end:.0}, even where it is the newest good one of schedule {schedule}: \
         --ttl never keeps it"
    ))
}

fn exit(made: &Made) -> Exit {
    let report = &made.report;
    let whole = report.errors.is_empty() && report.backup.status.phase == Phase::Completed;
    if whole {
        made.after
    } else {
        many::worst([made.after, Exit::Incomplete])
    }
}

/// What is saved, in words: every flag that leaves something out is in it.
fn scope(args: &CreateArgs, options: &BackupOptions) -> String {
    let mut scope = match &args.asked.from_schedule {
        Some(schedule) if options.filter.all_namespaces() => {
            format!("the whole cluster as schedule {schedule} says")
        }
        Some(schedule) => format!(
            "namespaces {} as schedule {schedule} says",
            if options.filter.namespaces.is_empty() {
                format!("but for {}", options.filter.not_namespaces.join(", "))
            } else {
                options.filter.namespaces.join(", ")
            }
        ),
        None => args.filter.scope(),
    };
    for (words, kinds) in [
        (
            "of cluster-scoped kinds only",
            &args.include_cluster_scoped_resources,
        ),
        ("without", &args.exclude_cluster_scoped_resources),
        (
            "of namespaced kinds only",
            &args.include_namespace_scoped_resources,
        ),
        ("without", &args.exclude_namespace_scoped_resources),
    ] {
        if !kinds.is_empty() {
            scope.push_str(&format!(", {words} {}", kinds.join(", ")));
        }
    }
    if args.skip_noise {
        scope.push_str(", without events, leases and endpoints");
    }
    scope
}

fn options(context: &Context, args: &CreateArgs) -> Result<BackupOptions> {
    let schedule = args.asked.from_schedule.as_ref().map(Name::as_str);
    let stem = schedule.or(args.stem.as_deref()).unwrap_or("backup");
    let name = match &args.name {
        Some(name) => flags::new_name(name)?,
        None => flags::new_name(&flags::generated_name(stem, context.now))?,
    };
    let filter = filter(args)?;
    filter.validate().map_err(CommandError::usage)?;
    let mut annotations = flags::pairs("--annotations", '=', &args.annotations)?;
    args.volumes.annotate(&mut annotations);
    Ok(BackupOptions {
        name,
        filter,
        single_namespace: args.filter.namespace.is_some(),
        expires: flags::expiry(
            args.ttl.as_deref().filter(|_| args.expires.is_none()),
            args.expires.as_deref(),
            context.now,
        )?,
        labels: flags::pairs("--labels", '=', &args.labels)?,
        annotations,
        snapshot_volumes: args.volumes.snapshots(),
        policies: None,
        copies: None,
        template: BackupSpec::default(),
        exact: args.point_in_time,
        host: context.host(),
        process: context.process(),
        now: context.now,
    })
}

/// Which objects, not yet validated.
fn filter(args: &CreateArgs) -> Result<Filter> {
    let mut filter = args.filter.filter()?;
    filter
        .cluster_resources
        .clone_from(&args.include_cluster_scoped_resources);
    filter
        .not_cluster_resources
        .clone_from(&args.exclude_cluster_scoped_resources);
    filter
        .namespaced_resources
        .clone_from(&args.include_namespace_scoped_resources);
    filter
        .not_namespaced_resources
        .clone_from(&args.exclude_namespace_scoped_resources);
    filter.skip_noise = args.skip_noise;
    Ok(filter)
}

/// Another name for the same second.
fn suffixed(name: &Name) -> Result<Name> {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::hash::RandomState::new().build_hasher().finish();
    flags::new_name(&format!("{name}-{:04x}", random & 0xffff))
}
