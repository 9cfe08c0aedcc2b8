//! Buckets that keep what is removed: versions, and object lock.

use std::time::Duration;

use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::{Run, kubectl_backup};
use harness::store::Minio;
use http::Method;

use crate::place::on;

const RETENTION: &str = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
const VERSIONS: &str =
    "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";

fn configure(minio: &Minio, path: &str, body: &str) {
    let answer = minio.signed(Method::PUT, path, "s3", body, &[]);
    assert!(
        answer.is_success(),
        "{path}: {} {}",
        answer.status,
        answer.text()
    );
}

fn says(run: &Run, words: &[&str]) {
    let all = format!("{}\n{}", run.stdout, run.stderr);
    for word in words {
        assert!(all.contains(word), "{word} is missing in\n{all}");
    }
}

#[test]
fn a_bucket_that_keeps_what_is_removed_is_worked_with_and_never_called_empty() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let namespace = cluster.create_namespace("kept");
    let locked = minio.locked_bucket("locked");
    configure(minio, "/locked?object-lock=", RETENTION);
    let versioned = minio.bucket("versioned");
    configure(minio, "/versioned?versioning=", VERSIONS);
    let run = |bucket: &str, arguments: &[&str]| {
        let location = format!("s3://{bucket}/x?endpoint={}", minio.endpoint());
        on(cluster, &location, arguments).credentials_of(minio)
    };

    let checked = run(locked, &["location", "check"]).ok();
    says(&checked, &["versions", "locked until", "lifecycle"]);
    run(locked, &["create", "b", "-n", &namespace]).ok();
    run(
        locked,
        &["create", "short", "-n", &namespace, "--ttl", "1s"],
    )
    .ok();
    run(locked, &["verify", "b"]).ok();
    says(
        &run(locked, &["delete", "b", "--yes"]).code(1),
        &["locked until", "--force"],
    );
    harness::wait_for("an expired backup", Duration::from_secs(30), || {
        let told = run(locked, &["prune", "--dry-run"]).ok();
        told.stderr.contains("short kept").then_some(())
    });
    says(
        &run(locked, &["prune", "--yes"]).ok(),
        &["short kept", "locked until"],
    );
    says(&run(locked, &["get"]).ok(), &["b ", "short"]);
    says(
        &run(locked, &["delete", "b", "--yes", "--force"]).ok(),
        &["backup/b hidden", "locked until"],
    );
    let left = run(locked, &["get", "-o", "name"]).ok().stdout;
    assert_eq!(left, "backup/short\n");
    let kept = minio.signed(
        Method::GET,
        "/locked?prefix=x%2Fbackups%2Fb%2F&versions=",
        "s3",
        "",
        &[],
    );
    says_kept(&kept.text());

    run(versioned, &["create", "d", "-n", &namespace]).ok();
    says(
        &run(versioned, &["delete", "d", "--yes"]).ok(),
        &["backup/d hidden", "keeps its versions"],
    );
    says(&run(versioned, &["doctor"]).ok(), &["location: versions"]);
    let kept = minio.signed(
        Method::GET,
        "/versioned?prefix=x%2Fbackups%2Fd%2F&versions=",
        "s3",
        "",
        &[],
    );
    says_kept(&kept.text());
}

fn says_kept(listing: &str) {
    assert!(
        listing.contains(".tar.gz") && listing.contains("<DeleteMarker>"),
        "{listing}"
    );
}

/// A bucket whose objects are encrypted with a key that the caller brings: without it, not even a HEAD is answered.
#[test]
fn what_is_locked_is_kept_where_only_a_key_of_the_callers_opens_it() {
    let (cluster, minio) = (Cluster::shared(), Minio::start_tls());
    let namespace = cluster.create_namespace("kept-encrypted");
    let bucket = minio.locked_bucket("encrypted");
    configure(&minio, "/encrypted?object-lock=", RETENTION);
    let home = Folder::new("home");
    let key = home.write("key", "0123456789abcdef0123456789abcdef");
    let config = format!(
        "region=us-east-1,s3Url={},s3ForcePathStyle=true,customerKeyEncryptionFile={}",
        minio.endpoint(),
        key.display()
    );
    let run = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig())
    };
    run(&[
        "location",
        "create",
        "locked",
        "--default",
        "--provider=aws",
        "--bucket",
        bucket,
        "--config",
        &config,
        "--credentials-file",
        minio.credentials_file().to_str().unwrap(),
        "--cacert",
        minio.ca_file().unwrap().to_str().unwrap(),
    ])
    .ok();
    says(
        &run(&["location", "check"]).ok(),
        &["versions", "locked until"],
    );
    run(&["create", "short", "-n", &namespace, "--ttl", "1s"]).ok();
    harness::wait_for("an expired backup", Duration::from_secs(30), || {
        let told = run(&["prune", "--dry-run"]).ok();
        told.stderr.contains("short kept").then_some(())
    });
    says(
        &run(&["prune", "--yes"]).ok(),
        &["short kept", "locked until"],
    );
    says(
        &run(&["delete", "short", "--yes"]).code(1),
        &["locked until", "--force"],
    );
    let left = run(&["get", "-o", "name"]).ok().stdout;
    assert_eq!(left, "backup/short\n");
}
