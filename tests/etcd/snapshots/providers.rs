//! Snapshots in buckets of Google's and containers of Azure's: taken, read with the plugin, restored, deleted; and stores that fail meanwhile.

use std::fs;

use harness::etcd::{Content, Etcd, Fill, Version, etcdutl};
use harness::process::Folder;
use harness::proxy::Action;
use harness::run::{Backup, etcd_launcher, kubectl_backup};
use harness::tools;
use serde_json::Value;

use super::place::{CLUSTER, contents, hex, of, restored, status, unpacked};
use crate::emulated::Bucket;

/// Where everything of the snapshots goes, and the one folder of this cluster's.
const PREFIX: &str = "pre/fix";

/// Larger than two parts of an upload, and it stays so.
fn filled() -> Etcd {
    let etcd = Etcd::start();
    etcd.fill(&Fill {
        content: Content::Random,
        ..Fill::of(20 << 20)
    });
    etcd
}

fn folder(name: &str) -> String {
    format!("{PREFIX}/plugins/etcd-launcher/{CLUSTER}/{name}")
}

fn named(name: &str) -> [&str; 4] {
    ["--cluster", CLUSTER, "--name", name]
}

/// The manifest and the data of a snapshot, its only two files.
fn saved(bucket: &Bucket, name: &str) -> (Value, Vec<u8>) {
    let folder = folder(name);
    let manifest = bucket.get(&format!("{folder}/manifest.json"));
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let data = format!("{folder}/{}", manifest["data"]["file"].as_str().unwrap());
    let mut expected = vec![data.clone(), format!("{folder}/manifest.json")];
    expected.sort();
    assert_eq!(bucket.list(&folder), expected);
    (manifest, bucket.get(&data).to_vec())
}

#[test]
fn snapshots_go_to_google_and_azure_and_a_member_is_restored_from_there() {
    let etcd = filled();
    let files = Folder::new("providers");
    for bucket in Bucket::of_each("etcd-snapshots") {
        let provider = bucket.provider();
        etcd.put("/of", provider);
        let (live, revision) = (contents(&etcd), etcd.revision());
        let location = bucket.url(PREFIX);
        let take = || {
            let call = of(&etcd, &named("nightly")).location(&location);
            bucket.signed_in(call)
        };
        let told = take().ok().stdout;
        assert!(told.contains(&revision.to_string()), "{provider}: {told}");
        let (manifest, packed) = saved(&bucket, "nightly");
        assert_eq!(manifest["facts"]["revision"], revision, "{provider}");
        assert!(packed.len() > 2 << 23, "{provider}: {}", packed.len());
        let file = unpacked(&files, &packed);
        let database = fs::read(&file).unwrap();
        let digest = hex(&database[database.len() - 32..]);
        assert_eq!(manifest["snapshot"]["sha256"], digest, "{provider}");
        assert_eq!(status(Version::V3_6, &file)["revision"], revision);
        let again = take().code(1).stderr;
        assert!(again.contains("exists already"), "{provider}: {again}");

        // The plugin reads it with no cluster at all.
        let plugin = |arguments: &[&str]| -> Backup {
            let call = kubectl_backup(&["etcd"]).args(arguments);
            bucket.signed_in(call.location(&location))
        };
        let listed = plugin(&["get", "-o", "name"]).ok().stdout;
        assert_eq!(listed, "snapshot/nightly\n", "{provider}");
        let told = plugin(&["get", "nightly", "-o", "json"]).ok().json();
        assert_eq!(told["revision"], revision, "{provider}");
        let told = plugin(&["describe", "nightly"]).ok().stdout;
        assert!(told.contains("Live keys:"), "{provider}: {told}");
        let told = plugin(&["verify", "nightly", "-o", "json"]).ok().json();
        assert_eq!(told["verified"], true, "{provider}");
        let download = files.join(format!("{provider}.db"));
        let path = download.to_str().unwrap();
        plugin(&["download", "nightly", "--output-file", path]).ok();
        let said = etcdutl(Version::V3_6, &["snapshot", "status", "-w=json", path]);
        assert_eq!(said.json()["revision"], revision, "{provider}");
        assert!(fs::read(&download).unwrap() == database, "{provider}");

        // The launcher brings it back, by its name.
        etcd.put("/later", "x");
        etcd.member(0).stop();
        let restore = |snapshot: &str| {
            let call = etcd_launcher(&["restore", "--yes", snapshot, "--data-dir"])
                .arg(etcd.data_dir())
                .arg("--etcdutl")
                .arg(tools::path("etcdutl"));
            bucket.signed_in(call)
        };
        let by_name = restore("nightly").args(&["--cluster", CLUSTER]);
        by_name.location(&location).ok();
        etcd.member(0).start();
        etcd.wait_until_healthy();
        assert!(contents(&etcd) == live, "{provider}");

        // One object that a URL names, of which nothing else knows.
        let object = bucket.url("deep/er/x.db");
        let one = |call: Backup| bucket.signed_in(call.arg(&object));
        one(of(&etcd, &[])).ok();
        assert_eq!(bucket.list("deep"), ["deep/er/x.db"], "{provider}");
        let refused = one(of(&etcd, &[])).code(1).stderr;
        assert!(refused.contains("exists already"), "{provider}: {refused}");
        one(etcd_launcher(&["describe"])).ok();
        one(etcd_launcher(&["verify"])).ok();
        etcd.put("/later", "x");
        etcd.member(0).stop();
        restore(&object).ok();
        etcd.member(0).start();
        etcd.wait_until_healthy();
        assert!(contents(&etcd) == live, "{provider}");

        plugin(&["delete", "nightly", "--yes"]).ok();
        bucket.assert_is_empty(PREFIX);
    }
}

