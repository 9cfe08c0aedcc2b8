//! Claims and their volumes: what a backup has of them, and what it has not.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::kubectl_backup;

use crate::many::renamed;
use crate::place::{Place, on};

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
fn a_claim_whose_data_could_not_be_saved_gets_the_volume_back_that_it_had() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("unsaved");
    let name = format!("{namespace}-pv");
    place.cluster.apply(&volume(&name, &namespace));
    let words = ["create", "b", "--include-namespaces", &namespace];
    let asked = [&words[..], &["--snapshot-volumes"]].concat();
    let told = place.run(&asked).code(3).stderr;
    assert!(told.contains(&format!("{namespace}/data")), "{told}");
    let cluster = place.cluster;
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=true"]);
    cluster.kubectl(&["delete", "pv", &name, "--wait=true"]);
    let restore = ["restore", "create", "--from-backup", "b"];
    let told = place.run(&restore).ok().stderr;
    assert!(told.contains("it has the disk that it had"), "{told}");
    let of = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/data");
    assert_eq!(cluster.get_raw(&of)["spec"]["volumeName"], name.as_str());
    let volume = cluster.get_raw(&format!("/api/v1/persistentvolumes/{name}"));
    assert_eq!(volume["spec"]["claimRef"]["name"], "data");
    // Beside it another one is empty, and no success.
    let mapping = format!("--namespace-mappings={namespace}:{namespace}-drill");
    let told = place.run(&restore).arg(&mapping).code(3).stderr;
    let drill = format!("{namespace}-drill/data: its data was to be saved, which failed");
    assert!(
        told.contains(&drill) && told.contains("anew and empty"),
        "{told}"
    );
    let of = format!("/api/v1/namespaces/{namespace}-drill/persistentvolumeclaims/data");
    assert!(cluster.get_raw(&of)["spec"]["volumeName"].is_null());
}

#[test]
fn a_disk_of_another_cluster_is_adopted_only_where_that_is_said_and_a_share_in_any_case() {
    let source = Cluster::start();
    let folder = Folder::new("location");
    let location = format!("file://{}", folder.path().display());
    let namespace = source.create_namespace("disks");
    let share = volume("share", &namespace)
        .replace("ReadWriteOnce", "ReadWriteMany")
        .replace("name: data", "name: shared");
    let disk = volume("disk", &namespace);
    source.apply(&format!("{disk}---\n{share}"));
    on(&source, &location, &["create", "b"]).ok();
    drop(source);
    let target = Cluster::start();
    let restore = |more: &[&str]| {
        let words = ["restore", "create", "--from-backup", "b", "--yes"];
        on(&target, &location, &[&words, more].concat())
    };
    let claimed = || {
        let asked = ["get", "pvc", "data", "-n", &namespace, "-o", "json"];
        target.kubectl(&asked).json()
    };
    let volumes = || {
        let asked = ["get", "pv", "-o", "name", "--sort-by=.metadata.name"];
        target.kubectl(&asked).stdout
    };
    let words = ["restore", "create", "--from-backup", "b"];
    let asked = on(&target, &location, &words).code(2).stderr;
    assert!(
        asked.contains("PersistentVolume disk") && asked.contains("--adopt-volumes"),
        "{asked}"
    );
    assert_eq!(volumes(), "");
    let told = restore(&[]).code(3).stderr;
    assert_eq!(volumes(), "persistentvolume/share\n");
    // Nothing else is bound to it, and nothing starts on an empty disk.
    let claim = claimed();
    assert_eq!(claim["spec"]["volumeName"], "disk");
    assert_ne!(claim["status"]["phase"], "Bound");
    assert!(!told.contains("come back empty"), "{told}");
    // What waits gets its volume, and what stands then is refused to nobody.
    restore(&["--adopt-volumes"]).ok();
    let all = "persistentvolume/disk\npersistentvolume/share\n";
    assert_eq!(volumes(), all);
    assert_eq!(claimed()["spec"]["volumeName"], "disk");
    restore(&[]).ok();
    // Or a new one, where that is said.
    target.kubectl(&["delete", "pvc", "data", "-n", &namespace, "--wait=true"]);
    target.kubectl(&["delete", "pv", "disk", "--wait=true"]);
    let told = restore(&["--adopt-volumes=false"]).ok().stderr;
    let empty = format!("come back empty, for their data is not in the backup: {namespace}/data");
    assert!(told.contains(&empty), "{told}");
    assert!(told.contains("data: it names no class"), "{told}");
    assert_eq!(volumes(), "persistentvolume/share\n");
    assert!(claimed()["spec"]["volumeName"].is_null());
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

#[test]
fn the_record_of_a_restore_is_deleted_with_the_cluster_in_which_it_was_made() {
    let place = Place::new();
    let (eu, us) = (place.cluster, Cluster::builder().start());
    let namespace = eu.create_namespace("elsewhere");
    let name = format!("{namespace}-pv");
    eu.apply(&volume(&name, &namespace));
    let home = Folder::new("home");
    let mut files = Vec::new();
    for (context, cluster) in [("eu", eu), ("us", &us)] {
        let text = renamed(cluster.kubeconfig(), context);
        files.push(home.write(format!("{context}.kubeconfig"), text));
    }
    let kubeconfig = std::env::join_paths(&files).unwrap();
    let url = place.url();
    let run = |context: &str, arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .env("KUBECONFIG", &kubeconfig)
            .env("KUBECTL_BACKUP_LOCATION", &url)
            .args(&["--context", context])
    };
    run("eu", &["create", "b", "--include-namespaces", &namespace]).ok();
    let restore = ["restore", "create", "r", "--from-backup", "b", "--yes"];
    let restore = [&restore[..], &["--adopt-volumes=false"]].concat();
    run("us", &restore).ok();
    let delete = ["restore", "delete", "r", "--yes"];
    let refused = run("eu", &delete).code(1);
    for words in ["another cluster", "\"us\"", "--context us"] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    run("us", &["restore", "describe", "r"]).ok();
    // It may be that it left nothing, and the location is the other cluster's: what a cluster made, it puts away.
    run("us", &delete).ok();
    // Where its cluster is no more, that is said.
    run("us", &restore).ok();
    let given_up = run("eu", &[&delete[..], &["--give-up-data"]].concat()).ok();
    assert!(
        given_up.stderr.contains("what is left of them stays"),
        "{}",
        given_up.stderr
    );
    run("eu", &["restore", "describe", "r"]).code(1);
}
