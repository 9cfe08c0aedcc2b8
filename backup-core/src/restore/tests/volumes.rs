//! Volumes whose data is in the backup and does not come back.

use std::sync::Arc;

use serde_json::json;

use super::super::*;
use super::whole::{Saved, object};
use crate::api::Phase;
use crate::archive::pack::Item;
use crate::discovery::ApiResource;
use crate::layout::BackupKeys;

fn claim(number: u64, name: &str, volume: &str) -> (Arc<ApiResource>, Item) {
    let rest = json!({"spec": {"volumeName": volume}});
    object("persistentvolumeclaims", number, &format!("n/{name}"), rest)
}

fn volume(number: u64, name: &str, claim: &str, policy: &str) -> (Arc<ApiResource>, Item) {
    let rest = json!({"spec": {"persistentVolumeReclaimPolicy": policy, "csi": {"volumeHandle": "disk"},
        "claimRef": {"namespace": "n", "name": claim, "uid": "old"}}});
    object("persistentvolumes", number, name, rest)
}

#[tokio::test]
async fn data_of_volumes_that_does_not_come_back_is_an_error_and_its_disks_are_left_alone() {
    let saved = Saved::new(&[
        claim(1, "native", "pv-native"),
        claim(2, "files", "pv-files"),
        claim(3, "none", "pv-none"),
        claim(4, "plain", "pv-plain"),
        volume(11, "pv-native", "native", "Retain"),
        volume(12, "pv-files", "files", "Retain"),
        volume(13, "pv-none", "none", "Delete"),
        volume(14, "pv-plain", "plain", "Retain"),
        object("pods", 5, "n/p", json!({})),
    ])
    .await;
    let keys = BackupKeys::new(&"b".parse().unwrap());
    saved
        .side(&keys.volume_info(), json!([
            {"pvcName": "native", "pvcNamespace": "n", "pvName": "pv-native", "backupMethod": "NativeSnapshot", "result": "succeeded"},
            {"pvcName": "none", "pvcNamespace": "n", "pvName": "pv-none", "skipped": true}]))
        .await;
    saved
        .side(&keys.pod_volume_backups(), json!([
            {"metadata": {"annotations": {"velero.io/pvc-name": "files"}}, "spec": {"pod": {"namespace": "n", "name": "p"}, "volume": "v"},
             "status": {"phase": "Completed", "snapshotID": "s"}},
            {"metadata": {}, "spec": {"pod": {"namespace": "n", "name": "p"}, "volume": "scratch"}, "status": {"phase": "Completed", "snapshotID": "s"}}]))
        .await;
    let report = saved.restore(|_| {}).await.unwrap();
    assert_eq!(report.restore.status.phase, Phase::PartiallyFailed);
    let errors = report.errors.join("\n");
    assert_eq!(report.errors.len(), 3, "{errors}");
    for part in [
        "n/native: its data is in the backup as a snapshot",
        "n/files: its data is in the backup as a copy",
        "n/p: the data of its volume \"scratch\"",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    for (volume, stands) in [
        ("pv-native", false),
        ("pv-files", false),
        ("pv-none", false),
        ("pv-plain", true),
    ] {
        let made = saved
            .target
            .get(&format!("/api/v1/persistentvolumes/{volume}"));
        assert_eq!(!made.is_null(), stands, "{volume}");
    }
    let native = saved
        .target
        .get("/api/v1/namespaces/n/persistentvolumeclaims/native");
    assert!(
        native["spec"]["volumeName"].is_null(),
        "it is provisioned anew"
    );
    let lost = saved
        .target
        .get("/api/v1/namespaces/n/persistentvolumeclaims/plain");
    assert_eq!(lost["spec"]["volumeName"], "pv-plain");
    // Again: what this restore made before is as empty as it was.
    assert_eq!(saved.restore(|_| {}).await.unwrap().errors.len(), 3);
}

#[tokio::test]
async fn who_wants_no_data_of_volumes_gets_no_error() {
    let saved = Saved::new(&[claim(1, "moved", "pv")]).await;
    let keys = BackupKeys::new(&"b".parse().unwrap());
    saved
        .side(&keys.volume_info(), json!([{"pvcName": "moved", "pvcNamespace": "n", "backupMethod": "CSISnapshot", "snapshotDataMoved": true}]))
        .await;
    let report = saved
        .restore(|o| o.restore_volumes = Some(false))
        .await
        .unwrap();
    assert_eq!(
        report.restore.status.phase,
        Phase::Completed,
        "{:?}",
        report.errors
    );
    saved
        .location
        .store
        .put(&keys.volume_info(), "no gzip".into())
        .await
        .unwrap();
    saved.target.0.lock().unwrap().objects.clear();
    let mut options = saved.options();
    options.backup = "b".parse().unwrap();
    let (_keep, cancel) = watch::channel(false);
    let name = "other".parse().unwrap();
    let report = restore(
        &saved.target.cluster(),
        &saved.location,
        &name,
        &options,
        &mut |_| Ok(cancel.clone()),
        &crate::progress::Silent,
    )
    .await;
    let report = report.unwrap();
    assert!(
        report.errors[0].contains("can not be told"),
        "{:?}",
        report.errors
    );
}

#[tokio::test]
async fn who_restores_no_volume_needs_no_answer_about_those_of_the_target() {
    for (policy, is_asked) in [("Delete", false), ("Retain", true)] {
        let saved = Saved::new(&[claim(1, "c", "pv"), volume(11, "pv", "c", policy)]).await;
        saved.target.refuses("GET", "/persistentvolumes", 400);
        let restored = saved.restore(|_| {}).await;
        assert_eq!(restored.is_err(), is_asked, "{policy}: {restored:?}");
    }
}

#[tokio::test]
async fn a_claim_without_a_class_whose_volume_is_not_made_is_told_to_wait() {
    for (class, waits) in [("", true), ("fast", false)] {
        let spec = json!({"spec": {"volumeName": "pv", "storageClassName": class}});
        let saved = Saved::new(&[
            object("persistentvolumeclaims", 1, "n/c", spec),
            volume(11, "pv", "c", "Delete"),
        ])
        .await;
        let report = saved.restore(|_| {}).await.unwrap();
        let told = report.warnings.join("\n");
        let is_told = told.contains("n/c: it names no class");
        assert_eq!(is_told, waits, "{told}");
    }
}
