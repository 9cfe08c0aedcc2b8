//! The kinds of hosted control planes in a real API server: brought by the launcher, applied as KKP documents them, refused where they can not be
//! meant; and the plugin's commands about them.

mod bucket;
mod kkp;
mod place;
mod restores;
mod schedules;

use std::fs;
use std::thread;

use harness::cluster::{Cluster, Controllers};
use place::{Plane, crds, manifest, shared};
use serde_json::{Value, json};

const OURS: [&str; 3] = [
    "clusters.kubermatic.k8c.io",
    "etcdbackupconfigs.kubermatic.k8c.io",
    "etcdrestores.kubermatic.k8c.io",
];

const LOCATION: &str = "backupstoragelocations.velero.io";

#[test]
fn the_definitions_come_in_once_and_are_unchanged_the_second_time() {
    let cluster = Cluster::builder().controllers(Controllers::None).start();
    let first = crds(&cluster).ok();
    for name in OURS.iter().chain([&LOCATION]) {
        assert!(
            first
                .stdout
                .contains(&format!("customresourcedefinition/{name} created\n")),
            "{}",
            first.stdout
        );
    }
    let second = crds(&cluster).ok();
    assert_eq!(
        second.stdout.matches(" unchanged\n").count(),
        4,
        "{}",
        second.stdout
    );
    // What somebody took out comes back.
    cluster.kubectl(&["patch", "crd", OURS[1], "--type=json", "-p",
        r#"[{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/keep"}]"#]);
    let third = crds(&cluster).ok();
    assert!(
        third.stdout.contains(&format!("{} configured", OURS[1])),
        "{}",
        third.stdout
    );
    // What is printed is what is kept as manifests, and what a server takes.
    let printed = harness::run::etcd_launcher(&["crds", "--dry-run"])
        .ok()
        .stdout;
    let mut kept = String::new();
    for name in OURS.iter().chain([&LOCATION]) {
        kept.push_str(&fs::read_to_string(manifest(&format!("crds/{name}.yaml"))).unwrap());
    }
    assert_eq!(printed, kept);
    let folder = manifest("crds");
    cluster.kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--validate=strict",
        "-f",
        folder.to_str().unwrap(),
    ]);
    assert_eq!(
        crds(&cluster).ok().stdout.matches(" unchanged\n").count(),
        4
    );
}

#[test]
fn definitions_that_are_not_ours_are_left_alone_and_nothing_else_is_brought() {
    let cluster = Cluster::builder().controllers(Controllers::None).start();
    let foreign = |name: &str, annotations: &str| {
        let (plural, group) = name.split_once('.').unwrap();
        let kind = match plural {
            "etcdrestores" => "EtcdRestore",
            _ => "BackupStorageLocation",
        };
        cluster.apply(&format!(
            "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {name}, annotations: {annotations}}},
              spec: {{group: {group}, scope: Namespaced, names: {{kind: {kind}, plural: {plural}}},
              versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]}}}}"
        ));
    };
    let version = |name: &str| {
        cluster.get_raw(&format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        ))["metadata"]["generation"]
            .clone()
    };
    // As KKP's installer marks them.
    foreign(OURS[2], "{kubermatic.k8c.io/location: 'master,seed'}");
    let before = version(OURS[2]);
    let refused = crds(&cluster).code(1);
    for word in [OURS[2], "KKP", "nothing was changed"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    assert_eq!(version(OURS[2]), before);
    let there = cluster.kubectl(&["get", "crd", "-o", "name"]).stdout;
    assert_eq!(there.lines().count(), 1, "{there}");
    // Anybody else's.
    cluster.kubectl(&["annotate", "crd", OURS[2], "kubermatic.k8c.io/location-"]);
    let refused = crds(&cluster).code(1);
    assert!(refused.stderr.contains("is not ours"), "{}", refused.stderr);
    // A newer program's.
    cluster.kubectl(&["label", "crd", OURS[2], "kubectl-backup/crd=99"]);
    let refused = crds(&cluster).code(1);
    assert!(
        refused.stderr.contains("newer etcd-launcher"),
        "{}",
        refused.stderr
    );
    // Velero's is used as it is.
    cluster.kubectl(&["delete", "crd", OURS[2]]);
    foreign(LOCATION, "{}");
    let before = version(LOCATION);
    let brought = crds(&cluster).ok();
    assert!(
        brought.stdout.contains(&format!("{LOCATION} kept")),
        "{}",
        brought.stdout
    );
    assert_eq!(
        brought.stdout.matches(" created\n").count(),
        3,
        "{}",
        brought.stdout
    );
    assert_eq!(version(LOCATION), before);
}

