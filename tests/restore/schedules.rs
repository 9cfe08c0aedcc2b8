//! A restore of a schedule's newest backup, and the end of its record.

use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::kubectl_backup;

use crate::place::{Place, bind};

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: NS}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
";

#[test]
fn the_newest_good_backup_of_a_schedule_is_restored_and_its_record_is_deleted() {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("scheduled");
    let backup = |name: &str, more: &[&str]| {
        let create = ["create", name, "-n", &namespace];
        place.run(&[&create, more].concat())
    };
    let of = ["--labels", "velero.io/schedule-name=nightly"];
    backup("nightly-1", &of).ok();
    cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "configmap",
        "second",
        "--from-literal=a=b",
    ]);
    backup("nightly-2", &of).ok();
    backup("other", &["--labels", "velero.io/schedule-name=weekly"]).ok();
    // A snapshot of a volume is asked for and can not be made yet.
    cluster.apply(&CLAIM.replace("NS", &namespace));
    bind(cluster, &namespace, "data");
    backup("nightly-3", &[&of[..], &["--snapshot-volumes"]].concat()).code(3);

    let planned = |more: &[&str]| {
        let restore = [
            "restore",
            "create",
            "--from-schedule",
            "nightly",
            "--dry-run=client",
        ];
        place.run(&[&restore, more].concat()).run().stderr
    };
    let told = planned(&[]);
    assert!(
        told.contains("newest backup of schedule nightly is nightly-2"),
        "{told}"
    );
    let told = planned(&["--allow-partially-failed"]);
    assert!(
        told.contains("newest backup of schedule nightly is nightly-3"),
        "{told}"
    );

    cluster.kubectl(&["-n", &namespace, "delete", "configmap", "second"]);
    place
        .run(&["restore", "create", "back", "--from-schedule", "nightly"])
        .ok();
    cluster.kubectl(&["-n", &namespace, "get", "configmap", "second"]);
    let shown = place
        .run(&["restore", "get", "back", "-o", "json"])
        .ok()
        .json();
    assert_eq!(shown["spec"]["backupName"], "nightly-2");

    for (arguments, code, says) in [
        (
            &["restore", "create", "--from-schedule", "absent"][..],
            1,
            "get -l velero.io/schedule-name=absent",
        ),
        (&["restore", "create"], 2, "--from-backup"),
        (
            &[
                "restore",
                "create",
                "--from-backup",
                "other",
                "--from-schedule",
                "nightly",
            ],
            2,
            "cannot be used with",
        ),
        (
            &[
                "restore",
                "create",
                "--from-backup",
                "other",
                "--allow-partially-failed",
            ],
            2,
            "cannot be used with",
        ),
        (&["restore", "delete", "back"], 2, "--yes"),
        (
            &["restore", "delete", "back", "absent", "--yes"],
            1,
            "absent",
        ),
    ] {
        let refused = place.run(arguments).code(code);
        assert!(
            refused.stderr.contains(says),
            "{arguments:?}\n{}",
            refused.stderr
        );
    }
    let done = place.run(&["restore", "delete", "back", "--yes"]).ok();
    assert_eq!(done.stdout, "restore/back deleted\n");
    assert!(!place.folder.join("restores/back").exists());
    place.run(&["restore", "describe", "back"]).code(1);
    // What it restored stays.
    cluster.kubectl(&["-n", &namespace, "get", "configmap", "second"]);

    // A restore that is not finished goes on by its record.
    let journal = "restores/half/journal-000000.jsonl.zst";
    std::fs::create_dir_all(place.folder.join("restores/half")).unwrap();
    place.folder.write(journal, "begun");
    let refused = place.run(&["restore", "delete", "half", "--yes"]).code(1);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert!(place.folder.join(journal).exists());
    place
        .run(&["restore", "delete", "half", "--yes", "--force"])
        .ok();
    assert!(!place.folder.join("restores/half").exists());
    // Velero's record of its restore is in its cluster.
    let results = "restores/theirs/restore-theirs-results.gz";
    std::fs::create_dir_all(place.folder.join("restores/theirs")).unwrap();
    place.folder.write(results, "packed");
    let refused = place.run(&["restore", "delete", "theirs", "--yes"]).code(1);
    assert!(refused.stderr.contains("velero"), "{}", refused.stderr);
    assert!(place.folder.join(results).exists());
}

#[test]
fn another_clusters_backup_of_a_schedule_is_restored_only_where_its_folder_is_named() {
    let cluster = Cluster::shared();
    let namespace = cluster.create_namespace("own-schedule");
    let home = Folder::new("home");
    let run = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig())
    };
    let of = "velero.io/schedule-name=nightly";
    run(&["create", "theirs", "-n", &namespace, "--labels", of]).ok();
    let folders = home.join(".local/share/kubectl-backup");
    let own = std::fs::read_dir(&folders).unwrap().next().unwrap();
    // What it would be like with the folder of another cluster, and no good backup in its own.
    let other = folders.join("11111111-2222-3333-4444-555555555555");
    std::fs::rename(own.unwrap().path(), &other).unwrap();
    let restore = [
        "restore",
        "create",
        "--from-schedule",
        "nightly",
        "--dry-run=client",
    ];
    let refused = run(&restore).code(1);
    assert!(
        refused.stderr.contains("no completed backup"),
        "{}",
        refused.stderr
    );
    let named = format!("file://{}", other.display());
    let planned = run(&[&restore[..], &["--location", &named]].concat()).ok();
    assert!(planned.stderr.contains("theirs"), "{}", planned.stderr);
}
