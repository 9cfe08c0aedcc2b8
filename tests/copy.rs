//! A second copy of a backup: from one provider's store to another's, and back into a cluster.

mod along;
pub(crate) mod signed;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use harness::azurite::Azurite;
use harness::cluster::Cluster;
use harness::gcs::Gcs;
use harness::process::{Folder, PidSlot};
use harness::proxy::{Action, Match, Proxy};
use harness::run::{Backup, kubectl_backup};
use harness::store::Minio;

/// A home with locations, and a namespace with objects.
struct Home {
    folder: Folder,
    cluster: &'static Cluster,
    namespace: String,
}

impl Home {
    fn new(name: &str) -> Self {
        let cluster = Cluster::shared();
        let namespace = cluster.create_namespace(name);
        for kind in [
            &["configmap", "settings", "--from-literal=greeting=hello"][..],
            &["secret", "generic", "keys", "--from-literal=token=t0ken"],
        ] {
            cluster.kubectl(&[&["create", "-n", &namespace], kind].concat());
        }
        Self {
            folder: Folder::new("home"),
            cluster,
            namespace,
        }
    }

    fn run(&self, arguments: &[&str]) -> Backup {
        kubectl_backup(arguments)
            .home(self.folder.path())
            .kubeconfig(self.cluster.kubeconfig())
    }

    /// Remembers a location.
    fn location(&self, name: &str, arguments: &[&str]) {
        self.run(&[&["location", "create", name], arguments].concat())
            .ok();
    }

    /// Remembers a folder in this home, and tells its path.
    fn location_of_folder(&self, name: &str) -> String {
        let folder = self.folder.join(format!("of-{name}"));
        fs::create_dir_all(&folder).unwrap();
        let folder = folder.display().to_string();
        self.location(name, &["--provider=local", "--bucket", &folder]);
        folder
    }

    fn create(&self, backup: &str, location: &str) {
        self.run(&["create", backup, "-n", &self.namespace])
            .location(location)
            .ok();
    }
}

