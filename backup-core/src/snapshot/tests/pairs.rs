//! Objects by which a restore gets to a snapshot.

use super::*;

#[tokio::test]
async fn a_pair_stays_while_its_claim_waits_and_goes_when_it_is_bound_and_the_snapshot_stays() {
    let storage = Storage::default();
    let snapshot = kept(&storage).await;
    let cluster = storage.cluster();
    let source = pair(&snapshot).make(&cluster, &never()).await.unwrap();
    assert_eq!(source.size, 1 << 30);
    let same = pair(&snapshot).make(&cluster, &never()).await.unwrap();
    assert_eq!(same, source, "a killed restore goes on with what stands");
    let claim = "/api/v1/namespaces/copy/persistentvolumeclaims/data";
    let put = |phase: &str, annotations: Value| {
        let claim_object = json!({"metadata": {"name": "data", "annotations": annotations}, "spec": {"dataSource": pair::data_source(&source.name)}, "status": {"phase": phase}});
        storage.state().put(claim, claim_object);
    };
    put("Pending", Value::Null);
    let now: Timestamp = "2026-12-30T10:00:00Z".parse().unwrap();
    let waiting = |is_placed| pair::Waiting {
        path: "copy/data".into(),
        is_placed,
    };
    for restore in [Some("again"), None] {
        let cleared = pair::clear(&cluster, restore, now).await.unwrap();
        assert_eq!(cleared.waiting, [waiting(false)]);
        assert_eq!(objects(&storage).len(), 2);
    }
    put(
        "Pending",
        json!({"volume.kubernetes.io/selected-node": "node1"}),
    );
    let cleared = pair::clear(&cluster, None, now).await.unwrap();
    assert_eq!(cleared.waiting, [waiting(true)]);
    put("Bound", Value::Null);
    let other = pair::clear(&cluster, Some("another"), now).await.unwrap();
    assert_eq!((other.waiting.len(), objects(&storage).len()), (0, 2));
    let cleared = pair::clear(&cluster, None, now).await.unwrap();
    assert_eq!((cleared.waiting.len(), cleared.left.len()), (0, 0));
    assert_eq!((objects(&storage).len(), holds(&storage)), (0, 1));
}

#[tokio::test]
async fn a_pair_without_a_claim_is_let_be_as_long_as_a_restore_may_be_about_to_make_it() {
    let storage = Storage::default();
    let snapshot = kept(&storage).await;
    let cluster = storage.cluster();
    pair(&snapshot).make(&cluster, &never()).await.unwrap();
    let soon: Timestamp = "2026-11-30T12:30:00Z".parse().unwrap();
    pair::clear(&cluster, None, soon).await.unwrap();
    assert_eq!(objects(&storage).len(), 2);
    let later: Timestamp = "2026-11-30T13:30:00Z".parse().unwrap();
    pair::clear(&cluster, None, later).await.unwrap();
    assert_eq!((objects(&storage).len(), holds(&storage)), (0, 1));
}

#[tokio::test]
async fn of_a_handle_that_the_driver_does_not_know_no_pair_stays() {
    let storage = Storage::default();
    let mut snapshot = kept(&storage).await;
    snapshot.handle = "gone".into();
    let cluster = storage.cluster();
    let made = pair(&snapshot).make(&cluster, &never()).await;
    assert_eq!(made.unwrap_err().kind(), Kind::NotFound);
    assert_eq!((objects(&storage).len(), holds(&storage)), (0, 1));
}

#[tokio::test]
async fn a_content_without_its_volumesnapshot_goes_only_where_a_restore_made_it() {
    let storage = Storage::default();
    let snapshot = kept(&storage).await;
    let cluster = storage.cluster();
    let source = pair(&snapshot).make(&cluster, &never()).await.unwrap();
    let contents = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";
    let ours = format!("{contents}/{}", source.name);
    // The namespace went, and took the VolumeSnapshot along; and somebody makes the first object of two.
    let theirs = format!("{contents}/restore-db");
    let likes = format!("{contents}/restore-0123456789abcdef");
    {
        let mut state = storage.state();
        let content = |name: &str| {
            json!({"metadata": {"name": name}, "spec": {"driver": "d.io", "deletionPolicy": "Retain",
                "source": {"snapshotHandle": snapshot.handle}, "volumeSnapshotRef": {"namespace": "copy", "name": name}}})
        };
        state.put(&theirs, content("restore-db"));
        state.put(&likes, content("restore-0123456789abcdef"));
        state
            .objects
            .retain(|path, _| !path.contains("/volumesnapshots/"));
    }
    let soon: Timestamp = "2026-11-30T12:30:00Z".parse().unwrap();
    let later: Timestamp = "2026-11-30T13:30:00Z".parse().unwrap();
    for (restore, now) in [(None, soon), (Some("another"), later)] {
        pair::clear(&cluster, restore, now).await.unwrap();
        assert_eq!(objects(&storage).len(), 3, "{restore:?}");
    }
    pair::clear(&cluster, None, later).await.unwrap();
    assert_eq!(objects(&storage), [likes, theirs]);
    assert!(!objects(&storage).contains(&ours));
}

#[tokio::test]
async fn a_restore_that_is_refused_a_content_or_killed_anywhere_leaves_nothing_that_can_not_go() {
    let storage = Storage::default();
    let snapshot = kept(&storage).await;
    storage.state().no_contents = true;
    let refused = pair(&snapshot).make(&storage.cluster(), &never()).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Forbidden);
    assert_eq!(objects(&storage), Vec::<String>::new());
    let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
    let (mut at, mut finished) = (0, false);
    while !finished {
        let storage = Storage::default();
        let snapshot = kept(&storage).await;
        let made = killed_at(at, &storage, async |cluster| {
            pair(&snapshot).make(cluster, &never()).await
        });
        finished = made.await.is_some();
        let cluster = storage.cluster();
        let cleared = pair::clear(&cluster, Some("again"), now).await.unwrap();
        assert_eq!(cleared.left, Vec::<String>::new(), "request {at}");
        assert_eq!((objects(&storage).len(), holds(&storage)), (0, 1), "{at}");
        at += 1;
    }
    assert!(at > 6, "{at}");
}

#[tokio::test]
async fn a_pair_that_can_not_be_removed_keeps_no_other_one_and_is_told() {
    let storage = Storage::default();
    let snapshot = kept(&storage).await;
    let cluster = storage.cluster();
    let odd = Pair {
        namespace: "a",
        ..pair(&snapshot)
    };
    odd.make(&cluster, &never()).await.unwrap();
    pair(&snapshot).make(&cluster, &never()).await.unwrap();
    // Somebody has put another content in the place of one.
    for (path, object) in &mut storage.state().objects {
        if path.contains("/volumesnapshotcontents/") {
            let of = &mut object["spec"]["volumeSnapshotRef"];
            if of["namespace"] == "a" {
                of["uid"] = "another".into();
            }
        }
    }
    let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
    let cleared = pair::clear(&cluster, Some("again"), now).await.unwrap();
    assert_eq!(cleared.left.len(), 1, "{:?}", cleared.left);
    assert!(cleared.left[0].contains("VolumeSnapshot a/restore-"));
    assert_eq!((objects(&storage).len(), holds(&storage)), (2, 1));
}
