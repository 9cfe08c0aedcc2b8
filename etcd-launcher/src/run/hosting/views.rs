//! What is read from the hosting API, as far as a restore goes by it.

use std::collections::BTreeMap;

use backup_core::{Error, Result};
use k8s_openapi::api::core::v1::PodSpec;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::Value;

use crate::run::memory::RestoreRef;
use crate::run::records::{
    Active, Attempt, CLUSTER_ID, EndRecord, FINALIZER, OUTCOME, Report, Step, TARGET_REVISION,
};

/// The StatefulSet of etcd.
#[derive(Clone, Debug, Default)]
pub(crate) struct SetView {
    pub(crate) version: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) deleting: bool,
    /// Members it is to have.
    pub(crate) replicas: usize,
    /// Their pods.
    pub(crate) pod: Option<PodSpec>,
}

impl SetView {
    /// The id that stands; empty where none does yet.
    pub(crate) fn cluster_id(&self) -> &str {
        self.annotations.get(CLUSTER_ID).map_or("", String::as_str)
    }

    /// How the last attempt ended.
    pub(crate) fn end(&self) -> Option<EndRecord> {
        serde_json::from_str(self.annotations.get(OUTCOME)?).ok()
    }

    /// The greatest target revision so far.
    pub(crate) fn target_revision(&self) -> i64 {
        let text = self.annotations.get(TARGET_REVISION);
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// The Cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterView {
    pub(crate) version: String,
    pub(crate) active: Option<Active>,
    pub(crate) paused: bool,
    pub(crate) pause_reason: String,
    pub(crate) namespace: String,
    pub(crate) finalizers: Vec<String>,
}

/// An EtcdRestore.
#[derive(Clone, Debug)]
pub(crate) struct RestoreView {
    pub(crate) object: DynamicObject,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) reports: BTreeMap<String, Report>,
}

impl RestoreView {
    pub(super) fn of(object: DynamicObject) -> Result<Self> {
        let status = object.data.get("status").cloned().unwrap_or(Value::Null);
        let part = |name: &str| status.get(name).filter(|value| !value.is_null()).cloned();
        let odd = |e| {
            Error::corrupt(format!(
                "the status of EtcdRestore {} can not be read",
                object.name_any()
            ))
            .because(e)
        };
        Ok(Self {
            attempt: part("attempt")
                .map(serde_json::from_value)
                .transpose()
                .map_err(odd)?,
            reports: part("reports")
                .map(serde_json::from_value)
                .transpose()
                .map_err(odd)?
                .unwrap_or_default(),
            object,
        })
    }

    pub(crate) fn reference(&self) -> RestoreRef {
        RestoreRef {
            namespace: self.object.namespace().unwrap_or_default(),
            name: self.object.name_any(),
            uid: self.object.uid().unwrap_or_default(),
        }
    }

    pub(crate) fn is_deleting(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// Whether nothing comes of it any more.
    pub(crate) fn has_ended(&self) -> bool {
        let step = self.attempt.as_ref().map(Attempt::step);
        step.is_some_and(Step::is_end)
            || matches!(self.phase(), "Completed" | "Failed" | "RolledBack")
    }

    pub(crate) fn has_finalizer(&self) -> bool {
        let finalizers = self.object.metadata.finalizers.as_deref();
        finalizers
            .unwrap_or_default()
            .iter()
            .any(|name| name == FINALIZER)
    }

    pub(crate) fn spec(&self, field: &str) -> Option<&Value> {
        self.object.data.get("spec")?.get(field)
    }

    /// `spec.cluster.name`
    pub(crate) fn cluster(&self) -> &str {
        let name = self.spec("cluster").and_then(|cluster| cluster.get("name"));
        name.and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.spec(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn phase(&self) -> &str {
        let status = self.object.data.get("status");
        let phase = status.and_then(|status| status.get("phase"));
        phase.and_then(Value::as_str).unwrap_or_default()
    }
}

/// What a member obeys is read from.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) set: Option<SetView>,
    /// The restore that was asked for, or else the one that the cluster is taken by.
    pub(crate) restore: Option<RestoreView>,
}
