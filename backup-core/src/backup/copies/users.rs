//! Which pods use the claims that are copied, as the cluster has it now: of the backup or not. A list is believed for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use serde_json::Value;

use super::super::EPHEMERAL_MOVERS;
use super::plan::UsersOf;
use crate::cluster::{ApiError, Cluster, page};
use crate::mover::{Beside, is_left, run_of};

/// Pods a page.
const PAGE: usize = 100;

/// No page of them is larger.
const LARGEST: usize = 64 << 20;

/// Namespaces that are listed at a time.
const AT_A_TIME: usize = 4;

/// So often a list that expired half-way is begun anew.
const TRIES: u32 = 3;

/// A pod that uses a claim.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct User {
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) claim: String,
    /// A mover of another run.
    pub(super) is_mover: bool,
    /// What stands beside it; nothing where it is on no node yet.
    pub(super) beside: Option<Beside>,
    /// Its name for the volume.
    pub(super) volume: String,
    /// Whether it runs, and is to go on with that.
    pub(super) runs: bool,
    /// It is in its node's network.
    pub(super) is_in_nodes_network: bool,
    /// What it says of ephemeral containers for its copies, as it says it.
    pub(super) ephemeral: Option<String>,
}

/// Asks who uses claims.
pub(super) struct Users {
    cluster: Cluster,
    run: String,
    known: Mutex<BTreeMap<String, Known>>,
}

struct Known {
    claims: BTreeSet<String>,
    at: Instant,
    users: Result<Vec<User>, String>,
}

/// Pods of one namespace.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Listed {
    pub(super) users: Vec<User>,
    /// Movers that dead runs left.
    pub(super) left: Vec<Value>,
}

impl Listed {
    /// Takes what matters of a pod.
    fn take(&mut self, pod: &Value, claims: &BTreeSet<String>, run: &str) {
        if is_left(pod, run) {
            let meta = &pod["metadata"];
            self.left.push(serde_json::json!({"metadata": {
                "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            }}));
        }
        let has_ended = matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        if has_ended || run_of(pod) == Some(run) {
            return;
        }
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
        let runs =
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
        let ephemeral = pod["metadata"]["annotations"][EPHEMERAL_MOVERS].as_str();
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            let name = volume["name"].as_str().unwrap_or_default();
            let claim = match volume["persistentVolumeClaim"]["claimName"].as_str() {
                Some(claim) => claim.to_owned(),
                None if volume["ephemeral"].is_object() => format!("{}-{name}", text("name")),
                None => continue,
            };
            if !claims.contains(&claim) {
                continue;
            }
            self.users.push(User {
                pod: text("name"),
                uid: text("uid"),
                claim,
                is_mover: run_of(pod).is_some(),
                beside: Beside::of(pod, name),
                volume: name.to_owned(),
                runs,
                is_in_nodes_network: pod["spec"]["hostNetwork"] == true,
                ephemeral: ephemeral.map(str::to_owned),
            });
        }
    }
}

impl Users {
    pub(super) fn new(cluster: &Cluster, run: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            run: run.to_owned(),
            known: Mutex::default(),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who uses these claims; dead runs' movers that are met go.
    pub(super) async fn gather(&self, namespaces: BTreeMap<String, BTreeSet<String>>) -> UsersOf {
        let listed =
            stream::iter(namespaces).map(|(namespace, claims)| self.one(namespace, claims));
        listed.buffer_unordered(AT_A_TIME).collect().await
    }

    async fn one(
        &self,
        namespace: String,
        claims: BTreeSet<String>,
    ) -> (String, Result<Vec<User>, String>) {
        let users = self.list(&namespace, &claims).await;
        let known = Known {
            claims,
            at: Instant::now(),
            users: users.clone(),
        };
        self.known().insert(namespace.clone(), known);
        (namespace, users)
    }

    /// Who uses the claims of a namespace that are copied, seen at most so long ago.
    pub(super) async fn of(&self, namespace: &str, age: Duration) -> Result<Vec<User>, String> {
        let claims = {
            let known = self.known();
            match known.get(namespace) {
                Some(known) if known.at.elapsed() <= age => return known.users.clone(),
                Some(known) => known.claims.clone(),
                None => BTreeSet::new(),
            }
        };
        let users = self.list(namespace, &claims).await;
        if let Some(known) = self.known().get_mut(namespace) {
            known.at = Instant::now();
            known.users.clone_from(&users);
        }
        users
    }

    async fn list(&self, namespace: &str, claims: &BTreeSet<String>) -> Result<Vec<User>, String> {
        let mut tries = 1;
        let listed = loop {
            match self.pages(namespace, claims).await {
                Err(e) if e.is_expired() && tries < TRIES => tries += 1,
                listed => break listed,
            }
        };
        let listed = listed.map_err(|e| {
            format!("which pods use it can not be seen, and on a wrong node it would be in their way: can not list pods in namespace {namespace}: {e}")
        })?;
        crate::mover::remove_left(&self.cluster, &listed.left).await;
        Ok(listed.users)
    }

    async fn pages(&self, namespace: &str, claims: &BTreeSet<String>) -> Result<Listed, ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let mut token = String::new();
        let mut listed = Listed::default();
        loop {
            let asked = page(&path, PAGE, &token);
            let body = self.cluster.get_bounded(&asked, LARGEST).await?;
            let list: Value = serde_json::from_slice(&body).map_err(|_| no_list())?;
            for pod in list["items"].as_array().ok_or_else(no_list)? {
                listed.take(pod, claims, &self.run);
            }
            match list["metadata"]["continue"].as_str() {
                None | Some("") => return Ok(listed),
                Some(next) if next == token => return Err(no_list()),
                Some(next) => next.clone_into(&mut token),
            }
        }
    }
}

fn no_list() -> ApiError {
    ApiError {
        message: "the server's answer is no list of pods".to_owned(),
        ..ApiError::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str, volumes: Value) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
            "spec": {"nodeName": "n1", "volumes": volumes}, "status": {"phase": phase},
        })
    }