/// Names and bytes of a backup's files in a folder; none where it is not there.
fn files(location: &str, backup: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(location).join("backups").join(backup);
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn a_backup_goes_from_provider_to_provider_and_comes_back_byte_for_byte_into_a_cluster_with_another_default()
 {
    let home = Home::new("copied-around");
    let (minio, gcs, azurite) = (Minio::shared(), Gcs::shared(), Azurite::shared());
    let first = home.location_of_folder("first");
    let last = home.location_of_folder("last");
    let credentials = minio.credentials_file().display().to_string();
    let endpoint = format!("s3Url={}", minio.endpoint());
    let bucket = minio.bucket("copied-around");
    home.location(
        "amazon",
        &[
            "--provider=aws",
            "--bucket",
            bucket,
            "--prefix=p",
            "--config",
            &endpoint,
            "--credentials-file",
            &credentials,
            "--default",
        ],
    );
    let key = gcs.credentials_file().display().to_string();
    let endpoint = format!("storeEndpoint={}", gcs.endpoint());
    home.location(
        "google",
        &[
            "--provider=gcp",
            "--bucket",
            gcs.bucket("copied-around"),
            "--config",
            &endpoint,
            "--credentials-file",
            &key,
        ],
    );
    let mut way = vec!["first", "amazon", "google"];
    if let Some(azurite) = azurite {
        let config = format!(
            "storageAccount={},storageAccountURI={}",
            azurite.account(),
            azurite.endpoint()
        );
        home.location(
            "microsoft",
            &[
                "--provider=azure",
                "--bucket",
                azurite.container("copied-around"),
                "--config",
                &config,
                "--credentials-file",
                &azurite.credentials_file().display().to_string(),
                "--cacert",
                &azurite.ca_file().display().to_string(),
            ],
        );
        way.push("microsoft");
    }
    way.push("last");
    home.create("b", "first");
    for hop in way.windows(2) {
        let copied = home
            .run(&["copy", "b", "--to", hop[1]])
            .location(hop[0])
            .ok();
        let said = format!("backup/b copied to {}: ", hop[1]);
        assert!(copied.stdout.starts_with(&said), "{}", copied.stdout);
        home.run(&["verify", "b"]).location(hop[1]).ok();
    }
    let (begin, end) = (files(&first, "b"), files(&last, "b"));
    assert!(begin.len() > 8, "{}", begin.len());
    let names = |files: &[(String, Vec<u8>)]| {
        let names = files.iter().map(|(name, _)| name.clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&end), names(&begin));
    assert!(end == begin, "some file has other bytes");

    // Said again, it is there already, and nothing is written.
    let again = ["copy", "b", "--to", "last", "-o", "json"];
    let again = home.run(&again).location("first").ok().json();
    assert_eq!(
        (&again["kind"], &again["copied"], &again["to"]),
        (&"BackupCopy".into(), &false.into(), &"last".into())
    );
    assert!(files(&last, "b") == begin, "some file has other bytes");

    // The cluster's default is a bucket; what is restored comes from the folder at the end of the way.
    let elsewhere = format!("{}-elsewhere", home.namespace);
    let mapping = format!("{}:{elsewhere}", home.namespace);
    let restore = [
        "restore",
        "create",
        "--from-backup",
        "b",
        "--namespace-mappings",
        &mapping,
    ];
    fs::remove_dir_all(Path::new(&first).join("backups")).unwrap();
    home.run(&restore).location("last").ok();
    let raw = |path: &str| {
        let path = format!("/api/v1/namespaces/{elsewhere}/{path}");
        home.cluster.get_raw(&path)
    };
    assert_eq!(raw("configmaps/settings")["data"]["greeting"], "hello");
    assert_eq!(raw("secrets/keys")["data"]["token"], "dDBrZW4=");
    if azurite.is_none() {
        harness::skip!("Azurite needs Node.js: the way went past it");
    }
}

#[test]
fn a_copy_that_can_not_be_meant_is_refused_and_writes_nothing() {
    let home = Home::new("copy-refused");
    let source = home.location_of_folder("source");
    let target = home.location_of_folder("target");
    home.location(
        "closed",
        &[
            "--provider=local",
            "--bucket",
            &target,
            "--prefix=closed",
            "--access-mode=ReadOnly",
        ],
    );
    // The same folder by another way.
    let link = home.folder.join("link");
    std::os::unix::fs::symlink(&source, &link).unwrap();
    let link = format!("file://{}", link.display());
    home.create("b", "source");
    let before = files(&source, "b");
    for (arguments, code, says) in [
        (&["copy", "b"][..], 2, "--to"),
        (&["copy", "--to", "target"], 2, "NAME"),
        (&["copy", "b", "--to", "nowhere"], 1, "there are: "),
        (&["copy", "b", "--to", "s3://"], 2, "s3://"),
        (&["copy", "b", "--to", "source"], 2, "no second one"),
        (&["copy", "b", "--to", &link], 1, "the same place"),
        (&["copy", "b", "--to", "closed"], 1, "read-only"),
        (&["copy", "absent", "--to", "target"], 1, "not found"),
        (&["copy", "../b", "--to", "target"], 2, "name"),
    ] {
        let refused = home.run(arguments).location("source").code(code);
        assert!(
            refused.stderr.contains(says),
            "{arguments:?}\n{}",
            refused.stderr
        );
    }
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);

    // Another backup has the name there.
    home.create("b", "target");
    let other = files(&target, "b");
    let refused = home
        .run(&["copy", "b", "--to", "target"])
        .location("source")
        .code(1);
    assert!(
        refused.stderr.contains("has a backup b already"),
        "{}",
        refused.stderr
    );
    assert!(files(&target, "b") == other, "it was written to");
    home.run(&["delete", "b", "--yes"]).location("target").ok();

    // One byte of a file is another one: nothing of it is a backup in the target, not even a file.
    for file in ["b.tar.gz", "b-logs.gz", "index.jsonl.zst", "SHA256SUMS"] {
        let path = Path::new(&source).join("backups/b").join(file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&path, &bad).unwrap();
        let refused = home
            .run(&["copy", "b", "--to", "target"])
            .location("source")
            .code(1);
        assert!(
            refused.stderr.contains("is damaged and was not copied"),
            "{file}\n{}",
            refused.stderr
        );
        assert_eq!(files(&target, "b"), [], "{file}");
        fs::write(&path, &good).unwrap();
    }
    assert!(files(&source, "b") == before, "the source was written to");
    home.run(&["copy", "b", "--to", "target"])
        .location("source")
        .ok();
    assert!(files(&target, "b") == before, "some file has other bytes");
}

