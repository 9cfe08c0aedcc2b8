//! `schedule create`: a Schedule object.

use std::collections::BTreeMap;

use backup_core::Error;
use backup_core::api::{API_VERSION, BackupSpec};
use backup_core::backup::{EVERY, KEEP};
use backup_core::location::object;
use backup_core::name::Name;
use backup_core::schedule::{Past, Preset, Schedule};
use clap::{ArgGroup, Args, ValueEnum};
use serde_json::{Value, json};

use super::objects;
use crate::context::Context;
use crate::flags::{self, DryRun, FilterArgs, VolumeArgs, of_flag};
use crate::template::Template;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::{self, Format, OutputArgs};

const EXAMPLES: &str = "\
Examples:
  kubectl backup schedule create nightly --preset daily --keep 7
  kubectl backup schedule create shop --schedule '0 1 * * *' --time-zone Europe/Berlin -n shop --ttl 90d
  kubectl backup schedule create slow --preset two-weeks --location offsite
  kubectl backup schedule create often --schedule '@every 6h' --dry-run";

/// `--preset`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Word {
    /// At midnight
    Daily,
    /// At midnight between Saturday and Sunday
    Weekly,
    /// The same every second week
    TwoWeeks,
    /// At midnight before the first of the month
    Monthly,
    /// The same every second month
    TwoMonths,
}

impl Word {
    /// The schedule, and which of its slots count.
    fn meant(self) -> (Preset, u32) {
        match self {
            Self::Daily => (Preset::Daily, 1),
            Self::Weekly => (Preset::Weekly, 1),
            Self::TwoWeeks => (Preset::Weekly, 2),
            Self::Monthly => (Preset::Monthly, 1),
            Self::TwoMonths => (Preset::Monthly, 2),
        }
    }
}

/// Make backups by a schedule
///
/// Makes a Schedule; `kubectl backup controller` makes its backups. Slots that were missed are made up for by one backup, and no backup begins while the last one
/// of the schedule is at work. Expired backups go, but never the newest good one of a schedule.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("when").required(true))]
pub(super) struct CreateArgs {
    /// Name of the schedule; its backups are called NAME-<time>
    name: String,
    /// When: five cron fields such as '0 1 * * *', @daily and the like, or '@every 6h'
    #[arg(long, value_name = "WHEN", group = "when")]
    schedule: Option<String>,
    /// When, in a word
    #[arg(long, value_enum, value_name = "PRESET", group = "when")]
    preset: Option<Word>,
    /// Time zone of the schedule, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// How many good backups stay; older ones go before they expire [default: all that are not expired]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// How long each backup is kept: 720h or 30d [default: 720h]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Which objects.
    #[command(flatten)]
    filter: FilterArgs,
    /// ConfigMap in the controller's namespace with resource policies
    #[arg(long, value_name = "NAME", value_parser = Name::foreign, help_heading = "Which objects")]
    resource_policies_configmap: Option<Name>,
    /// Which volumes.
    #[command(flatten)]
    volumes: VolumeArgs,
    /// Labels of the schedule and its backups, key=value (comma list, can be repeated)
    #[arg(long, value_name = "LABELS")]
    labels: Vec<String>,
    /// Annotations of the schedule and its backups, key=value (comma list, can be repeated)
    #[arg(long, value_name = "ANNOTATIONS")]
    annotations: Vec<String>,
    /// Make it paused
    #[arg(long)]
    paused: bool,
    /// Let the objects of its backups go with the schedule (backups in the bucket bring them back)
    #[arg(long, hide_short_help = true)]
    use_owner_references_in_backup: bool,
    /// Print the object that would be made, and make nothing
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(super) async fn run(context: &Context, namespace: &str, args: CreateArgs) -> Result<Exit> {
    let (times, every) = args.times()?;
    let object = args.object(namespace, context.asked_location(), &times, every)?;
    if args.dry_run == DryRun::Client {
        let format = match args.output.output {
            Format::Name => return print(context, &args.output, &object),
            Format::Json => Format::Json,
            _ => Format::Yaml,
        };
        output::print(&context.ui, format, &object)?;
        return Ok(Exit::Done);
    }
    if let Some(location) = context.asked_location() {
        look_for(context, namespace, location).await?;
    }
    let made = objects::create(context, namespace, "schedules", &object).await?;
    print(context, &args.output, &made)?;
    let new = Past {
        created: context.now,
        taken: None,
        skipped: None,
    };
    if let Some(next) = times.next_of(every, &new, context.now)
        && !args.paused
    {
        context.ui.note(&format!(
            "the first backup is due {}",
            output::time(Some(next))
        ));
    }
    Ok(Exit::Done)
}

impl CreateArgs {
    /// When, and which of the slots count.
    fn times(&self) -> Result<(Schedule, u32)> {
        let (text, every) = match (self.preset, &self.schedule) {
            (Some(word), _) => {
                let (preset, every) = word.meant();
                (preset.schedule().to_owned(), every)
            }
            (None, text) => (text.clone().unwrap_or_default(), 1),
        };
        let zone = self.time_zone.as_deref();
        let times = of_flag("--schedule", Schedule::parse(&text, zone))?;
        let Some(zone) = zone else {
            return Ok((times, every));
        };
        // The kind has no field for it.
        let zoned = format!("CRON_TZ={zone} {text}");
        Ok((of_flag("--schedule", Schedule::parse(&zoned, None))?, every))
    }

