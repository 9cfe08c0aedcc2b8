//! Restores of backups that Velero made, from its layout written by hand: format 1.0, and every way in which it saves volumes.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::super::*;
use super::fake::Fake;
use super::whole::object;
use crate::api::Phase;
use crate::layout::BackupKeys;
use crate::location::Location;

/// An archive of format 1.0: no version, and one copy of each object.
fn archive(objects: &[(&str, &str, Value)]) -> Bytes {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (number, (resource, path, rest)) in objects.iter().enumerate() {
        let (_, item) = object(resource, number as u64, path, rest.clone());
        let folder = match &item.namespace {
            Some(namespace) => format!("namespaces/{namespace}"),
            None => "cluster".to_owned(),
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(item.body.len() as u64);
        header.set_mode(0o755);
        let name = format!("resources/{resource}/{folder}/{}.json", item.name);
        tar.append_data(&mut header, name, &item.body[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap().into()
}

struct Theirs {
    location: Location,
    target: Fake,
    folder: tempfile::TempDir,
}

impl Theirs {
    async fn new(objects: &[(&str, &str, Value)]) -> Self {
        let this = Self {
            location: Location::in_memory("x"),
            target: Fake::default(),
            folder: tempfile::tempdir().unwrap(),
        };
        let marker = json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "b", "namespace": "velero", "labels": null, "annotations": null},
            "spec": {"includedNamespaces": ["*"], "excludedNamespaces": null, "includedResources": null, "hooks": {"resources": null}, "ttl": "720h0m0s"},
            "status": {"version": 1, "phase": "Completed", "expiration": null, "startTimestamp": null}});
        let store = &this.location.store;
        store
            .put(&keys().marker(), marker.to_string().into())
            .await
            .unwrap();
        store
            .put(&keys().archive(), archive(objects))
            .await
            .unwrap();
        this
    }

    async fn side(&self, key: &str, text: &[u8]) {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text).unwrap();
        let packed = packed.finish().unwrap().into();
        self.location.store.put(key, packed).await.unwrap();
    }

    async fn restore(&self) -> RestoreReport {
        let mut options = super::options(self.folder.path());
        options.backup = "b".parse().unwrap();
        let (_keep, cancel) = watch::channel(false);
        let (cluster, name) = (self.target.cluster(), "r".parse().unwrap());
        let quiet = &crate::progress::Silent;
        let mut consent = |_: &[Lack]| Ok(cancel.clone());
        restore(
            &cluster,
            &self.location,
            &name,
            &options,
            &mut consent,
            quiet,
        )
        .await
        .unwrap()
    }
}

fn keys() -> BackupKeys {
    BackupKeys::new(&"b".parse().unwrap())
}

fn claim(volume: &str, annotations: Value) -> Value {
    json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume}})
}

