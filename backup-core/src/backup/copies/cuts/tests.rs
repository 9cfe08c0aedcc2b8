use super::*;
use crate::snapshot::storage::{Storage, wanted};

fn cuts(cluster: &Cluster, store: &Store) -> Cuts {
    let of = Of {
        identity: Some("c-uid"),
        backup: "nightly",
        uid: "b-uid",
        run: "0123456789abcdef",
        timeout: Duration::from_secs(5),
    };
    Cuts::new(cluster, store, &of)
}

fn key(claim: &str) -> (String, String) {
    ("shop".to_owned(), claim.to_owned())
}

#[tokio::test]
async fn where_snapshots_can_not_be_written_down_none_is_made_and_only_what_is_asked_for_fails() {
    let storage = Storage::default();
    let store = Store::in_memory().read_only();
    let cuts = cuts(&storage.cluster(), &store);
    cuts.prepare().await;
    let all = vec![wanted("asked", true), wanted("data", false)];
    cuts.cut(all, Hooks::None).await;
    let copied = cuts.finish(&Log::new(Timestamp::now())).await;
    let why = copied[&key("asked")].as_ref().unwrap_err();
    assert!(
        why.contains("no snapshot may be made that is not written down first"),
        "{why}"
    );
    match &copied[&key("data")] {
        Ok(Outcome::NotAsked(why)) => assert!(why.contains("is read-only here"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(storage.state().snapshot_objects(), Vec::<String>::new());
}

#[tokio::test]
async fn a_driver_that_begins_with_nothing_holds_up_what_nobody_asked_for_once() {
    let storage = Storage::default();
    let cuts = cuts(&storage.cluster(), &Store::in_memory());
    cuts.prepare().await;
    storage.state().is_idle = true;
    cuts.cut(vec![wanted("data", false)], Hooks::None).await;
    let asked = storage.state().asked.len();
    cuts.cut(vec![wanted("logs", false)], Hooks::None).await;
    assert_eq!(storage.state().asked.len(), asked);
    storage.state().is_idle = false;
    let copied = cuts.finish(&Log::new(Timestamp::now())).await;
    for claim in ["data", "logs"] {
        let why = copied[&key(claim)].as_ref().unwrap_err();
        assert!(why.contains("nobody has begun"), "{why}");
    }
    assert_eq!(storage.state().snapshot_objects(), Vec::<String>::new());
}

const OWN: &str = "plugins/kubectl-backup/snapshots/0123456789abcdef.json";

/// A run whose snapshots of these claims can be used. They are asked for: what nobody asks for is given up where a busy machine does not begin with it at once.
async fn ready(storage: &Storage, store: &Store, claims: &[&str]) -> (Cuts, Copied, Log) {
    let (cuts, log) = (cuts(&storage.cluster(), store), Log::new(Timestamp::now()));
    cuts.prepare().await;
    let all = claims.iter().map(|claim| wanted(claim, true)).collect();
    cuts.cut(all, Hooks::None).await;
    let copied = cuts.finish(&log).await;
    (cuts, copied, log)
}

#[tokio::test]
async fn a_run_seals_by_its_own_inventory_alone_and_takes_back_what_it_sealed() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let (cuts, mut copied, log) = ready(&storage, &store, &["data"]).await;
    // Strangers' files, more than anybody looks at.
    for number in 0..10_001 {
        let key = format!("plugins/kubectl-backup/snapshots/stranger-{number}.json");
        store.put(&key, "{}".into()).await.unwrap();
    }
    cuts.seal(&mut copied, &log).await.unwrap();
    assert!(matches!(copied[&key("data")], Ok(Outcome::Snapshot(_))));
    assert_eq!(cuts.settle().await, [""; 0]);
    assert!(store.find(OWN, 9999).await.unwrap().is_none());
    assert_eq!(storage.state().snapshot_objects(), Vec::<String>::new());
    assert_eq!(storage.state().holds.len(), 0);
}

#[tokio::test]
async fn what_is_not_written_down_as_it_was_is_refused_by_name_and_what_stands_there_stays() {
    for there in ["{", "", &"x".repeat(17 << 20)] {
        let (storage, store) = (Storage::default(), Store::in_memory());
        let (cuts, mut copied, log) = ready(&storage, &store, &["data", "logs"]).await;
        store.put(OWN, there.to_owned().into()).await.unwrap();
        cuts.seal(&mut copied, &log).await.unwrap();
        for claim in ["data", "logs"] {
            let why = copied[&key(claim)].as_ref().unwrap_err();
            assert!(
                why.contains("is removed again") && why.contains(OWN),
                "{why}"
            );
        }
        assert_eq!(storage.state().snapshot_objects(), Vec::<String>::new());
        assert_eq!(storage.state().holds.len(), 0);
        // The backup stands without them.
        assert_eq!(cuts.leave().await, [""; 0]);
        let stands = store.find(OWN, 18 << 20).await.unwrap();
        assert_eq!(stands.unwrap(), there.as_bytes());
    }
}

#[tokio::test]
async fn a_run_that_is_stopped_while_its_snapshots_become_ready_leaves_none() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let (cuts, log) = (cuts(&storage.cluster(), &store), Log::new(Timestamp::now()));
    cuts.prepare().await;
    storage.state().never_ready = Some("later");
    cuts.cut(vec![wanted("data", true)], Hooks::None).await;
    tokio::select! {
        _ = cuts.finish(&log) => panic!("it is never ready"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    assert_eq!(storage.state().holds.len(), 1);
    assert_eq!(cuts.settle().await, [""; 0]);
    assert_eq!(storage.state().snapshot_objects(), Vec::<String>::new());
    assert_eq!(storage.state().holds.len(), 0);
    assert!(store.find(OWN, 9999).await.unwrap().is_none());
}

#[tokio::test]
async fn a_run_that_is_stopped_while_it_takes_back_what_is_not_written_down_leaves_none_or_says_which()
 {
    for is_silent in [false, true] {
        let (storage, store) = (Storage::default(), Store::in_memory());
        let (cuts, mut copied, log) = ready(&storage, &store, &["data", "logs"]).await;
        store.put(OWN, "{".into()).await.unwrap();
        storage.state().keeps = true;
        tokio::select! {
            _ = cuts.seal(&mut copied, &log) => panic!("the driver deletes nothing"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        assert_eq!(storage.state().holds.len(), 2);
        storage.state().keeps = is_silent;
        let left = cuts.settle().await;
        let still = if is_silent { 2 } else { 0 };
        assert_eq!((left.len(), storage.state().holds.len()), (still, still));
        for why in left {
            // No later run finds it.
            assert!(why.contains("left for ever"), "{why}");
            assert!(why.contains("with kubectl"), "{why}");
        }
        assert_eq!(storage.state().snapshot_objects().is_empty(), !is_silent);
        let stands = store.find(OWN, 9).await.unwrap().unwrap();
        assert_eq!(stands, "{");
    }
}
