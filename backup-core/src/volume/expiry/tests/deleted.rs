//! What happens in a repository when a backup goes: by ids, as a whole, and at whatever object it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use super::super::super::key::KeptInMemory;
use super::super::super::tests::Place;
use super::super::Outcome;
use super::{OF, World};
use crate::catalog::Digests;
use crate::crypt::{BackupKey, Recipients};
use crate::layout::BackupKeys;
use crate::location::trial::{Fate, Trial};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_backups_snapshots_are_forgotten_without_a_key_and_what_others_name_stays() {
    let world = World::new().await;
    let (a, b) = (world.snapshot(1).await, world.snapshot(2).await);
    world.backup("first", &[&a, &b]).await;
    world.backup("second", &[&b]).await;
    let owned = world.gone("first").await;
    // Nobody can open it, and nobody has to.
    let key = world.place.store.get("restic/c/n/u.key", 99).await.unwrap();
    world.place.store.delete("restic/c/n/u.key").await.unwrap();
    let told = world.forget(&owned).await;
    let one = Outcome::Forgotten {
        repository: OF.to_owned(),
        snapshots: 1,
    };
    assert_eq!(told, [one]);
    assert_eq!(world.ids().await, std::slice::from_ref(&b));
    assert_eq!(world.forget(&owned).await, []);
    let place = &world.place;
    place.store.put("restic/c/n/u.key", key).await.unwrap();
    world.is_sound(&"forgotten").await;
    // With the last one everything goes, and the next backup begins anew.
    let owned = world.gone("second").await;
    let told = world.forget(&owned).await;
    assert!(
        matches!(&told[..], [Outcome::Removed { snapshots: 1, .. }]),
        "{told:?}"
    );
    assert_eq!(world.stands().await, [""; 0]);
    world.snapshot(3).await;
    assert_eq!(world.ids().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forgotten_where_a_backup_can_not_be_read_or_is_at_work_in_the_repository() {
    let world = World::new().await;
    let (a, b) = (world.snapshot(1).await, world.snapshot(2).await);
    world.backup("first", &[&a]).await;
    let owned = world.gone("first").await;
    let unread: [(&str, Value); 4] = [
        (
            "backups/odd/snapshots.json",
            json!({"format": "kubectl-backup/snapshots/2", "snapshots": []}),
        ),
        ("backups/odd/volumes.json", json!([])),
        (
            "plugins/kubectl-backup/backups/odd/snapshots.json",
            json!(1),
        ),
        // Encrypted: that there are rows is seen.
        (
            "plugins/kubectl-backup/backups/odd/volumes.json.age",
            json!(1),
        ),
    ];
    for (key, value) in unread {
        world.put(key, &value).await;
        let told = world.forget(&owned).await;
        let [Outcome::Failed { why, .. }] = &told[..] else {
            panic!("{key}: {told:?}");
        };
        assert!(why.contains("backup odd"), "{why}");
        world.place.store.delete(key).await.unwrap();
    }
    // Rows that were lost, by what the digests say.
    world.backup("odd", &[]).await;
    let digests = Digests::new().add("backups/odd/volumes.json", &a);
    let keys = BackupKeys::new(&"odd".parse().unwrap());
    let store = &world.place.store;
    store
        .put(&keys.digests(), digests.to_bytes())
        .await
        .unwrap();
    store.delete(&keys.snapshots()).await.unwrap();
    let told = world.forget(&owned).await;
    assert!(matches!(&told[..], [Outcome::Failed { .. }]), "{told:?}");
    world.lose("odd").await;
    let claim = "restic/c/n/u.claims/claim-x.json";
    let work = json!({"run": "x", "purpose": "create", "host": "there"});
    world.put(claim, &work).await;
    let told = world.forget(&owned).await;
    let [Outcome::Kept { why, .. }] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(why.contains("a backup is at work"), "{why}");
    assert_eq!(world.ids().await.len(), 2);
    world.place.store.delete(claim).await.unwrap();
    world.forget(&owned).await;
    assert_eq!(world.ids().await, [b]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_that_is_just_written_or_removed_keeps_nothing_from_being_forgotten() {
    let (world, owned, b) = World::of_two().await;
    // Its rows stand, and what is said of them in the clear does not yet, or any more.
    let folder = "plugins/kubectl-backup/backups/other";
    let claim = format!("{folder}/claim-r.json");
    world
        .put(&format!("{folder}/volumes.json.age"), &json!(1))
        .await;
    world
        .put(&claim, &json!({"run": "r", "purpose": "create"}))
        .await;
    let told = world.forget(&owned).await;
    assert!(
        matches!(&told[..], [Outcome::Forgotten { snapshots: 1, .. }]),
        "{told:?}"
    );
    // Without anybody at work it is damaged.
    world.place.store.delete(&claim).await.unwrap();
    let told = world.forget(&owned).await;
    assert!(matches!(&told[..], [Outcome::Failed { .. }]), "{told:?}");
    assert_eq!(world.ids().await, [b]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_leaves_something_out_takes_no_repository() {
    let whole = World::new().await;
    let (a, b) = (whole.snapshot(1).await, whole.snapshot(2).await);
    whole.backup("first", &[&a]).await;
    let owned = whole.gone("first").await;
    // The first listing is that of one who has no claim yet, the second that under it, the others come after the removal.
    for shown_after in 0..3 {
        let world = whole.copy().await;
        let key = format!("{OF}/snapshots/{b}");
        let bytes = world.place.store.get(&key, 9999).await.unwrap();
        let (inner, late, listed) = (world.place.store.clone(), key.clone(), AtomicUsize::new(0));
        let trial = Trial::of(&world.place.store);
        let trial = if shown_after == 0 {
            // It goes on to list nothing.
            trial.hiding(move |folder| {
                folder.ends_with("/snapshots/") && listed.fetch_add(1, Ordering::SeqCst) > 0
            })
        } else {
            world.place.store.delete(&key).await.unwrap();
            trial.judged(move |verb, folder| {
                if verb == "list"
                    && folder.ends_with("/snapshots/")
                    && listed.fetch_add(1, Ordering::SeqCst) == shown_after
                {
                    let put = inner.put(&late, bytes.clone());
                    put.now_or_never().unwrap().unwrap();
                }
                Fate::Happens
            })
        };
        world.over(&trial).forget(&owned).await;
        assert!(world.ids().await.contains(&b), "{shown_after}");
        world.is_sound(&shown_after).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_which_a_backup_names_a_snapshot_that_no_listing_shows_stays() {
    let (whole, owned, b) = World::of_two().await;
    for is_an_orphan in [false, true] {
        let world = whole.copy().await;
        let store = &world.place.store;
        let key = format!("{OF}/snapshots/{b}");
        let bytes = store.get(&key, 9999).await.unwrap();
        // As if it were left out of every listing, of which each shows the other one.
        store.delete(&key).await.unwrap();
        let told = if is_an_orphan {
            world.look(0).await;
            world.look(25).await
        } else {
            world.forget(&owned).await
        };
        assert!(
            matches!(&told[0], Outcome::Forgotten { snapshots: 1, .. }),
            "{told:?}"
        );
        store.put(&key, bytes).await.unwrap();
        assert_eq!(
            world.ids().await,
            std::slice::from_ref(&b),
            "{is_an_orphan}"
        );
        world.is_sound(&is_an_orphan).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_dies_at_any_object_hinders_no_backup_and_is_finished_later() {
    let whole = World::new().await;
    let a = whole.snapshot(1).await;
    whole.backup("first", &[&a]).await;
    let owned = whole.gone("first").await;
    whole.backup("other", &[]).await;
    let mut dies_at = 0;
    loop {
        let world = whole.copy().await;
        let count = AtomicUsize::new(0);
        let trial = Trial::of(&world.place.store).judged(move |verb, key| {
            let is_removal = verb == "delete" && key.starts_with("restic/");
            let dead = is_removal && count.fetch_add(1, Ordering::SeqCst) >= dies_at;
            if dead { Fate::Vanishes } else { Fate::Happens }
        });
        let told = world.over(&trial).forget(&owned).await;
        let is_done = matches!(&told[..], [Outcome::Removed { .. }]);
        // The claim of the dead one is an hour old by now.
        for key in world.stands().await {
            if key.contains(".claims/") {
                world.place.store.delete(&key).await.unwrap();
            }
        }
        let left = world.stands().await;
        // Either somebody comes with a backup, or a prune finishes it.
        if dies_at % 3 == 0 {
            let fresh = world.snapshot(2).await;
            let number = world.place.volume().repositories().await.unwrap();
            let last = *number.last().unwrap();
            let place = &world.place;
            let found = place
                .volume()
                .check(last, &place.ring(), true)
                .await
                .unwrap();
            assert!(found.is_empty(), "{dies_at}: {left:?} {found:?}");
            assert!(world.ids().await.contains(&fresh), "{dies_at}");
        } else {
            world.look(0).await;
            world.look(25).await;
            let left: Vec<_> = world.stands().await;
            let keys = left.iter().filter(|key| !key.ends_with(".key"));
            assert_eq!(keys.count(), 0, "{dies_at}: {left:?}");
        }
        if is_done {
            assert!(dies_at > 6, "{dies_at}");
            return;
        }
        dies_at += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_deletions_at_once_forget_what_they_can_and_leave_the_rest_whole() {
    let world = World::new().await;
    let (a, b) = (world.snapshot(1).await, world.snapshot(2).await);
    world.backup("first", &[&a]).await;
    world.backup("second", &[&b]).await;
    let (first, second) = (world.owned("first").await, world.owned("second").await);
    world.lose("first").await;
    world.lose("second").await;
    let told = tokio::join!(world.forget(&first), world.forget(&second));
    for told in [told.0, told.1].concat() {
        assert!(
            told.removes() || matches!(told, Outcome::Kept { .. }),
            "{told:?}"
        );
    }
    world.backup("other", &[]).await;
    world.look(0).await;
    world.look(25).await;
    assert_eq!(world.stands().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn space_comes_back_by_whoever_can_open_the_repository_a_day_after_it_was_marked() {
    let (world, owned, _) = World::of_two().await;
    world.forget(&owned).await;
    // Without its key.
    let key = world.place.store.get("restic/c/n/u.key", 99).await.unwrap();
    let whom = include_str!("../../../../../tests/fixtures/encryption/first.pub");
    let recipients = Recipients::parse([whom]).unwrap();
    let sealed = recipients.wrap(&BackupKey::generate(), None).unwrap();
    world.place.store.delete("restic/c/n/u.key").await.unwrap();
    let put = world.place.store.put("restic/c/n/u.key.age", sealed);
    put.await.unwrap();
    let nobody = World {
        place: Place {
            recipients,
            cache: Arc::new(KeptInMemory::default()),
            ..world.place.clone()
        },
        location: world.location.clone(),
    };
    let store = &world.place.store;
    let closed = nobody.look(0).await;
    assert!(
        matches!(&closed[..], [Outcome::Closed { .. }]),
        "{closed:?}"
    );
    store.delete("restic/c/n/u.key.age").await.unwrap();
    store.put("restic/c/n/u.key", key).await.unwrap();
    // It was noted that there is something to do.
    let would = world.look_as(0, Some("c"), true).await;
    assert!(
        matches!(&would[..], [Outcome::Reclaimable { .. }]),
        "{would:?}"
    );
    let packs = world.place.objects("data").await.len();
    let told = world.look(0).await;
    let [
        Outcome::Reclaimed {
            freed: 0,
            waiting: Some((bytes, after)),
            ..
        },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert!(*bytes > 50_000, "{told:?}");
    let (soon, late) = (Timestamp::now() + 24.hours(), Timestamp::now() + 25.hours());
    assert!(soon < *after && *after < late, "{after}");
    assert_eq!(world.place.objects("data").await.len(), packs);
    // Nothing is opened before that time, and by then what was marked is looked at again.
    assert_eq!(world.look(23).await, []);
    let told = world.look(25).await;
    assert!(matches!(&told[..], [Outcome::Reclaimed { .. }]), "{told:?}");
    let found = world
        .place
        .volume()
        .check(1, &world.place.ring(), true)
        .await;
    assert!(found.unwrap().is_empty());
}
