//! Snapshots whose backups go.

use super::*;
use crate::location::trial::{Fate, Trial};
use crate::records::snapshots::StorageSnapshot;
use crate::snapshot::known::{self, About};

mod orphans;

fn nightly() -> Name {
    "nightly".parse().unwrap()
}

fn heirs(cluster: &Cluster) -> Heirs<'_> {
    Heirs {
        cluster: Some((cluster, "c-uid")),
        stop: None,
    }
}

async fn about(store: &Store, names: Option<&[StorageSnapshot]>) -> About {
    let known = Known::read(store).await.unwrap();
    known.about(store, &nightly(), names).await.unwrap()
}

/// As whoever removes the backup does.
async fn expire(store: &Store, heirs: Heirs<'_>) -> Result<Outcome, Error> {
    let about = about(store, Some(&[])).await;
    let outcome = about.expire(store, heirs).await?;
    if matches!(outcome, Outcome::None | Outcome::Gone(_)) {
        about.bury(store).await?;
    }
    Ok(outcome)
}

async fn goes(storage: &Storage, store: &Store) -> Outcome {
    expire(store, heirs(&storage.cluster())).await.unwrap()
}

/// What a backup names of a snapshot.
fn named(one: &CsiSnapshot) -> StorageSnapshot {
    StorageSnapshot {
        cluster: "c-uid".into(),
        run: one.run.clone(),
        driver: one.driver.clone(),
        handle: one.handle.clone(),
    }
}

const THREE: [&str; 3] = ["data", "logs", "cache"];

#[tokio::test]
async fn snapshots_go_with_their_backup_and_killed_anywhere_the_next_attempt_goes_on() {
    let (mut at, mut finished) = (0, false);
    while !finished {
        let (storage, store) = (Storage::default(), Store::in_memory());
        run_of(&THREE, &storage.cluster(), &store).await;
        let done = killed_at(at, &storage, async |cluster| {
            expire(&store, heirs(cluster)).await.unwrap()
        });
        let done = done.await;
        assert!(matches!(done, None | Some(Outcome::Gone(3))), "{done:?}");
        finished = done.is_some();
        let again = goes(&storage, &store).await;
        assert!(
            matches!(again, Outcome::Gone(_) | Outcome::None),
            "request {at}: {again:?}"
        );
        assert_eq!(there(&storage, &store).await, (0, 0, 0), "request {at}");
        at += 1;
    }
    assert!(at > 18, "{at}");
}

#[tokio::test]
async fn the_objects_of_a_run_that_was_killed_after_its_marker_do_not_keep_its_backup() {
    // Also where an expiry began before it had seen to them.
    for state in [State::Sealed, State::Expiring] {
        let (mut at, mut stood, mut finished) = (0, 0, false);
        while !finished {
            let (storage, store) = (Storage::default(), Store::in_memory());
            let made = killed_at(at, &storage, async |cluster| run(cluster, &store).await);
            finished = made.await.is_some();
            at += 1;
            if store.find(MARKER, 10).await.unwrap().is_none() {
                continue;
            }
            stood += usize::from(!objects(&storage).is_empty());
            let mut left = inventories(&store).await.remove(0);
            if left.state == State::Sealed {
                left.state = state;
                left.put(&store).await.unwrap();
            }
            let claim = format!("backups/nightly/claim-{RUN}.json");
            store.put(&claim, "{}".into()).await.unwrap();
            if left.state != State::Left {
                assert!(matches!(goes(&storage, &store).await, Outcome::Kept { .. }));
                assert_eq!(holds(&storage), 1, "one that may be at work");
            }
            store.delete(&claim).await.unwrap();
            assert_eq!(goes(&storage, &store).await, Outcome::Gone(1), "{at}");
            assert_eq!((objects(&storage).len(), holds(&storage)), (0, 0));
        }
        assert!(stood > 2, "{stood}");
    }
}

#[tokio::test]
async fn an_expiry_that_is_stopped_in_its_midst_forgets_none_that_is_there() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    run_of(&THREE, &storage.cluster(), &store).await;
    let cluster = storage.cluster();
    let stop = tokio::sync::watch::Sender::new(false);
    let stopped = stop.subscribe();
    let some = Heirs {
        stop: Some(&stopped),
        ..heirs(&cluster)
    };
    let stops = async {
        while holds(&storage) > 2 {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        stop.send_replace(true);
    };
    let (done, ()) = tokio::join!(expire(&store, some), stops);
    assert_eq!(done.unwrap_err().kind(), Kind::Interrupted);
    let left = inventories(&store).await.remove(0);
    for handle in &storage.state().holds {
        assert!(left.has("d.io", handle), "{handle}");
    }
    assert!(matches!(goes(&storage, &store).await, Outcome::Gone(_)));
    assert_eq!((objects(&storage).len(), holds(&storage)), (0, 0));
}

