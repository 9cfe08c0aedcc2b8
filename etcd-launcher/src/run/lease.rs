//! Which launcher does what one alone should do: the Lease of a cluster in the hosting API.

use std::time::Duration;

use backup_core::Result;
use backup_core::lease::Times;
pub(crate) use backup_core::lease::Turn;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;

use super::hosting::{Hosting, told};
use super::pace::Pace;

/// The moments of a launcher's Lease.
pub(crate) fn times(pace: Pace) -> Times {
    Times {
        renewed: pace.of(Duration::from_secs(4)),
        silence: pace.of(Duration::from_secs(20)),
    }
}

/// Whether launchers of this cluster ever took a turn in the namespace.
pub(crate) async fn is_there(hosting: &Hosting, cluster: &str) -> Result<bool> {
    let leases: Api<Lease> = Api::namespaced(hosting.client.clone(), &hosting.names.namespace);
    let name = backup_core::api::hosted::lease_name(cluster);
    match leases.get_opt(&name).await {
        Ok(lease) => Ok(lease.is_some()),
        // Who may read its own Leases alone is alone here.
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(false),
        Err(e) => Err(told("read a Lease", e)),
    }
}
