//! The API server or the store is away for a while: what is under way ends well, and what needs them waits.

use std::time::Duration;

use harness::proxy::{Action, Match, Proxy};

use super::{PATIENT, Served};

/// Longer than a Lease stands that nobody renews.
const AWAY: Duration = Duration::from_secs(25);

#[test]
fn while_the_api_server_is_away_a_backup_goes_on_and_nobody_takes_it() {
    let mut served = Served::start("controller-api-away");
    drop(served.controller.take().unwrap().kill());
    served.forget_the_lease();
    let proxy = Proxy::start(&served.cluster.endpoint());
    let through = served.cluster.token_kubeconfig(&proxy.url());
    let start = || served.call(&[]).kubeconfig(&through).spawn();
    let works = |log: &str| log.contains("serving velero.io/v1");
    let one = start();
    harness::wait_for("one that works", PATIENT, || {
        works(&one.stderr()).then_some(())
    });
    let other = start();
    harness::wait_for("one that waits", PATIENT, || {
        other.stderr().contains(": waiting").then_some(())
    });
    proxy.every(
        Match::path("/configmaps"),
        Action::Delay(Duration::from_secs(5)),
    );
    served.backup("through", "default");
    assert_eq!(served.at_work(), "through");
    served.cluster.stop_api_server();
    std::thread::sleep(AWAY);
    assert_eq!(served.claims("through").len(), 1);
    served.cluster.start_api_server();
    let ended = served.ends("through", "Completed");
    assert!(ended["status"]["errors"].is_null(), "{ended:#}");
    let (one, other) = (one.kill(), other.kill());
    assert!(
        one.stderr.contains("who holds the Lease is not known"),
        "{}",
        one.stderr
    );
    assert!(!works(&other.stderr), "{}", other.stderr);
    assert!(!one.stderr.contains("another controller"), "{}", one.stderr);
}

#[test]
fn while_the_store_is_away_its_location_is_unavailable_and_a_scheduled_backup_waits() {
    let mut served = Served::without_controller("controller-store-away");
    let store = Proxy::start(served.minio.upstream());
    served.controller = Some(served.call(&["--store-validation-frequency=1s"]).spawn());
    served.cluster_has_kinds();
    served.location_at(&store.url(), "default", "main", true);
    let is = |phase: &str| {
        served.wait("backupstoragelocations/default", phase, |object| {
            object["status"]["phase"] == phase
        })
    };
    is("Available");
    store.every(Match::any(), Action::Cut);
    let away = is("Unavailable");
    assert!(away["status"]["message"].is_string(), "{away:#}");
    served.schedule("s", "@every 5s");
    // One by hand is told at once; the scheduled one has nobody to tell.
    served.backup("by-hand", "default");
    let refused = served.ends("by-hand", "FailedValidation");
    let why = refused["status"]["validationErrors"].to_string();
    assert!(why.contains("Unavailable"), "{why}");
    let waits = harness::wait_for("a backup that waits", PATIENT, || {
        served.backups_of("s").pop()
    });
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(served.backups_of("s"), [waits.as_str()]);
    let phase = served.object(&format!("backups/{waits}")).unwrap()["status"]["phase"].clone();
    assert!(phase.is_null() || phase == "New", "{phase}");
    store.clear_rules();
    is("Available");
    served.ends(&waits, "Completed");
}