#[tokio::test]
async fn a_snapshot_that_the_driver_does_not_delete_is_told_and_stays_known() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let snapshot = run(&storage.cluster(), &store).await;
    storage.state().keeps = true;
    let text = format!(
        "snapshot {} of d.io: its driver has not deleted it in 1 s",
        snapshot.handle
    );
    match goes(&storage, &store).await {
        Outcome::Kept { why, .. } => {
            assert!(why.len() == 1 && why[0].starts_with(&text), "{why:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        (
            holds(&storage),
            inventories(&store).await[0].snapshots.len()
        ),
        (1, 1)
    );
    storage.state().keeps = false;
    assert_eq!(goes(&storage, &store).await, Outcome::Gone(1));
    assert_eq!((objects(&storage).len(), holds(&storage)), (0, 0));
}

#[tokio::test]
async fn a_handle_that_the_driver_does_not_know_or_has_for_another_moment_or_that_somebody_uses_is_refused()
 {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let snapshot = run(&storage.cluster(), &store).await;
    let refused = async |part: &str| {
        let Outcome::Kept { why, .. } = goes(&storage, &store).await else {
            panic!("{part}");
        };
        assert!(why[0].contains(part), "{why:?}");
        assert!(
            objects(&storage)
                .iter()
                .all(|path| !path.contains("/expire-")),
            "{part}"
        );
    };
    storage.state().holds.clear();
    refused("the driver has no such snapshot").await;
    storage.state().holds.insert(snapshot.handle.clone());
    let mut other = inventories(&store).await.remove(0);
    other.snapshots[0].cut = "2026-11-30T09:59:00Z".parse().unwrap();
    other.put(&store).await.unwrap();
    refused("another snapshot under its handle").await;
    other.snapshots[0].cut = snapshot.cut;
    other.put(&store).await.unwrap();
    pair(&snapshot)
        .make(&storage.cluster(), &never())
        .await
        .unwrap();
    refused("of VolumeSnapshot copy/restore-").await;
    assert_eq!(holds(&storage), 1);
}

#[tokio::test]
async fn a_copy_owns_no_snapshot_and_another_cluster_deletes_none() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let made = run(&storage.cluster(), &store).await;
    let cluster = storage.cluster();
    for reached in [None, Some((&cluster, "other-uid"))] {
        let heirs = Heirs {
            cluster: reached,
            stop: None,
        };
        let outcome = expire(&store, heirs).await.unwrap();
        assert!(matches!(outcome, Outcome::Elsewhere { cluster, .. } if cluster == "c-uid"));
    }
    let mut copied = inventories(&store).await.remove(0);
    copied.place = "0123456789abcdef".into();
    copied.put(&store).await.unwrap();
    let lacks = about(&store, Some(&[named(&made)])).await.lacks();
    assert!(lacks.unwrap().contains("another address"));
    assert_eq!(goes(&storage, &store).await, Outcome::None);
    assert_eq!(holds(&storage), 1);
}

