//! Looks on while a mover runs: whether it still does, and why not. Says now and then that its run lives.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use super::{LARGEST_POD, LOOKS, Spot};
use crate::cluster::Cluster;
use crate::mover::spec::CONTAINER;
use crate::mover::streams;
use crate::pod::{Stand, short, stand, status_of};

/// How often one that runs is told that its run lives: it ends by itself when it hears nothing for ten minutes.
const BEATS: Duration = Duration::from_secs(100);

/// Why a pod that ran does not run any more; nothing where it does, or nobody can tell.
pub(super) async fn why_over(cluster: &Cluster, spot: &Spot, uid: &str) -> Option<String> {
    let body = match cluster.get_bounded(&spot.path(), LARGEST_POD).await {
        Ok(body) => body,
        Err(e) if e.is_not_found() => return Some("its pod was deleted".to_owned()),
        Err(_) => return None,
    };
    let pod: Value = serde_json::from_slice(&body).ok()?;
    judge(&pod, uid, &spot.container)
}

/// Why a pod is not any more what it was, as it stands now with this container.
fn judge(pod: &Value, uid: &str, container: &str) -> Option<String> {
    let meta = &pod["metadata"];
    if meta["uid"] != uid {
        return Some("its pod was deleted".to_owned());
    }
    let what = if container == CONTAINER {
        "pod"
    } else {
        "container"
    };
    let restarts = status_of(pod, container)["restartCount"].as_u64() > Some(0);
    match stand(pod, container) {
        Stand::Ended(why) => return Some(format!("its {what} has ended: {why}")),
        Stand::Stuck(why) => return Some(format!("its {what} does not run any more: {why}")),
        Stand::Runs | Stand::Waits(_) => {}
    }
    if !meta["deletionTimestamp"].is_null() {
        let reason = pod["status"]["reason"].as_str().unwrap_or_default();
        return Some(match reason {
            "" => "its pod is being deleted".to_owned(),
            reason => format!("its pod is being deleted: {}", short(reason)),
        });
    }
    restarts.then(|| "its container ended and was started anew".to_owned())
}

/// Looks until it is over, and says now and then that somebody is there.
pub(super) async fn look_on(
    cluster: Cluster,
    spot: Spot,
    uid: String,
    tell: watch::Sender<Option<String>>,
) {
    let mut beaten = Instant::now();
    loop {
        tokio::time::sleep(LOOKS).await;
        if beaten.elapsed() >= BEATS {
            beaten = Instant::now();
            // One that is not heard is followed by others, before the pod gives up.
            let beat = streams::say(&cluster, &spot, "beat");
            let _ = tokio::time::timeout(LOOKS, beat).await;
        }
        if let Some(why) = why_over(&cluster, &spot, &uid).await {
            tell.send_replace(Some(why));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: Value) -> Value {
        json!({"metadata": {"uid": "u"}, "status": status})
    }

    #[test]
    fn a_mover_that_is_not_what_it_was_is_named_with_the_reason() {
        let runs = json!({"phase": "Running", "containerStatuses": [{"name": "mover", "restartCount": 0, "state": {"running": {}}}]});
        assert_eq!(judge(&pod(runs.clone()), "u", CONTAINER), None);
        assert_eq!(
            judge(&pod(runs.clone()), "v", CONTAINER).unwrap(),
            "its pod was deleted"
        );
        let mut going = pod(runs.clone());
        going["metadata"]["deletionTimestamp"] = "2026-11-30T10:00:00Z".into();
        assert_eq!(
            judge(&going, "u", CONTAINER).unwrap(),
            "its pod is being deleted"
        );
        let mut anew = runs;
        anew["containerStatuses"][0]["restartCount"] = 1.into();
        assert!(judge(&pod(anew), "u", CONTAINER).unwrap().contains("anew"));
        let killed = json!({"phase": "Failed", "containerStatuses": [{"name": "mover", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]});
        let said = judge(&pod(killed), "u", CONTAINER).unwrap();
        assert_eq!(
            said,
            "its pod has ended: it ended with exit code 137: OOMKilled"
        );
    }
}
