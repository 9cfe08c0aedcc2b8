//! Every command in the README works as it stands there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::cluster::Cluster;
use harness::etcd::Etcd;
use harness::hosted::Hosted;
use harness::node::{Node, NodeOptions};
use harness::process::Folder;
use harness::run::{etcd_launcher, through_kubectl};
use harness::store::Minio;
use harness::tools;

use crate::controller::Served;
use crate::place::on;

/// What the README's commands begin with; each has a test below.
const PROGRAMS: [&str; 2] = ["kubectl backup ", "etcd-launcher "];

/// Where the way from Velero begins, and where it ends.
const MOVING: [&str; 2] = ["\n## Moving from Velero\n", "\n## "];

/// The lines of the README's `sh` blocks that begin with these words, without them; the way from Velero has a test of its own.
pub(crate) fn commands(program: &str) -> Vec<Vec<String>> {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (before, moving) = readme.split_once(MOVING[0]).unwrap();
    let (_, after) = moving.split_once(MOVING[1]).unwrap();
    let mut inside = false;
    let mut found = Vec::new();
    for line in before.lines().chain(after.lines()) {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                assert!(
                    PROGRAMS.iter().any(|known| line.starts_with(known)),
                    "no test runs {line:?}"
                );
                let Some(words) = line.strip_prefix(program) else {
                    continue;
                };
                found.push(
                    words
                        .split_whitespace()
                        .map(|word| word.trim_matches('\'').to_owned())
                        .collect(),
                );
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_command_in_the_readme_works() {
    let cluster = Cluster::start();
    let minio = Minio::start();
    let bucket = minio.bucket("backups");
    cluster.apply(
        "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop, labels: {app: web}}
data: {greeting: hello}
",
    );
    let location = format!("s3://{bucket}/prod?endpoint={}", minio.endpoint());
    on(&cluster, &location, &["create", "nightly"])
        .credentials_of(&minio)
        .ok();

    let home = Folder::new("home");
    fs::copy(minio.credentials_file(), home.join("credentials")).unwrap();
    for (file, bytes) in crate::copy::signed::key_pair("backups") {
        fs::write(home.join(file), bytes).unwrap();
    }
    let second = home.join("second").display().to_string();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/encryption");
    fs::copy(keys.join("first.pub"), home.join("team.pub")).unwrap();
    fs::copy(keys.join("first.key"), home.join("my.key")).unwrap();
    let mut all = commands("kubectl backup ");
    // Those of a hosted cluster, of schedules, of an installed controller and of a volume's files have tests of their own.
    let elsewhere = [
        "etcd",
        "schedule",
        "controller",
        "install",
        "status",
        "uninstall",
    ];
    let of_files = "--volume".to_owned();
    all.retain(|words| {
        !elsewhere.contains(&words[0].as_str())
            && !is_handed_over(words)
            && !words.contains(&of_files)
    });
    assert!(all.len() > 20, "{}", all.len());
    // The location is set up before the part of the README that shows how: its author has one.
    let (setup, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|words| words[0] == "location");
    for words in setup.iter().chain(&rest) {
        let words: Vec<String> = words
            .iter()
            .map(|word| word.replace("https://minio.example.com:9000", minio.endpoint()))
            .map(|word| word.replace("/mnt/second", &second))
            .collect();
        let mut call = through_kubectl(&words)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig());
        if words.iter().any(|word| word.starts_with("s3://")) {
            call = call.credentials_of(&minio);
        }
        call.ok();
    }
}

/// The lines of the way from Velero.
fn moving() -> Vec<String> {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, moving) = readme.split_once(MOVING[0]).unwrap();
    let (moving, _) = moving.split_once(MOVING[1]).unwrap();
    let blocks = moving.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks
        .flat_map(|block| block.lines().map(str::to_owned))
        .collect()
}

