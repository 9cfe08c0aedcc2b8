//! Whether a launcher is at work on a cluster: its Lease, watched by this machine's clock alone. Where none is, a restore that waits for one
//! says so in its phase. Where the kinds are not ours, as under KKP, somebody else acts on them: then nothing is said and nothing written.

use std::time::Duration;

use backup_core::Error;
use backup_core::api::hosted::{Ownership, lease_name, ownership};
use backup_core::api::{EtcdRestore, RestorePhase};
use backup_core::cluster::Cluster;
use serde_json::Value;
use tokio::time::Instant;

use super::objects::{self, Object, Written};
use super::scope::ControlPlane;
use backup_cli::error::Result;

/// A launcher that does not renew its Lease for so long is held to be gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

const RESTORES: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/etcdrestores.kubermatic.k8c.io";

/// Watches one Lease.
pub(crate) struct Watch {
    /// Nothing where launchers are none of this cluster's.
    path: Option<String>,
    /// The Lease as it was last seen, nothing where it was absent; and since when it is so.
    seen: Option<(Option<String>, Instant)>,
}

/// What can be said of the launchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// One renewed its Lease while it was watched.
    Alive,
    /// Nothing can be said yet.
    Unknown,
    /// There is no Lease.
    Absent,
    /// The Lease was not renewed for [`SILENCE`].
    Silent,
}

impl Watch {
    /// Begins to watch; whose the kinds are is looked up once.
    pub(super) async fn start(cluster: &Cluster, plane: &ControlPlane) -> Self {
        // Who may not read definitions can not tell, and then nothing is written.
        let ours = are_ours(cluster).await.unwrap_or(false);
        Self::of(plane, ours)
    }

    /// The same where it is known already whether the kinds are ours.
    pub(crate) fn of(plane: &ControlPlane, ours: bool) -> Self {
        let lease = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}",
            plane.namespace,
            lease_name(&plane.cluster)
        );
        Self {
            path: ours.then_some(lease),
            seen: None,
        }
    }

    /// Looks at the Lease once more; where this user may not read it, nothing can be said.
    pub(crate) async fn look(&mut self, cluster: &Cluster) -> Result<Sign> {
        let Some(path) = &self.path else {
            return Ok(Sign::Unknown);
        };
        let version = match cluster.get(path).await {
            Ok(body) => {
                let lease: Value = serde_json::from_slice(&body).unwrap_or_default();
                lease["metadata"]["resourceVersion"]
                    .as_str()
                    .map(str::to_owned)
            }
            Err(e) if e.is_not_found() => None,
            Err(e) if e.is_forbidden() => return Ok(Sign::Unknown),
            Err(e) => {
                return Err(Error::from(e)
                    .context("can not look at the launcher's Lease")
                    .into());
            }
        };
        Ok(self.judge(version, Instant::now()))
    }

    fn judge(&mut self, version: Option<String>, now: Instant) -> Sign {
        match &self.seen {
            Some((seen, since)) if *seen == version => {
                if now.duration_since(*since) >= SILENCE {
                    return Sign::Silent;
                }
            }
            Some(_) => {
                self.seen = Some((version, now));
                return Sign::Alive;
            }
            None => self.seen = Some((version, now)),
        }
        match &self.seen {
            Some((None, _)) => Sign::Absent,
            _ => Sign::Unknown,
        }
    }
}

/// Whether the kinds are there, and ours.
///
/// # Errors
/// The API server's.
pub(crate) async fn are_ours(cluster: &Cluster) -> Result<bool> {
    match cluster.get(RESTORES).await {
        Ok(body) => Ok(serde_json::from_slice(&body)
            .is_ok_and(|crd| matches!(ownership(&crd), Ownership::Ours(_)))),
        Err(e) if e.is_not_found() => Ok(false),
        Err(e) => Err(Error::from(e).into()),
    }
}

