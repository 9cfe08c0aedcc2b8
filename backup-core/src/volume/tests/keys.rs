//! Keys: nobody writes under one that can not be read back, and nothing that stands is written over.

use std::sync::Arc;
use std::time::Duration;

use super::super::key::{Kept, KeptInMemory, KeptKey, KeyCache};
use super::super::store::Base;
use super::{Made, Place};
use crate::crypt::{BackupKey, ExposeSecret as _, Identities, Recipients, SecretString};
use crate::error::Kind;
use crate::location::store::Entry;
use crate::location::trial::{Fate, Trial};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/fixtures/encryption/", $name))
    };
}

fn identity() -> Identities {
    let mut identities = Identities::default();
    identities.add("first", fixture!("first.key").as_bytes().to_vec());
    identities
}

fn sealed() -> Place {
    Place {
        recipients: Recipients::parse([fixture!("first.pub")]).unwrap(),
        ..Place::new()
    }
}

async fn backup(place: &Place) -> crate::Result<super::Saved> {
    place
        .backup(Made::of(&[("a", b"content")]), Base::Newest)
        .await
}

async fn all(place: &Place) -> Vec<Entry> {
    place.store.entries("restic/", 1000).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_and_an_identity_alone_restore_what_a_writer_without_one_made() {
    let place = sealed();
    let (first, second) = (backup(&place).await.unwrap(), backup(&place).await.unwrap());
    assert_eq!((first.repository, second.repository), (1, 1));
    assert_eq!(second.counted.read_bytes, 0, "the second adds to the first");
    assert!(second.begun_because.is_none());
    // Everything else is gone.
    let elsewhere = Place {
        cache: Arc::new(KeptInMemory::default()),
        recipients: Recipients::default(),
        ..place.clone()
    };
    let refused = elsewhere.restore(&second).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unauthorized);
    let with_identity = Place {
        identities: identity(),
        ..elsewhere
    };
    for saved in [&first, &second] {
        assert_eq!(with_identity.restore(saved).await.unwrap()[1].1, b"content");
    }
    let keys: Vec<_> = all(&place)
        .await
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert!(keys.contains(&"restic/c/n/u.key.age".to_owned()));
    assert!(!keys.contains(&"restic/c/n/u.key".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cache_begins_another_repository_and_says_so_and_the_first_is_as_it_was() {
    let place = sealed();
    let first = backup(&place).await.unwrap();
    let before = all(&place).await;
    let without = Place {
        cache: Arc::new(KeptInMemory::default()),
        ..place.clone()
    };
    let second = backup(&without).await.unwrap();
    assert_eq!(second.repository, 2);
    let why = second.begun_because.clone().unwrap();
    assert!(why.contains("did not keep its key"), "{why}");
    let now = all(&place).await;
    assert!(before.iter().all(|entry| now.contains(entry)));
    let third = backup(&without).await.unwrap();
    assert_eq!((third.repository, third.counted.read_bytes), (2, 0));
    // An identity is for who restores: a writer adds to what he kept the key of.
    let third = Place {
        cache: Arc::new(KeptInMemory::default()),
        identities: identity(),
        ..place.clone()
    };
    assert_eq!(backup(&third).await.unwrap().repository, 3);
    for saved in [&first, &second] {
        assert_eq!(third.restore(saved).await.unwrap()[1].1, b"content");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_somebody_exchanged_or_removed_gets_no_further_backup() {
    let place = sealed();
    backup(&place).await.unwrap();
    let other = sealed();
    backup(&other).await.unwrap();
    let key = "restic/c/n/u.key.age";
    let theirs = other.store.get(key, 9999).await.unwrap();
    place.store.put(key, theirs).await.unwrap();
    assert_eq!(backup(&place).await.unwrap().repository, 2);
    place.store.delete("restic/c/n/u.2.key.age").await.unwrap();
    let third = backup(&place).await.unwrap();
    assert_eq!(third.repository, 3);
    assert!(third.begun_because.unwrap().contains("is not there"));
    // In the clear it is the same.
    let plain = Place::new();
    backup(&plain).await.unwrap();
    let key = "restic/c/n/u.key";
    plain.store.put(key, "another\n".into()).await.unwrap();
    let second = backup(&plain).await.unwrap();
    assert_eq!(second.repository, 2);
    assert!(second.begun_because.unwrap().contains("does not open"));
}

/// Anybody who writes the bucket can seal a password of his own for the location's recipients.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_somebody_planted_is_not_taken_up_whatever_identity_the_writer_has() {
    let place = Place {
        identities: identity(),
        ..sealed()
    };
    let theirs = place.recipients.wrap(&BackupKey::generate(), None).unwrap();
    let key = "restic/c/n/u.key.age";
    place.store.put(key, theirs).await.unwrap();
    let saved = backup(&place).await.unwrap();
    assert_eq!(saved.repository, 2);
    let why = saved.begun_because.clone().unwrap();
    assert!(why.contains("did not keep its key"), "{why}");
    let under = |entry: &Entry| entry.key.starts_with("restic/c/n/u/");
    assert!(!all(&place).await.iter().any(under));
    assert_eq!(place.restore(&saved).await.unwrap()[1].1, b"content");
}

/// A cache on a disk that fails.
struct Broken;

impl KeyCache for Broken {
    fn get(&self, _volume: &str, _digest: &str) -> crate::Result<Option<Kept>> {
        Err(crate::Error::other("the disk is gone"))
    }

    fn put(&self, _volume: &str, _digest: &str, _password: &SecretString) -> crate::Result<()> {
        Err(crate::Error::other("the disk is gone"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_restores_whatever_became_of_the_cache() {
    let place = sealed();
    let saved = backup(&place).await.unwrap();
    let broken = Place {
        cache: Arc::new(Broken),
        identities: identity(),
        ..place.clone()
    };
    assert_eq!(broken.restore(&saved).await.unwrap()[1].1, b"content");
    // Who writes is told.
    let refused = backup(&broken).await.unwrap_err();
    assert!(refused.to_string().contains("the disk is gone"));
}

#[test]
fn a_kept_key_that_is_cut_altered_or_of_another_repository_is_none() {
    let password: SecretString = "AGE-SECRET-KEY-1".to_owned().into();
    let written = KeptKey::write("c/n/u", "d1", &password);
    let whole = written.expose_secret().as_bytes();
    let read = |digest, bytes: &[u8]| KeptKey::read("c/n/u", digest, bytes);
    let back = read("d1", whole).unwrap();
    assert_eq!(back.password.expose_secret(), password.expose_secret());
    assert!(back.is_bound);
    assert!(read("d2", whole).is_none());
    assert!(KeptKey::read("c/n/other", "d1", whole).is_none());
    for cut in 0..whole.len() {
        assert!(read("d1", &whole[..cut]).is_none(), "{cut}");
        let mut altered = whole.to_vec();
        altered[cut] ^= 1;
        assert!(read("d1", &altered).is_none(), "{cut}");
    }
    assert!(read("d1", b"AGE-SECRET-KEY-1\n").is_none());
    // One of before has the digest alone in its proof.
    let proof = crate::location::sha256(b"d1 AGE-SECRET-KEY-1");
    let former = format!("AGE-SECRET-KEY-1 {proof}\n");
    assert!(!read("d1", former.as_bytes()).unwrap().is_bound);
    assert!(read("d2", former.as_bytes()).is_none());
}

/// Another one in its place would have another master key, beside packs of the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_lost_its_configuration_is_not_begun_again_in_its_place() {
    let kinds = ["keys", "data", "index", "snapshots"];
    for left in kinds {
        let place = Place::new();
        let first = backup(&place).await.unwrap();
        let mut lost = Vec::new();
        for entry in all(&place).await {
            let under = entry.key.strip_prefix("restic/c/n/u/");
            if under.is_some_and(|under| !under.starts_with(left)) {
                let bytes = place.store.get(&entry.key, 1 << 20).await.unwrap();
                place.store.delete(&entry.key).await.unwrap();
                lost.push((entry.key, bytes));
            }
        }
        assert!(lost.iter().any(|(key, _)| key == "restic/c/n/u/config"));
        let before = all(&place).await;
        let second = backup(&place).await.unwrap();
        assert_eq!(second.repository, 2, "{left}");
        let why = second.begun_because.clone().unwrap();
        assert!(why.contains("its configuration is gone"), "{why}");
        let now = all(&place).await;
        assert!(before.iter().all(|entry| now.contains(entry)), "{left}");
        let under = |all: &[Entry]| {
            let under = all
                .iter()
                .filter(|one| one.key.starts_with("restic/c/n/u/"));
            under.count()
        };
        assert_eq!(under(&now), under(&before), "{left}");
        for (key, bytes) in lost {
            place.store.put(&key, bytes).await.unwrap();
        }
        for saved in [&first, &second] {
            assert_eq!(place.restore(saved).await.unwrap()[1].1, b"content");
        }
    }
    // Nor where its key went as well, and no listing of the namespace shows it.
    let place = Place::new();
    backup(&place).await.unwrap();
    for key in ["restic/c/n/u/config", "restic/c/n/u.key"] {
        place.store.delete(key).await.unwrap();
    }
    let blind = Place {
        store: Trial::of(&place.store)
            .hiding(|folder| folder.ends_with("n/"))
            .store(),
        ..place.clone()
    };
    assert_eq!(backup(&blind).await.unwrap().repository, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_location_gets_recipients_what_was_begun_in_the_clear_is_left_alone() {
    let plain = Place::new();
    let first = backup(&plain).await.unwrap();
    let now = Place {
        recipients: sealed().recipients,
        ..plain.clone()
    };
    let second = backup(&now).await.unwrap();
    assert_eq!(second.repository, 2);
    let why = second.begun_because.unwrap();
    assert!(why.contains("in the clear"), "{why}");
    assert_eq!(now.restore(&first).await.unwrap()[1].1, b"content");
    assert!(
        now.store
            .find("restic/c/n/u.2.key", 99)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_under_a_key_that_does_not_stand() {
    let place = Place::new();
    let lost = Trial::of(&place.store).judged(|verb, key| match (verb, key) {
        ("put", key) if key.ends_with(".key") => Fate::Refused,
        _ => Fate::Happens,
    });
    let trying = Place {
        store: lost.store(),
        ..place.clone()
    };
    backup(&trying).await.unwrap_err();
    assert!(all(&place).await.is_empty(), "{:?}", all(&place).await);
    // A run that died after its key is taken up by the next.
    let died = Trial::of(&place.store).judged(|verb, key| match (verb, key) {
        ("put", key) if key.contains("/u/") => Fate::Refused,
        _ => Fate::Happens,
    });
    let trying = Place {
        store: died.store(),
        ..place.clone()
    };
    backup(&trying).await.unwrap_err();
    let key = place.store.get("restic/c/n/u.key", 99).await.unwrap();
    let saved = backup(&place).await.unwrap();
    assert_eq!(saved.repository, 1);
    assert_eq!(place.store.get("restic/c/n/u.key", 99).await.unwrap(), key);
    assert_eq!(place.restore(&saved).await.unwrap()[1].1, b"content");
}

/// Whatever a listing leaves out: no key is written over, and what was kept comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lists_nothing_for_once_costs_bytes_and_no_data() {
    for hidden in ["n/", "index/", "snapshots/", "data/", "u.claims/", ""] {
        let place = Place::new();
        let first = backup(&place).await.unwrap();
        let key = place.store.get("restic/c/n/u.key", 99).await.unwrap();
        let hiding = Trial::of(&place.store).hiding(move |folder| folder.ends_with(hidden));
        let blind = Place {
            store: hiding.store(),
            ..place.clone()
        };
        // With claims that are not listed nothing is done, and no snapshot may appear over packs that are not.
        let ended = backup(&blind).await;
        let may_stand = ["n/", "index/", "snapshots/"].contains(&hidden);
        assert!(may_stand || ended.is_err(), "{hidden:?}: {ended:?}");
        let (volume, ring) = (blind.volume(), blind.ring());
        let pruned = volume.prune(1, &ring, "here", Duration::ZERO).await;
        assert!(hidden == "n/" || pruned.is_err(), "{hidden:?}: {pruned:?}");
        assert_eq!(place.store.get("restic/c/n/u.key", 99).await.unwrap(), key);
        let again = backup(&place).await.unwrap();
        assert_eq!(again.repository, 1);
        for saved in [&first, &again] {
            assert_eq!(place.restore(saved).await.unwrap()[1].1, b"content");
        }
        let found = place.volume().check(1, &place.ring(), true).await.unwrap();
        assert!(found.is_empty(), "{hidden:?}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_first_backups_at_once_both_stand() {
    for place in [Place::new(), sealed()] {
        let other = Place {
            cache: Arc::new(KeptInMemory::default()),
            ..place.clone()
        };
        let (first, second) = tokio::join!(backup(&place), backup(&other));
        let (first, second) = (first.unwrap(), second.unwrap());
        let reader = Place {
            identities: identity(),
            ..place.clone()
        };
        for saved in [&first, &second] {
            assert_eq!(reader.restore(saved).await.unwrap()[1].1, b"content");
        }
        for number in reader.volume().repositories().await.unwrap() {
            let found = reader.volume().check(number, &reader.ring(), true).await;
            assert!(found.unwrap().is_empty());
        }
        let claims = all(&place).await;
        let claims = claims.iter().filter(|one| one.key.contains(".claims/"));
        assert_eq!(claims.count(), 0);
    }
}
