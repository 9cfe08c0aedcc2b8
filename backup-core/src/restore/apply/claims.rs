//! Claims and the volumes they name.

use serde_json::{Value, json};

use super::super::gather::CLAIMS;
use super::super::rewrite::Shaped;
use super::{Applier, Job, MANAGER, Rewrite, Stop, patiently, target};
use crate::cluster::{ApiError, Call};
use crate::discovery::ApiResource;
use crate::error::Error;

/// Attempts where a controller changes the volume meanwhile.
const ATTEMPTS: u32 = 4;
/// What frees a volume of the claim that is gone, and leaves it promised to the claim of that name.
const FREED: &str = r#"{"spec":{"claimRef":{"uid":null,"resourceVersion":null}}}"#;

/// How an object is tied to another one of the target.
#[derive(Default)]
pub(super) struct Binding {
    /// The rewrite for this object, where it is another than everybody's.
    pub(super) rewrite: Option<Rewrite>,
    /// What the user has to do, where the object is created.
    pub(super) warning: Option<String>,
}

impl Applier {
    /// A claim keeps naming its volume only where the target has it, free or promised to this claim: volumes come before claims, so one that
    /// is restored stands by now. Else the claim would wait for ever. (A plan, and who may not read volumes, goes by what is restored.)
    pub(super) async fn binding(&self, job: &Job) -> Result<Binding, Stop> {
        if job.resource.name != CLAIMS {
            return Ok(Binding::default());
        }
        let body: Value = serde_json::from_slice(&job.object.body)
            .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))?;
        let Some(name) = body["spec"]["volumeName"].as_str() else {
            return Ok(Binding::default());
        };
        let row = &job.object.row;
        if self
            .held
            .choice(row.namespace.as_deref(), &row.name)
            .is_some()
            || self
                .snapped
                .choice(row.namespace.as_deref(), &row.name)
                .is_some()
        {
            // Its data comes into another one.
            let mut rewrite = self.rewrite.clone();
            rewrite.kept_volumes.remove(name);
            return Ok(Binding {
                rewrite: Some(rewrite),
                warning: None,
            });
        }
        let mut warning = None;
        let keeps = match self.volume(name).await {
            Ok(Some(live)) => match promise(&live, job) {
                Promise::Kept => true,
                Promise::Released if self.is_dry() => true,
                Promise::Released => {
                    warning = self.free(job, name).await?;
                    true
                }
                Promise::Other => false,
            },
            Ok(None) if !self.is_dry() => self.rewrite.awaited_volumes.contains(name),
            Ok(None) => return Ok(Binding::default()),
            Err(e) if e.is_forbidden() => return Ok(Binding::default()),
            Err(e) => return Err(e.into()),
        };
        let mut rewrite = self.rewrite.clone();
        if keeps {
            rewrite.kept_volumes.insert(name.to_owned());
        } else {
            rewrite.kept_volumes.remove(name);
        }
        Ok(Binding {
            rewrite: Some(rewrite),
            warning,
        })
    }

    async fn volume(&self, name: &str) -> Result<Option<Value>, ApiError> {
        let live = target::find(&self.cluster, &volumes(), None, name).await?;
        Ok(live.map(|live| serde_json::from_slice(&live).unwrap_or_default()))
    }

    /// A volume that was kept when its claim went waits for that very claim; without the old claim's uid it waits for the one of that name.
    /// Tells what the user has to do where that could not be written.
    async fn free(&self, job: &Job, name: &str) -> Result<Option<String>, Stop> {
        // A claim that stands is not this restore's: its volume is nobody else's business.
        if self.find(job).await?.is_some() {
            return Ok(None);
        }
        let path = format!(
            "{}?fieldManager={MANAGER}",
            volumes().object_path(None, name)
        );
        let mut refused = ApiError::default();
        for _ in 0..ATTEMPTS {
            let Some(live) = self.volume(name).await? else {
                return Ok(None);
            };
            if !matches!(promise(&live, job), Promise::Released) {
                return Ok(None);
            }
            let mut patch: Value = serde_json::from_str(FREED).unwrap_or_default();
            patch["metadata"] = json!({"resourceVersion": live["metadata"]["resourceVersion"]});
            let call = Call::merge_patch(&path, patch.to_string().into());
            match patiently(|| self.cluster.send(&call)).await {
                Ok(_) => return Ok(None),
                Err(e) if e.is_conflict() => refused = e,
                Err(e) if e.code == 0 || e.code == 401 => return Err(e.into()),
                Err(e) => {
                    refused = e;
                    break;
                }
            }
        }
        Ok(Some(format!(
            "it stays Pending, because its volume {name} still waits for the claim that is gone, which could not be changed ({refused}); \
             do it with: kubectl patch pv {name} --type=merge -p '{FREED}'"
        )))
    }
}

/// What a claim says of volumes as it is brought.
#[derive(Default)]
pub(super) struct Naming {
    /// It still names the volume that it had.
    pub(super) names_volume: bool,
    /// It named one and names none any more, and no class makes it one: what to do.
    pub(super) waits: Option<String>,
}

impl Naming {
    pub(super) fn of(job: &Job, wanted: &Shaped<'_>) -> Self {
        if job.resource.name != CLAIMS {
            return Self::default();
        }
        let read = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap_or_default();
        let brought = read(&wanted.object.to_vec());
        let spec = &brought["spec"];
        let is_left = ["volumeName", "dataSource", "dataSourceRef"]
            .iter()
            .all(|key| spec[key].is_null())
            && read(&job.object.body)["spec"]["volumeName"].is_string();
        Self {
            names_volume: spec["volumeName"].is_string(),
            waits: (is_left && spec["storageClassName"] == "").then(|| {
                "it names no class, and the volume that it named is not made: it stays Pending until somebody makes a volume for it; a resource modifier \
                 (--resource-modifier-configmap) can give it a class that makes one"
                    .to_owned()
            }),
        }
    }
}

/// What a volume of the target says of a claim.
pub(in super::super) enum Promise {
    /// It is free, promised to the claim of that name, or bound to it.
    Kept,
    /// It was bound to a claim of that name that is gone.
    Released,
    /// It is another's, or about to go.
    Other,
}

impl Promise {
    /// What this live volume says of the claim of this namespace and name.
    pub(in super::super) fn of(live: &Value, namespace: Option<&str>, name: &str) -> Self {
        let spec = &live["spec"];
        let claim = &spec["claimRef"];
        if claim.is_null() {
            return Self::Kept;
        }
        if claim["namespace"].as_str() != namespace || claim["name"].as_str() != Some(name) {
            return Self::Other;
        }
        if live["status"]["phase"] != "Released" || claim["uid"].as_str().is_none_or(str::is_empty)
        {
            return Self::Kept;
        }
        if spec["persistentVolumeReclaimPolicy"] == "Delete" {
            Self::Other
        } else {
            Self::Released
        }
    }
}

fn promise(live: &Value, job: &Job) -> Promise {
    Promise::of(live, job.namespace.as_deref(), &job.name)
}

fn volumes() -> ApiResource {
    ApiResource {
        version: "v1".into(),
        plural: "persistentvolumes".into(),
        ..ApiResource::default()
    }
}
