//! Etcd as the harness runs it: members come and go, keys stay, and nothing is left behind.

use std::path::Path;

use harness::cluster::{Cluster, Controllers};
use harness::etcd::{Content, Etcd, EtcdCluster, Fill, Version};
use harness::run::etcd_launcher;

fn keeps_its_keys(etcd: &Etcd) {
    assert_eq!(etcd.put("/registry/a", "one"), 2);
    assert_eq!(etcd.put("/registry/a", "two"), 3);
    assert_eq!(etcd.put("/registry/b", [0, 255, 10]), 4);
    assert_eq!(etcd.delete("/registry/b"), 5);
    assert_eq!(etcd.get("/registry/b"), None);
    etcd.member(0).kill();
    assert!(etcd.keys().try_put("/registry/a", b"lost").is_err());
    etcd.member(0).start();
    etcd.member(0).wait_until_healthy();
    let found = etcd.keys().get("/registry/a").unwrap();
    assert_eq!(found.value, b"two");
    assert_eq!(
        (found.create_revision, found.mod_revision, found.version),
        (2, 3, 2)
    );
    assert_eq!(etcd.revision(), 5);
    assert_eq!(etcd.keys().delete_prefix("/registry/"), 1);
    assert!(etcd.member(0).database().is_file());
}

#[test]
fn a_plain_etcd_keeps_its_keys_when_it_is_killed() {
    keeps_its_keys(&Etcd::start());
}

#[test]
fn the_etcd_before_with_tls_keeps_its_keys_and_knows_its_clients() {
    let etcd = Etcd::builder().version(Version::V3_5).tls().start();
    keeps_its_keys(&etcd);
    let version = etcd.http(0).client().get("/version").unwrap().json();
    assert!(version["etcdserver"].as_str().unwrap().starts_with("3.5."));
    let mut stranger = etcd.http(0);
    stranger.identity = None;
    assert!(stranger.client().get("/health").is_err());
}

#[test]
fn a_cluster_of_three_does_without_one_and_takes_it_back() {
    let etcd = EtcdCluster::builder().members(3).tls().start();
    let ids: Vec<_> = etcd.members().iter().map(|member| member.pid()).collect();
    etcd.member(2).stop();
    assert_eq!(etcd.put("/registry/a", "while one is away"), 2);
    etcd.member(2).start();
    etcd.wait_until_healthy();
    let found = etcd.member(2).keys().get("/registry/a").unwrap();
    assert_eq!(found.value, b"while one is away");
    let listed = etcd.etcdctl(&["member", "list"]).stdout;
    assert_eq!(listed.matches("started").count(), 3, "{listed}");

    let folder = etcd.folder().path().to_owned();
    drop(etcd);
    assert!(!folder.exists());
    let is_there = |pid| Path::new(&format!("/proc/{pid}")).exists();
    assert!(!ids.into_iter().flatten().any(is_there));
}

#[test]
fn an_api_server_keeps_its_objects_in_an_etcd_of_the_test() {
    let etcd = EtcdCluster::builder().members(3).tls().start();
    let builder = Cluster::builder().controllers(Controllers::None);
    let cluster = builder.on_etcd(&etcd).start();
    let namespace = cluster.create_namespace("mine");
    assert_eq!(cluster.pids().len(), 1);
    assert!(
        etcd.get(&format!("/registry/namespaces/{namespace}"))
            .is_some()
    );
    etcd.member(0).kill();
    cluster.get_raw(&format!("/api/v1/namespaces/{namespace}"));
}

#[test]
fn a_fill_is_the_same_every_time_and_half_of_it_is_random() {
    let fill = Fill::of(4 << 20);
    let [first, second] = [
        Etcd::start(),
        Etcd::builder().version(Version::V3_5).start(),
    ];
    let filled = first.fill(&fill);
    assert_eq!(second.fill(&fill), filled);
    let (floor, ceiling) = (
        (fill.bytes as f64 * 0.99) as u64,
        (fill.bytes as f64 * 1.01) as u64,
    );
    assert!((floor..ceiling).contains(&filled.bytes), "{filled:?}");
    for prefix in ["/registry/configmaps/", "/registry/secrets/"] {
        let [mine, other] = [&first, &second].map(|etcd| etcd.keys().list(prefix));
        assert_eq!(mine.len() as u64 * 2, filled.keys);
        let same = |(a, b): (&harness::etcd::KeyValue, &harness::etcd::KeyValue)| {
            a.key == b.key && a.value == b.value
        };
        assert!(mine.iter().zip(&other).all(same));
    }
    let (key, value) = Fill {
        content: Content::Json,
        ..fill
    }
    .item(62);
    assert_eq!(value.len(), 16_000);
    assert_eq!(first.get(&key), Some(value));
}

#[test]
fn snapshots_are_taken_and_restored_by_etcds_own_tools() {
    for version in [Version::V3_5, Version::V3_6] {
        let etcd = Etcd::builder().version(version).quota(64 << 20).start();
        etcd.put("/registry/a", "b");
        let snapshot = etcd.save_snapshot("s.db");
        let snapshot = snapshot.to_str().unwrap();
        let status = etcd
            .etcdutl(&["snapshot", "status", "-w=json", snapshot])
            .json();
        assert_eq!(status["revision"], 2);
        let member = etcd.member(0);
        member.stop();
        std::fs::remove_dir_all(member.data_dir()).unwrap();
        etcd.etcdutl(&[
            "snapshot",
            "restore",
            snapshot,
            &format!("--data-dir={}", member.data_dir().display()),
            &format!("--name={}", member.name()),
            &format!("--initial-cluster={}", etcd.initial_cluster()),
            &format!("--initial-advertise-peer-urls={}", member.peer_url()),
        ]);
        member.start();
        member.wait_until_healthy();
        assert_eq!(etcd.get("/registry/a"), Some(b"b".to_vec()));
    }
}

#[test]
fn the_launcher_runs_by_itself_and_before_etcd() {
    etcd_launcher(&["version"]).ok();
    let etcd = Etcd::builder()
        .through(&["/usr/bin/env", "GOMAXPROCS=1"])
        .start();
    assert_eq!(etcd.member(0).command()[0], "/usr/bin/env");
    assert_eq!(etcd.put("/registry/a", "b"), 2);
}
