//! Snapshots of a real etcd, read with the plugin: by the bucket alone, and by the objects that name it.

use std::fs;
use std::path::Path;

use harness::cluster::Cluster;
use harness::etcd::{Etcd, Fill, Version, etcdutl};
use harness::process::Folder;
use harness::run::{Backup, etcd_launcher, kubectl_backup};
use harness::store::Minio;
use serde_json::{Value, json};

use super::place::{Plane, good, shared};

fn take(etcd: &Etcd, location: &str, cluster: &str, name: &str) -> Backup {
    etcd_launcher(&["snapshot", "--cluster", cluster, "--name", name])
        .env("ETCDCTL_ENDPOINTS", etcd.endpoints().join(","))
        .args(&etcd.client_flags())
        .location(location)
}

/// `kubectl backup etcd` with a location and no cluster at all.
fn alone(location: &str, arguments: &[&str]) -> Backup {
    kubectl_backup(&["etcd"]).args(arguments).location(location)
}

/// The one file with data below a folder.
fn data(folder: &Path, cluster: &str, name: &str) -> std::path::PathBuf {
    let folder = folder.join(format!("plugins/etcd-launcher/{cluster}/{name}"));
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "zst"))
        .unwrap()
}

#[test]
fn with_a_location_no_cluster_is_needed() {
    let etcd = Etcd::start();
    etcd.fill(&Fill::of(2 << 20));
    let folder = Folder::new("etcd-location");
    let location = format!("file://{}", folder.path().display());
    take(&etcd, &location, "c1", "daily-2026-11-20t01-00-00").ok();
    take(&etcd, &location, "c2", "daily-2026-11-20t01-00-00").ok();
    etcd.put("/registry/more", "x");
    let revision = etcd.revision();
    take(&etcd, &location, "c1", "daily-2026-11-21t01-00-00").ok();

    let table = alone(&location, &["get"]).ok().stdout;
    assert_eq!(table.lines().count(), 4, "{table}");
    let table = alone(&location, &["get", "--cluster", "c1"]).ok().stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines.len() == 3 && lines[1].contains("11-20") && lines[2].contains(&revision.to_string()),
        "{table}"
    );
    let one = alone(
        &location,
        &["get", "daily-2026-11-21T01:00:00", "-o", "json"],
    )
    .ok()
    .json();
    assert_eq!(
        (
            &one["cluster"],
            &one["revision"],
            &one["manifest"]["format"]
        ),
        (&json!("c1"), &json!(revision), &json!("etcd-snapshot/1"))
    );
    // One name, two clusters.
    let refused = alone(&location, &["describe", "daily-2026-11-20t01-00-00"]).code(2);
    assert!(
        refused.stderr.contains("several clusters") && refused.stderr.contains("c1, c2"),
        "{}",
        refused.stderr
    );
    let text = alone(&location, &["describe", "c1-daily-2026-11-20t01-00-00.db"])
        .ok()
        .stdout;
    for word in [
        "Revision:",
        "Live keys:",
        "configmaps",
        "secrets",
        "etcd-0",
        "Storage version:",
        "plugins/etcd-launcher/c1/",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }

    let name = "daily-2026-11-21t01-00-00";
    let verified = alone(&location, &["verify", name]).ok().stdout;
    assert!(
        verified.contains(&format!("verified: revision {revision}")),
        "{verified}"
    );
    // What is downloaded is restored by etcdutl alone.
    let file = folder.join("snapshot.db");
    let written = alone(
        &location,
        &["download", name, "--output-file", file.to_str().unwrap()],
    )
    .ok();
    assert!(written.stdout.contains("downloaded"), "{}", written.stdout);
    let said = etcdutl(
        Version::V3_6,
        &["snapshot", "status", file.to_str().unwrap(), "-w", "json"],
    )
    .json();
    assert_eq!(said["revision"], revision);
    let back = folder.join("back");
    etcdutl(
        Version::V3_6,
        &[
            "snapshot",
            "restore",
            file.to_str().unwrap(),
            "--data-dir",
            back.to_str().unwrap(),
        ],
    );
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let refused = alone(
        &location,
        &["download", name, "--output-file", file.to_str().unwrap()],
    )
    .code(1);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);

    // Deleting asks; the others stay.
    alone(&location, &["delete", name]).code(2);
    alone(&location, &["delete", name, "absent", "--yes"]).code(1);
    let deleted = alone(&location, &["delete", name, "--yes"]).ok().stdout;
    assert_eq!(deleted, format!("snapshot/{name} deleted\n"));
    let left = alone(&location, &["get", "-o", "name"]).ok().stdout;
    assert_eq!(
        left,
        "snapshot/daily-2026-11-20t01-00-00\nsnapshot/daily-2026-11-20t01-00-00\n"
    );
    let nothing = alone(&location, &["get", "--cluster", "c3"]).ok();
    assert!(
        nothing.stdout.is_empty() && nothing.stderr.contains("No snapshots found"),
        "{}",
        nothing.stderr
    );
}

