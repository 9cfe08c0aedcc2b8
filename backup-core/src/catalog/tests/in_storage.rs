//! Snapshots of volumes in their storage: they go before the backup that a prune removes, or it stays.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::*;
use crate::cluster::Cluster;
use crate::location::Location;
use crate::snapshot::heirs::Heirs;
use crate::snapshot::inventory::{self, Entry, Inventory, State};
use crate::snapshot::known;
use crate::snapshot::storage::Storage;

/// An expired backup with a snapshot of a cluster.
async fn expired(location: &Location, text: &str, cluster: &str) {
    let store = &location.store;
    let end = Timestamp::now() - SignedDuration::from_hours(1);
    write(store, text, Some(end)).await;
    let list = json!({"format": "kubectl-backup/snapshots/1", "snapshots": [
        {"method": "snapshot", "cluster": cluster, "run": format!("run-{text}"), "driver": "d.io", "handle": format!("snap-{text}")}]});
    let key = BackupKeys::new(&name(text)).snapshots();
    store.put(&key, list.to_string().into()).await.unwrap();
    let mut one = Inventory::new(store, cluster, (text, "uid"), &format!("run-{text}"));
    one.state = State::Left;
    one.snapshots.push(Entry {
        driver: "d.io".into(),
        handle: format!("snap-{text}"),
        class: "fast".into(),
        cut: "2026-11-30T10:00:01Z".parse().unwrap(),
        going: false,
        gone: false,
    });
    one.put(store).await.unwrap();
}

/// A prune that reaches the cluster `c-here`, or none.
fn at(dry_run: bool, reached: Option<&Cluster>) -> PruneOptions<'_> {
    PruneOptions {
        heirs: Some(Heirs {
            cluster: reached.map(|cluster| (cluster, "c-here")),
            stop: None,
        }),
        ..super::at(Timestamp::now(), dry_run)
    }
}

#[tokio::test]
async fn snapshots_go_before_their_backup_in_their_own_cluster_and_else_it_stays() {
    let (storage, location) = (Storage::default(), Location::in_memory("x"));
    let cluster = storage.cluster();
    expired(&location, "far", "c-far").await;
    expired(&location, "here", "c-here").await;
    // One that its driver does not know.
    expired(&location, "lost", "c-here").await;
    for text in ["far", "here"] {
        storage.state().holds.insert(format!("snap-{text}"));
    }
    let here = Some(&cluster);
    let kept = |one: &Pruned, text: &str, cluster: &str| {
        let left = format!("snapshot left in cluster {cluster}: d.io snap-{text} ");
        assert!(
            matches!(one, Pruned::Kept(name, why) if name.as_str() == text && why.starts_with(&left)),
            "{one:?}"
        );
    };
    let gone = |text: &str| Pruned::Expired(name(text));
    let would = prune(&location, &at(true, here)).await.unwrap();
    kept(&would[0], "far", "c-far");
    assert_eq!(would[1..], [gone("here"), gone("lost")]);
    // Whoever reaches no cluster removes none of these.
    let nobody = prune(&location, &at(false, None)).await.unwrap();
    assert_eq!(nobody.len(), 3);
    for (one, text) in nobody.iter().zip(["far", "here", "lost"]) {
        kept(one, text, if text == "far" { "c-far" } else { "c-here" });
    }
    let done = prune(&location, &at(false, here)).await.unwrap();
    kept(&done[0], "far", "c-far");
    let cut = Pruned::InStorage(name("here"), 1);
    assert_eq!(done[1..3], [cut, gone("here")]);
    assert!(
        matches!(&done[3..], [Pruned::Failed(name, why)] if name.as_str() == "lost" && why.contains("has no such snapshot")),
        "{done:?}"
    );
    assert!(storage.state().holds.iter().eq(["snap-far"]));
    for (text, files) in [("far", 6), ("here", 0), ("lost", 6)] {
        assert_eq!(left(&location.store, text).await.len(), files);
    }
}

