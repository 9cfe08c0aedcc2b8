//! Takes movers away and waits until they are gone: those of this run, and those that dead runs left.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use super::{LARGEST_POD, LOOKS, OFTEN, Shared, Spot, path_of};
use crate::cluster::{ApiError, Call, Cluster};
use crate::error::{Error, Result};
use crate::mover::spec::run_of;
use crate::mover::streams;
use crate::pod::{Stand, stand};

/// How long the end of a pod is awaited.
const GOES: Duration = Duration::from_secs(30);

impl Shared {
    /// Takes away what was made and waits until it is gone. With a uid, of that pod and no other of its name.
    pub(super) async fn remove(&self, spot: &Spot, uid: &str) -> Result<()> {
        match spot.is_inside {
            true => self.end_container(spot, uid).await?,
            false => self.delete_pod(&spot.path(), uid).await?,
        }
        self.gone(spot);
        Ok(())
    }

    /// Tells the program of a container in somebody's pod to end, and waits until it has.
    async fn end_container(&self, spot: &Spot, uid: &str) -> Result<()> {
        let path = spot.path();
        let until = Instant::now() + GOES;
        while Instant::now() < until {
            match self.cluster.get_bounded(&path, LARGEST_POD).await {
                Ok(body) => {
                    let pod: Value = serde_json::from_slice(&body).unwrap_or_default();
                    let is_other = !uid.is_empty() && pod["metadata"]["uid"] != uid;
                    match stand(&pod, &spot.container) {
                        _ if is_other => return Ok(()),
                        Stand::Ended(_) => return Ok(()),
                        Stand::Runs => {
                            let end = streams::say(&self.cluster, spot, "end");
                            let _ = tokio::time::timeout(LOOKS, end).await;
                        }
                        // Should it come to run, it hears of nobody.
                        Stand::Stuck(_) | Stand::Waits(_) => return Ok(()),
                    }
                }
                Err(e) if e.is_not_found() => return Ok(()),
                Err(_) => {}
            }
            tokio::time::sleep(OFTEN).await;
        }
        Err(Error::other(format!(
            "it still runs {} s after it was told to end",
            GOES.as_secs()
        )))
    }

    async fn delete_pod(&self, path: &str, uid: &str) -> Result<()> {
        match delete(&self.cluster, path, uid).await {
            Ok(()) => {}
            Err(e) if e.is_not_found() || e.is_conflict() => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let until = Instant::now() + GOES;
        while Instant::now() < until {
            match self.cluster.get_bounded(path, LARGEST_POD).await {
                Err(e) if e.is_not_found() => return Ok(()),
                _ => tokio::time::sleep(OFTEN).await,
            }
        }
        Err(Error::other(format!(
            "it is still there {} s after it was deleted",
            GOES.as_secs()
        )))
    }
}

/// Removes movers that dead runs left, of which these are known: they are over. A run that lives has seen the end of its own.
pub(crate) async fn remove_left(cluster: &Cluster, left: &[Value]) {
    let gone = left.iter().map(|pod| async move {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
        let path = path_of(text("namespace"), text("name"));
        // Who may not, leaves it to the next.
        let _ = delete(cluster, &path, text("uid")).await;
    });
    join_all(gone).await;
}

/// Whether a pod is a mover that its run has left: it is over, and not of the run that asks.
pub(crate) fn is_left(pod: &Value, run: &str) -> bool {
    let is_over = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    is_over && run_of(pod).is_some_and(|its| its != run)
}

async fn delete(cluster: &Cluster, path: &str, uid: &str) -> Result<(), ApiError> {
    let options = match uid {
        "" => json!({}),
        uid => json!({"preconditions": {"uid": uid}}),
    };
    let call = Call::delete(path, options.to_string().into());
    cluster.send(&call).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(run: &str, status: Value) -> Value {
        json!({
            "metadata": {
                "labels": {"app.kubernetes.io/name": "kubectl-backup", "app.kubernetes.io/component": "mover", "kubectl-backup/run": run},
            },
            "status": status,
        })
    }

    #[test]
    fn movers_of_other_runs_that_are_over_are_left_and_none_else() {
        let is = |run: &str, phase: &str| is_left(&pod(run, json!({"phase": phase})), "mine");
        assert!(is("dead", "Failed") && is("dead", "Succeeded"));
        assert!(!is("dead", "Running") && !is("dead", "Pending"));
        assert!(!is("mine", "Failed"));
        let somebodys =
            json!({"metadata": {"labels": {"app": "db"}}, "status": {"phase": "Failed"}});
        assert!(!is_left(&somebodys, "mine"));
    }
}
