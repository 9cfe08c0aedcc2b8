//! How many backups of a schedule stay, and which of them count.

use super::*;
use crate::location::Location;

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
