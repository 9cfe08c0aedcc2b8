//! What a backup tells Velero of its volumes: `volumeinfo.json` and `podvolumebackups.json`, as Velero writes them. Our own reader goes by the rows that these are made
//! of. Pure.
//!
//! A copy of ours has an empty `snapshotID` there: Velero then neither waits for data in a pod, nor looks for it in a repository of its own, nor forgets it
//! there, and makes the claim anew, which stays empty.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::volumes::Volume;
use crate::api::API_VERSION;
use crate::location::sha256;
use crate::name::label_value;
use crate::records::copies::{Copies, CsiSnapshot, FileCopy, Outcome, Pod, Row, Saved};

/// One of the words that Velero's CRD takes; nothing of ours is read with it.
const UPLOADER: &str = "kopia";

/// An entry of `<name>-volumeinfo.json.gz`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VolumeInfo {
    pvc_name: String,
    pvc_namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pv_name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    backup_method: &'static str,
    snapshot_data_moved: bool,
    preserve_local_snapshot: bool,
    skipped: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    skipped_reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "str::is_empty")]
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    csi_snapshot_info: Option<SnapshotInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pvb_info: Option<PodInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pv_info: Option<Volume>,
}

/// Its part about a snapshot. The VolumeSnapshotContent that it names does not exist any more.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotInfo {
    snapshot_handle: String,
    size: u64,
    driver: String,
    vsc_name: String,
}

/// Its part about the pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodInfo {
    size: u64,
    incremental_size: u64,
    uploader_type: &'static str,
    volume_name: String,
    pod_name: String,
    pod_namespace: String,
    node_name: String,
    #[serde(rename = "Phase")]
    phase: &'static str,
}

/// An entry for every claim.
pub(super) fn infos(rows: &[Row], volumes: &BTreeMap<String, Volume>) -> Vec<VolumeInfo> {
    let info = |row: &Row| {
        let entry = VolumeInfo {
            pvc_name: row.claim.clone(),
            pvc_namespace: row.namespace.clone(),
            pv_name: row.volume.clone(),
            pv_info: volumes.get(&row.volume).cloned(),
            ..VolumeInfo::default()
        };
        match &row.outcome {
            Outcome::Saved(saved) => saved_info(row, saved, entry),
            Outcome::Snapshot(snapshot) => snapshot_info(row, snapshot, entry),
            Outcome::Failed(why)
            | Outcome::LeftOut(why)
            | Outcome::NotAsked(why)
            | Outcome::Nothing(why)
            | Outcome::NotUnderstood(why) => VolumeInfo {
                skipped: true,
                skipped_reason: why.clone(),
                ..entry
            },
        }
    };
    rows.iter().map(info).collect()
}

fn saved_info(row: &Row, saved: &Saved, entry: VolumeInfo) -> VolumeInfo {
    let copy = &saved.copy;
    VolumeInfo {
        backup_method: "PodVolumeBackup",
        start_timestamp: Some(whole(copy.began)),
        completion_timestamp: Some(whole(copy.ended)),
        result: "succeeded",
        pvb_info: saved.pod.as_ref().map(|pod| PodInfo {
            size: copy.bytes,
            incremental_size: copy.added,
            uploader_type: UPLOADER,
            volume_name: pod.volume.clone(),
            pod_name: pod.name.clone(),
            pod_namespace: pod.namespace.clone(),
            node_name: saved.node.clone().unwrap_or_default(),
            phase: "Completed",
        }),
        // At the end of a restore Velero takes for granted that such a claim names a class.
        pv_info: entry.pv_info.filter(|_| !row.storage_class.is_empty()),
        ..entry
    }
}

