//! `version`: of this program, and of the server where it answers soon.

use std::time::Duration;

use clap::Args;

use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  kubectl backup version
  kubectl backup version --client -o json";

/// How long the server is waited for.
const SOON: Duration = Duration::from_secs(2);

/// Print the version of this program and of the API server
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VersionArgs {
    /// This program only: no kubeconfig is read and nothing is sent
    #[arg(long, visible_alias = "client-only")]
    client: bool,
    /// How the result is printed
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json", "yaml"])]
    output: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: VersionArgs) -> Result<Exit> {
    let ui = &context.ui;
    let client = concat!("v", env!("CARGO_PKG_VERSION"));
    let server = if args.client {
        None
    } else {
        Some(server(context).await)
    };
    if let Some(format) = args.output {
        let mut both = serde_json::json!({"clientVersion": {"gitVersion": client}});
        if let Some(Ok(version)) = &server {
            both["serverVersion"] = serde_json::json!({"gitVersion": version});
        }
        let format = if format == "json" {
            Format::Json
        } else {
            Format::Yaml
        };
        output::print(ui, format, &both)?;
        return Ok(Exit::Done);
    }
    ui.line(&format!("Client Version: {client}"))?;
    match server {
        Some(Ok(version)) => ui.line(&format!("Server Version: {version}"))?,
        Some(Err(why)) => ui.note(&format!("no server version: {why}")),
        None => {}
    }
    Ok(Exit::Done)
}

async fn server(context: &Context) -> Result<String, String> {
    let asked = async {
        Ok::<_, backup_cli::error::CommandError>(context.cluster().await?.version().await?)
    };
    match tokio::time::timeout(SOON, asked).await {
        Ok(Ok(version)) => Ok(version.git_version),
        Ok(Err(e)) => Err(e.error().to_string()),
        Err(_) => Err(format!("no answer within {} s", SOON.as_secs())),
    }
}
