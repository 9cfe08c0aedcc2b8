//! `location check`: whether a location can do what a backup needs, from this machine or from a node of the cluster.

mod answer;
mod cluster;
mod pod;
mod question;

use std::time::Duration;

use backup_core::Error;
use backup_core::location::check::{self, Step};
use clap::Args;
use serde::Serialize;

use crate::commands::install::image;
use crate::context::Context;
use crate::flags::ControllerNamespace;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Document, Format, OutputArgs, Table};

pub(crate) use answer::AnswerArgs;
pub(crate) use answer::run as answer;

const EXAMPLES: &str = "\
Examples:
  kubectl backup location check
  kubectl backup location check offsite
  kubectl backup location check --location s3://backups/prod?region=eu-central-1
  kubectl backup location check offsite --from-cluster --image registry.example.com/kubectl-backup:0.1.0";

/// Check that a location can do what a backup needs
///
/// Lists, writes, reads back, uploads in parts, deletes and compares clocks. Leaves nothing behind. Exit code 1 where a step
/// fails that backups need. With --from-cluster a pod that lives as long as the check does the same on a node, where a controller would run: a location of
/// the cluster with its own Secret, another one with this machine's keys, which go to the pod alone and are kept nowhere.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// Name of the location [default: the one that is used]
    name: Option<String>,
    /// Check from a pod of the cluster, which is removed afterwards
    #[arg(long)]
    from_cluster: bool,
    /// Image of that pod, as the cluster's nodes pull it
    #[arg(long, value_name = "IMAGE", default_value_t = image(), requires = "from_cluster")]
    image: String,
    /// No longer than this, the start of the pod included
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration, requires = "from_cluster")]
    timeout: Duration,
    #[command(flatten)]
    namespace: ControllerNamespace,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Checked<'c> {
    /// The node from which, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'c str>,
    steps: &'c [Step],
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: CheckArgs) -> Result<Exit> {
    if args.from_cluster {
        return match cluster::check(context, &args).await? {
            Some(seen) => print(
                context,
                &args.output,
                &seen.name,
                Some(&seen.node),
                &seen.steps,
            ),
            None => Ok(Exit::Interrupted),
        };
    }
    let ui = &context.ui;
    let location = super::one(context, args.name.as_deref()).await?;
    ui.note(&format!("checking {}", locations::place(&location.spec)));
    let bar = ui.progress();
    let steps = check::check(&location, context.now).await;
    drop(bar);
    print(context, &args.output, &location.name, None, &steps)
}

fn print(
    context: &Context,
    args: &OutputArgs,
    name: &str,
    node: Option<&str>,
    steps: &[Step],
) -> Result<Exit> {
    let ui = &context.ui;
    let failed = steps.iter().any(|step| !step.ok && !step.optional);
    match args.output {
        Format::Json | Format::Yaml => {
            let checked = Document::new("LocationCheck", Checked { node, steps });
            output::print(ui, args.output, &checked)?;
        }
        Format::Name => ui.line(&format!("backupstoragelocation/{name}"))?,
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["STEP", "RESULT", "DETAIL"], args.no_headers);
            for step in steps {
                table.row([
                    step.name.to_string(),
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

fn refused(why: &str, hint: &str) -> CommandError {
    CommandError::usage(Error::invalid(why).hint(hint))
}

fn result(step: &Step) -> &'static str {
    match (step.ok, step.optional) {
        (true, _) => "ok",
        (false, true) => "missing (not needed)",
        (false, false) => "failed",
    }
}
