//! What a restore that did not come to its end left of the claims that it held: for who deletes its record.

use serde_json::{Value, json};

use super::super::patience::patiently;
use super::super::rewrite::MANAGER;
use super::objects::{self, HELD_FOR, POLICY, RESTORE, STAGING_OF};
use crate::cluster::{ApiError, Call, Cluster, page};
use crate::error::Result;
use crate::name::Name;

/// Objects of a page, and its size at most.
const ITEMS: usize = 500;
const LARGEST: usize = 64 << 20;

/// A claim under which a volume was filled.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Staging {
    namespace: String,
    name: String,
    uid: String,
}

/// A volume that is full and bound to nobody yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Full {
    name: String,
    version: String,
    former: Option<String>,
}

/// What is left of a restore's claims in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    staging: Vec<Staging>,
    full: Vec<Full>,
    /// The claims whose volumes were being filled: `shop/data`.
    pub filling: Vec<String>,
    /// Volumes that hold the data of a claim that is not bound to them yet.
    pub volumes: Vec<String>,
}

/// Looks for it.
///
/// # Errors
/// The server's.
pub async fn left(cluster: &Cluster, restore: &Name) -> Result<Left> {
    let mut left = Left::default();
    let claims = "/api/v1/persistentvolumeclaims";
    let ours = "app.kubernetes.io/name%3Dkubectl-backup%2Capp.kubernetes.io/component%3Dmover";
    each(cluster, claims, Some(ours), |claim| {
        if claim["metadata"]["annotations"][RESTORE] == restore.as_str() {
            let text = |key: &str| {
                claim["metadata"][key]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            let of = claim["metadata"]["annotations"][STAGING_OF].as_str();
            let of = of.unwrap_or_default();
            left.filling.push(format!("{}/{of}", text("namespace")));
            left.staging.push(Staging {
                namespace: text("namespace"),
                name: text("name"),
                uid: text("uid"),
            });
        }
    })
    .await?;
    let prefix = format!("{restore}/");
    each(cluster, "/api/v1/persistentvolumes", None, |volume| {
        let annotations = &volume["metadata"]["annotations"];
        let held = annotations[HELD_FOR].as_str();
        if held.is_some_and(|held| held.starts_with(&prefix)) {
            let text = |key: &str| {
                volume["metadata"][key]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            let former = annotations[POLICY].as_str();
            let former = former.filter(|policy| matches!(*policy, "Retain" | "Delete" | "Recycle"));
            left.volumes.push(text("name"));
            left.full.push(Full {
                name: text("name"),
                version: text("resourceVersion"),
                former: former.map(str::to_owned),
            });
        }
    })
    .await?;
    Ok(left)
}

impl Left {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.staging.is_empty() && self.full.is_empty()
    }

    /// Gives volumes their policies back, and then deletes the claims under which they were filled: what becomes of a volume is what its class says.
    ///
    /// # Errors
    /// The server's.
    pub async fn clear(&self, cluster: &Cluster) -> Result<()> {
        for full in &self.full {
            let path = format!(
                "/api/v1/persistentvolumes/{}?fieldManager={MANAGER}",
                full.name
            );
            let patch = objects::put_back(&full.version, full.former.as_deref()).to_string();
            let call = Call::merge_patch(&path, patch.into());
            gone_is_fine(patiently(|| cluster.send(&call)).await.map(drop))?;
        }
        for claim in &self.staging {
            let path = format!(
                "/api/v1/namespaces/{}/persistentvolumeclaims/{}",
                claim.namespace, claim.name
            );
            let options = json!({"preconditions": {"uid": claim.uid}}).to_string();
            let call = Call::delete(&path, options.into());
            gone_is_fine(patiently(|| cluster.send(&call)).await.map(drop))?;
        }
        Ok(())
    }
}

fn gone_is_fine(done: Result<(), ApiError>) -> Result<(), ApiError> {
    match done {
        Err(e) if e.is_not_found() => Ok(()),
        done => done,
    }
}

/// Shows every object of a list.
async fn each(
    cluster: &Cluster,
    path: &str,
    selector: Option<&str>,
    mut show: impl FnMut(&Value),
) -> Result<()> {
    let mut token = String::new();
    loop {
        let mut path = page(path, ITEMS, &token);
        if let Some(selector) = selector {
            path.push_str("&labelSelector=");
            path.push_str(selector);
        }
        let body = patiently(|| cluster.get_bounded(&path, LARGEST)).await?;
        let list: Value = serde_json::from_slice(&body).unwrap_or_default();
        list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .for_each(&mut show);
        match list["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() && next != token => next.clone_into(&mut token),
            _ => return Ok(()),
        }
    }
}
