//! Space that comes back: a prune marks what no snapshot needs, and one that comes a day later removes it.

use std::fs;

use harness::clock::Clock;
use jiff::SignedDuration;

use super::{Place, VOLUME, listed, noise, packs};

#[test]
fn what_no_snapshot_needs_is_removed_a_day_after_it_was_marked_and_restic_finds_no_fault() {
    let place = Place::folder();
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("kept"), noise(1, 3 << 20)).unwrap();
    // Some packs of it are of nothing else: what is used in part is not written anew where it is a tenth of all.
    let large = source.join("large");
    fs::write(&large, noise(2, 60 << 20)).unwrap();
    let first = place.backup(&source).ok().json();
    fs::remove_file(&large).unwrap();
    fs::write(source.join("more"), noise(3, 2 << 20)).unwrap();
    let second = place.backup(&source).ok().json();
    place
        .mover(&["forget", VOLUME, first["snapshot"].as_str().unwrap()])
        .ok();

    let clock = Clock::new();
    let prune = |hours: i64| {
        clock.is_apart(SignedDuration::from_hours(hours));
        let prune = place.mover(&["prune", VOLUME]);
        let pruned = clock.of_folders(prune).ok().json();
        let bytes = |what: &str| pruned[what].as_u64().unwrap();
        (
            bytes("markedBytes"),
            bytes("waitingBytes"),
            bytes("removedBytes"),
        )
    };
    let size = || -> u64 {
        let packs = packs(&place).into_iter();
        packs.map(|pack| fs::metadata(pack).unwrap().len()).sum()
    };
    let before = size();
    let (marked, _, removed) = prune(0);
    assert!(marked > 20 << 20, "{marked}");
    assert_eq!(removed, 0);
    assert!(size() >= before);
    // It is waited for, and what is needed is as it was.
    let (_, waiting, removed) = prune(23);
    assert!(waiting > 20 << 20, "{waiting}");
    assert_eq!(removed, 0);
    place.checked_by_restic(&second, &place.key(), &place.home.join("restic-before"));
    let (_, _, removed) = prune(25);
    assert!(removed > 20 << 20, "{removed}");
    let left = size();
    assert!(
        left + (20 << 20) < before,
        "{left} bytes are left of {before}"
    );
    place.checked_by_restic(&second, &place.key(), &place.home.join("restic-after"));
    let target = place.home.join("back");
    place.restore(&second, &target).ok();
    assert_eq!(listed(&target, false), listed(&source, false));
    place.restore(&first, &place.home.join("gone")).code(1);
    // Whoever comes next builds upon what is left, and stores anew what went.
    fs::write(&large, noise(2, 60 << 20)).unwrap();
    let third = place.backup(&source).ok().json();
    assert_eq!(third["base"], second["snapshot"]);
    place.checked_by_restic(&third, &place.key(), &place.home.join("restic-third"));
}