/// Velero has a namespace with all its objects, and a Deployment that no node runs; what the README tells is typed as it stands there.
#[test]
fn every_command_about_moving_from_velero_in_the_readme_works() {
    let served = Served::without_controller("readme-moving");
    let secret = [
        "-n",
        "kubectl-backup",
        "delete",
        "secret",
        "cloud-credentials",
    ];
    served.cluster.kubectl(&secret);
    let home = Folder::new("moving");
    served
        .cluster
        .apply(&harness::velero::definitions(&home).to_string());
    let keys = format!(
        "--from-file=cloud={}",
        served.minio.credentials_file().display()
    );
    for words in [
        &["create", "namespace", "velero"][..],
        &[
            "-n",
            "velero",
            "create",
            "secret",
            "generic",
            "cloud-credentials",
            &keys,
        ],
        &[
            "-n",
            "velero",
            "create",
            "deployment",
            "velero",
            "--image=velero",
        ],
        &[
            "wait",
            "--for=condition=Established",
            "crd/schedules.velero.io",
            "crd/backupstoragelocations.velero.io",
        ],
    ] {
        served.cluster.kubectl(words);
    }
    let (bucket, endpoint) = (&served.bucket, served.minio.endpoint());
    served.apply(&format!(
        r#"
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: default, namespace: velero}}
spec:
  provider: aws
  default: true
  objectStorage: {{bucket: {bucket}, prefix: prod}}
  config: {{region: us-east-1, s3ForcePathStyle: "true", s3Url: "{endpoint}"}}
status: {{phase: Available, lastValidationTime: "2026-11-20T01:00:00Z"}}
---
apiVersion: velero.io/v1
kind: Schedule
metadata: {{name: nightly, namespace: velero, labels: {{team: shop}}}}
spec: {{schedule: "0 1 * * *", template: {{includedNamespaces: [default], storageLocation: default, ttl: 48h0m0s}}}}
status: {{phase: Enabled, lastBackup: "2026-11-20T01:00:00Z"}}
"#
    ));
    let object = |what: &str| served.cluster.try_kubectl(&["get", "-o", "json", what]);
    let replicas = || -> serde_json::Value {
        let path = "/apis/apps/v1/namespaces/velero/deployments/velero";
        served.cluster.get_raw(path)["spec"]["replicas"].clone()
    };
    let (plugin, folder) = (tools::plugin(), tools::folder());
    let folders = [plugin.parent().unwrap(), &folder].map(|one| one.display().to_string());
    let path = format!("{}:/usr/bin:/bin", folders.join(":"));
    let all = moving();
    assert!(all.len() >= 11, "{all:?}");
    let ended = |namespace: &str| {
        let path = format!("/apis/velero.io/v1/namespaces/{namespace}/backups");
        let list = served.cluster.get_raw(&path);
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let mut ended = all
            .into_iter()
            .filter(|one| one["status"]["phase"] == "Completed");
        let name = ended.next()?["metadata"]["name"].as_str()?.to_owned();
        let marker = format!("prod/backups/{name}/velero-backup.json");
        served.minio.try_get(bucket, &marker).map(|_| name)
    };
    let mut controller = None;
    for line in &all {
        if line.contains(" uninstall ") {
            // Before it goes, it has made a backup.
            let namespace = if line.contains("velero") {
                "velero"
            } else {
                "kubectl-backup"
            };
            let made = harness::wait_for("a backup", Duration::from_secs(120), || ended(namespace));
            assert!(made.starts_with("nightly-"), "{made}");
            drop(controller.take().map(harness::run::Running::kill));
        }
        harness::run::program("/bin/sh", &["-c", line])
            .env("PATH", &path)
            .home(home.path())
            .kubeconfig(served.cluster.kubeconfig())
            .ok();
        if line.contains(" install ") {
            // No node runs the Deployment.
            let at = if line.contains("velero") {
                "velero"
            } else {
                "kubectl-backup"
            };
            controller = Some(served.call(&["--namespace", at]).spawn());
        }
        if line.ends_with("get backupstoragelocations.velero.io") {
            served.wait("backupstoragelocations/default", "available", |object| {
                object["status"]["phase"] == "Available"
            });
            let copied = served.object("backupstoragelocations/default").unwrap();
            assert_eq!(copied["metadata"]["labels"], serde_json::Value::Null);
        }
        if line.contains("schedules.velero.io") {
            let copied = served.object("schedules/nightly").unwrap();
            assert_eq!(copied["spec"]["template"]["ttl"], "48h0m0s");
        }
        let is_back = line.ends_with("--replicas=1");
        if is_back || line.ends_with("--replicas=0") {
            assert_eq!(replicas(), i32::from(is_back), "{line}");
        }
    }
    // Velero has what it had.
    for what in ["namespace/velero", "crd/backups.velero.io"] {
        assert_eq!(object(what).code, 0, "{what}");
    }
    for what in ["schedules/nightly", "backupstoragelocations/default"] {
        let path = format!("/apis/velero.io/v1/namespaces/velero/{what}");
        served.cluster.get_raw(&path);
    }
}

fn is_handed_over(words: &[String]) -> bool {
    words.iter().any(|word| word.starts_with("--in-cluster"))
}

