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
  kubectl backup controller --kubeconfig prod.yaml --namespace backups --concurrent-backups 8";

/// Serve Velero's objects: backups, schedules, restores
///
/// Works on the objects of one namespace, in the cluster or outside of it, until it is stopped. The kinds of Velero's are brought where they are absent.
/// Of several controllers one works at a time.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ControllerArgs {
    /// Namespace whose objects are served
    #[arg(short, long, value_name = "NS", default_value = "kubectl-backup", value_parser = Name::foreign, env = "KUBECTL_BACKUP_CONTROLLER_NAMESPACE", hide_env_values = true)]
    namespace: Name,
    /// Backups that are made at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    concurrent_backups: u16,
    /// Refuse Restores: without the rights to write what they bring back, each would fail halfway
    #[arg(long)]
    no_restores: bool,
    /// How often a location is checked that does not say it itself
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    store_validation_frequency: Duration,
    /// How often a location is looked through for backups that have no object, where it does not say it itself
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    backup_sync_period: Duration,
    /// How often expired backups are removed
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    garbage_collection_frequency: Duration,
    /// Answer /metrics (Prometheus), /healthz and /readyz at HOST:PORT; `:8085` is every address [default: nothing is answered]
    #[arg(long, value_name = "ADDRESS", value_parser = controller::address)]
    metrics_address: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: ControllerArgs) -> Result<Exit> {
    let listener = match &args.metrics_address {
        Some(address) => Some(controller::listen(address).await?),
        None => None,
    };
    let cluster = context.cluster().await?.clone();
    let namespace = args.namespace.to_string();
    controller::prepare(&context.ui, &cluster, &namespace).await?;
    let settings = Settings {
        namespace,
        concurrent_backups: usize::from(args.concurrent_backups),
        restores: !args.no_restores,
        validation_frequency: signed(args.store_validation_frequency),
        sync_period: signed(args.backup_sync_period),
        collection_frequency: signed(args.garbage_collection_frequency),
        spool_dir: context.paths.spool().to_owned(),
        state_dir: context.paths.state().to_owned(),
        locations: context.location_args().clone(),
    };
    let desk = Desk::new(
        Arc::clone(&context.ui),
        cluster,
        settings,
        context.host(),
        Arc::new(Timestamp::now),
    );
    let desk = Arc::new(desk);
    if let Some(listener) = listener {
        tokio::spawn(controller::answer(listener, Arc::clone(&desk)));
    }
    controller::serve(desk).await;
    Ok(Exit::Done)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
