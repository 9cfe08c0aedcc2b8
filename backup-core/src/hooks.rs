//! Commands that run in pods around a backup and after a restore: what is asked for (pure), how one is run, the bracket around what is read between pre
//! and post, and the post hook that a dead run owes. What is run comes from the cluster; a bucket names no command.

pub(crate) mod ask;
pub(crate) mod bracket;
mod exec;
mod note;
pub mod owed;
mod process;
pub(crate) mod restored;
mod rights;

use serde::Deserialize;

use crate::discovery::ApiResource;

pub use process::Process;

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the pod is read.
    Pre,
    /// After that.
    Post,
}

impl When {
    /// As it stands in messages.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Pre => "the hook before the backup",
            Self::Post => "the hook after the backup",
        }
    }
}

/// Pods, as every server has them.
fn pods() -> ApiResource {
    ApiResource {
        version: "v1".to_owned(),
        plural: "pods".to_owned(),
        singular: "pod".to_owned(),
        kind: "Pod".to_owned(),
        short_names: vec!["po".to_owned()],
        namespaced: true,
        ..ApiResource::default()
    }
}

/// What a pod's object tells that hooks have to know.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Meta,
    pub(crate) spec: Spec,
    pub(crate) status: Status,
}

/// Its metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) labels: Option<std::collections::BTreeMap<String, String>>,
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
    pub(crate) deletion_timestamp: Option<String>,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Spec {
    pub(crate) containers: Option<Vec<Container>>,
}

/// A container of its spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Container {
    pub(crate) name: String,
}

/// Its status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) phase: String,
    pub(crate) container_statuses: Option<Vec<ContainerStatus>>,
}

/// How a container does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerStatus {
    pub(crate) name: String,
    #[serde(rename = "containerID")]
    pub(crate) container_id: Option<String>,
    pub(crate) ready: bool,
    pub(crate) state: State,
}

/// Whether it runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) running: Option<serde::de::IgnoredAny>,
}

impl Pod {
    /// Reads one; nothing where it is none.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The same of a server's answer, which may be anything: a pod has a uid.
    pub(crate) fn answered(text: &[u8]) -> Option<Self> {
        Self::read(text).filter(|pod| !pod.metadata.uid.is_empty())
    }

    /// Whether all its containers have ended for good.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether its spec has this container.
    pub(crate) fn has_container(&self, name: &str) -> bool {
        let containers = self.spec.containers.iter().flatten();
        containers.into_iter().any(|one| one.name == name)
    }

    /// How this container does, where it was started at all.
    pub(crate) fn container(&self, name: &str) -> Option<&ContainerStatus> {
        let statuses = self.status.container_statuses.iter().flatten();
        statuses.into_iter().find(|one| one.name == name)
    }

    /// The container that is meant where none is named.
    pub(crate) fn first_container(&self) -> &str {
        let mut containers = self.spec.containers.iter().flatten();
        containers.next().map_or("", |one| one.name.as_str())
    }
}
