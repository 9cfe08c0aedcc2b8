//! What of a location's backups is expired and goes, and what keeps one.

use super::*;
use crate::layout::RestoreKeys;
use crate::location::trial::{Fate, Trial};
use crate::location::{Location, guard};
use crate::volume::expiry;
use futures::FutureExt as _;

#[tokio::test]
async fn what_an_expired_backup_has_in_repositories_goes_with_it_and_what_another_names_stays() {
    let location = Location::in_memory("x");
    let store = &location.store;
    let (now, ids) = (Timestamp::now(), ["a".repeat(64), "b".repeat(64)]);
    for (text, ends, id) in [("old", -1, &ids[0]), ("newer", 1, &ids[1])] {
        write(store, text, Some(now + SignedDuration::from_hours(ends))).await;
        let list = format!(
            r#"{{"format":"kubectl-backup/snapshots/1","snapshots":[{{"method":"files","cluster":"c","namespace":"n","claimUid":"u","repository":1,"snapshot":"{id}"}}]}}"#
        );
        let key = format!("backups/{text}/snapshots.json");
        store.put(&key, list.into()).await.unwrap();
        let snapshot = format!("restic/c/n/u/snapshots/{id}");
        store.put(&snapshot, "1".into()).await.unwrap();
    }
    let went = [
        Pruned::Expired(name("old")),
        Pruned::Snapshots(expiry::Outcome::Forgotten {
            repository: "restic/c/n/u".to_owned(),
            snapshots: 1,
        }),
    ];
    assert_eq!(prune(&location, &at(now, true)).await.unwrap(), went);
    let stands = async || store.entries("restic/c/n/u/snapshots/", 9).await.unwrap();
    assert_eq!(stands().await.len(), 2);
    assert_eq!(prune(&location, &at(now, false)).await.unwrap(), went);
    let left: Vec<_> = stands().await.into_iter().map(|one| one.key).collect();
    assert_eq!(left, [format!("restic/c/n/u/snapshots/{}", ids[1])]);
}

