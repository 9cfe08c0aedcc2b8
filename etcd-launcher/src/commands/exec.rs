//! `exec`, hidden: becomes another program that ends with its parent. A launcher that is killed may not leave an etcd behind that nobody
//! holds back any more. Does nothing else.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use backup_cli::error::Result;
use backup_core::Error;
use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Become another program, killed when the parent process ends
#[derive(Clone, Debug, Args)]
#[command(hide = true)]
pub(crate) struct ExecArgs {
    /// The parent's process id: where it is gone already, nothing is started
    #[arg(long)]
    parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command; returns only where that failed.
pub(crate) fn run(args: &ExecArgs) -> Result<std::convert::Infallible> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::other("can not tie the program to its parent").because(e))?;
    // The parent may have ended before the line above.
    if getppid() != Pid::from_raw(args.parent) {
        return Err(Error::other("the parent process is gone").into());
    }
    let program = &args.command[0];
    let failed = Command::new(program).args(&args.command[1..]).exec();
    Err(Error::other(format!("can not start {}", program.display()))
        .because(failed)
        .into())
}
