//! The removal of what is expired: beside other work on its location.

use std::time::Duration;

use harness::proxy::{Gate, Match, Proxy, RequestParts};
use harness::store::Minio;
use serde_json::Value;

use super::{NAMESPACE, PATIENT, Served};

/// A Backup of the namespace `default` that is expired so soon.
fn short(served: &Served, name: &str, ttl: &str) -> Value {
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [default], ttl: {ttl}}}}}"
    ));
    served.ends(name, "Completed")
}

#[test]
fn while_a_bucket_is_looked_through_its_location_is_checked_and_synced() {
    let store = Proxy::start(Minio::shared().upstream());
    let flags = [
        "--backup-sync-period=1s",
        "--store-validation-frequency=1s",
        "--garbage-collection-frequency=1s",
    ];
    let rarely = [flags[0], flags[1], "--garbage-collection-frequency=1h"];
    let mut served = Served::start_through(&store.url(), "controller-expiry-beside", &rarely);
    for name in ["a", "b", "c"] {
        served.backed_up(name, "default");
    }
    // What is looked at after `a`, which takes its time.
    short(&served, "old", "1s");
    drop(served.controller.take().unwrap().kill());
    served.forget_the_lease();
    let lists_a = |parts: &RequestParts| {
        let target = parts.target.replace("%2F", "/");
        parts.method == "GET" && target.contains("prefix=main/backups/a/")
    };
    let gate = Gate::before(&store, Match::when(lists_a));
    served.controller = Some(served.call(&flags).spawn());
    harness::wait_for("a look through the bucket", PATIENT, || {
        (gate.reached() > 0).then_some(())
    });
    let status = |field: &str| {
        let location = served.object("backupstoragelocations/default").unwrap();
        location["status"][field].to_string()
    };
    // Twice: one may have been under way.
    for field in ["lastValidationTime", "lastSyncedTime"] {
        for _ in 0..2 {
            let before = status(field);
            harness::wait_for(field, PATIENT, || (status(field) != before).then_some(()));
        }
    }
    served.kubectl(&["delete", "backups.velero.io", "b"]);
    served.ends("b", "Completed");
    for key in served.minio.list(&served.bucket, "main/backups/c/") {
        served.minio.delete(&served.bucket, &key);
    }
    served.goes("backups/c");
    served.backed_up("made", "default");
    // All that came to pass in the middle of the look: it is not over, and did not begin anew.
    let log = served.log();
    assert!(!log.contains("BackupStorageLocation default"), "{log}");
    assert!(!log.contains("backup old of location default is removed"));
    let old = || served.minio.list(&served.bucket, "main/backups/old/");
    assert!(!old().is_empty());

    gate.open();
    served.goes("backups/old");
    assert_eq!(old(), [""; 0]);
    std::thread::sleep(Duration::from_secs(3));
    let mut left = served.backups_in("Completed");
    left.sort();
    assert_eq!(left, ["a", "b", "made"]);
}
