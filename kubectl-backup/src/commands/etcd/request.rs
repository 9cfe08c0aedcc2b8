//! What the commands that write objects have in common: how what was made is printed, how long it is waited for, and requests by annotation.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::objects::{Hosted, Object, title};
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, OutputArgs};

/// `--wait`
#[derive(Clone, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Follow it to its end; exit code 1 where that is not a good one
    #[arg(long)]
    pub(super) wait: bool,
    /// How long it is followed, such as 10m [default: to its end]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "wait")]
    pub(super) timeout: Option<Duration>,
}

/// Prints what was done to an object.
pub(super) fn print<K: Hosted>(
    context: &Context,
    output: &OutputArgs,
    object: &Object<K>,
    done: &str,
) -> Result<()> {
    match output.output {
        Format::Table | Format::Wide => context.ui.line(&format!("{} {done}", object.title())),
        Format::Name => context.ui.line(&object.title()),
        format => output::print(&context.ui, format, &object.raw),
    }
}

/// Prints an object that was not made.
pub(super) fn show<K: Hosted + Serialize>(
    context: &Context,
    output: &OutputArgs,
    object: &K,
) -> Result<Exit> {
    match output.output {
        Format::Name => context.ui.line(&title::<K>(
            object.meta().name.as_deref().unwrap_or_default(),
        ))?,
        Format::Json => output::print(&context.ui, Format::Json, object)?,
        _ => output::print(&context.ui, Format::Yaml, object)?,
    }
    Ok(Exit::Done)
}
