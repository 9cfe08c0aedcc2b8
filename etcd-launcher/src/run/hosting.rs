//! The hosting API: what is read from it, and writes that fail unless nothing changed since. Decides nothing, keeps no cache.

mod views;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use backup_core::cluster::told;
use backup_core::{Error, Kind, Result};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use serde_json::{Value, json};

use super::memory::RestoreRef;
use super::records::{ACTIVE, Active};
pub(crate) use views::{ClusterView, RestoreView, SetView, World};

/// An answer takes no longer, or the API is away.
const PATIENCE: Duration = Duration::from_secs(8);

/// What things are called there.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The Cluster.
    pub(crate) cluster: String,
    /// Where its control plane lives.
    pub(crate) namespace: String,
    /// The StatefulSet of etcd.
    pub(crate) set: String,
    /// Deployments of the control plane, the API server first.
    pub(crate) control_plane: Vec<String>,
}

/// A connection.
#[derive(Clone)]
pub(crate) struct Hosting {
    pub(crate) client: Client,
    pub(crate) names: Names,
    /// Writes are judged by the API and not done.
    rehearses: bool,
}

impl std::fmt::Debug for Hosting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosting")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// How a conditional write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It stands.
    Yes,
    /// Somebody was faster: read again.
    Conflict,
}

pub(crate) fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: "kubermatic.k8c.io".into(),
        version: "v1".into(),
        api_version: "kubermatic.k8c.io/v1".into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}

/// Waits for an answer, and no longer than an API that is there would take.
pub(crate) async fn soon<T>(doing: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|e| told(doing, e)),
        Err(_) => Err(Error::new(
            Kind::Unreachable,
            format!("can not {doing}: the hosting API does not answer"),
        )),
    }
}

fn conditional<T>(answer: Result<T>) -> Result<Written> {
    match answer {
        Ok(_) => Ok(Written::Yes),
        Err(e) if e.kind() == Kind::AlreadyExists => Ok(Written::Conflict),
        Err(e) => Err(e),
    }
}

