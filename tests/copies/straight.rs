//! Files that a mover writes straight to the store, and those that it can not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::http_client::Endpoint;
use harness::proxy::Proxy;
use harness::run::kubectl_backup;
use serde_json::Value;

use super::{IMAGE, PATIENT, World};

/// What the mover's program was started with and has in its environment, and what its pod is, while it is at work.
fn at_work(world: &World) -> (String, String, Value) {
    let pods = harness::wait_for("the mover's pod", PATIENT, || {
        let words = [
            "get",
            "pods",
            "-A",
            "-l",
            "app.kubernetes.io/component=mover",
            "-o",
            "json",
        ];
        let pods = world.node.kubectl(&words).json();
        (pods["items"] != serde_json::json!([])).then_some(pods)
    });
    let (line, environment) = harness::wait_for("the mover's program", PATIENT, || {
        let all = fs::read_dir("/proc").ok()?;
        all.filter_map(|entry| {
            let path = entry.ok()?.path();
            let line = fs::read_to_string(path.join("cmdline"))
                .ok()?
                .replace('\0', " ");
            let environment = fs::read_to_string(path.join("environ")).ok()?;
            line.contains("mover archive /volumes/0")
                .then_some((line, environment))
        })
        .next()
    });
    (line, environment, pods)
}

/// The same bucket as a location whose movers get credentials, at this address of the store.
fn location(world: &World, name: &str, endpoint: &str) {
    let config = format!("region=us-east-1,s3Url={endpoint},s3ForcePathStyle=true");
    kubectl_backup(&[
        "location",
        "create",
        name,
        "--provider=aws",
        "--bucket=backups",
        "--prefix=p",
    ])
    .args(&[
        "--config",
        &config,
        "--mover-credentials",
        "sts",
        "--credentials-file",
    ])
    .arg(world.minio.credentials_file())
    .home(world.home.path())
    .ok();
}

/// With credentials of its own a mover archives by itself; where it does not reach the store, its files go the other way, and that is said.
pub(super) fn both_ways(world: &World, folder: &Path) {
    location(world, "near", world.minio.endpoint());
    // This machine's own address, which means another place in a pod.
    let here = Proxy::start(&Endpoint::plain(world.minio.endpoint()));
    location(world, "far", &here.url());
    let create = |name: &str, location: &str| {
        world.at(&["create", name, "-n", "shop"], location).args(&[
            "--default-volumes-to-fs-backup",
            "--mover-image",
            IMAGE,
        ])
    };

    let running = create("straight", "near").spawn();
    let (line, environment, pods) = at_work(world);
    let run = running.wait(Duration::from_secs(180));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let row = world.row("straight", "data");
    assert_eq!(row["data"][0]["way"], "straight", "{row:#}");
    world.is_in(&row, folder);
    let password = format!(
        "p/restic/{}/shop/{}.key",
        world
            .node
            .kubectl(&["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"])
            .stdout,
        row["claimUid"].as_str().unwrap()
    );
    let password = world.minio.get(super::BUCKET, &password);
    let password = std::str::from_utf8(&password).unwrap().trim();
    for secret in [world.minio.access_key(), world.minio.secret_key(), password] {
        for place in [
            &line,
            &environment,
            &pods.to_string(),
            &run.stderr,
            &run.stdout,
        ] {
            assert!(!place.contains(secret), "{place}");
        }
    }
    for name in ["AWS", "TOKEN", "SECRET", "PASSWORD"] {
        assert!(!environment.contains(name), "{environment}");
    }
    world.nothing_is_at_work();

    let run = create("around", "far").ok();
    let row = world.row("around", "data");
    assert_eq!(row["data"][0]["way"], "exec", "{row:#}");
    let why = row["data"][0]["execBecause"].as_str().unwrap();
    assert!(why.contains(&here.url()), "{why}");
    assert!(
        run.stderr
            .contains("over exec, and not straight to the store"),
        "{}",
        run.stderr
    );
    let said = world
        .at(&["describe", "around", "--details"], "far")
        .ok()
        .stdout;
    assert!(said.contains("over exec: "), "{said}");
    assert!(said.contains("in the clear beside it"), "{said}");
    world.is_in(&row, folder);
    world.nothing_is_at_work();
}
