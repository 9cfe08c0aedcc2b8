use std::sync::atomic::AtomicUsize;

use jiff::SignedDuration;

use super::*;
use crate::archive::write::Sink;
use crate::location::trial::{Fate, Trial, Turns, next_schedule};

fn name() -> Name {
    "nightly".parse().unwrap()
}

fn keys() -> BackupKeys {
    BackupKeys::new(&name())
}

async fn take(store: &Store) -> Result<Claim> {
    Claim::take(store, &name(), Purpose::Create, "here").await
}

async fn keys_in(store: &Store) -> Vec<String> {
    let entries = store.entries("backups/nightly/", 1000).await.unwrap();
    entries.into_iter().map(|entry| entry.key).collect()
}

/// What a run of a schedule does with its claim.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Story {
    Create,
    /// Writes a file and gives up.
    GiveUp,
    Delete,
    Prune,
}

/// Runs that hold the folder now, and markers that were written.
#[derive(Default)]
struct Watch {
    inside: AtomicUsize,
    markers: AtomicUsize,
}

async fn live(store: Store, story: Story, who: usize, watch: Arc<Watch>) {
    let purpose = match story {
        Story::Create | Story::GiveUp => Purpose::Create,
        Story::Delete => Purpose::Delete,
        Story::Prune => Purpose::Prune,
    };
    let Ok(claim) = Claim::take(&store, &name(), purpose, &format!("host-{who}")).await else {
        return;
    };
    let others = watch.inside.fetch_add(1, Ordering::SeqCst);
    assert_eq!(others, 0, "two runs hold one folder");
    let body = Bytes::from(format!("of {who}"));
    match story {
        Story::Create | Story::GiveUp => {
            claim.put(&keys().archive(), body.clone()).await.unwrap();
            if story == Story::GiveUp || claim.put_marker(body).await.is_err() {
                watch.inside.fetch_sub(1, Ordering::SeqCst);
                return claim.withdraw().await;
            }
            watch.markers.fetch_add(1, Ordering::SeqCst);
        }
        Story::Delete | Story::Prune => {
            if claim.found().marker.is_some() {
                claim.remove(&keys().marker()).await.unwrap();
            }
            for file in claim.found().files.iter().chain(&claim.found().claims) {
                claim.remove(&file.key).await.unwrap();
            }
        }
    }
    // What is left of it is the claim's own removal.
    watch.inside.fetch_sub(1, Ordering::SeqCst);
    claim.release().await;
}

/// Every order in which the puts, deletes and half listings of these runs can come, over a folder that `before` prepared.
async fn every_order(stories: &[Story], before: fn(&Trial) -> &'static [&'static str]) -> usize {
    let mut orders = 0;
    for claims_last in [false, true] {
        let mut schedule = Some(Vec::new());
        while let Some(choices) = schedule {
            let memory = Store::in_memory();
            let trial = Trial::of(&memory);
            for key in before(&trial) {
                let content = match key.contains("claim-") {
                    true => r#"{"run":"dead","purpose":"create"}"#,
                    false => "of nobody",
                };
                memory.put(key, content.into()).await.unwrap();
            }
            let (turns, watch) = (Turns::of(stories.len()), Arc::new(Watch::default()));
            let mut runs = Vec::new();
            for (who, story) in stories.iter().copied().enumerate() {
                let store = trial.clone().in_turn(&turns, who, claims_last).store();
                let (over, watch) = (turns.until_over(who), watch.clone());
                runs.push(tokio::spawn(async move {
                    live(store, story, who, watch).await;
                    drop(over);
                }));
            }
            let ways = turns.drive(&choices).await;
            for run in runs {
                run.await.unwrap();
            }
            assert!(watch.markers.load(Ordering::SeqCst) <= 1, "{choices:?}");
            if let Some(marker) = memory.find(&keys().marker(), 100).await.unwrap() {
                let archive = memory.find(&keys().archive(), 100).await.unwrap();
                assert_eq!(archive, Some(marker), "a mixed backup: {choices:?}");
            }
            orders += 1;
            schedule = next_schedule(choices, &ways);
        }
    }
    orders
}

#[tokio::test]
async fn two_creates_never_both_go_on_in_any_order_of_their_steps() {
    let orders = every_order(&[Story::Create, Story::Create], |_| &[]).await;
    assert!(orders > 1000, "{orders}");
}

#[tokio::test]
async fn a_create_that_gives_up_and_another_never_mix() {
    let orders = every_order(&[Story::GiveUp, Story::Create], |_| &[]).await;
    assert!(orders > 1000, "{orders}");
}

