//! Stores that do not do their part: a slot may be lost, and nothing else.

use std::fs;
use std::time::{Duration, SystemTime};

use harness::hosted::{BUCKET, Hosted};
use harness::process::Folder;
use harness::proxy::{Action, Match, Proxy};

use super::place::{LONG, good, names, rows, settled, snapshots, wait};

#[test]
fn a_bucket_that_is_dead_fails_its_slots_in_time_and_hinders_nobody_else() {
    let hosted = Hosted::builder().start();
    let proxy = Proxy::start(hosted.minio.upstream());
    hosted.apply_destination("dying", &proxy.url(), &hosted.owner());
    proxy.every(Match::any(), Action::Delay(Duration::from_secs(3600)));
    hosted.apply_backup_config("dead", "schedule: '@every 1s', keep: 2, destination: dying");
    wait(&hosted, "dead", "a row that runs", |config| {
        !rows(config).is_empty()
    });
    hosted.apply_backup_config("alive", "schedule: '@every 1s', keep: 2, destination: s3");
    wait(&hosted, "alive", "snapshots meanwhile", |config| {
        good(config).len() == 2
    });
    let config = wait(&hosted, "dead", "a slot that failed", |config| {
        rows(config)
            .iter()
            .any(|row| row["backupPhase"] == "Failed")
    });
    let message = rows(&config)[0]["backupMessage"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.contains("does not answer"), "{message}");
    let told = wait(&hosted, "dead", "the reason in the status", |config| {
        let message = config["status"]["message"].as_str().unwrap_or_default();
        message.contains("the last snapshot failed")
    });
    assert_eq!(told["status"].get("lastSuccessfulTime"), None);
    assert!(
        hosted
            .events_about("dead")
            .iter()
            .any(|one| one.starts_with("SnapshotFailed:"))
    );
    // It lives again: nothing has to be done by hand.
    proxy.clear_rules();
    let config = wait(&hosted, "dead", "snapshots again", |config| {
        good(config).len() == 2
    });
    let status = &config["status"];
    assert!(status["lastSuccessfulTime"].is_string(), "{config}");
    wait(&hosted, "dead", "no complaint", |config| {
        config["status"].get("message").is_none()
    });
}

#[test]
fn a_bucket_that_refuses_deletes_stops_no_snapshot_and_is_tidied_once_it_allows_them() {
    let hosted = Hosted::builder().start();
    let user = hosted.minio.limited_user(&format!(
        r#"{{"Version": "2012-10-17", "Statement": [
            {{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}},
            {{"Effect": "Deny", "Action": ["s3:DeleteObject"], "Resource": ["arn:aws:s3:::{BUCKET}/*/manifest.json"]}}]}}"#
    ));
    let credentials = fs::read_to_string(&user.credentials_file).unwrap();
    hosted.apply_destination("locked", hosted.minio.endpoint(), &credentials);
    hosted.apply_backup_config(
        "often",
        "schedule: '@every 1s', keep: 1, destination: locked",
    );
    let config = wait(&hosted, "often", "new ones beside old ones", |config| {
        let stuck = rows(config)
            .iter()
            .filter(|row| row["deletePhase"] == "Failed")
            .count();
        let message = config["status"]["message"].as_str().unwrap_or_default();
        stuck >= 2 && rows(config).len() >= 4 && message.contains("can not be removed")
    });
    let stuck = rows(&config)
        .into_iter()
        .find(|row| row["deletePhase"] == "Failed")
        .unwrap();
    assert_eq!(stuck["backupPhase"], "Completed");
    assert!(
        stuck["deleteMessage"].as_str().unwrap().len() > 10,
        "{stuck}"
    );
    let name = stuck["backupName"].as_str().unwrap();
    assert!(snapshots(&hosted).contains(&name.to_owned()));
    let told = hosted
        .events_about("often")
        .iter()
        .filter(|one| one.starts_with("SnapshotNotRemoved:") && one.contains(name))
        .count();
    assert_eq!(told, 1, "once, not at every attempt");
    hosted.apply_destination("locked", hosted.minio.endpoint(), &hosted.owner());
    hosted.apply_backup_config("often", "schedule: '@yearly', keep: 1, destination: locked");
    let config = settled(&hosted, "often", 1);
    assert_eq!(snapshots(&hosted), names(&rows(&config)));
}

#[test]
fn a_row_that_names_the_snapshot_of_somebody_else_removes_nothing() {
    let hosted = Hosted::builder().start();
    hosted.apply_backup_config("mine", "destination: s3");
    let mine = names(&rows(&settled(&hosted, "mine", 1))).remove(0);
    hosted.apply_backup_config("other", "destination: s3, deletionPolicy: Delete");
    settled(&hosted, "other", 1);
    let body = serde_json::json!({"status": {"lastBackups": [{
        "backupName": mine, "backupPhase": "Completed", "scheduledTime": "2026-01-01T00:00:00Z",
    }]}});
    hosted.hosting.kubectl(&[
        "patch",
        "etcdbackupconfig",
        "-n",
        &hosted.namespace,
        "other",
        "--subresource=status",
        "--type=merge",
        "-p",
        &body.to_string(),
    ]);
    hosted.hosting.kubectl(&[
        "delete",
        "etcdbackupconfig",
        "-n",
        &hosted.namespace,
        "other",
        "--wait=false",
    ]);
    hosted.relaunch_until("it to be gone", LONG, || {
        hosted.backup_config("other").is_none().then_some(())
    });
    assert!(snapshots(&hosted).contains(&mine));
}

#[test]
fn what_a_dead_run_left_is_swept_after_a_day_and_what_is_younger_stays() {
    let hosted = Hosted::builder().start();
    let (cluster, namespace) = (&hosted.name, &hosted.namespace);
    let folder = Folder::new("destination");
    hosted.hosting.apply(&format!(
        "apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: folder, namespace: {namespace}}}
spec: {{provider: local, objectStorage: {{bucket: {}}}}}
",
        folder.path().display()
    ));
    let orphan = |name: &str, hours: u64| {
        let path = folder.write(
            format!(
                "plugins/etcd-launcher/{cluster}/{name}/0123456789abcdef0123456789abcdef.db.zst"
            ),
            "half a snapshot",
        );
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(then).unwrap();
        path
    };
    let (old, young) = (
        orphan("daily-2026-01-02t00-00-00", 25),
        orphan("daily-2026-01-03t00-00-00", 23),
    );
    hosted.apply_backup_config("once", "destination: folder");
    let config = settled(&hosted, "once", 1);
    hosted.relaunch_until("the sweep", LONG, || (!old.exists()).then_some(()));
    assert!(young.exists(), "it may be a run's that is at work");
    let name = names(&good(&config)).remove(0);
    let kept = folder.join(format!("plugins/etcd-launcher/{cluster}/{name}"));
    assert_eq!(fs::read_dir(kept).unwrap().count(), 2);
}
