//! Controllers that die or are told to stop, and two at once.

use std::sync::Arc;
use std::time::Duration;

use harness::process::PidSlot;
use harness::proxy::{Action, Match, Proxy};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{NAMESPACE, PATIENT, Served};

/// More than are restored at a time.
const OBJECTS: usize = 100;

/// A schedule whose next slot is far away.
const RARELY: &str = r#"{"spec":{"schedule":"@every 24h"}}"#;

#[test]
fn what_a_killed_controller_was_at_is_ended_by_the_next_and_a_schedule_runs_once_more() {
    let mut served = Served::start("controller-killed");
    // What it reads takes its time.
    let proxy = Proxy::start(&served.cluster.endpoint());
    proxy.every(
        Match::path("/configmaps"),
        Action::Delay(Duration::from_secs(5)),
    );
    let through = served.cluster.token_kubeconfig(&proxy.url());
    drop(served.controller.take().unwrap().kill());
    let slow = served.call(&[]).kubeconfig(&through).spawn();
    served.schedule("s", "@every 15s");
    let lost = served.at_work();
    served.kubectl(&[
        "patch",
        "schedules.velero.io",
        "s",
        "--type=merge",
        "-p",
        RARELY,
    ]);
    drop(slow.kill());

    // Two take over; one of them works.
    let (one, other) = (served.call(&[]).spawn(), served.call(&[]).spawn());
    let logs = || one.stderr() + &other.stderr();
    // While its claim is young the run may be a living one for all that anybody knows.
    harness::wait_for("a look at what was lost", PATIENT, || {
        logs().contains("its run may not be over").then_some(())
    });
    assert_eq!(served.backups_in("InProgress"), [lost.as_str()]);
    assert_eq!(served.backups_in("Failed"), [""; 0]);
    for claim in served.claims(&lost) {
        served.minio.delete(&served.bucket, &claim);
    }
    // Without one, it may be on its way to it, for a while.
    // It is looked at a minute apart by then.
    harness::wait_for("the end of what was lost", PATIENT * 2, || {
        (served.backups_in("Failed") == [lost.as_str()]).then_some(())
    });
    let ended = served.ends(&lost, "Failed");
    let why = ended["status"]["failureReason"].as_str().unwrap();
    assert!(
        why.contains("the controller that made this backup ended"),
        "{why}"
    );
    assert!(ended["status"]["completionTimestamp"].is_string());
    let again = harness::wait_for("the backup in its place", PATIENT, || {
        served.backups_in("Completed").pop()
    });
    let again = served.object(&format!("backups/{again}")).unwrap();
    let annotations = &again["metadata"]["annotations"];
    assert_eq!(annotations["kubectl-backup/again-for"], lost.as_str());
    assert_eq!(
        annotations["kubectl-backup/slot"],
        ended["metadata"]["annotations"]["kubectl-backup/slot"]
    );
    std::thread::sleep(Duration::from_secs(5));
    let list = served.object("backups").unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list:#}");

    let works = |log: &str| log.contains("serving velero.io/v1");
    let (first, second) = (works(&one.stderr()), works(&other.stderr()));
    assert!(first != second, "{}", logs());
    // Who works dies; the other one goes on.
    let (dies, lives) = if first { (one, other) } else { (other, one) };
    drop(dies.kill());
    served.backup("after", "default");
    served.ends("after", "Completed");
    assert!(works(&lives.stderr()), "{}", lives.stderr());

    // One that is edited while it is made is made as it was asked for, and what was edited stays.
    drop(lives.kill());
    served.forget_the_lease();
    served.controller = Some(served.call(&[]).kubeconfig(&through).spawn());
    served.backup("edited", "default");
    served.at_work();
    let edit = json!({"metadata": {"labels": {"mine": "yes"}}, "spec": {"includedNamespaces": ["kube-system"], "newer": 1}});
    served.kubectl(&[
        "patch",
        "backups.velero.io",
        "edited",
        "--type=merge",
        "-p",
        &edit.to_string(),
    ]);
    let edited = served.ends("edited", "Completed");
    assert_eq!(edited["metadata"]["labels"]["mine"], "yes");
    let marker = served
        .minio
        .get(&served.bucket, "main/backups/edited/velero-backup.json");
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    assert_eq!(marker["spec"]["includedNamespaces"], json!(["default"]));
    assert_eq!(
        marker["status"]["completionTimestamp"],
        edited["status"]["completionTimestamp"]
    );
    // An object that goes away takes its work along, and nothing of it stays.
    served.backup("unwanted", "default");
    assert_eq!(served.at_work(), "unwanted");
    served.kubectl(&["delete", "backups.velero.io", "unwanted"]);
    let folder = "main/backups/unwanted/";
    harness::wait_for("an empty folder", PATIENT, || {
        served
            .minio
            .list(&served.bucket, folder)
            .is_empty()
            .then_some(())
    });
    assert_eq!(served.object("backups/unwanted"), None::<Value>);
}

