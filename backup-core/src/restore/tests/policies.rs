//! What becomes of objects that exist, and of what is only tried.

use serde_json::{Value, json};

use super::super::*;
use super::whole::{Saved, object, uid};
use crate::crypt::{ENCRYPT, RECIPIENTS};

const LIVE: &str = "/api/v1/namespaces/n/configmaps/x";
const MAKES: &str = "POST /api/v1/namespaces/n/configmaps";

fn live() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"from": "target"}, "immutable": true,
        "metadata": {"name": "x", "namespace": "n", "uid": uid(77), "resourceVersion": "7", "labels": {"kept": "label"}}})
}

async fn saved() -> Saved {
    let body = json!({"data": {"from": "backup"}});
    with_live(Saved::new(&[object("configmaps", 1, "n/x", body)]).await)
}

fn with_live(saved: Saved) -> Saved {
    let namespace = json!({"metadata": {"name": "n"}});
    saved.target.put(LIVE, live());
    saved.target.put("/api/v1/namespaces/n", namespace);
    saved
}

fn recreate(options: &mut RestoreOptions) {
    options.existing = ExistingPolicy::Recreate;
}

/// What was kept, oldest first.
async fn kept(saved: &Saved) -> Vec<Value> {
    let entries = saved.location.store.entries("restores/r/kept/", 100).await;
    let mut found = Vec::new();
    for entry in entries.unwrap() {
        let text = crate::records::text(&saved.location.store, &entry.key).await;
        found.push(serde_json::from_slice(&text.unwrap()).unwrap());
    }
    found
}

/// What lies in the location of restores.
async fn records(saved: &Saved) -> Vec<String> {
    let entries = saved.location.store.entries("restores/", 10).await;
    entries
        .unwrap()
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

fn asked(saved: &Saved, verbs: &[&str]) -> Vec<String> {
    let state = saved.target.0.lock().unwrap();
    let is = |line: &&String| {
        verbs.iter().any(|verb| line.starts_with(verb)) && line.contains("configmaps")
    };
    state.asked.iter().filter(is).cloned().collect()
}

#[tokio::test]
async fn what_differs_is_kept_deleted_and_created_anew_and_once_is_enough() {
    let saved = saved().await;
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts, [0, 1, 0, 0], "{:?}", report.errors);
    let made = saved.target.get(LIVE);
    assert_eq!(made["data"]["from"], "backup");
    assert_ne!(made["metadata"]["uid"], uid(77));
    let changes = ["TRY", "POST", "DELETE"];
    assert_eq!(
        asked(&saved, &changes),
        [
            MAKES,
            &format!("TRY PATCH {LIVE}"),
            &format!("TRY {MAKES}"),
            &format!("DELETE {LIVE}"),
            MAKES
        ]
    );
    let kept = kept(&saved).await;
    assert_eq!(
        kept,
        [
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"from": "target"}, "immutable": true,
            "metadata": {"name": "x", "namespace": "n", "labels": {"kept": "label"}}})
        ]
    );
    let annotations = &report.restore.metadata.annotations;
    assert_eq!(annotations[journal::ANNOTATION_POLICY], "recreate");
    saved.restore(recreate).await.unwrap();
    assert_eq!(saved.target.get(LIVE), made);
}

#[tokio::test]
async fn what_is_deleted_is_not_kept_in_the_clear_where_a_location_encrypts() {
    let recipient = include_str!("../../../../tests/fixtures/encryption/first.pub");
    for pairs in [
        &[(RECIPIENTS, recipient.trim())][..],
        &[(RECIPIENTS, recipient.trim()), (ENCRYPT, "secrets")],
        // Whoever wrote that counts on it.
        &[(ENCRYPT, "secrets")],
    ] {
        let mut saved = saved().await;
        let pairs = pairs.iter();
        let pairs = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        saved.location.spec.metadata.annotations.extend(pairs);
        let report = saved.restore(recreate).await.unwrap();
        assert_eq!(report.counts, [0, 1, 0, 0], "{:?}", report.errors);
        assert!(kept(&saved).await.is_empty());
        let folder = saved.options().state_dir.join("restores/r/kept");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
        // Once is enough: it is found again where it is.
        let made = saved.target.get(LIVE);
        saved.restore(recreate).await.unwrap();
        assert_eq!(saved.target.get(LIVE), made);
    }
}

