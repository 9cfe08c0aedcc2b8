//! What a target is said to lack: only what objects need that are going to be made or changed.

use serde_json::{Value, json};

use super::super::*;
use super::promises::{CLAIM, VOLUME, kept};
use super::whole::{Saved, object};

const POD: &str = "/api/v1/namespaces/n/pods/p";
const SERVICE: &str = "/api/v1/namespaces/n/services/web";

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "n"}})
}

async fn saved() -> Saved {
    let claim = json!({"spec": {"storageClassName": "gone"}});
    let saved = Saved::new(&[
        object("persistentvolumeclaims", 1, "n/data", claim),
        object(
            "pods",
            2,
            "n/p",
            json!({"spec": {"priorityClassName": "high"}}),
        ),
        object(
            "services",
            3,
            "n/web",
            json!({"spec": {"ports": [{"nodePort": 30001}]}}),
        ),
    ])
    .await;
    let taker = json!({"metadata": {"name": "taker", "namespace": "m"}, "spec": {"ports": [{"nodePort": 30001}]}});
    saved
        .target
        .put("/api/v1/namespaces/m/services/taker", taker);
    saved
}

async fn lacks(saved: &Saved, existing: ExistingPolicy) -> Vec<String> {
    let change = |options: &mut RestoreOptions| {
        options.existing = existing;
        options.preserve_node_ports = true;
    };
    let (_, planned) = saved.plan(DryRun::Client, change).await;
    planned.lacks.iter().map(ToString::to_string).collect()
}

const STORAGE: &str = "StorageClass gone: needed by persistentvolumeclaims n/data";
const PRIORITY: &str = "PriorityClass high: needed by pods n/p";
const PORT: &str = "NodePort 30001: taken by services m/taker; needed by services n/web";

#[tokio::test]
async fn what_stands_and_is_left_alone_needs_nothing() {
    let saved = saved().await;
    assert_eq!(
        lacks(&saved, ExistingPolicy::None).await,
        [STORAGE, PRIORITY, PORT]
    );
    for (path, name) in [(CLAIM, "data"), (POD, "p"), (SERVICE, "web")] {
        saved.target.put(path, named(name));
    }
    assert!(lacks(&saved, ExistingPolicy::None).await.is_empty());
    // A claim never gets another class; the others are changed.
    assert_eq!(
        lacks(&saved, ExistingPolicy::Update).await,
        [PRIORITY, PORT]
    );
    assert_eq!(
        lacks(&saved, ExistingPolicy::Recreate).await,
        [PRIORITY, PORT]
    );
    // A list that is refused tells nothing.
    saved.target.0.lock().unwrap().refuses = vec![("GET", "/pods", 403, "Forbidden")];
    assert_eq!(lacks(&saved, ExistingPolicy::None).await, [PRIORITY]);
}

#[tokio::test]
async fn what_is_being_deleted_does_not_stand() {
    let going = |mut object: Value| {
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        object
    };
    let saved = saved().await;
    for (path, name) in [(CLAIM, "data"), (POD, "p"), (SERVICE, "web")] {
        saved.target.put(path, named(name));
    }
    saved.target.put(CLAIM, going(named("data")));
    assert_eq!(lacks(&saved, ExistingPolicy::None).await, [STORAGE]);
    // A namespace takes everything along.
    saved.target.put(CLAIM, named("data"));
    let namespace = json!({"metadata": {"name": "n"}});
    saved.target.put("/api/v1/namespaces/n", going(namespace));
    assert_eq!(
        lacks(&saved, ExistingPolicy::None).await,
        [STORAGE, PRIORITY, PORT]
    );
}

#[tokio::test]
async fn what_this_restore_made_is_not_asked_about_again() {
    let saved = saved().await;
    let mut options = saved.options();
    options.backup = "b".parse().unwrap();
    options.existing = ExistingPolicy::Update;
    let (_keep, cancel) = watch::channel(false);
    let mut asked = Vec::new();
    for _ in 0..2 {
        let mut consent = |lacks: &[Lack]| {
            asked.push(lacks.iter().map(ToString::to_string).collect::<Vec<_>>());
            Ok(cancel.clone())
        };
        let (cluster, name) = (saved.target.cluster(), "r".parse().unwrap());
        let silent = &crate::progress::Silent;
        restore(
            &cluster,
            &saved.location,
            &name,
            &options,
            &mut consent,
            silent,
        )
        .await
        .unwrap();
    }
    assert_eq!(
        asked,
        [vec![STORAGE.to_owned(), PRIORITY.to_owned()], Vec::new()]
    );
}

#[tokio::test]
async fn a_claim_whose_volume_waits_for_it_is_not_asked_for_its_class() {
    let claim = json!({"spec": {"storageClassName": "gone", "volumeName": "pv"}});
    let saved = Saved::new(&[object("persistentvolumeclaims", 1, "n/data", claim)]).await;
    assert_eq!(lacks(&saved, ExistingPolicy::None).await, [STORAGE]);
    saved.target.put(VOLUME, kept("Retain"));
    assert!(lacks(&saved, ExistingPolicy::None).await.is_empty());
    let mut another = kept("Retain");
    another["spec"]["claimRef"]["name"] = "another".into();
    for volume in [another, kept("Delete")] {
        saved.target.put(VOLUME, volume);
        assert_eq!(lacks(&saved, ExistingPolicy::None).await, [STORAGE]);
    }
}

#[tokio::test]
async fn a_class_that_a_mapping_names_and_nobody_has_is_lacking() {
    let claim = json!({"spec": {"storageClassName": "slow", "volumeName": "pv"}});
    let saved = Saved::new(&[object("persistentvolumeclaims", 1, "n/data", claim)]).await;
    saved.target.put(VOLUME, kept("Retain"));
    let map = |options: &mut RestoreOptions| {
        let mapping = ("slow".to_owned(), "fast".to_owned());
        options.rewriting.storage_classes = [mapping].into();
    };
    let (steps, planned) = saved.plan(DryRun::Client, map).await;
    let told: Vec<_> = planned.lacks.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "StorageClass fast: a mapping of storage classes names it; needed by persistentvolumeclaims n/data"
        ]
    );
    assert!(
        steps.iter().any(|step| step.action == Action::Failed),
        "{steps:?}"
    );
}

#[tokio::test]
async fn a_dry_run_by_the_client_sends_nothing_that_changes_and_be_it_as_a_trial() {
    let saved = saved().await;
    lacks(&saved, ExistingPolicy::Update).await;
    let changes = || {
        let state = saved.target.0.lock().unwrap();
        let lines = state.asked.iter();
        let lines =
            lines.filter(|line| !line.starts_with("GET ") && !line.ends_with("accessreviews"));
        lines.cloned().collect::<Vec<_>>()
    };
    assert_eq!(changes(), Vec::<String>::new());
    // The server tells its range to who lets it try.
    saved.target.0.lock().unwrap().refuses =
        vec![("TRY POST", "/default/services", 422, "Invalid")];
    let keep = |options: &mut RestoreOptions| options.preserve_node_ports = true;
    saved.plan(DryRun::Server, keep).await;
    assert!(changes().contains(&"TRY POST /api/v1/namespaces/default/services".to_owned()));
}