    fn taken(pods: &[Value]) -> Listed {
        let claims = ["data".to_owned(), "web-scratch".to_owned()].into();
        let mut listed = Listed::default();
        for pod in pods {
            listed.take(pod, &claims, "mine");
        }
        listed
    }

    #[test]
    fn pods_that_are_on_their_way_use_claims_and_ended_ones_do_not() {
        let data = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
        let mut going = pod("going", "Running", data.clone());
        going["metadata"]["deletionTimestamp"] = "2026-11-30T10:00:00Z".into();
        let other = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "other"}}]);
        let listed = taken(&[
            pod("waits", "Pending", data.clone()),
            going,
            pod("done", "Succeeded", data),
            pod("another", "Running", other),
            pod(
                "web",
                "Running",
                json!([{"name": "scratch", "ephemeral": {}}]),
            ),
        ]);
        let users: Vec<_> = listed
            .users
            .iter()
            .map(|user| (user.pod.as_str(), user.claim.as_str()))
            .collect();
        assert_eq!(
            users,
            [("waits", "data"), ("going", "data"), ("web", "web-scratch")]
        );
    }

    #[test]
    fn movers_of_this_run_use_nothing_and_those_of_dead_ones_are_met() {
        let data = json!([{"name": "volume", "persistentVolumeClaim": {"claimName": "data"}}]);
        let mover = |run: &str, phase: &str| {
            let mut mover = pod(run, phase, data.clone());
            mover["metadata"]["labels"] = json!({"app.kubernetes.io/name": "kubectl-backup", "app.kubernetes.io/component": "mover", "kubectl-backup/run": run});
            mover
        };
        let listed = taken(&[
            mover("mine", "Running"),
            mover("other", "Running"),
            mover("dead", "Failed"),
        ]);
        assert_eq!(listed.users.len(), 1);
        assert!(listed.users[0].is_mover);
        assert_eq!(listed.left.len(), 1);
        assert_eq!(listed.left[0]["metadata"]["name"], "dead");
    }
}
