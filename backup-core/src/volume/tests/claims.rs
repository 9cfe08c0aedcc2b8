//! Claims that come and go, and what becomes of a snapshot whose run lost its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;

use super::super::store::Base;
use super::{Made, Place};
use crate::error::Kind;
use crate::location::trial::{Fate, Trial};

async fn backup(place: &Place) -> crate::Result<super::Saved> {
    place.backup(Made::of(&[("a", b"a")]), Base::Newest).await
}

async fn claims(place: &Place) -> Vec<String> {
    let all = place.store.entries("restic/c/n/u.claims/", 9).await;
    all.unwrap().into_iter().map(|claim| claim.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_claim_is_looked_for_again_whatever_the_snapshot_reads_back_as() {
    let place = Place::new();
    let losing = place.losing_its_claim(|verb, key| match verb {
        "get" if key.contains("/snapshots/") => Fate::Refused,
        _ => Fate::Happens,
    });
    let refused = backup(&losing).await.unwrap_err();
    assert!(
        refused.sentence().contains("removed by somebody"),
        "{refused}"
    );
    assert!(place.objects("snapshots").await.is_empty());
    // With its claim it is the reading alone, and no snapshot stays either.
    let unread = Trial::of(&place.store).judged(|verb, key| match verb {
        "get" if key.contains("/snapshots/") => Fate::Refused,
        _ => Fate::Happens,
    });
    let unread = Place {
        store: unread.store(),
        ..place.clone()
    };
    let refused = backup(&unread).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Forbidden, "{refused}");
    assert!(place.objects("snapshots").await.is_empty());
    assert!(claims(&place).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_should_go_and_does_not_is_named_with_its_key() {
    let place = Place::new();
    let losing = place.losing_its_claim(|verb, key| match verb {
        "delete" if key.contains("/snapshots/") => Fate::Refused,
        _ => Fate::Happens,
    });
    let refused = backup(&losing).await.unwrap_err();
    let left = place.objects("snapshots").await;
    assert_eq!(left.len(), 1);
    assert!(refused.to_string().contains(&left[0]), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_pods_are_quiet_for_ends_wherever_the_store_falls_silent() {
    let moments = [
        ("head", "config"),
        ("put", ".claims/"),
        ("list", ".claims/"),
        ("put", "/data/"),
        ("put", "/snapshots/"),
    ];
    // Or answers, and takes nothing any more.
    for ((at, part), answers) in moments
        .map(|moment| [(moment, false), (moment, true)])
        .concat()
    {
        let place = Place::new();
        let is_silent = AtomicBool::new(false);
        let trial = Trial::of(&place.store).judged(move |verb, key| {
            is_silent.fetch_or(verb == at && key.contains(part), Ordering::SeqCst);
            match is_silent.load(Ordering::SeqCst) && (verb == "put" || !answers) {
                true => Fate::Hangs,
                false => Fate::Happens,
            }
        });
        let quiet = Place {
            store: trial.store().impatient(Duration::from_millis(200)),
            ..place.clone()
        };
        let ended = backup(&quiet).await.unwrap_err();
        let said = ended.sentence();
        assert!(said.contains("kept quiet"), "{at} {part}: {said}");
        assert_eq!(
            said.contains("took nothing"),
            answers,
            "{at} {part}: {said}"
        );
        assert!(place.objects("snapshots").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_goes_after_it_was_listed_hinders_nobody() {
    let place = Place::new();
    let claim = br#"{"run":"x","purpose":"prune","host":"there"}"#;
    let key = "restic/c/n/u.claims/claim-x.json";
    place.store.put(key, claim.to_vec().into()).await.unwrap();
    let (inner, listed) = (place.store.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&listed);
    // A trial judges a listing when it was made, and before it is answered.
    let trial = Trial::of(&place.store).judged(move |verb, folder| {
        if verb == "list" && folder.ends_with(".claims/") {
            inner.delete(key).now_or_never().unwrap().unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
        Fate::Happens
    });
    let withdrawing = Place {
        store: trial.store(),
        ..place.clone()
    };
    backup(&withdrawing).await.unwrap();
    assert!(listed.load(Ordering::SeqCst) > 1);
    // One that stays and can not be read is taken for one that is alone.
    place.store.put(key, "{}".into()).await.unwrap();
    let refused = backup(&place).await.unwrap_err();
    assert!(refused.to_string().contains("newer version"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_under_a_claim_takes_the_claim_along() {
    let place = Place::new();
    backup(&place).await.unwrap();
    // A listing that is not answered.
    let silent = Trial::of(&place.store).judged(|verb, key| match verb {
        "list" if key.ends_with(".claims/") => Fate::Vanishes,
        _ => Fate::Happens,
    });
    // A configuration that can not be looked at any more once the claim stands.
    let heads = AtomicUsize::new(0);
    let hidden = Trial::of(&place.store).judged(move |verb, key| {
        let is_config = verb == "head" && key.ends_with("/u/config");
        let before = heads.fetch_add(usize::from(is_config), Ordering::SeqCst);
        if is_config && before > 0 {
            return Fate::Refused;
        }
        Fate::Happens
    });
    for trial in [silent, hidden] {
        let failing = Place {
            store: trial.store(),
            ..place.clone()
        };
        backup(&failing).await.unwrap_err();
        assert_eq!(claims(&place).await, Vec::<String>::new());
    }
}
