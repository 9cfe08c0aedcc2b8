//! Names that completion proposes under `etcd`. Reads only.

use backup_core::api::{EtcdBackupConfig, EtcdRestore, HostedCluster};

use super::scope::{OfCluster, ScopeArgs};
use super::{destination, find, objects};
use crate::context::Context;
use backup_cli::error::Result;

/// Hosted clusters.
///
/// # Errors
/// Whatever keeps them from being read.
pub(crate) async fn clusters(context: &Context) -> Result<Vec<String>> {
    let all = objects::list::<HostedCluster>(context.cluster().await?, None).await?;
    Ok(all.iter().map(|one| one.name().to_owned()).collect())
}

/// Snapshots.
///
/// # Errors
/// As [`clusters`].
pub(crate) async fn snapshots(context: &Context, scope: &ScopeArgs) -> Result<Vec<String>> {
    let all = find::all(context, scope).await?;
    Ok(all.into_iter().map(|one| one.name).collect())
}

/// EtcdBackupConfigs.
///
/// # Errors
/// As [`clusters`].
pub(crate) async fn schedules(context: &Context, scope: &ScopeArgs) -> Result<Vec<String>> {
    named::<EtcdBackupConfig>(context, scope).await
}

/// EtcdRestores.
///
/// # Errors
/// As [`clusters`].
pub(crate) async fn restores(context: &Context, scope: &ScopeArgs) -> Result<Vec<String>> {
    named::<EtcdRestore>(context, scope).await
}

/// Destinations of the control plane that is meant.
///
/// # Errors
/// As [`clusters`].
pub(crate) async fn destinations(context: &Context, scope: &ScopeArgs) -> Result<Vec<String>> {
    let Some(namespace) = scope.listed(context).await? else {
        return Ok(Vec::new());
    };
    let names = destination::names(context.cluster().await?, &namespace).await;
    Ok(names.unwrap_or_default())
}

async fn named<K: OfCluster>(context: &Context, scope: &ScopeArgs) -> Result<Vec<String>> {
    let all = scope.all::<K>(context).await?;
    Ok(all.iter().map(|one| one.name().to_owned()).collect())
}
