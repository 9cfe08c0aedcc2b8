//! Snapshots that objects ask for: taken by the launchers beside etcd, stored in a bucket, told in the objects' status.

mod bad;
mod deleted;
mod leader;
mod place;
mod stores;

use std::time::Duration;

use harness::hosted::{BUCKET, CLUSTER, Hosted};
use harness::run::kubectl_backup;
use place::{CONFIG, condition, good, manifests, names, rows, settled, snapshots, wait};
use serde_json::Value;

#[test]
fn kkps_documented_config_is_applied_unchanged_and_its_snapshots_are_in_bucket_and_status() {
    let hosted = Hosted::builder().members(3).with_own_hosting().start();
    hosted.keys(0).put("/registry/configmaps/default/a", b"1");
    hosted.hosting.apply(CONFIG);
    // Not due before 20 minutes have passed.
    let config = wait(&hosted, "daily-backup", "its next slot", |config| {
        config["status"]["nextScheduledTime"].is_string()
    });
    let time = |value: &Value| -> jiff::Timestamp { value.as_str().unwrap().parse().unwrap() };
    let created = time(&config["metadata"]["creationTimestamp"]);
    let next = time(&config["status"]["nextScheduledTime"]);
    assert_eq!(next.duration_since(created).as_secs(), 20 * 60);
    assert_eq!(condition(&config, "SchedulingActive")["status"], "True");
    assert_eq!(condition(&config, "DestinationReady")["status"], "True");
    assert_eq!(config["status"]["observedGeneration"], 1);
    assert!(rows(&config).is_empty() && snapshots(&hosted).is_empty());

    // An hour in which nobody looked: three slots passed, and one snapshot makes up for them.
    hosted.age_backup_config("daily-backup", 61 * 60);
    let revision = hosted.keys(0).revision();
    let config = wait(&hosted, "daily-backup", "a snapshot", |config| {
        good(config).len() == 1
    });
    let rows_now = rows(&config);
    assert_eq!(rows_now.len(), 1, "{config}");
    let row = &rows_now[0];
    let slot = created - jiff::SignedDuration::from_mins(61) + jiff::SignedDuration::from_mins(60);
    assert_eq!(time(&row["scheduledTime"]), slot);
    let name = slot.strftime("daily-backup-%Y-%m-%dt%H-%M-%S").to_string();
    assert_eq!(row["backupName"], name.as_str());
    for field in ["jobName", "backupStartTime", "backupFinishedTime"] {
        assert!(row[field].is_string(), "{field}: {row}");
    }
    assert_eq!(
        config["status"]["currentBackups"],
        config["status"]["lastBackups"]
    );
    assert_eq!(
        config["status"]["lastSuccessfulTime"],
        row["backupFinishedTime"]
    );

    // The row is what the bucket says, and what etcd had.
    let manifest = &manifests(&hosted)[&name];
    assert_eq!(manifest["config"], "daily-backup");
    assert_eq!(manifest["cluster"], CLUSTER);
    assert_eq!(row["hash"], manifest["snapshot"]["sha256"]);
    assert_eq!(row["backupSize"], manifest["data"]["bytes"]);
    assert_eq!(row["revision"], revision);
    assert_eq!(manifest["etcd"]["leader"], false, "a follower is asked");
    let folder = format!("plugins/etcd-launcher/{CLUSTER}/{name}");
    let data = manifest["data"]["file"].as_str().unwrap();
    let stored = hosted.minio.get(BUCKET, &format!("{folder}/{data}"));
    assert_eq!(row["backupSize"], stored.len());
    assert_eq!(
        hosted.minio.list(BUCKET, &folder).len(),
        2,
        "nothing is left beside them"
    );
    let event = format!("SnapshotTaken: snapshot {name} was taken: revision {revision}");
    hosted.relaunch_until("the event", Duration::from_secs(30), || {
        let events = hosted.events_about("daily-backup");
        events
            .iter()
            .any(|one| one.starts_with(&event))
            .then_some(())
    });

    // The next slot, and nothing in between.
    hosted.age_backup_config("daily-backup", 21 * 60);
    let config = wait(&hosted, "daily-backup", "a second snapshot", |config| {
        good(config).len() == 2
    });
    // The clock of this test went back between the two, and so did their names.
    let mut told = names(&rows(&config));
    told.sort();
    assert_eq!(told, snapshots(&hosted));
    let columns = hosted
        .hosting
        .kubectl(&["get", "etcdbackupconfig", "-n", &hosted.namespace]);
    for word in ["@every 20m", "20", "s3", "Completed"] {
        assert!(columns.stdout.contains(word), "{word}: {}", columns.stdout);
    }
    // And the plugin finds it by the name KKP's documentation would write.
    let listed = kubectl_backup(&["etcd", "get", "--cluster", &hosted.name, "-o", "name"])
        .kubeconfig(hosted.hosting.kubeconfig())
        .ok();
    assert!(listed.stdout.contains(&name), "{}", listed.stdout);
}

