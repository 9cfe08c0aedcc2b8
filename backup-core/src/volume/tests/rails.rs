//! A test for each guard rail, named as `make mutants` names it: with that rail left out it fails, and no other does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use super::super::repository::DROPPED;
use super::super::store::{Base, KEEP_MARKED};
use super::{Made, Place, noise, wait};
use crate::error::Error;
use crate::location::trial::{Fate, Trial};

#[tokio::test(flavor = "multi_thread")]
async fn source_errors() {
    let place = Place::new();
    let made = Made::of(&[("a", b"a")]).unreadable("b");
    let refused = place.backup(made, Base::Newest).await.unwrap_err();
    assert!(refused.to_string().contains("b: permission"), "{refused}");
    assert!(place.objects("snapshots").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn own_claim() {
    let place = Place::new();
    let (handle, theirs) = (Handle::current(), place.clone());
    let made = Made::of(&[("a", b"a")]).ending(move || {
        wait(&handle, async {
            for claim in theirs.store.entries("restic/c/n/u.claims/", 9).await? {
                theirs.store.delete(&claim.key).await?;
            }
            Ok(())
        })
    });
    // Not even for a moment: a second look would remove it again.
    let sent = Arc::new(AtomicUsize::new(0));
    let watched = Place {
        store: Trial::of(&place.store)
            .judged({
                let sent = Arc::clone(&sent);
                move |verb, key| {
                    let is_snapshot = verb == "put" && key.contains("/snapshots/");
                    sent.fetch_add(usize::from(is_snapshot), Ordering::SeqCst);
                    Fate::Happens
                }
            })
            .store(),
        ..place.clone()
    };
    let refused = watched.backup(made, Base::Newest).await.unwrap_err();
    assert!(
        refused.sentence().contains("removed by somebody"),
        "{refused}"
    );
    assert_eq!(sent.load(Ordering::SeqCst), 0);
    assert!(place.objects("snapshots").await.is_empty());
}

/// A machine that was stopped while the snapshot was written, and was taken for dead.
#[tokio::test(flavor = "multi_thread")]
async fn second_look() {
    let place = Place::new();
    let refused = place
        .losing_its_claim(|_, _| Fate::Happens)
        .backup(Made::of(&[("a", b"a")]), Base::Newest)
        .await
        .unwrap_err();
    assert!(
        refused.sentence().contains("removed by somebody"),
        "{refused}"
    );
    assert!(place.objects("snapshots").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_claim() {
    let place = Place::new();
    let (handle, theirs) = (Handle::current(), place.clone());
    let made = Made::of(&[("a", b"a")]).ending(move || {
        let claim = br#"{"run":"x","purpose":"prune","host":"there"}"#;
        let key = "restic/c/n/u.claims/claim-x.json";
        wait(&handle, theirs.store.put(key, claim.to_vec().into()))
    });
    let refused = place.backup(made, Base::Newest).await.unwrap_err();
    assert!(
        refused.sentence().contains("a prune is at work"),
        "{refused}"
    );
    assert!(place.objects("snapshots").await.is_empty());
}

/// Whoever forgets snapshots is done in a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_comes_while_snapshots_are_forgotten_waits() {
    let place = Place::new();
    let first = place.backup(Made::of(&[("a", b"a")]), Base::Newest).await;
    first.unwrap();
    let alone = place.volume().alone(&place.keys, "there").await.unwrap();
    let ends = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        alone.release().await;
    });
    let saved = place.backup(Made::of(&[("b", b"b")]), Base::Newest).await;
    assert_eq!(saved.unwrap().repository, 1);
    ends.await.unwrap();
}

/// What is taken as unchanged has the content that the named snapshot has, not that of a later one.
#[tokio::test(flavor = "multi_thread")]
async fn exact_parent() {
    let place = Place::new();
    let first = place.backup(Made::of(&[("a", b"old")]), Base::Newest).await;
    let first = first.unwrap();
    let other = place
        .backup(Made::of(&[("a", b"new")]), Base::Nothing)
        .await;
    other.unwrap();
    let base = Base::Exactly(first.snapshot.clone());
    let third = place
        .backup(Made::of(&[("a", b"xyz")]), base)
        .await
        .unwrap();
    assert_eq!(third.counted.read_bytes, 0);
    assert_eq!(third.base, Some(first.snapshot));
    assert_eq!(place.restore(&third).await.unwrap()[1].1, b"old");
}

#[tokio::test(flavor = "multi_thread")]
async fn sized_readers() {
    let place = Place::new();
    let made = Made::of(&[]).file("grew", 5, b"12345 and more");
    let saved = place.backup(made, Base::Newest).await.unwrap();
    assert_eq!(place.restore(&saved).await.unwrap()[1].1, b"12345");
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_exit() {
    let place = Place::new();
    let made = Made::of(&[("a", b"a")]).ending(|| Err(Error::other("it was killed")));
    let refused = place.backup(made, Base::Newest).await.unwrap_err();
    assert!(refused.to_string().contains("killed"), "{refused}");
    assert!(place.objects("snapshots").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_listed() {
    let place = Place::new();
    let (handle, theirs) = (Handle::current(), place.clone());
    let made = Made::of(&[("a", &noise(1, 200_000))]).ending(move || {
        wait(&handle, async {
            for pack in theirs.store.entries("restic/c/n/u/data/", 99).await? {
                if pack.size > 100_000 {
                    theirs.store.delete(&pack.key).await?;
                }
            }
            Ok(())
        })
    });
    let refused = place.backup(made, Base::Newest).await.unwrap_err();
    assert!(
        refused.to_string().contains("not there any more"),
        "{refused}"
    );
    assert!(place.objects("snapshots").await.is_empty());
}

/// An entry that the archiver leaves out without a word.
#[tokio::test(flavor = "multi_thread")]
async fn tree_walked() {
    let place = Place::new();
    let refused = place.backup(Made::of(&[("a", b"a"), (DROPPED, b"b")]), Base::Newest);
    let refused = refused.await.unwrap_err();
    assert!(refused.to_string().contains("2 entries, 3"), "{refused}");
    assert!(place.objects("snapshots").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_phases() {
    let place = Place::new();
    let (a, b) = (noise(1, 200_000), noise(2, 200_000));
    let first = place
        .backup(Made::of(&[("a", &a)]), Base::Newest)
        .await
        .unwrap();
    let second = place
        .backup(Made::of(&[("b", &b)]), Base::Newest)
        .await
        .unwrap();
    let packs = place.objects("data").await;
    let (volume, ring) = (place.volume(), place.ring());
    volume.forget(1, &[first.snapshot], "here").await.unwrap();
    let marked = volume
        .prune(1, &ring, "here", Duration::ZERO)
        .await
        .unwrap();
    assert!(marked.marked_bytes > 200_000, "{marked:?}");
    let now = place.objects("data").await;
    assert!(
        packs.iter().all(|pack| now.contains(pack)),
        "{packs:?} {now:?}"
    );
    // A day is kept, whatever else.
    let waiting = volume.prune(1, &ring, "here", KEEP_MARKED).await.unwrap();
    assert!(waiting.waiting_bytes > 200_000, "{waiting:?}");
    let removed = volume
        .prune(1, &ring, "here", Duration::ZERO)
        .await
        .unwrap();
    assert!(removed.removed_bytes > 200_000, "{removed:?}");
    let left = place.objects("data").await;
    assert!(left.len() < now.len(), "{now:?} {left:?}");
    assert_eq!(place.restore(&second).await.unwrap()[1].1, b);
    assert!(volume.check(1, &ring, true).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_alone() {
    let place = Place::new();
    let saved = place.backup(Made::of(&[("a", b"a")]), Base::Newest).await;
    let saved = saved.unwrap();
    let claim = br#"{"run":"x","purpose":"create","host":"there"}"#;
    let key = "restic/c/n/u.claims/claim-x.json";
    place.store.put(key, claim.to_vec().into()).await.unwrap();
    let (volume, ring) = (place.volume(), place.ring());
    let refused = volume
        .prune(1, &ring, "here", KEEP_MARKED)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("a backup is at work"),
        "{refused}"
    );
    let refused = volume.forget(1, &[saved.snapshot], "here").await;
    assert!(refused.unwrap_err().to_string().contains("there"));
    assert_eq!(place.objects("snapshots").await.len(), 1);
    // Another backup is none of its business.
    place
        .backup(Made::of(&[("a", b"a")]), Base::Newest)
        .await
        .unwrap();
}
