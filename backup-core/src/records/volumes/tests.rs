use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::*;

fn gz(text: &[u8]) -> bytes::Bytes {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text).unwrap();
    packed.finish().unwrap().into()
}

fn name() -> Name {
    "b".parse().unwrap()
}

fn keys() -> BackupKeys {
    BackupKeys::new(&name())
}

async fn of(files: &[(String, Value)]) -> Volumes {
    let store = Store::in_memory();
    for (key, list) in files {
        store
            .put(key, gz(list.to_string().as_bytes()))
            .await
            .unwrap();
    }
    volumes(&store, &name()).await.unwrap()
}

/// As Velero 1.18 writes it, one of each way.
fn infos() -> Value {
    json!([
        {"pvcName": "csi", "pvcNamespace": "n", "pvName": "pv-csi", "backupMethod": "CSISnapshot", "snapshotDataMoved": false,
         "preserveLocalSnapshot": true, "skipped": false, "startTimestamp": "2026-01-01T00:00:00Z", "result": "succeeded",
         "csiSnapshotInfo": {"snapshotHandle": "snap-1", "size": 1024, "driver": "ebs.csi.aws.com", "vscName": "c", "ReadyToUse": true},
         "pvInfo": {"reclaimPolicy": "Delete", "labels": null}},
        {"pvcName": "moved", "pvcNamespace": "n", "pvName": "pv-moved", "backupMethod": "CSISnapshot", "snapshotDataMoved": true,
         "preserveLocalSnapshot": false, "skipped": false, "result": "succeeded",
         "snapshotDataMovementInfo": {"dataMover": "velero", "uploaderType": "kopia", "snapshotHandle": "k1", "operationID": "du-1", "size": 5, "Phase": "Completed"}},
        {"pvcName": "files", "pvcNamespace": "n", "pvName": "pv-files", "backupMethod": "PodVolumeBackup", "snapshotDataMoved": false,
         "preserveLocalSnapshot": false, "skipped": false, "result": "succeeded",
         "pvbInfo": {"snapshotHandle": "k2", "size": 7, "uploaderType": "kopia", "volumeName": "v", "podName": "p", "podNamespace": "n", "nodeName": "x", "Phase": "Completed"}},
        {"pvcName": "native", "pvcNamespace": "n", "pvName": "pv-native", "backupMethod": "NativeSnapshot", "snapshotDataMoved": false,
         "preserveLocalSnapshot": false, "skipped": false, "result": "succeeded",
         "nativeSnapshotInfo": {"snapshotHandle": "snap-2", "volumeType": "gp3", "volumeAZ": "eu-1a", "iops": "0", "Phase": "Completed"}},
        {"pvcName": "left", "pvcNamespace": "n", "pvName": "pv-left", "snapshotDataMoved": false, "preserveLocalSnapshot": false,
         "skipped": true, "skippedReason": "skipped due to policy"}
    ])
}

#[tokio::test]
async fn every_way_of_saving_is_told_with_what_and_where() {
    let all = of(&[(keys().volume_info(), infos())]).await;
    let told: Vec<_> = all.list.iter().map(|v| (v.data(), v.how())).collect();
    let saved = |how: &str| (Data::Saved, how.to_owned());
    assert_eq!(
        told[..4],
        [
            saved("as a CSI snapshot (CSISnapshot by ebs.csi.aws.com, snapshot snap-1)"),
            saved("as a snapshot that was moved (DataUpload by kopia, snapshot k1)"),
            saved("as a copy of its files (PodVolumeBackup by kopia, snapshot k2)"),
            saved(
                "as a snapshot of the storage provider (NativeSnapshot, snapshot snap-2, in eu-1a)"
            ),
        ]
    );
    assert_eq!(told[4].0, Data::LeftOut);
    assert!(all.unread.is_empty(), "{:?}", all.unread);
}