fn optional<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Hosting {
    /// Connects, by a file or as a pod; nothing is asked yet.
    ///
    /// # Errors
    /// Kind `Invalid` for a file that can not be used.
    pub(crate) async fn connect(kubeconfig: Option<&Path>, names: Names) -> Result<Self> {
        let odd = |e: &dyn std::fmt::Display| {
            Error::invalid("can not tell how to reach the hosting API")
                .because(e.to_string())
                .hint("run in a pod, or name a file with --kubeconfig")
        };
        let mut config = match kubeconfig.map(PathBuf::from) {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|e| odd(&e))?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .map_err(|e| odd(&e))?
            }
            None => Config::incluster().map_err(|e| odd(&e))?,
        };
        config.connect_timeout = Some(Duration::from_secs(3));
        config.read_timeout = Some(PATIENCE);
        config.write_timeout = Some(PATIENCE);
        let client = Client::try_from(config).map_err(|e| odd(&e))?;
        Ok(Self {
            client,
            names,
            rehearses: false,
        })
    }

    /// The same, whose writes are only rehearsed: refused where they would be refused, and never done.
    pub(crate) fn rehearsing(&self) -> Self {
        Self {
            rehearses: true,
            ..self.clone()
        }
    }

    fn patching(&self) -> PatchParams {
        PatchParams {
            dry_run: self.rehearses,
            ..PatchParams::default()
        }
    }

    fn posting(&self) -> PostParams {
        PostParams {
            dry_run: self.rehearses,
            ..PostParams::default()
        }
    }

    pub(crate) fn restores(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.client.clone(),
            namespace,
            &resource("EtcdRestore", "etcdrestores"),
        )
    }

    pub(crate) fn clusters(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &resource("Cluster", "clusters"))
    }

    fn sets(&self) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), &self.names.namespace)
    }

    pub(crate) fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.names.namespace)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.names.namespace)
    }

    /// The StatefulSet.
    pub(crate) async fn set(&self) -> Result<Option<SetView>> {
        let found = optional(
            soon(
                "read the StatefulSet of etcd",
                self.sets().get(&self.names.set),
            )
            .await,
        )?;
        Ok(found.map(|set| {
            let spec = set.spec;
            SetView {
                version: set.metadata.resource_version.unwrap_or_default(),
                deleting: set.metadata.deletion_timestamp.is_some(),
                annotations: set.metadata.annotations.unwrap_or_default(),
                replicas: usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0),
                pod: spec.template.spec,
            }
        }))
    }

    /// The Cluster.
    pub(crate) async fn cluster(&self) -> Result<Option<ClusterView>> {
        let found =
            optional(soon("read the Cluster", self.clusters().get(&self.names.cluster)).await)?;
        Ok(found.map(|cluster| {
            let text = |path: &str| {
                let found = cluster.data.pointer(path).and_then(Value::as_str);
                found.unwrap_or_default().to_owned()
            };
            let namespace = text("/status/namespaceName");
            ClusterView {
                version: cluster.resource_version().unwrap_or_default(),
                active: cluster
                    .annotations()
                    .get(ACTIVE)
                    .and_then(|text| Active::parse(text)),
                paused: cluster.data.pointer("/spec/pause").and_then(Value::as_bool) == Some(true),
                pause_reason: text("/spec/pauseReason"),
                finalizers: cluster.finalizers().to_vec(),
                namespace: if namespace.is_empty() {
                    format!("cluster-{}", self.names.cluster)
                } else {
                    namespace
                },
            }
        }))
    }

    /// A restore, as it stands in etcd now; nothing where it is gone or another object has its name.
    pub(crate) async fn restore(&self, wanted: &RestoreRef) -> Result<Option<RestoreView>> {
        let found = optional(
            soon(
                &format!("read EtcdRestore {}", wanted.name),
                self.restores(&wanted.namespace).get(&wanted.name),
            )
            .await,
        )?;
        let found = found.map(RestoreView::of).transpose()?;
        Ok(found.filter(|found| found.reference().uid == wanted.uid))
    }

    /// All restores of this cluster's namespace, oldest first.
    pub(crate) async fn all_restores(&self) -> Result<Vec<RestoreView>> {
        let restores = self.restores(&self.names.namespace);
        let listed = soon("list EtcdRestores", restores.list(&ListParams::default())).await?;
        let mut found = listed
            .items
            .into_iter()
            .map(RestoreView::of)
            .collect::<Result<Vec<_>>>()?;
        found.sort_by_key(|restore| {
            let created = restore.object.creation_timestamp();
            (created, restore.object.name_any())
        });
        Ok(found)
    }

    /// Looks at all that a member goes by: `wanted` is the restore it takes part in already.
    pub(crate) async fn look(&self, wanted: Option<&RestoreRef>) -> Result<World> {
        let (set, cluster) = (self.set().await?, self.cluster().await?);
        let active = cluster.as_ref().and_then(|cluster| cluster.active.clone());
        let wanted = wanted.cloned().or_else(|| {
            active.map(|active| RestoreRef {
                namespace: active.namespace,
                name: active.name,
                uid: active.uid,
            })
        });
        let restore = match &wanted {
            Some(wanted) => self.restore(wanted).await?,
            None => None,
        };
        Ok(World { set, restore })
    }

    /// Replaces the status of a restore as it was read: `change` is made to it.
    pub(crate) async fn write_status(
        &self,
        restore: &RestoreView,
        change: impl FnOnce(&mut serde_json::Map<String, Value>),
    ) -> Result<Written> {
        let mut object = restore.object.clone();
        if !object.data.is_object() {
            object.data = json!({});
        }
        let status = object.data["status"].take();
        let mut status = match status {
            Value::Object(status) => status,
            _ => serde_json::Map::new(),
        };
        change(&mut status);
        object.data["status"] = Value::Object(status);
        let reference = restore.reference();
        let restores = self.restores(&reference.namespace);
        conditional(
            soon(
                &format!("write the status of EtcdRestore {}", reference.name),
                restores.replace_status(&reference.name, &self.posting(), &object),
            )
            .await,
        )
    }

    /// Patches the metadata of a restore as it was read.
    pub(crate) async fn patch_restore(
        &self,
        restore: &RestoreView,
        metadata: Value,
    ) -> Result<Written> {
        let reference = restore.reference();
        let restores = self.restores(&reference.namespace);
        let patch = with_version(
            json!({ "metadata": metadata }),
            &restore.object.resource_version().unwrap_or_default(),
        );
        let name = &reference.name;
        conditional(
            soon(
                &format!("change EtcdRestore {name}"),
                restores.patch(name, &self.patching(), &Patch::Merge(patch)),
            )
            .await,
        )
    }

    /// Patches annotations of the StatefulSet as it was read; `null` removes one.
    pub(crate) async fn annotate_set(&self, set: &SetView, annotations: Value) -> Result<Written> {
        let patch = with_version(
            json!({ "metadata": { "annotations": annotations } }),
            &set.version,
        );
        let sets = self.sets();
        conditional(
            soon(
                "annotate the StatefulSet of etcd",
                sets.patch(&self.names.set, &self.patching(), &Patch::Merge(patch)),
            )
            .await,
        )
    }

    /// Patches the Cluster as it was read.
    pub(crate) async fn patch_cluster(
        &self,
        cluster: &ClusterView,
        patch: Value,
    ) -> Result<Written> {
        let patch = with_version(patch, &cluster.version);
        let clusters = self.clusters();
        let name = &self.names.cluster;
        conditional(
            soon(
                "change the Cluster",
                clusters.patch(name, &self.patching(), &Patch::Merge(patch)),
            )
            .await,
        )
    }

    /// A Deployment of the control plane.
    pub(crate) async fn deployment(&self, name: &str) -> Result<Option<Deployment>> {
        let deployments = self.deployments();
        optional(soon(&format!("read Deployment {name}"), deployments.get(name)).await)
    }

    /// Patches a Deployment as it was read.
    pub(crate) async fn patch_deployment(
        &self,
        read: &Deployment,
        patch: Value,
    ) -> Result<Written> {
        let name = read.name_any();
        let patch = with_version(patch, &read.resource_version().unwrap_or_default());
        let deployments = self.deployments();
        conditional(
            soon(
                &format!("scale Deployment {name}"),
                deployments.patch(&name, &self.patching(), &Patch::Merge(patch)),
            )
            .await,
        )
    }

    /// Pods that a Deployment's selector matches.
    pub(crate) async fn pods_of(&self, deployment: &Deployment) -> Result<usize> {
        let labels = deployment
            .spec
            .selector
            .match_labels
            .clone()
            .unwrap_or_default();
        if labels.is_empty() {
            return Ok(0);
        }
        let selector: Vec<_> = labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let pods = self.pods();
        let params = ListParams::default().labels(&selector.join(","));
        let listed = soon("list pods of the control plane", pods.list(&params)).await?;
        let alive = |pod: &&Pod| {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        };
        Ok(listed.items.iter().filter(alive).count())
    }
}

fn with_version(mut patch: Value, version: &str) -> Value {
    patch["metadata"]["resourceVersion"] = version.into();
    patch
}
