//! Backups expire, and prune removes those that did and nothing else.

use std::fs::{self, File};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use harness::cluster::Cluster;
use harness::store::Minio;

use crate::place::{Place, on};

fn create(place: &Place, namespace: &str, name: &str, expiry: &[&str]) {
    place
        .run(&["create", name, "-n", namespace])
        .args(expiry)
        .ok();
}

#[test]
fn prune_removes_what_is_expired_and_nothing_else() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("expiry");
    create(&place, &namespace, "short", &["--ttl", "1s"]);
    create(&place, &namespace, "long", &["--ttl", "30d"]);
    create(&place, &namespace, "ever", &["--ttl", "never"]);
    create(&place, &namespace, "dated", &["--expires", "2099-01-01"]);
    assert_eq!(place.marker("ever")["status"].get("expiration"), None);
    assert!(
        place.marker("dated")["status"]["expiration"]
            .as_str()
            .unwrap()
            .starts_with("2099-01-01")
    );
    assert_eq!(place.marker("long")["spec"]["ttl"], "720h0m0s");
    fs::create_dir_all(place.folder.join("backups/foreign")).unwrap();
    fs::write(
        place.folder.join("backups/foreign/notes.txt"),
        "somebody else's",
    )
    .unwrap();
    sleep(Duration::from_secs(2));

    let told = place.run(&["prune", "--dry-run"]).ok();
    assert!(
        told.stdout.contains("short") && !told.stdout.contains("long"),
        "{}",
        told.stdout
    );
    assert!(
        !place.files("short").is_empty(),
        "a dry run removes nothing"
    );
    place.run(&["prune", "--yes"]).ok();
    assert!(
        place.files("short").is_empty(),
        "{:?}",
        place.files("short")
    );
    for name in ["long", "ever", "dated"] {
        assert!(
            place.files(name).contains(&"velero-backup.json".to_owned()),
            "{name} stays"
        );
    }
    assert_eq!(place.files("foreign"), ["notes.txt"]);
}

#[test]
fn what_a_dead_run_left_is_removed_after_an_hour_and_not_before() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("dead");
    create(&place, &namespace, "b", &[]);
    // What a create leaves that was killed before its marker.
    let dead = place.folder.join("backups/dead");
    fs::create_dir_all(&dead).unwrap();
    let claim = fs::read_dir(place.folder.join("backups/b"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(
        claim.into_iter().all(|name| !name.starts_with("claim-")),
        "a finished run leaves no claim"
    );
    let claim = dead.join("claim-0b0b0b0b-0000-4000-8000-000000000000.json");
    fs::write(&claim, r#"{"purpose":"create","host":"gone","uploads":[]}"#).unwrap();
    fs::write(dead.join("index.jsonl.zst"), "half").unwrap();
    place.run(&["prune", "--yes"]).ok();
    assert_eq!(place.files("dead").len(), 2, "it could be alive");
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    for file in [&claim, &dead.join("index.jsonl.zst")] {
        File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    let taken = place.run(&["create", "dead", "-n", &namespace]).code(1);
    assert!(taken.stderr.contains("prune"), "{}", taken.stderr);
    place.run(&["prune", "--yes"]).ok();
    assert!(place.files("dead").is_empty(), "{:?}", place.files("dead"));
    place.run(&["create", "dead", "-n", &namespace]).ok();
    assert!(place.files("b").contains(&"velero-backup.json".to_owned()));
}

#[test]
fn what_can_not_be_removed_is_told_by_the_exit_code_and_does_not_keep_the_others() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let bucket = minio.bucket("stuck");
    let namespace = cluster.create_namespace("stuck");
    let location = format!("s3://{bucket}/x?endpoint={}", minio.endpoint());
    let run = |arguments: &[&str]| on(cluster, &location, arguments).credentials_of(minio);
    for name in ["held", "loose"] {
        run(&["create", name, "-n", &namespace, "--ttl", "1s"]).ok();
    }
    sleep(Duration::from_secs(2));
    let user = minio.limited_user(
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::stuck","arn:aws:s3:::stuck/*"]},{"Effect":"Deny","Action":["s3:DeleteObject"],"Resource":["arn:aws:s3:::stuck/x/backups/held/velero-backup.json"]}]}"#,
    );
    let credentials = user.credentials_file.to_str().unwrap();
    let told = on(cluster, &location, &["prune", "--yes"])
        .args(&["--credentials-file", credentials])
        .code(3);
    assert!(
        told.stderr.contains("backup/held not pruned") && told.stdout.contains("backup/loose"),
        "{}{}",
        told.stdout,
        told.stderr
    );
    assert!(minio.list(bucket, "x/backups/loose/").is_empty());
    run(&["verify", "held"]).ok();
    run(&["prune", "--yes"]).ok();
    assert!(minio.list(bucket, "x/backups/held/").is_empty());
}