#[tokio::test]
async fn what_is_the_same_is_not_deleted() {
    let saved = saved().await;
    let mut same = live();
    same["data"]["from"] = "backup".into();
    same["immutable"] = Value::Null;
    same["metadata"]["labels"] = Value::Null;
    saved.target.put(LIVE, same.clone());
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts, [0, 0, 1, 0]);
    assert_eq!(saved.target.get(LIVE), same);
}

#[tokio::test]
async fn what_the_server_would_not_take_is_left_as_it_is() {
    let saved = saved().await;
    saved.target.0.lock().unwrap().refuses_text = Some("\"from\":\"backup\"");
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts[3], 1);
    assert!(
        report.errors[0].contains("left as it is"),
        "{:?}",
        report.errors
    );
    assert_eq!(saved.target.get(LIVE), live());
    assert!(kept(&saved).await.is_empty());
}

#[tokio::test]
async fn what_somebody_changes_meanwhile_is_not_deleted() {
    let saved = saved().await;
    saved.target.0.lock().unwrap().refuses = vec![("DELETE", "/x", 409, "Conflict")];
    let report = saved.restore(recreate).await.unwrap();
    assert!(
        report.errors[0].contains("somebody changed it"),
        "{:?}",
        report.errors
    );
    assert_eq!(saved.target.get(LIVE), live());
    assert!(kept(&saved).await.is_empty(), "nothing was deleted");
}

#[tokio::test]
async fn what_can_be_changed_is_not_deleted() {
    let saved = saved().await;
    let mut mutable = live();
    mutable["immutable"] = Value::Null;
    saved.target.put(LIVE, mutable);
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts, [0, 1, 0, 0], "{:?}", report.errors);
    let now = saved.target.get(LIVE);
    assert_eq!(
        (&now["data"]["from"], &now["metadata"]["uid"]),
        (&json!("backup"), &json!(uid(77)))
    );
    assert!(asked(&saved, &["DELETE", "TRY DELETE"]).is_empty());
    assert!(kept(&saved).await.is_empty());
}

#[tokio::test]
async fn a_delete_of_which_the_answer_was_lost_was_a_delete() {
    let saved = saved().await;
    saved.target.0.lock().unwrap().loses_delete = true;
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts, [0, 1, 0, 0], "{:?}", report.errors);
    let now = saved.target.get(LIVE);
    assert_eq!(now["data"]["from"], "backup");
    assert!(now["metadata"]["deletionTimestamp"].is_null(), "{now}");
    // Refused then, the one that stood is put back at once.
    let saved = self::saved().await;
    {
        let mut state = saved.target.0.lock().unwrap();
        state.loses_delete = true;
        state.refuses_later = Some("\"from\":\"backup\"");
    }
    let report = saved.restore(recreate).await.unwrap();
    assert!(report.errors[0].contains("put back"), "{:?}", report.errors);
    assert_eq!(saved.target.get(LIVE)["data"]["from"], "target");
}

#[tokio::test(start_paused = true)]
async fn where_no_garbage_collector_takes_owners_away_one_object_is_deleted_and_no_other() {
    let body = || json!({"data": {"from": "backup"}});
    let objects = [
        object("configmaps", 1, "n/x", body()),
        object("configmaps", 2, "n/y", body()),
    ];
    let saved = with_live(Saved::new(&objects).await);
    let mut other = live();
    other["metadata"]["name"] = "y".into();
    let path = "/api/v1/namespaces/n/configmaps/y";
    saved.target.put(path, other.clone());
    saved.target.0.lock().unwrap().hangs = true;
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts[3], 2);
    assert_eq!(asked(&saved, &["DELETE"]), [format!("DELETE {LIVE}")]);
    assert_eq!(saved.target.get(path), other);
    let told = report.errors.join("\n");
    assert!(
        told.contains("left as it is, for configmaps x was deleted and does not go"),
        "{told}"
    );
    assert_eq!(kept(&saved).await.len(), 1);
    // When it is gone, the same command goes on.
    {
        let mut state = saved.target.0.lock().unwrap();
        state.hangs = false;
        state.objects.remove(LIVE);
    }
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts, [1, 1, 0, 0], "{:?}", report.errors);
}

