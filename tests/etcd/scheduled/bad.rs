//! Configs that can not be meant: each says why, in its status and in a condition, and does no harm.

use std::time::Duration;

use harness::hosted::Hosted;

use super::place::{LONG, condition, good, rows, snapshots, wait};

#[test]
fn what_can_not_be_meant_is_told_in_message_and_condition_and_nothing_is_taken() {
    let hosted = Hosted::builder().start();
    let namespace = hosted.namespace.as_str();
    // What the definition lets through, for it can not know better.
    hosted.apply_backup_config("bad-cron", "schedule: '61 * * * *', destination: s3");
    hosted.apply_backup_config("never", "schedule: '0 0 31 2 *', destination: s3");
    hosted.apply_backup_config(
        "bad-zone",
        "schedule: '@daily', timeZone: Mars/Base, destination: s3",
    );
    hosted.apply_backup_config("nowhere", "schedule: '@every 1s', keep: 3, destination: s4");
    hosted.apply_backup_config("once-nowhere", "destination: s4");
    hosted.hosting.apply(&format!(
        "apiVersion: kubermatic.k8c.io/v1
kind: EtcdBackupConfig
metadata: {{name: stranger, namespace: {namespace}}}
spec: {{cluster: {{name: another}}, destination: s3}}
"
    ));
    for (name, reason, words) in [
        ("bad-cron", "InvalidSchedule", ["61", "schedule"]),
        ("never", "InvalidSchedule", ["0 0 31 2 *", "schedule"]),
        ("bad-zone", "InvalidSchedule", ["Mars/Base", "time zone"]),
        ("stranger", "ClusterNotHere", ["another", namespace]),
    ] {
        let config = wait(&hosted, name, reason, |config| {
            condition(config, "SchedulingActive")["reason"] == reason
        });
        let condition = condition(&config, "SchedulingActive");
        assert_eq!(condition["status"], "False");
        let message = config["status"]["message"].as_str().unwrap();
        assert_eq!(condition["message"], message);
        for word in words {
            assert!(message.contains(word), "{name}: {message}");
        }
        assert_eq!(rows(&config).len(), 0);
    }
    // A slot of a schedule passes with a row that says why; few of them are kept.
    let config = wait(&hosted, "nowhere", "failed slots", |config| {
        rows(config).len() >= 3
    });
    let row = rows(&config).remove(0);
    assert_eq!(row["backupPhase"], "Failed");
    let message = row["backupMessage"].as_str().unwrap();
    assert!(
        message.contains("\"s4\"") && message.contains("BackupStorageLocation"),
        "{message}"
    );
    assert_eq!(condition(&config, "DestinationReady")["status"], "False");
    assert!(
        config["status"]["message"]
            .as_str()
            .unwrap()
            .contains("\"s4\"")
    );
    std::thread::sleep(Duration::from_secs(3));
    let config = hosted.backup_config("nowhere").unwrap();
    assert!(rows(&config).len() <= 4, "{config}");
    // A request for one snapshot waits for its destination, and goes on once it is there.
    let config = wait(&hosted, "once-nowhere", "the reason", |config| {
        condition(config, "DestinationReady")["status"] == "False"
    });
    assert_eq!(rows(&config).len(), 0);
    assert_eq!(snapshots(&hosted), Vec::<String>::new());
    hosted.apply_destination("s4", hosted.minio.endpoint(), &hosted.owner());
    for name in ["once-nowhere", "nowhere"] {
        wait(&hosted, name, "a snapshot after all", |config| {
            !good(config).is_empty() && condition(config, "DestinationReady")["status"] == "True"
        });
    }
}

