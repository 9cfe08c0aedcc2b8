use std::io::Write;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::layout::RestoreKeys;
use crate::location::claim::{Claim, Purpose};
use crate::location::trial::{Fate, Trial};
use crate::location::{Location, sha256};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn gz(text: &str) -> Bytes {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap().into()
}

fn marker(name: &str, expires: Option<Timestamp>) -> String {
    let expires = expires.map_or(String::new(), |at| format!(r#","expiration":"{at}""#));
    format!(
        r#"{{"apiVersion":"velero.io/v1","kind":"Backup","metadata":{{"name":"{name}","annotations":{{"kubectl-backup/version":"0.1.0"}}}},"status":{{"phase":"Completed","startTimestamp":"2026-11-2{}T00:00:00Z"{expires}}}}}"#,
        name.len() % 10
    )
}

/// A backup as a run of ours leaves it.
async fn write(store: &Store, text: &str, expires: Option<Timestamp>) {
    let keys = BackupKeys::new(&name(text));
    let claim = Claim::take(store, &name(text), Purpose::Create, "here")
        .await
        .unwrap();
    let mut digests = Digests::new();
    for key in [keys.archive(), keys.index(), keys.logs()] {
        claim.put(&key, key.clone().into()).await.unwrap();
        digests = digests.add(&key, &sha256(key.as_bytes()));
    }
    let marker = Bytes::from(marker(text, expires));
    let digests = digests.add_bytes(&keys.marker(), &marker);
    claim
        .put(&keys.digests(), digests.to_bytes())
        .await
        .unwrap();
    claim.put_marker(marker).await.unwrap();
    claim.release().await;
}

fn at(now: Timestamp, dry_run: bool) -> PruneOptions<'static> {
    PruneOptions {
        now,
        host: "here",
        dry_run,
        keep: None,
        schedule: None,
        cluster: None,
    }
}

async fn left(store: &Store, text: &str) -> Vec<String> {
    let folder = BackupKeys::new(&name(text)).folder();
    let found = store.entries(&folder, 100).await.unwrap();
    found
        .into_iter()
        .map(|entry| entry.key[folder.len()..].to_owned())
        .collect()
}

#[tokio::test]
async fn what_has_a_marker_is_listed_and_what_can_not_be_read_is_a_warning() {
    let store = Store::in_memory();
    write(&store, "bbb", None).await;
    write(&store, "aa", None).await;
    store.put("backups/no-marker/x", "1".into()).await.unwrap();
    store
        .put("backups/broken/velero-backup.json", "{".into())
        .await
        .unwrap();
    store
        .put("backups/liar/velero-backup.json", marker("aa", None).into())
        .await
        .unwrap();
    store
        .put("backups/big/velero-backup.json", vec![b' '; 5 << 20].into())
        .await
        .unwrap();
    store
        .put(
            "backups/deep/velero-backup.json",
            "[".repeat(100_000).into(),
        )
        .await
        .unwrap();
    store
        .put("backups/Bad_Name/velero-backup.json", "{}".into())
        .await
        .unwrap();
    let (found, warnings) = list(&store).await.unwrap();
    let names: Vec<_> = found.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["aa", "bbb"]);
    assert_eq!(warnings.len(), 5, "{warnings:#?}");
    for word in ["broken", "liar", "big", "deep", "Bad_Name"] {
        assert!(
            warnings.iter().any(|warning| warning.contains(word)),
            "{word}"
        );
    }
}