#[test]
fn what_stands_is_completed_what_is_half_restored_goes_on_and_a_clean_stop_costs_nothing() {
    let mut served = Served::without_controller("controller-half-done");
    let store = Proxy::start(served.minio.upstream());
    let api = Proxy::start(&served.cluster.endpoint());
    let through = served.cluster.token_kubeconfig(&api.url());
    let first = served.call(&[]).spawn();
    served.cluster_has_kinds();
    served.location_at(&store.url(), "default", "main", true);
    let mut shop = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}".to_owned();
    for number in 0..OBJECTS {
        shop += &format!(
            "\n---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: settings-{number}, namespace: shop}}, data: {{a: b}}}}"
        );
    }
    served.apply(&shop);

    // Killed after the marker, before anybody was told.
    let slot = Arc::new(PidSlot::default());
    first.killed_by(&slot);
    let is_marker =
        |parts: &harness::proxy::RequestParts| parts.path().ends_with("/stands/velero-backup.json");
    store.nth(
        1,
        Match::when(is_marker).and_method("PUT"),
        Action::KillAfterForward(slot),
    );
    served.backup("stands", "shop");
    assert_eq!(first.wait(PATIENT).code, 128 + 9);
    let lost = served.object("backups/stands").unwrap();
    assert_eq!(lost["status"]["phase"], "InProgress");
    store.clear_rules();
    served.forget_the_lease();
    let second = served.call(&[]).kubeconfig(&through).spawn();
    let found = served.ends("stands", "Completed");
    let marker = served
        .minio
        .get(&served.bucket, "main/backups/stands/velero-backup.json");
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    for field in ["startTimestamp", "completionTimestamp", "progress"] {
        assert_eq!(found["status"][field], marker["status"][field], "{field}");
    }
    assert_eq!(found["status"]["failureReason"], Value::Null);

    // Told to stop in the middle of a restore: it is handed on, and that is no attempt of it.
    let writes = |parts: &harness::proxy::RequestParts| {
        parts.method != "GET" && parts.path().contains("/namespaces/copy/configmaps")
    };
    api.every(Match::when(writes), Action::Delay(Duration::from_secs(4)));
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: r, namespace: {NAMESPACE}}}, spec: {{backupName: stands, namespaceMapping: {{shop: copy}}}}}}"
    ));
    let at_work = |attempts: &str| {
        served.wait("restores/r", "at work", |object| {
            let is_begun = served
                .cluster
                .client()
                .get("/api/v1/namespaces/copy")
                .is_ok_and(|answer| answer.status == 200);
            is_begun
                && object["status"]["phase"] == "InProgress"
                && object["metadata"]["annotations"]["kubectl-backup/attempts"] == attempts
        })
    };
    let begun = at_work("1");
    second.signal(Signal::TERM);
    assert_eq!(second.wait(PATIENT).code, 0);
    let stopped = served.object("restores/r").unwrap();
    assert_eq!(stopped["status"]["phase"], "InProgress", "{stopped:#}");
    assert_eq!(
        stopped["metadata"]["annotations"]["kubectl-backup/attempts"],
        "0"
    );
    // Killed: the next one goes on with it.
    let third = served.call(&[]).kubeconfig(&through).spawn();
    at_work("1");
    drop(third.kill());
    served.forget_the_lease();
    served.controller = Some(served.call(&[]).spawn());
    let restored = served.wait("restores/r", "Completed", |object| {
        object["status"]["phase"] == "Completed"
    });
    assert_eq!(
        restored["metadata"]["annotations"]["kubectl-backup/attempts"],
        "2"
    );
    assert_eq!(
        restored["status"]["startTimestamp"],
        begun["status"]["startTimestamp"]
    );
    let copies = served.cluster.get_raw("/api/v1/namespaces/copy/configmaps");
    let copies = copies["items"].as_array().unwrap();
    assert_eq!(copies.len(), OBJECTS);
    assert!(copies.iter().all(|copy| copy["data"] == json!({"a": "b"})));

    // Told to stop in the middle of a scheduled backup: nothing of it stays, and it is made once more.
    let fourth = served.controller.take().unwrap();
    fourth.signal(Signal::TERM);
    assert_eq!(fourth.wait(PATIENT).code, 0);
    api.clear_rules();
    api.every(
        Match::path("/configmaps"),
        Action::Delay(Duration::from_secs(5)),
    );
    let fifth = served.call(&[]).kubeconfig(&through).spawn();
    served.schedule("s", "@every 15s");
    let lost = served.at_work();
    let patch = ["patch", "schedules.velero.io", "s", "--type=merge", "-p"];
    served.kubectl(&[&patch[..], &[RARELY]].concat());
    fifth.signal(Signal::TERM);
    assert_eq!(fifth.wait(PATIENT).code, 0);
    assert_eq!(served.backups_in("Failed"), [lost.as_str()]);
    let folder = format!("main/backups/{lost}/");
    assert_eq!(served.minio.list(&served.bucket, &folder), [""; 0]);
    // This one serves no restores.
    served.controller = Some(served.call(&["--no-restores"]).spawn());
    let again = harness::wait_for("the backup in its place", PATIENT, || {
        let mut done = served.backups_in("Completed");
        done.retain(|name| name != "stands");
        done.pop()
    });
    let noted = served.wait(&format!("backups/{lost}"), "noted", |object| {
        object["metadata"]["annotations"]["kubectl-backup/made-again"] == again.as_str()
    });
    assert_eq!(noted["status"]["phase"], "Failed");
    // Who removes it does not get it back.
    served
        .velero(&["backup", "delete", &again, "--confirm"])
        .ok();
    harness::wait_for("its end", PATIENT, || {
        served
            .object(&format!("backups/{again}"))
            .is_none()
            .then_some(())
    });
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: not-here, namespace: {NAMESPACE}}}, spec: {{backupName: stands}}}}"
    ));
    let refused = served.wait("restores/not-here", "refused", |object| {
        object["status"]["phase"] == "FailedValidation"
    });
    let why = refused["status"]["validationErrors"].to_string();
    assert!(why.contains("--no-restores"), "{why}");
    std::thread::sleep(Duration::from_secs(3));
    let list = served.object("backups").unwrap();
    let names: Vec<_> = list["items"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2, "{list:#}");
}
