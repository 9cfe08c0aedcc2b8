//! Everything that a cluster holds comes back in another one.

use harness::cluster::Cluster;
use harness::compare::{Options, compare};
use harness::load::Load;
use harness::process::Folder;
use harness::snapshot::Snapshot;

use crate::place::on;

/// One object or more of everything that other projects install: large and strict definitions, webhooks, policies, roles that aggregate.
pub(crate) const CLUSTER: &str = include_str!("../fixtures/cluster.yaml");

#[test]
fn a_whole_cluster_comes_back_in_another_with_nothing_missing_and_nothing_different() {
    let source = Cluster::start();
    let folder = Folder::new("location");
    let location = format!("file://{}", folder.path().display());
    crate::interop::install_like_other_projects(&source);
    Load {
        namespaces: 3,
        config_maps: 40,
        secrets: 20,
        deployments: 10,
        definitions: 3,
        custom_resources: 10,
        ..Load::default()
    }
    .fill(&source.endpoint());
    let before = Snapshot::of(&source);
    on(&source, &location, &["create", "b"]).ok();
    drop(source);

    let target = Cluster::start();
    let plan = on(
        &target,
        &location,
        &[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--dry-run=client",
        ],
    )
    .ok();
    assert!(plan.stdout.contains("config-00001"), "{}", plan.stdout);
    let untouched = Snapshot::of(&target);
    assert!(
        untouched.of_resource("deployments.apps").count() == 0,
        "a dry run changes nothing"
    );
    on(
        &target,
        &location,
        &["restore", "create", "r", "--from-backup", "b"],
    )
    .ok();
    let after = Snapshot::of(&target);
    // Unlike Velero's, a restore of ours gives owners back.
    let owned = |object: &serde_json::Value| object["metadata"]["ownerReferences"].is_array();
    assert!(before.objects.values().any(owned), "nothing has an owner");
    let options = Options {
        owners: true,
        ..Options::default()
    };
    compare(&before, &after, &options).assert_none();

    // Once more changes nothing.
    let again = on(
        &target,
        &location,
        &["restore", "create", "r", "--from-backup", "b"],
    )
    .ok();
    assert!(!again.stderr.contains("panicked"));
    let twice = Snapshot::of(&target);
    compare(&after, &twice, &options).assert_none();
    for (resource, namespace, name) in [
        // Not a kind whose status a controller is still writing.
        ("secrets", "load-000", "secret-00001"),
        ("configmaps", "load-001", "config-00002"),
    ] {
        assert_eq!(
            after.get(resource, namespace, name)["metadata"]["resourceVersion"],
            twice.get(resource, namespace, name)["metadata"]["resourceVersion"]
        );
    }
    let listed = on(&target, &location, &["restore", "get"]).ok().stdout;
    assert!(listed.contains("Completed"), "{listed}");
    let described = on(
        &target,
        &location,
        &["restore", "describe", "r", "--details"],
    )
    .ok()
    .stdout;
    assert!(described.contains("load-000/config-00001"), "{described}");
    on(&target, &location, &["restore", "logs", "r"]).ok();
}