#[test]
fn where_the_definition_lets_everything_through_the_launcher_itself_says_what_is_wrong() {
    let hosted = Hosted::builder().with_own_hosting().start();
    // As an older or a foreign definition would have it: no bounds, and no field refused.
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let lax = format!(
        r#"[{{"op": "remove", "path": "{spec}/properties/keep/minimum"}},
            {{"op": "add", "path": "{spec}/x-kubernetes-preserve-unknown-fields", "value": true}}]"#
    );
    hosted.hosting.kubectl(&[
        "patch",
        "crd",
        "etcdbackupconfigs.kubermatic.k8c.io",
        "--type=json",
        "-p",
        &lax,
    ]);
    hosted.relaunch_until("the new definition", LONG, || {
        let applied = hosted.hosting.try_kubectl(&[
            "patch", "crd", "etcdbackupconfigs.kubermatic.k8c.io", "--type=json", "--dry-run=server", "-p",
            &format!(r#"[{{"op": "test", "path": "{spec}/x-kubernetes-preserve-unknown-fields", "value": true}}]"#),
        ]);
        (applied.code == 0).then_some(())
    });
    let apply = |name: &str, fields: &str| {
        hosted.relaunch_until("it to be taken", LONG, || {
            let body = format!(
                r#"{{"apiVersion": "kubermatic.k8c.io/v1", "kind": "EtcdBackupConfig", "metadata": {{"name": "{name}"}},
                    "spec": {{"cluster": {{"name": "zvc78xnnz7"}}, "destination": "s3", {fields}}}}}"#
            );
            let path = format!("/apis/kubermatic.k8c.io/v1/namespaces/{}/etcdbackupconfigs", hosted.namespace);
            let answer = hosted.hosting.client().post_json(&path, body).unwrap();
            if !answer.is_success() {
                return None;
            }
            let kept = answer.json();
            let all = fields.split(", ").all(|field| {
                let name = field.split('"').nth(1).unwrap();
                kept["spec"].get(name).is_some()
            });
            if !all {
                hosted.hosting.kubectl(&["delete", "etcdbackupconfig", "-n", &hosted.namespace, name]);
            }
            all.then_some(())
        });
    };
    apply("misspelled", r#""shedule": "@every 1s""#);
    let config = wait(&hosted, "misspelled", "a word about it", |config| {
        condition(config, "SchedulingActive")["reason"] == "InvalidSpec"
    });
    let message = config["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("spec.shedule") && message.contains("schedule,"),
        "{message}"
    );
    assert_eq!(rows(&config).len(), 0);
    apply("negative", r#""schedule": "@every 1s", "keep": -3"#);
    let config = wait(&hosted, "negative", "what it counts as", |config| {
        let message = config["status"]["message"].as_str().unwrap_or_default();
        message.contains("keep is -3, which counts as 1") && !good(config).is_empty()
    });
    assert!(good(&config).len() <= 2, "{config}");
}

#[test]
fn where_kkp_manages_the_clusters_configs_are_left_to_it() {
    let hosted = Hosted::builder().managed_by_kkp().start();
    let fields = "name: often, schedule: '@every 1s', keep: 2, destination: s3";
    hosted.apply_backup_config("often", fields);
    hosted.relaunch_until("a word about it", LONG, || {
        let said = hosted.members[0].log();
        said.contains("snapshots are left to KKP").then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    let config = hosted.backup_config("often").unwrap();
    assert!(config.get("status").is_none(), "{config}");
    assert_eq!(snapshots(&hosted), Vec::<String>::new());
}

#[test]
fn a_cluster_that_a_controller_of_kkps_works_on_is_left_to_it_as_long_as_it_does() {
    let hosted = Hosted::builder().start();
    let finalizers = |list: &str| {
        let patch = format!(r#"{{"metadata": {{"finalizers": {list}}}}}"#);
        hosted.hosting.kubectl(&[
            "patch",
            "cluster.kubermatic.k8c.io",
            &hosted.name,
            "--type=merge",
            "-p",
            &patch,
        ]);
    };
    finalizers(r#"["kubermatic.k8c.io/cleanup-etcdbackupconfigs"]"#);
    hosted.apply_backup_config("often", "schedule: '@every 1s', keep: 2, destination: s3");
    let config = wait(&hosted, "often", "whose it is", |config| {
        condition(config, "ManagedByKKP")["status"] == "True"
    });
    let message = condition(&config, "ManagedByKKP")["message"].clone();
    assert!(message.as_str().unwrap().contains("finalizer"), "{message}");
    let taken = snapshots(&hosted);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(snapshots(&hosted), taken);
    finalizers("[]");
    wait(&hosted, "often", "snapshots of ours", |config| {
        good(config).len() == 2 && config["status"]["conditions"].get("ManagedByKKP").is_none()
    });
}