    /// The Schedule.
    fn object(
        &self,
        namespace: &str,
        location: Option<&str>,
        times: &Schedule,
        every: u32,
    ) -> Result<Value> {
        let name = flags::new_name(&self.name)?;
        // Its backups have to be named.
        if flags::new_name(&format!("{name}-20261121020000")).is_err() {
            return Err(CommandError::usage(
                Error::invalid(format!("name {:?} is too long", self.name))
                    .hint("its backups are called NAME-<time>, and 63 characters are the most: give it 48 at most"),
            ));
        }
        let mut annotations = flags::pairs("--annotations", '=', &self.annotations)?;
        self.volumes.annotate(&mut annotations);
        if every > 1 {
            annotations.insert(EVERY.to_owned(), every.to_string());
        }
        if let Some(keep) = self.keep {
            annotations.insert(KEEP.to_owned(), keep.to_string());
        }
        let template = serde_json::to_value(self.template(location)?)
            .map_err(|e| Error::other("the template can not be written").because(e))?;
        let mut object = json!({
            "apiVersion": API_VERSION,
            "kind": "Schedule",
            "metadata": {"name": name.as_str(), "namespace": namespace},
            "spec": {"schedule": times.as_str(), "template": template, "paused": self.paused},
        });
        let labels = flags::pairs("--labels", '=', &self.labels)?;
        let mut put = |key: &str, map: BTreeMap<String, String>| {
            if !map.is_empty() {
                object["metadata"][key] = json!(map);
            }
        };
        put("labels", labels);
        put("annotations", annotations);
        if self.use_owner_references_in_backup {
            object["spec"]["useOwnerReferencesInBackup"] = true.into();
        }
        Ok(object)
    }

    /// What its backups hold.
    fn template(&self, location: Option<&str>) -> Result<BackupSpec> {
        Template {
            filter: self.filter.filter()?,
            is_one_namespace: self.filter.namespace.is_some(),
            policies: self.resource_policies_configmap.as_ref(),
            order: None,
            volumes: self.volumes.clone(),
            ttl: self.ttl.as_deref(),
            location,
        }
        .spec()
    }
}

/// Sees that the location is there, as far as this user may look.
async fn look_for(context: &Context, namespace: &str, location: &str) -> Result<()> {
    let cluster = context.cluster().await?;
    let Ok(all) = object::list(cluster, Some(namespace)).await else {
        context
            .ui
            .note("whether there is such a location can not be seen by this user");
        return Ok(());
    };
    let names: Vec<_> = all.iter().map(|one| one.metadata.name.as_str()).collect();
    if names.contains(&location) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "location {location} is not in namespace {namespace}"
    ))
    .hint(if names.is_empty() {
        "there is none: make a BackupStorageLocation there".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    })
    .into())
}