#[tokio::test]
async fn a_create_and_a_delete_of_one_name_never_mix() {
    let whole = |_: &Trial| -> &'static [&'static str] {
        &[
            "backups/nightly/nightly.tar.gz",
            "backups/nightly/velero-backup.json",
        ]
    };
    let orders = every_order(&[Story::Create, Story::Delete], whole).await;
    assert!(orders > 100, "{orders}");
    every_order(&[Story::Delete, Story::Delete], whole).await;
}

#[tokio::test]
async fn a_prune_of_a_dead_run_and_anything_else_never_mix() {
    let dead = |trial: &Trial| -> &'static [&'static str] {
        trial.age(
            "backups/nightly/claim-dead.json",
            SignedDuration::from_hours(2),
        );
        &[
            "backups/nightly/nightly.tar.gz",
            "backups/nightly/claim-dead.json",
        ]
    };
    every_order(&[Story::Prune, Story::Create], dead).await;
    every_order(&[Story::Prune, Story::Prune], dead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_creates_at_once_have_at_most_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b").display().to_string();
    let spec = crate::api::BackupStorageLocation::at("local", &path, &[]);
    let folder = crate::location::open(&spec, &Default::default())
        .unwrap()
        .store;
    let mut won = 0;
    for store in [Store::in_memory(), folder] {
        for round in 0..20 {
            let name: Name = format!("nightly-{round}").parse().unwrap();
            let mut runs = tokio::task::JoinSet::new();
            for who in 0..8 {
                let (store, name) = (store.clone(), name.clone());
                runs.spawn(async move {
                    tokio::time::sleep(Duration::from_micros(who * 300)).await;
                    let claim = Claim::take(&store, &name, Purpose::Create, "here")
                        .await
                        .ok()?;
                    let body = Bytes::from(format!("of {who}"));
                    claim
                        .put(&claim.keys().archive(), body.clone())
                        .await
                        .unwrap();
                    let stands = claim.put_marker(body).await;
                    if stands.is_err() {
                        claim.withdraw().await;
                        return None;
                    }
                    claim.release().await;
                    Some(who)
                });
            }
            let winners: Vec<_> = runs.join_all().await.into_iter().flatten().collect();
            assert!(winners.len() <= 1, "{winners:?}");
            won += winners.len();
            if let Some(who) = winners.first() {
                let archive = store
                    .get(&BackupKeys::new(&name).archive(), 100)
                    .await
                    .unwrap();
                assert_eq!(archive, format!("of {who}"));
            }
            let left = store
                .entries(&BackupKeys::new(&name).folder(), 100)
                .await
                .unwrap();
            assert_eq!(left.len(), winners.len() * 2, "{left:?}");
        }
    }
    assert!(won > 0);
}

#[tokio::test]
async fn what_holds_the_name_is_said() {
    let memory = Store::in_memory();
    let trial = Trial::of(&memory);
    let store = trial.store();
    let holder = take(&store).await.unwrap();
    let error = take(&store).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    let text = error.to_string();
    assert!(
        text.contains("another run is creating backup nightly right now (on here, since"),
        "{text}"
    );
    assert_eq!(keys_in(&store).await.len(), 1, "the second withdrew");

    trial.age(&holder.lease.key, SignedDuration::from_mins(20));
    let error = take(&store).await.map(|_| ()).unwrap_err();
    assert!(
        error
            .hint_text()
            .unwrap()
            .contains("no sign of life for 20 minutes"),
        "{error:?}"
    );

    trial.age(&holder.lease.key, SignedDuration::from_mins(61));
    for purpose in [Purpose::Create, Purpose::Delete] {
        let error = Claim::take(&store, &name(), purpose, "x")
            .await
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("died"), "{error}");
        assert!(error.hint_text().unwrap().contains("kubectl backup prune"));
    }
    let prune = Claim::take(&store, &name(), Purpose::Prune, "x")
        .await
        .unwrap();
    prune.withdraw().await;

    holder.put_marker("{}".into()).await.unwrap();
    holder.release().await;
    let error = take(&store).await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "backup nightly exists already");

    memory.delete(&keys().marker()).await.unwrap();
    memory
        .put("backups/nightly/foreign", "x".into())
        .await
        .unwrap();
    let error = take(&store).await.map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("files of no known run"),
        "{error}"
    );
}

#[tokio::test]
async fn giving_up_leaves_nothing_and_finishing_leaves_the_backup() {
    let store = Store::in_memory();
    let claim = take(&store).await.unwrap();
    claim.put(&keys().logs(), "log".into()).await.unwrap();
    let mut upload = claim.upload(&keys().archive()).await.unwrap();
    upload.write(vec![7; 20 << 20].into()).await.unwrap();
    let named = read_claim(&store, &claim.lease.key).await.unwrap().unwrap();
    assert_eq!(
        named.uploads.len(),
        1,
        "the upload is named before its parts are sent"
    );
    assert_eq!(named.uploads[0].key, keys().archive());
    upload.finish().await.unwrap();
    assert_eq!(keys_in(&store).await.len(), 3);
    claim.withdraw().await;
    assert!(keys_in(&store).await.is_empty());

    let claim = take(&store).await.unwrap();
    claim.put(&keys().logs(), "log".into()).await.unwrap();
    claim.put_marker("{}".into()).await.unwrap();
    claim.release().await;
    assert_eq!(keys_in(&store).await, [keys().logs(), keys().marker()]);
}

