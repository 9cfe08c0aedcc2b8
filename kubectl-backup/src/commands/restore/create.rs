//! `restore create`: bring a backup back, or a part of it, or show what that would do.

mod handed;
mod plan;
mod policy;
mod rewriting;
mod several;

use backup_core::catalog::Entry;
use backup_core::restore::rewriting::Rewriting;
use backup_core::restore::{self, RestoreOptions, RestoreReport, VolumeOptions};
use backup_core::{Error, Kind};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::commands::contents::SpoolArgs;
use crate::commands::owed;
use crate::context::{Context, Place};
use crate::copies::CopyArgs;
use crate::flags::{self, PartArgs};
use crate::in_cluster::InClusterArgs;
use crate::many::ManyArgs;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Format, OutputArgs, count};

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore create --from-backup nightly
  kubectl backup restore create --from-backup nightly --dry-run=client
  kubectl backup restore create --from-backup nightly --existing-resource-policy=apply --dry-run=server
  kubectl backup restore create --from-backup nightly --include-namespaces shop --namespace-mappings shop:shop-copy
  kubectl backup restore create --from-backup nightly --include-resources configmaps --objects shop/settings
  kubectl backup restore create --from-schedule nightly --workspace production --yes";

/// How many names are tried where others that begin in the same second take them.
const NAMES: u32 = 8;

/// `--dry-run`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    /// Do it.
    None,
    /// Look, and show what would be done.
    Client,
    /// Let the server try every step, and show what it would refuse.
    Server,
}

impl DryRun {
    /// As the library takes it; nothing where it is to be done.
    fn meant(self) -> Option<restore::DryRun> {
        match self {
            Self::None => None,
            Self::Client => Some(restore::DryRun::Client),
            Self::Server => Some(restore::DryRun::Server),
        }
    }
}

/// Restore a backup, or a part of it
///
/// Objects that exist are left alone, and no object is deleted, unless --existing-resource-policy says otherwise. Before it begins, it says what
/// the target lacks (storage, ingress, priority and runtime classes, kinds and versions, node ports, rights) and asks; without a terminal that needs
/// --yes. An object may be sent in another version of its kind that the backup holds and the target serves; where that holds less, a warning says so. Names that the backup does not hold are an error; a selector that matches nothing is a warning. A restore that was interrupted goes on where it stopped when the same command is given again. Any backup may be restored into
/// any cluster.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CreateArgs {
    /// Name of the restore [default: the unfinished one of the same options, else BACKUP-<time>]
    name: Option<String>,
    /// Backup to restore
    #[arg(
        long,
        value_name = "BACKUP",
        required_unless_present = "from_schedule",
        conflicts_with = "from_schedule"
    )]
    from_backup: Option<String>,
    /// Restore the newest completed backup of this schedule: this cluster's own, or where it has none those of the one other cluster that has some there
    #[arg(long, value_name = "SCHEDULE")]
    from_schedule: Option<String>,
    /// With --from-schedule: take a partially failed backup too, where it is newer
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", conflicts_with = "from_backup")]
    allow_partially_failed: Option<bool>,
    /// Which objects.
    #[command(flatten)]
    part: PartArgs,
    /// Namespaces to restore under another name, OLD:NEW (comma list, can be repeated)
    #[arg(long, value_name = "OLD:NEW")]
    namespace_mappings: Vec<String>,
    #[command(flatten)]
    policy: policy::PolicyArgs,
    /// Keep all node ports of services
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    preserve_nodeports: Option<bool>,
    /// Make volumes whose data is not in the backup again on the disks that they had in another cluster, only where that is gone for good; with =false their claims are provisioned anew [default: the claims wait]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    adopt_volumes: Option<bool>,
    /// Whether the data of volumes comes back, where the backup has it; with =false claims come back empty, and that is no error
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    restore_volumes: Option<bool>,
    #[command(flatten)]
    copies: CopyArgs,
    /// Print what would be done, object by object, and do nothing; with =server the API server tries every step and tells what it would refuse
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
    /// What is changed on the way.
    #[command(flatten)]
    rewriting: rewriting::RewritingArgs,
    #[command(flatten)]
    spool: SpoolArgs,
    /// Requests at a time.
    #[arg(long, hide = true, default_value_t = 32, env = "KUBECTL_BACKUP_CONCURRENCY", value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
    /// Accepted for Velero's sake: this command always waits.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait: Option<bool>,
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
    let meant = look_up(context, &args).await?;
    if let Some(dry) = args.dry_run.meant() {
        let (exit, plan) = show(context, &args, &meant, dry).await?;
        if let Some(plan) = plan {
            output::print(&context.ui, args.output.output, &plan)?;
        }
        return Ok(exit);
    }
    let report = restore(context, &args, &meant).await?;
    print(context, &args, &report)?;
    tell(context, &meant, &report);
    Ok(exit(&report))
}

