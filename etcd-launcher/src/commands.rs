//! The commands, and nothing but the way to them.

mod data_dir;

pub(crate) mod crds;
pub(crate) mod describe;
pub(crate) mod exec;
pub(crate) mod install;
pub(crate) mod node;
mod origin;
pub(crate) mod restore;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod version;

use backup_cli::error::{CommandError, Exit};
use backup_cli::ui::Ui;

use crate::cli::{Cli, Command};

/// Tells what kept a command from being run at all.
pub(crate) fn failed(cli: &Cli, error: &CommandError) -> Exit {
    Ui::new(cli.global.color, cli.global.quiet).error(error);
    error.exit()
}

/// Runs one command; an error is told here.
pub(crate) async fn run(cli: Cli) -> Exit {
    let ui = std::sync::Arc::new(Ui::new(cli.global.color, cli.global.quiet));
    let ended = match cli.command {
        Command::Crds(args) => crds::run(&ui, args).await,
        Command::Describe(args) => describe::run(&ui, &cli.global.location, &args).await,
        Command::Exec(args) => exec::run(&args).map(|never| match never {}),
        Command::Install(args) => install::run(&ui, &args),
        Command::Node(args) => node::run(&ui, &cli.global.location, args.command).await,
        Command::Restore(args) => restore::run(&ui, &cli.global.location, *args).await,
        Command::Rollback(args) => rollback::run(&ui, *args).await,
        Command::Run(args) => run::run(ui.clone(), *args).await,
        Command::Snapshot(args) => snapshot::run(ui.clone(), &cli.global.location, *args).await,
        Command::Status(args) => status::run(&ui, &args),
        Command::Verify(args) => verify::run(&ui, &cli.global.location, &args).await,
        Command::Version(args) => version::run(&ui, &args),
    };
    ended.unwrap_or_else(|error| {
        ui.error(&error);
        error.exit()
    })
}
