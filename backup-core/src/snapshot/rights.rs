//! Whether this user may make snapshots and keep them, or delete them: asked before the first one is.

use serde_json::{Value, json};

use crate::cluster::{Call, Cluster};

/// What a snapshot of a backup takes: verb and resource.
const NEEDED: [(&str, &str); 5] = [
    ("create", "volumesnapshots"),
    ("delete", "volumesnapshots"),
    ("get", "volumesnapshotcontents"),
    ("patch", "volumesnapshotcontents"),
    ("delete", "volumesnapshotcontents"),
];

/// What it takes to delete one by its handle.
const TO_EXPIRE: [(&str, &str); 4] = [
    ("create", "volumesnapshotcontents"),
    ("get", "volumesnapshotcontents"),
    ("patch", "volumesnapshotcontents"),
    ("delete", "volumesnapshotcontents"),
];

/// What is missing to delete snapshots by their handles: a sentence. Who can not be asked is believed.
pub(crate) async fn missing_to_expire(cluster: &Cluster) -> Option<String> {
    for (verb, resource) in TO_EXPIRE {
        if may(cluster, verb, resource, None).await == Some(false) {
            return Some(format!(
                "this user may not {verb} {resource}.snapshot.storage.k8s.io"
            ));
        }
    }
    None
}

/// What is missing for snapshots in a namespace, or in all of them: a sentence. Who can not be asked is believed.
pub(crate) async fn missing(cluster: &Cluster, namespace: Option<&str>) -> Option<String> {
    for (verb, resource) in NEEDED {
        let namespace = namespace.filter(|_| resource == "volumesnapshots");
        if may(cluster, verb, resource, namespace).await == Some(false) {
            let place = namespace.map(|name| format!(" in namespace {name}"));
            return Some(format!(
                "this user may not {verb} {resource}.snapshot.storage.k8s.io{}",
                place.unwrap_or_default()
            ));
        }
    }
    None
}

async fn may(
    cluster: &Cluster,
    verb: &str,
    resource: &str,
    namespace: Option<&str>,
) -> Option<bool> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "verb": verb, "group": "snapshot.storage.k8s.io", "resource": resource, "namespace": namespace.unwrap_or_default(),
        }},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let call = Call::post(path, review.to_string().into());
    let answer: Value = serde_json::from_slice(&cluster.send(&call).await.ok()?).ok()?;
    answer["status"]["allowed"].as_bool()
}
