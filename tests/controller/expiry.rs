//! The removal of what is expired: beside other work on its location, and by clocks that are wrong.

use std::time::Duration;

use harness::clock::Clock;
use harness::proxy::{Gate, Match, Proxy, RequestParts};
use harness::store::Minio;
use jiff::{SignedDuration, Timestamp};
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

/// Longer than a Lease stands that nobody renews.
const LEASE: Duration = Duration::from_secs(25);

#[test]
fn a_clock_that_jumps_removes_no_backup_and_takes_no_lease() {
    let served = Served::without_controller("controller-clock");
    let (ours, theirs) = (Clock::new(), Clock::new());
    let flags = [
        "--backup-sync-period=1s",
        "--store-validation-frequency=1s",
        "--garbage-collection-frequency=1s",
    ];
    let works = |log: &str| log.contains("serving velero.io/v1");
    let one = ours.of(served.call(&flags)).spawn();
    harness::wait_for("one that works", PATIENT, || {
        works(&one.stderr()).then_some(())
    });
    served.cluster_has_kinds();
    served.location("default", "main", true);
    short(&served, "young", "10m");
    let other = theirs.of(served.call(&flags)).spawn();
    harness::wait_for("one that waits", PATIENT, || {
        other.stderr().contains(": waiting").then_some(())
    });
    // By how many seconds the clocks differed where a look was refused for it; each sentence is told once.
    let refusals = || {
        let said = one.stderr();
        let lines = said
            .lines()
            .filter(|line| line.contains("nothing is pruned"));
        let seconds = lines.filter_map(|line| {
            let (_, rest) = line.split_once("differ by ")?;
            rest.split_once(" s;")?.0.parse().ok()
        });
        seconds.collect::<Vec<i64>>()
    };
    let is_refused = |seconds: std::ops::Range<i64>| {
        let began = std::time::Instant::now();
        // What is refused again and again is tried a minute apart.
        while !refusals().iter().any(|apart| seconds.contains(apart)) {
            assert!(began.elapsed() < PATIENT * 2, "{}", one.stderr());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let stands = |backup: &str| {
        let object = served.object(&format!("backups/{backup}")).unwrap();
        assert_eq!(object["status"]["phase"], "Completed", "{object:#}");
        let marker = format!("main/backups/{backup}/velero-backup.json");
        assert!(served.minio.try_get(&served.bucket, &marker).is_some());
    };
    let nobody_takes_over = || {
        std::thread::sleep(LEASE);
        assert!(!works(&other.stderr()), "{}", other.stderr());
        let log = one.stderr();
        assert!(!log.contains("another controller"), "{log}");
    };
    let (ahead, behind) = (SignedDuration::from_mins(11), SignedDuration::from_mins(8));
    assert_eq!(refusals(), [0; 0]);

    // Ahead: one is expired by this clock, and not by the store's.
    ours.is_apart(ahead);
    theirs.is_apart(-behind);
    is_refused(570..670);
    served.backed_up("ahead", "default");
    nobody_takes_over();
    stands("young");

    // Behind: one is expired by the store's clock, and not by this one.
    ours.is_apart(-behind);
    theirs.is_apart(ahead);
    let old = short(&served, "old", "5m");
    let began: Timestamp = old["status"]["startTimestamp"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(Timestamp::now().duration_since(began) >= behind - SignedDuration::from_secs(1));
    is_refused(470..570);
    nobody_takes_over();
    stands("old");
    stands("young");

    // Right again: what is expired by both goes.
    ours.is_apart(SignedDuration::ZERO);
    served.goes("backups/old");
    let left = served.minio.list(&served.bucket, "main/backups/old/");
    assert_eq!(left, [""; 0]);
    stands("young");
    stands("ahead");

    // Who waits takes over in its time, by whatever clock.
    drop(one.kill());
    harness::wait_for("another one that works", PATIENT, || {
        works(&other.stderr()).then_some(())
    });
}
