//! `controller`: serves Velero's API in a cluster until it is stopped.

use std::sync::Arc;
use std::time::Duration;

use backup_core::name::Name;
use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::controller::{self, Desk, Settings};
use backup_cli::error::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup controller
  kubectl backup controller --kubeconfig prod.yaml --namespace backups --concurrent-backups 4";

/// Serve Velero's objects: backups are made when a Backup is created
///
/// Works on the objects of one namespace, in the cluster or outside of it, until it is stopped. The kinds of Velero's are brought where they are absent.
/// What is served already and what is not yet: docs/controller.md.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ControllerArgs {
    /// Namespace whose objects are served
    #[arg(short, long, value_name = "NS", default_value = "kubectl-backup", value_parser = Name::foreign, env = "KUBECTL_BACKUP_CONTROLLER_NAMESPACE", hide_env_values = true)]
    namespace: Name,
    /// Backups that are made at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    concurrent_backups: u16,
    /// How often a location is checked that does not say it itself
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    store_validation_frequency: Duration,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: ControllerArgs) -> Result<Exit> {
    let cluster = context.cluster().await?.clone();
    let namespace = args.namespace.to_string();
    controller::prepare(&context.ui, &cluster, &namespace).await?;
    let settings = Settings {
        namespace,
        concurrent_backups: usize::from(args.concurrent_backups),
        validation_frequency: SignedDuration::try_from(args.store_validation_frequency)
            .unwrap_or(SignedDuration::MAX),
        locations: context.location_args().clone(),
    };
    let desk = Desk::new(
        Arc::clone(&context.ui),
        cluster,
        settings,
        context.host(),
        Arc::new(Timestamp::now),
    );
    controller::serve(Arc::new(desk)).await;
    Ok(Exit::Done)
}