#[tokio::test]
async fn an_inventory_that_somebody_else_took_away_meanwhile_does_not_come_back() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    run_of(&THREE, &storage.cluster(), &store).await;
    let known = inventories(&store).await.remove(0);
    let cluster = storage.cluster();
    let other = async {
        while objects(&storage).is_empty() {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        known.remove(&store).await.unwrap();
    };
    let (done, ()) = tokio::join!(expire(&store, heirs(&cluster)), other);
    match done.unwrap() {
        Outcome::Kept { why, .. } => assert!(why[0].contains("another run"), "{why:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(inventories(&store).await, []);
}

#[tokio::test]
async fn where_no_class_is_noted_the_secret_to_delete_with_is_that_of_the_drivers_class() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    run(&storage.cluster(), &store).await;
    // As in a location with recipients.
    let mut noted = inventories(&store).await.remove(0);
    noted.snapshots[0].class = String::new();
    noted.put(&store).await.unwrap();
    let class = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses/fast";
    let parameters = json!({"csi.storage.k8s.io/snapshotter-secret-name": "ceph",
        "csi.storage.k8s.io/snapshotter-secret-namespace": "rook"});
    let made = json!({"metadata": {"name": "fast"}, "driver": "d.io", "parameters": parameters});
    storage.state().put(class, made);
    storage.state().keeps = true;
    assert!(matches!(goes(&storage, &store).await, Outcome::Kept { .. }));
    let path = objects(&storage).remove(0);
    let content = storage.state().objects[&path].clone();
    assert!(path.contains("/expire-"), "{path}");
    assert_eq!(content["spec"]["volumeSnapshotClassName"], "fast");
    let said = &content["metadata"]["annotations"];
    assert_eq!(
        said["snapshot.storage.kubernetes.io/deletion-secret-name"],
        "ceph"
    );
    assert_eq!(
        said["snapshot.storage.kubernetes.io/deletion-secret-namespace"],
        "rook"
    );
}

#[tokio::test]
async fn a_backup_of_which_a_snapshot_went_is_half_gone_and_one_of_which_none_did_is_not() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let made = run_of(&THREE, &storage.cluster(), &store).await;
    storage.state().no_contents = true;
    assert!(matches!(
        goes(&storage, &store).await,
        Outcome::Kept { torn: None, .. }
    ));
    let half = async || about(&store, None).await.is_torn(None);
    assert!(!half().await);
    storage.state().no_contents = false;
    // One that the driver does not know stays, the others go.
    storage.state().holds.remove(&made[2].handle);
    match goes(&storage, &store).await {
        Outcome::Kept { torn, .. } => assert!(
            torn.as_ref()
                .is_some_and(|text| text.starts_with("2 of its 3 snapshots are deleted already")),
            "{torn:?}"
        ),
        other => panic!("{other:?}"),
    }
    assert!(half().await);
    // One that was made anew under the name long after is whole.
    let anew = made[0].cut + jiff::SignedDuration::from_hours(2);
    assert!(!about(&store, None).await.is_torn(Some(anew)));
}

#[tokio::test]
async fn what_speaks_for_a_backup_is_asked_for_before_each_of_its_snapshots() {
    use futures::FutureExt as _;
    let (storage, store) = (Storage::default(), Store::in_memory());
    run_of(&THREE, &storage.cluster(), &store).await;
    let known = about(&store, Some(&[])).await;
    let cluster = storage.cluster();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let still = || {
        let before = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move { Ok((before == 1).then(|| "a restore reads it".to_owned())) }.boxed()
    };
    let while_it = Some(&still as heirs::Still<'_>);
    let outcome = known.expire_while(&store, heirs(&cluster), while_it);
    let Outcome::Kept { why, torn } = outcome.await.unwrap() else {
        panic!("nothing spoke for it");
    };
    assert_eq!(why, ["a restore reads it"]);
    assert!(torn.unwrap().starts_with("1 of its 3 snapshots"));
    assert_eq!((holds(&storage), objects(&storage).len()), (2, 0));
}

#[tokio::test]
async fn a_snapshot_that_no_readable_inventory_has_speaks_against_the_end_of_its_backup() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let made = run_of(&THREE, &storage.cluster(), &store).await;
    let names: Vec<_> = made.iter().map(named).collect();
    let lacks = async || about(&store, Some(&names)).await.lacks();
    assert_eq!(lacks().await, None);
    let whole = inventories(&store).await.remove(0);
    let key = inventory::key(RUN).unwrap();
    let says = async |parts: &[&str]| {
        let why = lacks().await.expect("something speaks against it");
        for part in parts {
            assert!(why.contains(part), "{part}: {why}");
        }
    };
    for (there, why) in [
        ("{", "it is damaged"),
        (&*"x".repeat(17 << 20), "more than the 16777216"),
    ] {
        store.put(&key, there.to_owned().into()).await.unwrap();
        says(&[&made[0].handle, &made[2].handle, "d.io", &key, why]).await;
        // Whoever can not tell what it names does not take that for nothing.
        let unsaid = about(&store, None).await.lacks().unwrap();
        assert!(unsaid.contains(&key) && unsaid.contains(why), "{unsaid}");
    }
    store.delete(&key).await.unwrap();
    says(&[&format!("{key} is not there")]).await;
    assert_eq!(about(&store, None).await.lacks(), None);
    let mut less = whole.clone();
    less.snapshots.pop();
    less.put(&store).await.unwrap();
    let why = lacks().await.unwrap();
    let one = format!("snapshot {} of d.io: {key} has it not", made[2].handle);
    assert!(why.ends_with(&one), "{why}");
    // What an attempt before had the driver delete is known until the backup is gone.
    whole.put(&store).await.unwrap();
    storage.state().holds.remove(&made[2].handle);
    assert!(matches!(goes(&storage, &store).await, Outcome::Kept { .. }));
    assert_eq!(lacks().await, None);
    let left = about(&store, Some(&names)).await;
    assert_eq!((left.count(), holds(&storage)), (1, 0));
}