#[tokio::test]
async fn pods_that_nobody_selects_any_more_are_told() {
    let path = "/api/v1/namespaces/n/replicationcontrollers/web";
    let body = json!({"spec": {"selector": {"app": "old"}}});
    let saved = Saved::new(&[object("replicationcontrollers", 1, "n/web", body)]).await;
    saved
        .target
        .put("/api/v1/namespaces/n", json!({"metadata": {"name": "n"}}));
    saved.target.put(
        path,
        json!({"apiVersion": "v1", "kind": "ReplicationController", "immutable": true, "spec": {"selector": {"app": "new"}},
            "metadata": {"name": "web", "namespace": "n", "uid": uid(77), "resourceVersion": "7"}}),
    );
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts, [0, 1, 0, 0], "{:?}", report.errors);
    assert!(
        report.warnings[0].contains("kubectl get pods -n n -l 'app=new'"),
        "{:?}",
        report.warnings
    );
    assert_eq!(saved.target.get(path)["spec"]["selector"]["app"], "old");
}

#[tokio::test]
async fn what_can_not_be_created_after_all_is_put_back() {
    let saved = saved().await;
    // The rehearsal is not refused, the create is: once for the backup's, and not for the one that stood.
    saved.target.0.lock().unwrap().refuses_later = Some("\"from\":\"backup\"");
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts[3], 1);
    assert!(report.errors[0].contains("put back"), "{:?}", report.errors);
    let back = saved.target.get(LIVE);
    assert_eq!(back["data"]["from"], "target");
    assert_eq!(back["metadata"]["labels"]["kept"], "label");
}

#[tokio::test]
async fn killed_after_the_delete_the_same_restore_creates_it_or_puts_it_back() {
    for refused in [false, true] {
        let saved = saved().await;
        saved.target.0.lock().unwrap().expires = true;
        saved.restore(recreate).await.unwrap_err();
        assert!(saved.target.get(LIVE).is_null(), "it was deleted");
        assert_eq!(kept(&saved).await.len(), 1);
        {
            let mut state = saved.target.0.lock().unwrap();
            state.expires = false;
            state.refuses_text = refused.then_some("\"from\":\"backup\"");
        }
        let report = saved.restore(recreate).await.unwrap();
        assert!(report.resumed);
        let from = if refused { "target" } else { "backup" };
        assert_eq!(saved.target.get(LIVE)["data"]["from"], from);
        assert_eq!(report.counts[3], u64::from(refused), "{:?}", report.errors);
    }
}

#[tokio::test]
async fn what_was_brought_back_and_removed_since_is_not_brought_back_once_more() {
    for (put_back, killed) in [(false, false), (true, false), (false, true)] {
        let objects = [
            object("configmaps", 1, "n/x", json!({"data": {"from": "backup"}})),
            object("configmaps", 2, "n/y", json!({"data": {"refuse": "me"}})),
        ];
        let saved = with_live(Saved::new(&objects).await);
        {
            let mut state = saved.target.0.lock().unwrap();
            state.refuses_text = Some("\"refuse\":\"me\"");
            state.refuses_later = put_back.then_some("\"from\":\"backup\"");
        }
        if killed {
            saved.target.0.lock().unwrap().expires = true;
            saved.restore(recreate).await.unwrap_err();
            assert!(saved.target.get(LIVE).is_null(), "it was deleted");
            saved.target.0.lock().unwrap().expires = false;
        }
        saved.restore(recreate).await.unwrap();
        let from = if put_back { "target" } else { "backup" };
        assert_eq!(saved.target.get(LIVE)["data"]["from"], from);
        {
            let mut state = saved.target.0.lock().unwrap();
            state.objects.remove(LIVE).unwrap();
            state.refuses_text = Some("\"from\":\"backup\"");
        }
        let report = saved.restore(recreate).await.unwrap();
        assert!(report.resumed);
        assert!(
            !report.errors[0].contains("put back"),
            "{:?}",
            report.errors
        );
        assert!(saved.target.get(LIVE).is_null(), "{put_back}");
    }
}

