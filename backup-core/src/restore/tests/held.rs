//! Claims whose data the backup says to have.

use std::sync::Arc;

use serde_json::{Value, json};

use super::whole::{Saved, object, uid};
use crate::api::Phase;
use crate::archive::pack::Item;
use crate::discovery::ApiResource;
use crate::layout::BackupKeys;

fn claim(number: u64, name: &str) -> (Arc<ApiResource>, Item) {
    let rest = json!({"spec": {"volumeName": format!("pv-{name}"), "resources": {"requests": {"storage": "1Gi"}}}});
    object("persistentvolumeclaims", number, &format!("n/{name}"), rest)
}

fn pod(number: u64, name: &str, claim: &str) -> (Arc<ApiResource>, Item) {
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
    object(
        "pods",
        number,
        &format!("n/{name}"),
        json!({"spec": {"volumes": [volume]}}),
    )
}

fn row(claim: &str, uid: &str, more: &Value) -> Value {
    let mut row = json!({
        "namespace": "n", "claim": claim, "claimUid": uid, "volume": format!("pv-{claim}"), "volumeMode": "Filesystem",
        "capacity": "1Gi", "accessModes": ["ReadWriteOnce"], "result": "saved", "hooks": "none",
        "data": [{"method": "files", "source": "live", "repository": 1, "snapshot": "5".repeat(64), "run": "r",
            "began": "2026-11-30T10:00:00Z", "ended": "2026-11-30T10:00:01Z", "entries": 1, "files": 0, "bytes": 0, "added": 0,
            "changed": 0, "vanished": 0}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        row[key] = value.clone();
    }
    row
}

async fn saved() -> Saved {
    saved_with(&Value::Null).await
}

/// The first row with that besides.
async fn saved_with(more: &Value) -> Saved {
    let saved = Saved::new(&[
        claim(1, "data"),
        claim(2, "swapped"),
        claim(3, "plain"),
        object(
            "persistentvolumes",
            11,
            "pv-data",
            json!({"spec": {"persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "data", "uid": uid(1)}}}),
        ),
        pod(21, "p", "data"),
        pod(22, "q", "plain"),
    ])
    .await;
    let keys = BackupKeys::new(&"b".parse().unwrap());
    let rows = json!({
        "format": "kubectl-backup/volumes/1", "needs": [], "cluster": "c-uid", "backupUid": "b-uid", "run": "r",
        "volumes": [
            row("data", &uid(1), more),
            row("swapped", &uid(9), &Value::Null),
            {"namespace": "n", "claim": "plain", "claimUid": uid(3), "volume": "pv-plain", "result": "notAsked", "why": "nobody asks"},
        ],
    });
    let store = &saved.location.store;
    store
        .put(&keys.volumes(), rows.to_string().into())
        .await
        .unwrap();
    saved
}

#[tokio::test]
async fn a_claim_whose_snapshot_is_not_there_is_not_made_and_neither_is_what_uses_it() {
    let saved = saved().await;
    let report = saved.restore(|_| {}).await.unwrap();
    assert_eq!(report.restore.status.phase, Phase::PartiallyFailed);
    let errors = report.errors.join("\n");
    for part in [
        "n/data: it was not made, for its data can not come back: neither restic/c-uid/n",
        "n/swapped: it was not made",
        "one with uid aaaaaaaa-0000-0000-0000-000000000002",
        "v1/Pod n/p: it uses claim n/data",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(report.errors.len(), 3, "{errors}");
    for (path, stands) in [
        ("namespaces/n/persistentvolumeclaims/data", false),
        ("namespaces/n/persistentvolumeclaims/swapped", false),
        ("namespaces/n/persistentvolumeclaims/plain", true),
        ("namespaces/n/pods/p", false),
        ("namespaces/n/pods/q", true),
        ("persistentvolumes/pv-data", false),
    ] {
        let made = saved.target.get(&format!("/api/v1/{path}"));
        assert_eq!(!made.is_null(), stands, "{path}");
    }
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning.contains("the data of claim n/data can not come back"))
    );
}

#[tokio::test]
async fn a_claim_that_stands_keeps_its_data_and_hinders_nobody() {
    let saved = saved().await;
    let stands = json!({"metadata": {"name": "data", "namespace": "n", "uid": "mine"}, "spec": {}});
    let path = "/api/v1/namespaces/n/persistentvolumeclaims/data";
    saved.target.put(
        "/api/v1/namespaces/n",
        json!({"metadata": {"name": "n", "uid": "n-uid"}}),
    );
    saved.target.put(path, stands);
    let report = saved.restore(|_| {}).await.unwrap();
    let errors = report.errors.join("\n");
    assert!(errors.contains("claim n/data stands"), "{errors}");
    assert!(!errors.contains("n/p"), "{errors}");
    assert!(!saved.target.get("/api/v1/namespaces/n/pods/p").is_null());
    assert_eq!(saved.target.get(path)["metadata"]["uid"], "mine");
}

#[tokio::test]
async fn who_wants_no_data_gets_claims_that_are_empty() {
    let saved = saved().await;
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
    let claim = saved
        .target
        .get("/api/v1/namespaces/n/persistentvolumeclaims/data");
    assert!(claim["spec"]["volumeName"].is_null(), "{claim}");
    assert!(!saved.target.get("/api/v1/namespaces/n/pods/p").is_null());
    assert!(
        saved
            .target
            .get("/api/v1/persistentvolumes/pv-data")
            .is_null()
    );
}

#[tokio::test]
async fn the_disk_of_a_claim_whose_list_can_not_be_read_is_left_alone() {
    let volume = "/api/v1/persistentvolumes/pv-data";
    let saved = saved().await;
    let keys = BackupKeys::new(&"b".parse().unwrap());
    let store = &saved.location.store;
    store.put(&keys.volumes(), "no list".into()).await.unwrap();
    let info = json!([{"pvcName": "swapped", "pvcNamespace": "n", "pvName": "pv-swapped", "backupMethod": "PodVolumeBackup", "result": "succeeded", "snapshotHandle": "s"}]);
    saved.side(&keys.volume_info(), info).await;
    let report = saved
        .restore(|o| o.restore_volumes = Some(false))
        .await
        .unwrap();
    assert!(saved.target.get(volume).is_null());
    assert_eq!(report.restore.status.phase, Phase::Completed);
    let warnings = report.warnings.join("\n");
    assert!(warnings.contains("volumes.json"), "{warnings}");
}

#[tokio::test]
async fn a_claim_whose_copy_failed_gets_the_disk_back_that_was_kept_for_it() {
    let failed = json!({"result": "failed", "why": "no node", "data": []});
    for wanted in [Some(false), None] {
        let saved = saved_with(&failed).await;
        let report = saved.restore(|o| o.restore_volumes = wanted).await.unwrap();
        let volume = saved.target.get("/api/v1/persistentvolumes/pv-data");
        assert!(!volume.is_null(), "{report:?}");
        let claim = "/api/v1/namespaces/n/persistentvolumeclaims/data";
        let claim = saved.target.get(claim);
        assert_eq!(claim["spec"]["volumeName"], "pv-data", "{report:?}");
        let errors = report.errors.join("\n");
        assert!(!errors.contains("n/data"), "{errors}");
    }
}
