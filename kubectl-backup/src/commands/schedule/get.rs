//! `schedule get`: a row per schedule.

use clap::Args;

use super::objects::{self, Known};
use crate::commands::get::selectors;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, ListArgs, Listing, OutputArgs, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup schedule get
  kubectl backup schedule get nightly -o yaml
  kubectl backup schedule get --sort-by .status.lastBackup";

/// List schedules, or show some
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct GetArgs {
    /// Names of schedules [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the command.
pub(super) async fn run(context: &Context, namespace: &str, args: GetArgs) -> Result<Exit> {
    let found = if args.names.is_empty() {
        objects::schedules(context, namespace).await?
    } else {
        objects::several(context, namespace, &args.names).await?
    };
    let listing = Listing {
        items: found,
        single: args.names.len() == 1,
        title: Known::title,
        value: |known| Ok(known.raw.clone()),
        empty: format!(
            "No schedules found. Make one: {} schedule create",
            context.program
        ),
    };
    listing.print(&context.ui, &args.list, |found| {
        table(context, &args.list.output, found)
    })?;
    Ok(Exit::Done)
}

fn table(context: &Context, output: &OutputArgs, found: &[Known]) -> Table {
    let wide = output.output == Format::Wide;
    let mut titles = vec![
        "NAME",
        "STATUS",
        "SCHEDULE",
        "TTL",
        "KEEP",
        "LAST-BACKUP",
        "NEXT",
        "PAUSED",
        "AGE",
    ];
    titles.extend(
        wide.then_some(["STORAGE-LOCATION", "SELECTOR", "MESSAGE"])
            .into_iter()
            .flatten(),
    );
    let mut table = Table::new(&titles, output.no_headers);
    for known in found {
        let (spec, status) = (&known.it.spec, &known.it.status);
        let template = &spec.template;
        let age = |time| output::age(time, context.now);
        let or_nothing = |text: Option<String>| text.unwrap_or_default();
        let mut row = vec![
            known.name().to_owned(),
            if status.phase.is_empty() {
                "New".to_owned()
            } else {
                status.phase.clone()
            },
            known.when(),
            or_nothing(template.ttl.map(|ttl| ttl.to_string())),
            known.keep(),
            or_nothing(status.last_backup.map(age)),
            or_nothing(
                known
                    .next(context.now)
                    .map(|at| output::until(at, context.now)),
            ),
            known.is_paused().to_string(),
            or_nothing(known.it.metadata.creation_timestamp.map(age)),
        ];
        if wide {
            row.push(or_nothing(template.storage_location.clone()));
            row.push(selectors(
                template.label_selector.as_ref(),
                &template.or_label_selectors,
            ));
            row.push(status.validation_errors.join("; "));
        }
        table.push(row);
    }
    table
}