fn print(context: &Context, output: &OutputArgs, made: &Value) -> Result<Exit> {
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    match output.output {
        Format::Table | Format::Wide => context.ui.line(&format!("schedule/{name} created"))?,
        Format::Name => context.ui.line(&format!("schedule/{name}"))?,
        format => output::print(&context.ui, format, made)?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    fn asked(words: &[&str], location: Option<&str>) -> Result<Value> {
        let words = [&["create"], words].concat();
        let Line { args } = Line::try_parse_from(words)
            .map_err(|e| CommandError::usage(Error::invalid(e.to_string())))?;
        let (times, every) = args.times()?;
        args.object("ns", location, &times, every)
    }

    #[test]
    fn a_schedule_is_made_as_velero_has_it_and_a_word_stands_for_a_schedule() {
        let made = asked(
            &[
                "nightly",
                "--preset",
                "two-weeks",
                "--keep",
                "7",
                "-n",
                "shop",
                "--ttl",
                "2d",
                "--labels",
                "a=b",
                "-l",
                "app=web",
                "--default-volumes-to-fs-backup",
                "--ephemeral-movers",
            ],
            Some("offsite"),
        );
        assert_eq!(
            made.unwrap(),
            json!({"apiVersion": "velero.io/v1", "kind": "Schedule",
                "metadata": {"name": "nightly", "namespace": "ns", "labels": {"a": "b"},
                    "annotations": {"kubectl-backup/every": "2", "kubectl-backup/keep": "7", "kubectl-backup/ephemeral-movers": "true"}},
                "spec": {"schedule": "@weekly", "paused": false, "template": {
                    "includedNamespaces": ["shop"], "includeClusterResources": false, "labelSelector": {"matchLabels": {"app": "web"}},
                    "ttl": "48h0m0s", "storageLocation": "offsite", "hooks": {}, "defaultVolumesToFsBackup": true}}})
        );
        for (word, schedule, every) in [
            ("daily", "@daily", Value::Null),
            ("weekly", "@weekly", Value::Null),
            ("monthly", "@monthly", Value::Null),
            ("two-months", "@monthly", "2".into()),
        ] {
            let made = asked(&["x", "--preset", word], None).unwrap();
            assert_eq!(made["spec"]["schedule"], schedule);
            assert_eq!(made["metadata"]["annotations"][EVERY], every);
        }
        let made = asked(
            &["x", "--preset", "daily", "--time-zone", "Europe/Berlin"],
            None,
        );
        assert_eq!(
            made.unwrap()["spec"]["schedule"],
            "CRON_TZ=Europe/Berlin @daily"
        );
    }

    #[test]
    fn what_can_not_be_meant_is_a_wrong_command_line_that_names_the_flag() {
        let long = "x".repeat(49);
        for (words, location, part) in [
            (&["x", "--schedule", "every day"][..], None, "--schedule"),
            (&["x", "--schedule", "0 0 31 2 *"], None, "--schedule"),
            (&["x", "--preset", "hourly"], None, "--preset"),
            (&["x"], None, "--schedule"),
            (
                &["x", "--preset", "daily", "--schedule", "@daily"],
                None,
                "--preset",
            ),
            (
                &["x", "--preset", "daily", "--time-zone", "Mars/One"],
                None,
                "Mars/One",
            ),
            (
                &[
                    "x",
                    "--schedule",
                    "CRON_TZ=UTC @daily",
                    "--time-zone",
                    "UTC",
                ],
                None,
                "time zone",
            ),
            (&["x", "--preset", "daily", "--keep", "0"], None, "--keep"),
            (&["x", "--preset", "daily", "--ttl", "soon"], None, "--ttl"),
            (&["x", "--preset", "daily", "--ttl", "never"], None, "--ttl"),
            (
                &["x", "--preset", "daily", "--labels", "a"],
                None,
                "--labels",
            ),
            (
                &["x", "--preset", "daily", "-l", "a in"],
                None,
                "--selector",
            ),
            (&["x", "--preset", "daily"], Some("s3://b"), "--location"),
            (&["Nightly", "--preset", "daily"], None, "Nightly"),
            (&[&long, "--preset", "daily"], None, "too long"),
        ] {
            let refused = asked(words, location).unwrap_err();
            assert_eq!(refused.exit(), Exit::Usage, "{words:?}");
            let text = format!("{:?}", refused.lines());
            assert!(text.contains(part), "{words:?}: {text}");
        }
    }
}
