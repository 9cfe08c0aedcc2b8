//! `location get`: a row per location.

use backup_core::Error;
use backup_core::api::AccessMode;
use clap::Args;

use super::create::bucket_and_prefix;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, OutputArgs, Table};

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
    output: OutputArgs,
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
    match args.output.output {
        Format::Json | Format::Yaml => {
            let items = found
                .iter()
                .map(serde_json::to_value)
                .collect::<Result<_, _>>()
                .map_err(|e| Error::other("the locations can not be written as JSON").because(e))?;
            let all = output::objects(items, args.names.len() == 1);
            output::print(&context.ui, args.output.output, &all)?;
        }
        Format::Name => {
            for location in &found {
                context
                    .ui
                    .line(&format!("backupstoragelocation/{}", location.metadata.name))?;
            }
        }
        Format::Table | Format::Wide if found.is_empty() => context.ui.say(&format!(
            "No locations configured: backups go to {}, a folder per cluster.",
            context.paths.backups().display()
        )),
        Format::Table | Format::Wide => {
            let titles = [
                "NAME",
                "PROVIDER",
                "BUCKET/PREFIX",
                "ACCESS-MODE",
                "DEFAULT",
            ];
            let mut table = Table::new(&titles, args.output.no_headers);
            for location in &found {
                let mode = location.spec.access_mode.unwrap_or(AccessMode::ReadWrite);
                table.push(vec![
                    location.metadata.name.clone(),
                    location.spec.provider.clone(),
                    bucket_and_prefix(location),
                    format!("{mode:?}"),
                    location.spec.default.to_string(),
                ]);
            }
            context.ui.table(&table)?;
        }
    }
    Ok(Exit::Done)
}
