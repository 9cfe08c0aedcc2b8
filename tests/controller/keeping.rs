//! What stays and what goes of a bucket's backups, and what a bucket's lies do.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{NAMESPACE, PATIENT, Served};

/// A copy of the backup `source` of another name, in the place that has no guard yet.
fn plant(served: &Served, name: &str, change: impl FnOnce(&mut Value)) {
    let from = "main/backups/source/";
    for key in served.minio.list(&served.bucket, from) {
        let content = served.minio.get(&served.bucket, &key);
        let file = key.strip_prefix(from).unwrap().replace("source", name);
        if file != "velero-backup.json" {
            let to = format!("old/backups/{name}/{file}");
            served.minio.put(&served.bucket, &to, content);
        }
    }
    let marker = format!("{from}velero-backup.json");
    let marker = served.minio.get(&served.bucket, &marker);
    let mut marker: Value = serde_json::from_slice(&marker).unwrap();
    marker["metadata"]["name"] = name.into();
    change(&mut marker);
    let to = format!("old/backups/{name}/velero-backup.json");
    served.minio.put(&served.bucket, &to, marker.to_string());
}

/// A marker of a schedule's backup, so many hours old, which stays so many hours.
fn scheduled(marker: &mut Value, schedule: &str, phase: &str, hours: i64, stays: i64) {
    let began = Timestamp::now() - SignedDuration::from_hours(hours);
    let end = began + SignedDuration::from_hours(stays);
    if !schedule.is_empty() {
        marker["metadata"]["labels"]["velero.io/schedule-name"] = schedule.into();
    }
    marker["status"]["phase"] = phase.into();
    marker["status"]["startTimestamp"] = format!("{began:.0}").into();
    marker["status"]["expiration"] = format!("{end:.0}").into();
}

fn kept(served: &Served, backup: &str) -> String {
    let object = served.object(&format!("backups/{backup}"));
    object.map_or_else(String::new, |object| {
        object["metadata"]["annotations"]["kubectl-backup/kept"].to_string()
    })
}