#[tokio::test]
async fn prune_removes_what_is_expired_by_both_clocks_and_ours_alone() {
    let location = Location::in_memory("x");
    let store = &location.store;
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    write(store, "expired", Some(now - hour)).await;
    write(store, "later", Some(now + hour)).await;
    write(store, "soon", Some(now + SignedDuration::from_secs(60))).await;
    write(store, "never", None).await;
    store
        .put(
            "backups/velero/velero-backup.json",
            marker("velero", Some(now - hour)).into(),
        )
        .await
        .unwrap();
    // A run of ours died after its index, and Velero took the name.
    let theirs = marker("taken", Some(now - hour)).replace("kubectl-backup/", "other/");
    for (key, text) in [
        (BackupKeys::new(&name("taken")).index(), "index"),
        (BackupKeys::new(&name("taken")).marker(), theirs.as_str()),
    ] {
        store.put(&key, text.to_owned().into()).await.unwrap();
    }
    // Who only asks writes nothing.
    let reads = Location {
        store: Trial::of(store)
            .judged(|verb, _| match verb {
                "put" | "delete" => Fate::Refused,
                _ => Fate::Happens,
            })
            .store(),
        ..location.clone()
    };
    let would = prune(&reads, &at(now, true)).await.unwrap();
    assert_eq!(would, [Pruned::Expired(name("expired"))]);
    assert_eq!(left(store, "expired").await.len(), 5);
    // Expired by one clock only.
    let early = now + SignedDuration::from_secs(120);
    assert_eq!(prune(&location, &at(early, false)).await.unwrap(), would);
    assert!(left(store, "expired").await.is_empty());
    for text in ["later", "soon", "never", "velero", "taken"] {
        assert!(!left(store, text).await.is_empty(), "{text}");
    }
    assert_eq!(prune(&location, &at(now, false)).await.unwrap(), []);
    let error = prune(&location, &at(now + SignedDuration::from_secs(400), false))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("differ by"), "{error}");
    assert!(store.entries("plugins/", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_clock_that_jumped_removes_nothing() {
    let location = Location::in_memory("x");
    let store = &location.store;
    let now = Timestamp::now();
    let day = SignedDuration::from_hours(24);
    write(store, "expired", Some(now - day)).await;
    write(store, "later", Some(now + day)).await;
    for hours in [-24 * 365, -24 * 2, -1, 1, 24 * 2, 24 * 365] {
        let jumped = now + SignedDuration::from_hours(hours);
        let refused = prune(&location, &at(jumped, false)).await.unwrap_err();
        assert!(refused.sentence().contains("nothing is pruned"), "{hours}");
        assert!(refused.sentence().contains("NTP"), "{hours}");
        for name in ["expired", "later"] {
            assert_eq!(left(store, name).await.len(), 5, "{hours} {name}");
        }
    }
    let done = prune(&location, &at(now, false)).await.unwrap();
    assert_eq!(done, [Pruned::Expired(name("expired"))]);
    assert_eq!(left(store, "later").await.len(), 5);
}

/// The first part of the journal of a restore of this backup.
fn journal_of(backup: &str) -> Vec<u8> {
    let header = format!(
        r#"{{"format":"{}","backup":"{backup}","optionsHash":"x","started":"{}","spec":{{"backupName":"{backup}"}}}}"#,
        crate::restore::journal::FORMAT,
        Timestamp::now()
    );
    zstd::encode_all(header.as_bytes(), 1).unwrap()
}

#[tokio::test]
async fn prune_keeps_an_expired_backup_that_a_restore_has_begun_to_read() {
    let memory = Store::in_memory();
    let trial = Trial::of(&memory);
    let mut location = Location::in_memory("x");
    location.store = trial.store();
    let now = Timestamp::now();
    let expired = Some(now - SignedDuration::from_hours(1));
    write(&location.store, "one", expired).await;
    let journal = "restores/r/journal-000000.jsonl.zst";
    memory.put(journal, journal_of("one").into()).await.unwrap();

    let done = prune(&location, &at(now, false)).await.unwrap();
    assert!(
        matches!(&done[..], [Pruned::Kept(_, why)] if why.contains("restore r")),
        "{done:?}"
    );
    // One that gave no sign of itself for a day keeps nothing, nor does a finished one.
    trial.age(journal, SignedDuration::from_hours(25));
    let would = prune(&location, &at(now, true)).await.unwrap();
    assert_eq!(would, [Pruned::Expired(name("one"))]);
    trial.age(journal, SignedDuration::ZERO);
    let marker = RestoreKeys::new(&name("r")).marker();
    memory.put(&marker, "{}".into()).await.unwrap();
    let done = prune(&location, &at(now, false)).await.unwrap();
    assert_eq!(done, [Pruned::Expired(name("one"))]);
}

/// A look takes hours where there is much to remove: what happens in the middle of it is asked for just before each backup goes.
#[tokio::test]
async fn what_is_restored_or_removed_in_the_middle_of_a_look_is_seen_before_anything_goes() {
    let location = Location::in_memory("x");
    let store = &location.store;
    let now = Timestamp::now();
    let expired = Some(now - SignedDuration::from_hours(1));
    for text in ["a", "b", "c"] {
        write(store, text, expired).await;
    }
    for (text, days) in [("n9", 9), ("n2", 2)] {
        write(store, text, None).await;
        let marker = of_schedule(text, "nightly", "Completed", now, days);
        let key = BackupKeys::new(&name(text)).marker();
        store.put(&key, marker.into()).await.unwrap();
    }
    let newest = BackupKeys::new(&name("n2")).marker();
    let wanted = |backup: &Name| {
        let now_or_never = |done: Option<Result<()>>| done.unwrap().unwrap();
        match backup.as_str() {
            "a" => now_or_never(
                store
                    .put(
                        "restores/r/journal-000000.jsonl.zst",
                        journal_of("b").into(),
                    )
                    .now_or_never(),
            ),
            "n9" => now_or_never(store.delete(&newest).now_or_never()),
            _ => {}
        }
        (backup.as_str() == "c").then(|| "later".to_owned())
    };
    let options = PruneOptions {
        wanted: Some(Wanted(&wanted)),
        ..at(now, false)
    };
    let kept =
        |text: &str, why: &str| Pruned::Kept(name(text), format!("it is expired, and {why}"));
    let done = [
        Pruned::Expired(name("a")),
        kept("b", "restore r has begun to read it and is not finished"),
        kept("c", "restore later is to read it"),
        kept(
            "n9",
            "n2 of its schedule, for whose sake it was to go, went or was written anew just now; the next look decides",
        ),
    ];
    assert_eq!(prune(&location, &options).await.unwrap(), done);
    let last = kept("n9", "the newest good backup of schedule nightly");
    let done = prune(&location, &at(now, false)).await.unwrap();
    assert_eq!(done[1..], [Pruned::Expired(name("c")), last]);
    assert_eq!(left(store, "n9").await.len(), 5);
}

#[tokio::test]
async fn where_no_guard_tells_whose_a_location_is_other_clusters_backups_stay() {
    let mut location = Location::in_memory("x");
    location.shared_with_velero = true;
    let now = Timestamp::now();
    let expired = Some(now - SignedDuration::from_hours(1));
    write(&location.store, "hidden", expired).await;
    for (text, uid) in [("ours", "a"), ("theirs", "b")] {
        write(&location.store, text, expired).await;
        let with = format!(r#"{{"{CLUSTER_UID}":"{uid}","kubectl-backup/v"#);
        let marker = marker(text, expired).replace(r#"{"kubectl-backup/v"#, &with);
        let key = BackupKeys::new(&name(text)).marker();
        location.store.put(&key, marker.into()).await.unwrap();
    }
    let kept = |text: &str| {
        let why = "it is expired, and not known to be this cluster's".to_owned();
        Pruned::Kept(name(text), why)
    };
    let done = prune(&location, &at(now, false)).await.unwrap();
    assert_eq!(done, [kept("hidden"), kept("ours"), kept("theirs")]);
    let known = PruneOptions {
        cluster: Some("a"),
        ..at(now, false)
    };
    let done = prune(&location, &known).await.unwrap();
    let ours = Pruned::Expired(name("ours"));
    assert_eq!(done, [kept("hidden"), ours, kept("theirs")]);
    delete(&location.store, &name("hidden"), "here")
        .await
        .unwrap();
    assert_eq!(left(&location.store, "theirs").await.len(), 5);
    // The same bucket by its address: still nobody says whose it is, and what says nothing itself is no other cluster's.
    location.shared_with_velero = false;
    write(&location.store, "unsaid", expired).await;
    let done = prune(&location, &known).await.unwrap();
    assert_eq!(done, [kept("theirs"), Pruned::Expired(name("unsaid"))]);
    // A guard says it of all.
    guard::write(&location, "a", false).await.unwrap();
    // Who asks for more looks at each all the same.
    let own = PruneOptions {
        own_only: true,
        ..known
    };
    let done = prune(&location, &own).await.unwrap();
    assert_eq!(done, [kept("theirs")]);
    // What is said elsewhere can make it last longer, and never shorter.
    let at_end = |hours| now + SignedDuration::from_hours(hours);
    let until =
        |hours: i64| move |backup: &Name| (backup.as_str() == "theirs").then(|| at_end(hours));
    let longer = until(1);
    let later = PruneOptions {
        longer: Some(Longer(&longer)),
        ..known
    };
    assert_eq!(prune(&location, &later).await.unwrap(), []);
    // Somebody moves it just before it goes.
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let longer = |_: &Name| {
        let before = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Some(at_end(if before == 0 { -9 } else { 1 }))
    };
    let later = PruneOptions {
        longer: Some(Longer(&longer)),
        ..known
    };
    assert_eq!(prune(&location, &later).await.unwrap(), []);
    assert_eq!(left(&location.store, "theirs").await.len(), 5);
    let longer = until(-9);
    let later = PruneOptions {
        longer: Some(Longer(&longer)),
        dry_run: true,
        ..known
    };
    assert_eq!(
        prune(&location, &later).await.unwrap(),
        [Pruned::Expired(name("theirs"))]
    );
    let done = prune(&location, &known).await.unwrap();
    assert_eq!(done, [Pruned::Expired(name("theirs"))]);
}

#[tokio::test]
async fn a_folder_of_very_many_files_keeps_no_other_from_going() {
    let location = Location::in_memory("x");
    let store = &location.store;
    let now = Timestamp::now();
    let expired = Some(now - SignedDuration::from_hours(1));
    for text in ["evil", "one"] {
        write(store, text, expired).await;
    }
    for n in 0..100_000 {
        let key = format!("backups/evil/{n}");
        store.put(&key, "x".into()).await.unwrap();
    }
    let done = prune(&location, &at(now, false)).await.unwrap();
    let [Pruned::Failed(evil, why), Pruned::Expired(one)] = &done[..] else {
        panic!("{done:?}")
    };
    assert_eq!((evil.as_str(), one.as_str()), ("evil", "one"));
    assert!(why.contains("100000"), "{why}");
    let refused = delete_again(store, &name("evil"), "here", "u1").await;
    assert!(refused.unwrap_err().to_string().contains("100000"));
}

#[tokio::test]
async fn what_may_be_locked_is_not_pruned_and_the_others_are() {
    let mut location = Location::in_memory("x");
    let now = Timestamp::now();
    let expired = Some(now - SignedDuration::from_hours(1));
    for text in ["asked", "hidden"] {
        write(&location.store, text, expired).await;
    }
    let archive = BackupKeys::new(&name("hidden")).archive();
    let trial = Trial::of(&location.store).judged(move |verb, key| match verb {
        "kept" if key == archive => Fate::Refused,
        _ => Fate::Happens,
    });
    location.store = trial.store();
    for dry_run in [true, false] {
        let done = prune(&location, &at(now, dry_run)).await.unwrap();
        let [Pruned::Expired(asked), Pruned::Failed(hidden, why)] = &done[..] else {
            panic!("{done:?}")
        };
        assert_eq!((asked.as_str(), hidden.as_str()), ("asked", "hidden"));
        assert!(why.contains("is refused"), "{why}");
    }
    assert!(left(&location.store, "asked").await.is_empty());
    assert_eq!(left(&location.store, "hidden").await.len(), 5);
    assert!(kept(&location.store, &name("hidden")).await.is_err());
}
