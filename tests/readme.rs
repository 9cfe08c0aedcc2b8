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

/// The lines of the README's `sh` blocks that begin with these words, without them.
pub(crate) fn commands(program: &str) -> Vec<Vec<String>> {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let mut inside = false;
    let mut found = Vec::new();
    for line in readme.lines() {
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
    let mut all = commands("kubectl backup ");
    // Those of a hosted cluster, of schedules and of an installed controller have tests of their own.
    let elsewhere = [
        "etcd",
        "schedule",
        "controller",
        "install",
        "status",
        "uninstall",
    ];
    all.retain(|words| !elsewhere.contains(&words[0].as_str()) && !is_handed_over(words));
    assert!(all.len() > 20, "{}", all.len());
    // The location is set up before the part of the README that shows how: its author has one.
    let (setup, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|words| words[0] == "location");
    for words in setup.iter().chain(&rest) {
        let words: Vec<String> = words
            .iter()
            .map(|word| word.replace("https://minio.example.com:9000", minio.endpoint()))
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
    for words in all {
        let call = through_kubectl(&words).kubeconfig(served.cluster.kubeconfig());
        if words[0] == "controller" {
            served.controller = Some(call.spawn());
            served.cluster_has_kinds();
            served.location("offsite", "prod", true);
        } else {
            call.ok();
        }
    }
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

#[test]
fn the_demo_ends_with_nothing_missing_and_nothing_different() {
    let run = harness::run::program(env!("CARGO_BIN_EXE_demo"), &[] as &[&str])
        .env("KUBECTL_BACKUP_BIN", tools::plugin())
        .env("KUBECTL_BACKUP_TOOLS", tools::folder())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", std::env::var_os("HOME").unwrap())
        .ok();
    assert!(
        run.stdout.contains("0 missing, 0 different"),
        "{}",
        run.stdout
    );
}

#[test]
fn the_demo_of_etcd_ends_with_nothing_missing_and_nothing_different() {
    if let Err(reason) = harness::node::Node::available() {
        harness::skip!("{reason}");
    }
    let run = harness::run::program(env!("CARGO_BIN_EXE_demo-etcd"), &[] as &[&str])
        .env("KUBECTL_BACKUP_BIN", tools::plugin())
        .env("ETCD_LAUNCHER_BIN", tools::static_launcher())
        .env("KUBECTL_BACKUP_TOOLS", tools::folder())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", std::env::var_os("HOME").unwrap())
        .spawn()
        .wait(Duration::from_secs(1800))
        .ok();
    assert!(
        run.stdout.contains("0 missing, 0 different"),
        "{}",
        run.stdout
    );
}

#[test]
fn every_test_that_the_table_of_defects_names_exists() {
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
    let table = fs::read_to_string(root.join("docs/kkp-defects.md")).unwrap();
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
