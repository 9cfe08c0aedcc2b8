//! Who does what one program of several alone should do: a Lease, which spares work and fences nothing. Another holder's is taken when it was not seen
//! renewed for some time by the own clock, which goes on in a sleeping machine. Only time between two answers counts: who did not hear the holder has not seen him
//! silent.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::cluster::told;
use crate::error::Result;
use crate::stopwatch::{awake_or_asleep, since};

/// How long its moments are.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// An own Lease is renewed after this.
    pub renewed: Duration,
    /// Another one that was not renewed for so long may be taken.
    pub silence: Duration,
}

/// A version of the Lease, and since when answers have it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    version: String,
    since: Duration,
}

impl Seen {
    /// What an answer of this moment shows; `before` is what the last one did.
    fn of(version: String, now: Duration, before: Option<Self>) -> Self {
        let since = before.filter(|before| before.version == version);
        let since = since.map_or(now, |before| before.since);
        Self { version, since }
    }
}

/// The Lease, as this program has seen it.
pub struct Turn {
    name: String,
    me: String,
    times: Times,
    is_anothers: bool,
    seen: Option<Seen>,
    renewed: Option<Duration>,
}

impl Turn {
    /// Nothing is seen yet of the Lease of this name.
    pub fn new(name: String, me: &str, times: Times) -> Self {
        Self {
            name,
            me: me.to_owned(),
            times,
            is_anothers: false,
            seen: None,
            renewed: None,
        }
    }

    /// Whether another holder was seen the last time, whose Lease is not stale.
    pub fn is_anothers(&self) -> bool {
        self.is_anothers
    }

    /// Whether it is this program's turn; `wants` says whether it may be.
    ///
    /// # Errors
    /// The API server's.
    pub async fn is_mine(
        &mut self,
        client: &kube::Client,
        namespace: &str,
        wants: bool,
    ) -> Result<bool> {
        let renewed_for = self.times.renewed;
        let fresh = |at| since(at) < renewed_for;
        if wants && self.renewed.is_some_and(fresh) {
            return Ok(true);
        }
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        // Without an answer it is forgotten.
        let before = self.seen.take();
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
        let seen = Seen::of(version, awake_or_asleep(), before);
        let stale = since(seen.since) >= self.times.silence;
        self.seen = Some(seen);
        self.is_anothers = false;
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
            self.is_anothers = true;
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
        spec.lease_duration_seconds = i32::try_from(self.times.silence.as_secs().max(1)).ok();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
    }

    fn took(&mut self, answer: kube::Result<Lease>) -> Result<bool> {
        match answer {
            Ok(lease) => {
                let now = awake_or_asleep();
                self.renewed = Some(now);
                let version = lease.resource_version().unwrap_or_default();
                self.seen = Some(Seen::of(version, now, None));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_silent_only_while_answers_show_the_same_version() {
        let at = Duration::from_secs;
        let seen = |version: &str, now, before| Seen::of(version.to_owned(), now, before);
        let first = seen("7", at(100), None);
        let same = seen("7", at(119), Some(first.clone()));
        assert_eq!(same.since, at(100));
        assert_eq!(seen("8", at(119), Some(first)).since, at(119));
        // An answer did not come in between.
        assert_eq!(seen("7", at(140), None).since, at(140));
    }
}
