//! Hooks of pods that a restore made: they run when everything else stands.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::rewrite::LABEL_RESTORE;
use super::waves::Waves;
use crate::cluster::{ApiError, Cluster, page};
use crate::error::Result;
use crate::hooks::restored::Runner;

/// Pods of a page.
const PODS: usize = 500;

/// Runs them, and notes what came of each. `unfinished`: an earlier run of this restore may have made pods and not come to their hooks.
///
/// # Errors
/// `Interrupted`.
pub(super) async fn run<S>(waves: &mut Waves<'_, S>, unfinished: bool) -> Result<()> {
    let applier = &waves.applier;
    let mut pods = applier.made.take();
    if unfinished {
        match made(&applier.cluster, &applier.rewrite.restore).await {
            Ok(more) => pods.extend(more),
            Err(e) => waves.record.warn(
                None,
                format!("hooks of pods that an earlier run made are not run, for pods can not be listed: {e}"),
            )?,
        }
    }
    let Some(cancel) = waves.cancel.clone().filter(|_| !pods.is_empty()) else {
        return Ok(());
    };
    waves
        .progress
        .step(&format!("running the hooks of {} pods", pods.len()));
    let runner = Runner {
        cluster: &applier.cluster,
        hooks: &applier.rewrite.hooks,
        cancel,
    };
    for word in runner.run(pods).await? {
        waves.record.hook(word)?;
    }
    Ok(())
}

/// All pods that this restore made.
async fn made(cluster: &Cluster, restore: &str) -> Result<BTreeSet<(String, String)>, ApiError> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        metadata: ListMeta,
        items: Option<Vec<crate::hooks::Pod>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct ListMeta {
        #[serde(rename = "continue")]
        token: String,
    }
    let mut pods = BTreeSet::new();
    let mut token = String::new();
    loop {
        let path = page("/api/v1/pods", PODS, &token);
        let body = cluster
            .get(&format!("{path}&labelSelector={LABEL_RESTORE}%3D{restore}"))
            .await?;
        let list: List = serde_json::from_slice(&body).map_err(|e| ApiError {
            message: format!("the server's answer is no list of pods: {e}"),
            ..ApiError::default()
        })?;
        let all = list.items.into_iter().flatten();
        pods.extend(all.map(|pod| (pod.metadata.namespace, pod.metadata.name)));
        if list.metadata.token.is_empty() || list.metadata.token == token {
            return Ok(pods);
        }
        token = list.metadata.token;
    }
}