#[tokio::test]
async fn a_backup_of_which_a_snapshot_went_counts_for_no_other_and_what_began_with_it_goes_on() {
    let (storage, location) = (Storage::default(), Location::in_memory("x"));
    let (cluster, store, now) = (storage.cluster(), &location.store, Timestamp::now());
    for (text, days, torn) in [
        ("n4", 4, true),
        ("n3", 3, false),
        ("n2", 2, false),
        ("n1", 1, true),
    ] {
        expired(&location, text, "c-here").await;
        let marker = of_schedule(text, "nightly", "Completed", now, days);
        let key = BackupKeys::new(&name(text)).marker();
        store.put(&key, marker.into()).await.unwrap();
        let all = inventory::list(store).await.unwrap().all;
        let mut one = all.into_iter().find(|one| one.backup == text).unwrap();
        if torn {
            one.state = State::Expiring;
            (one.snapshots[0].going, one.snapshots[0].cut) = (true, now);
        }
        // An attempt before this one had the driver delete those.
        if !torn {
            storage.state().holds.insert(format!("snap-{text}"));
        }
        one.put(store).await.unwrap();
    }
    let options = PruneOptions {
        keep: crate::catalog::keep::Keep::Each(1),
        ..at(false, Some(&cluster))
    };
    let done = prune(&location, &options).await.unwrap();
    assert!(
        matches!(&done[0], Pruned::Kept(name, why) if name.as_str() == "n1" && why.contains("does not count")),
        "{done:?}"
    );
    assert!(storage.state().holds.iter().eq(["snap-n2"]), "{done:?}");
    for (text, files) in [("n1", 6), ("n2", 6), ("n3", 0), ("n4", 0)] {
        assert_eq!(left(store, text).await.len(), files, "{text}");
    }
}

#[tokio::test]
async fn a_backup_whose_snapshots_nobody_would_find_any_more_stays_and_is_named_and_no_other() {
    let (storage, location) = (Storage::default(), Location::in_memory("x"));
    let (cluster, store) = (storage.cluster(), &location.store);
    for text in ["copied", "damaged", "moved", "whole"] {
        expired(&location, text, "c-here").await;
        storage.state().holds.insert(format!("snap-{text}"));
    }
    let all = inventory::list(store).await.unwrap().all;
    let of = |text: &str| all.iter().find(|one| one.backup == text).unwrap().clone();
    of("copied").remove(store).await.unwrap();
    let list = crate::records::snapshots::owned(store, &name("copied")).await;
    known::copied(store, &name("copied"), &list.unwrap().cuts)
        .await
        .unwrap();
    let mut moved = of("moved");
    moved.place = "0123456789abcdef".into();
    moved.put(store).await.unwrap();
    let key = |text: &str| format!("plugins/kubectl-backup/snapshots/run-{text}.json");
    store.put(&key("damaged"), "{".into()).await.unwrap();
    for dry_run in [true, false] {
        let done = prune(&location, &at(dry_run, Some(&cluster)))
            .await
            .unwrap();
        for text in ["damaged", "moved"] {
            let parts = [format!("snapshot snap-{text} of d.io"), key(text)];
            let is_told = done.iter().any(|one| {
                matches!(one, Pruned::Unknown(of, why) if of.as_str() == text && parts.iter().all(|part| why.contains(part)))
            });
            assert!(is_told, "{text}: {done:?}");
        }
        for text in ["copied", "whole"] {
            assert!(done.contains(&Pruned::Expired(name(text))), "{done:?}");
        }
    }
    let held = storage.state().holds.clone();
    assert!(
        held.iter()
            .eq(["snap-copied", "snap-damaged", "snap-moved"]),
        "{held:?}"
    );
    for (text, files) in [("copied", 0), ("damaged", 6), ("moved", 6), ("whole", 0)] {
        assert_eq!(left(store, text).await.len(), files, "{text}");
    }
    // Nothing is kept of what is gone.
    let listed = inventory::list(store).await.unwrap();
    assert_eq!((listed.all, listed.unread.len()), (vec![moved], 1));
}

#[tokio::test]
async fn a_backup_that_stays_after_its_snapshots_went_is_named_so_and_goes_with_the_next_prune() {
    let (storage, location) = (Storage::default(), Location::in_memory("x"));
    let cluster = storage.cluster();
    expired(&location, "here", "c-here").await;
    storage.state().holds.insert("snap-here".to_owned());
    // A restore is asked for in the moment in which the snapshot goes.
    let wanted = |_: &Name| storage.state().holds.is_empty().then(|| "late".to_owned());
    let options = at(false, Some(&cluster));
    let late = PruneOptions {
        wanted: Some(crate::catalog::Wanted(&wanted)),
        ..options
    };
    let done = prune(&location, &late).await.unwrap();
    let [Pruned::InStorage(_, 1), Pruned::Failed(_, why)] = &done[..] else {
        panic!("{done:?}");
    };
    for part in ["restore late is to read it", "deleted already"] {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(left(&location.store, "here").await.len(), 6);
    // That its snapshot went is known as long as it stands.
    let done = prune(&location, &options).await.unwrap();
    assert_eq!(done, [Pruned::Expired(name("here"))]);
    let listed = inventory::list(&location.store).await.unwrap();
    assert_eq!(listed.all, []);
}
