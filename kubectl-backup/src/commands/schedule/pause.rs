//! `schedule pause` and `unpause`: whether backups are made of a schedule.

use clap::Args;
use serde_json::json;

use super::objects;
use crate::context::Context;
use backup_cli::error::{Exit, Result};

const PAUSE_EXAMPLES: &str = "\
Examples:
  kubectl backup schedule pause nightly
  kubectl backup schedule pause nightly weekly";

const UNPAUSE_EXAMPLES: &str = "\
Examples:
  kubectl backup schedule unpause nightly
  kubectl backup schedule unpause nightly --skip-immediately";

/// Make no backups of schedules for now; one that is at work goes on
#[derive(Clone, Debug, Args)]
#[command(after_help = PAUSE_EXAMPLES)]
pub(super) struct PauseArgs {
    /// Names of schedules
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Make backups of paused schedules again
///
/// A slot that was missed meanwhile is made up for at once.
#[derive(Clone, Debug, Args)]
#[command(after_help = UNPAUSE_EXAMPLES)]
pub(super) struct UnpauseArgs {
    /// Names of schedules
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Pass over what was missed: the next backup is made at the next slot
    #[arg(long)]
    skip_immediately: bool,
}

/// Pauses.
pub(super) async fn pause(context: &Context, namespace: &str, args: PauseArgs) -> Result<Exit> {
    for known in objects::several(context, namespace, &args.names).await? {
        let patch = json!({"spec": {"paused": true}});
        objects::change(context, namespace, &known, patch).await?;
        context.ui.line(&format!("{} paused", known.title()))?;
    }
    Ok(Exit::Done)
}

/// Unpauses.
pub(super) async fn unpause(context: &Context, namespace: &str, args: UnpauseArgs) -> Result<Exit> {
    for known in objects::several(context, namespace, &args.names).await? {
        let mut patch = json!({"spec": {"paused": false}});
        if args.skip_immediately {
            patch["spec"]["skipImmediately"] = true.into();
        }
        objects::change(context, namespace, &known, patch).await?;
        context.ui.line(&format!("{} unpaused", known.title()))?;
    }
    Ok(Exit::Done)
}
