//! `restore get`: a row per restore.

use backup_core::Error;
use backup_core::api::Restore;
use backup_core::catalog;
use clap::Args;

use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, OutputArgs, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore get
  kubectl backup restore get nightly-20261121020000 -o yaml";

/// List restores, or show one
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// Names of restores [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: GetArgs) -> Result<Exit> {
    let mut found: Vec<Restore> = Vec::new();
    if args.names.is_empty() {
        // A restore may read any cluster's backups, and is recorded beside them.
        for place in context.every_place()? {
            found.extend(catalog::list_restores(&place.location.store).await?);
        }
    }
    for name in &args.names {
        found.push(context.find_restore(&flags::known_name(name)?).await?.1);
    }
    match args.output.output {
        Format::Json | Format::Yaml => {
            let items = found
                .iter()
                .map(serde_json::to_value)
                .collect::<Result<_, _>>()
                .map_err(|e| Error::other("the restores can not be written as JSON").because(e))?;
            let all = output::objects(items, args.names.len() == 1);
            output::print(&context.ui, args.output.output, &all)?;
        }
        Format::Name => {
            for restore in &found {
                context
                    .ui
                    .line(&format!("restore/{}", restore.metadata.name))?;
            }
        }
        Format::Table | Format::Wide if found.is_empty() => context.ui.say("No restores found."),
        Format::Table | Format::Wide => {
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
            let mut table = Table::new(&titles, args.output.no_headers);
            for restore in &found {
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
                    crate::commands::get::selectors(
                        spec.label_selector.as_ref(),
                        &spec.or_label_selectors,
                    ),
                ]);
            }
            context.ui.table(&table)?;
        }
    }
    Ok(Exit::Done)
}
