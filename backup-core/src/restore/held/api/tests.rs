//! What is asked of a cluster in memory.

use super::super::super::tests::fake::Fake;
use super::*;

const CLAIM: &str = "/api/v1/namespaces/n/persistentvolumeclaims/data";

fn aim() -> Aim {
    Aim {
        restore: "again".into(),
        label: "again".into(),
        backup_uid: "b-uid".into(),
        snapshot: "5".repeat(64),
        namespace: "n".into(),
        claim: "data".into(),
    }
}

/// A cluster with a claim that was never bound, and these pods: name, claim and phase.
fn with(pods: &[(&str, &str, &str)]) -> Fake {
    let fake = Fake::default();
    let claim = json!({"metadata": {"name": "data", "uid": "real"}});
    fake.put(CLAIM, claim);
    for (name, claim, phase) in pods {
        let pod = json!({
            "metadata": {"name": name, "uid": format!("{name}-uid")},
            "spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]},
            "status": {"phase": phase},
        });
        fake.put(&format!("/api/v1/namespaces/n/pods/{name}"), pod);
    }
    fake
}

async fn act(fake: &Fake, action: &Action, stop: bool) -> Result<(), Conflict> {
    let (_keep, stop) = watch::channel(stop);
    let (cluster, aim) = (fake.cluster(), aim());
    let asking = Asking {
        cluster: &cluster,
        aim: &aim,
    };
    asking.act(action, Some("own-uid"), &stop).await
}

fn sentence(done: Result<(), Conflict>) -> String {
    match done {
        Err(Conflict::Other(e)) => e.sentence(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_claim_that_a_waiting_pod_names_is_not_deleted_to_be_made_anew() {
    let drop_it = Action::Drop { uid: "real".into() };
    let fake = with(&[("web-0", "data", "Pending")]);
    let why = sentence(act(&fake, &drop_it, false).await);
    assert!(why.contains("pod web-0 names it"), "{why}");
    assert!(why.contains(SCALE), "{why}");
    assert!(!fake.get(CLAIM).is_null());
    let fake = with(&[("other", "log", "Pending")]);
    act(&fake, &drop_it, false).await.unwrap();
    assert!(fake.get(CLAIM).is_null());
}

#[tokio::test]
async fn who_has_the_staging_claim_goes_though_it_has_ended_and_the_own_mover_stays() {
    let staging = aim().staging();
    let pods = [
        ("own", staging.as_str(), "Running"),
        ("dead", &staging, "Failed"),
        ("ended", &staging, "Succeeded"),
        ("web", "data", "Running"),
    ];
    let fake = with(&pods);
    let why = sentence(act(&fake, &Action::Evict, true).await);
    assert!(why.contains("stopped"), "{why}");
    act(&fake, &Action::Evict, false).await.unwrap();
    for (name, stays) in [
        ("own", true),
        ("dead", false),
        ("ended", false),
        ("web", true),
    ] {
        let pod = fake.get(&format!("/api/v1/namespaces/n/pods/{name}"));
        assert_eq!(!pod.is_null(), stays, "{name}");
    }
}

#[test]
fn a_pod_has_the_claims_that_it_names_and_those_that_are_made_for_it_though_it_has_ended() {
    let pod = |phase: &str| {
        json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"nodeName": "n", "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "b", "ephemeral": {}},
            ]},
            "status": {"phase": phase},
        })
    };
    let has = |claim: &str| mounting(&pod("Pending"), claim);
    let found = has("data").unwrap();
    assert_eq!((found.name.as_str(), found.uid.as_str()), ("p", "u"));
    assert!(has("p-b").is_some() && has("p-a").is_none() && has("other").is_none());
    assert!(mounting(&pod("Succeeded"), "data").is_some());
    assert!(mounting(&json!({"metadata": {"name": "p"}}), "data").is_none());
}

const VOLUME: &str = "/api/v1/persistentvolumes/pv";

/// The staging claim has a volume, on which this stands.
fn staged(annotations: &Value) -> Fake {
    let fake = Fake::default();
    let name = aim().staging();
    let claim = json!({"metadata": {"name": name, "uid": "s-uid"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
    fake.put(
        &format!("/api/v1/namespaces/n/persistentvolumeclaims/{name}"),
        claim,
    );
    let volume = json!({
        "metadata": {"name": "pv", "resourceVersion": "7", "annotations": annotations},
        "spec": {"claimRef": {"namespace": "n", "name": name, "uid": "s-uid"}},
    });
    fake.put(VOLUME, volume);
    fake
}

#[tokio::test]
async fn what_stands_in_a_volume_is_this_restores_only_where_a_run_of_it_began_under_this_claim() {
    let aim = aim();
    for (filling, is_begun) in [
        (Value::Null, false),
        ("s-uid/run".into(), true),
        ("another/run".into(), false),
        ("s-uid-2/run".into(), false),
    ] {
        let fake = staged(&json!({FILLING: filling}));
        let cluster = fake.cluster();
        let asking = Asking {
            cluster: &cluster,
            aim: &aim,
        };
        let found = asking.staged().await.unwrap();
        assert_eq!(found.is_begun, is_begun, "{filling}");
        let mut taken = fake.get(VOLUME);
        taken["spec"]["claimRef"]["uid"] = "another".into();
        fake.put(VOLUME, taken);
        assert!(matches!(asking.staged().await, Err(Conflict::Again)));
    }
}

#[tokio::test]
async fn a_run_that_another_one_overtook_notes_nothing_as_full() {
    let (aim, fake) = (aim(), staged(&json!({})));
    let cluster = fake.cluster();
    let asking = Asking {
        cluster: &cluster,
        aim: &aim,
    };
    let first = asking.begin(&asking.staged().await.unwrap(), "first").await;
    let first = first.unwrap();
    let is_filled = async |filled: &str| {
        let live = asking.look(None, Some(filled)).await.unwrap();
        live.is_filled
    };
    assert!(is_filled(&first).await);
    // It has looked, and is stopped; another run begins, before the first writes down what it saw.
    let seen = fake.get(VOLUME)["metadata"]["resourceVersion"].clone();
    let second = asking
        .begin(&asking.staged().await.unwrap(), "second")
        .await;
    let patch = objects::retain(&aim, seen.as_str().unwrap(), "real", Some("Delete"));
    let late = Asking::patch_volume(&asking, "pv", &patch, "late").await;
    assert!(matches!(late, Err(Conflict::Again)));
    assert!(!is_filled(&first).await && is_filled(&second.unwrap()).await);
    // Whoever has not seen that the other one began does not begin either.
    let stale = asking.staged().await.unwrap();
    asking.begin(&stale, "third").await.unwrap();
    assert!(matches!(
        asking.begin(&stale, "fourth").await,
        Err(Conflict::Again)
    ));
}
