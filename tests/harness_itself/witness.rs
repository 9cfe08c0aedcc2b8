//! Velero works here from end to end, and the comparison knows all it changes.

use harness::cluster::Cluster;
use harness::compare::{Options, compare};
use harness::load::Load;
use harness::snapshot::Snapshot;
use harness::store::Minio;
use harness::velero::Velero;

/// Objects with the fields that restores treat in their own way.
pub(super) const ONE_OF_MANY_KINDS: &str = include_str!("one_of_many_kinds.yaml");

#[test]
fn velero_restores_into_another_cluster_and_the_comparison_finds_nothing() {
    let minio = Minio::shared();
    let source = Cluster::start();
    source.apply(ONE_OF_MANY_KINDS);
    let load = Load {
        config_maps: 50,
        secrets: 10,
        deployments: 5,
        definitions: 2,
        custom_resources: 10,
        ..Load::default()
    };
    load.fill(&source.endpoint());
    let velero = Velero::start(&source, minio, "witness", "clusters/one", &[], None);
    velero.back_up(
        "b1",
        &[
            "--exclude-namespaces=velero",
            "--include-cluster-resources=true",
        ],
    );
    drop(velero);
    let before = Snapshot::of(&source);

    let target = Cluster::start();
    let velero = Velero::start(&target, minio, "witness", "clusters/one", &[], None);
    velero.sync("b1");
    velero.restore("r1", "b1", &["--include-cluster-resources=true"]);
    let listed = velero.cli(&["backup", "get"]).ok().stdout;
    assert!(listed.contains("b1"), "{listed}");
    let after = Snapshot::of(&target);
    let options = Options {
        without_namespaces: vec!["velero".to_owned()],
        ..Options::default()
    };
    compare(&before, &after, &options).assert_none();
}

#[test]
fn velero_with_all_versions_restores_into_a_mapped_namespace() {
    let minio = Minio::shared();
    let cluster = Cluster::start();
    let load = Load {
        config_maps: 5,
        deployments: 2,
        ..Load::default()
    };
    load.fill(&cluster.endpoint());
    let features = Some("EnableAPIGroupVersions");
    let velero = Velero::start(&cluster, minio, "witness", "clusters/two", &[], features);
    velero.back_up("b2", &["--include-namespaces=load-000"]);
    let before = Snapshot::of(&cluster);
    velero.restore("r2", "b2", &["--namespace-mappings=load-000:copy"]);
    let options = Options::in_namespaces(&["load-000"]).mapped("load-000", "copy");
    compare(&before, &Snapshot::of(&cluster), &options).assert_none();
}
