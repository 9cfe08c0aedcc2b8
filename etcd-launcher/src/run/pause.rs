//! The control plane to 0 and back. Every write carries the version that was read before the decision was looked at again; a Deployment's former
//! replicas are written in the same patch that scales it. Only what carries this attempt's id is put back, and only where nobody scaled it since.

use std::collections::BTreeMap;

use backup_core::api::hosted::pause_reason as reason;
use backup_core::{Error, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::decide::Unpaused;
use super::hosting::{Hosting, Written};
use super::memory::RestoreRef;
use super::records::{Attempt, FORMER_REPLICAS, Former, PAUSED_BY};

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

fn paused_by(deployment: &Deployment) -> Option<&str> {
    deployment.annotations().get(PAUSED_BY).map(String::as_str)
}

fn former_of(deployment: &Deployment) -> Option<i32> {
    deployment.annotations().get(FORMER_REPLICAS)?.parse().ok()
}

/// The decision that an effect belongs to: looked at again between the read of an object and the write of it.
#[derive(Clone, Debug)]
pub(crate) enum Still {
    /// As long as this decision stands.
    While {
        hosting: Box<Hosting>,
        restore: RestoreRef,
        attempt: Box<Attempt>,
    },
    /// Always: its restore is gone.
    Always,
}

impl Still {
    /// Whether it is still the one.
    pub(crate) async fn stands(&self) -> Result<bool> {
        let Self::While {
            hosting,
            restore,
            attempt,
        } = self
        else {
            return Ok(true);
        };
        let now = hosting.restore(restore).await?;
        let now = now.and_then(|restore| restore.attempt);
        Ok(now.is_some_and(|now| {
            (&now.id, now.sequence, now.step()) == (&attempt.id, attempt.sequence, attempt.step())
        }))
    }
}

/// How far the pause is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// All Deployments that there are.
    pub(crate) deployments: Vec<Deployment>,
    /// All are at 0 by this attempt, and no pod is left.
    pub(crate) paused: bool,
    /// Something of this attempt is on one of them or on the cluster.
    pub(crate) touched: bool,
    /// What is not, for people.
    pub(crate) waiting: String,
}

/// Looks.
pub(crate) async fn look(hosting: &Hosting, attempt: &Attempt, with_pods: bool) -> Result<Seen> {
    let mut seen = Seen {
        paused: true,
        ..Seen::default()
    };
    let cluster = hosting.cluster().await?;
    if let Some(cluster) = &cluster {
        seen.touched = cluster.pause_reason == reason(&attempt.id);
        if !cluster.paused {
            seen.paused = false;
            seen.waiting = "the cluster is not paused yet".to_owned();
        }
    }
    for name in &hosting.names.control_plane {
        let Some(deployment) = hosting.deployment(name).await? else {
            continue;
        };
        let ours = paused_by(&deployment) == Some(attempt.id.as_str());
        seen.touched |= ours;
        if !ours || replicas(&deployment) != 0 {
            seen.paused = false;
            seen.waiting = format!("Deployment {name} is not at 0");
        } else if with_pods {
            let pods = hosting.pods_of(&deployment).await?;
            if pods > 0 {
                seen.paused = false;
                seen.waiting = format!("{pods} pods of Deployment {name} are still there");
            }
        }
        seen.deployments.push(deployment);
    }
    Ok(seen)
}

/// How the control plane is now: what an unpause will bring back.
pub(crate) async fn former(hosting: &Hosting) -> Result<Former> {
    let mut former = Former::default();
    if let Some(cluster) = hosting.cluster().await? {
        let ours = cluster.pause_reason.starts_with(&reason(""));
        former.paused = cluster.paused && !ours;
        if former.paused {
            former.pause_reason = cluster.pause_reason;
        }
    }
    for name in &hosting.names.control_plane {
        if let Some(deployment) = hosting.deployment(name).await? {
            former
                .replicas
                .insert(name.clone(), wanted_later(&deployment));
        }
    }
    Ok(former)
}

