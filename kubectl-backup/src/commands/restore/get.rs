//! `restore get`: a row per restore.

use backup_core::Error;
use backup_core::api::Restore;
use backup_core::catalog;
use clap::Args;

use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, ListArgs, Listing, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore get
  kubectl backup restore get nightly-20261121020000 -o yaml
  kubectl backup restore get --sort-by .status.startTimestamp";

/// List restores, or show one
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// Names of restores [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: GetArgs) -> Result<Exit> {
    let mut found: Vec<Restore> = Vec::new();
    if args.names.is_empty() {
        // A restore may read any cluster's backups, and is recorded beside them.
        for place in context.every_place().await? {
            found.extend(catalog::list_restores(&place.location.store).await?);
        }
    }
    for name in &args.names {
        found.push(context.find_restore(&flags::known_name(name)?).await?.1);
    }
    let listing = Listing {
        items: found,
        single: args.names.len() == 1,
        title: |restore| format!("restore/{}", restore.metadata.name),
        value: |restore| {
            Ok(serde_json::to_value(restore)
                .map_err(|e| Error::other("the restore can not be written as JSON").because(e))?)
        },
        empty: "No restores found.".to_owned(),
    };
    listing.print(&context.ui, &args.list, |found| {
        table(found, args.list.output.no_headers)
    })?;
    Ok(Exit::Done)
}

fn table(found: &[Restore], no_headers: bool) -> Table {
    let titles = [
        "NAME",
        "BACKUP",
        "STATUS",
        "STARTED",
        "COMPLETED",
        "ERRORS",
        "WARNINGS",
        "CREATED",
        "SELECTOR",
    ];
    let mut table = Table::new(&titles, no_headers);
    for restore in found {
        let (spec, status) = (&restore.spec, &restore.status);
        table.row([
            restore.metadata.name.clone(),
            spec.backup_name.clone(),
            status.phase.to_string(),
            output::time(status.start_timestamp),
            output::time(status.completion_timestamp),
            status.errors.to_string(),
            status.warnings.to_string(),
            output::time(
                restore
                    .metadata
                    .creation_timestamp
                    .or(status.start_timestamp),
            ),
            crate::commands::get::selectors(spec.label_selector.as_ref(), &spec.or_label_selectors),
        ]);
    }
    table
}