#[tokio::test]
async fn what_is_missing_is_told_with_where_it_is_kept() {
    let saved = saved().await;
    saved.target.0.lock().unwrap().refuses = vec![("POST", "/configmaps", 422, "Invalid")];
    let report = saved.restore(recreate).await.unwrap();
    assert!(
        report.errors[0].contains("missing now") && report.errors[0].contains("restores/r/kept/"),
        "{:?}",
        report.errors
    );
    saved.target.0.lock().unwrap().refuses.clear();
    saved.restore(recreate).await.unwrap();
    assert_eq!(saved.target.get(LIVE)["data"]["from"], "backup");
}

#[tokio::test]
async fn what_would_take_more_along_is_changed_in_place() {
    let saved = saved().await;
    let mut held = live();
    held["immutable"] = Value::Null;
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    saved.target.put(LIVE, held);
    let (steps, _) = saved.plan(DryRun::Client, recreate).await;
    assert!(
        steps
            .iter()
            .any(|step| step.action == Action::Updated && step.reason.contains("example.com/hold")),
        "{steps:?}"
    );
    saved.restore(recreate).await.unwrap();
    let now = saved.target.get(LIVE);
    assert_eq!(
        (&now["data"]["from"], &now["metadata"]["uid"]),
        (&json!("backup"), &json!(uid(77)))
    );
    assert!(asked(&saved, &["DELETE"]).is_empty());
}

#[tokio::test]
async fn a_trial_sends_everything_and_changes_nothing() {
    let saved = Saved::new(&[
        object("configmaps", 1, "n/x", json!({"data": {"from": "backup"}})),
        object("configmaps", 2, "n/new", json!({})),
        object("configmaps", 3, "n/bad", json!({"data": {"refuse": "me"}})),
        object("configmaps", 4, "later/x", json!({})),
    ])
    .await;
    saved.target.put(LIVE, live());
    saved
        .target
        .put("/api/v1/namespaces/n", json!({"metadata": {"name": "n"}}));
    saved.target.0.lock().unwrap().refuses_text = Some("\"refuse\":\"me\"");
    let before = saved.target.0.lock().unwrap().objects.clone();
    let (steps, _) = saved.plan(DryRun::Server, recreate).await;
    let of = |path: &str| {
        let step = steps.iter().find(|step| step.path() == path);
        step.unwrap_or_else(|| panic!("{path}: {steps:?}")).clone()
    };
    assert_eq!(of("n/x").action, Action::Recreated);
    assert_eq!(of("n/new").action, Action::Created);
    assert_eq!(of("n/bad").action, Action::Failed);
    assert_eq!(of("later/x").action, Action::Untried);
    assert!(
        of("later/x")
            .reason
            .contains("namespace does not exist yet")
    );
    assert_eq!(of("later").action, Action::Created);
    assert_eq!(saved.target.0.lock().unwrap().objects, before);
    assert!(asked(&saved, &["POST", "PATCH", "DELETE"]).is_empty());
    assert!(!asked(&saved, &["TRY DELETE"]).is_empty());
    assert_eq!(records(&saved).await, [""; 0], "no restore was begun");
}

#[tokio::test]
async fn who_does_not_agree_changes_nothing() {
    let saved = saved().await;
    let mut options = super::options(std::path::Path::new("/nowhere"));
    options.backup = "b".parse().unwrap();
    let mut told = Vec::new();
    let mut consent = |lacks: &[Lack]| {
        told = lacks.to_vec();
        Err(Error::other("no"))
    };
    let (cluster, name) = (saved.target.cluster(), "r".parse().unwrap());
    let silent = &crate::progress::Silent;
    let refused = restore(
        &cluster,
        &saved.location,
        &name,
        &options,
        &mut consent,
        silent,
    )
    .await;
    assert_eq!(refused.unwrap_err().to_string(), "no");
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(records(&saved).await, [""; 0], "no restore was begun");
}