#[test]
fn a_cluster_that_is_not_there_and_a_user_who_may_not_are_told() {
    let missing = harness::run::etcd_launcher(&["crds", "--kubeconfig", "/does/not/exist"]).code(2);
    assert!(
        missing.stderr.contains("/does/not/exist"),
        "{}",
        missing.stderr
    );
    let cluster = shared();
    let nobody = cluster.user("nobody-of-crds", &[]);
    let refused = harness::run::etcd_launcher(&["crds"])
        .kubeconfig(&nobody)
        .code(1);
    assert!(refused.stderr.contains("forbidden"), "{}", refused.stderr);
}

#[test]
fn the_examples_of_kkps_documentation_are_applied_unchanged() {
    let cluster = shared();
    // Kept as they were documented: nothing but the comment above them is ours.
    let documented = [
        (
            "etcdbackupconfig.yaml",
            "apiVersion: kubermatic.k8c.io/v1\nkind: EtcdBackupConfig\nmetadata:\n  name: daily-backup\n  namespace: cluster-zvc78xnnz7\nspec:\n  cluster:\n    apiVersion: kubermatic.k8c.io/v1\n    kind: Cluster\n    name: zvc78xnnz7\n  schedule: '@every 20m'\n  keep: 20\n  destination: s3\n",
        ),
        (
            "etcdrestore.yaml",
            "apiVersion: kubermatic.k8c.io/v1\nkind: EtcdRestore\nmetadata:\n  name: cluster-restore\n  namespace: cluster-zvc78xnnz7\nspec:\n  cluster:\n    apiVersion: kubermatic.k8c.io/v1\n    kind: Cluster\n    name: zvc78xnnz7\n  backupName: daily-backup-2021-03-02T15:24:00\n  destination: s3\n",
        ),
    ];
    for (file, text) in documented {
        let kept = fs::read_to_string(manifest(&format!("examples/{file}"))).unwrap();
        let kept: String = kept
            .lines()
            .filter(|line| !line.starts_with('#'))
            .fold(String::new(), |all, line| all + line + "\n");
        assert_eq!(kept, text, "{file}");
    }
    for file in [
        "cluster",
        "destination",
        "etcdbackupconfig",
        "etcdbackupconfig-once",
        "etcdrestore",
    ] {
        let path = manifest(&format!("examples/{file}.yaml"));
        cluster.kubectl(&["apply", "--validate=strict", "-f", path.to_str().unwrap()]);
    }
    let plane = Plane {
        cluster,
        name: "zvc78xnnz7".to_owned(),
        namespace: "cluster-zvc78xnnz7".to_owned(),
    };
    let config = plane.get("etcdbackupconfigs", "daily-backup");
    assert_eq!(
        config["spec"]["deletionPolicy"], "Retain",
        "what is not said is shown"
    );
    assert_eq!(config["spec"]["keep"], 20);
    // The status KKP documents can be written, and is read by our commands.
    let row = json!({
        "backupFinishedTime": "2021-03-16T01:48:22Z", "backupName": "zvc78xnnz7-jobtest1-2021-03-16T03:48:00", "backupPhase": "Completed",
        "deleteFinishedTime": "2021-03-16T02:01:43Z", "deleteJobName": "zvc78xnnz7-backup-jobtest1-delete-s8sb8mdsp5", "deletePhase": "Completed",
        "jobName": "zvc78xnnz7-backup-jobtest1-create-rjjq9d4k6d", "scheduledTime": "2021-03-16T01:48:00Z",
    });
    let last = place::good("daily-backup-2021-03-02t15-24-00");
    plane.status(
        "etcdbackupconfig",
        "daily-backup",
        &json!({"lastBackups": [row, last]}),
    );
    assert_eq!(
        plane.get("etcdbackupconfigs", "daily-backup")["status"]["lastBackups"][0],
        row
    );
    plane.status(
        "etcdbackupconfig",
        "daily-backup",
        &json!({"lastSuccessfulTime": "2026-11-20T01:00:04Z"}),
    );
    let columns = cluster
        .kubectl(&[
            "get",
            "etcdbackupconfig",
            "daily-backup",
            "-n",
            &plane.namespace,
        ])
        .stdout;
    for word in [
        "CLUSTER",
        "SCHEDULE",
        "KEEP",
        "DESTINATION",
        "PHASE",
        "LAST-SUCCESS",
        "zvc78xnnz7",
        "@every 20m",
        "20",
        "s3",
        "Completed",
    ] {
        assert!(columns.contains(word), "{word}: {columns}");
    }
    plane.status("etcdrestore", "cluster-restore", &json!({"phase": "StsRebuilding", "attempt": {"step": "Swapping", "of": "a newer program"}}));
    let columns = cluster
        .kubectl(&["get", "etcdrestore", "-n", &plane.namespace])
        .stdout;
    for word in [
        "PHASE",
        "STEP",
        "StsRebuilding",
        "Swapping",
        "daily-backup-2021-03-02T15:24:00",
    ] {
        assert!(columns.contains(word), "{word}: {columns}");
    }
    assert_eq!(
        plane.get("etcdrestores", "cluster-restore")["status"]["attempt"]["of"],
        "a newer program"
    );
    // The documented name finds the snapshot, whatever way the time is written.
    let shown = plane
        .run(&["get", "daily-backup-2021-03-02T15:24:00", "-o", "name"])
        .ok();
    assert_eq!(shown.stdout, "snapshot/daily-backup-2021-03-02t15-24-00\n");
}