#[tokio::test]
async fn a_claim_writes_only_its_own_folders_files() {
    let store = Store::in_memory();
    let claim = take(&store).await.unwrap();
    for key in [
        "backups/other/x",
        "backups/nightly/",
        "backups/nightly/../x",
        &keys().marker(),
        &keys().claim("x"),
    ] {
        assert!(claim.put(key, "x".into()).await.is_err(), "{key}");
        assert!(claim.upload(key).await.is_err(), "{key}");
    }
}

#[tokio::test]
async fn a_run_that_slept_too_long_writes_nothing_more_and_removes_nothing() {
    let store = Store::in_memory();
    let claim = take(&store).await.unwrap();
    claim.put(&keys().logs(), "log".into()).await.unwrap();
    let mut upload = claim.upload(&keys().archive()).await.unwrap();
    upload.write(vec![7; 9 << 20].into()).await.unwrap();
    let now = claim.lease.refreshed.load(Ordering::SeqCst);
    claim
        .lease
        .refreshed
        .store(now.saturating_sub(601_000), Ordering::SeqCst);
    if now < 601_000 {
        claim.lease.lost.store(true, Ordering::SeqCst);
    }
    let before = keys_in(&store).await;
    assert!(claim.put(&keys().results(), "x".into()).await.is_err());
    assert!(upload.write(vec![7; 9 << 20].into()).await.is_err());
    assert!(upload.finish().await.is_err());
    assert!(claim.confirm().await.is_err());
    assert!(claim.put_marker("{}".into()).await.is_err());
    let error = claim.lease.alive().unwrap_err();
    assert!(error.to_string().contains("was lost"), "{error}");
    claim.withdraw().await;
    assert_eq!(keys_in(&store).await, before);
}

#[tokio::test]
async fn whoever_is_stopped_waits_for_no_other_run() {
    let store = Store::in_memory();
    let mut claim = take(&store).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    claim.stopped_by(Some(&stopped));
    let other = keys().claim("other");
    store.put(&other, "{}".into()).await.unwrap();
    let refused = claim.confirm().await.unwrap_err();
    assert_eq!(refused.kind(), Kind::AlreadyExists, "{refused}");
    stop.send_replace(true);
    let refused = claim.confirm().await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Interrupted, "{refused}");
    // Alone it ends what it began.
    store.delete(&other).await.unwrap();
    claim.confirm().await.unwrap();
    claim.withdraw().await;
}

#[tokio::test]
async fn a_claim_that_somebody_removed_is_lost() {
    let store = Store::in_memory();
    let claim = take(&store).await.unwrap();
    store.delete(&claim.lease.key).await.unwrap();
    assert!(claim.confirm().await.is_err());
    assert!(claim.put(&keys().logs(), "log".into()).await.is_err());
}

#[tokio::test]
async fn a_claim_that_somebody_removed_is_not_brought_back_by_its_refresher() {
    let store = Store::in_memory();
    let claim = take(&store).await.unwrap();
    store.delete(&claim.lease.key).await.unwrap();
    let refused = claim.lease.add_upload(&keys().archive(), "1").await;
    assert!(refused.is_err());
    assert_eq!(keys_in(&store).await, Vec::<String>::new());
    assert!(claim.put(&keys().logs(), "x".into()).await.is_err());
}

#[tokio::test]
async fn a_file_that_vanished_before_the_marker_stops_the_run() {
    for (left, what) in [(None, "removed"), (Some("short"), "replaced")] {
        let store = Store::in_memory();
        let claim = take(&store).await.unwrap();
        claim.put(&keys().logs(), "the log".into()).await.unwrap();
        match left {
            None => store.delete(&keys().logs()).await.unwrap(),
            Some(other) => store.put(&keys().logs(), other.into()).await.unwrap(),
        }
        let refused = claim.put_marker("{}".into()).await.unwrap_err();
        assert!(
            refused.to_string().contains("-logs.gz"),
            "{what}: {refused}"
        );
        claim.withdraw().await;
        assert_eq!(keys_in(&store).await, Vec::<String>::new(), "{what}");
    }
}

