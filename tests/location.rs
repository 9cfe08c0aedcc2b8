//! Locations: created, checked, looked up, guarded.

mod faults;
mod from_cluster;
mod google_itself;
mod kept;
mod policy;
mod providers;
mod signin;
mod two_clusters;
mod velero;

use std::fs;

use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::{etcd_launcher, kubectl_backup};
use harness::store::Minio;

use crate::place::{Place, on};

#[test]
fn with_nothing_configured_backups_go_to_a_folder_of_the_users() {
    let cluster = Cluster::shared();
    let namespace = cluster.create_namespace("default-folder");
    let home = Folder::new("home");
    let run = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig())
    };
    run(&["create", "b", "-n", &namespace]).ok();
    let uid = cluster.get_raw("/api/v1/namespaces/kube-system")["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    let folder = home.join(".local/share/kubectl-backup").join(&uid);
    assert!(folder.join("backups/b/velero-backup.json").exists());
    assert!(run(&["get"]).ok().stdout.contains('b'));
    // At 3 a.m. the cluster is gone; the backup is still found by its name.
    let nowhere = home.write(
        "nowhere",
        fs::read_to_string(cluster.kubeconfig())
            .unwrap()
            .replace(&cluster.api_url(), "https://127.0.0.1:1"),
    );
    let listed = run(&["get"]).kubeconfig(&nowhere).ok();
    assert!(
        listed.stdout.contains('b') && listed.stdout.contains("CLUSTER"),
        "{}",
        listed.stdout
    );
    run(&["describe", "b"]).kubeconfig(&nowhere).ok();
    run(&["verify", "b"]).kubeconfig(&nowhere).ok();
}

#[test]
fn who_sees_a_namespace_alone_gets_a_folder_and_is_told_where_locations_may_be_hidden() {
    // A cluster of its own: what others bring into the shared one decides here.
    let cluster = Cluster::start();
    let namespace = cluster.create_namespace("own-folder");
    let home = Folder::new("home");
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "owner",
        "-n",
        &namespace,
        "--clusterrole=admin",
        "--user=owner-of-a-folder",
    ]);
    let owner = cluster.user("owner-of-a-folder", &[]);
    let create = |name: &str| {
        kubectl_backup(&["create", name, "-n", &namespace])
            .home(home.path())
            .kubeconfig(&owner)
    };
    let made = create("own").run();
    assert!([0, 3].contains(&made.code), "{}", made.stderr);
    assert!(
        made.stderr.contains("kubectl-backup/server-"),
        "{}",
        made.stderr
    );
    // With Velero's kinds there may be a location that this user is not shown: a folder is no guess for it.
    etcd_launcher(&["crds"])
        .kubeconfig(cluster.kubeconfig())
        .ok();
    let refused = create("other").code(1);
    assert!(
        refused
            .stderr
            .contains("can not list BackupStorageLocations")
            && refused.stderr.contains("--location"),
        "{}",
        refused.stderr
    );
    let folders = fs::read_dir(home.join(".local/share/kubectl-backup")).unwrap();
    for folder in folders {
        assert!(!folder.unwrap().path().join("backups/other").exists());
    }
}

#[test]
fn check_goes_through_every_step_and_leaves_nothing() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let bucket = minio.bucket("checked");
    let location = format!("s3://{bucket}/x?endpoint={}", minio.endpoint());
    let run = on(cluster, &location, &["location", "check"])
        .credentials_of(minio)
        .ok();
    for step in ["list", "write", "read back", "multipart", "delete", "clock"] {
        assert!(
            run.stdout.contains(step),
            "{step} is missing in\n{}",
            run.stdout
        );
    }
    assert_eq!(minio.list(bucket, ""), Vec::<String>::new());
    let place = Place::new();
    place.run(&["location", "check"]).ok();
    let steps = place.run(&["location", "check", "-o", "json"]).ok().json();
    assert!(steps.to_string().contains("list"), "{steps}");
}

#[test]
fn a_location_of_another_cluster_is_refused_for_writing_until_it_is_adopted_and_never_for_restores()
{
    let cluster = Cluster::shared();
    let other = Cluster::builder()
        .controllers(harness::cluster::Controllers::NAMESPACES)
        .start();
    let folder = Folder::new("shared-location");
    let location = format!("file://{}", folder.path().display());
    let namespace = cluster.create_namespace("guarded");
    on(cluster, &location, &["create", "b", "-n", &namespace]).ok();
    let refused = on(&other, &location, &["create", "c", "-n", "default"]).code(1);
    assert!(
        refused.stderr.contains("location adopt"),
        "{}",
        refused.stderr
    );
    on(&other, &location, &["delete", "b", "--yes"]).code(1);
    on(&other, &location, &["prune", "--yes"]).code(1);
    on(
        &other,
        &location,
        &["restore", "create", "--from-backup", "b"],
    )
    .ok();
    let adopt = ["location", "adopt", "--yes", "-o", "json"];
    let adopted = on(&other, &location, &adopt).ok().json();
    assert_eq!(adopted["kind"], "BackupStorageLocation");
    on(&other, &location, &["create", "c", "-n", "default"]).ok();
    let turned = on(cluster, &location, &["create", "d", "-n", &namespace]).code(1);
    assert!(
        turned.stderr.contains("location adopt"),
        "{}",
        turned.stderr
    );
}

