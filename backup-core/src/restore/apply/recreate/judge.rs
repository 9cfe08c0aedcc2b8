//! What may be deleted to be created anew, and what has to be said of it: see the page of [`super`]. Pure.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::Job;
use super::GOING;
use crate::error::{Error, Result};

/// No pod is waited for longer.
const LONGEST: Duration = Duration::from_secs(600);

/// What is deleted and created anew. Kinds that are not here can be changed in place.
const RECREATED: [&str; 13] = [
    "configmaps",
    "secrets",
    "pods",
    "replicationcontrollers",
    "daemonsets.apps",
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "jobs.batch",
    "storageclasses.storage.k8s.io",
    "ingressclasses.networking.k8s.io",
    "priorityclasses.scheduling.k8s.io",
    "runtimeclasses.node.k8s.io",
];

/// Whether objects of this resource are deleted and created anew.
pub(in crate::restore) fn is_recreated(resource: &str) -> bool {
    RECREATED.contains(&resource)
}

/// Why an object of this kind is changed in place and not deleted; nothing where it may go.
///
/// # Errors
/// `Corrupt`, when the body is no Kubernetes object.
pub(super) fn stays(resource: &str, live: &[u8]) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Meta,
        #[serde(default, rename = "type")]
        kind: String,
        #[serde(default)]
        spec: Value,
        #[serde(default)]
        status: Value,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Meta {
        finalizers: Option<Vec<String>>,
        owner_references: Option<Vec<Owner>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Owner {
        kind: String,
        name: String,
        controller: Option<bool>,
    }
    if !is_recreated(resource) {
        return Ok(Some("objects of this kind are never deleted".to_owned()));
    }
    let live: Object = serde_json::from_slice(live)
        .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))?;
    if let Some(finalizer) = live.metadata.finalizers.iter().flatten().next() {
        return Ok(Some(format!(
            "it is not deleted, because it has the finalizer {finalizer}"
        )));
    }
    let mut owners = live.metadata.owner_references.into_iter().flatten();
    if let Some(owner) = owners.find(|owner| owner.controller == Some(true)) {
        return Ok(Some(format!(
            "it is not deleted, because {} {} controls it",
            owner.kind, owner.name
        )));
    }
    if live.kind == "kubernetes.io/service-account-token" {
        return Ok(Some(
            "it is not deleted, because somebody may work with this token".to_owned(),
        ));
    }
    if resource == "jobs.batch" && live.status["active"].as_u64().is_some_and(|n| n > 0) {
        return Ok(Some(
            "it is not deleted, because its pods run and would go on beside the new ones"
                .to_owned(),
        ));
    }
    if resource == "pods" {
        let mut volumes = live.spec["volumes"].as_array().into_iter().flatten();
        // What is in memory goes with any restart.
        let volume = volumes.find(|volume| {
            let empty = &volume["emptyDir"];
            !volume["ephemeral"].is_null() || !(empty.is_null() || empty["medium"] == "Memory")
        });
        if let Some(volume) = volume {
            return Ok(Some(format!(
                "it is not deleted, because its volume {} would go with it",
                volume["name"].as_str().unwrap_or_default()
            )));
        }
    }
    Ok(None)
}

/// What a workload's pods are no longer owned by, when another one with another selector takes its place.
pub(super) fn orphans(job: &Job, live: &[u8], wanted: &[u8]) -> Option<String> {
    // A job's selector is made of its uid, and one whose pods run stays.
    let owned = match job.resource.name.as_str() {
        "deployments.apps" => "replicasets,pods",
        "daemonsets.apps" | "replicasets.apps" | "statefulsets.apps" | "replicationcontrollers" => {
            "pods"
        }
        _ => return None,
    };
    let selector = |body: &[u8]| {
        let mut body: Value = serde_json::from_slice(body).ok()?;
        Some(body["spec"]["selector"].take())
    };
    let before = selector(live)?;
    if before.is_null() || Some(&before) == selector(wanted).as_ref() {
        return None;
    }
    let namespace = job.namespace.as_deref().unwrap_or_default();
    Some(format!(
        "its selector was another one, and what it selected may run on without an owner: kubectl get {owned} -n {namespace} -l '{}'",
        written(&before)
    ))
}