#[test]
fn a_store_that_fails_in_the_middle_of_a_copy_leaves_no_backup_and_the_next_one_is_whole() {
    let home = Home::new("copy-fails");
    let minio = Minio::shared();
    let source = home.location_of_folder("source");
    home.create("b", "source");
    let proxy = Proxy::start(minio.upstream());
    let bucket = minio.bucket("copy-fails");
    let url = format!("s3://{bucket}/x?endpoint={}", proxy.url());
    let credentials = minio.credentials_file().display().to_string();
    let copy = || {
        let arguments = [
            "copy",
            "b",
            "--to",
            &url,
            "--to-credentials-file",
            &credentials,
        ];
        home.run(&arguments).location("source")
    };
    let denied = "<Error><Code>AccessDenied</Code><Message>Revoked.</Message></Error>";
    for file in ["b-results.gz", "SHA256SUMS"] {
        proxy.every(
            Match::method("PUT").and_path(file),
            Action::status(403, denied),
        );
        let refused = copy().code(1);
        assert!(
            refused.stderr.contains("AccessDenied") && refused.stderr.contains(file),
            "{}",
            refused.stderr
        );
        assert_eq!(
            minio.list(bucket, "x/backups"),
            Vec::<String>::new(),
            "{file}"
        );
        proxy.clear_rules();
    }
    // One that is away for a moment is waited for.
    proxy.nth(4, Match::method("PUT"), Action::Cut);
    copy().ok();
    for (name, bytes) in files(&source, "b") {
        let stands = minio.get(bucket, &format!("x/backups/b/{name}"));
        assert!(stands == bytes, "{name} has other bytes");
    }
}

#[test]
fn a_copy_that_is_killed_leaves_a_claim_that_prune_removes_and_begins_again() {
    let home = Home::new("copy-killed");
    let minio = Minio::shared();
    let proxy = Proxy::start(minio.upstream());
    let bucket = minio.bucket("copy-killed");
    let endpoint = format!("s3Url={}", proxy.url());
    let credentials = minio.credentials_file().display().to_string();
    home.location(
        "source",
        &[
            "--provider=aws",
            "--bucket",
            bucket,
            "--config",
            &endpoint,
            "--credentials-file",
            &credentials,
        ],
    );
    let target = home.location_of_folder("target");
    home.create("b", "source");
    let slot = Arc::new(PidSlot::default());
    let read = Match::method("GET").and_path("b.tar.gz");
    proxy.every(read, Action::Kill(Arc::clone(&slot)));
    let copy = || {
        home.run(&["copy", "b", "--to", "target"])
            .location("source")
    };
    let running = copy().spawn();
    running.killed_by(&slot);
    let killed = running.wait(Duration::from_secs(60));
    assert_ne!(killed.code, 0, "it was to be killed\n{}", killed.stderr);
    proxy.clear_rules();
    let left = files(&target, "b");
    let claim = left.iter().find(|(name, _)| name.starts_with("claim-"));
    let claim = claim.map(|(name, _)| name.clone()).unwrap();
    assert!(left.iter().all(|(name, _)| name != "velero-backup.json"));
    let listed = home.run(&["get", "-o", "name"]).location("target").ok();
    assert_eq!(listed.stdout, "");
    // For an hour it may live.
    let refused = copy().code(1);
    assert!(
        refused.stderr.contains("another run is creating backup b"),
        "{}",
        refused.stderr
    );
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    let claim = Path::new(&target).join("backups/b").join(claim);
    File::options()
        .write(true)
        .open(claim)
        .unwrap()
        .set_modified(old)
        .unwrap();
    let refused = copy().code(1);
    assert!(refused.stderr.contains("prune"), "{}", refused.stderr);
    home.run(&["prune", "--yes"]).location("target").ok();
    assert_eq!(files(&target, "b"), []);
    copy().ok();
    home.run(&["verify", "b"]).location("target").ok();
}

#[test]
fn a_copy_that_is_interrupted_leaves_nothing() {
    let home = Home::new("copy-interrupted");
    let minio = Minio::shared();
    let proxy = Proxy::start(minio.upstream());
    let bucket = minio.bucket("copy-interrupted");
    let url = format!("s3://{bucket}/x?endpoint={}", proxy.url());
    let credentials = minio.credentials_file().display().to_string();
    let target = home.location_of_folder("target");
    home.run(&["create", "b", "-n", &home.namespace])
        .args(&["--location", &url, "--credentials-file", &credentials])
        .ok();
    let read = Match::method("GET").and_path("b.tar.gz");
    proxy.every(read, Action::HoldBody(10));
    let running = home
        .run(&["copy", "b", "--to", "target"])
        .args(&["--location", &url, "--credentials-file", &credentials])
        .spawn();
    harness::wait_for("the first files", Duration::from_secs(60), || {
        (files(&target, "b").len() > 3).then_some(())
    });
    running.signal(harness::run::Signal::INT);
    let stopped = running.wait(Duration::from_secs(60));
    assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    assert_eq!(files(&target, "b"), []);
}
