//! A destination of snapshots, as objects name it, opened from where the plugin runs. Writes nothing.

use backup_core::etcd::destination;
use backup_core::location::Location;

use crate::context::Context;
use backup_cli::error::Result;

pub(super) use backup_core::etcd::destination::{missing, names};

/// Opens a destination; nothing is sent to the store yet.
///
/// # Errors
/// `NotFound` with those there are; one that can only be used where the launcher runs, with what to do instead.
pub(super) async fn open(context: &Context, namespace: &str, name: &str) -> Result<Location> {
    let cluster = context.cluster().await?;
    let mut found = destination::find(cluster, namespace, name).await?;
    found.spec.metadata.namespace = Some(found.namespace);
    context.open_object(found.spec).await
}
