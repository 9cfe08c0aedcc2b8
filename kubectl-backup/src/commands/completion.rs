//! `completion`: lets kubectl complete this plugin's command line.

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::{Error, Kind};
use clap::{Args, Subcommand};

use crate::completion::PROGRAM;
use crate::context::Context;
use backup_cli::error::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup completion install
  kubectl backup completion install --dir ~/.local/bin";

/// What to do about completion.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CompletionCommand {
    Install(InstallArgs),
}

/// Let kubectl complete this plugin's commands, flags and names
///
/// kubectl runs the program kubectl_complete-backup where PATH has one; this makes it, as a link to kubectl-backup. kubectl's own completion
/// has to be set up in your shell: see `kubectl completion --help`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InstallArgs {
    /// Folder for the link; it has to be in PATH [default: where PATH has kubectl-backup]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(context: &Context, command: CompletionCommand) -> Result<Exit> {
    let CompletionCommand::Install(args) = command;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let program = folders
        .iter()
        .map(|folder| folder.join("kubectl-backup"))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            Error::not_found("kubectl-backup is not in PATH")
                .hint("put it into a folder of PATH under that name, then kubectl finds it too")
        })?;
    let folder = args
        .dir
        .or_else(|| program.parent().map(Path::to_owned))
        .unwrap_or_default();
    let link = folder.join(PROGRAM);
    // Beside the program the link has no path, so that it goes on working when what it points to is replaced or moved.
    let beside = program.parent() == Some(&folder);
    let target = if beside {
        PathBuf::from("kubectl-backup")
    } else {
        program
    };
    let ui = &context.ui;
    match fs::read_link(&link) {
        Ok(there) if there == target => ui.line(&format!("{} unchanged", link.display()))?,
        there => {
            if there.is_ok() || link.exists() {
                let what = format!("{} is there already and is something else", link.display());
                return Err(Error::new(Kind::AlreadyExists, what)
                    .hint("remove it, or name another folder of PATH with --dir")
                    .into());
            }
            std::os::unix::fs::symlink(&target, &link).map_err(|e| {
                Error::other(format!("can not make {}", link.display()))
                    .because(e)
                    .hint("name a folder of PATH that you may write to with --dir")
            })?;
            ui.line(&format!("{} created", link.display()))?;
        }
    }
    if !folders.contains(&folder) {
        ui.warn(&format!(
            "{} is not in PATH: kubectl will not find it there",
            folder.display()
        ));
    }
    Ok(Exit::Done)
}
