//! What `describe` and `verify` tell of a database is what etcd and etcdutl tell of it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::etcd::{Etcd, Fill, Version, etcdutl};
use harness::process::{Folder, Output};
use harness::run::etcd_launcher;
use harness::store::Minio;
use harness::tools;
use serde_json::{Value, json};

/// `verify -o json` of a snapshot that is whole.
#[track_caller]
fn verified(file: &Path) -> Value {
    let file = file.display().to_string();
    etcd_launcher(&["verify", &file, "-o", "json"]).ok().json()
}

/// The facts that `describe -o json` tells.
#[track_caller]
fn described(file: &Path) -> Value {
    let file = file.display().to_string();
    let told = etcd_launcher(&["describe", &file, "-o", "json"])
        .ok()
        .json();
    assert_eq!(told["missed"], Value::Null, "{told}");
    told["facts"].clone()
}

fn packed(file: &Path) -> PathBuf {
    let to = file.with_extension("db.gz");
    let out = fs::File::create(&to).unwrap();
    let mut packer = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    packer.write_all(&fs::read(file).unwrap()).unwrap();
    packer.finish().unwrap();
    to
}

fn number(value: &Value) -> i64 {
    value
        .as_i64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// A file's content as one number, to see that nobody changed it.
fn fingerprint(file: &Path) -> (u64, u64) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let bytes = fs::read(file).unwrap();
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    (bytes.len() as u64, hasher.finish())
}

/// Holds what we say of a snapshot against `etcdutl snapshot status`, and against `etcdutl hashkv` on a copy; `besides` are keys that etcdutl
/// counts and we do not. Returns what `verify` told.
#[track_caller]
fn agrees_with_etcdutl(snapshot: &Path, version: Version, besides: i64) -> Value {
    let before = fingerprint(snapshot);
    let told = verified(snapshot);
    assert_eq!(told["ok"], true, "{told}");
    let facts = &told["facts"];
    assert_eq!(&described(snapshot), facts);
    assert_eq!(fingerprint(snapshot), before, "reading wrote");

    let name = snapshot.display().to_string();
    let status = etcdutl(version, &["snapshot", "status", &name, "-w", "json"])
        .ok()
        .json();
    // It says 0 of an empty database, at which etcd says 1.
    let revision = number(&status["revision"]).max(1);
    assert_eq!(facts["revision"], revision, "{status}");
    // That of 3.5 counts the entries of all buckets.
    let counted = etcdutl(Version::V3_6, &["snapshot", "status", &name, "-w", "json"]);
    assert_eq!(
        number(&facts["keys"]["live"]) + besides,
        number(&counted.ok().json()["totalKey"])
    );
    if told["hasTrailer"] == true {
        assert_eq!(facts["bytes"], status["totalSize"], "{status}");
    }
    let storage = facts["storageVersion"].as_str().unwrap_or_default();
    assert_eq!(storage, status["version"].as_str().unwrap_or_default());
    let by_resource = facts["keys"]["resources"].as_object().unwrap();
    let sum: i64 = by_resource.values().map(number).sum();
    assert_eq!(sum, number(&facts["keys"]["live"]));
    assert_eq!(facts["keys"]["live"], told["digest"]["keys"]);

    // It opens what it reads for writing, and goes on with compactions: a copy.
    let copy = snapshot.with_extension("copy");
    fs::copy(snapshot, &copy).unwrap();
    let hash = etcdutl(
        Version::V3_6,
        &["hashkv", &copy.display().to_string(), "-w", "json"],
    );
    fs::remove_file(copy).unwrap();
    if facts["keys"]["resources"]["masterleases"].is_number() {
        // It dies of any key with a lease; of those the hash of a running etcd tells.
        assert!(
            hash.stderr.contains("no lessor to attach lease"),
            "{hash:?}"
        );
        return told;
    }
    let hash = hash.ok().json();
    assert_eq!(told["hashKv"]["hash"], hash["hash"], "{told} {hash}");
    assert_eq!(told["hashKv"]["revision"], hash["hashRevision"]);
    assert_eq!(told["hashKv"]["compactRevision"], hash["compactRevision"]);
    told
}

