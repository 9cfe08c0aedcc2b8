//! Objects that are edited, removed or made anew while the controller is at work on them.

use std::sync::Arc;
use std::time::Duration;

use harness::process::PidSlot;
use harness::proxy::{Action, Gate, Match, Proxy, RequestParts};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{NAMESPACE, PATIENT, SHOP, Served};

/// Whether a request asks for the objects that a backup holds.
fn reads(parts: &RequestParts) -> bool {
    parts.path().ends_with("/configmaps") && !parts.target.contains("labelSelector")
}

fn marker(served: &Served, prefix: &str, backup: &str) -> Value {
    let key = format!("{prefix}/backups/{backup}/velero-backup.json");
    serde_json::from_slice(&served.minio.get(&served.bucket, &key)).unwrap()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_backup_that_is_edited_or_removed_in_the_middle_of_its_work_ends_as_it_began() {
    let served = Served::without_controller("controller-edited");
    let api = Proxy::start(&served.cluster.endpoint());
    let store = Proxy::start(served.minio.upstream());
    let through = served.cluster.token_kubeconfig(&api.url());
    let flags = ["--backup-sync-period=1s"];
    let start = || served.call(&flags).kubeconfig(&through).spawn();
    let first = start();
    served.cluster_has_kinds();
    served.location_at(&store.url(), "default", "main", true);
    served.location("second", "other", false);
    for location in ["default", "second"] {
        served.wait(
            &format!("backupstoragelocations/{location}"),
            "Available",
            |object| object["status"]["phase"] == "Available",
        );
    }
    served.apply(SHOP);
    let gate = Gate::before(&api, Match::when(reads));
    let backup = |name: &str, namespace: &str| {
        served.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [{namespace}], storageLocation: default, ttl: 2h0m0s}}}}"
        ));
    };
    let edit = json!({"spec": {"ttl": "1h0m0s", "storageLocation": "second", "includedNamespaces": ["kube-system"]}});
    let edit = |name: &str| served.patch("backups.velero.io", name, &edit.to_string());
    let is_of_the_first_spec = |name: &str| {
        let ended = served.ends(name, "Completed");
        let marker = marker(&served, "main", name);
        assert_eq!(marker["spec"]["includedNamespaces"], json!(["shop"]));
        assert_eq!(marker["spec"]["ttl"], "2h0m0s");
        // It says where its files lie, and when it goes; all else of the edit stays.
        assert_eq!(ended["spec"]["storageLocation"], "default", "{ended:#}");
        let label = &ended["metadata"]["labels"]["velero.io/storage-location"];
        assert_eq!(label, "default");
        assert_eq!(ended["spec"]["includedNamespaces"], json!(["kube-system"]));
        for field in ["startTimestamp", "completionTimestamp", "expiration"] {
            assert_eq!(ended["status"][field], marker["status"][field], "{field}");
        }
        let lasts = time(&ended["status"]["expiration"])
            .duration_since(time(&ended["status"]["startTimestamp"]));
        assert_eq!(lasts, SignedDuration::from_hours(2));
        assert_eq!(served.minio.list(&served.bucket, "other/backups/"), [""; 0]);
        assert_eq!(served.claims(name), [""; 0]);
        ended
    };

    backup("edited", "shop");
    assert_eq!(served.at_work(), "edited");
    edit("edited");
    gate.open();
    let ended = is_of_the_first_spec("edited");
    gate.shut();

    // A controller that dies after such an edit leaves a backup that is found where it lies.
    let slot = Arc::new(PidSlot::default());
    first.killed_by(&slot);
    let is_marker = |parts: &RequestParts| parts.path().ends_with("/lost/velero-backup.json");
    store.nth(
        1,
        Match::when(is_marker).and_method("PUT"),
        Action::KillAfterForward(slot),
    );
    backup("lost", "shop");
    assert_eq!(served.at_work(), "lost");
    edit("lost");
    gate.open();
    assert_eq!(first.wait(PATIENT).code, 128 + 9);
    store.clear_rules();
    for claim in served.claims("lost") {
        served.minio.delete(&served.bucket, &claim);
    }
    served.forget_the_lease();
    let second = start();
    is_of_the_first_spec("lost");
    gate.shut();

    // One that is removed and asked for anew: the first run takes its files away before the second begins.
    store.every(Match::path("?delete"), Action::Delay(SLOW));
    store.every(Match::method("DELETE"), Action::Delay(SLOW));
    backup("anew", "shop");
    assert_eq!(served.at_work(), "anew");
    let removed = served.object("backups/anew").unwrap();
    served.kubectl(&["delete", "backups.velero.io", "anew"]);
    backup("anew", "default");
    gate.open();
    let anew = served.wait("backups/anew", "ended", |object| {
        object["metadata"]["uid"] != removed["metadata"]["uid"]
            && matches!(
                object["status"]["phase"].as_str(),
                Some("Completed" | "Failed")
            )
    });
    assert_eq!(anew["status"]["phase"], "Completed", "{anew:#}");
    let written = marker(&served, "main", "anew");
    assert_eq!(written["spec"]["includedNamespaces"], json!(["default"]));
    let key = "kubectl-backup/run";
    assert_eq!(
        written["metadata"]["annotations"][key],
        anew["metadata"]["annotations"][key]
    );

    // The sync has looked at all of it, several times, and neither removed nor doubled anything.
    std::thread::sleep(Duration::from_secs(5));
    let mut all = served.backups_in("Completed");
    all.sort();
    assert_eq!(all, ["anew", "edited", "lost"], "{}", second.stderr());
    let list = served.object("backups").unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 3, "{list:#}");
    for (name, seen) in [("edited", &ended), ("anew", &anew)] {
        let now = served.object(&format!("backups/{name}")).unwrap();
        assert_eq!(now["metadata"]["uid"], seen["metadata"]["uid"], "{name}");
        assert_eq!(now["status"], seen["status"], "{name}");
    }
    let said = second.kill().stderr;
    assert!(!said.contains("panicked"), "{said}");
}

