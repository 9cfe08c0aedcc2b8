//! `etcd schedule get`: a row per EtcdBackupConfig.

use backup_core::api::{EtcdBackupConfig, SnapshotRow};
use backup_core::retention;
use clap::Args;

use crate::commands::etcd::objects::Object;
use crate::commands::etcd::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, ListArgs, Listing, OutputArgs, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd schedule get
  kubectl backup etcd schedule get daily-backup --cluster zvc78xnnz7 -o yaml";

/// List schedules of snapshots, or show some; requests for one snapshot are among them
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// Names of EtcdBackupConfigs [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: GetArgs) -> Result<Exit> {
    let found: Vec<Object<EtcdBackupConfig>> = scope.named(context, &args.names).await?;
    let listing = Listing {
        items: found,
        single: args.names.len() == 1,
        title: Object::title,
        value: |config| Ok(config.raw.clone()),
        empty: format!(
            "No schedules found. Make one: {} etcd schedule create",
            context.program
        ),
    };
    listing.print(&context.ui, &args.list, |found| {
        table(context, &args.list.output, found)
    })?;
    Ok(Exit::Done)
}

fn table(context: &Context, output: &OutputArgs, found: &[Object<EtcdBackupConfig>]) -> Table {
    let wide = output.output == Format::Wide;
    let mut titles = vec![
        "NAMESPACE",
        "NAME",
        "CLUSTER",
        "SCHEDULE",
        "KEEP",
        "DESTINATION",
        "SNAPSHOTS",
        "LAST",
        "LAST-SUCCESS",
        "AGE",
    ];
    titles.extend(
        wide.then_some(["DELETION-POLICY", "MESSAGE"])
            .into_iter()
            .flatten(),
    );
    let mut table = Table::new(&titles, output.no_headers);
    for config in found {
        let (spec, status) = (
            &config.it.spec,
            config.it.status.clone().unwrap_or_default(),
        );
        let age = |time| output::age(time, context.now);
        let schedule = spec.schedule.as_deref().unwrap_or_default();
        let rows = status.rows();
        let mut row = vec![
            config.namespace().to_owned(),
            config.name().to_owned(),
            spec.cluster.name.clone(),
            if schedule.is_empty() {
                "once".to_owned()
            } else {
                schedule.to_owned()
            },
            if schedule.is_empty() {
                String::new()
            } else {
                retention::keep(spec.keep).to_string()
            },
            spec.destination.clone(),
            rows.iter().filter(|row| row.is_good()).count().to_string(),
            rows.last().map_or_else(String::new, last),
            status
                .last_successful_time
                .as_ref()
                .map_or_else(String::new, |time| age(time.0)),
            config
                .it
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or_else(String::new, |time| age(time.0)),
        ];
        if wide {
            row.push(spec.deletion_policy.to_string());
            row.push(message(&status.message, rows));
        }
        table.push(row);
    }
    table
}

fn last(row: &SnapshotRow) -> String {
    match row.backup_phase.as_str() {
        "" => "Scheduled".to_owned(),
        phase => phase.to_owned(),
    }
}

fn message(message: &Option<String>, rows: &[SnapshotRow]) -> String {
    let newest = rows.last().map(|row| row.backup_message.clone());
    message.clone().or(newest).unwrap_or_default()
}
