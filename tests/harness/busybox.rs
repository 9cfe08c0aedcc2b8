//! A pod with a shell and nothing to do: one container of busybox, alone or as what a set or a deployment makes its pods of. It is written down here; who applies it waits for it, too.

use std::fmt::{self, Display, Formatter};

use serde_json::{Map, Value, json};

/// Its image, which every node has.
pub const IMAGE: &str = "localhost/busybox:1";

/// A pod that is being put together.
#[derive(Clone, Debug)]
pub struct Busybox {
    metadata: Value,
    spec: Value,
}

impl Busybox {
    /// One that idles, and ends as soon as it is told to.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            metadata: json!({"name": name, "namespace": namespace, "labels": {"app": name}, "annotations": {}}),
            spec: json!({
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "volumeMounts": []}],
                "volumes": [],
            }),
        }
        .runs("while true; do sleep 1; done")
    }

    /// What its shell runs instead.
    pub fn runs(mut self, script: &str) -> Self {
        self.spec["containers"][0]["command"] = json!(["sh", "-c", script]);
        self
    }

    pub fn annotations(mut self, pairs: &[(&str, &str)]) -> Self {
        for (key, value) in pairs {
            self.metadata["annotations"][*key] = Value::from(*value);
        }
        self
    }

    /// It is ready while this command succeeds, which is asked every second.
    pub fn ready_while(mut self, command: &[&str]) -> Self {
        let probe = json!({"periodSeconds": 1, "exec": {"command": command}});
        self.spec["containers"][0]["readinessProbe"] = probe;
        self
    }

    /// Another field of its spec.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.spec[field] = value;
        self
    }

    /// A volume that something else gives it, at `/NAME`.
    pub fn mounts(mut self, name: &str) -> Self {
        let mount = json!({"name": name, "mountPath": format!("/{name}")});
        let mounts = self.spec["containers"][0]["volumeMounts"].as_array_mut();
        mounts.unwrap().push(mount);
        self
    }

    /// The volume of a claim, at `/NAME`.
    pub fn claims(mut self, name: &str, claim: &str) -> Self {
        let volume = json!({"name": name, "persistentVolumeClaim": {"claimName": claim}});
        self.spec["volumes"].as_array_mut().unwrap().push(volume);
        self.mounts(name)
    }

    /// What a set or a deployment makes such pods of.
    pub fn template(&self) -> Value {
        let kept =
            ["labels", "annotations"].map(|key| (key.to_owned(), self.metadata[key].clone()));
        json!({"metadata": Map::from_iter(kept), "spec": self.spec})
    }
}

/// A document of a manifest.
impl Display for Busybox {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": self.metadata, "spec": self.spec});
        write!(f, "\n---\n{pod}\n")
    }
}