#[test]
fn every_command_about_schedules_in_the_readme_works() {
    let mut served = Served::without_controller("readme-schedules");
    let mut all = commands("kubectl backup ");
    all.retain(|words| {
        ["schedule", "controller"].contains(&words[0].as_str()) || is_handed_over(words)
    });
    assert!(all.len() > 5, "{}", all.len());
    // No node runs what the README installs before: it is the same controller as the one outside of the cluster.
    let (controller, rest): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|words| words[0] == "controller");
    let [controller] = &controller[..] else {
        panic!("{controller:?}");
    };
    let call = |words: &[String]| through_kubectl(words).kubeconfig(served.cluster.kubeconfig());
    let running = call(controller).spawn();
    served.cluster_has_kinds();
    served.location("default", "prod", true);
    served.location("offsite", "archive", false);
    for words in rest {
        call(&words).ok();
    }
    served.controller = Some(running);
    let made = |name: &str| served.object(&format!("schedules/{name}"));
    assert_eq!(
        made("nightly").unwrap()["metadata"]["annotations"]["kubectl-backup/keep"],
        "7"
    );
    assert!(made("archive").is_none());
    served.ends("before-upgrade", "Completed");
}

#[test]
fn every_command_about_a_hosted_cluster_in_the_readme_works() {
    let hosted = Hosted::builder().start();
    let home = Folder::new("home");
    let call = |words: &[String]| {
        through_kubectl(words)
            .home(home.path())
            .kubeconfig(hosted.hosting.kubeconfig())
            .ok()
    };
    let holds = |key: &str| hosted.keys(0).get(key).is_some();
    let (kept, lost) = (
        "/registry/configmaps/shop/kept",
        "/registry/configmaps/shop/lost",
    );
    hosted.keys(0).put(kept, b"x");
    let mut all = commands("kubectl backup ");
    all.retain(|words| words[0] == "etcd");
    let mut snapshot = String::new();
    let (mut restores, mut rollbacks) = (0, 0);
    for words in all {
        let is = |command: &[&str]| {
            words[1..]
                .iter()
                .zip(command)
                .all(|(word, known)| word == known)
        };
        if is(&["restore", "create"]) {
            hosted.keys(0).put(lost, b"x");
            hosted.keys(0).delete(kept);
        }
        let named: Vec<String> = words
            .iter()
            .map(|word| match word.as_str() {
                "prod" => hosted.name.clone(),
                // The time is the day's.
                word if word.starts_with("before-upgrade-20") => snapshot.clone(),
                word => word.to_owned(),
            })
            .collect();
        let run = call(&named);
        if let Some(taken) = run
            .stdout
            .strip_prefix("etcdbackupconfig/before-upgrade created\nsnapshot/")
        {
            snapshot = taken.split_whitespace().next().unwrap().to_owned();
        }
        if is(&["get"]) {
            assert!(run.stdout.contains(&snapshot), "{}", run.stdout);
        }
        restores += usize::from(is(&["restore", "create"]));
        rollbacks += usize::from(is(&["rollback"]));
        if is(&["restore", "describe"]) {
            assert!(run.stdout.contains("Completed"), "{}", run.stdout);
        }
        if restores > 0 {
            let is_back = rollbacks == 0;
            assert_eq!((holds(kept), holds(lost)), (is_back, !is_back), "{words:?}");
        }
    }
    assert!(!snapshot.is_empty());
    assert_eq!((restores, rollbacks), (1, 1));
}

#[test]
fn every_command_about_etcd_in_the_readme_works() {
    let etcd = Etcd::builder().tls().start();
    etcd.put("/registry/configmaps/shop/settings", "kept");
    let folder = Folder::new("readme");
    let [ca, certificate, key] = etcd.client_files().unwrap();
    let places = [
        ("/var/backups", folder.path()),
        ("/var/lib/etcd", etcd.data_dir()),
        ("/etc/kubernetes/pki/etcd/ca.crt", &ca),
        ("/etc/kubernetes/pki/etcd/server.crt", &certificate),
        ("/etc/kubernetes/pki/etcd/server.key", &key),
    ];
    let all = commands("etcd-launcher ");
    // Those of a node have a test of their own, for not every machine can have one.
    let all: Vec<_> = all.into_iter().filter(|words| words[0] != "node").collect();
    assert!(all.len() >= 6, "{}", all.len());
    for words in all {
        if words[0] == "restore" && etcd.member(0).is_running() {
            etcd.put("/registry/configmaps/shop/later", "lost");
            etcd.member(0).stop();
        }
        let words: Vec<String> = words
            .iter()
            .map(|word| {
                let word = word.replace("https://127.0.0.1:2379", etcd.endpoint());
                places.iter().fold(word, |word, (shown, real)| {
                    word.replace(shown, &real.display().to_string())
                })
            })
            .collect();
        etcd_launcher(&words)
            .env("PATH", tools::folder())
            .home(folder.path())
            .ok();
    }
}

