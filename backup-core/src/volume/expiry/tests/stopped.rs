//! Whoever is stopped in a repository leaves no claim there, and what the next one goes on with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::super::Outcome;
use super::{OF, World};
use crate::location::trial::{Fate, Trial};

/// The same world, in which it is said at the request of this number in the repository that this is to stop; and how many there were.
fn stopping(world: &World, at: usize, stop: watch::Sender<bool>) -> (World, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let trial = Trial::of(&world.place.store).judged(move |_, key| {
        if key.starts_with(OF) && seen.fetch_add(1, Ordering::SeqCst) == at {
            stop.send_replace(true);
        }
        Fate::Happens
    });
    (world.over(&trial), count)
}

async fn is_unclaimed(world: &World, at: usize) {
    let left = world.stands().await;
    let claims: Vec<_> = left.iter().filter(|key| key.contains(".claims/")).collect();
    assert!(claims.is_empty(), "{at}: {claims:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_is_stopped_in_its_midst_is_told_as_kept_and_the_next_one_goes_on() {
    let (whole, owned, _) = World::of_two().await;
    whole.forget(&owned).await;
    let mut at = 0;
    loop {
        let world = whole.copy().await;
        let (stop, stopped) = watch::channel(false);
        let (over, count) = stopping(&world, at, stop);
        let told = over.look_until(0, &stopped).await;
        let said = matches!(
            &told[..],
            [] | [Outcome::Skipped(_)] | [Outcome::Kept { .. }] | [Outcome::Reclaimed { .. }]
        );
        assert!(said, "{at}: {told:?}");
        if let [Outcome::Kept { why, .. }] = &told[..] {
            assert!(why.contains("stopped"), "{at}: {why}");
        }
        is_unclaimed(&world, at).await;
        let is_done = matches!(&told[..], [Outcome::Reclaimed { .. }]);
        if !is_done {
            // What is still to be done was not forgotten.
            let again = world.look(0).await;
            assert!(
                matches!(
                    &again[..],
                    [Outcome::Reclaimed {
                        waiting: Some(_),
                        ..
                    }]
                ),
                "{at}: {again:?}"
            );
        }
        world.is_sound(&at).await;
        // There were no more requests than that: it was not stopped.
        if count.load(Ordering::SeqCst) <= at {
            break;
        }
        // Each opens repositories four times.
        at += 4;
    }
    assert!(at > 20, "{at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_come_to_when_forgetting_was_stopped_comes_back_and_goes_later() {
    let whole = World::new().await;
    let (a, b, c) = (
        whole.snapshot(1).await,
        whole.snapshot(2).await,
        whole.snapshot(3).await,
    );
    whole.backup("first", &[&a, &b]).await;
    whole.backup("second", &[&c]).await;
    let owned = whole.gone("first").await;
    let mut at = 0;
    loop {
        let world = whole.copy().await;
        let (stop, stopped) = watch::channel(false);
        let (over, count) = stopping(&world, at, stop);
        let mut left = owned.clone();
        let told = super::super::forget(&over.place.store, &mut left, "here", Some(&stopped)).await;
        is_unclaimed(&world, at).await;
        match &told[..] {
            [Outcome::Forgotten { snapshots: 2, .. }] => assert!(left.files.is_empty(), "{at}"),
            [Outcome::Kept { why, .. }] => {
                assert!(why.contains("stopped"), "{at}: {why}");
                assert_eq!(left, owned, "{at}");
                world.forget(&left).await;
            }
            other => panic!("{at}: {other:?}"),
        }
        assert_eq!(world.ids().await, std::slice::from_ref(&c), "{at}");
        world.is_sound(&at).await;
        // There were no more requests than that: it was not stopped.
        if count.load(Ordering::SeqCst) <= at {
            break;
        }
        at += 1;
    }
    assert!(at > 6, "{at}");
    // Whoever is stopped before he begins touches nothing.
    let (_stop, stopped) = watch::channel(true);
    let mut left = owned.clone();
    let told = super::super::forget(&whole.place.store, &mut left, "here", Some(&stopped)).await;
    assert!(matches!(&told[..], [Outcome::Kept { .. }]), "{told:?}");
    assert_eq!((left, whole.ids().await.len()), (owned, 3));
}