fn config(plane: &Plane, name: &str) -> Value {
    json!({
        "apiVersion": "kubermatic.k8c.io/v1", "kind": "EtcdBackupConfig", "metadata": {"name": name, "namespace": plane.namespace},
        "spec": {"cluster": {"apiVersion": "kubermatic.k8c.io/v1", "kind": "Cluster", "name": plane.name}, "schedule": "@every 20m", "keep": 20, "destination": "s3"},
    })
}

fn restore(plane: &Plane, name: &str) -> Value {
    json!({
        "apiVersion": "kubermatic.k8c.io/v1", "kind": "EtcdRestore", "metadata": {"name": name, "namespace": plane.namespace},
        "spec": {"cluster": {"name": plane.name}, "backupName": "daily-backup-2021-03-02T15:24:00", "destination": "s3"},
    })
}

#[test]
fn objects_that_can_not_be_meant_are_refused_with_the_field_and_what_to_write() {
    let plane = Plane::new("refused");
    type Change = fn(&mut Value);
    let configs: [(Change, &str); 15] = [
        (|o| o["spec"]["keep"] = (-1).into(), "spec.keep"),
        (|o| o["spec"]["keep"] = "many".into(), "spec.keep"),
        (
            |o| o["spec"]["schedule"] = "daily".into(),
            "this is no schedule",
        ),
        (
            |o| o["spec"]["schedule"] = "0 1 * *".into(),
            "this is no schedule",
        ),
        (
            |o| o["spec"]["schedule"] = "0 1 * * * *".into(),
            "this is no schedule",
        ),
        (
            |o| o["spec"]["schedule"] = "@every".into(),
            "this is no schedule",
        ),
        (
            |o| o["spec"]["schedule"] = "@every -5m".into(),
            "this is no schedule",
        ),
        (
            |o| o["spec"]["schedule"] = "@reboot".into(),
            "this is no schedule",
        ),
        (
            |o| o["spec"]["shedule"] = "@daily".into(),
            "unknown field \"spec.shedule\"",
        ),
        (
            |o| {
                o["spec"]["schedule"] = "TZ=UTC @daily".into();
                o["spec"]["timeZone"] = "UTC".into();
            },
            "in one place only",
        ),
        (|o| o["spec"]["destination"] = "".into(), "spec.destination"),
        (
            |o| {
                o["spec"].as_object_mut().unwrap().remove("destination");
            },
            "spec.destination",
        ),
        (
            |o| o["spec"]["cluster"] = json!({}),
            "a cluster must be named",
        ),
        (
            |o| o["spec"]["cluster"]["kind"] = "ExternalCluster".into(),
            "only etcd of a Cluster",
        ),
        (
            |o| o["spec"]["deletionPolicy"] = "Forget".into(),
            "spec.deletionPolicy",
        ),
    ];
    for (number, (change, told)) in configs.into_iter().enumerate() {
        let mut object = config(&plane, &format!("bad-{number}"));
        change(&mut object);
        let refused = plane.try_apply(&object);
        assert!(
            refused.code == 1 && refused.stderr.contains(told),
            "{object}\n{}",
            refused.stderr
        );
    }
    let restores: [(Change, &str); 8] = [
        (
            |o| o["spec"]["backupName"] = "../../other".into(),
            "no '/' and no '..'",
        ),
        (
            |o| o["spec"]["backupName"] = "a/b".into(),
            "no '/' and no '..'",
        ),
        (
            |o| o["spec"]["backupName"] = "..".into(),
            "no '/' and no '..'",
        ),
        (
            |o| o["spec"]["backupName"] = "a b".into(),
            "letters, digits",
        ),
        (|o| o["spec"]["backupName"] = "".into(), "spec.backupName"),
        (
            |o| {
                o["spec"].as_object_mut().unwrap().remove("backupName");
            },
            "spec.backupName",
        ),
        (
            |o| o["spec"]["backupname"] = "x".into(),
            "unknown field \"spec.backupname\"",
        ),
        (
            |o| o["spec"]["cluster"] = json!({"name": ""}),
            "a cluster must be named",
        ),
    ];
    for (number, (change, told)) in restores.into_iter().enumerate() {
        let mut object = restore(&plane, &format!("bad-{number}"));
        change(&mut object);
        let refused = plane.try_apply(&object);
        assert!(
            refused.code == 1 && refused.stderr.contains(told),
            "{object}\n{}",
            refused.stderr
        );
    }
    let long = config(&plane, &"a".repeat(233));
    let refused = plane.try_apply(&long);
    assert!(
        refused.stderr.contains("the name is too long"),
        "{}",
        refused.stderr
    );
}