/// A selector as `kubectl -l` takes it.
fn written(selector: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let structured = selector["matchLabels"].is_object() || selector["matchExpressions"].is_array();
    let labels = if structured {
        &selector["matchLabels"]
    } else {
        selector
    };
    let equal = labels.as_object().into_iter().flatten();
    let equal = equal.map(|(key, value)| format!("{key}={}", text(value)));
    let expressions = selector["matchExpressions"].as_array();
    let other = expressions.into_iter().flatten().map(|expression| {
        let key = text(&expression["key"]);
        let values = expression["values"].as_array().into_iter().flatten();
        let values = values.map(text).collect::<Vec<_>>().join(",");
        match expression["operator"].as_str() {
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key,
            Some("DoesNotExist") => format!("!{key}"),
            _ => format!("{key} in ({values})"),
        }
    });
    equal.chain(other).collect::<Vec<_>>().join(",")
}

/// How long a deleted object may take to go.
pub(super) fn patience(live: &[u8]) -> Duration {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        termination_grace_period_seconds: Option<u64>,
    }
    let grace = serde_json::from_slice::<Object>(live)
        .ok()
        .and_then(|object| object.spec.termination_grace_period_seconds);
    GOING
        .saturating_add(Duration::from_secs(grace.unwrap_or(0)))
        .min(LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_would_take_something_along_is_never_deleted() {
        let plain = br#"{"metadata":{"name":"x"}}"#;
        for resource in [
            "namespaces",
            "customresourcedefinitions.apiextensions.k8s.io",
            "persistentvolumes",
            "persistentvolumeclaims",
            "volumesnapshots.snapshot.storage.k8s.io",
            "volumesnapshotcontents.snapshot.storage.k8s.io",
            "services",
            "resourcequotas",
            "serviceaccounts",
            "clusterrolebindings.rbac.authorization.k8s.io",
            "apiservices.apiregistration.k8s.io",
            "clusters.postgresql.cnpg.io",
            "deployments.example.com",
        ] {
            assert!(stays(resource, plain).unwrap().is_some(), "{resource}");
        }
        for resource in RECREATED {
            assert_eq!(stays(resource, plain).unwrap(), None, "{resource}");
        }
        for (resource, live, why) in [
            (
                "configmaps",
                r#"{"metadata":{"finalizers":["example.com/hold"]}}"#,
                "example.com/hold",
            ),
            (
                "pods",
                r#"{"metadata":{"ownerReferences":[{"kind":"ReplicaSet","name":"web","controller":true}]}}"#,
                "ReplicaSet web controls it",
            ),
            (
                "secrets",
                r#"{"metadata":{},"type":"kubernetes.io/service-account-token"}"#,
                "token",
            ),
            (
                "jobs.batch",
                r#"{"metadata":{},"status":{"active":1}}"#,
                "pods run",
            ),
            (
                "pods",
                r#"{"metadata":{},"spec":{"volumes":[{"name":"m","emptyDir":{"medium":"Memory"}},{"name":"data","emptyDir":{}}]}}"#,
                "volume data",
            ),
            (
                "pods",
                r#"{"metadata":{},"spec":{"volumes":[{"name":"claim","ephemeral":{}}]}}"#,
                "volume claim",
            ),
        ] {
            let told = stays(resource, live.as_bytes()).unwrap().unwrap();
            assert!(told.contains(why), "{told}");
        }
        let owned = br#"{"metadata":{"ownerReferences":[{"kind":"ConfigMap","name":"p"}],"finalizers":null}}"#;
        assert_eq!(stays("secrets", owned).unwrap(), None);
        assert!(stays("secrets", b"{}").is_err());
        for (resource, live) in [
            (
                "pods",
                r#"{"metadata":{},"spec":{"volumes":[{"name":"m","emptyDir":{"medium":"Memory"}},{"name":"c","configMap":{}}]}}"#,
            ),
            (
                "jobs.batch",
                r#"{"metadata":{},"status":{"succeeded":1,"active":0}}"#,
            ),
        ] {
            assert_eq!(stays(resource, live.as_bytes()).unwrap(), None, "{live}");
        }
    }

    #[test]
    fn a_selector_is_written_as_kubectl_takes_it() {
        assert_eq!(
            written(
                &json!({"matchLabels": {"app": "web", "tier": ""}, "matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"},
                {"key": "x", "operator": "NotIn", "values": ["y"]}, {"key": "set", "operator": "Exists"}]})
            ),
            "app=web,tier=,zone in (a,b),!old,x notin (y),set"
        );
        assert_eq!(written(&json!({"app": "web"})), "app=web");
    }

    #[test]
    fn a_pod_is_waited_for_as_long_as_it_may_take_to_end() {
        assert_eq!(patience(b"{}"), GOING);
        let pod = br#"{"spec":{"terminationGracePeriodSeconds":30}}"#;
        assert_eq!(patience(pod), GOING + Duration::from_secs(30));
        let endless = br#"{"spec":{"terminationGracePeriodSeconds":18446744073709551615}}"#;
        assert_eq!(patience(endless), LONGEST);
    }
}
