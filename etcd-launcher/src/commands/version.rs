//! `version`: of this program.

use backup_cli::error::{Exit, Result};
use backup_cli::ui::Ui;
use clap::Args;

/// Print the version of this program
#[derive(Clone, Debug, Args)]
pub(crate) struct VersionArgs {}

/// Runs the command.
pub(crate) fn run(ui: &Ui, _args: &VersionArgs) -> Result<Exit> {
    ui.line(concat!("v", env!("CARGO_PKG_VERSION")))?;
    Ok(Exit::Done)
}
