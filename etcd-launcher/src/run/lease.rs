//! Who does what one launcher alone should do: a Lease in the hosting API, which spares work and fences nothing. Another holder's is taken when
//! this launcher has not seen it renewed for some time by its own clock.

use std::time::{Duration, Instant};

use backup_core::Result;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, PostParams};

use super::hosting::{Hosting, told};
use super::pace::Pace;

/// An own Lease is renewed after this.
const RENEWED: Duration = Duration::from_secs(4);
/// Another one that was not renewed for so long may be taken.
const SILENCE: Duration = Duration::from_secs(20);

/// The Lease, as this launcher has seen it.
pub(crate) struct Turn {
    name: String,
    me: String,
    pace: Pace,
    seen: Option<(String, Instant)>,
    renewed: Option<Instant>,
}

impl Turn {
    /// Nothing is seen yet of the Lease of this name.
    pub(crate) fn new(name: String, me: &str, pace: Pace) -> Self {
        Self {
            name,
            me: me.to_owned(),
            pace,
            seen: None,
            renewed: None,
        }
    }

    /// Whether it is this launcher's turn; `wants` says whether it may be.
    pub(crate) async fn is_mine(&mut self, hosting: &Hosting, wants: bool) -> Result<bool> {
        let renewed_for = self.pace.of(RENEWED);
        let fresh = |at: Instant| at.elapsed() < renewed_for;
        if wants && self.renewed.is_some_and(fresh) {
            return Ok(true);
        }
        let leases: Api<Lease> = Api::namespaced(hosting.client.clone(), &hosting.names.namespace);
        let lease = leases
            .get_opt(&self.name)
            .await
            .map_err(|e| told("read the Lease", e))?;
        let Some(mut lease) = lease else {
            if !wants {
                return Ok(false);
            }
            let mut made = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: None,
            };
            self.fill(&mut made);
            let answer = leases.create(&PostParams::default(), &made).await;
            return self.took(answer);
        };
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone());
        let version = lease.resource_version().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let stale = self
            .seen
            .as_ref()
            .is_some_and(|(_, at)| at.elapsed() >= self.pace.of(SILENCE));
        let mine = holder.as_deref() == Some(self.me.as_str());
        if !wants {
            if mine {
                // Handed on at once: nobody waits for us.
                if let Some(spec) = &mut lease.spec {
                    spec.holder_identity = None;
                }
                let _ = leases
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await;
                self.renewed = None;
            }
            return Ok(false);
        }
        if !mine && !stale && holder.is_some_and(|holder| !holder.is_empty()) {
            self.renewed = None;
            return Ok(false);
        }
        self.fill(&mut lease);
        let answer = leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await;
        self.took(answer)
    }

    fn fill(&self, lease: &mut Lease) {
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds = i32::try_from(SILENCE.as_secs()).ok();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
    }

    fn took(&mut self, answer: kube::Result<Lease>) -> Result<bool> {
        match answer {
            Ok(lease) => {
                self.renewed = Some(Instant::now());
                self.seen = Some((lease.resource_version().unwrap_or_default(), Instant::now()));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.renewed = None;
                Ok(false)
            }
            Err(e) => Err(told("take the Lease", e)),
        }
    }
}

/// Whether launchers of this cluster ever took a turn in the namespace.
pub(crate) async fn is_there(hosting: &Hosting, cluster: &str) -> Result<bool> {
    let leases: Api<Lease> = Api::namespaced(hosting.client.clone(), &hosting.names.namespace);
    let name = backup_core::api::hosted::lease_name(cluster);
    match leases.get_opt(&name).await {
        Ok(lease) => Ok(lease.is_some()),
        // Who may read its own Leases alone is alone here.
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(false),
        Err(e) => Err(told("read a Lease", e)),
    }
}
