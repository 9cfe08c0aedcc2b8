//! Objects that exist are left alone, or updated when asked; nothing is ever deleted.

use crate::place::Place;

fn saved() -> (Place, String) {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("existing");
    place.cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "configmap",
        "settings",
        "--from-literal=colour=blue",
        "--from-literal=size=1",
    ]);
    place
        .cluster
        .kubectl(&["-n", &namespace, "create", "serviceaccount", "robot"]);
    place.run(&["create", "b", "-n", &namespace]).ok();
    place.cluster.kubectl(&[
        "-n",
        &namespace,
        "patch",
        "configmap",
        "settings",
        "--type=merge",
        "-p",
        r#"{"data":{"colour":"red","size":null,"new":"kept?"}}"#,
    ]);
    place
        .cluster
        .kubectl(&["-n", &namespace, "create", "configmap", "younger"]);
    (place, namespace)
}

#[test]
fn what_exists_is_left_alone_and_a_difference_is_said() {
    let (place, namespace) = saved();
    let run = place.run(&["restore", "create", "--from-backup", "b"]).ok();
    let live = place.cluster.get_raw(&format!(
        "/api/v1/namespaces/{namespace}/configmaps/settings"
    ));
    assert_eq!(live["data"]["colour"], "red");
    assert!(run.stderr.contains("differ"), "{}", run.stderr);
}

#[test]
fn what_exists_is_updated_when_asked_and_nothing_else_is_touched() {
    let (place, namespace) = saved();
    place
        .run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--existing-resource-policy",
            "update",
        ])
        .ok();
    let live = place.cluster.get_raw(&format!(
        "/api/v1/namespaces/{namespace}/configmaps/settings"
    ));
    assert_eq!(
        live["data"],
        serde_json::json!({"colour": "blue", "size": "1"})
    );
    place.cluster.get_raw(&format!(
        "/api/v1/namespaces/{namespace}/configmaps/younger"
    ));
}

#[test]
fn a_field_that_can_not_be_changed_is_a_failure_and_the_rest_is_restored() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("immutable");
    place.cluster.apply(&format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: fixed, namespace: {namespace}}}
immutable: true
stringData: {{a: old}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: free, namespace: {namespace}}}
data: {{a: old}}
"
    ));
    place.run(&["create", "b", "-n", &namespace]).ok();
    place
        .cluster
        .kubectl(&["-n", &namespace, "delete", "secret", "fixed"]);
    place.cluster.apply(&format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: fixed, namespace: {namespace}}}
immutable: true
stringData: {{a: new}}
"
    ));
    place
        .cluster
        .kubectl(&["-n", &namespace, "delete", "configmap", "free"]);
    let run = place
        .run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--existing-resource-policy",
            "update",
        ])
        .code(3);
    assert!(
        run.stderr.contains(&format!("{namespace}/fixed")) && run.stderr.contains("immutable"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("1 failed"), "{}", run.stderr);
    let live = place
        .cluster
        .get_raw(&format!("/api/v1/namespaces/{namespace}/secrets/fixed"));
    assert_eq!(live["data"]["a"], "bmV3", "what stands is left as it is");
    let listed = place.run(&["restore", "get"]).ok().stdout;
    assert!(listed.contains("PartiallyFailed"), "{listed}");
    place
        .cluster
        .get_raw(&format!("/api/v1/namespaces/{namespace}/configmaps/free"));
}
