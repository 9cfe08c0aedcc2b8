//! `controller`: serves Velero's API in a cluster until it is stopped.

use std::sync::Arc;

use backup_core::hooks::Process;
use backup_core::name::Name;
use clap::Args;
use jiff::Timestamp;

use crate::context::Context;
use crate::controller::{self, Desk, Settings};
use crate::copies::CopyArgs;
use crate::flags::ControllerFlags;
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
    /// Refuse Restores: without the rights to write what they bring back, each would fail halfway
    #[arg(long)]
    no_restores: bool,
    /// Answer /metrics (Prometheus), /healthz and /readyz at HOST:PORT; `:8085` is every address [default: nothing is answered]
    #[arg(long, value_name = "ADDRESS", value_parser = controller::address)]
    metrics_address: Option<String>,
    #[command(flatten)]
    how: ControllerFlags,
    #[command(flatten)]
    copies: CopyArgs,
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
    let copies = args.copies.of_controller(&cluster, &namespace).await;
    let settings = Settings {
        namespace,
        concurrent_backups: args.how.concurrent_backups(),
        restores: !args.no_restores,
        validation_frequency: args.how.validation_frequency(),
        sync_period: args.how.sync_period(),
        collection_frequency: args.how.collection_frequency(),
        copies,
        spool_dir: context.paths.spool().to_owned(),
        state_dir: context.paths.state().to_owned(),
        locations: context.location_args().clone(),
    };
    let host = context.host();
    // A pod's name is its host's; nobody else is started with this variable.
    let is_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let pod = is_pod.then(|| format!("{}/{host}", settings.namespace));
    let process = Process::this(host, pod);
    let desk = Desk::new(
        Arc::clone(&context.ui),
        cluster,
        settings,
        process,
        Arc::new(Timestamp::now),
    );
    let desk = Arc::new(desk);
    if let Some(listener) = listener {
        tokio::spawn(controller::answer(listener, Arc::clone(&desk)));
    }
    controller::serve(desk).await;
    Ok(Exit::Done)
}
