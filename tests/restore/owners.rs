//! Children carry their owners' new uids and live and die with them.

use std::thread::sleep;
use std::time::Duration;

use crate::place::Place;

#[test]
fn a_child_outlives_the_garbage_collector_and_goes_with_its_owner() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("family");
    place
        .cluster
        .kubectl(&["-n", &namespace, "create", "configmap", "parent"]);
    let path = |name: &str| format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
    let uid = |name: &str| {
        place.cluster.get_raw(&path(name))["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let old = uid("parent");
    place.cluster.apply(&format!("
apiVersion: v1
kind: ConfigMap
metadata:
  name: child
  namespace: {namespace}
  ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: parent, uid: {old}, controller: true, blockOwnerDeletion: true}}]
"));
    place
        .run(&["create", "b", "--include-namespaces", &namespace])
        .ok();
    place
        .cluster
        .kubectl(&["delete", "namespace", &namespace, "--wait=true"]);
    place.run(&["restore", "create", "--from-backup", "b"]).ok();
    let new = uid("parent");
    assert_ne!(old, new);
    let child = place.cluster.get_raw(&path("child"));
    let owner = &child["metadata"]["ownerReferences"][0];
    assert_eq!(
        (owner["uid"].as_str(), owner["controller"].as_bool()),
        (Some(new.as_str()), Some(true))
    );
    // The collector looks at a child again whenever it or its owner changes; two changes are two passes.
    for pass in ["first", "second"] {
        place.cluster.kubectl(&[
            "-n",
            &namespace,
            "label",
            "configmap",
            "child",
            "parent",
            &format!("pass={pass}"),
            "--overwrite",
        ]);
        sleep(Duration::from_secs(3));
        place.cluster.get_raw(&path("child"));
    }
    place.cluster.kubectl(&[
        "-n",
        &namespace,
        "delete",
        "configmap",
        "parent",
        "--wait=true",
    ]);
    harness::wait_for(
        "the child to go with its owner",
        Duration::from_secs(60),
        || (place.cluster.client().get(&path("child")).unwrap().status == 404).then_some(()),
    );
}