#[test]
fn a_store_of_google_or_azure_that_fails_while_a_snapshot_is_taken_is_waited_for_or_left_empty() {
    let etcd = filled();
    let live = contents(&etcd);
    let files = Folder::new("provider-faults");
    for bucket in Bucket::of_each("etcd-faults") {
        let provider = bucket.provider();
        let proxy = bucket.proxy();
        let location = bucket.url_at(&proxy.url(), PREFIX);
        let take = |name: &str| bucket.signed_in(of(&etcd, &named(name)).location(&location));
        let manifest = || bucket.about("PUT", "manifest.json");
        for (when, says) in [
            (bucket.part(), "part "),
            (bucket.complete(), "complete the upload"),
            (manifest(), "manifest.json"),
        ] {
            proxy.every(when, bucket.refuses());
            let told = take("a").code(1).stderr;
            for word in [says, bucket.refusal(), bucket.name, "hint:"] {
                assert!(told.contains(word), "{provider}: {word}\n{told}");
            }
            proxy.clear_rules();
            bucket.assert_is_empty(PREFIX);
        }
        proxy.nth(1, bucket.part(), bucket.is_busy());
        proxy.nth(3, bucket.part(), Action::Cut);
        proxy.nth(4, bucket.part(), Action::CutAfterForward);
        proxy.nth(1, bucket.complete(), Action::CutAfterForward);
        proxy.nth(1, manifest(), Action::CutAfterForward);
        proxy.clear_calls();
        take("a").ok();
        let calls = proxy.calls();
        let cut = calls.iter().filter(|call| call.status.is_none()).count();
        assert!(cut >= 4, "{provider}: {calls:#?}");
        proxy.clear_rules();
        let (_, packed) = saved(&bucket, "a");
        let back = restored(Version::V3_6, &unpacked(&files, &packed));
        assert!(contents(&back) == live, "{provider}");

        // Reading it breaks off again and again.
        let data = bucket.about("GET", ".db.zst");
        proxy.nth(2, data.clone(), bucket.is_busy());
        proxy.every(data, Action::CutBody(3_000_000));
        proxy.clear_calls();
        let plugin = kubectl_backup(&["etcd", "verify", "a"]).location(&location);
        bucket.signed_in(plugin).ok();
        assert!(proxy.calls().len() > 6, "{provider}: {:#?}", proxy.calls());
    }
}