/// A backup that was found, and what is asked of it.
struct Meant {
    options: RestoreOptions,
    place: Place,
    entry: Entry,
    /// Whose the backup is, where that is known and it is not this cluster's.
    stranger: Option<String>,
}

impl Meant {
    /// `backup nightly of cluster staging (uid) from s3://backups/prod`
    fn source(&self) -> String {
        let from = locations::place_and_endpoint(&self.place.location.spec);
        let of = self.stranger.as_ref();
        let of = of.map_or_else(String::new, |stranger| format!(" of {stranger}"));
        format!("backup {}{of} from {from}", self.options.backup)
    }
}

async fn look_up(context: &Context, args: &CreateArgs) -> Result<Meant> {
    // Until it is looked up, a schedule's name stands in the place of its backup's.
    let mut options = options(context, args)?;
    let cluster = context.cluster().await?;
    options.volumes.mover = args.copies.of_cluster(cluster).await.movers();
    let (place, entry) = if args.from_schedule.is_some() {
        let partially = args.allow_partially_failed == Some(true);
        let (place, newest) = context.find_of_schedule(&options.backup, partially).await?;
        context.ui.note(&format!(
            "the newest backup of schedule {} is {} of {}",
            options.backup,
            newest.name,
            output::time(newest.backup.status.start_timestamp)
        ));
        options.backup = newest.name.clone();
        (place, newest)
    } else {
        context.find_backup(&options.backup).await?
    };
    let place = context.with_secrets(place, &entry).await?;
    options.rewriting = args.rewriting.asked(context).await?;
    // A name is meant as it stands, whoever can say whose it is.
    let here = context.here(&place).await.ok();
    let stranger = here.and_then(|here| context.stranger(&here, &entry));
    if let Some(stranger) = stranger.as_ref().filter(|_| args.from_backup.is_some()) {
        context.ui.warn(&format!(
            "backup {} is of {stranger}, or of this cluster before it or its Velero was made anew",
            entry.name
        ));
    }
    Ok(Meant {
        options,
        place,
        entry,
        stranger,
    })
}

/// `context "prod" (https://10.0.0.1:6443)`
async fn target(context: &Context) -> Result<String> {
    let cluster = context.cluster().await?;
    Ok(format!(
        "context {:?} ({})",
        cluster.context(),
        cluster.server()
    ))
}

/// Shows what would be done.
async fn show(
    context: &Context,
    args: &CreateArgs,
    meant: &Meant,
    dry: restore::DryRun,
) -> Result<(Exit, Option<Value>)> {
    let (scope, source, target) = (scope(args), meant.source(), target(context).await?);
    context
        .ui
        .note(&format!("planning: {scope} of {source} into {target}"));
    let location = &meant.place.location;
    let options = RestoreOptions {
        of_target: rewriting::of_target(context).await?,
        ..meant.options.clone()
    };
    plan::show(
        context,
        context.cluster().await?,
        location,
        &options,
        dry,
        &args.output,
    )
    .await
}

/// What the target lacks. Up to where somebody is asked a restore only looks.
async fn lacks(context: &Context, meant: &Meant) -> Result<Vec<restore::Lack>> {
    let cluster = context.cluster().await?;
    let location = &meant.place.location;
    let mut options = meant.options.clone();
    let (name, resumed) = restore::decide_name(cluster, location, &options).await?;
    if !resumed {
        options.of_target = rewriting::of_target(context).await?;
    }
    let mut seen = None;
    let mut look = |lacks: &[restore::Lack]| {
        seen = Some(lacks.to_vec());
        Err(Error::new(Kind::Interrupted, "this was a look only"))
    };
    let bar = context.ui.progress();
    let done = restore::restore(cluster, location, &name, &options, &mut look, &bar).await;
    drop(bar);
    match (seen, done) {
        (Some(lacks), _) => Ok(lacks),
        (None, done) => done.map(|_| Vec::new()).map_err(Into::into),
    }
}

