//! `location get`: a row per location.

use backup_core::Error;
use backup_core::api::{AccessMode, BackupStorageLocation};
use backup_core::backup::{COPY_ALL_OF_LOCATION, MOVER_CREDENTIALS};
use backup_core::crypt::Encrypt;
use clap::Args;

use super::create::bucket_and_prefix;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::locations::{Choice, Source};
use backup_cli::output::{Format, ListArgs, Listing, OutputArgs, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup location get
  kubectl backup location get -o wide
  kubectl backup location get offsite -o yaml";

/// List the locations that are configured, or show one
///
/// First those of your own file, then those of the cluster's Velero, as they stand there: where both have a name, yours is meant.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES, visible_alias = "list")]
pub(crate) struct GetArgs {
    /// Names of locations [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// A location, and where it is defined.
struct Known {
    location: BackupStorageLocation,
    source: String,
    /// It is used where none is named.
    is_default: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: GetArgs) -> Result<Exit> {
    let own = context.paths.locations();
    let found = if args.names.is_empty() {
        let (sources, away) = context.sources().await?;
        if let Some(away) = away {
            let why = away.error();
            context
                .ui
                .note(&format!("those of {} alone: {why}", own.display()));
        }
        known(sources)
    } else {
        let mut found = Vec::new();
        for name in &args.names {
            found.extend(named(context.choose(Some(name)).await?));
        }
        found
    };
    let listing = Listing {
        items: found,
        single: args.names.len() == 1,
        title: |known| format!("backupstoragelocation/{}", known.location.metadata.name),
        value: |known| {
            Ok(serde_json::to_value(&known.location)
                .map_err(|e| Error::other("the location can not be written as JSON").because(e))?)
        },
        empty: format!(
            "No locations configured: backups go to {}, a folder per cluster.",
            context.paths.backups().display()
        ),
    };
    listing.print(&context.ui, &args.list, |found| {
        table(found, &args.list.output)
    })?;
    Ok(Exit::Done)
}

/// All of them, and which one is used where none is named.
fn known(sources: Vec<Source>) -> Vec<Known> {
    let default = sources.iter().enumerate().find_map(|(at, source)| {
        let name = &source.default_location()?.metadata.name;
        Some((at, name.clone()))
    });
    let mut found = Vec::new();
    for (at, source) in sources.into_iter().enumerate() {
        for location in source.locations {
            found.push(Known {
                is_default: default == Some((at, location.metadata.name.clone())),
                source: source.title.clone(),
                location,
            });
        }
    }
    found
}

fn named(choice: Choice) -> Option<Known> {
    let (location, source) = match choice {
        Choice::One(location) => (location, "this machine".to_owned()),
        Choice::Object(location) => {
            let namespace = location.metadata.namespace.clone().unwrap_or_default();
            (location, format!("namespace {namespace}"))
        }
        // A name is either found or refused.
        Choice::PerCluster => return None,
    };
    Some(Known {
        is_default: location.spec.default,
        location: *location,
        source,
    })
}

fn table(found: &[Known], output: &OutputArgs) -> Table {
    let wide = output.output == Format::Wide;
    let mut titles = vec![
        "NAME",
        "PROVIDER",
        "BUCKET/PREFIX",
        "ACCESS-MODE",
        "DEFAULT",
        "SOURCE",
    ];
    if wide {
        titles.extend(["ENCRYPT", "FS-BACKUP", "MOVER-CREDENTIALS"]);
    }
    let mut table = Table::new(&titles, output.no_headers);
    for known in found {
        let location = &known.location;
        let mode = location.spec.access_mode.unwrap_or(AccessMode::ReadWrite);
        let mut row = vec![
            location.metadata.name.clone(),
            location.spec.provider.clone(),
            bucket_and_prefix(location),
            format!("{mode:?}"),
            known.is_default.to_string(),
            known.source.clone(),
        ];
        if wide {
            row.extend([encrypted(location), copied(location), lent(location)]);
        }
        table.push(row);
    }
    table
}

/// What of a backup is encrypted there.
fn encrypted(location: &BackupStorageLocation) -> String {
    match Encrypt::of_location(location) {
        Ok(what) => what.map_or("none", Encrypt::word).to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

/// Whether the files of all volumes are copied where a backup does not say it.
fn copied(location: &BackupStorageLocation) -> String {
    let said = location.metadata.annotations.get(COPY_ALL_OF_LOCATION);
    said.map_or("false", String::as_str).to_owned()
}

/// Whose credentials movers get.
fn lent(location: &BackupStorageLocation) -> String {
    let said = location.metadata.annotations.get(MOVER_CREDENTIALS);
    said.map_or("none", String::as_str).to_owned()
}