#[test]
fn a_remembered_location_is_changed_and_forgotten_and_its_backups_stay() {
    let cluster = Cluster::shared();
    let namespace = cluster.create_namespace("remembered");
    let home = Folder::new("home");
    let (one, two) = (home.join("one"), home.join("two"));
    let run = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig())
    };
    for (name, folder) in [("one", &one), ("two", &two)] {
        let folder = folder.display().to_string();
        run(&[
            "location",
            "create",
            name,
            "--provider",
            "local",
            "--bucket",
            &folder,
        ])
        // What a variable says of every location is not kept of one.
        .env("KUBECTL_BACKUP_CREDENTIALS_FILE", home.write("keys", ""))
        .ok();
    }
    let kept = run(&["location", "get", "-o", "yaml"]).ok().stdout;
    assert!(!kept.contains("credentials-file"), "{kept}");
    run(&["location", "set", "one", "--default"]).ok();
    run(&["create", "b", "-n", &namespace]).ok();
    assert!(one.join("backups/b/velero-backup.json").exists());
    run(&[
        "location",
        "set",
        "one",
        "--access-mode",
        "ReadOnly",
        "--config",
        "a=b,c=d",
    ])
    .code(1);
    run(&["location", "set", "one", "--access-mode", "ReadOnly"]).ok();
    let refused = run(&["create", "c", "-n", &namespace]).code(1);
    assert!(refused.stderr.contains("read-only"), "{}", refused.stderr);
    // Only one is the default.
    run(&["location", "set", "two", "--default"]).ok();
    let shown = run(&[
        "location",
        "get",
        "-o",
        "json",
        "--sort-by",
        ".metadata.name",
    ])
    .ok()
    .json();
    assert_eq!(shown["items"][0]["spec"]["accessMode"], "ReadOnly");
    assert_ne!(shown["items"][0]["spec"]["default"], true);
    assert_eq!(shown["items"][1]["spec"]["default"], true);
    let volumes = ["--default-volumes-to-fs-backup", "--mover-credentials=sts"];
    run(&[&["location", "set", "one"], &volumes[..]].concat()).ok();
    let wide = run(&["location", "get", "-o", "wide"]).ok().stdout;
    let last = |name: &str| -> Vec<&str> {
        let line = wide.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().rev().take(3).collect()
    };
    assert_eq!(last("one"), ["sts", "true", "none"], "{wide}");
    assert_eq!(last("two"), ["none", "false", "none"], "{wide}");

    // What is only tried is refused where it would be, and changes nothing.
    let before = run(&["location", "get", "-o", "yaml"]).ok().stdout;
    let three = [
        "location",
        "create",
        "three",
        "--provider=local",
        "--bucket=/three",
    ];
    for (arguments, says) in [
        (&three[..], "three created"),
        (&["location", "set", "one", "--default"], "one configured"),
        (&["location", "delete", "one"], "one deleted"),
    ] {
        let dry = run(&[arguments, &["--dry-run"]].concat()).ok();
        let told = format!("backupstoragelocation/{says} (dry run)\n");
        assert_eq!(dry.stdout, told);
    }
    let after = run(&["location", "get", "-o", "yaml"]).ok().stdout;
    assert_eq!(after, before);

    for (arguments, code, says) in [
        (&["location", "set", "one"][..], 2, "nothing to set"),
        (
            &[
                "location",
                "create",
                "one",
                "--provider=local",
                "--bucket=/x",
                "--dry-run",
            ],
            1,
            "exists already",
        ),
        (
            &["location", "set", "absent", "--default", "--dry-run=client"],
            1,
            "there are: one, two",
        ),
        (
            &["location", "set", "one", "--default", "--dry-run=server"],
            2,
            "--dry-run",
        ),
        (
            &["location", "set", "absent", "--default"],
            1,
            "there are: one, two",
        ),
        (&["location", "delete", "one"], 2, "--yes"),
        (
            &["location", "delete", "one", "absent", "--yes"],
            1,
            "absent",
        ),
    ] {
        let refused = run(arguments).code(code);
        assert!(
            refused.stderr.contains(says),
            "{arguments:?}\n{}",
            refused.stderr
        );
    }
    run(&["location", "delete", "one", "--yes"]).ok();
    let left = run(&["location", "get", "-o", "name"]).ok().stdout;
    assert_eq!(left, "backupstoragelocation/two\n");
    assert!(one.join("backups/b/velero-backup.json").exists());
}
