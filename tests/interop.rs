//! The real Velero reads what we write, and we read what it writes: nothing missing, nothing different.

use std::time::Duration;

use harness::cluster::Cluster;
use harness::compare::{Options, compare};
use harness::load::Load;
use harness::snapshot::Snapshot;
use harness::store::Minio;
use harness::velero::Velero;

use crate::place::{gunzip, on};

/// Definitions, webhooks, policies and workloads as other projects install them, and objects of the new kinds. The files of the folder
/// `KUBECTL_BACKUP_MANIFESTS`, where it is set, come on top.
pub(crate) fn install_like_other_projects(cluster: &Cluster) {
    cluster.apply(crate::restore::whole::CLUSTER);
    if let Some(folder) = std::env::var_os("KUBECTL_BACKUP_MANIFESTS") {
        for file in std::fs::read_dir(folder).unwrap() {
            cluster.apply(&std::fs::read_to_string(file.unwrap().path()).unwrap());
        }
    }
    for plural in ["issuers", "certificates"] {
        harness::wait_for("the new kinds", Duration::from_secs(30), || {
            let answer = cluster
                .client()
                .get(&format!("/apis/pki.example.com/v1/{plural}"))
                .unwrap();
            (answer.status == 200).then_some(())
        });
    }
    cluster.apply(include_str!("fixtures/custom.yaml"));
    cluster.kubectl(&[
        "-n",
        "platform",
        "patch",
        "certificates.pki.example.com",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"ready":true}}"#,
    ]);
}

fn source() -> Cluster {
    let cluster = Cluster::start();
    install_like_other_projects(&cluster);
    Load {
        namespaces: 2,
        config_maps: 30,
        secrets: 10,
        deployments: 5,
        definitions: 2,
        custom_resources: 8,
        ..Load::default()
    }
    .fill(&cluster.endpoint());
    cluster
}

/// What Velero's own objects are in a cluster is no part of the comparison.
fn options() -> Options {
    let mut options = Options::default();
    options.without_namespaces.push("velero".to_owned());
    for kind in [
        "backups",
        "restores",
        "backupstoragelocations",
        "downloadrequests",
        "serverstatusrequests",
        "backuprepositories",
        "deletebackuprequests",
    ] {
        options.without_resources.push(format!("{kind}.velero.io"));
    }
    options
}

/// The state of a cluster without the definitions that Velero brought.
fn without_velero(cluster: &Cluster) -> Snapshot {
    let mut state = Snapshot::of(cluster);
    state.objects.retain(|id, _| {
        id.resource != "customresourcedefinitions.apiextensions.k8s.io"
            || !id.name.ends_with(".velero.io")
    });
    state
}

fn velero_reads_ours(features: Option<&'static str>) {
    let minio = Minio::shared();
    let prefix = if features.is_some() {
        "versions"
    } else {
        "plain"
    };
    let bucket = minio.bucket("ours-to-velero");
    let location = format!("s3://{bucket}/{prefix}?endpoint={}", minio.endpoint());
    let cluster = source();
    let before = Snapshot::of(&cluster);
    on(&cluster, &location, &["create", "ours"])
        .credentials_of(minio)
        .ok();
    drop(cluster);

    let target = Cluster::start();
    let velero = Velero::start(&target, minio, bucket, prefix, &[], features);
    velero.sync("ours");
    let listed = velero.cli(&["backup", "get"]).ok().stdout;
    assert!(
        listed.contains("ours") && listed.contains("Completed"),
        "{listed}"
    );
    let described = velero
        .cli(&["backup", "describe", "ours", "--details"])
        .ok()
        .stdout;
    assert!(
        described.contains("platform/settings") && described.contains("Phase:"),
        "{described}"
    );
    assert!(!described.contains("<error"), "{described}");
    let logs = velero.cli(&["backup", "logs", "ours"]).ok().stdout;
    assert!(logs.contains("level=info"), "{logs}");
    let download = target.folder().join("ours.tar.gz");
    velero
        .cli(&[
            "backup",
            "download",
            "ours",
            "--output",
            download.to_str().unwrap(),
        ])
        .ok();
    assert_eq!(
        std::fs::read(download).unwrap(),
        minio.get(bucket, &format!("{prefix}/backups/ours/ours.tar.gz"))
    );
    velero.restore("r", "ours", &[]);
    compare(&before, &without_velero(&target), &options()).assert_none();
}

#[test]
fn velero_lists_describes_downloads_and_restores_ours() {
    velero_reads_ours(None);
}

#[test]
fn velero_restores_ours_by_versions_too() {
    velero_reads_ours(Some("EnableAPIGroupVersions"));
}

#[test]
fn we_list_describe_and_restore_veleros() {
    let minio = Minio::shared();
    let bucket = minio.bucket("velero-to-ours");
    let location = format!("s3://{bucket}/p?endpoint={}", minio.endpoint());
    let cluster = source();
    let mut velero = Velero::start(&cluster, minio, bucket, "p", &[], None);
    let before = Snapshot::of(&cluster);
    velero.back_up("theirs", &["--include-cluster-resources=true"]);
    velero.stop();
    drop(velero);
    let run = |arguments: &[&str]| on(&cluster, &location, arguments).credentials_of(minio);
    let listed = run(&["get"]).ok().stdout;
    assert!(
        listed.contains("theirs") && listed.contains("Completed"),
        "{listed}"
    );
    let described = run(&["describe", "theirs", "--details"]).ok().stdout;
    assert!(described.contains("platform/settings"), "{described}");
    assert!(run(&["logs", "theirs"]).ok().stdout.contains("level=info"));
    let object = run(&["contents", "theirs", "configmaps", "platform/settings"])
        .ok()
        .stdout;
    assert!(object.contains("binaryData"), "{object}");
    run(&["verify", "theirs"]).ok();

    let target = Cluster::start();
    on(
        &target,
        &location,
        &["restore", "create", "r", "--from-backup", "theirs"],
    )
    .credentials_of(minio)
    .ok();
    compare(&before, &Snapshot::of(&target), &options()).assert_none();
    // Velero sees the record of our restore as one of its own would look.
    let results = minio.get(bucket, "p/restores/r/restore-r-results.gz");
    assert!(gunzip(&results).contains("errors"));
}
