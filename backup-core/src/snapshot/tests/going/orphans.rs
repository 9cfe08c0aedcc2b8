//! Snapshots that no backup names any more.

use super::*;

const OTHER: &str = "backups/other/velero-backup.json";

/// The backup is gone, and another one is listed: else nothing is concluded.
async fn lose_backup(store: &Store) {
    store.delete(MARKER).await.unwrap();
    store.put(OTHER, "{}".into()).await.unwrap();
}

#[tokio::test]
async fn orphans_of_a_cluster_that_is_not_reached_are_told_with_the_day_from_which_they_are() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    run(&storage.cluster(), &store).await;
    lose_backup(&store).await;
    let cluster = storage.cluster();
    let since: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    let later: Timestamp = "2026-12-09T00:00:00Z".parse().unwrap();
    let none = Heirs {
        cluster: None,
        stop: None,
    };
    let first = heirs::orphans(&store, none, Some(since), false).await;
    assert_eq!(first.unwrap().told, []);
    for dry_run in [true, false] {
        let elsewhere = Heirs {
            cluster: Some((&cluster, "other-uid")),
            stop: None,
        };
        for heirs in [none, elsewhere] {
            let told = heirs::orphans(&store, heirs, Some(later), dry_run).await;
            let (backup, outcome) = told.unwrap().told.remove(0);
            assert_eq!(backup, "nightly");
            let Outcome::Elsewhere {
                cluster,
                snapshots,
                missing,
            } = outcome
            else {
                panic!("{outcome:?}");
            };
            assert_eq!(
                (cluster.as_str(), snapshots.len(), missing),
                ("c-uid", 1, Some(since))
            );
        }
    }
    assert_eq!(holds(&storage), 1);
}

#[tokio::test]
async fn what_no_backup_names_goes_after_two_looks_with_a_day_between_them() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    run(&storage.cluster(), &store).await;
    let cluster = storage.cluster();
    let look = async |at: &str| {
        let now: Timestamp = at.parse().unwrap();
        let looked = heirs::orphans(&store, heirs(&cluster), Some(now), false);
        looked.await.unwrap().told
    };
    assert!(look("2026-12-01T00:00:00Z").await.is_empty());
    store.delete(MARKER).await.unwrap();
    // Where nothing is listed at all nothing is concluded.
    assert!(look("2026-12-01T00:00:00Z").await.is_empty());
    assert_eq!(inventories(&store).await[0].missing, None);
    store.put(OTHER, "{}".into()).await.unwrap();
    assert!(look("2026-12-02T00:00:00Z").await.is_empty());
    assert!(look("2026-12-02T23:00:00Z").await.is_empty());
    store.put(MARKER, "{}".into()).await.unwrap();
    assert!(look("2026-12-02T23:30:00Z").await.is_empty());
    store.delete(MARKER).await.unwrap();
    assert!(
        look("2026-12-03T00:30:00Z").await.is_empty(),
        "the day began anew"
    );
    assert_eq!(holds(&storage), 1);
    assert_eq!(
        look("2026-12-04T00:30:00Z").await,
        [("nightly".to_owned(), Outcome::Gone(1))]
    );
    assert_eq!(there(&storage, &store).await, (0, 0, 0));
}

#[tokio::test]
async fn who_only_asks_what_no_backup_names_writes_nothing() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    run(&storage.cluster(), &store).await;
    lose_backup(&store).await;
    let cluster = storage.cluster();
    let only_read = store.clone().read_only();
    let told = heirs::orphans(&only_read, heirs(&cluster), None, true).await;
    assert_eq!(told.unwrap(), heirs::Orphans::default());
    assert_eq!(inventories(&store).await[0].missing, None);
}

#[tokio::test]
async fn what_can_not_be_read_keeps_no_other_from_being_an_orphan_and_is_told() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    run(&storage.cluster(), &store).await;
    lose_backup(&store).await;
    let damaged = "plugins/kubectl-backup/snapshots/damaged.json";
    store.put(damaged, "{".into()).await.unwrap();
    let cluster = storage.cluster();
    for (at, gone) in [("2026-12-01T00:00:00Z", 0), ("2026-12-02T01:00:00Z", 1)] {
        let now: Timestamp = at.parse().unwrap();
        let looked = heirs::orphans(&store, heirs(&cluster), Some(now), false);
        let looked = looked.await.unwrap();
        assert_eq!(looked.told.len(), gone, "{looked:?}");
        assert_eq!(looked.unread.len(), 1, "{looked:?}");
        assert!(looked.unread[0].starts_with(damaged), "{looked:?}");
    }
    assert_eq!((holds(&storage), inventories(&store).await.len()), (0, 0));
}

#[tokio::test]
async fn what_is_known_of_snapshots_without_a_backup_can_be_dropped_but_not_under_a_run_at_work() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let snapshot = run(&storage.cluster(), &store).await;
    store.delete(MARKER).await.unwrap();
    let mut sealed = inventories(&store).await.remove(0);
    sealed.state = State::Sealed;
    sealed.put(&store).await.unwrap();
    let claim = format!("backups/nightly/claim-{RUN}.json");
    store.put(&claim, "{}".into()).await.unwrap();
    assert!(heirs::disown(&store, &nightly()).await.is_err());
    store.delete(&claim).await.unwrap();
    let dropped = heirs::disown(&store, &nightly()).await.unwrap();
    assert_eq!(dropped, [format!("d.io {}", snapshot.handle)]);
    assert_eq!((inventories(&store).await.len(), holds(&storage)), (0, 1));
}
