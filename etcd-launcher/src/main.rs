//! `etcd-launcher`: the parent process of etcd, or a tool on a control-plane node. Starts the runtime, runs one command, ends with its
//! exit code.

mod backups;
mod cli;
mod commands;
mod crash;
mod destination;
mod etcd_args;
mod health;
mod member;
mod members;
mod node;
mod restore;
mod run;
mod source;

use std::process::ExitCode;

use clap::Parser as _;

/// Databases pass through in large pieces on many threads; this one gives them back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Fails only where a provider stands already, and then one is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => {
            return backup_cli::ui::print_usage(&refused, backup_cli::ui::Color::Auto).into();
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => {
            let error = backup_core::Error::other("can not start a thread").because(e);
            return commands::failed(&cli, &error.into()).into();
        }
    };
    let exit = runtime.block_on(commands::run(cli));
    // A read that never comes back (a pipe, a dead mount) holds nobody up.
    runtime.shutdown_background();
    exit.into()
}
