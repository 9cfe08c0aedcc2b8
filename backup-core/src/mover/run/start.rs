//! Makes a mover, a pod of its own or a container in somebody's pod. What was made and does not come to run is taken away again.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::over::look_on;
use super::{LARGEST_POD, Mover, Movers, OFTEN, Shared, Spot, stopped};
use crate::cluster::{ApiError, Call};
use crate::error::{Error, Kind, Result};
use crate::mover::inside::{self, Host};
use crate::mover::spec::{Beside, Wanted};

/// So often a pod that changed between a look and what follows from it is looked at again.
const LOOKS_AGAIN: u32 = 10;

fn new_name() -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("backup-mover-{}", &random[..12])
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

impl Movers {
    /// Whether the server would refuse one that is built like this: it is asked to try it, and nothing is made. Only a refusal for what it is counts: room that is
    /// missing now may be there when its turn comes, and what can not be tried, as before an admission webhook with side effects, may still be made.
    ///
    /// # Errors
    /// Its refusal.
    pub(in crate::mover) async fn rehearse_as(
        &self,
        namespace: &str,
        claim: &str,
        build: impl FnOnce(&Wanted<'_>) -> Value,
    ) -> Result<()> {
        let shared = &self.shared;
        let wanted = build(&shared.wanted(&new_name(), namespace, claim, None));
        let path = format!("{}?dryRun=All", pods(namespace));
        let call = Call::post(&path, wanted.to_string().into());
        match shared.cluster.send(&call).await {
            Err(e) if (e.is_denied() || e.code == 422) && !is_for_room(&e) => Err(refused(e)),
            _ => Ok(()),
        }
    }
}

impl Shared {
    fn wanted<'a>(
        &'a self,
        name: &'a str,
        namespace: &'a str,
        claim: &'a str,
        beside: Option<&'a Beside>,
    ) -> Wanted<'a> {
        Wanted {
            name,
            namespace,
            claim,
            run: &self.run,
            image: &self.options.image,
            beside,
        }
    }

    pub(super) async fn start(
        self: Arc<Self>,
        namespace: String,
        claim: String,
        beside: Option<&Beside>,
        build: impl FnOnce(&Wanted<'_>) -> Value,
    ) -> Result<Mover> {
        if self.is_stopped() {
            return Err(stopped());
        }
        let name = new_name();
        let wanted = build(&self.wanted(&name, &namespace, &claim, beside));
        let spot = self.begin(Spot::own(&namespace, &name));
        let path = pods(&namespace);
        let call = Call::post(&path, wanted.to_string().into());
        let made = match self.cluster.send(&call).await {
            Ok(body) => serde_json::from_slice::<Value>(&body).unwrap_or_default(),
            Err(e) if matches!(e.code, 400..=499) && e.code != 408 => {
                // Nothing came to be.
                self.gone(&spot);
                return Err(refused(e));
            }
            Err(e) => {
                let _ = self.remove(&spot, "").await;
                return Err(refused(e));
            }
        };
        let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
        self.mover(spot, uid).await
    }

    pub(super) async fn start_inside(
        self: Arc<Self>,
        namespace: String,
        host: &Host,
    ) -> Result<Mover> {
        if self.is_stopped() {
            return Err(stopped());
        }
        let name = inside::name(&self.run);
        let spot = Spot {
            namespace,
            pod: host.pod.clone(),
            container: name.clone(),
            is_inside: true,
        };
        let spot = self.begin(spot);
        let mut tries = 0;
        while let Err(e) = self.add(&spot, host, &name).await? {
            // Nodes write to their pods.
            if e.is_conflict() && tries < LOOKS_AGAIN && !self.is_stopped() {
                tries += 1;
                tokio::time::sleep(OFTEN).await;
                continue;
            }
            match e.code {
                400..=499 if e.code != 408 => self.gone(&spot),
                _ => {
                    let _ = self.remove(&spot, &host.uid).await;
                }
            }
            return Err(inside::refused(e, &host.pod));
        }
        let stays = format!(
            "ephemeral container {name} stays in the object of pod {}",
            host.pod
        );
        let mover = self.mover(spot, &host.uid).await;
        mover.map_err(|e| match e.kind() {
            Kind::Interrupted => e,
            kind => Error::new(kind, format!("{}; {stays}", e.sentence())),
        })
    }

    /// Adds the container to the pod as it is now; what the server refused of that comes back.
    async fn add(&self, spot: &Spot, host: &Host, name: &str) -> Result<Result<(), ApiError>> {
        let read = self.cluster.get_bounded(&spot.path(), LARGEST_POD).await;
        let pod = read.map(|body| serde_json::from_slice::<Value>(&body).unwrap_or_default());
        let looked = match pod {
            Ok(pod) => inside::may_get(&pod, host).map(|()| pod),
            Err(e) => Err(inside::refused(e, &host.pod)),
        };
        // Nothing of this name was added before.
        let pod = looked.inspect_err(|_| self.gone(spot))?;
        let version = pod["metadata"]["resourceVersion"].as_str();
        let version = version.unwrap_or_default();
        let patch = inside::patch(host, version, name, &self.options.image);
        let path = format!("{}/ephemeralcontainers", spot.path());
        let call = Call::strategic_patch(&path, patch.to_string().into());
        Ok(self.cluster.send(&call).await.map(drop))
    }

    /// One that was made, once it runs.
    async fn mover(self: Arc<Self>, spot: Spot, uid: &str) -> Result<Mover> {
        match self.await_running(&spot, uid).await {
            Ok(node) => {
                let over = watch::Sender::new(None);
                let looking = tokio::spawn(look_on(
                    self.cluster.clone(),
                    spot.clone(),
                    uid.to_owned(),
                    over.clone(),
                ));
                Ok(Mover {
                    shared: Arc::clone(&self),
                    spot,
                    uid: uid.to_owned(),
                    node,
                    over,
                    looking,
                    broke: Arc::default(),
                })
            }
            Err(e) => {
                // What could not be removed is tried once more when the run settles.
                let _ = self.remove(&spot, uid).await;
                Err(e)
            }
        }
    }
}

/// Whether a quota refuses it, for what else is there.
fn is_for_room(e: &ApiError) -> bool {
    e.message.contains("exceeded quota")
}

/// What can be done about a pod that was refused.
pub(super) fn refused(e: ApiError) -> Error {
    let hint = match e.message.as_str() {
        text if text.contains("cannot create resource") => {
            "who copies volumes needs the rights to create, get, list and delete pods, and to create and get pods/exec, in their namespaces"
        }
        text if text.contains("PodSecurity") => {
            "the namespace allows no pod that reads the files of all owners (root with DAC_OVERRIDE): pod-security.kubernetes.io/enforce=baseline does; or leave the volume out"
        }
        text if text.contains("quota") => "the namespace's quota leaves no room for one more pod",
        _ if e.is_denied() => "an admission rule of the cluster refuses it",
        _ => "",
    };
    let error = Error::from(e).context("no pod can be made beside it");
    match hint {
        "" => error,
        hint => error.hint(hint),
    }
}
