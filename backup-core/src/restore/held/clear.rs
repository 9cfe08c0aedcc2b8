//! Clears what a restore left of the claims that it held. Everything goes by the uid or the revision that was seen; what somebody else uses stays and is named.

#[cfg(test)]
mod tests;

use serde_json::json;
use tokio::time::Instant;

use super::api::{GOES, Mounting, PAUSE, delete, patch_volume, pods_with, user_of};
use super::left::{Claim, Full, Left};
use super::objects;
use super::why::kept_policy;
use crate::cluster::{ApiError, Cluster};
use crate::error::Result;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// What is still there, and why: a sentence each.
    pub stays: Vec<String>,
    /// What is cleared and is to be said of it: a sentence each.
    pub said: Vec<String>,
}

impl Left {
    /// Gives volumes their policies back; deletes claims that were never bound, and then those under which volumes were filled: what becomes of a volume is what
    /// its class says. Dead movers that have these go first, or they would not go.
    ///
    /// # Errors
    /// The server's.
    pub async fn clear(&self, cluster: &Cluster) -> Result<Cleared> {
        let mut cleared = Cleared::default();
        for given in &self.given {
            put_back(cluster, given, &mut cleared).await?;
        }
        for (taken, claim) in &self.taken {
            // Its policy is whoever's who took it.
            let patch = objects::put_back(&taken.version, None);
            if written(
                patch_volume(cluster, &taken.name, &patch).await,
                &taken.name,
                &mut cleared,
            )? {
                cleared.said.push(format!(
                    "volume {} has the data of claim {}/{} and is that of claim {claim} now: it keeps its policy and its data",
                    taken.name, taken.note.namespace, taken.note.claim
                ));
            }
        }
        // Who makes pods with such a claim would make an empty one: not while there are such pods.
        for claim in &self.held {
            match user_of(cluster, &claim.namespace, &claim.name).await? {
                Some(user) => cleared.stays.push(format!(
                    "claim {} stays Pending, for {user} uses it: scale its workload to 0",
                    claim.path()
                )),
                None => {
                    let seen = json!({"uid": claim.uid, "resourceVersion": claim.version});
                    remove(cluster, claim, seen, &mut cleared).await?;
                }
            }
        }
        let mut free = Vec::new();
        for claim in &self.staging {
            if vacate(cluster, claim, &mut cleared).await? {
                free.push(claim);
            }
        }
        for full in &self.full {
            put_back(cluster, full, &mut cleared).await?;
        }
        for claim in free {
            remove(cluster, claim, json!({"uid": claim.uid}), &mut cleared).await?;
        }
        Ok(cleared)
    }
}

async fn put_back(cluster: &Cluster, full: &Full, cleared: &mut Cleared) -> Result<()> {
    let patch = objects::put_back(&full.version, full.former.as_deref());
    let done = patch_volume(cluster, &full.name, &patch).await;
    if written(done, &full.name, cleared)? && full.former.is_none() {
        cleared.said.push(kept_policy(&full.name));
    }
    Ok(())
}

/// Whether a volume was changed: it may be gone, or another one since it was seen.
fn written(done: Result<(), ApiError>, volume: &str, cleared: &mut Cleared) -> Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(e) if e.is_conflict() => {
            cleared.stays.push(format!(
                "volume {volume} was changed in between: give the command again"
            ));
            Ok(false)
        }
        Err(e) if e.is_not_found() => Ok(false),
        Err(e) => Err(e.into()),
    }
}

async fn remove(
    cluster: &Cluster,
    claim: &Claim,
    seen: serde_json::Value,
    cleared: &mut Cleared,
) -> Result<()> {
    match delete(cluster, &claim.at(), seen).await {
        Err(e) if e.is_conflict() => cleared.stays.push(format!(
            "claim {}/{} was changed in between: give the command again",
            claim.namespace, claim.name
        )),
        done => done?,
    }
    Ok(())
}

/// Removes the movers that have a staging claim, and waits until they are gone. Whether nobody has it then.
async fn vacate(cluster: &Cluster, claim: &Claim, cleared: &mut Cleared) -> Result<bool> {
    let until = Instant::now() + GOES;
    let mut asked: Vec<String> = Vec::new();
    loop {
        let there = pods_with(cluster, &claim.namespace, &claim.name).await?;
        let (movers, others): (Vec<Mounting>, Vec<Mounting>) =
            there.into_iter().partition(|pod| pod.is_mover);
        if let Some(pod) = others.first() {
            cleared.stays.push(format!(
                "claim {}/{}, under which a volume was filled for {}, stays, for pod {} has it: delete that pod",
                claim.namespace,
                claim.name,
                claim.path(),
                pod.name
            ));
            return Ok(false);
        }
        let Some(first) = movers.first() else {
            return Ok(true);
        };
        if Instant::now() >= until {
            cleared.stays.push(format!(
                "claim {}/{} stays, for pod {} has it and does not go: look at its node",
                claim.namespace, claim.name, first.name
            ));
            return Ok(false);
        }
        for pod in movers.iter().filter(|pod| !asked.contains(&pod.uid)) {
            let at = format!("/api/v1/namespaces/{}/pods/{}", claim.namespace, pod.name);
            match delete(cluster, &at, json!({"uid": pod.uid})).await {
                Err(e) if e.is_conflict() => {}
                deleted => deleted?,
            }
        }
        asked = movers.into_iter().map(|pod| pod.uid).collect();
        tokio::time::sleep(PAUSE).await;
    }
}
