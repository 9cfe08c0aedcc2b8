//! Deletions that die, fail, or are refused.

use std::sync::Arc;

use harness::process::PidSlot;
use harness::proxy::{Action, Match, Proxy};
use harness::store::Minio;
use serde_json::{Value, json};

use super::{NAMESPACE, PATIENT, Served};

/// The request that asks for the deletion of a backup.
fn request(served: &Served, backup: &str) -> Option<Value> {
    let mut list = served.object("deletebackuprequests").unwrap();
    let all = list["items"].as_array_mut().unwrap().split_off(0);
    let mut of = all.into_iter();
    of.find(|request| request["spec"]["backupName"] == backup)
}

/// Waits until the request of a backup is as it should be.
#[track_caller]
fn request_is(served: &Served, backup: &str, phase: &str, part: &str) -> Value {
    let mut last = None;
    let found = (0..).find_map(|round| {
        assert!(
            round < 600,
            "{backup} {phase} {part}: {last:?} {}",
            served.log()
        );
        last = request(served, backup);
        let is_so = |request: &&Value| {
            request["status"]["phase"] == phase
                && request["status"]["errors"].to_string().contains(part)
        };
        let found = last.as_ref().filter(is_so).cloned();
        if found.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        found
    });
    found.unwrap()
}

#[test]
fn a_deletion_that_was_begun_ends_whoever_dies_and_one_that_fails_is_shown_and_tried_again() {
    let flags = [
        "--backup-sync-period=1s",
        // What is counted is what the deletions send.
        "--garbage-collection-frequency=1h",
        "--store-validation-frequency=2s",
    ];
    let minio = Minio::shared();
    let proxy = Proxy::start(minio.upstream());
    let mut served = Served::start_through(&proxy.url(), "controller-deletions", &flags);
    served.location_at(&proxy.url(), "second", "other", false);
    // Who writes here may not remove one marker.
    let bucket = &served.bucket;
    let user = minio.limited_user(&format!(
        r#"{{"Version": "2012-10-17", "Statement": [
            {{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::{bucket}", "arn:aws:s3:::{bucket}/*"]}},
            {{"Effect": "Deny", "Action": ["s3:DeleteObject"], "Resource": ["arn:aws:s3:::{bucket}/limited/backups/denied/velero-backup.json"]}}]}}"#
    ));
    served.secret("limited", &user.credentials_file);
    let endpoint = minio.endpoint();
    served.apply(&format!(
        r#"
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: limited, namespace: {NAMESPACE}}}
spec:
  provider: aws
  objectStorage: {{bucket: {bucket}, prefix: limited}}
  credential: {{name: limited, key: cloud}}
  config: {{region: us-east-1, s3ForcePathStyle: "true", s3Url: "{endpoint}"}}
"#
    ));
    served.backed_up("dies", "default");
    served.backed_up("denied", "limited");
    served.backed_up("moved", "second");
    let velero = |arguments: &[&str]| served.velero(arguments).ok().stdout;
    velero(&["restore", "create", "r", "--from-backup", "dies", "--wait"]);
    let files = |folder: &str| minio.list(&served.bucket, folder);
    let whole = files("main/backups/dies/");
    assert!(!files("main/restores/r/").is_empty());

    // Killed when the marker is gone, and one more file.
    let slot = Arc::new(PidSlot::default());
    served.controller.as_ref().unwrap().killed_by(&slot);
    let deletes = Match::method("POST").and_path("?delete");
    proxy.nth(2, deletes, Action::KillAfterForward(slot));
    velero(&["backup", "delete", "dies", "--confirm"]);
    harness::wait_for("the first half of a deletion", PATIENT, || {
        (files("main/backups/dies/").len() < whole.len()).then_some(())
    });
    drop(served.controller.take().unwrap().wait(PATIENT));
    proxy.clear_rules();
    served.forget_the_lease();
    let half = files("main/backups/dies/");
    assert!(!half.contains(&"main/backups/dies/velero-backup.json".to_owned()));
    assert!(half.iter().any(|key| key.contains("/claim-")), "{half:?}");
    assert!(half.len() > 2, "{half:?}");
    let object = served.object("backups/dies").unwrap();
    assert_eq!(object["status"]["phase"], "Deleting");

    // While nobody can know that it is dead for good, it is told; it is no refusal.
    served.controller = Some(served.call(&flags).spawn());
    request_is(&served, "dies", "InProgress", "it is tried again");
    let velero = |arguments: &[&str]| served.velero(arguments).ok().stdout;

    // What a store denies is tried again, too; the backup stands all the while.
    velero(&["backup", "delete", "denied", "--confirm"]);
    request_is(&served, "denied", "InProgress", "AccessDenied");
    assert_eq!(
        served.object("backups/denied").unwrap()["status"]["phase"],
        "Deleting"
    );
    let described = velero(&["backup", "describe", "denied"]);
    assert!(described.contains("Deletion Attempts"), "{described}");
    // Who takes the request back has his backup back.
    let asked = request(&served, "denied").unwrap();
    served.kubectl(&[
        "delete",
        "deletebackuprequests.velero.io",
        asked["metadata"]["name"].as_str().unwrap(),
    ]);
    served.ends("denied", "Completed");
    assert_eq!(files("limited/backups/denied/").len(), whole.len());
    velero(&["backup", "delete", "denied", "--confirm"]);
    request_is(&served, "denied", "InProgress", "AccessDenied");
    velero(&[
        "backup-location",
        "set",
        "limited",
        "--credential=cloud-credentials=cloud",
    ]);
    served.goes("backups/denied");
    assert_eq!(files("limited/backups/denied/"), [""; 0]);

    // Where the location's prefix was changed, nothing is called deleted that is not.
    let prefix = |prefix: &str| json!({"spec": {"objectStorage": {"prefix": prefix}, "backupSyncPeriod": "0s"}});
    let moved = files("other/backups/moved/");
    served.patch(
        "backupstoragelocations.velero.io",
        "second",
        &prefix("elsewhere").to_string(),
    );
    served.wait("backupstoragelocations/second", "elsewhere", |object| {
        object["spec"]["objectStorage"]["prefix"] == "elsewhere"
    });
    velero(&["backup", "delete", "moved", "--confirm"]);
    let refused = request_is(&served, "moved", "Processed", "nothing is deleted");
    let why = refused["status"]["errors"].to_string();
    assert!(why.contains("prefix changed"), "{why}");
    served.ends("moved", "Completed");
    assert_eq!(files("other/backups/moved/"), moved);
    let events = served
        .cluster
        .get_raw(&format!("/api/v1/namespaces/{NAMESPACE}/events"))
        .to_string();
    assert!(events.contains("backup moved is not deleted"), "{events}");

    // What was half gone is gone, with its restore.
    served.goes("backups/dies");
    served.goes("restores/r");
    harness::wait_for("the end of the request", PATIENT, || {
        request(&served, "dies").is_none().then_some(())
    });
    assert_eq!(files("main/backups/dies/"), [""; 0]);
    assert_eq!(files("main/restores/r/"), [""; 0]);
}
