//! What other objects of the target have to do with the one that is restored: volumes kept for claims, and owners.

use serde_json::{Value, json};

use super::super::owners::{Child, Owners};
use super::fake::Fake;
use super::whole::{Saved, api, object, uid};
use crate::discovery::Served;

pub(super) const CLAIM: &str = "/api/v1/namespaces/n/persistentvolumeclaims/data";
pub(super) const VOLUME: &str = "/api/v1/persistentvolumes/pv";

pub(super) fn kept(policy: &str) -> Value {
    json!({"metadata": {"name": "pv", "resourceVersion": "7"}, "status": {"phase": "Released"}, "spec": {
        "persistentVolumeReclaimPolicy": policy,
        "claimRef": {"namespace": "n", "name": "data", "uid": "old", "resourceVersion": "3"}}})
}

async fn saved() -> Saved {
    let claim = json!({"spec": {"volumeName": "pv", "accessModes": ["ReadWriteOnce"]}});
    Saved::new(&[object("persistentvolumeclaims", 1, "n/data", claim)]).await
}

#[tokio::test]
async fn a_volume_that_was_kept_when_its_claim_went_is_bound_to_the_restored_claim() {
    let saved = saved().await;
    saved.target.put(VOLUME, kept("Retain"));
    let report = saved.restore(|_| {}).await.unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let volume = saved.target.get(VOLUME);
    assert_eq!(
        volume["spec"]["claimRef"],
        json!({"namespace": "n", "name": "data"})
    );
    assert_eq!(saved.target.get(CLAIM)["spec"]["volumeName"], "pv");
}

#[tokio::test]
async fn who_may_not_change_such_a_volume_is_told_how_it_is_done() {
    let saved = saved().await;
    saved.target.put(VOLUME, kept("Retain"));
    saved.target.0.lock().unwrap().refuses = vec![("PATCH", "/pv", 403, "Forbidden")];
    let report = saved.restore(|_| {}).await.unwrap();
    let told = report.warnings.join("\n");
    assert!(
        told.contains("kubectl patch pv pv --type=merge -p '{\"spec\""),
        "{told}"
    );
    assert_eq!(saved.target.get(CLAIM)["spec"]["volumeName"], "pv");
}

#[tokio::test]
async fn a_volume_of_a_claim_that_stands_or_of_another_is_not_touched() {
    let saved = saved().await;
    saved.target.put(VOLUME, kept("Retain"));
    saved.target.put(
        CLAIM,
        json!({"metadata": {"name": "data", "namespace": "n"}, "spec": {}}),
    );
    saved.restore(|_| {}).await.unwrap();
    assert_eq!(saved.target.get(VOLUME), kept("Retain"));

    let other = self::saved().await;
    let mut volume = kept("Retain");
    volume["spec"]["claimRef"]["name"] = "another".into();
    other.target.put(VOLUME, volume.clone());
    other.restore(|_| {}).await.unwrap();
    assert_eq!(other.target.get(VOLUME), volume);
    assert!(other.target.get(CLAIM)["spec"]["volumeName"].is_null());
}

#[tokio::test]
async fn owners_that_can_not_be_given_back_for_conflicts_are_an_error() {
    let target = Fake::default();
    let path = "/api/v1/namespaces/n/configmaps/child";
    target.put(
        path,
        json!({"metadata": {"name": "child", "resourceVersion": "1",
        "labels": {"velero.io/restore-name": "r"}, "annotations": {"kubectl-backup/uid": uid(1)}}}),
    );
    let new = "00000000-0000-0000-0000-00000000000a".parse().unwrap();
    let known = [(uid(9).parse().unwrap(), new)].into();
    let owners = Owners::new(target.cluster(), Served::default(), "r".into(), known);
    let child = |old: u64| Child {
        target: api("configmaps"),
        namespace: Some("n".into()),
        name: "child".into(),
        uid: uid(old),
        references: json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "p", "uid": uid(9)}])
            .to_string(),
    };
    target.0.lock().unwrap().refuses = vec![("PATCH", "/child", 409, "Conflict")];
    assert!(owners.rewire(&child(1)).await.is_err());
    target.0.lock().unwrap().refuses.clear();
    assert!(
        !owners.rewire(&child(2)).await.unwrap().patched,
        "made of another object"
    );
    assert!(owners.rewire(&child(1)).await.unwrap().patched);
    assert_eq!(
        target.get(path)["metadata"]["ownerReferences"][0]["uid"],
        new.to_string()
    );
}

#[tokio::test]
async fn an_owner_is_named_in_a_version_that_the_target_serves() {
    let target = Fake::default();
    let path = "/api/v1/namespaces/n/configmaps/child";
    target.put(
        path,
        json!({"metadata": {"name": "child", "resourceVersion": "1",
        "labels": {"velero.io/restore-name": "r"}, "annotations": {"kubectl-backup/uid": uid(1)}}}),
    );
    let served = Served {
        all: vec![api("services.serving.knative.dev")],
        gaps: Vec::new(),
    };
    let new = "00000000-0000-0000-0000-00000000000a".parse().unwrap();
    let known = [(uid(9).parse().unwrap(), new)].into();
    let owners = Owners::new(target.cluster(), served, "r".into(), known);
    let references = json!([{"apiVersion": "serving.knative.dev/v1alpha1", "kind": "Service", "name": "p", "uid": uid(9)}]);
    let child = Child {
        target: api("configmaps"),
        namespace: Some("n".into()),
        name: "child".into(),
        uid: uid(1),
        references: references.to_string(),
    };
    assert!(owners.rewire(&child).await.unwrap().patched);
    let owner = &target.get(path)["metadata"]["ownerReferences"][0];
    assert_eq!(owner["apiVersion"], "serving.knative.dev/v1");
    assert_eq!(owner["uid"], new.to_string());
}