#[test]
fn a_snapshot_that_was_damaged_is_told_and_not_downloaded() {
    let etcd = Etcd::start();
    etcd.fill(&Fill::of(2 << 20));
    let folder = Folder::new("etcd-damaged");
    let location = format!("file://{}", folder.path().display());
    take(&etcd, &location, "c", "s").ok();
    let path = data(folder.path(), "c", "s");
    let whole = fs::read(&path).unwrap();
    let verify = || alone(&location, &["verify", "s"]).code(1);
    let download = |told: &str| {
        let file = folder.join("out.db");
        let refused = alone(
            &location,
            &["download", "s", "--output-file", file.to_str().unwrap()],
        )
        .code(1);
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
        let left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 1, "{left:?}");
    };
    // A bit is turned, in the middle and near the end.
    for at in [whole.len() / 2, whole.len() - 40] {
        let mut bad = whole.clone();
        bad[at] ^= 4;
        fs::write(&path, &bad).unwrap();
        let told = verify();
        assert!(
            told.stdout.contains("digest differs") && told.stderr.contains("is damaged"),
            "{}{}",
            told.stdout,
            told.stderr
        );
        download("is damaged");
    }
    // It is cut, empty, longer, gone.
    fs::write(&path, &whole[..whole.len() / 3]).unwrap();
    assert!(verify().stdout.contains("the manifest says"));
    download("is damaged");
    fs::write(&path, b"").unwrap();
    verify();
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    assert!(verify().stdout.contains("more than"));
    fs::remove_file(&path).unwrap();
    assert!(verify().stdout.contains("is missing"));
    download("is damaged");
    // Its own bytes again, but another database's manifest.
    fs::write(&path, &whole).unwrap();
    alone(&location, &["verify", "s"]).ok();
    let manifest = path.with_file_name("manifest.json");
    let mut told: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    told["facts"]["revision"] = 1.into();
    told["snapshot"]["sha256"] = "0".repeat(64).into();
    fs::write(&manifest, told.to_string()).unwrap();
    let problems = verify().stdout;
    assert!(
        problems.contains("revision is") && problems.contains("its digest differs"),
        "{problems}"
    );
    told["data"]["compression"] = "brotli".into();
    fs::write(&manifest, told.to_string()).unwrap();
    let refused = alone(&location, &["verify", "s"]).code(1);
    assert!(refused.stderr.contains("brotli"), "{}", refused.stderr);
}

/// A control plane whose destination `s3` is a bucket of the shared store.
fn with_bucket(name: &'static str) -> (Plane, String) {
    let (plane, minio) = (Plane::new(name), Minio::shared());
    let bucket = minio.bucket(name);
    let credentials = fs::read_to_string(minio.credentials_file()).unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": plane.namespace}, "stringData": {"cloud": credentials}});
    plane.cluster.apply(&secret.to_string());
    let destination = json!({
        "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": {"name": "s3", "namespace": plane.namespace},
        "spec": {
            "provider": "aws", "objectStorage": {"bucket": bucket, "prefix": "p"}, "credential": {"name": "keys", "key": "cloud"},
            "config": {"region": minio.region(), "s3Url": minio.endpoint(), "s3ForcePathStyle": "true"},
        },
    });
    plane.cluster.apply(&destination.to_string());
    (
        plane,
        format!("s3://{bucket}/p?endpoint={}", minio.endpoint()),
    )
}

