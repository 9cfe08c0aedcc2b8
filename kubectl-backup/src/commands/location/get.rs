//! `location get`: a row per location.

use backup_core::Error;
use backup_core::api::{AccessMode, BackupStorageLocation};
use clap::Args;

use super::create::bucket_and_prefix;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{ListArgs, Listing, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup location get
  kubectl backup location get offsite -o yaml";

/// List the locations that are configured, or show one
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES, visible_alias = "list")]
pub(crate) struct GetArgs {
    /// Names of locations [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: GetArgs) -> Result<Exit> {
    let found = if args.names.is_empty() {
        context
            .sources()?
            .into_iter()
            .flat_map(|source| source.locations)
            .collect()
    } else {
        args.names
            .iter()
            .map(|name| super::named(context, name))
            .collect::<Result<Vec<_>>>()?
    };
    let listing = Listing {
        items: found,
        single: args.names.len() == 1,
        title: |location| format!("backupstoragelocation/{}", location.metadata.name),
        value: |location| {
            Ok(serde_json::to_value(location)
                .map_err(|e| Error::other("the location can not be written as JSON").because(e))?)
        },
        empty: format!(
            "No locations configured: backups go to {}, a folder per cluster.",
            context.paths.backups().display()
        ),
    };
    listing.print(&context.ui, &args.list, |found| {
        table(found, args.list.output.no_headers)
    })?;
    Ok(Exit::Done)
}

fn table(found: &[BackupStorageLocation], no_headers: bool) -> Table {
    let titles = [
        "NAME",
        "PROVIDER",
        "BUCKET/PREFIX",
        "ACCESS-MODE",
        "DEFAULT",
    ];
    let mut table = Table::new(&titles, no_headers);
    for location in found {
        let mode = location.spec.access_mode.unwrap_or(AccessMode::ReadWrite);
        table.push(vec![
            location.metadata.name.clone(),
            location.spec.provider.clone(),
            bucket_and_prefix(location),
            format!("{mode:?}"),
            location.spec.default.to_string(),
        ]);
    }
    table
}