#[tokio::test]
async fn older_lists_tell_the_same_and_no_volume_twice() {
    let copies = json!([
        {"metadata": {"name": "b-1", "namespace": "velero", "annotations": {"velero.io/pvc-name": "files"}},
         "spec": {"pod": {"kind": "Pod", "namespace": "n", "name": "p", "uid": "u"}, "volume": "v", "repoIdentifier": "s3:x/restic/n", "uploaderType": "restic"},
         "status": {"phase": "Completed", "snapshotID": "r1", "progress": {}}},
        {"metadata": {"name": "b-2", "annotations": null}, "spec": {"pod": {"namespace": "n", "name": "p"}, "volume": "scratch"},
         "status": {"phase": "Completed"}},
        {"metadata": {"name": "b-3"}, "spec": {"pod": {"namespace": "n", "name": "q"}, "volume": "w"}, "status": {"phase": "Canceled"}}]);
    let natives = json!([{"spec": {"backupName": "b", "location": "default", "persistentVolumeName": "pv-native", "providerVolumeID": "vol-1", "volumeType": "gp2", "volumeIOPS": null},
        "status": {"providerSnapshotID": "snap-2", "phase": "Completed"}}]);
    let snapshots = json!([{"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": "velero-csi-x", "namespace": "n"}, "spec": {"source": {"persistentVolumeClaimName": "csi"}},
        "status": {"boundVolumeSnapshotContentName": "content"}}]);
    let contents = json!([{"metadata": {"name": "content"}, "spec": {"driver": "ebs.csi.aws.com", "deletionPolicy": "Retain",
        "volumeSnapshotRef": {"namespace": "n", "name": "velero-csi-x"}, "source": {"volumeHandle": "vol-2"}}, "status": {"snapshotHandle": "snap-1"}}]);
    let lists = [
        (keys().pod_volume_backups(), copies),
        (keys().volume_snapshots(), natives),
        (keys().csi_volume_snapshots(), snapshots),
        (keys().csi_volume_snapshot_contents(), contents),
    ];
    let all = of(&lists).await.list;
    let told: Vec<_> = all.iter().map(|v| (v.data(), v.how())).collect();
    assert_eq!(
        told,
        [
            (
                Data::Saved,
                "as a copy of its files (PodVolumeBackup by restic, snapshot r1, in s3:x/restic/n)".to_owned()
            ),
            (Data::Empty, "as a copy of its files (PodVolumeBackup)".to_owned()),
            (Data::Failed, "as a copy of its files (PodVolumeBackup)".to_owned()),
            (
                Data::Saved,
                "as a snapshot of the storage provider (NativeSnapshot, snapshot snap-2, in default)".to_owned()
            ),
            (
                Data::Saved,
                "as a CSI snapshot (CSISnapshot by ebs.csi.aws.com, snapshot snap-1)".to_owned()
            ),
        ]
    );
    assert_eq!(
        (all[0].pvc_namespace.as_str(), all[0].pvc_name.as_str()),
        ("n", "files")
    );
    assert_eq!(all[1].pod_name, "p");

    let mut both = lists.to_vec();
    both.push((keys().volume_info(), infos()));
    let both = of(&both).await.list;
    // Two of the copies alone are of volumes that the first file does not have.
    assert_eq!(both.len(), 7, "{both:#?}");
    assert_eq!(both[2].saved_in, "s3:x/restic/n");
    assert_eq!(both[3].saved_in, "eu-1a");
}