/// Longer than a controller takes to see an object and to begin.
const SLOW: Duration = Duration::from_secs(2);

#[test]
fn a_schedule_that_is_edited_counts_from_its_next_slot_and_one_that_is_removed_loses_no_backup() {
    let mut served = Served::without_controller("controller-edited-schedule");
    let api = Proxy::start(&served.cluster.endpoint());
    let through = served.cluster.token_kubeconfig(&api.url());
    served.controller = Some(served.call(&[]).kubeconfig(&through).spawn());
    served.cluster_has_kinds();
    served.location("default", "main", true);
    served.apply(SHOP);
    let gate = Gate::before(&api, Match::when(reads));
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Schedule, metadata: {{name: s, namespace: {NAMESPACE}}}, spec: {{schedule: '@every 2s', template: {{includedNamespaces: [shop], ttl: 2h0m0s}}}}}}"
    ));
    let first = served.at_work();
    let edit = json!({"spec": {"schedule": "@every 3s", "template": {"includedNamespaces": ["default"], "ttl": "1h0m0s"}}});
    served.patch("schedules.velero.io", "s", &edit.to_string());
    // While it is at work, none is made, whatever the schedule says by now.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(served.backups_of("s"), [first.as_str()]);
    gate.open();
    let ended = served.ends(&first, "Completed");
    assert_eq!(ended["spec"]["includedNamespaces"], json!(["shop"]));
    assert_eq!(ended["spec"]["ttl"], "2h0m0s");
    let of = |backup: &str| marker(&served, "main", backup)["spec"]["includedNamespaces"].take();
    assert_eq!(of(&first), json!(["shop"]));
    let done = || {
        let done = served.backups_in("Completed");
        (done.len() >= 3).then_some(done)
    };
    let done = harness::wait_for("backups of the new template", PATIENT, done);
    for name in done.iter().filter(|name| **name != first) {
        let backup = served.object(&format!("backups/{name}")).unwrap();
        assert_eq!(backup["spec"]["includedNamespaces"], json!(["default"]));
        assert_eq!(backup["spec"]["ttl"], "1h0m0s");
        assert_eq!(of(name), json!(["default"]));
    }

    // What a schedule began that is gone is ended, and nothing is begun any more.
    gate.shut();
    let last = served.at_work();
    served.kubectl(&["delete", "schedules.velero.io", "s"]);
    gate.open();
    served.ends(&last, "Completed");
    let before = harness::wait_for("the end of all backups", PATIENT, || {
        let all = served.backups_of("s");
        (served.backups_in("Completed").len() == all.len()).then_some(all)
    });
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(served.backups_of("s"), before);
    let slots: std::collections::BTreeSet<String> = before
        .iter()
        .map(|name| {
            let backup = served.object(&format!("backups/{name}")).unwrap();
            assert_eq!(backup["status"]["phase"], "Completed", "{backup:#}");
            backup["metadata"]["annotations"]["kubectl-backup/slot"].to_string()
        })
        .collect();
    assert_eq!(slots.len(), before.len());
    assert!(!served.log().contains("panicked"), "{}", served.log());
}