#[test]
fn by_the_objects_the_bucket_is_read_with_the_keys_of_its_secret() {
    let etcd = Etcd::start();
    etcd.fill(&Fill::of(1 << 20));
    let (plane, location) = with_bucket("by-objects");
    let (one, two) = ("daily-2026-11-20t01-00-00", "daily-2026-11-21t01-00-00");
    for name in [one, two] {
        take(&etcd, &location, &plane.name, name)
            .credentials_of(Minio::shared())
            .ok();
    }
    plane.config("daily", &[good(one), good(two)]);
    let text = plane.run(&["describe", one]).ok();
    assert!(
        text.stdout.contains("Live keys:") && !text.stderr.contains("warning"),
        "{}{}",
        text.stdout,
        text.stderr
    );
    // The object names it; what its bucket says of it comes along for programs too.
    let told = plane.run(&["describe", one, "-o", "json"]).ok().json();
    assert_eq!(
        (&told["kind"], &told["config"], &told["manifest"]["name"]),
        (&json!("SnapshotDescription"), &json!("daily"), &json!(one))
    );
    plane.run(&["verify", one]).ok();
    let told = plane.run(&["verify", one, "-o", "json"]).ok().json();
    assert_eq!(
        (&told["kind"], &told["snapshot"], &told["verified"]),
        (&json!("SnapshotVerification"), &json!(one), &json!(true))
    );
    let by_revision = ["get", "-o", "name", "--sort-by", ".revision"];
    let listed = plane.run(&by_revision).ok().stdout;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let folder = Folder::new("downloads");
    plane
        .run(&["download", one])
        .current_dir(folder.path())
        .ok();
    let file = folder.join(format!("{one}.db"));
    let said = etcdutl(
        Version::V3_6,
        &["snapshot", "status", file.to_str().unwrap(), "-w", "json"],
    )
    .json();
    assert_eq!(said["revision"], etcd.revision());

    // What a restore reads is not deleted under it.
    plane
        .run(&["restore", "create", "r", "--yes", "--from-snapshot", one])
        .ok();
    let refused = plane.run(&["delete", one, "--yes"]).code(1);
    assert!(
        refused.stderr.contains("etcdrestore/r"),
        "{}",
        refused.stderr
    );
    plane.status("etcdrestore", "r", &json!({"phase": "Completed"}));
    plane.run(&["delete", one, "--yes"]).ok();
    assert_eq!(
        plane.run(&["get", "-o", "name"]).ok().stdout,
        format!("snapshot/{two}\n")
    );
    let rows = plane.get("etcdbackupconfigs", "daily")["status"]["lastBackups"].clone();
    assert_eq!(
        (&rows[0]["deletePhase"], &rows[1]["deletePhase"]),
        (&json!("Completed"), &Value::Null)
    );
    let keys = Minio::shared().list("by-objects", "");
    assert!(
        keys.len() == 2 && keys.iter().all(|key| key.contains(two)),
        "{keys:?}"
    );
    // A row whose snapshot is gone already is cleared, too.
    for key in keys {
        Minio::shared().delete("by-objects", &key);
    }
    let missing = plane.run(&["verify", two]).code(1);
    assert!(missing.stderr.contains("not found"), "{}", missing.stderr);
    let cleared = plane.run(&["delete", two, "--yes"]).ok();
    assert!(
        cleared.stderr.contains("not in its bucket any more"),
        "{}",
        cleared.stderr
    );
    assert!(plane.run(&["get"]).ok().stdout.is_empty());
}

#[test]
fn a_destination_that_can_not_be_used_from_here_says_why() {
    let (plane, _) = with_bucket("not-from-here");
    let name = "daily-2026-11-20t01-00-00";
    plane.config("daily", &[good(name)]);
    let verify = |told: &[&str]| {
        let refused = plane.run(&["verify", name]).code(1);
        for word in told {
            assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
        }
    };
    let patch = |spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        plane.cluster.kubectl(&[
            "patch",
            "bsl",
            "s3",
            "-n",
            &plane.namespace,
            "--type=merge",
            "-p",
            &patch,
        ]);
    };
    verify(&["not found"]);
    patch(json!({"credential": {"key": "other"}}));
    verify(&["has no key \"other\"", "spec.credential.key"]);
    patch(json!({"credential": {"name": "absent"}}));
    verify(&["Secret", "absent"]);
    patch(json!({"credential": null}));
    verify(&["no credentials of its own", "--credentials-file"]);
    let file = Minio::shared().credentials_file().to_str().unwrap();
    let given = plane
        .run(&["verify", name, "--credentials-file", file])
        .code(1);
    assert!(given.stderr.contains("not found"), "{}", given.stderr);
    patch(json!({"provider": "local", "objectStorage": {"bucket": "/etc"}}));
    verify(&["a folder of the machine", "--location file://"]);
    plane
        .cluster
        .kubectl(&["delete", "bsl", "s3", "-n", &plane.namespace]);
    verify(&["no BackupStorageLocation"]);
}

/// A cluster's objects never name files of the user's machine.
#[test]
fn an_object_can_not_make_the_plugin_read_a_file_of_this_machine() {
    let (plane, _) = with_bucket("no-local-files");
    let name = "daily-2026-11-20t01-00-00";
    plane.config("daily", &[good(name)]);
    let cluster: &Cluster = shared();
    cluster.kubectl(&[
        "annotate",
        "bsl",
        "s3",
        "-n",
        &plane.namespace,
        "kubectl-backup/credentials-file=/does/not/exist",
    ]);
    let refused = plane.run(&["verify", name]).code(1);
    assert!(
        !refused.stderr.contains("/does/not/exist"),
        "{}",
        refused.stderr
    );
}
