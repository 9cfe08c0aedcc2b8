//! A backup of Velero's as its older versions wrote it: every object comes back, and each volume whose data does not is named.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use harness::process::Folder;
use serde_json::{Value, json};

use crate::place::Place;

fn gz(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

/// Format 1.0: no `metadata/version`, one copy of each object, and a marker that knows no format version.
pub(super) fn write(location: &Folder, objects: &[(String, Value)], sides: &[(&str, Value)]) {
    let folder = location.join("backups/old");
    fs::create_dir_all(&folder).unwrap();
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, object) in objects {
        let body = object.to_string();
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, body.as_bytes()).unwrap();
    }
    let archive = tar.into_inner().unwrap().finish().unwrap();
    fs::write(folder.join("old.tar.gz"), archive).unwrap();
    for (suffix, list) in sides {
        fs::write(folder.join(format!("old{suffix}")), gz(&list.to_string())).unwrap();
    }
    let marker = json!({"kind": "Backup", "apiVersion": "velero.io/v1", "metadata": {"name": "old", "namespace": "velero"},
        "spec": {"includedNamespaces": ["*"], "includedResources": null, "ttl": "720h0m0s", "hooks": {"resources": null}, "storageLocation": "default", "volumeSnapshotLocations": ["default"]},
        "status": {"version": 1, "expiration": "2099-01-01T00:00:00Z", "phase": "Completed", "startTimestamp": "2020-01-01T00:00:00Z", "completionTimestamp": "2020-01-01T00:00:01Z"}});
    fs::write(folder.join("velero-backup.json"), marker.to_string()).unwrap();
}

fn claim(namespace: &str, name: &str) -> (String, Value) {
    let path = format!("resources/persistentvolumeclaims/namespaces/{namespace}/{name}.json");
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": format!("{namespace}-{name}"), "resources": {"requests": {"storage": "1Mi"}}},
        "status": {"phase": "Bound"}});
    (path, body)
}

#[test]
fn a_velero_backup_of_format_1_0_comes_back_and_its_volumes_are_named() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("older");
    let ways = ["csi", "copied", "native"];
    let mut objects: Vec<_> = ways.iter().map(|name| claim(&namespace, name)).collect();
    let volume = format!("{namespace}-native");
    objects.push((
        format!("resources/persistentvolumes/cluster/{volume}.json"),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume, "uid": "uid-pv"},
            "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
                "hostPath": {"path": "/nowhere"}, "claimRef": {"namespace": namespace, "name": "native", "uid": "uid-native"}}}),
    ));
    objects.push((
        format!("resources/pods/namespaces/{namespace}/app.json"),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "namespace": namespace, "uid": "uid-app"},
            "spec": {"initContainers": [{"name": "restic-wait", "image": "localhost/wait", "args": ["uid"]}],
                "containers": [{"name": "app", "image": "localhost/app"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "copied"}}, {"name": "scratch", "emptyDir": {}}]},
            "status": {"phase": "Running"}}),
    ));
    objects.push((
        format!("resources/volumesnapshots.snapshot.storage.k8s.io/namespaces/{namespace}/velero-csi-x.json"),
        json!({"apiVersion": "snapshot.storage.k8s.io/v1beta1", "kind": "VolumeSnapshot", "metadata": {"name": "velero-csi-x", "namespace": namespace, "uid": "uid-vs"},
            "spec": {"source": {"persistentVolumeClaimName": "csi"}}}),
    ));
    let copy = |volume: &str, annotations: Value| {
        json!({"metadata": {"name": format!("old-{volume}"), "namespace": "velero", "annotations": annotations},
            "spec": {"node": "n1", "pod": {"kind": "Pod", "namespace": namespace, "name": "app"}, "volume": volume,
                "backupStorageLocation": "default", "repoIdentifier": "s3:store/restic/older", "uploaderType": "restic"},
            "status": {"phase": "Completed", "snapshotID": format!("r-{volume}")}})
    };
    let sides = [
        (
            "-podvolumebackups.json.gz",
            json!([
                copy("data", json!({"velero.io/pvc-name": "copied"})),
                copy("scratch", Value::Null)
            ]),
        ),
        (
            "-volumesnapshots.json.gz",
            json!([{"spec": {"backupName": "old", "location": "default", "persistentVolumeName": volume, "providerVolumeID": "vol-1", "volumeType": "gp2"},
            "status": {"providerSnapshotID": "snap-1", "phase": "Completed"}}]),
        ),
        (
            "-csi-volumesnapshots.json.gz",
            json!([{"metadata": {"name": "velero-csi-x", "namespace": namespace}, "spec": {"source": {"persistentVolumeClaimName": "csi"}}}]),
        ),
        (
            "-csi-volumesnapshotcontents.json.gz",
            json!([{"metadata": {"name": "c"}, "spec": {"driver": "disk.example.com", "volumeSnapshotRef": {"namespace": namespace, "name": "velero-csi-x"}},
            "status": {"snapshotHandle": "handle-1"}}]),
        ),
    ];
    write(&place.folder, &objects, &sides);

    let csi = "as a CSI snapshot (CSISnapshot by disk.example.com, snapshot handle-1)";
    let copied = "as a copy of its files (PodVolumeBackup by restic, snapshot r-data, in s3:store/restic/older)";
    let native =
        "as a snapshot of the storage provider (NativeSnapshot, snapshot snap-1, in default)";
    let scratch = "snapshot r-scratch";
    let shown = place.run(&["describe", "old"]).ok().stdout;
    for part in [csi, copied, native, scratch] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    place.run(&["verify", "old"]).ok();
    let run = place
        .run(&["restore", "create", "--from-backup", "old"])
        .code(3);
    for part in [
        format!("{namespace}/csi: its data is in the backup {csi}"),
        format!("{namespace}/copied: its data is in the backup {copied}"),
        format!("{namespace}/native: its data is in the backup {native}"),
        format!("{namespace}/app: the data of its volume \"scratch\""),
    ] {
        assert!(run.stderr.contains(&part), "{part}\n{}", run.stderr);
    }
    let cluster = place.cluster;
    for name in ways {
        let claim = cluster.get_raw(&format!(
            "/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"
        ));
        assert!(
            claim["spec"]["volumeName"].is_null(),
            "{name} is provisioned anew: {claim}"
        );
    }
    let pod = cluster.get_raw(&format!("/api/v1/namespaces/{namespace}/pods/app"));
    assert!(
        pod["spec"]["initContainers"].is_null(),
        "it waits for nobody: {pod}"
    );
    let volumes = cluster.kubectl(&["get", "pv", "-o", "name"]).stdout;
    assert!(
        !volumes.contains(&volume),
        "its disk is left alone: {volumes}"
    );
}
