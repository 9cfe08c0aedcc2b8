//! `kubectl backup`: the plugin. Starts the runtime, runs one command, ends with its exit code.

mod cli;
mod commands;
mod completion;
mod connection;
mod context;
mod controller;
mod copies;
mod encryption;
mod expiry;
mod flags;
mod in_cluster;
mod install;
mod key_cache;
mod many;
mod plugin;
mod template;

use std::process::ExitCode;
use std::time::Duration;

/// Pages and members come and go in large pieces on many threads; this one gives them back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// At the end nobody waits longer for a thread that blocks: a credential plugin may do so for ever.
const GRACE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("the system gives threads");
    let exit = runtime.block_on(run());
    runtime.shutdown_timeout(GRACE);
    exit
}

async fn run() -> ExitCode {
    // Fails only where a provider stands already, and then one is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut arguments = std::env::args_os().collect::<Vec<_>>();
    if completion::is_asked(arguments.first()) {
        return completion::answer(arguments.split_off(1)).await.into();
    }
    let color = cli::color(&arguments);
    if plugin::is_asked(&arguments) {
        return plugin::run(arguments).await;
    }
    match cli::Cli::from_arguments(arguments) {
        Ok(cli) => commands::run(cli).await.into(),
        Err(refused) => backup_cli::ui::print_usage(&refused, color).into(),
    }
}