fn snapshot_info(row: &Row, snapshot: &CsiSnapshot, entry: VolumeInfo) -> VolumeInfo {
    VolumeInfo {
        backup_method: "CSISnapshot",
        start_timestamp: Some(whole(snapshot.began)),
        completion_timestamp: Some(whole(snapshot.ended)),
        result: "succeeded",
        csi_snapshot_info: Some(SnapshotInfo {
            snapshot_handle: snapshot.handle.clone(),
            size: snapshot.size,
            driver: snapshot.driver.clone(),
            vsc_name: String::new(),
        }),
        pv_info: entry.pv_info.filter(|_| !row.storage_class.is_empty()),
        ..entry
    }
}

/// A PodVolumeBackup for each copied claim that a pod used.
pub(super) fn pod_volume_backups(backup: &str, location: &str, copies: &Copies) -> Vec<Value> {
    let of = |row: &Row| {
        let saved = row.saved()?;
        let pod = saved.pod.as_ref()?;
        Some(pod_volume_backup(backup, location, copies, row, saved, pod))
    };
    copies.rows.iter().filter_map(of).collect()
}

fn pod_volume_backup(
    backup: &str,
    location: &str,
    copies: &Copies,
    row: &Row,
    saved: &Saved,
    pod: &Pod,
) -> Value {
    let FileCopy {
        began,
        ended,
        bytes,
        added,
        ..
    } = saved.copy;
    let uid = &copies.backup_uid;
    // Unique, and the same whoever writes it again.
    let random = sha256(format!("{} {}", copies.run, row.name()).as_bytes());
    let random: String = random.chars().take(10).collect();
    let place = copies.place(row).map(|keys| keys.repository());
    json!({
        "apiVersion": API_VERSION,
        "kind": "PodVolumeBackup",
        "metadata": {
            "name": format!("{backup}-{random}"),
            "generateName": format!("{backup}-"),
            "namespace": "velero",
            "creationTimestamp": whole(began),
            "labels": {
                "velero.io/backup-name": label_value(backup),
                "velero.io/backup-uid": uid,
                "velero.io/pvc-uid": row.uid,
            },
            "annotations": {"velero.io/pvc-name": row.claim},
            // Velero puts the uid of its own object in the place of this one.
            "ownerReferences": [{"apiVersion": API_VERSION, "kind": "Backup", "name": backup, "uid": uid, "controller": true}],
        },
        "spec": {
            "node": saved.node.clone().unwrap_or_default(),
            "pod": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
            "volume": pod.volume,
            "tags": {
                "backup": backup, "backup-uid": uid, "ns": pod.namespace, "pod": pod.name, "pod-uid": pod.uid,
                "volume": pod.volume, "pvc-uid": row.uid,
            },
            "backupStorageLocation": location,
            "repoIdentifier": "",
            "uploaderType": UPLOADER,
        },
        "status": {
            // Any other phase would be work for a node agent.
            "phase": "Completed",
            "message": format!(
                "kubectl-backup holds the data, in {}: Velero makes this volume anew and empty",
                place.unwrap_or_default()
            ),
            "startTimestamp": whole(began),
            "completionTimestamp": whole(ended),
            "progress": {"totalBytes": bytes, "bytesDone": bytes},
            "incrementalBytes": added,
        },
    })
}

