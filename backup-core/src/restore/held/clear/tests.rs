//! What a restore left, in a cluster in memory.

use serde_json::{Value, json};

use super::super::super::tests::fake::Fake;
use super::super::super::tests::server;
use super::super::group::tests::item;
use super::super::left::left;
use super::super::objects::{Aim, POLICY, Size, bind, real, retain, staging};
use super::*;
use crate::error::Kind;

const REAL: &str = "/api/v1/namespaces/n/persistentvolumeclaims/data";
const VOLUME: &str = "/api/v1/persistentvolumes/pv";

fn staging_path() -> String {
    let name = item().aim.staging();
    format!("/api/v1/namespaces/n/persistentvolumeclaims/{name}")
}

/// A restore that was killed when its volume was full: both claims stand, and the volume is the staging claim's.
fn killed() -> Fake {
    let (fake, item) = (Fake::default(), item());
    let mut under = staging(&item.aim, &item.body, &Size::default());
    under["metadata"]["uid"] = "staging".into();
    fake.put(&staging_path(), under);
    let pv = json!({"metadata": {"name": "pv"}});
    let mut held = real(&item.aim, &item.body, &pv);
    held["metadata"]["uid"] = "real".into();
    held["metadata"]["resourceVersion"] = "3".into();
    held["status"]["phase"] = "Pending".into();
    fake.put(REAL, held);
    let reference = json!({"namespace": "n", "name": item.aim.staging(), "uid": "staging"});
    fake.put(VOLUME, full(&item.aim, &reference));
    fake
}

fn full(aim: &Aim, reference: &Value) -> Value {
    let mut volume = retain(aim, "7", "real", Some("Delete"));
    volume["metadata"]["name"] = "pv".into();
    volume["spec"]["claimRef"] = reference.clone();
    volume
}

fn pod(fake: &Fake, name: &str, claim: &str, labels: Value) -> String {
    let path = format!("/api/v1/namespaces/n/pods/{name}");
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
    let pod = json!({
        "metadata": {"name": name, "namespace": "n", "uid": format!("{name}-uid"), "labels": labels},
        "spec": {"volumes": [volume]},
        "status": {"phase": "Failed"},
    });
    fake.put(&path, pod);
    path
}

fn mover_labels() -> Value {
    json!({
        "app.kubernetes.io/name": "kubectl-backup", "app.kubernetes.io/component": "mover",
        "kubectl-backup/run": "dead",
    })
}

async fn look(fake: &Fake, uid: Option<&str>) -> Left {
    let name = "again".parse().unwrap();
    left(&fake.cluster(), &name, uid).await.unwrap()
}

async fn clear(fake: &Fake) -> Cleared {
    let left = look(fake, Some("b-uid")).await;
    left.clear(&fake.cluster()).await.unwrap()
}

#[tokio::test]
async fn what_no_claim_got_goes_back_to_its_class_and_the_claims_go() {
    let fake = killed();
    let mover = pod(&fake, "mover", &item().aim.staging(), mover_labels());
    let left = look(&fake, Some("b-uid")).await;
    assert!(left.gives_up().unwrap().contains("volume pv is full"));
    let goes = left.goes().join("; ");
    for part in [
        "being filled for n/data",
        "data in volume pv",
        "claim n/data",
    ] {
        assert!(goes.contains(part), "{part}: {goes}");
    }
    assert_eq!(clear(&fake).await, Cleared::default());
    for path in [REAL, &staging_path(), &mover] {
        assert!(fake.get(path).is_null(), "{path}");
    }
    let volume = fake.get(VOLUME);
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(volume["metadata"]["annotations"], json!({}));
    assert!(look(&fake, Some("b-uid")).await.is_empty());
}

/// The volume was given to the real claim, and both are bound to each other.
fn bound() -> Fake {
    let (fake, item) = (killed(), item());
    let reference = bind(&item.aim, "7", "real")["spec"]["claimRef"].clone();
    let mut volume = full(&item.aim, &reference);
    volume["status"]["phase"] = "Bound".into();
    fake.put(VOLUME, volume);
    let mut claim = fake.get(REAL);
    claim["status"]["phase"] = "Bound".into();
    fake.put(REAL, claim);
    fake
}

#[tokio::test]
async fn a_volume_that_is_bound_to_its_claim_gets_its_policy_back_and_nothing_is_deleted() {
    let fake = bound();
    assert_eq!(look(&fake, Some("b-uid")).await.gives_up(), None);
    assert_eq!(clear(&fake).await, Cleared::default());
    assert!(!fake.get(REAL).is_null());
    assert_eq!(
        fake.get(VOLUME)["spec"]["persistentVolumeReclaimPolicy"],
        "Delete"
    );
}

#[tokio::test]
async fn a_volume_that_is_promised_to_its_claim_and_not_bound_is_given_up_only_where_that_is_said()
{
    type Change = fn(&mut Value, &mut Value);
    let changes: [Change; 5] = [
        |claim, _| claim["status"]["phase"] = "Pending".into(),
        |_, volume| volume["status"]["phase"] = "Available".into(),
        |claim, _| claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
        |claim, _| claim["metadata"]["uid"] = "another".into(),
        |claim, _| claim["spec"]["volumeName"] = "empty".into(),
    ];
    for (number, change) in changes.iter().enumerate() {
        let fake = bound();
        let (mut claim, mut volume) = (fake.get(REAL), fake.get(VOLUME));
        change(&mut claim, &mut volume);
        fake.put(REAL, claim);
        fake.put(VOLUME, volume);
        let gives_up = look(&fake, Some("b-uid")).await.gives_up();
        let words = gives_up.unwrap_or_else(|| panic!("{number}"));
        assert!(
            words.contains("volume pv is promised to claim n/data"),
            "{words}"
        );
    }
}

