//! `location check`: whether a location can do what a backup needs.

use backup_core::location::check::{self, Step};
use clap::Args;
use serde::Serialize;

use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Document, Format, OutputArgs, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup location check
  kubectl backup location check offsite
  kubectl backup location check --location s3://backups/prod?region=eu-central-1";

/// Check that a location can do what a backup needs
///
/// Lists, writes, reads back, uploads in parts, deletes and compares clocks. Leaves nothing behind. Exit code 1 where a step
/// fails that backups need.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// Name of the location [default: the one that is used]
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Checked<'c> {
    steps: &'c [Step],
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: CheckArgs) -> Result<Exit> {
    let ui = &context.ui;
    let location = super::one(context, args.name.as_deref()).await?;
    ui.note(&format!("checking {}", locations::place(&location.spec)));
    let bar = ui.progress();
    let steps = check::check(&location, context.now).await;
    drop(bar);
    let failed = steps.iter().any(|step| !step.ok && !step.optional);
    match args.output.output {
        Format::Json | Format::Yaml => {
            let checked = Document::new("LocationCheck", Checked { steps: &steps });
            output::print(ui, args.output.output, &checked)?;
        }
        Format::Name => ui.line(&format!("backupstoragelocation/{}", location.name))?,
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["STEP", "RESULT", "DETAIL"], args.output.no_headers);
            for step in &steps {
                table.row([
                    step.name.to_owned(),
                    result(step).to_owned(),
                    step.detail.clone(),
                ]);
            }
            ui.table(&table)?;
        }
    }
    for (step, advice) in steps
        .iter()
        .filter_map(|step| Some((step, step.advice.as_ref()?)))
    {
        ui.say(&format!("{}: {advice}", step.name));
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn result(step: &Step) -> &'static str {
    match (step.ok, step.optional) {
        (true, _) => "ok",
        (false, true) => "missing (not needed)",
        (false, false) => "failed",
    }
}