/// Holds what we say of a snapshot against the etcd it was just taken of, which nobody writes to.
#[track_caller]
fn agrees_with_etcd(told: &Value, etcd: &Etcd) {
    etcd.caught_up();
    let facts = &told["facts"];
    let status = &etcd.etcdctl(&["endpoint", "status", "-w", "json"]).json()[0]["Status"];
    let header = &status["header"];
    assert_eq!(facts["revision"], header["revision"], "{status}");
    assert_eq!(facts["bytes"], status["dbSize"], "{status}");
    assert_eq!(facts["term"], status["raftTerm"], "{status}");
    let in_use = (number(&facts["bytesInUse"]), number(&status["dbSizeInUse"]));
    assert!(
        (in_use.0 - in_use.1).abs() <= 64 * 4096,
        "we see {} bytes in use, etcd {}",
        in_use.0,
        in_use.1
    );
    let revision = facts["revision"].to_string();
    let hashes = etcd
        .etcdctl(&["endpoint", "hashkv", "--rev", &revision, "-w", "json"])
        .json();
    for member in hashes.as_array().unwrap() {
        let hash = &member["HashKV"];
        assert_eq!(told["hashKv"]["hash"], hash["hash"], "{told} {hash}");
        assert_eq!(told["hashKv"]["compactRevision"], hash["compact_revision"]);
    }

    let listed = etcd.etcdctl(&["member", "list", "-w", "json"]).stdout;
    // Ids are 64 bits and come as numbers: as text they are whole.
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mut members: Vec<Value> = listed["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| {
            json!({
                "id": format!("{:x}", member["ID"].as_u64().unwrap()),
                "name": member["name"],
                "peerUrls": member["peerURLs"],
                "clientUrls": member["clientURLs"],
                "isLearner": member["isLearner"].as_bool().unwrap_or_default(),
            })
        })
        .collect();
    members.sort_by_key(|member| member["id"].as_str().unwrap().to_owned());
    assert_eq!(facts["members"], Value::Array(members));
}

