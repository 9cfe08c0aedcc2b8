use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::layout::RestoreKeys;
use crate::location::claim::{Claim, Purpose};
use crate::location::trial::{Fate, Trial};
use crate::location::{Location, guard};
use crate::volume::expiry;

pub(super) fn at(now: Timestamp, dry_run: bool) -> PruneOptions<'static> {
    PruneOptions {
        now,
        host: "here",
        dry_run,
        keep: Keep::Unexpired,
        schedule: None,
        cluster: None,
        own_only: false,
        longer: None,
        stopped: None,
        going: None,
        wanted: None,
        heirs: None,
        leaves: None,
    }
}

pub(super) async fn left(store: &Store, text: &str) -> Vec<String> {
    let folder = BackupKeys::new(&name(text)).folder();
    let found = store.entries(&folder, 100).await.unwrap();
    found
        .into_iter()
        .map(|entry| entry.key[folder.len()..].to_owned())
        .collect()
}

#[tokio::test]
async fn delete_removes_everything_and_only_that() {
    let store = Store::in_memory();
    write(&store, "one", None).await;
    write(&store, "one-more", None).await;
    delete(&store, &name("one"), "here").await.unwrap();
    assert!(left(&store, "one").await.is_empty());
    assert_eq!(left(&store, "one-more").await.len(), 5);
    assert_eq!(
        delete(&store, &name("one"), "here")
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
    assert!(left(&store, "one").await.is_empty());
    let claim = Claim::take(&store, &name("busy"), Purpose::Create, "here")
        .await
        .unwrap();
    let error = delete(&store, &name("busy"), "here").await.unwrap_err();
    assert!(error.to_string().contains("not complete"), "{error}");
    claim.release().await;
}

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
async fn a_delete_that_died_at_any_step_is_finished_by_prune() {
    // 5 files and the claim: fail at each removal in turn.
    for dies_at in 0..6 {
        let memory = Store::in_memory();
        write(&memory, "one", None).await;
        let removed = std::sync::atomic::AtomicUsize::new(0);
        let trial = Trial::of(&memory).judged(move |verb, _| {
            let dead = verb == "delete"
                && removed.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= dies_at;
            if dead { Fate::Vanishes } else { Fate::Happens }
        });
        let failed = delete(&trial.store(), &name("one"), "here").await.is_err();
        assert_eq!(failed, dies_at < 5);
        let (found, _) = list(&memory).await.unwrap();
        assert_eq!(
            found.len(),
            usize::from(dies_at == 0),
            "the marker goes first"
        );
        assert!(
            left(&memory, "one")
                .await
                .iter()
                .any(|file| file.starts_with("claim-"))
        );

        let trial = Trial::of(&memory);
        let mut location = Location::in_memory("x");
        location.store = trial.store();
        let now = Timestamp::now();
        assert_eq!(
            prune(&location, &at(now, false)).await.unwrap(),
            [],
            "not dead yet"
        );
        for file in left(&memory, "one").await {
            trial.age(
                &format!("backups/one/{file}"),
                SignedDuration::from_mins(61),
            );
        }
        let would = prune(&location, &at(now, true)).await.unwrap();
        let did = prune(&location, &at(now, false)).await.unwrap();
        assert_eq!(would, did);
        let stands = usize::from(dies_at == 0) * 5;
        assert_eq!(left(&memory, "one").await.len(), stands, "{dies_at}");
        let expected = match dies_at {
            0 => Pruned::StaleClaim(name("one")),
            _ => Pruned::Stale(name("one")),
        };
        assert_eq!(did, [expected]);
    }
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

/// A marker of a schedule's backup, so many days old.
pub(super) fn of_schedule(
    name: &str,
    schedule: &str,
    phase: &str,
    now: Timestamp,
    days: i64,
) -> String {
    let started = now - SignedDuration::from_hours(24 * days);
    format!(
        r#"{{"apiVersion":"velero.io/v1","kind":"Backup","metadata":{{"name":"{name}","labels":{{"{SCHEDULE_NAME}":"{schedule}"}},"annotations":{{"kubectl-backup/version":"0.1.0"}}}},"status":{{"phase":"{phase}","startTimestamp":"{started}","expiration":"{}"}}}}"#,
        started + SignedDuration::from_hours(24 * 5),
    )
}

#[tokio::test]
async fn of_each_schedule_as_many_stay_as_are_kept_and_the_newest_good_one_always() {
    let location = Location::in_memory("x");
    let store = &location.store;
    let now = Timestamp::now();
    for (text, schedule, phase, days) in [
        ("n9", "nightly", "Completed", 9),
        ("n4", "nightly", "Completed", 4),
        ("n3", "nightly", "PartiallyFailed", 3),
        ("n2", "nightly", "Completed", 2),
        ("n1", "nightly", "Completed", 1),
        ("w8", "weekly", "Completed", 8),
        ("w7", "weekly", "Completed", 7),
        ("w1", "weekly", "PartiallyFailed", 1),
    ] {
        write(store, text, None).await;
        let marker = of_schedule(text, schedule, phase, now, days);
        let key = BackupKeys::new(&name(text)).marker();
        store.put(&key, marker.into()).await.unwrap();
    }
    // Velero's own backups of that schedule neither count nor go.
    let theirs = of_schedule("v0", "nightly", "Completed", now, 0).replace("kubectl-backup/", "x/");
    let key = BackupKeys::new(&name("v0")).marker();
    store.put(&key, theirs.into()).await.unwrap();
    // A run is at work on this one.
    store
        .put(
            "backups/n3/claim-0a.json",
            r#"{"purpose":"delete","host":"x","uploads":[]}"#.into(),
        )
        .await
        .unwrap();

    let last = |text: &str| {
        let why = "it is expired, and the newest good backup of schedule weekly".to_owned();
        Pruned::Kept(name(text), why)
    };
    let expired = |text: &str| Pruned::Expired(name(text));
    let beyond = |text: &str| Pruned::Beyond(name(text));
    let keep = |keep: Option<usize>, schedule, dry_run| PruneOptions {
        keep: keep.map_or(Keep::Unexpired, Keep::Each),
        schedule,
        ..at(now, dry_run)
    };
    for (options, would) in [
        (
            keep(None, None, true),
            vec![expired("n9"), last("w7"), expired("w8")],
        ),
        (
            keep(Some(2), None, true),
            vec![beyond("n4"), expired("n9"), last("w7"), expired("w8")],
        ),
        (
            keep(Some(1), Some("weekly"), true),
            vec![last("w7"), expired("w8")],
        ),
        (
            keep(Some(0), Some("nightly"), true),
            vec![beyond("n2"), beyond("n4"), expired("n9")],
        ),
        (keep(Some(1), Some("absent"), true), vec![]),
    ] {
        assert_eq!(
            prune(&location, &options).await.unwrap(),
            would,
            "{options:?}"
        );
    }
    let done = prune(&location, &keep(Some(2), Some("nightly"), false))
        .await
        .unwrap();
    assert_eq!(done, [beyond("n4"), expired("n9")]);
    for (text, stands) in [
        ("n4", false),
        ("n9", false),
        ("n3", true),
        ("n2", true),
        ("n1", true),
        ("w8", true),
        ("v0", true),
    ] {
        assert_eq!(!left(store, text).await.is_empty(), stands, "{text}");
    }
}

#[tokio::test]
async fn one_that_is_being_deleted_costs_no_other_its_place() {
    let location = Location::in_memory("x");
    let store = &location.store;
    let now = Timestamp::now();
    for (text, days) in [("n9", 9), ("n8", 8), ("n7", 7)] {
        write(store, text, None).await;
        let marker = of_schedule(text, "nightly", "Completed", now, days);
        let key = BackupKeys::new(&name(text)).marker();
        store.put(&key, marker.into()).await.unwrap();
    }
    let is_going = |backup: &Name| backup.as_str() == "n7";
    let options = PruneOptions {
        keep: Keep::Each(1),
        going: Some(Going(&is_going)),
        ..at(now, true)
    };
    let last = "it is expired, and the newest good backup of schedule nightly".to_owned();
    let would = [Pruned::Kept(name("n8"), last), Pruned::Expired(name("n9"))];
    assert_eq!(prune(&location, &options).await.unwrap(), would);
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
async fn a_backup_whose_files_are_lost_costs_no_whole_one_its_place() {
    let location = Location::in_memory("x");
    let store = &location.store;
    let now = Timestamp::now();
    for (text, days) in [
        ("n9", 9),
        ("n8", 8),
        ("n4", 4),
        ("n3", 3),
        ("n2", 2),
        ("n1", 1),
    ] {
        write(store, text, None).await;
        let marker = of_schedule(text, "nightly", "Completed", now, days);
        let key = BackupKeys::new(&name(text)).marker();
        store.put(&key, marker.into()).await.unwrap();
    }
    let lost = |text: &str| {
        let why = "its archive, its index, its key or a snapshot of it is not there, so that it does not count";
        Pruned::Kept(name(text), why.to_owned())
    };
    let keys = |text: &str| BackupKeys::new(&name(text));
    store.delete(&keys("n1").archive()).await.unwrap();
    store.delete(&keys("n3").index()).await.unwrap();
    let keep = PruneOptions {
        keep: Keep::Each(2),
        ..at(now, false)
    };
    let done = prune(&location, &keep).await.unwrap();
    let expired = |text: &str| Pruned::Expired(name(text));
    assert_eq!(done, [lost("n1"), lost("n3"), expired("n8"), expired("n9")]);
    for text in ["n4", "n2"] {
        assert_eq!(left(store, text).await.len(), 5, "{text}");
    }
    // The newest ones are lost, and those that are whole are expired.
    let later = now + SignedDuration::from_hours(24 * 2);
    let id = |text: &str| keep::Id {
        encrypted: false,
        name: name(text),
    };
    let stores = crate::catalog::prune::Stores {
        plain: store.clone(),
        vault: store.vault(None),
    };
    let rows = crate::catalog::prune::fates::rows(&stores, &[id("n2"), id("n4"), id("n1")])
        .await
        .unwrap();
    let looked = async || {
        let (known, keep) = (Default::default(), Keep::Unexpired);
        let fates = crate::catalog::prune::fates::fates(&stores, &rows, &known, keep, None, later);
        fates.await.unwrap().0
    };
    let fates = looked().await;
    assert_eq!(fates.get(&id("n4")), Some(&keep::Fate::Expired));
    assert_eq!(fates.get(&id("n2")), None);
    store.delete(&keys("n2").archive()).await.unwrap();
    let fates = looked().await;
    assert_eq!(fates.get(&id("n4")), Some(&keep::Fate::Last));
}

#[tokio::test]
async fn an_encrypted_backup_whose_key_is_lost_costs_no_whole_one_its_place() {
    let location = Location::in_memory("x");
    let plain = &location.store;
    let now = Timestamp::now();
    let sealed = || plain.vault(Some(&crate::crypt::BackupKey::generate()));
    let secrets = r#""kubectl-backup/encryption":"secrets","kubectl-backup/version""#;
    for (text, days) in [("p4", 4), ("p3", 3), ("s2", 2), ("x1", 1), ("a0", 0)] {
        let store = match &text[..1] {
            "s" | "x" => sealed(),
            _ => plain.clone(),
        };
        let keys = BackupKeys::new(&name(text));
        write(&store, text, None).await;
        let mut marker = of_schedule(text, "nightly", "Completed", now, days);
        if text == "a0" {
            marker = marker.replace(r#""kubectl-backup/version""#, secrets);
            for key in [keys.secrets_archive(), keys.secrets_index()] {
                store.put(&key, "1".into()).await.unwrap();
            }
        }
        store.put(&keys.marker(), marker.into()).await.unwrap();
        if text == "s2" {
            store.put(&keys.key(), "1".into()).await.unwrap();
        }
    }
    let lost = |text: &str| {
        let why = "its archive, its index, its key or a snapshot of it is not there, so that it does not count";
        Pruned::Kept(name(text), why.to_owned())
    };
    let keep = PruneOptions {
        keep: Keep::Each(2),
        ..at(now, false)
    };
    let done = prune(&location, &keep).await.unwrap();
    assert_eq!(done, [lost("a0"), Pruned::Beyond(name("p4")), lost("x1")]);
    // With its key it counts, and the older plain one has had its time.
    let key = BackupKeys::new(&name("a0")).secrets_key();
    plain.put(&key, "1".into()).await.unwrap();
    let done = prune(&location, &keep).await.unwrap();
    assert_eq!(done, [Pruned::Beyond(name("p3")), lost("x1")]);
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

/// The bytes of all claims of a folder look so much older.
async fn age_claims(trial: &Trial, memory: &Store, text: &str, by: SignedDuration) -> usize {
    let mut claims = left(memory, text).await;
    claims.retain(|file| file.starts_with("claim-"));
    for claim in &claims {
        trial.age(&format!("backups/{text}/{claim}"), by);
    }
    claims.len()
}

#[tokio::test]
async fn a_deletion_that_died_at_any_step_is_finished_by_its_next_attempt() {
    let soon = SignedDuration::from_secs(91);
    // The marker, 4 files and the claim.
    for dies_at in 0..6 {
        let memory = Store::in_memory();
        write(&memory, "one", None).await;
        let removed = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = removed.clone();
        let trial = Trial::of(&memory).judged(move |verb, _| {
            let before = match verb {
                "delete" => count.fetch_add(1, std::sync::atomic::Ordering::SeqCst),
                _ => usize::MAX,
            };
            if before == dies_at {
                // It is not known whether it was done.
                Fate::Forgotten
            } else {
                Fate::Happens
            }
        });
        let first = delete_again(&trial.store(), &name("one"), "here", "u1").await;
        assert_eq!(first.is_err(), dies_at < 5, "{dies_at}: {first:?}");

        let trial = Trial::of(&memory);
        let store = trial.store();
        if dies_at < 5 {
            // Nobody knows yet that the first attempt is dead.
            let refused = delete_again(&store, &name("one"), "here", "u1").await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), Kind::AlreadyExists, "{dies_at}: {refused}");
            assert_eq!(age_claims(&trial, &memory, "one", soon).await, 1);
            // To another owner it is a claim like any other.
            for (owner, kind) in [("u", Kind::NotFound), ("u2", Kind::NotFound)] {
                let refused = delete_again(&store, &name("one"), "here", owner).await;
                assert_eq!(refused.unwrap_err().kind(), kind, "{dies_at}");
            }
            assert_eq!(age_claims(&trial, &memory, "one", soon).await, 1);
        }
        delete_again(&store, &name("one"), "here", "u1")
            .await
            .unwrap();
        assert_eq!(left(&memory, "one").await, [""; 0], "{dies_at}");
        delete_again(&store, &name("one"), "here", "u1")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn of_a_deletion_that_fails_again_and_again_one_or_two_claims_are_left() {
    let memory = Store::in_memory();
    write(&memory, "one", None).await;
    let index = BackupKeys::new(&name("one")).index();
    // One file that may not be removed, then nothing that may be.
    for is_denied in [true, false] {
        let index = index.clone();
        let trial = Trial::of(&memory).judged(move |verb, key| match verb {
            "delete" if !is_denied || key == index => Fate::Refused,
            _ => Fate::Happens,
        });
        for attempt in 1..6 {
            // Each is older than the one before.
            let ages = (1..).map(|n| SignedDuration::from_secs(91 * n));
            for (file, by) in left(&memory, "one").await.iter().zip(ages) {
                trial.age(&format!("backups/one/{file}"), by);
            }
            let failed = delete_again(&trial.store(), &name("one"), "here", "u1").await;
            let failed = failed.unwrap_err();
            assert!(
                failed.sentence().contains("is refused"),
                "{attempt}: {failed}"
            );
            let mut claims = left(&memory, "one").await;
            claims.retain(|file| file.starts_with("claim-"));
            assert!(claims.len() <= 2, "{attempt}: {claims:?}");
        }
    }
    assert!(memory.head(&index).await.is_ok());
}

#[tokio::test]
async fn a_deletion_takes_over_what_its_owner_claims_and_nothing_else() {
    let memory = Store::in_memory();
    let trial = Trial::of(&memory);
    let store = trial.store();
    write(&memory, "one", None).await;
    for run in ["u1-a", "u1-b"] {
        let claim = BackupKeys::new(&name("one")).claim(run);
        memory.put(&claim, "no claim".into()).await.unwrap();
    }
    age_claims(&trial, &memory, "one", SignedDuration::from_secs(91)).await;
    let one = name("one");
    let again = || delete_again(&store, &one, "here", "u1");
    // One of another run, dead for less than an hour, and one that is dead for longer: prune's to remove.
    let other = BackupKeys::new(&name("one")).claim("u1");
    memory.put(&other, "no claim".into()).await.unwrap();
    for minutes in [30, 90] {
        trial.age(&other, SignedDuration::from_mins(minutes));
        assert_eq!(again().await.unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(left(&memory, "one").await.len(), 8, "{minutes}");
    }
    memory.delete(&other).await.unwrap();
    again().await.unwrap();
    assert_eq!(left(&memory, "one").await, [""; 0]);
    // Files of nobody stay, and the backup does not count as deleted.
    memory.put("backups/one/x", "x".into()).await.unwrap();
    let refused = again().await.unwrap_err();
    assert!(refused.to_string().contains("not complete"), "{refused}");
    assert_eq!(left(&memory, "one").await, ["x"]);
}

#[tokio::test]
async fn prune_removes_what_a_dead_create_left_and_not_what_is_no_file_of_ours() {
    let memory = Store::in_memory();
    let trial = Trial::of(&memory);
    let mut location = Location::in_memory("x");
    location.store = trial.store();
    let keys = BackupKeys::new(&name("one"));
    let claim = Claim::take(&location.store, &name("one"), Purpose::Create, "here")
        .await
        .unwrap();
    claim.put(&keys.archive(), "half".into()).await.unwrap();
    drop(claim);
    memory
        .put("backups/one/foreign.txt", "x".into())
        .await
        .unwrap();
    let now = Timestamp::now();
    for file in left(&memory, "one").await {
        trial.age(
            &format!("backups/one/{file}"),
            SignedDuration::from_mins(30),
        );
    }
    let done = prune(&location, &at(now, false)).await.unwrap();
    assert!(
        matches!(&done[..], [Pruned::Kept(_, why)] if why.contains("30 minutes")),
        "{done:?}"
    );
    for file in left(&memory, "one").await {
        trial.age(
            &format!("backups/one/{file}"),
            SignedDuration::from_mins(61),
        );
    }
    let done = prune(&location, &at(now, false)).await.unwrap();
    assert!(
        matches!(&done[..], [Pruned::Kept(_, why)] if why.contains("foreign.txt")),
        "{done:?}"
    );
    assert_eq!(left(&memory, "one").await, ["foreign.txt"]);
}

#[tokio::test]
async fn a_hostile_claim_makes_prune_abort_nothing_elsewhere() {
    let memory = Store::in_memory();
    let aborted = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = aborted.clone();
    let trial = Trial::of(&memory).judged(move |verb, key| {
        if verb == "abort" {
            seen.lock().unwrap().push(key.to_owned());
        }
        Fate::Happens
    });
    let mut location = Location::in_memory("x");
    location.store = trial.store();
    let text = r#"{"run":"r","purpose":"create","uploads":[{"key":"backups/two/x","id":"1"},{"key":"backups/one/x","id":"../1"}]}"#;
    memory
        .put("backups/one/claim-r.json", text.into())
        .await
        .unwrap();
    memory
        .put("backups/two/claim-x.json", "not json".into())
        .await
        .unwrap();
    for key in ["backups/one/claim-r.json", "backups/two/claim-x.json"] {
        trial.age(key, SignedDuration::from_hours(2));
    }
    let done = prune(&location, &at(Timestamp::now(), false))
        .await
        .unwrap();
    assert_eq!(
        done,
        [Pruned::Stale(name("one")), Pruned::Stale(name("two"))]
    );
    assert_eq!(*aborted.lock().unwrap(), ["backups/one/x"]);
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

#[tokio::test]
async fn a_run_that_is_not_heard_of_counts_as_at_work_as_long_as_its_fence_lets_it_write() {
    let memory = Store::in_memory();
    let trial = Trial::of(&memory);
    let store = trial.store();
    let claim = Claim::take(&store, &name("one"), Purpose::Create, "node-1")
        .await
        .unwrap();
    let file = left(&memory, "one").await.remove(0);
    let key = format!("backups/one/{file}");
    for (minutes, is_at_work) in [(0, true), (9, true), (10, true), (12, false)] {
        trial.age(&key, SignedDuration::from_mins(minutes));
        let traces = traces(&store, &name("one")).await.unwrap();
        assert!(traces.entry.is_none());
        assert_eq!(traces.at_work.is_some(), is_at_work, "{minutes}");
        if let Some(who) = traces.at_work {
            assert!(who.contains("on node-1"), "{who}");
        }
    }
    claim.release().await;
    // Without a claim nothing is written to ask for the time.
    write(&memory, "two", None).await;
    let silent = Trial::of(&memory).judged(|verb, _| match verb {
        "put" => Fate::Refused,
        _ => Fate::Happens,
    });
    let traces = traces(&silent.store(), &name("two")).await.unwrap();
    assert!(traces.entry.is_some() && traces.at_work.is_none());
}