#[tokio::test]
async fn a_name_that_is_not_there_brings_names_like_it() {
    let store = Store::in_memory();
    let error = get(&store, &name("x")).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("no backups yet"));
    for text in ["nightly-20261120", "nightly-20261121", "before-upgrade"] {
        write(&store, text, None).await;
    }
    assert_eq!(
        get(&store, &name("before-upgrade"))
            .await
            .unwrap()
            .name
            .as_str(),
        "before-upgrade"
    );
    for (asked, hint) in [
        ("before-upgrad", "before-upgrade"),
        ("nightly", "nightly-20261120, nightly-20261121"),
        ("upgrade", "before-upgrade"),
    ] {
        let error = get(&store, &name(asked)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(
            error.hint_text().unwrap().contains(hint),
            "{asked}: {:?}",
            error.hint_text()
        );
    }
    assert!(
        get(&store, &name("zzz"))
            .await
            .unwrap_err()
            .hint_text()
            .unwrap()
            .contains("backup get")
    );
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
    let would = prune(&location, &at(now, true)).await.unwrap();
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
async fn prune_keeps_an_expired_backup_that_a_restore_has_begun_to_read() {
    let memory = Store::in_memory();
    let trial = Trial::of(&memory);
    let mut location = Location::in_memory("x");
    location.store = trial.store();
    let now = Timestamp::now();
    let expired = Some(now - SignedDuration::from_hours(1));
    write(&location.store, "one", expired).await;
    let header = format!(
        r#"{{"format":"{}","backup":"one","optionsHash":"x","started":"{now}","spec":{{"backupName":"one"}}}}"#,
        crate::restore::journal::FORMAT
    );
    let packed = zstd::encode_all(header.as_bytes(), 1).unwrap();
    let journal = "restores/r/journal-000000.jsonl.zst";
    memory.put(journal, packed.into()).await.unwrap();

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
fn of_schedule(name: &str, schedule: &str, phase: &str, now: Timestamp, days: i64) -> String {
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
    let keep = |keep, schedule, dry_run| PruneOptions {
        keep,
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
        let why = "its archive or its index is not there, so that it does not count";
        Pruned::Kept(name(text), why.to_owned())
    };
    let keys = |text: &str| BackupKeys::new(&name(text));
    store.delete(&keys("n1").archive()).await.unwrap();
    store.delete(&keys("n3").index()).await.unwrap();
    let keep = PruneOptions {
        keep: Some(2),
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
    let rows = remove::rows(store, &[name("n2"), name("n4"), name("n1")])
        .await
        .unwrap();
    let (fates, _) = remove::fates(store, &rows, None, None, later)
        .await
        .unwrap();
    assert_eq!(fates.get(&name("n4")), Some(&keep::Fate::Expired));
    assert_eq!(fates.get(&name("n2")), None);
    store.delete(&keys("n2").archive()).await.unwrap();
    let (fates, _) = remove::fates(store, &rows, None, None, later)
        .await
        .unwrap();
    assert_eq!(fates.get(&name("n4")), Some(&keep::Fate::Last));
}

#[tokio::test]
async fn where_no_guard_tells_whose_a_location_is_other_clusters_backups_stay() {
    let mut location = Location::in_memory("x");
    location.shared_with_velero = true;
    let now = Timestamp::now();
    let expired = Some(now - SignedDuration::from_hours(1));
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
    assert_eq!(done, [kept("ours"), kept("theirs")]);
    let known = PruneOptions {
        cluster: Some("a"),
        ..at(now, false)
    };
    let done = prune(&location, &known).await.unwrap();
    assert_eq!(done, [Pruned::Expired(name("ours")), kept("theirs")]);
    assert_eq!(left(&location.store, "theirs").await.len(), 5);
    // A guard said so before.
    location.shared_with_velero = false;
    let done = prune(&location, &known).await.unwrap();
    assert_eq!(done, [Pruned::Expired(name("theirs"))]);
}

#[test]
fn a_backup_that_velero_will_write_again_is_at_work_and_ours_never_is() {
    let of = |text: &str| serde_json::from_str::<Backup>(text).unwrap();
    let ours = marker("one", None).replace("Completed", "Finalizing");
    assert!(!is_at_work(&of(&ours)));
    let theirs = ours.replace("kubectl-backup/", "velero.io/");
    assert!(is_at_work(&of(&theirs)));
    assert!(is_at_work(&of(
        &theirs.replace("Finalizing", "WaitingForPluginOperations")
    )));
    for last in ["Completed", "PartiallyFailed", "Failed", "Deleting"] {
        assert!(
            !is_at_work(&of(&theirs.replace("Finalizing", last))),
            "{last}"
        );
    }
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
async fn what_a_velero_backup_keeps_elsewhere_is_said() {
    let store = Store::in_memory();
    write(&store, "ours", None).await;
    assert!(leaks(&store, &name("ours")).await.unwrap().is_empty());
    let keys = BackupKeys::new(&name("v"));
    for (key, text) in [
        (
            keys.volume_snapshots(),
            r#"[{"status":{"providerSnapshotID":"snap-1"}}]"#,
        ),
        (
            keys.pod_volume_backups(),
            r#"[{"spec":{"pod":{"namespace":"n","name":"p"},"volume":"a"}},{"spec":{"pod":{"namespace":"n","name":"p"},"volume":"b"}}]"#,
        ),
        (
            keys.volume_info(),
            r#"[{"backupMethod":"CSISnapshot","csiSnapshotInfo":{"snapshotHandle":"h"}},{"backupMethod":"CSISnapshot","snapshotDataMoved":true,"pvcName":"data"},{"skipped":true}]"#,
        ),
        (keys.csi_volume_snapshots(), "null"),
    ] {
        store.put(&key, gz(text)).await.unwrap();
    }
    let found = leaks(&store, &name("v")).await.unwrap();
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(
        found[0].contains("snap-1")
            && found[1].contains("n/p a, n/p b")
            && found[2].contains("(h)")
            && found[3].contains("data")
    );
    store
        .put(&keys.volume_info(), "not gzip".into())
        .await
        .unwrap();
    assert_eq!(
        leaks(&store, &name("v")).await.unwrap_err().kind(),
        Kind::Corrupt
    );
    store
        .put(&keys.volume_info(), gz(&" ".repeat(70 << 20)))
        .await
        .unwrap();
    assert_eq!(
        leaks(&store, &name("v")).await.unwrap_err().kind(),
        Kind::Corrupt
    );
}

#[tokio::test]
async fn verify_names_what_was_altered_added_or_lost() {
    let store = Store::in_memory();
    write(&store, "one", None).await;
    let found = verify_files(&store, &name("one")).await.unwrap();
    assert_eq!(
        (found.good.len(), found.problems.len(), found.unlisted.len()),
        (4, 0, 0),
        "{found:?}"
    );
    let keys = BackupKeys::new(&name("one"));
    store.put(&keys.claim("x"), "{}".into()).await.unwrap();
    store.put("backups/one/extra", "x".into()).await.unwrap();
    store.put(&keys.archive(), "altered".into()).await.unwrap();
    store.delete(&keys.logs()).await.unwrap();
    let found = verify_files(&store, &name("one")).await.unwrap();
    assert_eq!(found.unlisted, ["extra"]);
    assert_eq!(found.problems.len(), 2, "{found:?}");
    assert!(
        found
            .problems
            .iter()
            .any(|p| p.contains("one-logs.gz is missing"))
    );
    assert!(
        found
            .problems
            .iter()
            .any(|p| p.starts_with("one.tar.gz is not"))
    );
    store
        .put(&keys.digests(), Digests::new().to_bytes())
        .await
        .unwrap();
    let found = verify_files(&store, &name("one")).await.unwrap();
    assert!(found.problems[0].contains("velero-backup.json is not named"));
    store.delete(&keys.digests()).await.unwrap();
    let found = verify_files(&store, &name("one")).await.unwrap();
    assert_eq!(found.problems, ["SHA256SUMS is missing"]);
}

#[test]
fn digests_are_read_as_written_and_nothing_else_is() {
    let digests = Digests::new()
        .add_bytes("b", b"")
        .add("backups/x/a", &sha256(b"1"));
    let text = String::from_utf8(digests.to_bytes().to_vec()).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.ends_with("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b\n")
    );
    assert_eq!(Digests::parse(text.as_bytes()).unwrap(), digests);
    let good = sha256(b"1");
    for bad in [
        format!("{good} a"),
        format!("{}  a", &good[1..]),
        format!("{}  a", good.to_uppercase()),
        format!("{good}  ../a"),
        format!("{good}  "),
        format!("{good}  a/b"),
        format!("{good}  a\n{good}  a"),
        "\n".to_owned(),
    ] {
        assert_eq!(
            Digests::parse(bad.as_bytes()).unwrap_err().kind(),
            Kind::Corrupt,
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn restores_are_listed_finished_or_not() {
    let store = Store::in_memory();
    let record = r#"{"apiVersion":"velero.io/v1","kind":"Restore","metadata":{"name":"done"},"spec":{"backupName":"b"},"status":{"phase":"Completed","startTimestamp":"2020-01-01T00:00:00Z"}}"#;
    store
        .put("restores/done/velero-restore.json", record.into())
        .await
        .unwrap();
    store
        .put("restores/done/restore-done-logs.gz", gz("log"))
        .await
        .unwrap();
    store
        .put("restores/running/journal-000001.jsonl.zst", "x".into())
        .await
        .unwrap();
    store
        .put("restores/broken/velero-restore.json", "{".into())
        .await
        .unwrap();
    store
        .put("restores/velero/restore-velero-results.gz", "x".into())
        .await
        .unwrap();
    // Ours, killed between its results and its record.
    for file in ["restore-late-results.gz", "journal-000000.jsonl.zst"] {
        let key = format!("restores/late/{file}");
        store.put(&key, "x".into()).await.unwrap();
    }
    let found = list_restores(&store).await.unwrap();
    let phases: Vec<_> = found
        .iter()
        .map(|restore| format!("{} {}", restore.metadata.name, restore.status.phase))
        .collect();
    assert_eq!(phases[0], "done Completed");
    assert!(
        phases.contains(&"running InProgress".to_owned())
            && phases.contains(&"late InProgress".to_owned())
            && phases.contains(&"velero Unknown".to_owned()),
        "{phases:?}"
    );
    assert_eq!(found.len(), 5);
    assert_eq!(
        get_restore(&store, &name("done"))
            .await
            .unwrap()
            .spec
            .backup_name,
        "b"
    );
    let error = get_restore(&store, &name("dome")).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("done"));
    let log = read_restore_file(&store, &name("done"), RestoreFile::Logs)
        .await
        .unwrap();
    assert_eq!(log, gz("log"));
    let error = read_restore_file(&store, &name("running"), RestoreFile::Logs)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn the_newest_backup_of_a_schedule_is_a_completed_one() {
    let backup = |name: &str, schedule: &str, phase: Phase| {
        let mut backup = Backup::default();
        let labels = &mut backup.metadata.labels;
        labels.insert(SCHEDULE_NAME.to_owned(), schedule.to_owned());
        backup.status.phase = phase;
        Entry {
            name: name.parse().unwrap(),
            backup,
            raw: Bytes::new(),
        }
    };
    let backups = [
        backup("a", "nightly", Phase::Completed),
        backup("b", "nightly", Phase::Completed),
        backup("c", "nightly", Phase::PartiallyFailed),
        backup("d", "nightly", Phase::InProgress),
        backup("e", "nightly", Phase::Failed),
        backup("f", "weekly", Phase::PartiallyFailed),
    ];
    let newest =
        |schedule, partially| newest_of(&backups, schedule, partially).map(|e| e.name.as_str());
    assert_eq!(newest("nightly", false), Some("b"));
    assert_eq!(newest("nightly", true), Some("c"));
    assert_eq!(newest("weekly", false), None);
    assert_eq!(newest("weekly", true), Some("f"));
    assert_eq!(newest("other", true), None);
}

#[tokio::test]
async fn a_restore_is_deleted_and_its_neighbours_are_not() {
    let store = Store::in_memory();
    for restore in ["one", "one-more"] {
        let keys = RestoreKeys::new(&name(restore));
        for key in [keys.journal(0), keys.journal(1), keys.logs(), keys.marker()] {
            store.put(&key, "x".into()).await.unwrap();
        }
    }
    delete_restore(&store, &name("one")).await.unwrap();
    let left = store.entries("restores/", 100).await.unwrap();
    assert_eq!(left.len(), 4);
    assert!(
        left.iter()
            .all(|file| file.key.starts_with("restores/one-more/"))
    );
}