#[test]
fn of_a_schedule_the_newest_are_kept_in_bucket_and_status_alike() {
    let hosted = Hosted::builder().start();
    hosted.apply_backup_config("often", "schedule: '@every 1s', keep: 2, destination: s3");
    let mut seen: Vec<String> = Vec::new();
    hosted.relaunch_until("many snapshots", Duration::from_secs(120), || {
        let config = hosted.backup_config("often")?;
        for name in names(&rows(&config)) {
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        (seen.len() >= 7).then_some(())
    });
    hosted.apply_backup_config("often", "schedule: '@yearly', keep: 2, destination: s3");
    let config = settled(&hosted, "often", 2);
    let kept = names(&rows(&config));
    assert_eq!(snapshots(&hosted), kept);
    seen.extend(kept.clone());
    seen.sort();
    seen.dedup();
    assert_eq!(
        kept,
        seen[seen.len() - 2..],
        "they are the newest: {seen:?}"
    );
    // Fewer are asked for.
    hosted.apply_backup_config("often", "schedule: '@yearly', keep: 1, destination: s3");
    let config = settled(&hosted, "often", 1);
    assert_eq!(names(&rows(&config)), kept[1..]);
    assert_eq!(snapshots(&hosted), kept[1..]);
}

#[test]
fn one_snapshot_that_is_asked_for_by_the_plugin_is_taken_once() {
    let hosted = Hosted::builder().start();
    let written = hosted.keys(0).put("/registry/a", b"1");
    let run = kubectl_backup(&[
        "etcd",
        "snapshot",
        "before-upgrade",
        "--cluster",
        &hosted.name,
        "--wait",
        "--timeout",
        "60s",
    ])
    .kubeconfig(hosted.hosting.kubeconfig())
    .ok();
    assert!(run.stdout.contains("completed"), "{}", run.stdout);
    assert!(
        run.stdout.contains(&format!("revision {written}")),
        "{}",
        run.stdout
    );
    let config = hosted.backup_config("before-upgrade").unwrap();
    let name = names(&rows(&config)).remove(0);
    let created = config["metadata"]["creationTimestamp"].as_str().unwrap();
    let time = created.to_lowercase().replace(':', "-").replace('z', "");
    assert_eq!(name, format!("before-upgrade-{time}"));
    // However long it stands: once.
    hosted.age_backup_config("before-upgrade", 90 * 24 * 3600);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        rows(&hosted.backup_config("before-upgrade").unwrap()).len(),
        1
    );
    // A snapshot that is deleted by hand is not taken again.
    kubectl_backup(&["etcd", "delete", &name, "--cluster", &hosted.name, "--yes"])
        .kubeconfig(hosted.hosting.kubeconfig())
        .env("HTTP_PROXY", "")
        .ok();
    assert_eq!(snapshots(&hosted), Vec::<String>::new());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(snapshots(&hosted), Vec::<String>::new());
}

#[test]
fn while_a_restore_has_the_cluster_no_snapshot_is_taken_and_afterwards_they_go_on() {
    let hosted = Hosted::builder().start();
    hosted.keys(0).put("/registry/earlier", b"1");
    hosted.apply_backup_config("often", "schedule: '@every 1s', keep: 3, destination: s3");
    let config = wait(&hosted, "often", "a snapshot", |config| {
        !good(config).is_empty()
    });
    let name = names(&good(&config)).remove(0);
    hosted.keys(0).put("/registry/later", b"2");
    // Kept whatever retention does: the restore needs it.
    hosted.apply_backup_config("often", "schedule: '@every 1s', keep: 50, destination: s3");
    hosted.apply_restore("back", &name);
    let mut held_up = false;
    let restore = hosted.relaunch_until("the end of the restore", Duration::from_secs(240), || {
        let config = hosted.backup_config("often")?;
        let scheduling = condition(&config, "SchedulingActive");
        held_up |= scheduling["reason"] == "RestoreActive" && scheduling["status"] == "False";
        let restore = hosted.restore("back")?;
        let phase = restore["status"]["phase"].as_str().unwrap_or_default();
        assert!(
            !["Failed", "RolledBack"].contains(&phase),
            "{}",
            hosted.story()
        );
        (phase == "Completed").then_some(restore)
    });
    assert!(held_up, "nothing said that a restore was at work");
    hosted.wait_until_settled();
    let target = restore["status"]["attempt"]["targetRevision"]
        .as_i64()
        .unwrap();
    let config = wait(&hosted, "often", "a snapshot of the new state", |config| {
        let last = good(config).pop();
        last.is_some_and(|row| row["revision"].as_i64() >= Some(target))
    });
    // None was taken in between: each is of the old state or of the new one.
    let time = |row: &Value, field: &str| -> jiff::Timestamp {
        row[field].as_str().unwrap().parse().unwrap()
    };
    let all = good(&config);
    let first_new = all
        .iter()
        .find(|row| row["revision"].as_i64() >= Some(target))
        .unwrap();
    let ended: jiff::Timestamp = restore["status"]["restoreTime"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        time(first_new, "backupStartTime")
            .duration_since(ended)
            .as_secs()
            >= 0,
        "{first_new} began before {ended}"
    );
    assert_eq!(condition(&config, "SchedulingActive")["status"], "True");
}