#[tokio::test]
async fn a_volume_that_somebody_gave_to_another_claim_keeps_its_policy() {
    let fake = killed();
    let mut volume = fake.get(VOLUME);
    volume["spec"]["claimRef"] = json!({"namespace": "n", "name": "rescue", "uid": "r"});
    volume["status"]["phase"] = "Bound".into();
    fake.put(VOLUME, volume);
    assert_eq!(look(&fake, Some("b-uid")).await.gives_up(), None);
    let said = clear(&fake).await.said.join("; ");
    assert!(said.contains("that of claim n/rescue now"), "{said}");
    let volume = fake.get(VOLUME);
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(volume["metadata"]["annotations"], json!({}));
}

#[tokio::test]
async fn what_pods_use_stays_and_is_named() {
    let fake = killed();
    pod(&fake, "web-0", "data", json!({}));
    pod(&fake, "debug", &item().aim.staging(), json!({}));
    let stays = clear(&fake).await.stays.join("; ");
    for part in [
        "claim n/data stays Pending, for pod web-0",
        "for pod debug has it",
    ] {
        assert!(stays.contains(part), "{part}: {stays}");
    }
    assert!(!fake.get(REAL).is_null() && !fake.get(&staging_path()).is_null());
}

#[tokio::test]
async fn a_claim_that_was_bound_is_not_deleted() {
    let fake = killed();
    let mut bound = fake.get(REAL);
    bound["status"]["phase"] = "Bound".into();
    fake.put(REAL, bound);
    clear(&fake).await;
    assert!(!fake.get(REAL).is_null());
}

#[tokio::test]
async fn what_changed_since_it_was_seen_stays_and_is_named() {
    let fake = killed();
    let left = look(&fake, Some("b-uid")).await;
    for path in [REAL, VOLUME] {
        let mut changed = fake.get(path);
        changed["metadata"]["resourceVersion"] = "8".into();
        fake.put(path, changed);
    }
    let stays = left.clear(&fake.cluster()).await.unwrap().stays.join("; ");
    for part in ["claim n/data was changed", "volume pv was changed"] {
        assert!(stays.contains(part), "{part}: {stays}");
    }
    assert!(!fake.get(REAL).is_null());
    assert_eq!(
        fake.get(VOLUME)["spec"]["persistentVolumeReclaimPolicy"],
        "Retain"
    );
}

#[tokio::test]
async fn a_restore_of_that_name_of_another_backup_is_left_alone_and_one_that_may_be_this_is_named()
{
    let fake = killed();
    let others = look(&fake, Some("another")).await;
    assert!(
        others.is_empty() && others.untold().is_empty(),
        "{others:?}"
    );
    let untold = look(&fake, None).await;
    assert!(untold.is_empty());
    assert_eq!(untold.untold().len(), 3, "{untold:?}");
    for path in [REAL, &staging_path()] {
        let mut before = fake.get(path);
        let annotations = before["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove("kubectl-backup/backup-uid");
        fake.put(path, before);
    }
    let mut before = fake.get(VOLUME);
    before["metadata"]["annotations"]["kubectl-backup/held-for"] = "again/n/data/real/5".into();
    fake.put(VOLUME, before);
    let untold = look(&fake, Some("b-uid")).await;
    assert!(untold.is_empty());
    assert_eq!(untold.untold().len(), 3, "{untold:?}");
}

#[tokio::test]
async fn a_volume_whose_former_policy_is_gone_stays_and_is_named() {
    let fake = killed();
    let mut volume = fake.get(VOLUME);
    volume["metadata"]["annotations"][POLICY] = Value::Null;
    fake.put(VOLUME, volume);
    let cleared = clear(&fake).await;
    assert!(cleared.said[0].contains("volume pv keeps the reclaim policy Retain"));
    assert_eq!(
        fake.get(VOLUME)["spec"]["persistentVolumeReclaimPolicy"],
        "Retain"
    );
}

#[tokio::test]
async fn a_list_that_can_not_be_read_is_an_error_and_not_an_empty_one() {
    for text in ["no list", "{}"] {
        let (cluster, _) = server(&[(200, text)]);
        let name = "again".parse().unwrap();
        let error = left(&cluster, &name, Some("b-uid")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("is no list"), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_cleared_under_a_mover_that_has_not_ended() {
    for (phase, is_at_work) in [("Running", true), ("Pending", true), ("Succeeded", false)] {
        let fake = killed();
        let path = pod(&fake, "mover", &item().aim.staging(), mover_labels());
        let mut mover = fake.get(&path);
        mover["status"]["phase"] = phase.into();
        fake.put(&path, mover);
        let at_work = look(&fake, Some("b-uid"))
            .await
            .at_work()
            .map(str::to_owned);
        assert_eq!(
            at_work.as_deref(),
            is_at_work.then_some("n/mover"),
            "{phase}"
        );
    }
}

#[tokio::test]
async fn a_claim_that_a_set_would_make_anew_and_empty_stays() {
    for (replicas, stays) in [(json!(1), true), (Value::Null, true), (json!(0), false)] {
        let fake = killed();
        let mut claim = fake.get(REAL);
        claim["metadata"]["name"] = "data-db-0".into();
        let path = "/api/v1/namespaces/n/persistentvolumeclaims/data-db-0";
        fake.put(path, claim);
        let set = json!({
            "metadata": {"name": "db", "namespace": "n"},
            "spec": {"replicas": replicas, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
        });
        fake.put("/apis/apps/v1/namespaces/n/statefulsets/db", set);
        let said = clear(&fake).await.stays.join("; ");
        assert_eq!(said.contains("for StatefulSet db uses it"), stays, "{said}");
        assert_eq!(!fake.get(path).is_null(), stays);
    }
}
