//! The kinds as KKP brings them: the fields, required ones among them, that its reference lists.

use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Brings KKP's kinds.
pub fn bring_crds(cluster: &Cluster) {
    let text = json!({"type": "string"});
    let reference = json!({"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
        "apiVersion": text, "fieldPath": text, "kind": text, "name": text, "namespace": text, "resourceVersion": text, "uid": text}});
    let row = json!({"type": "object", "properties": {"backupName": text, "backupPhase": text, "backupMessage": text, "scheduledTime": text,
        "backupFinishedTime": text, "deletePhase": text}});
    kind(
        cluster,
        "EtcdBackupConfig",
        "Namespaced",
        &json!({"type": "object", "required": ["cluster", "destination", "name"], "properties": {
            "cluster": reference, "destination": text, "keep": {"type": "integer"}, "name": text, "schedule": text}}),
        &json!({"type": "object", "properties": {"currentBackups": {"type": "array", "items": row}}}),
    );
    kind(
        cluster,
        "EtcdRestore",
        "Namespaced",
        &json!({"type": "object", "required": ["backupName", "cluster", "name"], "properties": {
            "backupDownloadCredentialsSecret": text, "backupName": text, "cluster": reference, "destination": text, "name": text}}),
        &json!({"type": "object", "required": ["phase"], "properties": {"restoreTime": text, "phase": {"type": "string",
            "enum": ["Started", "StsRebuilding", "Completed", "EtcdLauncherNotEnabled"]}}}),
    );
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    kind(cluster, "Cluster", "Cluster", &any, &any);
}

fn kind(cluster: &Cluster, kind: &str, scope: &str, spec: &Value, status: &Value) {
    let plural = format!("{}s", kind.to_lowercase());
    let name = format!("{plural}.kubermatic.k8c.io");
    cluster.apply(
        &json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name, "annotations": {"kubermatic.k8c.io/location": "master,seed"}},
            "spec": {
                "group": "kubermatic.k8c.io", "scope": scope, "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}}}],
            },
        })
        .to_string(),
    );
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd",
        &name,
        "--timeout=30s",
    ]);
}