#[tokio::test]
async fn each_volume_whose_data_does_not_come_back_is_named_with_how_and_where_it_lies() {
    let handle = json!({"spec": {"source": {"persistentVolumeClaimName": "snapped"}}, "status": {"boundVolumeSnapshotContentName": "c"}});
    let upload =
        json!({"spec": {"sourceNamespace": "n", "sourcePVC": "uploaded", "dataMover": ""}});
    let waits = json!({"spec": {"initContainers": [{"name": "restore-wait", "args": ["u"]}], "containers": [{"name": "c"}]}});
    let theirs = Theirs::new(&[
        ("configmaps", "n/c", json!({"data": {"a": "b"}})),
        ("persistentvolumeclaims", "n/files", claim("pv-files", Value::Null)),
        ("persistentvolumeclaims", "n/listed", claim("pv-listed", Value::Null)),
        ("persistentvolumeclaims", "n/native", claim("pv-native", Value::Null)),
        ("persistentvolumeclaims", "n/noted", claim("pv-noted", json!({"velero.io/volume-snapshot-name": "s"}))),
        ("persistentvolumeclaims", "n/plain", claim("", Value::Null)),
        ("persistentvolumeclaims", "n/snapped", claim("pv-snapped", Value::Null)),
        ("persistentvolumeclaims", "n/uploaded", claim("pv-uploaded", Value::Null)),
        ("persistentvolumes", "pv-native", json!({"spec": {"persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "native"}}})),
        ("pods", "n/p", waits),
        ("volumesnapshots.snapshot.storage.k8s.io", "n/velero-x", handle),
        ("datauploads.velero.io", "velero/d", upload),
        ("deletebackuprequests.velero.io", "velero/old", json!({"spec": {"backupName": "old"}})),
    ])
    .await;
    let copies = json!([
        {"metadata": {"annotations": {"velero.io/pvc-name": "files"}}, "spec": {"pod": {"namespace": "n", "name": "p"}, "volume": "v",
            "repoIdentifier": "s3:store/restic/n", "uploaderType": "restic"}, "status": {"phase": "Completed", "snapshotID": "r1"}},
        {"spec": {"pod": {"namespace": "n", "name": "p"}, "volume": "scratch", "uploaderType": "kopia"}, "status": {"phase": "Completed", "snapshotID": "k1"}}]);
    let natives = json!([{"spec": {"location": "eu", "persistentVolumeName": "pv-native"}, "status": {"providerSnapshotID": "snap-2", "phase": "Completed"}}]);
    let snapshots = json!([{"metadata": {"name": "s", "namespace": "n"}, "spec": {"source": {"persistentVolumeClaimName": "listed"}}}]);
    for (key, list) in [
        (keys().pod_volume_backups(), copies),
        (keys().volume_snapshots(), natives),
        (keys().csi_volume_snapshots(), snapshots),
        (keys().volume_info(), Value::Null),
    ] {
        theirs.side(&key, list.to_string().as_bytes()).await;
    }
    let report = theirs.restore().await;
    assert_eq!(report.restore.status.phase, Phase::PartiallyFailed);
    let told = report.errors.join("\n");
    for part in [
        "n/files: its data is in the backup as a copy of its files (PodVolumeBackup by restic, snapshot r1, in s3:store/restic/n), from which Velero",
        "n/listed: its data is in the backup as a CSI snapshot (CSISnapshot)",
        "n/native: its data is in the backup as a snapshot of the storage provider (NativeSnapshot, snapshot snap-2, in eu)",
        "n/noted: its data is in the backup as a CSI snapshot (CSISnapshot)",
        "n/snapped: its data is in the backup as a CSI snapshot (CSISnapshot)",
        "n/uploaded: its data is in the backup as a snapshot that was moved (DataUpload)",
        "n/p: the data of its volume \"scratch\" is in the backup as a copy of its files (PodVolumeBackup by kopia, snapshot k1)",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert_eq!(report.errors.len(), 7, "{told}");
    let get = |path: &str| theirs.target.get(&format!("/api/v1/{path}"));
    assert_eq!(get("namespaces/n/configmaps/c")["data"]["a"], "b");
    assert!(!get("namespaces/n/persistentvolumeclaims/plain").is_null());
    let pod = get("namespaces/n/pods/p");
    assert_eq!(
        pod["spec"]["initContainers"],
        json!([]),
        "it waits for nobody"
    );
    assert!(
        get("persistentvolumes/pv-native").is_null(),
        "its disk is another's"
    );
    let asked = theirs.target.0.lock().unwrap().asked.clone();
    assert!(
        !asked
            .iter()
            .any(|line| line.starts_with("POST") && line.contains("velero.io")),
        "nothing that Velero would carry out anew is made"
    );
}

#[tokio::test]
async fn side_files_that_can_not_be_read_are_named_and_the_objects_come_back() {
    let theirs = Theirs::new(&[
        ("configmaps", "n/c", json!({"data": {}})),
        ("persistentvolumeclaims", "n/d", claim("pv", Value::Null)),
    ])
    .await;
    theirs
        .side(&keys().volume_info(), br#"{"pvcName": []}"#)
        .await;
    theirs
        .side(&keys().pod_volume_backups(), "[".repeat(100_000).as_bytes())
        .await;
    let report = theirs.restore().await;
    assert_eq!(report.counts[0], 3, "{:?}", report.errors);
    assert_eq!(report.errors.len(), 2, "{:?}", report.errors);
    for (error, file) in report
        .errors
        .iter()
        .zip(["b-volumeinfo.json.gz", "b-podvolumebackups.json.gz"])
    {
        assert!(error.contains(file), "{error}");
    }
}
