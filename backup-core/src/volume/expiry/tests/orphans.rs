//! What no backup names: when it is noted, when it goes, and where it is not looked for at all.

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde_json::json;

use super::super::{Look, Outcome, look};
use super::{World, noted, removed, skipped};
use crate::location::Location;
use crate::location::trial::{Fate, Trial};

async fn nothing_is_noted(world: &World) {
    let keys = world.stands().await;
    assert!(keys.iter().all(|key| !key.contains("orphans")), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_backup_names_is_noted_and_forgotten_a_day_later() {
    let world = World::new().await;
    let (a, b) = (world.snapshot(1).await, world.snapshot(2).await);
    world.backup("first", &[&a]).await;
    world.backup("second", &[&b]).await;
    assert_eq!(world.look(0).await, []);
    world.lose("first").await;
    assert_eq!(noted(&world.look_as(0, Some("c"), true).await), 1);
    nothing_is_noted(&world).await;
    assert_eq!(noted(&world.look(0).await), 1);
    assert_eq!(noted(&world.look(23).await), 1);
    assert_eq!(world.ids().await.len(), 2);
    let would = world.look_as(25, Some("c"), true).await;
    assert_eq!(
        (removed(&would), world.ids().await.len()),
        (1, 2),
        "{would:?}"
    );
    let told = world.look(25).await;
    let [
        Outcome::Forgotten { snapshots: 1, .. },
        Outcome::Reclaimed { waiting, .. },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert!(waiting.is_some_and(|(bytes, _)| bytes > 50_000), "{told:?}");
    assert_eq!(world.ids().await, [b]);
    // What was noted is over with it, and so is the look.
    assert_eq!(world.look(24).await, []);
    nothing_is_noted(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_again_is_no_orphan_and_is_seen_anew() {
    let world = World::new().await;
    let a = world.snapshot(1).await;
    world.backup("other", &[]).await;
    assert_eq!(noted(&world.look(0).await), 1);
    // A folder without a marker counts: its run is about to write it, or somebody is deleting it.
    world.named("first", &[&a]).await;
    assert_eq!(world.look(25).await, []);
    world.lose("first").await;
    assert_eq!(noted(&world.look(26).await), 1);
    assert_eq!(noted(&world.look(49).await), 1);
    assert_eq!(world.ids().await, [a]);
    assert_eq!(removed(&world.look(51).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshots_of_a_backup_that_is_made_for_days_wait_for_its_end() {
    let world = World::new().await;
    world.backup("other", &[]).await;
    // The run's claim stands, as seen by a clock that goes on with it.
    let (claim, work) = (
        "backups/long/claim-r.json",
        json!({"run": "r", "purpose": "create"}),
    );
    world.put(claim, &work).await;
    let a = world.snapshot(1).await;
    let trial = Trial::of(&world.place.store);
    let later = world.over(&trial);
    assert_eq!(noted(&later.look(0).await), 1);
    trial.age(claim, SignedDuration::from_hours(-25));
    assert_eq!(noted(&later.look(25).await), 1);
    assert_eq!(world.ids().await, [a]);
    // Another run that is at work by then can not own what was seen before it began.
    world.place.store.delete(claim).await.unwrap();
    world.put("backups/new/claim-s.json", &work).await;
    trial.age("backups/new/claim-s.json", SignedDuration::from_hours(-25));
    assert_eq!(removed(&later.look(25).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_ends_between_the_listings_owns_its_snapshots() {
    let world = World::new().await;
    world.backup("other", &[]).await;
    let a = world.snapshot(1).await;
    assert_eq!(noted(&world.look(0).await), 1);
    // It is written when the snapshots are listed, after backups were.
    let (inner, id) = (world.place.clone(), a.clone());
    let trial = Trial::of(&world.place.store).judged(move |verb, key| {
        if verb == "list" && key.ends_with("/snapshots/") {
            let world = World {
                place: inner.clone(),
                location: Location::in_memory("y"),
            };
            let written = async { world.backup("first", &[&id]).await };
            written.now_or_never().unwrap();
        }
        Fate::Happens
    });
    assert_eq!(world.over(&trial).look(25).await, []);
    assert_eq!(world.ids().await, [a]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_ends_while_backups_are_listed_owns_its_snapshots() {
    let whole = World::new().await;
    whole.backup("other", &[]).await;
    let claim = "backups/long/claim-r.json";
    let work = json!({"run": "r", "purpose": "create"});
    whole.put(claim, &work).await;
    whole.put("backups/long/long.tar.gz", &json!(1)).await;
    let a = whole.snapshot(1).await;
    assert_eq!(noted(&whole.look(0).await), 1);
    let ends = |world: &World, when: fn(&str) -> bool, says: bool| {
        let (inner, id) = (world.place.clone(), a.clone());
        let trial = Trial::of(&world.place.store).judged(move |verb, key| {
            if verb == "list" && when(key) {
                let world = World {
                    place: inner.clone(),
                    location: Location::in_memory("y"),
                };
                let written = async {
                    if says {
                        world.backup("long", &[&id]).await;
                    }
                    world.place.store.delete(claim).await.unwrap();
                };
                written.now_or_never().unwrap();
            }
            Fate::Happens
        });
        trial.age(claim, SignedDuration::from_hours(-25));
        world.over(&trial)
    };
    // The run was seen before the snapshots were listed and not after it: who wrote what is not seen yet is waited for.
    let world = whole.copy().await;
    let told = ends(&world, |key| key.ends_with("/snapshots/"), false);
    assert_eq!(noted(&told.look(25).await), 1);
    assert_eq!(world.ids().await, std::slice::from_ref(&a));
    // The claim went before the folder was listed, and what was written meanwhile is not in that listing.
    let world = whole.copy().await;
    world.place.store.delete(claim).await.unwrap();
    let told = ends(&world, |key| key.ends_with("backups/long/"), true);
    assert_eq!(told.look(25).await, []);
    assert_eq!(world.ids().await, std::slice::from_ref(&a));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_of_one_keeps_nothing_from_the_others() {
    let world = World::new().await;
    let (a, b) = (world.snapshot(1).await, world.snapshot(2).await);
    world.backup("first", &[&a]).await;
    world.look(0).await;
    // A backup that nobody here may read ends the looking for orphans alone.
    let key = "backups/odd/snapshots.json";
    world.backup("odd", &[]).await;
    let denied = Trial::of(&world.place.store).judged(move |verb, of| match (verb, of == key) {
        ("get", true) => Fate::Refused,
        _ => Fate::Happens,
    });
    let told = world.over(&denied).look(25).await;
    assert!(super::blind(&told).contains("backup odd"), "{told:?}");
    world.lose("odd").await;
    // So does a repository that can not be listed, or whose note can not be written.
    for verb in ["list", "put"] {
        let world = world.copy().await;
        world.put("restic/c/m/u/config", &json!(1)).await;
        let denied = Trial::of(&world.place.store).judged(move |asked, key| {
            let is_of_first =
                key.starts_with("restic/c/m/u/snap") || key == "restic/c/m/u.orphans.json";
            match (asked == verb, is_of_first) {
                (true, true) => Fate::Refused,
                _ => Fate::Happens,
            }
        });
        let told = world.over(&denied).look(25).await;
        let fails =
            |one: &&Outcome| matches!(one, Outcome::Failed { why, .. } if why.contains("refused"));
        assert_eq!(told.iter().filter(fails).count(), 1, "{verb}: {told:?}");
        assert_eq!(removed(&told), 1, "{verb}: {told:?}");
        assert!(!world.ids().await.contains(&b));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_orphan_is_looked_for_where_it_is_not_known_whose_the_place_is_or_what_stands() {
    let world = World::new().await;
    let a = world.snapshot(1).await;
    // No backup is listed at all.
    assert!(skipped(&world.look(0).await).contains("no backup"));
    assert!(skipped(&world.look(25).await).contains("no backup"));
    world.named("first", &[]).await;
    assert!(skipped(&world.look(50).await).contains("no backup"));
    world.backup("first", &[]).await;
    assert_eq!(noted(&world.look(0).await), 1);
    // From here on it would go.
    world.put("backups/odd/snapshots.json", &json!(1)).await;
    assert!(super::blind(&world.look(25).await).contains("backup odd"));
    world.lose("odd").await;
    let blind = Trial::of(&world.place.store).hiding(|folder| folder.ends_with("backups/"));
    assert!(skipped(&world.over(&blind).look(25).await).contains("no backup"));
    assert!(skipped(&world.look_as(25, Some("d"), false).await).contains("another cluster's"));
    let guard = world
        .place
        .store
        .get(crate::layout::GUARD, 999)
        .await
        .unwrap();
    world
        .place
        .store
        .delete(crate::layout::GUARD)
        .await
        .unwrap();
    assert!(skipped(&world.look(25).await).contains("no guard"));
    assert_eq!(world.ids().await, std::slice::from_ref(&a));
    // Velero's has none, and needs none.
    let mut shared = World {
        place: world.place.clone(),
        location: world.location.clone(),
    };
    shared.location.shared_with_velero = true;
    assert_eq!(removed(&shared.look_as(25, Some("c"), true).await), 1);
    world
        .place
        .store
        .put(crate::layout::GUARD, guard)
        .await
        .unwrap();
    // Nor is what cannot be judged by time: a note of the future is of another clock.
    assert_eq!(noted(&world.look(-2).await), 1);
    assert_eq!(noted(&world.look(1).await), 1);
    assert_eq!(world.ids().await, [a]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_is_broken_costs_a_day_and_one_of_a_claim_waits() {
    let world = World::new().await;
    let a = world.snapshot(1).await;
    world.backup("first", &[]).await;
    assert_eq!(noted(&world.look(0).await), 1);
    let odd = json!({"format": "kubectl-backup/orphans/1", "sightings": [{"seen": "before", "runs": [], "snapshots": [a]}]});
    world.put("restic/c/n/u.orphans.json", &odd).await;
    assert_eq!(noted(&world.look(25).await), 1);
    let claim = "restic/c/n/u.claims/claim-x.json";
    let work = json!({"run": "x", "purpose": "create", "host": "there"});
    world.put(claim, &work).await;
    let told = world.look(50).await;
    assert!(matches!(&told[..], [Outcome::Kept { .. }]), "{told:?}");
    world.place.store.delete(claim).await.unwrap();
    assert_eq!(removed(&world.look(50).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_a_snapshot_goes_a_day_later_and_not_while_a_backup_names_one() {
    let world = World::new().await;
    let a = world.snapshot(1).await;
    world.backup("first", &[&a]).await;
    let snapshots = world.place.objects("snapshots").await;
    world.place.store.delete(&snapshots[0]).await.unwrap();
    // It may be that a listing does not say what is there.
    assert_eq!(world.look(0).await, []);
    assert_eq!(world.look(25).await, []);
    world.lose("first").await;
    world.backup("other", &[]).await;
    assert_eq!(noted(&world.look(25).await), 1);
    assert!(
        world
            .stands()
            .await
            .contains(&"restic/c/n/u/config".to_owned())
    );
    let told = world.look(50).await;
    assert!(
        matches!(&told[..], [Outcome::Removed { snapshots: 0, .. }]),
        "{told:?}"
    );
    assert_eq!(world.stands().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_look_does_not_hold_keeps_its_note_and_its_turn_comes() {
    let world = World::new().await;
    world.backup("first", &[]).await;
    // Two repositories of seven, where ten are held.
    let all = |volume: &str| {
        let id = |number: usize| format!("restic/c/n/{volume}/snapshots/{number:064x}");
        (0..7).map(id).collect::<Vec<_>>()
    };
    for key in all("u").into_iter().chain(all("v")) {
        world.place.store.put(&key, "x".into()).await.unwrap();
    }
    assert_eq!(noted(&world.look(0).await), 7);
    let store = &world.place.store;
    for key in all("u") {
        store.delete(&key).await.unwrap();
    }
    assert!(noted(&world.look(1).await) >= 7);
    let note = "restic/c/n/v.orphans.json";
    let before = store.get(note, 9999).await.unwrap();
    for key in all("u") {
        store.put(&key, "x".into()).await.unwrap();
    }
    let told = world.look(2).await;
    let is_beyond = |one: &Outcome| matches!(one, Outcome::Kept { repository, why } if repository == "restic/c/n/v" && why.contains("holds"));
    assert!(told.iter().any(is_beyond), "{told:?}");
    assert_eq!(store.get(note, 9999).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_know_the_cluster_or_has_another_clock_looks_at_nothing() {
    let world = World::new().await;
    world.snapshot(1).await;
    world.backup("first", &[]).await;
    let ring = world.place.ring();
    let how = |now, cluster| Look {
        now,
        host: "here",
        dry_run: false,
        cluster,
        keyring: &ring,
        stopped: None,
        came_to: None,
    };
    let now = Timestamp::now();
    let told = look(&world.location, &how(now, None)).await.unwrap();
    assert!(skipped(&told).contains("not known"), "{told:?}");
    let late = now + 6.minutes();
    let told = look(&world.location, &how(late, Some("c"))).await.unwrap();
    assert!(skipped(&told).contains("clocks"), "{told:?}");
    let told = look(&world.location, &how(now, Some("d"))).await.unwrap();
    assert_eq!(told, []);
    let told = look(&world.location, &how(now, Some("c"))).await.unwrap();
    assert_eq!(noted(&told), 1);
}
