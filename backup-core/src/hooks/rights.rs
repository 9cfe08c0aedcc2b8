//! Whether this user may run commands in pods: asked before the first one is.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::cluster::{Call, Cluster};

const AT_A_TIME: usize = 8;

/// Namespaces where hooks can not be run, and why. Who can not be asked is believed: the exec itself is refused then.
pub(super) async fn missing(
    cluster: &Cluster,
    namespaces: BTreeSet<String>,
) -> BTreeMap<String, String> {
    let asked = stream::iter(namespaces).map(|namespace| async move {
        // Older servers ask for `get` alone; who may only read runs nothing all the same.
        for verb in ["create", "get"] {
            if may(cluster, verb, &namespace).await == Some(false) {
                let why = format!("this user may not {verb} pods/exec in namespace {namespace}");
                return Some((namespace, why));
            }
        }
        None
    });
    let answers = asked.buffer_unordered(AT_A_TIME);
    answers.filter_map(|one| async move { one }).collect().await
}

async fn may(cluster: &Cluster, verb: &str, namespace: &str) -> Option<bool> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": verb, "group": "", "resource": "pods", "subresource": "exec", "namespace": namespace}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let call = Call::post(path, review.to_string().into());
    let answer = cluster.send(&call).await.ok()?;
    let answer: Value = serde_json::from_slice(&answer).ok()?;
    answer["status"]["allowed"].as_bool()
}
