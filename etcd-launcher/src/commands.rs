//! The commands, and nothing but the way to them.

pub(crate) mod crds;
pub(crate) mod describe;
pub(crate) mod snapshot;
pub(crate) mod verify;
pub(crate) mod version;

use backup_cli::error::Exit;
use backup_cli::ui::Ui;

use crate::cli::{Cli, Command};

/// Runs one command; an error is told here.
pub(crate) async fn run(cli: Cli) -> Exit {
    let ui = std::sync::Arc::new(Ui::new(cli.global.color, cli.global.quiet));
    let ended = match cli.command {
        Command::Crds(args) => crds::run(&ui, args).await,
        Command::Snapshot(args) => snapshot::run(ui.clone(), &cli.global.location, *args).await,
        Command::Describe(args) => describe::run(&ui, &cli.global.location, &args).await,
        Command::Verify(args) => verify::run(&ui, &cli.global.location, &args).await,
        Command::Version(args) => version::run(&ui, &args),
    };
    ended.unwrap_or_else(|error| {
        ui.error(&error);
        error.exit()
    })
}