#[test]
fn every_schedule_that_kkp_takes_is_taken() {
    let plane = Plane::new("taken");
    let schedules = [
        "",
        "@every 20m",
        "@every 1h30m",
        "@every 1.5h",
        "0 1 * * *",
        "*/5 0-6,22 1,15 JAN-mar ?",
        "0 22 * * SUN",
        "@daily",
        "@midnight",
        "@weekly",
        "@monthly",
        "@yearly",
        "@annually",
        "@hourly",
        "CRON_TZ=Europe/Berlin 0 1 * * *",
        "TZ=Asia/Kolkata @daily",
    ];
    for (number, schedule) in schedules.into_iter().enumerate() {
        let mut object = config(&plane, &format!("good-{number}"));
        object["spec"]["schedule"] = schedule.into();
        plane.try_apply(&object).ok();
    }
    let mut zoned = config(&plane, "zoned");
    zoned["spec"]["timeZone"] = "America/Argentina/Buenos_Aires".into();
    zoned["spec"]["name"] = "as KKP writes it".into();
    zoned["spec"]["keep"] = 500.into();
    zoned["spec"]["cluster"]["uid"] = "x".into();
    plane.try_apply(&zoned).ok();
}

#[test]
fn what_a_snapshot_or_restore_is_about_can_not_be_changed_afterwards() {
    let plane = Plane::new("immutable");
    let change = |object: &Value, pointer: &str, value: &str, told: &str| {
        let mut object = object.clone();
        *object.pointer_mut(pointer).unwrap() = value.into();
        let refused = plane.try_apply(&object);
        assert!(
            refused.code == 1 && refused.stderr.contains(told),
            "{pointer}\n{}",
            refused.stderr
        );
    };
    let config = config(&plane, "c");
    plane.try_apply(&config).ok();
    change(
        &config,
        "/spec/cluster/name",
        "other",
        "the cluster can not be changed",
    );
    change(
        &config,
        "/spec/destination",
        "other",
        "the destination can not be changed",
    );
    let restore = restore(&plane, "r");
    plane.try_apply(&restore).ok();
    change(
        &restore,
        "/spec/cluster/name",
        "other",
        "the cluster can not be changed",
    );
    change(
        &restore,
        "/spec/backupName",
        "other",
        "the snapshot can not be changed",
    );
    // Keep and schedule may be.
    let mut other = config.clone();
    other["spec"]["schedule"] = "@daily".into();
    other["spec"]["keep"] = 3.into();
    plane.try_apply(&other).ok();
}

/// Several programs start at once, in the same cluster.
#[test]
fn two_that_bring_the_definitions_at_once_do_not_hinder_each_other() {
    let cluster = Cluster::builder().controllers(Controllers::None).start();
    let runs: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| crds(&cluster).run()))
            .collect();
        started.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(runs.iter().any(|run| run.code == 0), "{runs:?}");
    for run in runs.iter().filter(|run| run.code != 0) {
        assert!(
            run.stderr.contains("give the same command again"),
            "{}",
            run.stderr
        );
    }
    crds(&cluster).ok();
}
