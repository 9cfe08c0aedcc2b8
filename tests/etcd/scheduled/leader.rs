//! The launcher that takes a snapshot ends in the middle: another one takes it up.

use std::time::Duration;

use harness::hosted::Hosted;
use harness::proxy::{Action, Match, Proxy};
use harness::wait_for;

use super::place::{LONG, good, manifests, names, rows, snapshots, wait};

fn holder(hosted: &Hosted) -> String {
    let lease = hosted.hosting_object(&format!(
        "/apis/coordination.k8s.io/v1/namespaces/{}/leases/etcd-launcher-{}-snapshots",
        hosted.namespace, hosted.name
    ));
    let lease = lease.unwrap_or_default();
    lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_snapshot_whose_launcher_is_killed_is_taken_up_by_another_one() {
    let hosted = Hosted::builder().members(3).start();
    hosted.keys(0).put("/registry/a", b"1");
    let proxy = Proxy::start(hosted.minio.upstream());
    hosted.apply_destination("slow", &proxy.url(), &hosted.owner());
    let is_data = |parts: &harness::proxy::RequestParts| parts.target.contains(".db.zst");
    proxy.every(
        Match::when(is_data).and_method("PUT"),
        Action::Delay(Duration::from_secs(3600)),
    );
    hosted.apply_backup_config("once", "destination: slow");
    let running = |config: &serde_json::Value| {
        rows(config)
            .iter()
            .any(|row| row["backupPhase"] == "Running")
    };
    let config = wait(&hosted, "once", "a row that runs", running);
    let job = rows(&config)[0]["jobName"].as_str().unwrap().to_owned();
    let leader = holder(&hosted);
    assert_eq!(job, format!("{leader}/1"));
    let index: usize = leader.strip_prefix("etcd-").unwrap().parse().unwrap();
    hosted.members[index].kill();
    proxy.clear_rules();
    // Not started again: the others are alone with it.
    let config = wait_for("the snapshot", LONG, || {
        let config = hosted.backup_config("once")?;
        (good(&config).len() == 1).then_some(config)
    });
    let all = rows(&config);
    assert_eq!(all.len(), 1, "{config}");
    let job = all[0]["jobName"].as_str().unwrap();
    assert!(job.ends_with("/2") && !job.starts_with(&leader), "{job}");
    assert_eq!(snapshots(&hosted), names(&all));
    let manifest = &manifests(&hosted)[&names(&all)[0]];
    assert_eq!(all[0]["hash"], manifest["snapshot"]["sha256"]);
    // The member that was killed comes back, and nothing is taken twice.
    hosted.wait_until_etcd_serves();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(rows(&hosted.backup_config("once").unwrap()), all);
}

#[test]
fn a_snapshot_that_stood_before_its_launcher_could_say_so_is_found_and_not_taken_again() {
    let hosted = Hosted::builder().start();
    let proxy = Proxy::start(hosted.minio.upstream());
    hosted.apply_destination("slow", &proxy.url(), &hosted.owner());
    // The manifest is stored, and whoever wrote it never hears of it.
    let is_manifest = |parts: &harness::proxy::RequestParts| parts.target.contains("manifest.json");
    let slot = std::sync::Arc::new(harness::process::PidSlot::default());
    slot.set(hosted.members[0].pid().unwrap());
    proxy.nth(
        1,
        Match::when(is_manifest).and_method("PUT"),
        Action::KillAfterForward(slot),
    );
    hosted.apply_backup_config("once", "destination: slow");
    // The launcher is started again by whoever waits here.
    let config = wait(&hosted, "once", "its end", |config| good(config).len() == 1);
    let row = rows(&config).remove(0);
    assert_eq!(row["jobName"], "etcd-0/2");
    let manifests = manifests(&hosted);
    assert_eq!(manifests.len(), 1);
    assert_eq!(
        row["revision"],
        manifests[row["backupName"].as_str().unwrap()]["facts"]["revision"]
    );
}
