//! What can not be restored is refused with a reason, and nothing is stopped for it.

use harness::hosted::Hosted;
use harness::pki::Authority;
use serde_json::{Value, json};

use super::place::{LONG, Place, SNAPSHOT, message};

/// Applies a restore that is to be refused; gives its message once nothing of it is left.
#[track_caller]
fn refused(place: &Place, name: &str) -> String {
    place.apply_restore(name, SNAPSHOT);
    let restore = place.wait_for_phase(name, "Failed");
    place.assert_put_back();
    assert!(!place.is_restored());
    message(&restore).to_owned()
}

fn patch_set(place: &Place, patch: &Value) {
    place.kubectl(&["patch", "statefulset", "etcd", "-p", &patch.to_string()]);
}

#[test]
fn a_pod_or_a_stateful_set_that_would_end_it_in_the_middle_is_refused() {
    let place = Place::of(1);
    let port = place.members[0].client_port();
    let with_probe = |probe: Value| json!({"spec": {"template": {"spec": {"containers": [{"name": "etcd", "livenessProbe": probe}]}}}});
    patch_set(
        &place,
        &with_probe(json!({"httpGet": {"port": port, "path": "/health"}})),
    );
    let told = refused(&place, "probed");
    assert!(
        told.contains("livenessProbe") && told.contains(&port.to_string()),
        "{told}"
    );
    patch_set(&place, &with_probe(Value::Null));
    patch_set(&place, &json!({"spec": {"replicas": 3}}));
    let told = refused(&place, "scaled");
    assert!(
        told.contains("1 members") && told.contains("have 3"),
        "{told}"
    );
    patch_set(&place, &json!({"spec": {"replicas": 1}}));
    place.restore_well("restored");
}

#[test]
fn members_of_another_cluster_than_the_one_that_stands_say_so_and_are_not_waited_for() {
    let place = Place::of(1);
    let stands =
        |id: &Value| json!({"metadata": {"annotations": {"etcd-launcher/cluster-id": id}}});
    // A first start writes it once its etcd serves.
    let before = place.relaunch_until("a cluster to stand", LONG, || {
        let set = place.stateful_set();
        let id = &set["metadata"]["annotations"]["etcd-launcher/cluster-id"];
        id.is_string().then(|| id.clone())
    });
    patch_set(&place, &stands(&json!("abc")));
    place.apply_restore("another", SNAPSHOT);
    let told = message(&place.wait_for_phase("another", "Failed")).to_owned();
    assert!(
        told.contains("etcd-0: cluster abc stands") && told.contains("take the annotation"),
        "{told}"
    );
    patch_set(&place, &stands(&before));
    place.assert_put_back();
    assert!(!place.is_restored());
}

#[test]
fn a_certificate_that_has_expired_is_named_before_anything_is_stopped() {
    let place = Place::with(Hosted::builder().with_tls());
    // It has no peers that would see it now; a restored one with peers would be alone.
    let expired = Authority::new("x").expired_client("etcd", &[]);
    let before = place.replace_peer_certificate(&expired.certificate);
    let told = refused(&place, "expired");
    assert!(
        told.contains("peer.crt expired at 2021-01-01T00:00:00Z"),
        "{told}"
    );
    place.replace_peer_certificate(&before);
}

#[test]
fn a_right_that_is_missing_is_named_before_anything_is_stopped() {
    let mut place = Place::of(1);
    let group = "x-launchers";
    let rules = |deployments: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}}}
rules:
- {{apiGroups: [kubermatic.k8c.io], resources: ['*'], verbs: ['*']}}
- {{apiGroups: [velero.io, ''], resources: [backupstoragelocations, secrets, pods], verbs: [get, list]}}
- {{apiGroups: [apps], resources: [statefulsets], verbs: [get, patch]}}
- {{apiGroups: [apps], resources: [deployments], verbs: [{deployments}]}}
- {{apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}
subjects: [{{kind: User, name: {name}, apiGroup: rbac.authorization.k8s.io}}]
",
            name = place.name
        )
    };
    place.hosting.apply(&rules("get"));
    let user = place.hosting.user(&place.name, &[group]);
    let with_all = rules("get, patch");
    place.reach_hosting_by(user);
    place.members[0].stop();
    place.launch(0);
    place.wait_until_etcd_serves();
    let told = refused(&place, "forbidden");
    assert!(
        told.contains("lacks a right") && told.contains("cannot patch resource \"deployments\""),
        "{told}"
    );
    place.hosting.apply(&with_all);
    place.restore_well("restored");
}

