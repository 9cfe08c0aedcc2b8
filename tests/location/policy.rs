//! The least that a location of AWS has to be allowed: what is printed is enough for everything, and for nothing outside of the location.

use std::time::Duration;

use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::kubectl_backup;
use harness::store::Minio;

use crate::place::on;

#[test]
fn what_print_trust_policy_prints_is_enough_for_all_commands_and_for_no_other_prefix() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let namespace = cluster.create_namespace("least");
    cluster.kubectl(&[
        "create",
        "configmap",
        "kept",
        "-n",
        &namespace,
        "--from-literal=a=b",
    ]);
    let bucket = minio.bucket("least");
    let home = Folder::new("home");
    let print = |more: &[&str]| {
        kubectl_backup(&[
            "location",
            "create",
            "l",
            "--provider=aws",
            "--print-trust-policy",
        ])
        .args(&["--bucket", bucket, "--prefix", "clusters/one"])
        .args(more)
        .home(home.path())
    };
    let role = "--role-arn=arn:aws:iam::123456789012:role/backup";
    let printed = print(&[role, "--external-id=7f3a9c"]).ok();
    let policies = printed.json();
    let trust = policies["trustPolicy"].to_string();
    for part in [
        "123456789012:root",
        "sts:AssumeRole",
        r#""sts:ExternalId":"7f3a9c""#,
    ] {
        assert!(trust.contains(part), "{part}\n{trust}");
    }
    let refused = print(&[]).code(2).stderr;
    assert!(refused.contains("--role-arn"), "{refused}");
    let refused = print(&["--role-arn=backup"]).code(2).stderr;
    assert!(refused.contains("arn:aws:iam::"), "{refused}");
    // Nothing was remembered.
    let known = kubectl_backup(&["location", "get", "-o", "name"])
        .home(home.path())
        .ok()
        .stdout;
    assert_eq!(known, "");

    let user = minio.limited_user(&policies["policy"].to_string());
    let file = user.credentials_file.to_str().unwrap();
    let at = |prefix: &str, arguments: &[&str]| {
        let location = format!("s3://{bucket}{prefix}?endpoint={}", minio.endpoint());
        on(cluster, &location, arguments).args(&["--credentials-file", file])
    };
    let run = |arguments: &[&str]| at("/clusters/one", arguments);
    run(&["location", "check"]).ok();
    run(&["create", "b", "-n", &namespace]).ok();
    run(&["create", "short", "-n", &namespace, "--ttl", "1s"]).ok();
    assert!(run(&["get"]).ok().stdout.contains("b "));
    run(&["verify", "b"]).ok();
    run(&["describe", "b", "--details"]).ok();
    run(&["logs", "b"]).ok();
    let mapping = format!("{namespace}:{namespace}-copy");
    let restore = [
        "restore",
        "create",
        "--from-backup=b",
        "--namespace-mappings",
        &mapping,
    ];
    run(&restore).ok();
    cluster.kubectl(&[
        "get",
        "configmap",
        "kept",
        "-n",
        &format!("{namespace}-copy"),
    ]);
    run(&["restore", "get"]).ok();
    harness::wait_for("an expired backup", Duration::from_secs(30), || {
        let told = run(&["prune", "--dry-run"]).ok();
        told.stdout.contains("short").then_some(())
    });
    run(&["prune", "--yes"]).ok();
    run(&["delete", "b", "--yes"]).ok();
    assert_eq!(run(&["get", "-o", "name"]).ok().stdout, "");
    let absent = run(&["describe", "absent"]).code(1).stderr;
    assert!(
        absent.contains("absent") && !absent.contains("403"),
        "{absent}"
    );

    // Not its neighbour, not the whole bucket.
    minio.put(
        bucket,
        "clusters/two/backups/theirs/velero-backup.json",
        "{}",
    );
    for prefix in ["/clusters/two", "/clusters/one-more", "/clusters", ""] {
        for arguments in [&["get"][..], &["create", "c", "-n", &namespace]] {
            let told = at(prefix, arguments).code(1).stderr;
            assert!(
                told.contains("s3:ListBucket") || told.contains("403"),
                "{prefix} {told}"
            );
        }
    }
    let others = minio.list(bucket, "");
    let ours = |key: &&String| !key.starts_with("clusters/one/");
    let others: Vec<_> = others.iter().filter(ours).collect();
    assert_eq!(others, ["clusters/two/backups/theirs/velero-backup.json"]);
}
