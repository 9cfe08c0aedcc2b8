//! Whoever writes the bucket, with the repository's key or without: a snapshot's id restores what was saved under it, or nothing.

use super::super::entry::What;
use super::super::repository::Lying;
use super::super::store::{Base, Saved};
use super::{Made, Place, entry, noise};
use crate::error::Kind;
use crate::location::sha256;

/// Two blobs that have the same length as they are read and as they lie: what is encrypted is not bound to its name or its place, so one decrypts in
/// the place of the other.
async fn alike(place: &Place, saved: &Saved, is_folder: bool) -> (Lying, Lying) {
    let volume = place.volume();
    let all = volume.lying(1, &saved.snapshot, &place.ring()).await;
    let of = |is: &&Lying| is.is_folder == is_folder;
    for (number, one) in all.iter().enumerate().filter(|(_, one)| of(one)) {
        let same = |other: &&Lying| {
            of(other) && (other.bytes.len(), other.length) == (one.bytes.len(), one.length)
        };
        if let Some(other) = all[number + 1..].iter().find(same) {
            return (one.clone(), other.clone());
        }
    }
    panic!("no two of {} are alike", all.len());
}

/// Puts the bytes of `from` in the place of `to`.
async fn replace(place: &Place, to: &Lying, from: &Lying) {
    let theirs = place.store.get(&from.pack, 1 << 30).await.unwrap();
    let ours = place.store.get(&to.pack, 1 << 30).await.unwrap();
    let mut ours = ours.to_vec();
    ours[to.bytes.clone()].copy_from_slice(&theirs[from.bytes.clone()]);
    place.store.put(&to.pack, ours.into()).await.unwrap();
}

/// Many folders with a file each, so that two of them are alike.
fn folders() -> Made {
    let mut made = Made::of(&[]);
    for number in 0..60_u8 {
        let folder = format!("d{number:02}");
        made.entries.push((entry(&folder, What::Folder, 0), None));
        made = made.file(&format!("{folder}/x"), 4, &[number; 4]);
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_was_replaced_under_its_id_is_refused() {
    let place = Place::new();
    let (a, b) = (noise(1, 100_000), noise(2, 100_000));
    let made = Made::of(&[("a", &a), ("b", &b)]);
    let saved = place.backup(made, Base::Newest).await.unwrap();
    let (one, other) = alike(&place, &saved, false).await;
    replace(&place, &one, &other).await;
    let refused = place.restore(&saved).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt);
    assert!(refused.to_string().contains("its SHA-256"), "{refused}");
    let found = place.volume().check(1, &place.ring(), true).await.unwrap();
    assert!(
        found.iter().any(|found| found.contains("its SHA-256")),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_replaced_under_its_id_is_refused_and_nothing_is_built_upon_it() {
    let place = Place::new();
    let saved = place.backup(folders(), Base::Newest).await.unwrap();
    let (one, other) = alike(&place, &saved, true).await;
    replace(&place, &one, &other).await;
    let refused = place.restore(&saved).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt);
    assert!(refused.to_string().contains("its SHA-256"), "{refused}");
    // A file that is taken for unchanged would get the content of another.
    let refused = place.backup(folders(), Base::Newest).await.unwrap_err();
    assert!(refused.to_string().contains("was not read"), "{refused}");
    // The folder as it is read anew has the id of the one that was replaced.
    let refused = place.backup(folders(), Base::Nothing).await.unwrap_err();
    assert!(refused.to_string().contains("its SHA-256"), "{refused}");
    assert_eq!(place.objects("snapshots").await.len(), 1);
}

/// A key file stands in the clear, and says itself what it costs to try it.
#[tokio::test(flavor = "multi_thread")]
async fn key_files_that_cost_more_than_a_key_does_are_not_tried_by_anybody() {
    let place = Place::new();
    let made = || Made::of(&[("a", b"content")]);
    let saved = place.backup(made(), Base::Newest).await.unwrap();
    let own = place.objects("keys").await.remove(0);
    let key = place.store.get(&own, 1 << 20).await.unwrap();
    let dear = String::from_utf8(key.to_vec())
        .unwrap()
        .replacen("\"N\":1024", "\"N\":0", 1);
    let long = [&key[..], &[b' '; 64 << 10]].concat();
    let alone = |bytes: Vec<u8>| vec![bytes];
    let many: Vec<_> = (1..18)
        .map(|n| [&key[..], &vec![b' '; n]].concat())
        .collect();
    for (planted, expected) in [
        (alone(dear.into()), "asks for more work"),
        (alone(long), "more than the 65536"),
        (many, "holds more than 16"),
    ] {
        place.store.delete(&own).await.unwrap();
        let mut theirs = Vec::new();
        for bytes in planted {
            let key = format!("restic/c/n/u/keys/{}", sha256(&bytes));
            place.store.put(&key, bytes.into()).await.unwrap();
            theirs.push(key);
        }
        let refused = place.restore(&saved).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{expected}");
        assert!(refused.to_string().contains(expected), "{refused}");
        let refused = place.backup(made(), Base::Newest).await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        for key in theirs {
            place.store.delete(&key).await.unwrap();
        }
        place.store.put(&own, key.clone()).await.unwrap();
    }
    assert_eq!(place.restore(&saved).await.unwrap()[1].1, b"content");
}