/// Writes EtcdLauncherNotEnabled, onto an empty phase only and only where nobody wrote in between. Returns whether it stands now.
pub(crate) async fn not_enabled(cluster: &Cluster, restore: &Object<EtcdRestore>) -> Result<bool> {
    let mut status = restore.it.status.clone().unwrap_or_default();
    if status.phase.is_some() {
        return Ok(status.phase == Some(RestorePhase::EtcdLauncherNotEnabled));
    }
    status.phase = Some(RestorePhase::EtcdLauncherNotEnabled);
    status.message = Some(format!(
        "no etcd-launcher is at work on cluster {}: the restore begins when one is",
        restore.it.spec.cluster.name
    ));
    let written = objects::replace_status(cluster, restore, &status).await?;
    Ok(matches!(written, Written::Yes))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_is_judged_by_the_watchers_own_clock() {
        let mut watch = Watch {
            path: None,
            seen: None,
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let version = |text: &str| Some(text.to_owned());
        assert_eq!(watch.judge(None, at(0)), Sign::Absent);
        assert_eq!(watch.judge(None, at(59)), Sign::Absent);
        assert_eq!(watch.judge(None, at(60)), Sign::Silent);
        assert_eq!(watch.judge(version("1"), at(61)), Sign::Alive);
        assert_eq!(watch.judge(version("1"), at(100)), Sign::Unknown);
        assert_eq!(watch.judge(version("1"), at(121)), Sign::Silent);
        assert_eq!(watch.judge(version("2"), at(122)), Sign::Alive);
    }

    /// A server that answers everything so, and what it was sent.
    fn answering(code: u16) -> (Cluster, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let line = format!("{} {}", request.method(), request.uri());
            seen.lock().unwrap().push(line);
            let body = if code == 409 {
                json!({"reason": "Conflict"})
            } else {
                json!({})
            };
            let answer = Response::builder().status(code);
            let answer = answer.body(Body::from(body.to_string().into_bytes()));
            async move { Ok::<_, std::convert::Infallible>(answer.unwrap()) }
        });
        let client = kube::Client::new(service, "default");
        (Cluster::new(client, "test", "https://server"), asked)
    }

    fn restore(phase: Option<&str>) -> Object<EtcdRestore> {
        let raw = json!({
            "apiVersion": "kubermatic.k8c.io/v1", "kind": "EtcdRestore",
            "metadata": {"name": "r", "namespace": "n", "resourceVersion": "7"},
            "spec": {"cluster": {"name": "c"}, "backupName": "s"},
            "status": {"phase": phase},
        });
        Object {
            it: serde_json::from_value(raw.clone()).unwrap(),
            raw,
        }
    }

    #[tokio::test]
    async fn only_an_empty_phase_is_written_and_only_where_nobody_wrote_in_between() {
        let (cluster, asked) = answering(200);
        assert!(not_enabled(&cluster, &restore(None)).await.unwrap());
        let path = "/apis/kubermatic.k8c.io/v1/namespaces/n/etcdrestores/r/status";
        assert!(asked.lock().unwrap()[0].starts_with(&format!("PUT {path}")));
        for (phase, stands) in [
            ("Started", false),
            ("Failed", false),
            ("EtcdLauncherNotEnabled", true),
        ] {
            let (cluster, asked) = answering(200);
            assert_eq!(
                not_enabled(&cluster, &restore(Some(phase))).await.unwrap(),
                stands
            );
            assert!(asked.lock().unwrap().is_empty(), "{phase}");
        }
        let (cluster, _) = answering(409);
        assert!(!not_enabled(&cluster, &restore(None)).await.unwrap());
    }

    #[tokio::test]
    async fn where_the_kinds_are_not_ours_nothing_is_said_of_launchers() {
        let plane = ControlPlane {
            cluster: "c".into(),
            namespace: "n".into(),
        };
        for code in [200, 403, 404] {
            let (cluster, _) = answering(code);
            let mut watch = Watch::start(&cluster, &plane).await;
            assert_eq!(watch.look(&cluster).await.unwrap(), Sign::Unknown, "{code}");
        }
    }
}
