//! Snapshots of a live etcd, taken by the program and judged by etcd's own tools: what is restored from them by `zstd -d` and etcdutl alone.

mod downgraded;
mod encrypted;
mod faults;
mod members;
mod place;
mod providers;
mod writers;

use std::fs;

use harness::etcd::{Etcd, Fill, Version};
use harness::process::Folder;
use harness::run::etcd_launcher;
use harness::store::Minio;
use place::{Bucket, contents, of, restored, status, unpacked};

#[test]
fn a_snapshot_in_a_bucket_is_what_etcdctl_saves_and_is_restored_without_us() {
    let etcd = Etcd::start();
    etcd.fill(&Fill::of(6 << 20));
    for number in 0..200 {
        etcd.put(&format!("/registry/pods/a/p{number}"), "first");
        etcd.put(&format!("/registry/pods/a/p{number}"), "second");
    }
    assert_eq!(etcd.keys().delete_prefix("/registry/pods/a/p1"), 111);
    etcd.put("/other", "x");
    let revision = etcd.revision();
    let live = contents(&etcd);
    let bucket = Bucket::new("plain");
    let run = bucket.snapshot(&etcd, "nightly").ok();
    assert!(
        run.stdout.starts_with("snapshot/nightly saved\n"),
        "{}",
        run.stdout
    );
    for told in [
        revision.to_string().as_str(),
        "Keys:",
        "SHA-256:",
        "6.",
        "etcd-0",
    ] {
        assert!(run.stdout.contains(told), "{told}: {}", run.stdout);
    }
    // Two files, and nothing else.
    let (manifest, packed) = bucket.saved("nightly");
    let file = unpacked(&bucket.folder, &packed);
    let bytes = fs::read(&file).unwrap();
    assert_eq!(manifest["format"], "etcd-snapshot/1");
    assert_eq!(manifest["snapshot"]["bytes"], bytes.len());
    assert_eq!(manifest["data"]["bytes"], packed.len());
    assert_eq!(
        manifest["snapshot"]["sha256"],
        place::hex(&bytes[bytes.len() - 32..])
    );
    assert_eq!(manifest["facts"]["revision"], revision);
    assert_eq!(manifest["facts"]["keys"]["live"], live.len());
    assert_eq!(manifest["facts"]["keys"]["resources"]["pods"], 89);
    assert_eq!(manifest["facts"]["members"][0]["name"], "etcd-0");
    assert_eq!(
        manifest["etcd"]["memberId"],
        manifest["facts"]["members"][0]["id"]
    );
    assert_eq!(manifest["etcd"]["leader"], true);
    // etcd's own word for the same file.
    let said = status(Version::V3_6, &file);
    assert_eq!(said["revision"], revision);
    assert_eq!(said["totalKey"], live.len());
    assert_eq!(said["version"], manifest["facts"]["storageVersion"]);
    assert!(said["totalSize"].as_u64() <= manifest["snapshot"]["bytes"].as_u64());
    // The member's hash at that revision, asked again now.
    let hash = etcd.etcdctl(&[
        "endpoint",
        "hashkv",
        &format!("--rev={revision}"),
        "-w=json",
    ]);
    assert_eq!(hash.json()[0]["HashKV"]["hash"], manifest["hashKv"]["hash"]);
    assert_eq!(manifest["hashKv"]["revision"], revision);
    // What was written later is not in it, and nothing else is missing.
    etcd.put("/later", "x");
    let back = restored(Version::V3_6, &file);
    assert_eq!(contents(&back), live);
}

#[test]
fn an_etcd_of_the_minor_before_with_tls_is_saved_into_a_folder() {
    let etcd = Etcd::builder().version(Version::V3_5).tls().start();
    etcd.fill(&Fill::of(1 << 20));
    let (live, folder) = (contents(&etcd), Folder::new("location"));
    let location = format!("file://{}", folder.path().display());
    let run = of(&etcd, &["--cluster=c.1", "--name=a.b", "-o=json"]).location(&location);
    let printed = run.ok().json();
    let kept = folder.join("plugins/etcd-launcher/c.1/a.b");
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(kept.join("manifest.json")).unwrap()).unwrap();
    for field in ["name", "data", "snapshot", "facts", "etcd"] {
        assert_eq!(printed[field], manifest[field], "{field}");
    }
    assert!(printed["where"].as_str().unwrap().starts_with(&location));
    assert_eq!(manifest["facts"].get("storageVersion"), None);
    assert!(
        manifest["etcd"]["version"]
            .as_str()
            .unwrap()
            .starts_with("3.5.")
    );
    let data = kept.join(manifest["data"]["file"].as_str().unwrap());
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 2);
    let file = unpacked(&folder, &fs::read(data).unwrap());
    assert_eq!(
        status(Version::V3_5, &file)["revision"],
        manifest["facts"]["revision"]
    );
    assert_eq!(contents(&restored(Version::V3_5, &file)), live);
}

