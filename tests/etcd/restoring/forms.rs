//! Snapshots as users have them: packed, without a trailer, in a store, by name; of the minor before; with authentication or an alarm.

use std::fs;
use std::io::Write;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use harness::etcd::{Etcd, Version};
use harness::process::Output;
use harness::run::etcd_launcher;
use harness::store::Minio;
use harness::tools;

use super::place::{Place, digest, restore};

#[test]
fn packed_snapshots_and_one_without_a_trailer_are_restored() {
    let place = Place::new();
    let pristine = place.saved();
    let plain = fs::read(&place.snapshot).unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&plain).unwrap();
    let forms = [
        // The names do not matter.
        ("packed.db.gz", gzip.finish().unwrap()),
        ("packed", zstd::encode_all(&plain[..], 1).unwrap()),
        ("copied.db", plain[..plain.len() - 32].to_vec()),
    ];
    for (name, bytes) in forms {
        place.put_back(&pristine);
        let file = place.etcd.folder().write(name, bytes);
        place.restore_of(&file, &[]).ok();
        assert_eq!(place.held(), place.new, "{name}");
        assert_eq!(place.left().len(), 2, "{name}: {:?}", place.left());
    }
    assert_eq!(place.started(), place.then);
}

#[test]
fn snapshots_in_a_store_are_restored_by_url_and_by_name() {
    let place = Place::new();
    let minio = Minio::shared();
    let bucket = minio.bucket("restore");
    let packed = zstd::encode_all(&fs::read(&place.snapshot).unwrap()[..], 1).unwrap();
    minio.put(bucket, "a/foreign.db.zst", packed);
    let query = format!("endpoint={}", minio.endpoint());
    let url = format!("s3://{bucket}/a/foreign.db.zst?{query}");
    let pristine = place.saved();
    place
        .restore_of(url.as_ref(), &[])
        .credentials_of(minio)
        .ok();
    assert_eq!(place.held(), place.new);

    // Ours, with a manifest, taken from the running etcd.
    place.put_back(&pristine);
    place.started();
    let location = format!("s3://{bucket}/ours?{query}");
    let named = ["--cluster=zvc78xnnz7", "--location", &location];
    etcd_launcher(&["snapshot", "--name=nightly"])
        .env("ETCDCTL_ENDPOINTS", place.etcd.endpoint())
        .args(&named)
        .credentials_of(minio)
        .ok();
    place.etcd.put("/later", "x");
    place.stop();
    place
        .restore_of("nightly".as_ref(), &named)
        .credentials_of(minio)
        .ok();
    assert_eq!(place.held(), place.old);
    assert_eq!(place.started(), place.now);

    // Another's bytes under the same name.
    place.stop();
    let folder = "ours/plugins/etcd-launcher/zvc78xnnz7/nightly/";
    let data = minio.list(bucket, folder);
    let data = data.iter().find(|key| key.ends_with(".zst")).unwrap();
    minio.put(bucket, data, minio.get(bucket, "a/foreign.db.zst"));
    let run = place
        .restore_of("nightly".as_ref(), &named)
        .credentials_of(minio)
        .code(1);
    assert!(run.stderr.contains("manifest"), "{}", run.stderr);
}

#[test]
fn an_etcd_of_the_minor_before_is_restored_with_its_own_etcdutl() {
    let place = Place::of(Version::V3_5, Etcd::builder());
    let wrong = restore(Version::V3_6, &place.snapshot, place.data_dir()).code(1);
    assert!(wrong.stderr.contains("3.5"), "{}", wrong.stderr);
    place.assert_untouched();
    place.restore().ok();
    assert_eq!(place.started(), place.then);
    place.etcd.put("/seen", "x");
    place.stop();
    place.rollback().ok();
    assert_eq!(place.started(), place.now);
}

