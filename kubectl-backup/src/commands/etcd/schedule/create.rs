//! `etcd schedule create`: an EtcdBackupConfig with a schedule.

use backup_core::Error;
use backup_core::api::hosted::{ClusterReference, DeletionPolicy};
use backup_core::api::{EtcdBackupConfig, EtcdBackupConfigSpec};
use backup_core::retention::MOST_KEPT;
use backup_core::schedule::{Preset, Schedule};
use clap::{ArgGroup, Args, ValueEnum};
use serde_json::Value;

use crate::commands::etcd::destination as destinations;
use crate::commands::etcd::objects::{self, meta};
use crate::commands::etcd::request;
use crate::commands::etcd::scope::{ControlPlane, ScopeArgs};
use crate::context::Context;
use crate::flags::{self, DryRun, of_flag};
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::{self, OutputArgs};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd schedule create daily-backup --cluster zvc78xnnz7 --preset daily --keep 7 --destination s3
  kubectl backup etcd schedule create often --cluster zvc78xnnz7 --schedule '@every 20m'
  kubectl backup etcd schedule create nightly --cluster zvc78xnnz7 --schedule @midnight --time-zone Europe/Berlin";

/// `--preset`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Word {
    /// At midnight
    Daily,
    /// At midnight between Saturday and Sunday
    Weekly,
    /// At midnight before the first of the month
    Monthly,
}

impl From<Word> for Preset {
    fn from(word: Word) -> Self {
        match word {
            Word::Daily => Self::Daily,
            Word::Weekly => Self::Weekly,
            Word::Monthly => Self::Monthly,
        }
    }
}

/// `--deletion-policy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// Snapshots stay when the schedule is deleted
    #[value(name = "Retain")]
    Retain,
    /// They are removed with it
    #[value(name = "Delete")]
    Delete,
}

/// Take snapshots of etcd by a schedule
///
/// Makes an EtcdBackupConfig, on which the launcher beside etcd takes snapshots and removes those beyond --keep. Slots that were missed are
/// made up for by one snapshot.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("when").required(true))]
pub(crate) struct CreateArgs {
    /// Name of the EtcdBackupConfig
    name: String,
    /// When: five cron fields such as '0 1 * * *', @daily and the like, or '@every 20m'
    #[arg(long, value_name = "SCHEDULE", group = "when")]
    schedule: Option<String>,
    /// When, in a word
    #[arg(long, value_enum, value_name = "PRESET", group = "when")]
    preset: Option<Word>,
    /// Time zone of the schedule, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// How many snapshots are kept, 1 to 50 [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=MOST_KEPT as i64))]
    keep: Option<i64>,
    /// BackupStorageLocation to store them in [default: the one in the namespace, or the default one of several]
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// What becomes of the snapshots when the schedule is deleted
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        ignore_case = true,
        default_value = "Retain"
    )]
    deletion_policy: Policy,
    /// Print the object that would be made, and make nothing
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: CreateArgs) -> Result<Exit> {
    let preset = args
        .preset
        .map(|word| Preset::from(word).schedule().to_owned());
    let text = args.schedule.clone().or(preset).unwrap_or_default();
    let schedule = of_flag(
        "--schedule",
        Schedule::parse(&text, args.time_zone.as_deref()),
    )?;
    let name = flags::known_name(&args.name)?;
    let plane = scope.control_plane(context).await?;
    let spec = EtcdBackupConfigSpec {
        // KKP's kind wants one.
        name: Some(name.to_string()),
        cluster: ClusterReference::to(&plane.cluster),
        schedule: Some(schedule.to_string()),
        time_zone: args.time_zone.clone(),
        keep: args.keep,
        destination: destination(context, &plane, args.destination.as_deref()).await?,
        deletion_policy: match args.deletion_policy {
            Policy::Retain => DeletionPolicy::Retain,
            Policy::Delete => DeletionPolicy::Delete,
        },
        ..EtcdBackupConfigSpec::default()
    };
    let mut config = EtcdBackupConfig::new(name.as_str(), spec);
    config.metadata = meta(&plane.namespace, name.as_str());
    if args.dry_run == DryRun::Client {
        return request::show(context, &args.output, &config);
    }
    let made = objects::create(context.cluster().await?, &config).await?;
    request::print(context, &args.output, &made, "created")?;
    if let Some(next) = schedule.next(context.now, context.now) {
        context.ui.note(&format!(
            "the first snapshot is due {}",
            output::time(Some(next))
        ));
    }
    Ok(Exit::Done)
}

/// The destination that is named, looked for; else the only one there is, or the default one.
///
/// # Errors
/// A name that is none, with those there are; none or several where none is named.
pub(in crate::commands::etcd) async fn destination(
    context: &Context,
    plane: &ControlPlane,
    asked: Option<&str>,
) -> Result<String> {
    let cluster = context.cluster().await?;
    let names = destinations::names(cluster, &plane.namespace).await;
    match (asked, names) {
        (Some(asked), Some(names)) if !names.iter().any(|name| name == asked) => {
            Err(destinations::missing(asked, &plane.namespace, Some(names)).into())
        }
        (Some(asked), None) => {
            context
                .ui
                .note("whether there is such a destination can not be seen by this user");
            Ok(asked.to_owned())
        }
        (Some(asked), Some(_)) => Ok(asked.to_owned()),
        (None, Some(mut names)) if names.len() == 1 => Ok(names.remove(0)),
        (None, Some(names)) if !names.is_empty() => match default(context, plane, &names).await {
            Some(name) => Ok(name),
            None => Err(CommandError::usage(
                Error::invalid(format!(
                    "namespace {} has several destinations",
                    plane.namespace
                ))
                .hint(format!(
                    "choose one with --destination: {}",
                    names.join(", ")
                )),
            )),
        },
        (None, _) => Err(CommandError::usage(
            Error::invalid(format!(
                "namespace {} has no destination that this user may see",
                plane.namespace
            ))
            .hint("make a BackupStorageLocation there, or name one with --destination"),
        )),
    }
}

/// The one with `spec.default`.
async fn default(context: &Context, plane: &ControlPlane, names: &[String]) -> Option<String> {
    let cluster = context.cluster().await.ok()?;
    let path = format!(
        "/apis/velero.io/v1/namespaces/{}/backupstoragelocations",
        plane.namespace
    );
    let list: Value = serde_json::from_slice(&cluster.get(&path).await.ok()?).ok()?;
    let items = list["items"].as_array()?;
    let found = items.iter().find(|item| item["spec"]["default"] == true)?;
    let name = found["metadata"]["name"].as_str()?.to_owned();
    names.contains(&name).then_some(name)
}
