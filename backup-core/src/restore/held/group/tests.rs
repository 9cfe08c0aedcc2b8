//! Groups at work in a cluster in memory.

use std::time::Duration;

use serde_json::json;

use super::super::super::tests::fake::Fake;
use super::super::left::kept;
use super::super::objects::POLICY;
use super::super::step::RETAIN;
use super::*;
use crate::layout::VolumeKeys;
use crate::mover::MoverOptions;
use crate::records::copies::FileCopy;

const CLAIM: &str = "/api/v1/namespaces/n/persistentvolumeclaims/data";
const VOLUME: &str = "/api/v1/persistentvolumes/pv";

/// A claim whose data comes back.
pub(in super::super) fn item() -> Item {
    let snapshot = "5".repeat(64);
    let copy = FileCopy {
        repository: 1,
        snapshot: snapshot.clone(),
        run: "r".into(),
        entries: 1,
        ..FileCopy::default()
    };
    Item {
        aim: Aim {
            restore: "again".into(),
            label: "again".into(),
            backup_uid: "b-uid".into(),
            snapshot,
            namespace: "n".into(),
            claim: "data".into(),
        },
        data: Data {
            place: VolumeKeys::new("c", "n", "u").unwrap(),
            copy,
            capacity: String::new(),
            is_shared: false,
            backup_uid: "b-uid".into(),
        },
        body: json!({
            "metadata": {"name": "data", "namespace": "n", "labels": {"velero.io/restore-name": "again"}},
            "spec": {},
        }),
        kept: Vec::new(),
    }
}

/// A group of that one claim, and what it tells.
fn group(fake: &Fake) -> (Group, mpsc::UnboundedReceiver<Word>) {
    let (words, told) = mpsc::unbounded_channel();
    let options = MoverOptions {
        image: "i:1".into(),
        pulled_with: Vec::new(),
        timeout: Duration::from_secs(1),
        parallel: 1,
    };
    let cluster = fake.cluster();
    let shared = Shared {
        movers: Movers::new(&cluster, &options, "run"),
        run: "run".into(),
        cluster,
        store: Store::in_memory(),
        identities: Identities::default(),
        making: Semaphore::new(1),
        filling: Semaphore::new(1),
        words,
    };
    let group = Group::new(Arc::new(shared), vec![(0, item())], Placement::default());
    (group, told)
}

/// The claim is bound to its volume, which is kept for it and has these annotations besides.
fn bound(fake: &Fake, more: Value) {
    let item = item();
    let pv =
        json!({"metadata": {"name": "pv", "uid": "pv-uid"}, "spec": {"storageClassName": "fast"}});
    let mut claim = objects::real(&item.aim, &item.body, &pv);
    claim["metadata"]["uid"] = "real".into();
    claim["status"]["phase"] = "Bound".into();
    fake.put(CLAIM, claim);
    let mut volume = objects::retain(&item.aim, "7", "real", None);
    volume["metadata"]["name"] = "pv".into();
    volume["metadata"]["uid"] = "pv-uid".into();
    for (key, value) in more.as_object().unwrap() {
        volume["metadata"]["annotations"][key] = value.clone();
    }
    volume["spec"]["claimRef"] = objects::bind(&item.aim, "7", "real")["spec"]["claimRef"].clone();
    volume["status"]["phase"] = "Bound".into();
    fake.put(VOLUME, volume);
}

#[tokio::test]
async fn a_volume_whose_former_policy_somebody_removed_stays_and_is_named() {
    for (noted, policy, part) in [
        (json!({POLICY: "Delete"}), "Delete", None),
        (
            json!({}),
            RETAIN,
            Some("volume pv keeps the reclaim policy Retain"),
        ),
        (
            json!({POLICY: "whatever"}),
            RETAIN,
            Some("kubectl-backup/reclaim-policy"),
        ),
    ] {
        let fake = Fake::default();
        bound(&fake, noted);
        let (group, mut told) = group(&fake);
        group.run().await;
        assert!(matches!(
            told.recv().await,
            Some(Word::Stands(0, Ok(false)))
        ));
        let Some(Word::Ended(0, Ok(said))) = told.recv().await else {
            panic!("it is bound");
        };
        match part {
            None => assert_eq!(said, None),
            Some(part) => assert!(said.unwrap().contains(part)),
        }
        let volume = fake.get(VOLUME);
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], policy);
        assert_eq!(volume["metadata"]["annotations"], json!({}));
    }
}

