//! Whether a launcher is at work on a cluster: its Lease, watched by this machine's clock alone. Where none is, a restore that waits for one
//! says so in its phase.

use std::time::Duration;

use backup_core::Error;
use backup_core::api::hosted::lease_name;
use backup_core::api::{EtcdRestore, RestorePhase};
use backup_core::cluster::Cluster;
use serde_json::Value;
use tokio::time::Instant;

use super::objects::{self, Object, Written};
use super::scope::ControlPlane;
use backup_cli::error::Result;

/// A launcher that does not renew its Lease for so long is held to be gone.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// Watches one Lease.
pub(super) struct Watch {
    path: String,
    /// The Lease as it was last seen, nothing where it was absent; and since when it is so.
    seen: Option<(Option<String>, Instant)>,
}

/// What can be said of the launchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
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
    pub(super) fn new(plane: &ControlPlane) -> Self {
        Self {
            path: format!(
                "/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}",
                plane.namespace,
                lease_name(&plane.cluster)
            ),
            seen: None,
        }
    }

    /// Looks at the Lease once more; where this user may not read it, nothing can be said.
    pub(super) async fn look(&mut self, cluster: &Cluster) -> Result<Sign> {
        let version = match cluster.get(&self.path).await {
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

/// Writes EtcdLauncherNotEnabled, onto an empty phase only and only where nobody wrote in between. Returns whether it stands now.
pub(super) async fn not_enabled(cluster: &Cluster, restore: &Object<EtcdRestore>) -> Result<bool> {
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
    use super::*;

    #[test]
    fn a_lease_is_judged_by_the_watchers_own_clock() {
        let plane = ControlPlane {
            cluster: "c".into(),
            namespace: "n".into(),
        };
        let mut watch = Watch::new(&plane);
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
}