#[test]
fn every_command_about_a_node_in_the_readme_works() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let node = Node::start(NodeOptions::default());
    let minio = Minio::start_on(&node.host_address());
    minio.bucket("backups");
    let backups = "/var/lib/backups";
    fs::create_dir_all(node.path(backups)).unwrap();
    let launch = |words: &[String]| {
        let words = words.iter().map(|word| {
            word.replace("https://minio.example.com:9000", minio.endpoint())
                .replace("/var/backups", backups)
        });
        let program = tools::launcher().display().to_string();
        let command: Vec<String> = std::iter::once(program).chain(words).collect();
        node.inside(&command).credentials_of(&minio).ok()
    };
    let all = commands("etcd-launcher ");
    node.kubectl(&["create", "configmap", "kept"]);
    let snapshot = all.iter().find(|words| words[0] == "snapshot").unwrap();
    launch(snapshot);
    // The same, into the location that the README restores from.
    let mut stored = snapshot.clone();
    let of_a_store = all
        .iter()
        .find(|words| words.contains(&"nightly".to_owned()));
    let of_a_store = of_a_store
        .unwrap()
        .iter()
        .skip(3)
        .filter(|word| *word != "--yes");
    stored.splice(1..2, ["--name=nightly".to_owned()]);
    stored.extend(of_a_store.cloned());
    launch(&stored);
    node.kubectl(&["create", "configmap", "lost"]);
    let (mut restores, mut rollbacks) = (0, 0);
    for words in all.iter().filter(|words| words[0] == "node") {
        launch(words);
        let changes = words.contains(&"--yes".to_owned());
        restores += usize::from(changes && words[1] == "restore");
        rollbacks += usize::from(changes && words[1] == "rollback");
        node.wait_until_ready();
        let lost = node.try_kubectl(&["get", "configmap", "lost"]);
        assert_eq!(lost.code == 0, restores == 0, "{words:?}");
        node.kubectl(&["get", "configmap", "kept"]);
    }
    assert_eq!((restores, rollbacks), (2, 1));
}

/// Runs a demo to its end. `launcher` is a static one, where it needs any.
#[track_caller]
fn shows_that_nothing_is_missing(demo: &str, launcher: Option<&Path>) {
    let mut run = harness::run::program(demo, &[] as &[&str])
        .env("KUBECTL_BACKUP_BIN", tools::plugin())
        .env("KUBECTL_BACKUP_TOOLS", tools::folder())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", std::env::var_os("HOME").unwrap());
    if let Some(launcher) = launcher {
        run = run.env("ETCD_LAUNCHER_BIN", launcher);
    }
    // The repositories of its volumes are counted as those of a story.
    if let Some(counted) = std::env::var_os("KUBECTL_BACKUP_REPOSITORIES") {
        run = run.env("KUBECTL_BACKUP_REPOSITORIES", counted);
    }
    let run = run.spawn().wait(Duration::from_secs(1800)).ok();
    assert!(
        run.stdout.contains("0 missing, 0 different"),
        "{}",
        run.stdout
    );
}

#[test]
fn the_demo_ends_with_nothing_missing_and_nothing_different() {
    shows_that_nothing_is_missing(env!("CARGO_BIN_EXE_demo"), None);
}

#[test]
fn the_demo_of_etcd_ends_with_nothing_missing_and_nothing_different() {
    if let Err(reason) = harness::node::Node::available() {
        harness::skip!("{reason}");
    }
    let launcher = tools::static_launcher();
    shows_that_nothing_is_missing(env!("CARGO_BIN_EXE_demo-etcd"), Some(launcher.as_ref()));
}

#[test]
fn the_demo_of_volumes_ends_with_nothing_missing_and_nothing_different() {
    if let Err(reason) = harness::node::Node::available() {
        harness::skip!("{reason}");
    }
    if !Path::new("/usr/lib/postgresql/15/bin/postgres").exists() {
        harness::skip!("this machine has no PostgreSQL 15");
    }
    shows_that_nothing_is_missing(env!("CARGO_BIN_EXE_demo-volumes"), None);
}

#[test]
fn every_test_that_the_tables_of_the_documentation_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = String::new();
    for part in [
        "tests",
        "backup-core/src",
        "etcd-launcher/src",
        "kubectl-backup/src",
    ] {
        read_all(&root.join(part), &mut sources);
    }
    let table = |name: &str| fs::read_to_string(root.join("docs").join(name)).unwrap();
    let table = table("kkp-defects.md") + &table("locations.md");
    // Names of tests are sentences: everything else between backticks has other characters, or fewer words.
    let is_test = |name: &&str| {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        name.bytes().all(word) && name.matches('_').count() >= 2
    };
    let named: Vec<&str> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(is_test)
        .collect();
    assert!(named.len() > 50, "{named:?}");
    for name in named {
        assert!(
            sources.contains(&format!("fn {name}(")),
            "there is no test {name}"
        );
    }
}

fn read_all(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            sources.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