/// The claim does not stand yet, and its volume is there: its class makes it at once.
fn staged(fake: &Fake) {
    let item = item();
    let mut claim = objects::staging(&item.aim, &item.body, &Size::default());
    claim["metadata"]["uid"] = "s-uid".into();
    claim["spec"]["volumeName"] = "pv".into();
    claim["status"]["phase"] = "Bound".into();
    fake.put(&at(&item.aim.staging()), claim);
    let mut volume = pv();
    volume["spec"]["claimRef"] = of_staging(&item.aim);
    fake.put(VOLUME, volume);
}

fn at(claim: &str) -> String {
    format!("/api/v1/namespaces/n/persistentvolumeclaims/{claim}")
}

fn pv() -> Value {
    json!({"metadata": {"name": "pv", "uid": "pv-uid", "resourceVersion": "7"}, "spec": {"storageClassName": "fast"}})
}

fn of_staging(aim: &Aim) -> Value {
    json!({"namespace": "n", "name": aim.staging(), "uid": "s-uid"})
}

#[tokio::test]
async fn what_an_admission_rule_denies_is_named_with_the_volume_that_the_claim_was_to_get() {
    let item = item();
    // The claim, while its volume waits for it.
    let fake = Fake::default();
    staged(&fake);
    fake.refuses("POST", "/persistentvolumeclaims", 403);
    let (held, mut told) = group(&fake);
    held.run().await;
    let Some(Word::Stands(0, Err(e))) = told.recv().await else {
        panic!("it was refused");
    };
    let said = e.sentence();
    assert!(
        said.contains("volume pv") && said.contains("refused"),
        "{said}"
    );
    assert_eq!(
        fake.get(&at(&item.aim.staging())),
        Value::Null,
        "nothing is left of it"
    );
    // Its volume, which is full.
    let fake = Fake::default();
    let mut claim = objects::real(&item.aim, &item.body, &pv());
    claim["metadata"]["uid"] = "real".into();
    fake.put(CLAIM, claim);
    let mut full = objects::retain(&item.aim, "7", "real", Some("Delete"));
    full["metadata"]["name"] = "pv".into();
    full["metadata"]["uid"] = "pv-uid".into();
    full["spec"]["claimRef"] = of_staging(&item.aim);
    fake.put(VOLUME, full);
    fake.refuses("PATCH", "/persistentvolumes/pv", 403);
    let (bound, mut told) = group(&fake);
    bound.run().await;
    assert!(matches!(
        told.recv().await,
        Some(Word::Stands(0, Ok(false)))
    ));
    let Some(Word::Ended(0, Err(e))) = told.recv().await else {
        panic!("it was refused");
    };
    let said = e.sentence();
    assert!(said.contains("volume pv: it holds the data"), "{said}");
    assert!(said.contains("refused"), "{said}");
}

/// Where its class makes the volume at once, the claim would stand before the mover was asked for.
#[tokio::test]
async fn nothing_is_begun_for_a_claim_whose_mover_the_server_would_refuse() {
    for (code, reason, is_refused) in [
        (403, "Forbidden", true),
        (422, "Invalid", true),
        // There may be room when its turn comes.
        (403, "exceeded quota: pods", false),
        (400, "does not support dry run", false),
    ] {
        let fake = Fake::default();
        fake.refuses_for("TRY POST", "/pods", code, reason);
        let (group, mut told) = group(&fake);
        let shared = Arc::clone(&group.shared);
        let running = tokio::spawn(group.run());
        if !is_refused {
            while fake.first("/api/v1/namespaces/n/pods/").is_none() {
                tokio::task::yield_now().await;
            }
            shared.movers.settle().await;
        }
        running.await.unwrap();
        let Some(Word::Stands(0, Err(e))) = told.recv().await else {
            panic!("{code}: there is no mover");
        };
        let is_begun = fake.was_asked("POST /api/v1/namespaces/n/persistentvolumeclaims");
        assert_eq!(is_begun, !is_refused, "{reason}");
        if is_refused {
            let said = e.sentence();
            assert!(said.contains("no pod can be made"), "{said}");
        }
    }
}

