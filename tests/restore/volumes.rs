//! Claims and their volumes: what a backup has of them, and what it has not.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::place::Place;

fn volume(name: &str, namespace: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 1Mi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ''
  hostPath: {{path: /nowhere}}
  claimRef: {{apiVersion: v1, kind: PersistentVolumeClaim, namespace: {namespace}, name: data}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data, namespace: {namespace}}}
spec: {{accessModes: [ReadWriteOnce], storageClassName: '', volumeName: {name}, resources: {{requests: {{storage: 1Mi}}}}}}
"
    )
}

#[test]
fn a_claim_whose_data_is_in_the_backup_and_does_not_come_back_is_no_success() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("data");
    let name = format!("{namespace}-pv");
    place.cluster.apply(&volume(&name, &namespace));
    place
        .run(&["create", "b", "--include-namespaces", &namespace])
        .ok();
    let infos = format!(
        r#"[{{"pvcName":"data","pvcNamespace":"{namespace}","pvName":"{name}","backupMethod":"NativeSnapshot","result":"succeeded"}}]"#
    );
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(infos.as_bytes()).unwrap();
    fs::write(
        place.file("b", "b-volumeinfo.json.gz"),
        packed.finish().unwrap(),
    )
    .unwrap();
    // As of a backup by others: where our own rows stand, they alone are believed.
    fs::remove_file(place.file("b", "volumes.json")).unwrap();
    let cluster = place.cluster;
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=true"]);
    cluster.kubectl(&["delete", "pv", &name, "--wait=true"]);
    let restore = ["restore", "create", "--from-backup", "b"];
    let run = place.run(&restore).code(3);
    assert!(
        run.stderr.contains("PartiallyFailed") && run.stderr.contains("NativeSnapshot"),
        "{}",
        run.stderr
    );
    let volumes = cluster.kubectl(&["get", "pv", "-o", "name"]).stdout;
    assert!(
        !volumes.contains(&name),
        "its disk is left alone: {volumes}"
    );
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=true"]);
    place.run(&restore).arg("--restore-volumes=false").ok();
}

#[test]
fn a_claim_gets_the_volume_back_that_was_kept_when_it_went() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("kept");
    let name = format!("{namespace}-pv");
    place.cluster.apply(&volume(&name, &namespace));
    place
        .run(&["create", "b", "--include-namespaces", &namespace])
        .ok();
    let cluster = place.cluster;
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=true"]);
    // As its controller leaves it.
    cluster.kubectl(&[
        "patch",
        "pv",
        &name,
        "--type=merge",
        "-p",
        r#"{"spec":{"claimRef":{"uid":"5f1c7f6e-0000-4000-8000-000000000001"}}}"#,
    ]);
    cluster.kubectl(&[
        "patch",
        "pv",
        &name,
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"phase":"Released"}}"#,
    ]);
    place.run(&["restore", "create", "--from-backup", "b"]).ok();
    let claim = cluster.get_raw(&format!(
        "/api/v1/namespaces/{namespace}/persistentvolumeclaims/data"
    ));
    assert_eq!(claim["spec"]["volumeName"], name.as_str());
    let volume = cluster.get_raw(&format!("/api/v1/persistentvolumes/{name}"));
    let bound = &volume["spec"]["claimRef"];
    assert_eq!(bound["name"], "data");
    assert!(
        bound["uid"].is_null() || bound["uid"] == claim["metadata"]["uid"],
        "{bound}"
    );
}

#[test]
fn a_claim_that_comes_back_empty_is_told() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("empty");
    let name = format!("{namespace}-pv");
    let claims = volume(&name, &namespace).replace("Retain", "Delete");
    place.cluster.apply(&claims);
    let restore = ["restore", "create", "--from-backup", "b"];
    place
        .run(&["create", "b", "--include-namespaces", &namespace])
        .ok();
    let cluster = place.cluster;
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=true"]);
    cluster.kubectl(&["delete", "pv", &name, "--wait=true"]);
    let run = place.run(&restore).ok();
    assert!(
        run.stderr.contains("come back empty") && run.stderr.contains(&format!("{namespace}/data")),
        "{}",
        run.stderr
    );
    // Said to be meant.
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=true"]);
    let run = place.run(&restore).args(&["--restore-volumes=false"]).ok();
    assert!(!run.stderr.contains("come back empty"), "{}", run.stderr);
}
