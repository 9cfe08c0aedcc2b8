//! `kubectl backup`: the plugin. Starts the runtime, runs one command, ends with its exit code.

mod cli;
mod commands;
mod completion;
mod connection;
mod context;
mod flags;
mod many;

use std::process::ExitCode;

/// Pages and members come and go in large pieces on many threads; this one gives them back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only where a provider stands already, and then one is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut arguments = std::env::args_os().collect::<Vec<_>>();
    if completion::is_asked(arguments.first()) {
        return completion::answer(arguments.split_off(1)).await.into();
    }
    let color = cli::color(&arguments);
    match cli::Cli::from_arguments(arguments) {
        Ok(cli) => commands::run(cli).await.into(),
        Err(refused) => backup_cli::ui::print_usage(&refused, color).into(),
    }
}
