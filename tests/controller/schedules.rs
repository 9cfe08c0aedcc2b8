//! Schedules, what they make, what goes, and what comes from a bucket.

use std::time::Duration;

use serde_json::{Value, json};

use super::{NAMESPACE, Served};

/// Every moment is a slot, nearly.
const OFTEN: &str = "@every 2s";

fn backups(served: &Served) -> Vec<Value> {
    let mut list = served.object("backups").unwrap();
    let mut all = list["items"].as_array_mut().unwrap().split_off(0);
    all.sort_by_key(|backup| backup["metadata"]["name"].to_string());
    all
}

/// Names of the backups that a schedule made.
fn of(served: &Served, schedule: &str) -> Vec<String> {
    let all = backups(served);
    let of = all
        .iter()
        .filter(|backup| backup["metadata"]["labels"]["velero.io/schedule-name"] == schedule);
    of.map(|backup| backup["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

fn wait_for_backups(served: &Served, schedule: &str, count: usize) -> Vec<String> {
    harness::wait_for("backups of the schedule", super::PATIENT, || {
        let made = of(served, schedule);
        (made.len() >= count).then_some(made)
    })
}

#[test]
fn schedules_make_backups_that_expire_are_deleted_and_come_back_from_the_bucket() {
    let served = Served::start_with(
        "controller-schedules",
        &[
            "--backup-sync-period=1s",
            "--garbage-collection-frequency=1s",
            "--store-validation-frequency=2s",
        ],
    );
    let velero = |arguments: &[&str]| served.velero(arguments).ok().stdout;
    velero(&[
        "schedule",
        "create",
        "often",
        "--schedule",
        OFTEN,
        "--include-namespaces",
        "default",
        "--ttl",
        "1h",
        "--labels",
        "team=shop",
    ]);
    let made = wait_for_backups(&served, "often", 2);
    let first = served.ends(&made[0], "Completed");
    let slot = first["metadata"]["annotations"]["kubectl-backup/slot"]
        .as_str()
        .unwrap();
    let digits: String = slot.chars().filter(char::is_ascii_digit).collect();
    assert_eq!(made[0], format!("often-{digits}"));
    assert_eq!(first["metadata"]["labels"]["team"], "shop");
    assert_eq!(first["spec"]["ttl"], "1h0m0s");
    // A Velero that looks into the same bucket does not see when it is expired; who looks at the object does.
    let marker = format!("main/backups/{}/velero-backup.json", made[0]);
    let marker: Value = serde_json::from_slice(&served.minio.get(&served.bucket, &marker)).unwrap();
    assert_eq!(marker["status"]["expiration"], Value::Null);
    assert_eq!(marker["spec"]["ttl"], "1h0m0s");
    assert_eq!(
        marker["metadata"]["annotations"]["kubectl-backup/expires"],
        first["status"]["expiration"]
    );
    let listed = velero(&["schedule", "get"]);
    assert!(
        listed.contains("often") && listed.contains("Enabled"),
        "{listed}"
    );

    // Paused, nothing is made; what it missed is made once.
    velero(&["schedule", "pause", "often"]);
    let settled = || {
        let all = backups(&served);
        all.iter()
            .all(|backup| backup["status"]["phase"] == "Completed")
            .then(|| of(&served, "often"))
    };
    let before = harness::wait_for("the end of all backups", super::PATIENT, settled);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(of(&served, "often"), before);
    // By hand it is made all the same, and is no slot.
    velero(&[
        "backup",
        "create",
        "by-hand",
        "--from-schedule",
        "often",
        "--wait",
    ]);
    let by_hand = served.ends("by-hand", "Completed");
    assert_eq!(by_hand["metadata"]["labels"]["team"], "shop");
    assert_eq!(
        by_hand["metadata"]["annotations"]["kubectl-backup/slot"],
        Value::Null
    );
    let before = of(&served, "often");
    served.cluster.kubectl(&[
        "-n",
        NAMESPACE,
        "patch",
        "schedules.velero.io",
        "often",
        "--type=merge",
        "-p",
        r#"{"spec":{"schedule":"@every 1h"}}"#,
    ]);
    velero(&["schedule", "unpause", "often"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(of(&served, "often"), before, "an hour is not over");
    velero(&["schedule", "delete", "often", "--confirm"]);
    assert!(served.object("schedules/often").is_none());

    // What can not be followed says so; the controller goes on.
    served.apply(&format!("{{apiVersion: velero.io/v1, kind: Schedule, metadata: {{name: bad, namespace: {NAMESPACE}}}, spec: {{schedule: 'every day', template: {{}}}}}}"));
    let bad = served.wait("schedules/bad", "refused", |object| {
        object["status"]["phase"] == "FailedValidation"
    });
    assert!(
        bad["status"]["validationErrors"]
            .to_string()
            .contains("every day"),
        "{bad}"
    );

    deleted(&served, &made[0]);
    found(&served, &made[1]);
    expired(&served);
}

/// A backup goes from the bucket with its object; one that failed because its name was taken takes nothing along.
fn deleted(served: &Served, backup: &str) {
    let folder = format!("main/backups/{backup}/");
    assert!(!served.minio.list(&served.bucket, &folder).is_empty());
    served
        .velero(&["backup", "delete", backup, "--confirm"])
        .ok();
    harness::wait_for("the end of the object", super::PATIENT, || {
        served
            .object(&format!("backups/{backup}"))
            .is_none()
            .then_some(())
    });
    assert_eq!(served.minio.list(&served.bucket, &folder), [""; 0]);
    let requests = served.object("deletebackuprequests").unwrap();
    assert_eq!(requests["items"], json!([]));

    let marker = "main/backups/taken/velero-backup.json";
    served.minio.put(&served.bucket, marker, "{}");
    served.apply(&format!("{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: taken, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [default]}}}}"));
    served.ends("taken", "Failed");
    served
        .velero(&["backup", "delete", "taken", "--confirm"])
        .ok();
    harness::wait_for("the end of the object", super::PATIENT, || {
        served.object("backups/taken").is_none().then_some(())
    });
    assert!(served.minio.try_get(&served.bucket, marker).is_some());

    served.apply(&format!("{{apiVersion: velero.io/v1, kind: DeleteBackupRequest, metadata: {{name: d, namespace: {NAMESPACE}}}, spec: {{backupName: never}}}}"));
    let refused = served.wait("deletebackuprequests/d", "processed", |object| {
        object["status"]["phase"] == "Processed"
    });
    assert!(
        refused["status"]["errors"]
            .to_string()
            .contains("not found"),
        "{refused}"
    );
}

/// An object that is gone comes back from the bucket, and one whose backup is gone goes; a bucket's lies make nothing.
fn found(served: &Served, backup: &str) {
    let before = served.object(&format!("backups/{backup}")).unwrap();
    served
        .cluster
        .kubectl(&["-n", NAMESPACE, "delete", "backups.velero.io", backup]);
    let after = served.wait(&format!("backups/{backup}"), "back", |_| true);
    assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["status"], after["status"]);
    assert_eq!(before["metadata"]["labels"], after["metadata"]["labels"]);
    let described = served
        .velero(&["backup", "describe", backup, "--details"])
        .ok()
        .stdout;
    assert!(described.contains("Phase:  Completed"), "{described}");

    let marker = |name: &str, change: &dyn Fn(&mut Value)| {
        let stored = served.minio.get(
            &served.bucket,
            &format!("main/backups/{backup}/velero-backup.json"),
        );
        let mut marker: Value = serde_json::from_slice(&stored).unwrap();
        marker["metadata"]["name"] = name.into();
        change(&mut marker);
        let key = format!("main/backups/{name}/velero-backup.json");
        served.minio.put(&served.bucket, &key, marker.to_string());
    };
    marker("renamed", &|marker| {
        marker["metadata"]["name"] = "another".into();
    });
    marker("unasked", &|marker| {
        marker["status"]["phase"] = "New".into();
    });
    marker("huge", &|marker| {
        marker["spec"]["x"] = "x".repeat(100_000).into();
    });
    marker("odd", &|marker| {
        marker["spec"]["includedNamespaces"] = 7.into();
    });
    served.minio.put(
        &served.bucket,
        "main/backups/text/velero-backup.json",
        "no JSON",
    );
    served.minio.put(
        &served.bucket,
        "main/backups/UPPER_case/velero-backup.json",
        "{}",
    );
    marker("planted", &|_| {});
    served.wait("backups/planted", "found", |object| {
        object["status"]["phase"] == "Completed"
    });
    served
        .minio
        .delete(&served.bucket, "main/backups/planted/velero-backup.json");
    harness::wait_for("the end of the orphan", super::PATIENT, || {
        served.object("backups/planted").is_none().then_some(())
    });
    for name in ["renamed", "unasked", "huge", "odd", "text"] {
        assert!(
            served.object(&format!("backups/{name}")).is_none(),
            "{name}"
        );
    }
    assert!(served.object(&format!("backups/{backup}")).is_some());
}

/// What is expired goes from bucket and cluster; the newest good one of a schedule stays.
fn expired(served: &Served) {
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Schedule, metadata: {{name: short, namespace: {NAMESPACE}}}, spec: {{schedule: '{OFTEN}', template: {{includedNamespaces: [default], ttl: 1s}}}}}}"
    ));
    wait_for_backups(served, "short", 1);
    served.cluster.kubectl(&[
        "-n",
        NAMESPACE,
        "patch",
        "schedules.velero.io",
        "short",
        "--type=merge",
        "-p",
        r#"{"spec":{"paused":true}}"#,
    ]);
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: brief, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [default], ttl: 1s}}}}"
    ));
    harness::wait_for("the end of what is expired", super::PATIENT, || {
        let all = backups(served);
        let kept = all
            .iter()
            .filter(|backup| backup["metadata"]["labels"]["velero.io/schedule-name"] == "short");
        let kept: Vec<_> = kept.collect();
        let stays = &kept.first()?["metadata"]["annotations"]["kubectl-backup/kept"];
        (kept.len() == 1
            && stays.is_string()
            && served.object("backups/brief").is_none()
            && served
                .minio
                .list(&served.bucket, "main/backups/brief/")
                .is_empty()
            && served
                .log()
                .contains("backup brief of location default is removed"))
        .then_some(())
    });
    let last = of(served, "short");
    let marker = format!("main/backups/{}/velero-backup.json", last[0]);
    assert!(served.minio.try_get(&served.bucket, &marker).is_some());
}
