//! The commands, and nothing but the way to them.

pub(crate) mod completion;
pub(crate) mod contents;
pub(crate) mod controller;
pub(crate) mod copy;
pub(crate) mod create;
mod csi;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod download;
pub(crate) mod etcd;
pub(crate) mod get;
pub(crate) mod install;
pub(crate) mod location;
pub(crate) mod logs;
#[cfg(target_os = "linux")]
pub(crate) mod mover;
mod owed;
pub(crate) mod prune;
pub(crate) mod rekey;
pub(crate) mod restore;
pub(crate) mod schedule;
pub(crate) mod status;
pub(crate) mod uninstall;
pub(crate) mod verify;
pub(crate) mod version;

use crate::cli::{Cli, Command};
use crate::context::Context;
use backup_cli::error::Exit;

/// Runs one command; an error is told here.
pub(crate) async fn run(cli: Cli) -> Exit {
    let context = Context::new(cli.global, cli.program);
    let ended = match cli.command {
        Command::Create(args) => create::run(&context, *args).await,
        Command::Get(args) => get::run(&context, args).await,
        Command::Describe(args) => describe::run(&context, args).await,
        Command::Diff(args) => diff::run(&context, *args).await,
        Command::Logs(args) => logs::run(&context, args).await,
        Command::Contents(args) => contents::run(&context, args).await,
        Command::Download(args) => download::run(&context, args).await,
        Command::Verify(args) => verify::run(&context, args).await,
        Command::Copy(args) => copy::run(&context, args).await,
        Command::Delete(args) => delete::run(&context, args).await,
        Command::Prune(args) => prune::run(&context, args).await,
        Command::Rekey(args) => rekey::run(&context, args).await,
        Command::Restore(command) => restore::run(&context, command).await,
        Command::Schedule(args) => schedule::run(&context, args).await,
        Command::Location(command) => location::run(&context, command).await,
        Command::Completion(command) => completion::run(&context, command),
        Command::Doctor(args) => doctor::run(&context, args).await,
        Command::Etcd(args) => etcd::run(&context, args).await,
        Command::Controller(args) => controller::run(&context, args).await,
        Command::Install(args) => install::run(&context, *args).await,
        Command::Uninstall(args) => uninstall::run(&context, args).await,
        Command::Status(args) => status::run(&context, args).await,
        #[cfg(target_os = "linux")]
        Command::Mover(args) => mover::run(&context, args).await,
        Command::Version(args) => version::run(&context, args).await,
    };
    ended.unwrap_or_else(|error| {
        context.ui.error(&error);
        error.exit()
    })
}
