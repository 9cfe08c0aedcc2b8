//! What is stored comes back, and what is damaged is said to be.

use super::super::entry::{Attribute, EntryPath, What};
use super::super::store::Base;
use super::{Made, Place, entry, noise};
use crate::error::Kind;
use crate::location::trial::{Fate, Trial};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_entry_and_long_files_come_back_as_they_were() {
    let place = Place::new();
    let long = noise(3, 3 << 20);
    let mut made = Made::of(&[]);
    let target = b"no/\xff\nwhere".to_vec();
    for (path, what) in [
        ("a", What::Folder),
        ("b", What::Link { target }),
        ("c", What::Fifo),
        ("d", What::Socket),
        ("e", What::Block { device: 0x801 }),
        ("f", What::Character { device: 0x103 }),
    ] {
        let mut entry = entry(path, what, 0);
        entry.mode = 0o4755;
        entry.attributes = vec![Attribute {
            name: "user.x".to_owned(),
            value: vec![0, 255, 1],
        }];
        made.entries.push((entry, None));
    }
    made = made.file("g", long.len() as u64, &long).file("h", 0, b"");
    let mut odd = entry("", What::File, 1);
    odd.path = EntryPath::new(&b"i\xff\n\"\\"[..]);
    made.entries.push((odd, Some(Ok(b"!".to_vec()))));
    let listed: Vec<_> = made
        .entries
        .iter()
        .map(|(entry, _)| entry.clone())
        .collect();
    let saved = place.backup(made, Base::Newest).await.unwrap();
    assert_eq!(saved.counted.entries, listed.len() as u64);
    let back = place.restore(&saved).await.unwrap();
    let entries: Vec<_> = back.iter().map(|(entry, _)| entry.clone()).collect();
    assert_eq!(entries, listed);
    assert!(back[7].1 == long);
    assert_eq!((&*back[8].1, &*back[9].1), (&b""[..], &b"!"[..]));
    let known = place.volume().list(1, &place.ring()).await.unwrap();
    assert_eq!(known[0].id, saved.snapshot);
    assert_eq!(known[0].tags[..2], ["backup-uid=uid", "backup=b"]);
    assert_eq!(known[0].tags[2], format!("run={}", saved.run));
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_are_as_large_as_restics_for_each_of_them_is_held_while_it_is_sent() {
    let place = Place::new();
    let long = noise(5, 40 << 20);
    let made = Made::of(&[("a", &long)]);
    place.backup(made, Base::Newest).await.unwrap();
    let packs = place.store.entries("restic/c/n/u/data/", 99).await.unwrap();
    let sizes: Vec<_> = packs.iter().map(|pack| pack.size >> 20).collect();
    // One of them is full once a chunk of up to 8 MiB made it so.
    assert!(
        sizes.len() > 2 && sizes.iter().all(|size| *size < 24),
        "{sizes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_gone_or_has_a_flipped_bit_is_an_error_and_not_other_content() {
    let place = Place::new();
    let long = noise(4, 300_000);
    let saved = place.backup(Made::of(&[("a", &long)]), Base::Newest).await;
    let saved = saved.unwrap();
    let pack = place.store.entries("restic/c/n/u/data/", 99).await.unwrap();
    let pack = pack.into_iter().max_by_key(|pack| pack.size).unwrap();
    let bytes = place.store.get(&pack.key, 1 << 30).await.unwrap();
    let mut flipped = bytes.to_vec();
    flipped[1000] ^= 1;
    place.store.put(&pack.key, flipped.into()).await.unwrap();
    assert_eq!(
        place.restore(&saved).await.unwrap_err().kind(),
        Kind::Corrupt
    );
    let found = place.volume().check(1, &place.ring(), true).await.unwrap();
    assert!(!found.is_empty());
    place.store.delete(&pack.key).await.unwrap();
    let refused = place.restore(&saved).await.unwrap_err();
    assert!(refused.to_string().contains("is not there"), "{refused}");
    let found = place.volume().check(1, &place.ring(), false).await.unwrap();
    assert!(!found.is_empty());
    place.store.put(&pack.key, bytes).await.unwrap();
    assert!(place.restore(&saved).await.unwrap()[1].1 == long);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_in_the_place_of_another_is_refused() {
    let place = Place::new();
    let first = place.backup(Made::of(&[("a", b"1")]), Base::Newest).await;
    let second = place.backup(Made::of(&[("a", b"22")]), Base::Newest).await;
    let key = |id: &str| format!("restic/c/n/u/snapshots/{id}");
    let (first, second) = (first.unwrap(), second.unwrap());
    let bytes = place.store.get(&key(&first.snapshot), 9999).await.unwrap();
    place
        .store
        .put(&key(&second.snapshot), bytes)
        .await
        .unwrap();
    let refused = place.restore(&second).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    let absent = "0".repeat(64);
    let none = super::Saved {
        snapshot: absent,
        ..second
    };
    assert_eq!(
        place.restore(&none).await.unwrap_err().kind(),
        Kind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_does_not_answer_is_no_damage_of_what_it_holds() {
    let place = Place::new();
    let made = place.backup(Made::of(&[("a", &noise(1, 100_000))]), Base::Newest);
    made.await.unwrap();
    let packs = place.objects("data").await;
    // The content; the rest is of trees.
    let mut sizes = Vec::new();
    for key in packs {
        sizes.push((place.store.head(&key).await.unwrap().size, key));
    }
    let (_, content) = sizes.into_iter().max().unwrap();
    for (key, read_data) in [("/data/", false), (content.as_str(), true)] {
        for (fate, kind) in [
            (Fate::Vanishes, Kind::Unreachable),
            (Fate::Refused, Kind::Forbidden),
        ] {
            let of = key.to_owned();
            let trial = Trial::of(&place.store).judged(move |verb, key| {
                match verb != "list" && key.contains(&of) {
                    true => fate,
                    false => Fate::Happens,
                }
            });
            let away = Place {
                store: trial.store(),
                ..place.clone()
            };
            let looked = away.volume().check(1, &away.ring(), read_data).await;
            assert_eq!(looked.unwrap_err().kind(), kind, "{key} {fate:?}");
        }
    }
}