/// What a Deployment goes back to: an attempt that was forgotten left its number on one that is at 0, and 0 is not recorded over it.
fn wanted_later(deployment: &Deployment) -> i32 {
    match (replicas(deployment), former_of(deployment)) {
        (0, Some(former)) if paused_by(deployment).is_some() => former,
        (now, _) => now,
    }
}

/// Pauses what is not paused yet; `still` says whether the decision stands, after each object was read.
pub(crate) async fn pause(hosting: &Hosting, attempt: &Attempt, still: &Still) -> Result<()> {
    if let Some(cluster) = hosting.cluster().await?
        && !cluster.paused
        && still.stands().await?
    {
        let patch = json!({"spec": {"pause": true, "pauseReason": reason(&attempt.id)}});
        hosting.patch_cluster(&cluster, patch).await?;
    }
    for name in &hosting.names.control_plane {
        let Some(deployment) = hosting.deployment(name).await? else {
            continue;
        };
        let ours = paused_by(&deployment) == Some(attempt.id.as_str());
        if ours && replicas(&deployment) == 0 {
            continue;
        }
        if !still.stands().await? {
            return Ok(());
        }
        let former = match (ours, former_of(&deployment)) {
            // Scaled up by somebody during the pause: the first number stands.
            (true, Some(former)) => former,
            _ => wanted_later(&deployment),
        };
        let patch = json!({
            "metadata": {"annotations": {
                PAUSED_BY: attempt.id, FORMER_REPLICAS: former.to_string(),
            }},
            "spec": {"replicas": 0},
        });
        hosting.patch_deployment(&deployment, patch).await?;
    }
    Ok(())
}

/// Puts everything of an attempt back: the API server first, the others once it is ready or patience has ended.
pub(crate) async fn unpause(
    hosting: &Hosting,
    attempt: &str,
    former: &BTreeMap<String, i32>,
    patience_ended: bool,
    still: &Still,
) -> Result<Unpaused> {
    let mut not_ready = false;
    for (index, name) in hosting.names.control_plane.iter().enumerate() {
        let Some(deployment) = hosting.deployment(name).await? else {
            continue;
        };
        if paused_by(&deployment) == Some(attempt) {
            if !still.stands().await? {
                return Ok(Unpaused::No);
            }
            let wanted = former_of(&deployment).or_else(|| former.get(name).copied());
            let mut patch = json!({
                "metadata": {"annotations": {PAUSED_BY: Value::Null, FORMER_REPLICAS: Value::Null}},
            });
            if replicas(&deployment) == 0 {
                patch["spec"] = json!({ "replicas": wanted.unwrap_or(1) });
            }
            if hosting.patch_deployment(&deployment, patch).await? == Written::Conflict {
                return Ok(Unpaused::No);
            }
        }
        if index == 0 && !is_ready(hosting, name).await? {
            if !patience_ended {
                return Ok(Unpaused::No);
            }
            not_ready = true;
        }
    }
    if let Some(cluster) = hosting.cluster().await?
        && cluster.pause_reason == reason(attempt)
    {
        if !still.stands().await? {
            return Ok(Unpaused::No);
        }
        let patch = json!({"spec": {"pause": false, "pauseReason": Value::Null}});
        if hosting.patch_cluster(&cluster, patch).await? == Written::Conflict {
            return Ok(Unpaused::No);
        }
    }
    Ok(if not_ready {
        Unpaused::NotReady
    } else {
        Unpaused::Yes
    })
}

async fn is_ready(hosting: &Hosting, name: &str) -> Result<bool> {
    let Some(deployment) = hosting.deployment(name).await? else {
        return Err(Error::not_found(format!("Deployment {name} is gone")));
    };
    let ready = deployment
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas);
    Ok(replicas(&deployment) == 0 || ready.unwrap_or(0) > 0)
}
