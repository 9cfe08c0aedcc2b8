//! EtcdRestores of a hosted control plane: asked for, given up, waited for.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Hosted, LONG};
use crate::kubectl;

impl Hosted {
    pub fn restore(&self, name: &str) -> Option<Value> {
        let namespace = &self.namespace;
        self.hosting_object(&format!(
            "/apis/kubermatic.k8c.io/v1/namespaces/{namespace}/etcdrestores/{name}"
        ))
    }

    /// Asks for a restore to be given up, as `kubectl annotate` does.
    #[track_caller]
    pub fn abort(&self, name: &str) {
        self.kubectl(&["annotate", "etcdrestore", name, "kubectl-backup/abort=true"]);
    }

    /// Deletes a restore, and does not wait for it to be gone.
    #[track_caller]
    pub fn delete_restore(&self, name: &str) {
        self.kubectl(&["delete", "etcdrestore", name, "--wait=false"]);
    }

    /// Waits until a restore is gone.
    #[track_caller]
    pub fn wait_until_gone(&self, name: &str) {
        self.relaunch_until(&format!("{name} to be gone"), LONG, || {
            self.restore(name).is_none().then_some(())
        });
    }

    /// Applies an EtcdRestore as KKP documents it.
    pub fn apply_restore(&self, name: &str, backup: &str) {
        self.apply_restore_from("s3", name, backup);
    }

    /// The same from another destination.
    pub fn apply_restore_from(&self, destination: &str, name: &str, backup: &str) {
        self.apply_restore_by(self.hosting.kubeconfig(), destination, name, backup);
    }

    /// The same by another way.
    pub fn apply_restore_by(&self, kubeconfig: &Path, destination: &str, name: &str, backup: &str) {
        let (cluster, namespace) = (&self.name, &self.namespace);
        let mut command = kubectl::command(kubeconfig, self.folder.path());
        kubectl::apply(
            &mut command,
            &format!(
                "apiVersion: kubermatic.k8c.io/v1
kind: EtcdRestore
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  cluster: {{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, name: {cluster}}}
  backupName: {backup}
  destination: {destination}
"
            ),
        );
    }

    /// Waits until a restore has this phase; fails the test where it ends in another one.
    #[track_caller]
    pub fn wait_for_phase(&self, name: &str, phase: &str) -> Value {
        self.relaunch_until(
            &format!("{name} to be {phase}"),
            Duration::from_secs(240),
            || {
                let restore = self.restore(name)?;
                let now = restore["status"]["phase"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                let ended = ["Completed", "Failed", "RolledBack"].contains(&now.as_str());
                assert!(!ended || now == phase, "{name} is {now}:\n{}", self.story());
                (now == phase).then_some(restore)
            },
        )
    }

    /// Waits until a restore has come to this step or another that is in the list.
    #[track_caller]
    pub fn wait_for_step(&self, name: &str, steps: &[&str]) -> Value {
        self.relaunch_until(
            &format!("{name} at {steps:?}"),
            Duration::from_secs(120),
            || {
                let restore = self.restore(name)?;
                let now = restore["status"]["attempt"]["step"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                steps.contains(&now.as_str()).then_some(restore)
            },
        )
    }

    /// Waits until nothing of any restore is left on the objects, and every member serves.
    #[track_caller]
    pub fn wait_until_settled(&self) {
        self.relaunch_until("everything to be put back", LONG, || {
            let annotations = self.cluster()["metadata"]["annotations"].clone();
            let free = annotations.get("etcd-launcher/active-restore").is_none();
            let idle = self.members.iter().all(|member| {
                member
                    .state()
                    .is_some_and(|state| state.get("attempt").is_none() && state["serving"] == true)
            });
            (free && idle).then_some(())
        });
    }
}