/// In whole seconds, as Velero's objects have them.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(pod: Option<Pod>) -> Outcome {
        Outcome::Saved(Box::new(Saved {
            hooks: None,
            pod,
            node: Some("n1".into()),
            copy: FileCopy {
                repository: 1,
                snapshot: "a".repeat(64),
                run: "r".into(),
                began: "2026-11-30T10:00:00.75Z".parse().unwrap(),
                ended: "2026-11-30T10:00:09Z".parse().unwrap(),
                entries: 3,
                files: 2,
                bytes: 1 << 20,
                added: 512,
                ..FileCopy::default()
            },
        }))
    }

    fn snapshot() -> CsiSnapshot {
        CsiSnapshot {
            hooks: None,
            driver: "d.io".into(),
            handle: "snap-1".into(),
            size: 5,
            class: "fast".into(),
            run: "0123".into(),
            began: "2026-11-30T10:00:00Z".parse().unwrap(),
            cut: "2026-11-30T10:00:01Z".parse().unwrap(),
            ended: "2026-11-30T10:00:02Z".parse().unwrap(),
        }
    }

    fn row(claim: &str, class: &str, outcome: Outcome) -> Row {
        Row {
            namespace: "shop".into(),
            claim: claim.into(),
            uid: format!("uid-{claim}"),
            volume: "disk".into(),
            volume_mode: String::new(),
            storage_class: class.into(),
            driver: String::new(),
            request: String::new(),
            capacity: String::new(),
            access_modes: Vec::new(),
            outcome,
        }
    }

    fn copies() -> Copies {
        let pod = Pod {
            namespace: "shop".into(),
            name: "db".into(),
            uid: "uid-pod".into(),
            volume: "v".into(),
        };
        Copies {
            cluster: Some("c".into()),
            backup_uid: "uid-backup".into(),
            run: "0123".into(),
            rows: vec![
                row("data", "late", saved(Some(pod.clone()))),
                row("b", "", saved(Some(pod))),
                row("c", "late", saved(None)),
                row("d", "late", Outcome::Failed("no node".into())),
                row("e", "late", Outcome::Nothing("not bound".into())),
                row("f", "late", Outcome::Snapshot(Box::new(snapshot()))),
            ],
        }
    }

    /// What a story gives to the real Velero.
    fn given() -> Value {
        let text = include_str!("../../../tests/fixtures/copy-for-velero.json");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn velero_is_told_of_a_copy_that_it_has_nothing_to_do_with() {
        let all = pod_volume_backups("ours", "main", &copies());
        assert_eq!(all.len(), 2);
        assert_ne!(all[0]["metadata"]["name"], all[1]["metadata"]["name"]);
        assert_eq!(all[0], given()["podvolumebackups"][0]);
        assert_eq!(all[0]["status"]["snapshotID"], Value::Null);
        let long = "b".repeat(100);
        let label = &pod_volume_backups(&long, "main", &copies())[0]["metadata"]["labels"]["velero.io/backup-name"];
        assert_eq!(label.as_str().unwrap().len(), 63);
    }

    #[test]
    fn a_claim_whose_files_are_copied_is_made_anew_by_velero_and_any_other_is_skipped() {
        let volume = super::super::volumes::volume(
            "disk",
            r#"{"metadata":{"labels":null},"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#,
            false,
        );
        let volumes = volume.into_iter().collect();
        let infos = serde_json::to_value(infos(&copies().rows, &volumes)).unwrap();
        assert_eq!(infos[0], given()["volumeinfo"][0]);
        assert_eq!(infos[1]["pvInfo"], Value::Null);
        assert_eq!(infos[2]["backupMethod"], "PodVolumeBackup");
        assert_eq!(infos[2]["pvbInfo"], Value::Null);
        assert_eq!(
            infos[3],
            json!({"pvcName": "d", "pvcNamespace": "shop", "pvName": "disk", "snapshotDataMoved": false, "preserveLocalSnapshot": false,
                "skipped": true, "skippedReason": "no node", "pvInfo": {"reclaimPolicy": "Retain", "labels": {}}})
        );
        assert_eq!(infos[4]["skippedReason"], "not bound");
        assert_eq!(
            infos[5],
            json!({"pvcName": "f", "pvcNamespace": "shop", "pvName": "disk", "backupMethod": "CSISnapshot", "snapshotDataMoved": false,
                "preserveLocalSnapshot": false, "skipped": false, "startTimestamp": "2026-11-30T10:00:00Z",
                "completionTimestamp": "2026-11-30T10:00:02Z", "result": "succeeded",
                "csiSnapshotInfo": {"snapshotHandle": "snap-1", "size": 5, "driver": "d.io", "vscName": ""},
                "pvInfo": {"reclaimPolicy": "Retain", "labels": {}}})
        );
    }
}