/// Keys come, change and go; some have leases, some are encrypted, some are far larger than a page; half of the history is compacted.
fn churn(etcd: &Etcd, megabytes: u64) {
    let fill = |name: &str, seed| Fill {
        bytes: megabytes << 20,
        seed,
        name: name.to_owned(),
        ..Fill::default()
    };
    etcd.fill(&fill("a", 1));
    etcd.fill(&fill("b", 2));
    let mut keys = etcd.keys();
    keys.delete_prefix("/registry/secrets/a-");
    for (index, kib) in [100, 350, 1000].into_iter().enumerate() {
        keys.put(
            &format!("/registry/configmaps/large/{index}"),
            &vec![b'x'; kib << 10],
        );
    }
    for index in 0..20 {
        let provider = if index % 2 == 0 {
            "aescbc:v1:key1"
        } else {
            "kms:v2:vault"
        };
        let value = format!("k8s:enc:{provider}:\u{1}\u{2}").into_bytes();
        keys.put(&format!("/registry/secrets/encrypted/{index}"), &value);
        keys.put(&format!("/registry/apps/v1/{index}"), b"v");
        keys.put(
            &format!("/registry/velero.io/backups/velero/{index}"),
            b"{}",
        );
    }
    let middle = keys.revision();
    keys.call(
        "kv/compaction",
        &format!(r#"{{"revision":"{middle}","physical":true}}"#),
    )
    .unwrap();
    etcd.fill(&Fill {
        bytes: (megabytes << 20) / 4,
        seed: 9,
        ..fill("b", 9)
    });
    keys.delete("/registry/configmaps/large/0");
    keys.delete("/registry/apps/v1/0");
    keys.put("/registry/apps/v1/0", b"again");
    keys.delete("/registry/apps/v1/1");
}

/// A key that goes away by itself.
fn lease(etcd: &Etcd) {
    let granted = etcd.keys().call("lease/grant", r#"{"TTL":"3600"}"#);
    let id: i64 = granted.unwrap()["ID"].as_str().unwrap().parse().unwrap();
    let id = format!("--lease={id:x}");
    etcd.etcdctl(&["put", &id, "/registry/masterleases/10.0.0.1", "v"]);
}

fn grown_database(version: Version, megabytes: u64, members: usize) {
    let etcd = Etcd::builder().version(version).members(members).start();
    let fresh = etcd.save_snapshot("fresh.db");
    let told = agrees_with_etcdutl(&fresh, version, 0);
    agrees_with_etcd(&told, &etcd);
    assert_eq!(told["facts"]["keys"]["live"], 0);
    assert!(fs::metadata(&fresh).unwrap().len() < 200_000);

    churn(&etcd, megabytes);
    let snapshot = etcd.save_snapshot("grown.db");
    agrees_with_etcdutl(&snapshot, version, 0);
    lease(&etcd);
    let snapshot = etcd.save_snapshot("leased.db");
    let told = agrees_with_etcdutl(&snapshot, version, 0);
    agrees_with_etcd(&told, &etcd);
    let facts = &told["facts"];
    assert_eq!(
        facts["encryptionKeys"],
        json!(["aescbc:key1", "kms:vault"]),
        "{facts}"
    );
    let resources = &facts["keys"]["resources"];
    assert_eq!(resources["backups.velero.io"], 20);
    assert_eq!(resources["apps"], 19);
    assert_eq!(resources["masterleases"], 1);
    assert_eq!(facts["keys"]["exact"], true);
    assert_eq!(facts["alarms"], json!([]));
    let cluster = facts["clusterVersion"].as_str().unwrap();
    match version {
        Version::V3_5 => assert!(cluster.starts_with("3.5") && facts["storageVersion"].is_null()),
        Version::V3_6 => assert_eq!(
            (cluster, &facts["storageVersion"]),
            ("3.6.0", &json!("3.6.0"))
        ),
    }
    // A stream tells the same in one pass as the file does.
    let gzip = packed(&snapshot);
    assert_eq!(&described(&gzip), facts);
    assert_eq!(verified(&gzip)["digest"], told["digest"]);
}

#[test]
fn a_database_of_etcd_3_6_is_read_as_etcd_reads_it() {
    grown_database(Version::V3_6, 8, 1);
}

#[test]
fn a_database_of_etcd_3_5_is_read_as_etcd_reads_it() {
    grown_database(Version::V3_5, 4, 1);
}

#[test]
fn every_member_of_three_has_the_hash_that_is_reckoned_offline() {
    grown_database(Version::V3_6, 2, 3);
}

#[test]
fn a_large_fragmented_database_is_read_and_most_of_it_is_free() {
    let etcd = Etcd::start();
    churn(&etcd, 24);
    let mut keys = etcd.keys();
    keys.delete_prefix("/registry/configmaps/a");
    keys.delete_prefix("/registry/configmaps/b");
    let revision = keys.revision();
    keys.call(
        "kv/compaction",
        &format!(r#"{{"revision":"{revision}","physical":true}}"#),
    )
    .unwrap();
    for index in 0..200 {
        keys.put(&format!("/registry/pods/later/{index}"), &[7; 3000]);
    }
    let snapshot = etcd.save_snapshot("fragmented.db");
    let told = agrees_with_etcdutl(&snapshot, Version::V3_6, 0);
    agrees_with_etcd(&told, &etcd);
    let facts = &told["facts"];
    let (bytes, in_use) = (number(&facts["bytes"]), number(&facts["bytesInUse"]));
    assert!(bytes > 48 << 20, "{bytes}");
    assert!(in_use < bytes / 2, "{in_use} of {bytes}");
    assert_eq!(&described(&packed(&snapshot)), facts);

    // The same keys are there after a defragmentation, in another file.
    etcd.etcdctl(&["defrag"]);
    let smaller = etcd.save_snapshot("defragmented.db");
    let after = agrees_with_etcdutl(&smaller, Version::V3_6, 0);
    assert_eq!(after["digest"], told["digest"]);
    assert_eq!(after["hashKv"], told["hashKv"]);
    assert!(number(&after["facts"]["bytes"]) < bytes / 2);
}

#[test]
fn the_digest_changes_with_every_key_and_with_nothing_else() {
    let etcd = Etcd::start();
    for index in 0..50 {
        etcd.put(&format!("/registry/pods/a/{index}"), "value");
    }
    let digest = |name: &str| verified(&etcd.save_snapshot(name))["digest"].clone();
    let first = digest("1.db");
    let revision = etcd.revision().to_string();
    etcd.etcdctl(&["compact", &revision]);
    etcd.etcdctl(&["defrag"]);
    assert_eq!(digest("2.db"), first);
    etcd.put("/registry/pods/a/7", "value");
    let second = digest("3.db");
    assert_eq!(second["keys"], first["keys"]);
    assert_ne!(second["sha256"], first["sha256"]);
    etcd.delete("/registry/pods/a/7");
    let third = digest("4.db");
    assert_ne!(third["sha256"], second["sha256"]);
    assert_eq!(number(&third["keys"]), 49);
}

#[test]
fn an_alarm_and_authentication_are_seen() {
    let etcd = Etcd::builder().quota(2 << 20).start();
    let mut keys = etcd.keys();
    let filled = (0..100).find(|index| {
        keys.try_put(&format!("/registry/pods/a/{index}"), &vec![1; 100_000])
            .is_err()
    });
    assert!(filled.is_some(), "the quota was never reached");
    let alarms = etcd.etcdctl(&["alarm", "list", "-w", "json"]).json();
    let alarm = &alarms["alarms"][0];
    let snapshot = etcd.save_snapshot("full.db");
    let told = agrees_with_etcdutl(&snapshot, Version::V3_6, 0);
    assert_eq!(
        told["facts"]["alarms"],
        json!([{"member": format!("{:x}", alarm["memberID"].as_u64().unwrap()), "kind": "NOSPACE"}])
    );
    assert_eq!(told["facts"]["authEnabled"], false);

    let etcd = Etcd::start();
    etcd.put("/registry/pods/a/1", "v");
    etcd.etcdctl(&["user", "add", "root:secret"]);
    etcd.etcdctl(&["user", "grant-role", "root", "root"]);
    etcd.etcdctl(&["auth", "enable"]);
    let file = etcd.folder().join("auth.db").display().to_string();
    etcd.etcdctl(&["--user=root:secret", "snapshot", "save", &file]);
    let told = agrees_with_etcdutl(Path::new(&file), Version::V3_6, 0);
    assert_eq!(told["facts"]["authEnabled"], true);
    let text = etcd_launcher(&["describe", &file]).ok().stdout;
    assert!(text.contains("Authentication:   on"), "{text}");
}

/// Restores with a bump that is marked as compacted; returns the database.
fn restored(etcd: &Etcd, snapshot: &Path, bump: i64) -> PathBuf {
    let side = etcd.folder().join("side");
    etcd.etcdutl(&[
        "snapshot",
        "restore",
        &snapshot.display().to_string(),
        "--data-dir",
        &side.display().to_string(),
        "--bump-revision",
        &bump.to_string(),
        "--mark-compacted",
    ]);
    side.join("member/snap/db")
}

fn bumped_restore(version: Version) {
    let etcd = Etcd::builder().version(version).start();
    churn(&etcd, 1);
    if version == Version::V3_6 {
        lease(&etcd);
    }
    let snapshot = etcd.save_snapshot("before.db");
    let before = verified(&snapshot);
    let bump = 1_000_000_000;
    let database = restored(&etcd, &snapshot, bump);
    // The empty key that the bump wrote is counted by etcdutl alone.
    let offline = agrees_with_etcdutl(&database, version, 1);
    let facts = &offline["facts"];
    let revision = number(&before["facts"]["revision"]) + bump;
    assert_eq!(facts["revision"], revision);
    assert_eq!(facts["scheduledCompactRevision"], revision);
    assert_eq!(facts["compactRevision"], before["facts"]["compactRevision"]);
    assert_eq!(offline["hasTrailer"], false);
    assert_eq!(offline["digest"]["sha256"], before["digest"]["sha256"]);
    assert_eq!(offline["digest"]["keys"], before["digest"]["keys"]);
    assert_eq!(offline["digest"]["revision"], revision);

    // Started, compacted, written to: at the bumped revision it is still what was reckoned before.
    let member = etcd.member(0);
    member.stop();
    let data = member.data_dir().to_owned();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(etcd.folder().join("side"), &data).unwrap();
    member.start();
    member.wait_until_healthy();
    etcd.put("/registry/pods/after/1", "v");
    let hash = &etcd
        .etcdctl(&[
            "endpoint",
            "hashkv",
            "--rev",
            &revision.to_string(),
            "-w",
            "json",
        ])
        .json()[0]["HashKV"];
    assert_eq!(hash["hash"], offline["hashKv"]["hash"], "{hash} {offline}");
    assert_eq!(hash["compact_revision"], revision);
    let committed = || {
        etcd.put("/registry/pods/after/1", "v");
        etcd.save_snapshot("after.db")
    };
    // The compaction that the restore asked for is carried out when etcd finds the time, and what it frees is counted a commit later.
    harness::wait_for("the compaction", Duration::from_secs(60), || {
        (described(&committed())["compactRevision"] == revision).then_some(())
    });
    committed();
    let after = committed();
    let after = agrees_with_etcdutl(&after, version, 1);
    agrees_with_etcd(&after, &etcd);
}

#[test]
fn a_bumped_restore_has_the_same_digest_and_the_hash_that_etcd_will_have() {
    bumped_restore(Version::V3_6);
}

#[test]
fn a_bumped_restore_of_etcd_3_5_has_the_same_digest_and_hash() {
    bumped_restore(Version::V3_5);
}

#[test]
fn a_file_out_of_a_data_directory_is_read_and_said_to_bring_no_checksum() {
    let etcd = Etcd::start();
    churn(&etcd, 1);
    let snapshot = verified(&etcd.save_snapshot("snapshot.db"));
    let database = etcd.member(0).database();
    let name = database.display().to_string();
    let running = etcd_launcher(&["describe", &name]).run();
    assert!(
        running.stderr.contains("a running etcd has this file open"),
        "{}",
        running.stderr
    );
    etcd.member(0).stop();
    let told = etcd_launcher(&["verify", &name, "-o", "json"]).ok();
    assert!(
        told.stderr.contains("no checksum at its end"),
        "{}",
        told.stderr
    );
    assert_eq!(told.json()["digest"], snapshot["digest"]);
    assert_eq!(told.json()["hashKv"], snapshot["hashKv"]);
    let read = described(&database);
    assert_eq!(read["keys"], snapshot["facts"]["keys"]);
    assert_eq!(read["members"], snapshot["facts"]["members"]);
}

#[test]
fn a_snapshot_is_read_wherever_it_lies_and_however_it_is_packed() {
    let etcd = Etcd::start();
    churn(&etcd, 1);
    let snapshot = etcd.save_snapshot("snapshot.db");
    let told = verified(&snapshot);
    let bytes = fs::read(&snapshot).unwrap();
    let minio = Minio::shared();
    let bucket = minio.bucket("reading");
    let gzip = fs::read(packed(&snapshot)).unwrap();
    let zstd = zstd::encode_all(bytes.as_slice(), 3).unwrap();
    for (key, content) in [
        ("plain.db", bytes),
        ("deep/er/packed.db.gz", gzip),
        // What it is called does not matter.
        ("deep/called.db", zstd),
    ] {
        minio.put(bucket, key, content.clone());
        let url = format!("s3://{bucket}/{key}?endpoint={}", minio.endpoint());
        let run = |command: &str| {
            etcd_launcher(&[command, &url, "-o", "json"])
                .credentials_of(minio)
                .ok()
                .json()
        };
        assert_eq!(run("describe")["facts"], told["facts"], "{key}");
        assert_eq!(run("verify")["digest"], told["digest"], "{key}");
        let local = etcd.folder().write(key.replace('/', "-"), content);
        let url = format!("file://{}", local.display());
        let read = etcd_launcher(&["describe", &url, "-o", "json"]).ok().json();
        assert_eq!(read["facts"], told["facts"], "{key}");
    }
    let missing = format!("s3://{bucket}/none.db?endpoint={}", minio.endpoint());
    let refused = etcd_launcher(&["verify", &missing])
        .credentials_of(minio)
        .code(1);
    assert!(refused.stderr.contains("none.db"), "{}", refused.stderr);
    // Nothing is left where snapshots are unpacked.
    let spool = Folder::new("spool");
    let packed = packed(&snapshot).display().to_string();
    let folder = spool.path().display().to_string();
    etcd_launcher(&["verify", &packed, "--spool-dir", &folder]).ok();
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
}

#[test]
fn a_person_is_told_what_matters() {
    let etcd = Etcd::start();
    churn(&etcd, 1);
    let snapshot = etcd.save_snapshot("snapshot.db").display().to_string();
    let text = etcd_launcher(&["describe", &snapshot]).ok().stdout;
    for line in [
        "Storage Version:  3.6.0",
        "Encrypted With:   aescbc:key1, kms:vault",
        "backups.velero.io:",
        "Alarms:\n  none",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
    let told = etcd_launcher(&["verify", &snapshot]).ok();
    assert!(
        told.stdout.contains("snapshot.db verified: "),
        "{}",
        told.stdout
    );
    assert!(told.stdout.contains("HashKV "), "{}", told.stdout);
    assert_eq!(told.stderr, "");
    let yaml = etcd_launcher(&["describe", &snapshot, "-o", "yaml"]).ok();
    assert!(
        yaml.stdout.contains("storageVersion: \"3.6.0\""),
        "{}",
        yaml.stdout
    );
}

#[test]
fn bad_input_is_told_apart_and_ends_with_its_exit_code() {
    let folder = Folder::new("bad");
    let etcd = Etcd::start();
    etcd.put("/registry/pods/a/1", "v");
    let whole = fs::read(etcd.save_snapshot("whole.db")).unwrap();
    for (name, content, text) in [
        ("empty.db", &b""[..], "is empty"),
        ("cut.db", &whole[..whole.len() / 512 / 2 * 512], "was cut"),
        ("odd.db", &whole[..whole.len() - 1], "was cut"),
        ("text.db", &[b'x'; 4096], "is no database of etcd"),
        (
            "error.db",
            b"<Error><Code>NoSuchKey</Code></Error>",
            "is a page of HTML or XML",
        ),
    ] {
        let file = folder.write(name, content).display().to_string();
        for command in ["describe", "verify"] {
            let refused = etcd_launcher(&[command, &file]).code(1);
            assert!(refused.stderr.contains(text), "{name}: {}", refused.stderr);
            assert!(
                refused.stderr.contains("hint: "),
                "{name}: {}",
                refused.stderr
            );
            assert_eq!(refused.stdout, "");
        }
    }
    for (name, code, text) in [
        ("/nowhere/a.db", 1, "can not open /nowhere/a.db"),
        ("/", 1, "is a folder"),
        ("ftp://a/b", 2, "is not known"),
        ("s3://bucket", 2, "names no object"),
        ("", 2, "no snapshot is named"),
    ] {
        let refused = etcd_launcher(&["verify", name]).code(code);
        assert!(refused.stderr.contains(text), "{name}: {}", refused.stderr);
    }
    etcd_launcher(&["verify"]).code(2);
    etcd_launcher(&["verify", "a", "-o", "table"]).code(2);
}

#[test]
fn whatever_etcdutl_finds_damaged_is_found_damaged() {
    let etcd = Etcd::start();
    churn(&etcd, 1);
    let mut whole = fs::read(etcd.save_snapshot("whole.db")).unwrap();
    whole.truncate(whole.len() - 32);
    let folder = Folder::new("damaged");
    let mut seed = 42_u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    let (mut found, mut tried) = (0, 0);
    let pages = whole.len() / 4096;
    for _ in 0..60 {
        let mut bytes = whole.clone();
        // In headers, tables and the keys behind them, where it matters most.
        let page = 2 + random() % (pages - 2);
        bytes[page * 4096 + random() % 96] ^= 1 << (random() % 8);
        let file = folder.write("bent.db", &bytes).display().to_string();
        let ours = etcd_launcher(&["verify", &file]).run();
        assert!(matches!(ours.code, 0 | 1), "{} {}", ours.code, ours.stderr);
        // Some of these make it run for ever, or crash.
        let mut theirs = Command::new("timeout");
        theirs
            .arg("20")
            .arg(tools::path("etcdutl"))
            .args(["snapshot", "status", &file, "-w", "json"]);
        let theirs = Output::of(&mut theirs);
        tried += 1;
        found += i32::from(ours.code == 1);
        if theirs.code != 0 {
            assert_eq!(ours.code, 1, "page {page}: etcdutl says {}", theirs.stderr);
        }
    }
    assert!(
        found > tried / 5,
        "{found} of {tried}: hardly any page was in use"
    );
}

#[test]
fn a_byte_that_changed_anywhere_is_found_by_the_checksum() {
    let etcd = Etcd::start();
    etcd.put("/registry/pods/a/1", "v");
    let whole = fs::read(etcd.save_snapshot("whole.db")).unwrap();
    let folder = Folder::new("altered");
    for at in [0, 30, 5000, 9000, whole.len() - 40, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        let file = folder.write("bent.db", &bytes).display().to_string();
        let refused = etcd_launcher(&["verify", &file]).code(1);
        assert!(
            refused.stdout.contains("was altered"),
            "{at}: {}",
            refused.stdout
        );
        assert!(
            refused.stderr.contains("is damaged: "),
            "{at}: {}",
            refused.stderr
        );
    }
}