#[tokio::test]
async fn among_more_inventories_than_anybody_lists_those_of_a_backup_are_found_by_what_it_names() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let made = run(&storage.cluster(), &store).await;
    for number in 0..10_001 {
        let key = format!("plugins/kubectl-backup/snapshots/stranger-{number}.json");
        store.put(&key, "{}".into()).await.unwrap();
    }
    let cluster = storage.cluster();
    let looked = heirs::orphans(&store, heirs(&cluster), None, true).await;
    let [why] = &looked.unwrap().unread[..] else {
        panic!("it was listed");
    };
    assert!(why.contains("more than 10000"), "{why}");
    let known = about(&store, Some(&[named(&made)])).await;
    assert_eq!((known.lacks(), known.count()), (None, 1));
    let outcome = known.expire(&store, heirs(&cluster)).await;
    assert_eq!(outcome.unwrap(), Outcome::Gone(1));
    known.bury(&store).await.unwrap();
    let key = inventory::key(RUN).unwrap();
    assert!(store.find(&key, 9999).await.unwrap().is_none());
    assert_eq!(holds(&storage), 0);
}

#[tokio::test]
async fn what_nobody_can_read_any_more_goes_with_its_backup_or_where_it_is_asked_for_and_nothing_else_does()
 {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let made = run(&storage.cluster(), &store).await;
    let whole = inventories(&store).await.remove(0);
    let key = |run: &str| inventory::key(run).unwrap();
    let newer = r#"{"version":2}"#;
    for (run, text) in [(RUN, "{"), ("damaged", "{}"), ("newer", newer)] {
        store.put(&key(run), text.into()).await.unwrap();
    }
    let stand = async || {
        let all = store.entries("plugins/kubectl-backup/snapshots/", 9);
        let all = all.await.unwrap().into_iter();
        all.map(|entry| entry.key).collect::<Vec<_>>()
    };
    // Whoever had its backup deleted without it.
    let known = about(&store, Some(&[named(&made)])).await;
    assert!(known.lacks().is_some());
    known.bury(&store).await.unwrap();
    assert_eq!(stand().await, [key("damaged"), key("newer")]);
    whole.put(&store).await.unwrap();
    for dry_run in [true, false] {
        let dropped = heirs::drop_damaged(&store, dry_run).await.unwrap();
        assert_eq!(dropped, [key("damaged")]);
        assert_eq!(stand().await.contains(&key("damaged")), dry_run);
    }
    assert_eq!(stand().await.len(), 2);
    assert_eq!(
        (inventories(&store).await, holds(&storage)),
        (vec![whole], 1)
    );
    // One that may not be read is no damaged one.
    store.put(&key("damaged"), "{".into()).await.unwrap();
    let trial = Trial::of(&store).judged(|verb, key| match verb {
        "get" if key.ends_with("damaged.json") => Fate::Refused,
        _ => Fate::Happens,
    });
    let dropped = heirs::drop_damaged(&trial.store(), false).await;
    assert_eq!(dropped.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_copy_goes_without_the_snapshots_of_the_original_and_an_own_one_is_no_copy() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let made = run(&storage.cluster(), &store).await;
    let names = [named(&made)];
    let copy = Store::in_memory();
    for target in [&copy, &store] {
        known::copied(target, &nightly(), &names).await.unwrap();
    }
    let there = about(&copy, Some(&names)).await;
    assert_eq!((there.lacks(), there.count()), (None, 0));
    assert_eq!(goes(&storage, &copy).await, Outcome::None);
    assert_eq!((inventories(&copy).await.len(), holds(&storage)), (0, 1));
    assert_eq!(about(&store, Some(&names)).await.count(), 1);
    assert_eq!(goes(&storage, &store).await, Outcome::Gone(1));
}