#[test]
fn a_restore_that_is_edited_ends_as_it_began_and_where_nobody_knows_that_any_more_it_is_told() {
    let mut served = Served::without_controller("controller-edited-restore");
    let api = Proxy::start(&served.cluster.endpoint());
    let through = served.cluster.token_kubeconfig(&api.url());
    let first = served.call(&[]).kubeconfig(&through).spawn();
    served.cluster_has_kinds();
    served.location("default", "main", true);
    served.apply(SHOP);
    served.backup("b", "shop");
    served.ends("b", "Completed");
    let writes = |parts: &RequestParts| {
        parts.method != "GET"
            && parts.path().contains("/namespaces/copy")
            && parts.path().contains("/configmaps")
    };
    let gate = Gate::before(&api, Match::when(writes));
    let restore = |name: &str, into: &str| {
        served.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{backupName: b, namespaceMapping: {{shop: {into}}}}}}}"
        ));
        served.wait(&format!("restores/{name}"), "at work", |object| {
            object["status"]["phase"] == "InProgress" && is_there(&served, into)
        })
    };
    let edit = json!({"spec": {"namespaceMapping": {"shop": "elsewhere"}}}).to_string();
    let settings = |namespace: &str| {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/settings");
        served.cluster.get_raw(&path)["data"].take()
    };

    let begun = restore("r", "copy");
    served.patch("restores.velero.io", "r", &edit);
    gate.open();
    let ended = served.wait("restores/r", "Completed", |object| {
        object["status"]["phase"] == "Completed"
    });
    let began = &ended["status"]["startTimestamp"];
    assert_eq!(*began, begun["status"]["startTimestamp"]);
    assert_eq!(settings("copy"), json!({"a": "b"}));
    assert!(!is_there(&served, "elsewhere"));
    gate.shut();

    // One that is removed stops; the next one has its turn.
    restore("removed", "copy-2");
    served.kubectl(&["delete", "restores.velero.io", "removed"]);
    gate.open();
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: next, namespace: {NAMESPACE}}}, spec: {{backupName: b, namespaceMapping: {{shop: copy-3}}}}}}"
    ));
    served.wait("restores/next", "Completed", |object| {
        object["status"]["phase"] == "Completed"
    });
    assert_eq!(settings("copy-3"), json!({"a": "b"}));
    assert_eq!(served.object("restores/removed"), None::<Value>);
    gate.shut();

    // Who goes on with it finds that it is asked for something else: half of one and half of the other is restored by nobody.
    restore("lost", "copy-4");
    served.patch("restores.velero.io", "lost", &edit);
    let said = first.kill().stderr;
    assert!(!said.contains("panicked"), "{said}");
    served.forget_the_lease();
    served.controller = Some(served.call(&[]).spawn());
    let failed = served.wait("restores/lost", "Failed", |object| {
        object["status"]["phase"] == "Failed"
    });
    let why = failed["status"]["failureReason"].as_str().unwrap();
    assert!(why.contains("had other options"), "{why}");
    assert!(why.contains("another name"), "{why}");
    assert!(!is_there(&served, "elsewhere"));
    gate.open();
    assert!(!served.log().contains("panicked"), "{}", served.log());
}

fn is_there(served: &Served, namespace: &str) -> bool {
    let path = format!("/api/v1/namespaces/{namespace}");
    let answer = served.cluster.client().get(&path);
    answer.is_ok_and(|answer| answer.status == 200)
}