/// Does it.
async fn restore(context: &Context, args: &CreateArgs, meant: &Meant) -> Result<RestoreReport> {
    let ui = &context.ui;
    let cluster = context.cluster().await?;
    let place = &meant.place;
    // Whoever restores here may not know that a pod waits to be thawed. What came of that is told, and is not the restore's end.
    owed::settle(context, &place.location).await?;
    let mut options = meant.options.clone();
    let mut looked = false;
    let (scope, source, target) = (scope(args), meant.source(), target(context).await?);
    let bar = ui.progress();
    let (mut agreed, mut refused) = (None, None);
    // Ctrl-C at the question ends the program, for nothing was done.
    let mut consent = |lacks: &[restore::Lack]| {
        if agreed.is_none() {
            if let Err(e) = args.policy.ask(context, &target, lacks) {
                refused = Some(e);
                return Err(Error::new(
                    Kind::Interrupted,
                    "nobody agreed to the restore",
                ));
            }
            agreed = Some(context.cancel("what was restored stays, and the same command goes on"));
        }
        agreed
            .clone()
            .ok_or_else(|| Error::other("nobody agreed to the restore"))
    };
    let mut tries = 0;
    let (name, done) = loop {
        let (name, resumed) = restore::decide_name(cluster, &place.location, &options).await?;
        // One that goes on keeps what it began with, and may have brought ConfigMaps of its own.
        if !resumed && !looked {
            options.of_target = rewriting::of_target(context).await?;
            looked = true;
        }
        let how = if resumed { "goes on" } else { "begins" };
        ui.note(&format!(
            "restore {name} {how}: {scope} of {source} into {target}"
        ));
        let location = &place.location;
        let done = restore::restore(cluster, location, &name, &options, &mut consent, &bar).await;
        tries += 1;
        let taken = matches!(&done, Err(e) if e.kind() == Kind::AlreadyExists);
        if !(taken && options.name.is_none() && tries < NAMES) {
            break (name, done);
        }
        ui.note(&format!("another restore took the name {name}"));
    };
    drop(bar);
    if let Some(refused) = refused {
        return Err(refused);
    }
    let report = done.inspect_err(|e| {
        // What can not be meant fails again, and so does what nobody gave the key of.
        let apart = matches!(meant.entry.apart(), Ok(Some(_)));
        let locked = apart && place.location.apart.is_none() && e.kind() == Kind::Unauthorized;
        if !locked && !matches!(e.kind(), Kind::Invalid | Kind::NotFound) {
            // The schedule may have a newer backup by then.
            let how = match args.from_schedule {
                Some(_) => format!(
                    "give it with --from-backup {} in place of --from-schedule",
                    options.backup
                ),
                None => "give the same command again".to_owned(),
            };
            ui.note(&format!("{how} and restore {name} goes on"));
        }
    })?;
    Ok(report)
}

fn exit(report: &RestoreReport) -> Exit {
    let whole = report.errors.is_empty() && report.counts[3] == 0;
    if whole { Exit::Done } else { Exit::Incomplete }
}

/// What is restored, in words.
fn scope(args: &CreateArgs) -> String {
    let mut scope = args.part.scope();
    if !args.namespace_mappings.is_empty() {
        let mappings = args.namespace_mappings.join(", ");
        scope.push_str(&format!(", namespaces mapped {mappings},"));
    }
    scope
}

fn options(context: &Context, args: &CreateArgs) -> Result<RestoreOptions> {
    let filter = args.part.filter()?;
    let options = RestoreOptions {
        name: args.name.as_deref().map(flags::new_name).transpose()?,
        backup: flags::known_name(
            args.from_backup
                .as_ref()
                .or(args.from_schedule.as_ref())
                .map_or("", String::as_str),
        )?,
        filter,
        namespace_mappings: flags::pairs("--namespace-mappings", ':', &args.namespace_mappings)?,
        existing: args.policy.existing()?,
        preserve_node_ports: args.preserve_nodeports == Some(true),
        adopt_volumes: args.adopt_volumes,
        rewriting: args.rewriting.given()?.rewriting,
        of_target: Rewriting::default(),
        hooks: serde_json::Value::Null,
        restore_volumes: args.restore_volumes,
        volumes: VolumeOptions {
            mover: args.copies.movers(),
            identities: context.identities()?,
        },
        spool_dir: args.spool.folder(context),
        state_dir: context.paths.state().to_owned(),
        concurrency: usize::from(args.concurrency),
        now: context.now,
    };
    options.validate().map_err(CommandError::usage)?;
    Ok(options)
}

fn print(context: &Context, args: &CreateArgs, report: &RestoreReport) -> Result<()> {
    let ui = &context.ui;
    let name = &report.restore.metadata.name;
    match args.output.output {
        Format::Table | Format::Wide => ui.line(&format!("restore/{name} created")),
        Format::Name => ui.line(&format!("restore/{name}")),
        format => output::print(ui, format, &report.restore),
    }
}

/// Tells what is missing and what to do next.
fn tell(context: &Context, meant: &Meant, report: &RestoreReport) {
    let ui = &context.ui;
    let name = &report.restore.metadata.name;
    let [created, updated, skipped, failed] = report.counts;
    ui.note(&format!(
        "{} created, {} updated, {} skipped, {} failed: {}",
        count(created),
        count(updated),
        count(skipped),
        count(failed),
        report.restore.status.phase
    ));
    for error in &report.errors {
        ui.say(&format!("not restored: {error}"));
    }
    for warning in &report.warnings {
        ui.warn(warning);
    }
    if meant.entry.encrypted || meant.place.location.apart.is_some() {
        ui.note(&format!(
            "the record of this restore names what was encrypted: it is in {} alone",
            context.paths.state().display()
        ));
        return;
    }
    let (program, flag) = (&context.program, context.flags_again());
    ui.note(&format!(
        "look at it: {program} restore describe {name} --details{flag}"
    ));
}
