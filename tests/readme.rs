//! Every command in the README works as it stands there.

use std::fs;
use std::path::Path;

use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::through_kubectl;
use harness::store::Minio;

use crate::place::on;

/// The lines of the README's `sh` blocks.
fn commands() -> Vec<Vec<String>> {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let mut inside = false;
    let mut found = Vec::new();
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                let words = line
                    .strip_prefix("kubectl backup ")
                    .unwrap_or_else(|| panic!("no test runs {line:?}"));
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
    let all = commands();
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

#[test]
fn the_demo_ends_with_nothing_missing_and_nothing_different() {
    let run = harness::run::program(env!("CARGO_BIN_EXE_demo"), &[] as &[&str])
        .env("KUBECTL_BACKUP_BIN", harness::tools::plugin())
        .env("KUBECTL_BACKUP_TOOLS", harness::tools::folder())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", std::env::var_os("HOME").unwrap())
        .ok();
    assert!(
        run.stdout.contains("0 missing, 0 different"),
        "{}",
        run.stdout
    );
}