#[tokio::test]
async fn hostile_files_are_named_and_take_nothing_with_them() {
    let good = gz(infos().to_string().as_bytes());
    let bomb = gz(&vec![b' '; (LARGEST + 1) as usize]);
    let many = gz(format!("[{}{{}}]", "{},".repeat(bounded::MOST)).as_bytes());
    let deep = gz("[".repeat(100_000).as_bytes());
    for (what, bad) in [
        ("no gzip", bytes::Bytes::from_static(b"[]")),
        ("no list", gz(br#"{"a": 1}"#)),
        ("another type", gz(br#"[{"spec": {"pod": 7}}]"#)),
        ("a number", gz(b"[1]")),
        ("cut", gz(br#"[{"spec":"#)),
        ("a bomb", bomb),
        ("many", many),
        ("deep", deep),
    ] {
        let store = Store::in_memory();
        store
            .put(&keys().volume_info(), good.clone())
            .await
            .unwrap();
        store.put(&keys().pod_volume_backups(), bad).await.unwrap();
        let all = volumes(&store, &name()).await.unwrap();
        assert_eq!(all.list.len(), 5, "{what}");
        assert_eq!(all.unread.len(), 1, "{what}");
        assert!(
            all.unread[0].contains("b-podvolumebackups.json.gz"),
            "{what}: {:?}",
            all.unread
        );
    }
    let words = json!([{"pvcName": "x", "pvcNamespace": "n", "backupMethod": "Wonder\u{1b}[31m", "unknown": [1]},
        {"pvcName": "y", "pvcNamespace": "n", "backupMethod": "CSISnapshot", "csiSnapshotInfo": {"driver": "d\u{7}".repeat(500)}}]);
    let all = of(&[
        (keys().volume_info(), words),
        (keys().pod_volume_backups(), Value::Null),
    ])
    .await;
    assert!(all.unread.is_empty(), "{:?}", all.unread);
    assert_eq!(all.list[0].how(), "by the method \"Wonder[31m\"");
    assert_eq!(all.list[1].saved_by.len(), LONGEST);
}

#[tokio::test]
async fn our_own_rows_are_believed_and_nothing_takes_their_place() {
    let digest = "a".repeat(64);
    let own = json!({"format": "kubectl-backup/volumes/1", "needs": [], "cluster": "c", "volumes": [
        {"namespace": "n", "claim": "files", "claimUid": "u", "volume": "pv-files", "result": "saved", "hooks": "done", "node": "n1",
         "pod": {"namespace": "n", "name": "p", "volume": "v"},
         "data": [{"method": "files", "source": "live", "repository": 2, "snapshot": digest, "began": "2026-11-30T10:00:00Z", "ended": "2026-11-30T10:00:01Z",
                   "files": 3, "bytes": 10}]},
        {"namespace": "n", "claim": "lost", "result": "failed", "why": "no node"},
        {"namespace": "n", "claim": "left", "result": "leftOut", "why": "skipped"}]});
    let store = Store::in_memory();
    let infos = gz(infos().to_string().as_bytes());
    store.put(&keys().volume_info(), infos).await.unwrap();
    let put = |text: String| store.put("backups/b/volumes.json", text.into());
    put(own.to_string()).await.unwrap();
    let all = volumes(&store, &name()).await.unwrap().list;
    let told: Vec<_> = all.iter().map(|v| (v.data(), v.name(), v.how())).collect();
    let of = |data, name: &str, how: String| (data, name.to_owned(), how);
    let files = "as a copy of its files";
    let by = format!(
        "{files} (PodVolumeBackup by kubectl-backup, snapshot {digest}, in restic/c/n/u.2/)"
    );
    assert_eq!(
        told,
        [
            of(Data::Saved, "n/files", by),
            of(Data::Failed, "n/lost", files.to_owned()),
            of(Data::LeftOut, "n/left", files.to_owned()),
        ]
    );
    let shown = serde_json::to_value(&all[0]).unwrap();
    assert_eq!(shown["copy"]["hooks"], "done");
    assert_eq!(
        (&shown["copy"]["files"], &shown["copy"]["repository"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(all[1].skipped_reason, "no node");
    for bad in ["{", r#"{"format":"kubectl-backup/volumes/2","volumes":[]}"#] {
        put(bad.to_owned()).await.unwrap();
        let all = volumes(&store, &name()).await.unwrap();
        assert!(all.list.is_empty());
        assert!(
            all.unread[0].contains("backups/b/volumes.json"),
            "{:?}",
            all.unread
        );
    }
}
