//! `schedule trigger`: a backup of a schedule now, beside its slots.

use std::time::Duration;

use backup_cli::interrupt::interrupted;
use backup_core::Error;
use clap::Args;
use serde_json::Value;

use super::objects;
use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup schedule trigger nightly
  kubectl backup schedule trigger nightly --wait";

/// Between two looks.
const OFTEN: Duration = Duration::from_millis(500);

/// Ask for a backup of a schedule now
///
/// Makes a Backup of the schedule's template; the controller makes the backup, also where the schedule is paused. The schedule's slots do not move.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TriggerArgs {
    /// Name of the schedule
    name: String,
    /// Wait for its end; exit code 1 where it failed, 3 where something is missing
    #[arg(long)]
    wait: bool,
    /// Print the name alone
    #[arg(short, long, value_name = "FORMAT", value_parser = ["name"])]
    output: Option<String>,
}

/// Runs the command.
pub(super) async fn run(context: &Context, namespace: &str, args: TriggerArgs) -> Result<Exit> {
    let known = objects::one(context, namespace, &args.name).await?;
    let name = flags::generated_name(known.name(), context.now);
    let mut backup = known.it.backup(&known.raw, &name);
    backup["metadata"]["namespace"] = namespace.into();
    objects::create(context, namespace, "backups", &backup).await?;
    let done = if args.output.is_some() {
        ""
    } else {
        " created"
    };
    context.ui.line(&format!("backup/{name}{done}"))?;
    if !args.wait {
        return Ok(Exit::Done);
    }
    tokio::select! {
        ended = end(context, namespace, &name) => told(context, &name, &ended?),
        _ = interrupted() => {
            context.ui.say("the backup goes on without you");
            Ok(Exit::Interrupted)
        }
    }
}

/// Its object when it has ended.
async fn end(context: &Context, namespace: &str, name: &str) -> Result<Value> {
    loop {
        let object = objects::get(context, namespace, "backups", name).await?;
        let object =
            object.ok_or_else(|| Error::not_found(format!("backup {name} was removed")))?;
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        if matches!(
            phase,
            "Completed" | "PartiallyFailed" | "Failed" | "FailedValidation"
        ) {
            return Ok(object);
        }
        tokio::time::sleep(OFTEN).await;
    }
}

fn told(context: &Context, name: &str, object: &Value) -> Result<Exit> {
    let status = &object["status"];
    let phase = status["phase"].as_str().unwrap_or_default();
    context.ui.say(&format!("backup {name}: {phase}"));
    for why in status["validationErrors"].as_array().into_iter().flatten() {
        context.ui.warn(why.as_str().unwrap_or_default());
    }
    if let Some(why) = status["failureReason"].as_str() {
        context.ui.warn(why);
    }
    Ok(match phase {
        "Completed" => Exit::Done,
        "PartiallyFailed" => Exit::Incomplete,
        _ => Exit::Failed,
    })
}
