//! Copies that a location has made of each backup: by `create`, and by a controller.

use std::fs;

use harness::proxy::{Action, Match, Proxy};
use serde_json::Value;

use super::{Home, files};
use crate::controller::{NAMESPACE, Served};

#[test]
fn a_location_has_each_backup_copied_and_a_copy_that_fails_is_named_with_the_command_that_makes_it()
{
    let home = Home::new("copied-along");
    let (first, second) = (
        home.location_of_folder("first"),
        home.location_of_folder("second"),
    );
    let third = home.location_of_folder("third");
    let set = |arguments: &[&str]| home.run(&[&["location", "set", "first"], arguments].concat());
    for (target, code, says) in [
        ("first", 2, "no second one"),
        ("s3://bucket/x", 2, "is no name of a location"),
    ] {
        let refused = set(&["--replicate-to", target]).code(code);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    let unknown = set(&["--replicate-to", "nowhere"]).ok();
    assert!(unknown.stderr.contains("nowhere"), "{}", unknown.stderr);
    set(&["--replicate-to", "second", "--replicate-to", "third"]).ok();
    home.create("b", "first");
    for copy in [&second, &third] {
        assert!(files(copy, "b") == files(&first, "b"), "{copy}");
    }
    // A second one is away: the backup stands, and so does the other copy.
    home.run(&["location", "set", "second", "--access-mode=ReadOnly"])
        .ok();
    let made = home
        .run(&["create", "c", "-n", &home.namespace])
        .location("first")
        .code(3);
    assert_eq!(made.stdout, "backup/c created\n");
    assert!(made.stderr.contains("read-only"), "{}", made.stderr);
    let again = made
        .stderr
        .lines()
        .find_map(|line| line.split_once("to make it: kubectl backup "))
        .unwrap_or_else(|| panic!("{}", made.stderr))
        .1;
    assert!(files(&third, "c") == files(&first, "c"));
    assert_eq!(files(&second, "c"), []);
    home.run(&["location", "set", "second", "--access-mode=ReadWrite"])
        .ok();
    let words: Vec<&str> = again.split_whitespace().collect();
    home.run(&words).ok();
    assert!(files(&second, "c") == files(&first, "c"));

    // Each location looks after its own.
    home.run(&["delete", "b", "--yes"]).location("first").ok();
    home.run(&["verify", "b"]).location("second").ok();
    set(&["--replicate-to="]).ok();
    home.create("d", "first");
    assert_eq!(files(&second, "d"), []);
    assert_eq!(fs::read_dir(&third).unwrap().count(), 2);
}

#[test]
fn a_controller_makes_the_copies_that_its_location_asks_for_and_goes_on_until_they_stand() {
    let served = Served::start("copied-by-controller");
    let proxy = Proxy::start(served.minio.upstream());
    served.location_at(&proxy.url(), "second", "copies", false);
    let annotate = |target: &str| {
        let patch = format!(
            r#"{{"metadata": {{"annotations": {{"kubectl-backup/replicate-to": "{target}"}}}}}}"#
        );
        served.patch("backupstoragelocation", "default", &patch);
    };
    annotate("second");
    served.wait("backupstoragelocations/second", "available", |object| {
        object["status"]["phase"] == "Available"
    });
    let denied = "<Error><Code>AccessDenied</Code><Message>Revoked.</Message></Error>";
    proxy.every(
        Match::method("PUT").and_path("tar.gz"),
        Action::status(403, denied),
    );
    let copied =
        |object: &Value| object["metadata"]["annotations"]["kubectl-backup/copied-to"] == "second";
    served.backed_up("b", "default");
    let failed = served.wait("backups/b", "told of", |object| {
        let why = &object["metadata"]["annotations"]["kubectl-backup/copy-failed"];
        why.as_str().is_some_and(|why| why.contains("AccessDenied"))
    });
    assert_eq!(failed["status"]["phase"], "Completed");
    let events = ["get", "events", "-o", "jsonpath={.items[*].reason}"];
    harness::wait_for("the Event", crate::controller::PATIENT, || {
        let reasons = served.kubectl(&events).stdout;
        reasons.contains("CopyFailed").then_some(())
    });
    let keys = |prefix: &str| served.minio.list(&served.bucket, prefix);
    assert!(
        keys("copies/backups/b")
            .iter()
            .all(|key| !key.ends_with("velero-backup.json"))
    );
    // A copy that is tried again and again hinders no deletion.
    served.backed_up("gone", "default");
    served.wait("backups/gone", "told of", |object| {
        object["metadata"]["annotations"]["kubectl-backup/copy-failed"].is_string()
    });
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: DeleteBackupRequest, metadata: {{name: d, namespace: {NAMESPACE}}}, spec: {{backupName: gone}}}}"
    ));
    served.goes("backups/gone");
    served.goes("deletebackuprequests/d");
    assert_eq!(keys("main/backups/gone"), [""; 0]);
    proxy.clear_rules();
    let done = served.wait("backups/b", "copied", copied);
    assert!(done["metadata"]["annotations"]["kubectl-backup/copy-failed"].is_null());
    assert_eq!(done["spec"]["storageLocation"], "default");
    let all = keys("main/backups/b");
    assert!(all.len() > 8, "{all:?}");
    for key in all {
        let copy = key.replacen("main/", "copies/", 1);
        let (one, two) = (
            served.minio.get(&served.bucket, &key),
            served.minio.get(&served.bucket, &copy),
        );
        assert!(one == two, "{copy} has other bytes");
    }
    // What is no name of a location is refused where it stands.
    annotate("s3://elsewhere");
    served.kubectl(&[
        "patch",
        "backupstoragelocation",
        "default",
        "--type=merge",
        "-p",
        r#"{"spec": {"validationFrequency": "1s"}}"#,
    ]);
    let refused = served.wait("backupstoragelocations/default", "refused", |object| {
        object["status"]["phase"] == "Unavailable"
    });
    let why = refused["status"]["message"].as_str().unwrap();
    assert!(why.contains("s3://elsewhere"), "{why}");
    assert_eq!(NAMESPACE, refused["metadata"]["namespace"]);
}