#[test]
fn a_hosting_api_that_lies_in_the_very_etcd_is_refused() {
    let mut hosted = Hosted::builder().with_api_server().start();
    hosted.save_snapshot(SNAPSHOT);
    let own = hosted.move_objects_inside();
    hosted.reach_hosting_by(own.clone());
    hosted.members[0].stop();
    hosted.launch(0);
    hosted.wait_until_etcd_serves();
    hosted.wait_for_api();
    hosted.apply_restore_by(&own, "s3", "inside", SNAPSHOT);
    let path = format!(
        "/apis/kubermatic.k8c.io/v1/namespaces/{}/etcdrestores/inside",
        hosted.namespace
    );
    let restore = hosted.relaunch_until("the refusal", LONG, || {
        let answer = hosted.api().client().get(&path).ok()?;
        let restore = answer.is_success().then(|| answer.json())?;
        (restore["status"]["phase"] == "Failed").then_some(restore)
    });
    let told = message(&restore);
    assert!(told.contains("the very etcd"), "{told}");
}

#[test]
fn a_store_that_does_not_answer_is_waited_for_and_holds_nobody_else_up() {
    let place = Place::of(1);
    place.hosting.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: BackupStorageLocation, metadata: {{name: dead, namespace: {}}},
          spec: {{provider: aws, objectStorage: {{bucket: b}}, config: {{region: us-east-1, s3Url: 'http://127.0.0.1:1'}},
                  credential: {{name: s3-credentials, key: cloud}}}}}}",
        place.namespace
    ));
    place.apply_restore_from("dead", "waiting", SNAPSHOT);
    place.relaunch_until("its word", LONG, || {
        let restore = place.restore("waiting")?;
        message(&restore).contains("tried again").then_some(())
    });
    place.apply_restore_from("nowhere", "lost", SNAPSHOT);
    let restore = place.wait_for_phase("lost", "Failed");
    let told = message(&restore);
    assert!(
        told.contains("\"nowhere\" is no BackupStorageLocation"),
        "{told}"
    );
    place.restore_well("restored");
    let waiting = place.restore("waiting").unwrap();
    assert_eq!(waiting["status"]["phase"], Value::Null);
    place.delete_restore("waiting");
    place.wait_until_gone("waiting");
}

#[test]
fn a_restore_of_a_cluster_that_is_not_here_is_told_so() {
    let place = Place::of(1);
    place.hosting.apply(&format!(
        "{{apiVersion: kubermatic.k8c.io/v1, kind: EtcdRestore, metadata: {{name: typo, namespace: {}}},
          spec: {{name: typo, cluster: {{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, name: typed-wrong}}, backupName: {SNAPSHOT}, destination: s3}}}}",
        place.namespace
    ));
    let told = place.relaunch_until("its word", LONG, || {
        let told = message(&place.restore("typo")?).to_owned();
        Some(told).filter(|told| !told.is_empty())
    });
    assert!(
        told.contains("typed-wrong") && told.contains(&place.name),
        "{told}"
    );
    place.delete_restore("typo");
    place.wait_until_gone("typo");
}

#[test]
fn a_restore_of_another_namespaces_cluster_is_refused() {
    let place = Place::of(1);
    let elsewhere = place.hosting.create_namespace("elsewhere");
    let patch = json!({"status": {"namespaceName": elsewhere}});
    place.patch_cluster(Some("status"), &patch);
    let told = refused(&place, "misplaced");
    assert!(
        told.contains(&elsewhere) && told.contains("apply it there"),
        "{told}"
    );
}

#[test]
fn somebody_who_still_writes_is_named_and_nothing_is_stopped() {
    let mut place = Place::of(1);
    place.apply_restore("busy", SNAPSHOT);
    let mut keys = place.keys(0);
    let mut number = 0;
    let restore = place.relaunch_until("the refusal", LONG, || {
        number += 1;
        let _ = keys.try_put("/registry/events/default/x", number.to_string().as_bytes());
        let restore = place.restore("busy")?;
        (restore["status"]["phase"] == "Failed").then_some(restore)
    });
    let message = message(&restore);
    assert!(message.contains("events default/x"), "{message}");
    keys.delete("/registry/events/default/x");
    place.assert_put_back();
    place.write_later();
    assert!(!place.is_restored());
}