#[test]
fn of_a_bucket_as_much_stays_as_is_kept_and_its_lies_make_nothing() {
    let flags = [
        "--backup-sync-period=1s",
        "--garbage-collection-frequency=1s",
        "--store-validation-frequency=2s",
    ];
    let served = Served::start_with("controller-keeping", &flags);
    served.apply(&format!(
        "
apiVersion: velero.io/v1
kind: Schedule
metadata: {{name: second, namespace: {NAMESPACE}, annotations: {{kubectl-backup/every: '2'}}}}
spec: {{schedule: '@every 3s', template: {{includedNamespaces: [default], ttl: 1h}}}}
---
apiVersion: velero.io/v1
kind: Schedule
metadata: {{name: s, namespace: {NAMESPACE}, annotations: {{kubectl-backup/keep: '2'}}}}
spec: {{schedule: '@monthly', paused: true, template: {{storageLocation: old}}}}
"
    ));
    served.backed_up("source", "default");

    // Of schedule s nothing is expired, and two good ones are kept. Of t all are expired: the newest good one stays.
    for (name, schedule, phase, hours, stays) in [
        ("s-1", "s", "Completed", 50, 720),
        ("s-2", "s", "Completed", 40, 720),
        ("s-3", "s", "Completed", 30, 720),
        ("s-4", "s", "Completed", 20, 720),
        ("t-1", "t", "Completed", 50, 1),
        ("t-2", "t", "Completed", 40, 1),
        ("t-3", "t", "PartiallyFailed", 30, 1),
        ("gone", "", "Completed", 50, 1),
        ("longer", "", "Completed", 50, 1),
        ("denied", "", "Completed", 50, 1),
    ] {
        plant(&served, name, |marker| {
            scheduled(marker, schedule, phase, hours, stays);
        });
    }
    plant(&served, "theirs", |marker| {
        scheduled(marker, "", "Completed", 50, 1);
        marker["metadata"]["annotations"]["kubectl-backup/cluster-uid"] = "another".into();
    });
    let lie = |name: &str, content: &str| {
        let key = format!("old/backups/{name}/velero-backup.json");
        served.minio.put(&served.bucket, &key, content.to_owned());
    };
    lie("lie-text", "no JSON");
    lie("lie-huge", &"x".repeat(5 << 20));
    lie(
        "lie-name",
        r#"{"apiVersion":"velero.io/v1","kind":"Backup","metadata":{"name":"another"}}"#,
    );
    lie("LIE", "{}");
    plant(&served, "lie-large", |marker| {
        marker["spec"]["x"] = "x".repeat(100_000).into();
    });

    // Who reads this place may not read one marker of it.
    let bucket = &served.bucket;
    let user = served.minio.limited_user(&format!(
        r#"{{"Version": "2012-10-17", "Statement": [
            {{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::{bucket}", "arn:aws:s3:::{bucket}/*"]}},
            {{"Effect": "Deny", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::{bucket}/old/backups/denied/*"]}}]}}"#
    ));
    served.secret("limited", &user.credentials_file);
    let endpoint = served.minio.endpoint();
    served.apply(&format!(
        r#"
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: old, namespace: {NAMESPACE}}}
spec:
  provider: aws
  objectStorage: {{bucket: {bucket}, prefix: old}}
  credential: {{name: limited, key: cloud}}
  config: {{region: us-east-1, s3ForcePathStyle: "true", s3Url: "{endpoint}"}}
"#
    ));
    for name in ["s-1", "s-4", "t-3", "gone", "longer", "theirs"] {
        served.wait(&format!("backups/{name}"), "found", |_| true);
    }
    let events = || {
        served
            .cluster
            .get_raw(&format!("/api/v1/namespaces/{NAMESPACE}/events"))
            .to_string()
    };
    harness::wait_for("what is passed over", PATIENT, || {
        let told = events();
        let named = ["denied", "lie-huge", "lie-name", "lie-large", "LIE"];
        let is_named =
            |name: &&str| told.contains(&format!("backup \\\"{name}\\\" is passed over"));
        named.iter().all(is_named).then_some(())
    });
    assert!(
        served.log().contains("more backups are passed over: 1"),
        "{}",
        served.log()
    );

    // As long as nobody says that the place is this cluster's, nothing goes.
    for name in ["s-1", "t-1", "gone"] {
        assert!(
            served.object(&format!("backups/{name}")).is_some(),
            "{name}"
        );
    }
    served.patch(
        "backups.velero.io",
        "longer",
        r#"{"status":{"expiration":"2099-01-01T00:00:00Z"}}"#,
    );
    let guard = served.minio.get(bucket, "main/.kubectl-backup.json");
    served.minio.put(bucket, "old/.kubectl-backup.json", guard);
    let folder = |name: &str| served.minio.list(bucket, &format!("old/backups/{name}/"));
    for name in ["s-1", "s-2", "t-1", "t-3", "gone"] {
        served.goes(&format!("backups/{name}"));
        assert_eq!(folder(name), [""; 0], "{name}");
    }
    harness::wait_for("why others stay", PATIENT, || {
        let is_last = kept(&served, "t-2").contains("newest good backup of schedule t");
        let is_theirs = kept(&served, "theirs").contains("not known to be this cluster's");
        (is_last && is_theirs).then_some(())
    });
    for name in ["s-3", "s-4", "t-2", "longer", "theirs"] {
        assert!(
            served.object(&format!("backups/{name}")).is_some(),
            "{name}"
        );
        assert!(folder(name).len() > 3, "{name}");
    }
    for name in [
        "denied",
        "lie-text",
        "lie-huge",
        "lie-name",
        "LIE",
        "lie-large",
    ] {
        assert!(
            served.object(&format!("backups/{name}")).is_none(),
            "{name}"
        );
        assert!(!folder(name).is_empty(), "{name}");
    }

    every_second(&served);
    healed(&served);
    early(&served);
    emptied(&served);
}

/// Of the slots of a schedule, every second one is taken.
fn every_second(served: &Served) {
    let slots = harness::wait_for("three backups of every second slot", PATIENT, || {
        let list = served.object("backups").unwrap();
        let all = list["items"].as_array().unwrap().iter();
        let of = all
            .filter(|backup| backup["metadata"]["labels"]["velero.io/schedule-name"] == "second");
        let mut slots: Vec<Timestamp> = of
            .map(|backup| {
                let slot = &backup["metadata"]["annotations"]["kubectl-backup/slot"];
                slot.as_str().unwrap().parse().unwrap()
            })
            .collect();
        slots.sort();
        (slots.len() >= 3).then_some(slots)
    });
    for pair in slots.windows(2) {
        let apart = pair[1].duration_since(pair[0]).as_secs();
        assert!(apart > 0 && apart % 6 == 0, "{slots:?}");
    }
    served
        .velero(&["schedule", "delete", "second", "--confirm"])
        .ok();
}

/// Waits until a location was synced a few times more.
fn synced(served: &Served, location: &str) {
    let mut seen = std::collections::BTreeSet::new();
    harness::wait_for("more syncs", PATIENT, || {
        let place = served.object(&format!("backupstoragelocations/{location}"))?;
        seen.insert(place["status"]["lastSyncedTime"].to_string());
        (seen.len() > 3).then_some(())
    });
}

/// A backup that was called failed and whose marker came later stands.
fn healed(served: &Served) {
    served.apply(&format!(
        r#"
apiVersion: velero.io/v1
kind: Backup
metadata: {{name: slow, namespace: {NAMESPACE}, annotations: {{kubectl-backup/run: r.u, kubectl-backup/interrupted: "true"}}}}
spec: {{storageLocation: old}}
status: {{phase: Failed, failureReason: its controller is gone}}
"#
    ));
    // Another's marker heals nothing.
    plant(served, "slow", |marker| {
        scheduled(marker, "", "Completed", 1, 720);
        marker["metadata"]["annotations"]["kubectl-backup/run"] = "r.v".into();
    });
    synced(served, "old");
    served.ends("slow", "Failed");
    served.apply(&format!(
        r#"
apiVersion: velero.io/v1
kind: Backup
metadata: {{name: slower, namespace: {NAMESPACE}, annotations: {{kubectl-backup/run: r.u, kubectl-backup/interrupted: "true"}}}}
spec: {{storageLocation: old}}
status: {{phase: Failed, failureReason: its controller is gone}}
"#
    ));
    served
        .minio
        .put(&served.bucket, "old/backups/slower/claim-r.json", "{}");
    synced(served, "old");
    served.ends("slower", "Failed");
    plant(served, "slower", |marker| {
        scheduled(marker, "", "Completed", 1, 720);
        marker["metadata"]["annotations"]["kubectl-backup/run"] = "r.u".into();
    });
    let healed = served.ends("slower", "Completed");
    assert_eq!(healed["status"]["failureReason"], Value::Null);
    let annotations = &healed["metadata"]["annotations"];
    assert_eq!(annotations["kubectl-backup/interrupted"], Value::Null);
}

/// One that is seen while a Velero makes it has its object as soon as it is done.
fn early(served: &Served) {
    plant(served, "early", |marker| {
        scheduled(marker, "", "Finalizing", 1, 720);
    });
    synced(served, "old");
    assert!(served.object("backups/early").is_none());
    plant(served, "early", |marker| {
        scheduled(marker, "", "Completed", 1, 720);
    });
    served.ends("early", "Completed");
}

/// Where a place looks empty at once, no object goes; where it does not, those go whose backups are gone.
fn emptied(served: &Served) {
    served.location("void", "void", false);
    for n in 0..4 {
        served.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: void-{n}, namespace: {NAMESPACE}}}, spec: {{storageLocation: void}}, status: {{phase: Completed}}}}"
        ));
    }
    harness::wait_for("a look at an empty place", PATIENT, || {
        served
            .log()
            .contains("location void looks empty, and 4 backups")
            .then_some(())
    });
    let count = || {
        let list = served.object("backups").unwrap();
        let all = list["items"].as_array().unwrap().iter();
        all.filter(|backup| backup["spec"]["storageLocation"] == "void")
            .count()
    };
    synced(served, "void");
    assert_eq!(count(), 4);
    served
        .minio
        .put(&served.bucket, "void/backups/other/x", "x");
    harness::wait_for("the end of what is gone", PATIENT, || {
        (count() == 0).then_some(())
    });
    let text = json!(served.log()).to_string();
    assert!(
        text.contains("backup void-0 is gone from its location"),
        "{text}"
    );
}