#[test]
fn a_file_is_what_etcdctl_saves_and_only_force_replaces_one() {
    let etcd = Etcd::start();
    etcd.fill(&Fill::of(1 << 20));
    let live = contents(&etcd);
    let folder = Folder::new("files");
    let (plain, packed) = (folder.join("x.db"), folder.join("x.db.zst"));
    let save = |path: &std::path::Path, more: &[&str]| of(&etcd, more).arg(path);
    let run = save(&plain, &["-o=name"]).ok();
    assert_eq!(run.stdout.trim_end(), plain.display().to_string());
    save(&packed, &[]).ok();
    assert_eq!(status(Version::V3_6, &plain)["totalKey"], live.len());
    assert_eq!(contents(&restored(Version::V3_6, &plain)), live);
    let bytes = fs::read(&packed).unwrap();
    assert!(bytes.len() as u64 * 10 < fs::metadata(&plain).unwrap().len() * 9);
    assert_eq!(
        status(Version::V3_6, &unpacked(&folder, &bytes))["totalKey"],
        live.len()
    );
    etcd.put("/later", "x");
    let before = fs::read(&plain).unwrap();
    let refused = save(&plain, &[]).code(1);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(fs::read(&plain).unwrap(), before);
    save(&plain, &["--force"]).ok();
    assert_eq!(status(Version::V3_6, &plain)["totalKey"], live.len() + 1);
    let refused = save(&folder.join("absent/x.db"), &[]).code(1);
    assert!(refused.stderr.contains("absent/x.db"), "{}", refused.stderr);
    let url = format!("file://{}", folder.join("by-url.db").display());
    of(&etcd, &[]).arg(&url).ok();
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".part") || name.contains("by-url"))
        .collect();
    assert_eq!(names, ["by-url.db"]);
}

#[test]
fn a_url_is_one_object_and_is_never_replaced() {
    let etcd = Etcd::start();
    etcd.put("/a", "b");
    let minio = Minio::shared();
    let bucket = minio.bucket("one-object");
    let url = |key: &str| format!("s3://{bucket}/{key}?endpoint={}", minio.endpoint());
    let save = |key: &str| of(&etcd, &["-o=yaml"]).arg(url(key)).credentials_of(minio);
    let run = save("deep/er/x.db").ok();
    assert!(
        run.stdout.contains("where: s3://one-object/deep/er/x.db\n"),
        "{}",
        run.stdout
    );
    assert_eq!(minio.list(bucket, ""), ["deep/er/x.db"]);
    let folder = Folder::new("one-object");
    let file = folder.write("x.db", minio.get(bucket, "deep/er/x.db"));
    assert_eq!(status(Version::V3_6, &file)["revision"], 2);
    assert!(
        save("deep/er/x.db")
            .code(1)
            .stderr
            .contains("exists already")
    );
    save("y.db.zst").ok();
    unpacked(&folder, &minio.get(bucket, "y.db.zst"));
    for wrong in ["", "deep/"] {
        save(wrong).code(2);
    }
}

#[test]
fn a_name_that_is_taken_is_refused_before_etcd_is_asked() {
    let etcd = Etcd::start();
    let bucket = Bucket::new("taken");
    bucket.snapshot(&etcd, "a").ok();
    let (first, _) = bucket.saved("a");
    let refused = bucket
        .snapshot(&etcd, "a")
        .arg("--endpoints=http://127.0.0.1:1")
        .code(1);
    assert!(
        refused
            .stderr
            .contains("snapshot a of cluster zvc78xnnz7 exists already"),
        "{}",
        refused.stderr
    );
    assert_eq!(bucket.saved("a").0, first);
}

#[test]
fn what_the_command_line_can_not_mean_is_refused_with_what_it_may() {
    for (arguments, says) in [
        (&[] as &[&str], "--location"),
        (&["--location=file:///tmp/x"], "--cluster"),
        (&["--location=file:///tmp/x", "--cluster=a/b"], "--cluster"),
        (
            &["--location=file:///tmp/x", "--cluster=c", "--name=.."],
            "--name",
        ),
        (
            &["--location=file:///tmp/x", "--cluster=c", "--force"],
            "--force",
        ),
        (&["/tmp/x.db", "--name=a"], "--name"),
        (&["ftp://bucket/x.db"], "ftp://"),
        (&["/tmp/x.db", "--user=root:hidden"], "--password-file"),
        (&["/tmp/x.db", "--cert=/absent"], "--key"),
        (&["/tmp/x.db", "--hold-limit=soon"], "--hold-limit"),
    ] {
        let run = etcd_launcher(&["snapshot"]).args(arguments).code(2);
        assert!(run.stderr.contains(says), "{arguments:?}: {}", run.stderr);
        assert!(!run.stderr.contains("hidden"), "{}", run.stderr);
    }
    let absent = etcd_launcher(&["snapshot", "/tmp/x.db", "--cacert=/absent/ca"]).code(1);
    assert!(absent.stderr.contains("/absent/ca"), "{}", absent.stderr);
}