/// What a trial does not show: the claim stands, and waits for its data.
#[tokio::test]
async fn a_mover_that_is_refused_when_it_is_made_leaves_a_standing_claim_pending() {
    let fake = Fake::default();
    staged(&fake);
    fake.refuses("POST", "/pods", 403);
    let (group, mut told) = group(&fake);
    group.run().await;
    assert!(matches!(told.recv().await, Some(Word::Stands(0, Ok(true)))));
    let Some(Word::Ended(0, Err(e))) = told.recv().await else {
        panic!("it was refused");
    };
    let said = e.sentence();
    assert!(said.contains("no pod can be made"), "{said}");
    assert_eq!(fake.get(CLAIM)["spec"]["volumeName"], "pv");
    assert_eq!(fake.get(CLAIM)["status"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn what_breaks_once_the_restore_was_told_to_end_is_no_failure_of_the_data() {
    for is_stopped in [false, true] {
        let fake = Fake::default();
        fake.stays_away();
        let (group, mut told) = group(&fake);
        let shared = Arc::clone(&group.shared);
        let running = tokio::spawn(group.run());
        while !fake.was_asked("") {
            tokio::task::yield_now().await;
        }
        if is_stopped {
            shared.movers.settle().await;
        }
        running.await.unwrap();
        let Some(Word::Stands(0, Err(e))) = told.recv().await else {
            panic!("nobody answers");
        };
        let kind = match is_stopped {
            true => Kind::Interrupted,
            false => Kind::Unreachable,
        };
        assert_eq!(e.kind(), kind, "{e}");
    }
}

/// A pod asks for room where its volume is made, and nowhere else.
#[tokio::test]
async fn a_mover_asks_for_what_its_pod_asks_for_only_where_the_volume_is_made_for_a_pod() {
    for (mode, cpu) in [
        ("WaitForFirstConsumer", "250m"),
        ("Immediate", "10m"),
        ("", "250m"),
    ] {
        let fake = Fake::default();
        if !mode.is_empty() {
            let class = json!({"metadata": {"name": "fast"}, "volumeBindingMode": mode});
            fake.put("/apis/storage.k8s.io/v1/storageclasses/fast", class);
        }
        let (mut group, _told) = group(&fake);
        group.all[0].item.body["spec"]["storageClassName"] = "fast".into();
        group.placement = Placement::of(&json!({
            "nodeSelector": {"disk": "fast"},
            "containers": [{"resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}}],
        }));
        let shared = Arc::clone(&group.shared);
        let running = tokio::spawn(group.run());
        let pod = loop {
            if let Some(pod) = fake.first("/api/v1/namespaces/n/pods/") {
                break pod;
            }
            tokio::task::yield_now().await;
        };
        shared.movers.settle().await;
        running.await.unwrap();
        let asked = &pod["spec"]["containers"][0]["resources"]["requests"];
        assert_eq!(asked["cpu"], cpu, "{mode}");
        assert_eq!(pod["spec"]["nodeSelector"]["disk"], "fast", "{mode}");
    }
}

#[tokio::test]
async fn a_full_volume_whose_claims_are_both_gone_is_found_and_named() {
    let fake = Fake::default();
    bound(&fake, json!({POLICY: "Delete"}));
    let mut stands = fake.get(CLAIM);
    let aim = item().aim;
    let found = kept(&fake.cluster(), "again").await.unwrap().of(&aim);
    assert_eq!(found, [("real".to_owned(), "pv".to_owned())]);
    let others = Aim {
        claim: "log".into(),
        ..aim.clone()
    };
    let all = kept(&fake.cluster(), "again").await.unwrap();
    assert_eq!(all.of(&others), []);
    let all = kept(&fake.cluster(), "another").await.unwrap();
    assert_eq!(all.of(&aim), []);
    let (mut standing, mut told) = group(&fake);
    standing.all[0].item.kept.clone_from(&found);
    standing.run().await;
    assert!(matches!(
        told.recv().await,
        Some(Word::Stands(0, Ok(false)))
    ));
    // The claim goes, and comes back as another one.
    bound(&fake, json!({POLICY: "Delete"}));
    stands["metadata"]["uid"] = "another".into();
    for claim in [Value::Null, stands] {
        match claim.is_null() {
            true => fake.remove(CLAIM),
            false => fake.put(CLAIM, claim),
        }
        let (mut gone, mut told) = group(&fake);
        gone.all[0].item.kept.clone_from(&found);
        gone.run().await;
        let Some(Word::Stands(0, Err(e))) = told.recv().await else {
            panic!("another volume is filled");
        };
        assert!(e.to_string().contains("volume pv holds its data"), "{e}");
        let hint = e.hint_text().unwrap();
        assert!(hint.contains("restore delete again --force"), "{hint}");
    }
}