#[test]
fn a_snapshot_whose_last_change_is_compacted_away_starts_at_the_same_target() {
    let etcd = Etcd::start();
    for number in 0..9 {
        etcd.put(&format!("/k{number}"), "v");
    }
    let last = etcd.delete("/k8");
    etcd.etcdctl(&["compact", &last.to_string(), "--physical"]);
    let then = etcd.keys().list("/");
    let snapshot = etcd.save_snapshot("snapshot.db");
    etcd.member(0).stop();
    restore(Version::V3_6, &snapshot, etcd.data_dir())
        .arg("--target-revision=2000000000000")
        .ok();
    etcd.member(0).start();
    etcd.wait_until_healthy();
    assert_eq!(etcd.keys().list("/"), then);
    assert_eq!(etcd.revision(), 2_000_000_000_000);
}

#[test]
fn users_and_passwords_come_with_the_snapshot() {
    let etcd = Etcd::start();
    etcd.put("/a", "1");
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        etcd.etcdctl(arguments);
    }
    let snapshot = etcd.folder().join("auth.db");
    let user = "--user=root:secret";
    let saved = snapshot.to_str().unwrap();
    etcd.etcdctl(&[user, "snapshot", "save", saved]);
    etcd.etcdctl(&[user, "put", "/a", "2"]);
    etcd.member(0).stop();
    let run = restore(Version::V3_6, &snapshot, etcd.data_dir()).ok();
    assert!(run.stderr.contains("authentication"), "{}", run.stderr);
    etcd.member(0).start();
    etcd.wait_until_healthy();
    let refused = etcd.try_etcdctl(&["get", "/a"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    let read = etcd.etcdctl(&[user, "get", "/a", "--print-value-only"]);
    assert_eq!(read.stdout.trim(), "1");
    // Its log is applied without a password: nobody is asked on the way back.
    etcd.member(0).stop();
    etcd_launcher(&["rollback", "--yes", "--data-dir"])
        .arg(etcd.data_dir())
        .arg("--etcd")
        .arg(tools::path("etcd"))
        .arg("--etcdutl")
        .arg(tools::path("etcdutl"))
        .ok();
    etcd.member(0).start();
    etcd.wait_until_healthy();
    let read = etcd.etcdctl(&[user, "get", "/a", "--print-value-only"]);
    assert_eq!(read.stdout.trim(), "2");
}

#[test]
fn an_alarm_in_the_snapshot_is_told() {
    let etcd = Etcd::builder().quota(20 << 20).start();
    let mut full = false;
    for number in 0..64 {
        let put = etcd
            .keys()
            .try_put(&format!("/k{number}"), &vec![b'x'; 1 << 20]);
        full |= put.is_err();
    }
    assert!(full, "the quota was to be reached");
    let snapshot = etcd.save_snapshot("snapshot.db");
    etcd.member(0).stop();
    let run = restore(Version::V3_6, &snapshot, etcd.data_dir()).ok();
    assert!(run.stderr.contains("NOSPACE"), "{}", run.stderr);
    assert!(run.stderr.contains("alarm disarm"), "{}", run.stderr);
    assert_eq!(
        digest(&etcd.member(0).database()).keys,
        digest(&snapshot).keys
    );
}

#[test]
fn the_way_back_needs_only_what_is_in_the_readme_of_etcd() {
    // The kept state is a data dir of etcd's: whoever has only etcd can use it.
    let place = Place::new();
    place.restore().ok();
    let told = place.status();
    let kept = told["attempts"][0]["kept"].as_str().unwrap();
    let by_hand = place.etcd.folder().join("by-hand");
    fs::create_dir(&by_hand).unwrap();
    Output::of(Command::new("cp").args(["-a", kept]).arg(&by_hand)).ok();
    let data_dir = format!("--data-dir={}", by_hand.display());
    let command: Vec<String> = place
        .etcd
        .member(0)
        .command()
        .iter()
        .map(|word| {
            if word.starts_with("--data-dir=") {
                data_dir.clone()
            } else {
                word.clone()
            }
        })
        .collect();
    place.etcd.member(0).start_as(&command);
    place.etcd.wait_until_healthy();
    assert_eq!(place.etcd.keys().list("/"), place.now);
}