#[tokio::test]
async fn another_claim_or_marker_at_the_end_stops_the_run() {
    let store = Store::in_memory();
    let claim = take(&store).await.unwrap();
    let other = keys().claim("other");
    store.put(&other, "{}".into()).await.unwrap();
    let error = claim.put_marker("{}".into()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    store.delete(&other).await.unwrap();
    store.put(&keys().marker(), "theirs".into()).await.unwrap();
    let error = claim.put_marker("ours".into()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    claim.withdraw().await;
    assert_eq!(store.get(&keys().marker(), 100).await.unwrap(), "theirs");
}

/// Fails the first marker's PUT in this way.
fn first_marker(fate: Fate) -> impl Fn(&str, &str) -> Fate + Send + Sync {
    let sent = AtomicUsize::new(0);
    move |verb, key| {
        if verb == "put"
            && key.ends_with("velero-backup.json")
            && sent.fetch_add(1, Ordering::SeqCst) == 0
        {
            return fate;
        }
        Fate::Happens
    }
}

#[tokio::test]
async fn a_lost_answer_to_the_marker_is_settled_by_reading() {
    for overwrites in [false, true] {
        let mut trial = Trial::of(&Store::in_memory()).judged(first_marker(Fate::Forgotten));
        if overwrites {
            trial = trial.overwriting();
        }
        let store = trial.store();
        let claim = take(&store).await.unwrap();
        assert_eq!(claim.refuses, !overwrites);
        claim.put_marker("ours".into()).await.unwrap();
        claim.release().await;
        assert_eq!(keys_in(&store).await, [keys().marker()]);
    }
}

#[tokio::test]
async fn a_marker_that_is_refused_does_not_stand_and_one_without_answer_is_not_known() {
    let store = Trial::of(&Store::in_memory())
        .judged(first_marker(Fate::Refused))
        .store();
    let claim = take(&store).await.unwrap();
    let error = claim.put_marker("ours".into()).await.unwrap_err();
    assert!(error.to_string().contains("does not stand"), "{error}");
    claim.withdraw().await;
    assert_eq!(keys_in(&store).await.len(), 1, "the claim stays for prune");

    let silent = |verb: &str, key: &str| match (verb, key.ends_with("velero-backup.json")) {
        ("put", true) => Fate::Forgotten,
        ("get", true) => Fate::Vanishes,
        _ => Fate::Happens,
    };
    let memory = Store::in_memory();
    let store = Trial::of(&memory).judged(silent).store();
    let claim = take(&store).await.unwrap();
    claim.put(&keys().logs(), "log".into()).await.unwrap();
    let error = claim.put_marker("ours".into()).await.unwrap_err();
    assert!(error.to_string().contains("not known whether"), "{error}");
    claim.withdraw().await;
    assert_eq!(
        keys_in(&memory).await.len(),
        3,
        "nothing is deleted after the marker was sent"
    );
}

#[tokio::test]
async fn what_may_still_land_keeps_the_claim() {
    for fate in [Fate::Vanishes, Fate::Forgotten] {
        let memory = Store::in_memory();
        let store = Trial::of(&memory)
            .judged(
                move |verb, key| match verb == "put" && key.ends_with("-logs.gz") {
                    true => fate,
                    false => Fate::Happens,
                },
            )
            .store();
        let claim = take(&store).await.unwrap();
        let key = claim.lease.key.clone();
        assert!(claim.put(&keys().logs(), "log".into()).await.is_err());
        claim.withdraw().await;
        assert_eq!(keys_in(&memory).await, [key], "{fate:?}");
    }
}

#[tokio::test]
async fn a_write_that_is_dropped_halfway_keeps_the_claim() {
    let memory = Store::in_memory();
    let store = Trial::of(&memory)
        .judged(
            |verb, key| match verb == "put" && key.ends_with("-logs.gz") {
                true => Fate::Hangs,
                false => Fate::Happens,
            },
        )
        .store();
    let claim = take(&store).await.unwrap();
    let logs = keys().logs();
    let put = claim.put(&logs, "log".into());
    assert!(
        tokio::time::timeout(Duration::from_millis(20), put)
            .await
            .is_err()
    );
    claim.withdraw().await;
    assert_eq!(keys_in(&memory).await.len(), 1);
}

#[tokio::test]
async fn who_withdraws_beside_another_tools_backup_of_the_name_leaves_its_files() {
    let store = Store::in_memory();
    let claim = take(&store).await.unwrap();
    for key in [keys().archive(), keys().index(), keys().logs()] {
        claim.put(&key, "ours".into()).await.unwrap();
    }
    // It knows no claims, and its names are ours.
    for key in [keys().archive(), keys().logs(), keys().marker()] {
        store.put(&key, "theirs".into()).await.unwrap();
    }
    let refused = claim.put_marker("ours".into()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::AlreadyExists);
    claim.withdraw().await;
    let mut theirs = vec![keys().archive(), keys().logs(), keys().marker()];
    theirs.sort();
    assert_eq!(keys_in(&store).await, theirs);
}
