//! Every later write to the hosting API, rehearsed while nothing is stopped: a right that is missing, or an admission that refuses, is found now
//! and named.

use backup_core::{Error, Kind, Result};
use serde_json::json;

use super::hosting::{Hosting, RestoreView};
use super::records::{FINALIZER, PAUSED_BY};

/// Rehearses.
///
/// # Errors
/// The first write that would not be taken.
pub(crate) async fn rehearse(hosting: &Hosting, restore: &RestoreView) -> Result<()> {
    let hosting = hosting.rehearsing();
    let rehearsed = async {
        hosting.write_status(restore, |_| {}).await?;
        let finalizers = json!({ "finalizers": [FINALIZER] });
        hosting.patch_restore(restore, finalizers).await?;
        if let Some(set) = hosting.set().await? {
            let annotations = json!({ PAUSED_BY: "rehearsal" });
            hosting.annotate_set(&set, annotations).await?;
        }
        if let Some(cluster) = hosting.cluster().await? {
            let paused = json!({"spec": {"pause": true, "pauseReason": "rehearsal"}});
            hosting.patch_cluster(&cluster, paused).await?;
        }
        for name in &hosting.names.control_plane {
            let Some(deployment) = hosting.deployment(name).await? else {
                continue;
            };
            hosting.pods_of(&deployment).await?;
            let scaled = json!({
                "metadata": {"annotations": {PAUSED_BY: "rehearsal"}}, "spec": {"replicas": 0},
            });
            hosting.patch_deployment(&deployment, scaled).await?;
        }
        Ok::<_, Error>(())
    };
    match rehearsed.await {
        Err(e) if matches!(e.kind(), Kind::Forbidden | Kind::Unauthorized) => Err(e
            .context("the launcher lacks a right that a restore needs")
            .hint("give it to its ServiceAccount, then apply the restore again")),
        rehearsed => rehearsed,
    }
}
