use bytes::Bytes;

use super::*;
use crate::catalog::Digests;
use crate::layout::PROBES;
use crate::location::Store;
use crate::location::trial::{Fate, Trial};
use crate::progress::Silent;
use crate::records::snapshots::owned;

const MAKER: &str = "uid-of-the-maker";

fn name() -> Name {
    "nightly".parse().unwrap()
}

fn options() -> CopyOptions {
    CopyOptions {
        name: name(),
        without_volumes: false,
        cluster: None,
        host: "here".to_owned(),
    }
}

fn marker(phase: &str, annotation: &str) -> Bytes {
    format!(
        r#"{{"apiVersion":"velero.io/v1","kind":"Backup","metadata":{{"name":"nightly","annotations":{{{annotation}}}}},"status":{{"phase":"{phase}"}}}}"#
    )
    .into()
}

/// A backup of ours, in a location of this name.
async fn made(location: &str) -> Location {
    made_with(location, &[]).await
}

/// The same with these files besides.
async fn made_with(location: &str, more: &[(String, Bytes)]) -> Location {
    let location = Location::in_memory(location);
    let store = &location.store;
    let keys = BackupKeys::new(&name());
    let mut digests = Digests::new();
    // The archive is larger than a part.
    let archive = Bytes::from(vec![7; 9 << 20]);
    let files = [
        (keys.archive(), archive),
        (keys.index(), "index".into()),
        (keys.logs(), "log".into()),
    ];
    for (key, bytes) in files.into_iter().chain(more.iter().cloned()) {
        digests = digests.add_bytes(&key, &bytes);
        store.put(&key, bytes).await.unwrap();
    }
    let marker = marker(
        "Completed",
        &format!(r#""kubectl-backup/cluster-uid":"{MAKER}""#),
    );
    let digests = digests.add_bytes(&keys.marker(), &marker);
    store
        .put(&keys.digests(), digests.to_bytes())
        .await
        .unwrap();
    store.put(&keys.signature(), "signed".into()).await.unwrap();
    store.put(&keys.marker(), marker).await.unwrap();
    location
}

fn going() -> watch::Receiver<bool> {
    watch::channel(false).1
}

async fn copied(source: &Location, target: &Location) -> Result<Copied> {
    copy(source, target, &options(), going(), &Silent).await
}

/// Every file of the backup with its bytes.
async fn all(location: &Location) -> Vec<(String, Bytes)> {
    let mut found = Vec::new();
    for entry in location
        .store
        .entries("backups/nightly/", 100)
        .await
        .unwrap()
    {
        let bytes = location.store.get(&entry.key, 64 << 20).await.unwrap();
        found.push((entry.key, bytes));
    }
    found
}

#[tokio::test]
async fn a_copy_has_the_same_bytes_and_a_second_one_is_none() {
    let (source, target) = (made("a").await, Location::in_memory("b"));
    let done = copied(&source, &target).await.unwrap();
    assert!(!done.stood && done.warnings.is_empty(), "{done:?}");
    assert_eq!(done.files, 6);
    assert_eq!(all(&target).await, all(&source).await);
    let again = copied(&source, &target).await.unwrap();
    assert_eq!(
        again,
        Copied {
            stood: true,
            ..done
        }
    );
    assert_eq!(all(&target).await, all(&source).await);
    // Who may write there from now on is the cluster whose backup it is.
    let ours = guard::read(&target, Some(MAKER)).await.unwrap();
    assert_eq!(ours, guard::Guard::Ours);
}

#[tokio::test]
async fn the_files_of_volumes_do_not_come_along_and_that_is_said() {
    let rows = format!(
        r#"{{"format":"kubectl-backup/volumes/1","cluster":"c","volumes":[{{"namespace":"n","claim":"x","claimUid":"u","result":"saved",
        "data":[{{"method":"files","source":"live","repository":1,"snapshot":"{}","began":"2026-11-30T10:00:00Z","ended":"2026-11-30T10:00:01Z"}}]}}]}}"#,
        "a".repeat(64)
    );
    let keys = BackupKeys::new(&name());
    let source = made_with("a", &[(keys.volumes(), rows.into())]).await;
    let target = Location::in_memory("b");
    let done = copied(&source, &target).await.unwrap();
    assert!(done.lacks_volumes, "{done:?}");
    let said = "not in the copy: 1 snapshot of a volume stays in its repository (restic/c/n/u/)";
    assert_eq!(done.warnings, [said]);
    assert_eq!(all(&target).await, all(&source).await);
    let options = CopyOptions {
        without_volumes: true,
        ..options()
    };
    let again = copy(&source, &target, &options, going(), &Silent)
        .await
        .unwrap();
    assert!(again.stood && !again.lacks_volumes, "{again:?}");
    assert_eq!(again.warnings, [said]);
}

#[tokio::test]
async fn a_copy_notes_that_snapshots_in_their_storage_are_the_originals() {
    let keys = BackupKeys::new(&name());
    let source = made_with("a", &[(keys.snapshots(), SNAPSHOT.into())]).await;
    let target = Location::in_memory("b");
    copied(&source, &target).await.unwrap();
    assert!(!lacks(&target.store, &target.store).await);
    // No copy of its own has noted it where it was made.
    assert!(lacks(&source.store, &source.store).await);
}

#[tokio::test]
async fn where_that_can_not_be_noted_the_copy_stands_and_says_what_lacks() {
    let keys = BackupKeys::new(&name());
    let source = made_with("a", &[(keys.snapshots(), SNAPSHOT.into())]).await;
    for verb in ["put", "get"] {
        let plain = Location::in_memory("b");
        let trial = Trial::of(&plain.store).judged(move |is, key| {
            match is == verb && key.contains("/snapshots/") {
                true => Fate::Refused,
                false => Fate::Happens,
            }
        });
        let target = Location {
            store: trial.store(),
            ..plain.clone()
        };
        let options = CopyOptions {
            without_volumes: true,
            ..options()
        };
        let done = copy(&source, &target, &options, going(), &Silent).await;
        let done = done.unwrap();
        assert!(done.lacks_note && !done.lacks_volumes, "{done:?}");
        let said = done.warnings.last().unwrap();
        for part in ["snapshots/r-1.json", "delete nightly --location b --force"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(all(&plain).await, all(&source).await);
        assert!(lacks(&plain.store, &plain.store).await);
    }
}

/// What a backup names of a snapshot in its storage.
const SNAPSHOT: &str = r#"{"format":"kubectl-backup/snapshots/1","snapshots":[{"method":"snapshot","cluster":"c","run":"r-1","driver":"d.io","handle":"snap-1"}]}"#;

/// Whether nobody would know any more in this location of the snapshot that the backup names there.
async fn lacks(store: &Store, there: &Store) -> bool {
    let names = owned(there, &name()).await.unwrap().cuts;
    assert_eq!(names.len(), 1);
    let known = known::Known::read(store).await.unwrap();
    let about = known.about(store, &name(), Some(&names)).await.unwrap();
    assert_eq!(about.count(), 0);
    about.lacks().is_some()
}

#[tokio::test]
async fn what_is_damaged_is_refused_and_nothing_of_it_stays_in_the_target() {
    let keys = BackupKeys::new(&name());
    let altered = Bytes::from(vec![8; 9 << 20]);
    let claimed = Digests::new().add_bytes("claim-x.json", b"x").to_bytes();
    for (key, bytes, says) in [
        (
            keys.archive(),
            Some(altered),
            "nightly.tar.gz is not what was written",
        ),
        (
            keys.logs(),
            Some("lo".into()),
            "nightly-logs.gz is not what was written",
        ),
        (keys.logs(), None, "nightly-logs.gz is missing"),
        (keys.digests(), None, "SHA256SUMS is missing"),
        (
            keys.digests(),
            Some("x".into()),
            "SHA256SUMS can not be read",
        ),
        (
            keys.digests(),
            Some(claimed),
            "velero-backup.json is not what was written",
        ),
    ] {
        let (source, target) = (made("a").await, Location::in_memory("b"));
        match bytes {
            Some(bytes) => source.store.put(&key, bytes).await.unwrap(),
            None => source.store.delete(&key).await.unwrap(),
        }
        let refused = copied(&source, &target).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{key}: {refused}");
        assert!(refused.to_string().contains(says), "{key}: {refused}");
        assert_eq!(all(&target).await, [], "{key}");
    }
}

#[tokio::test]
async fn another_backup_of_that_name_stays_as_it_is() {
    let source = made("a").await;
    let keys = BackupKeys::new(&name());
    for (key, says) in [
        (keys.marker(), "it is not this one"),
        (keys.digests(), "SHA256SUMS is another one there"),
        (keys.archive(), "nightly.tar.gz is missing there"),
    ] {
        let target = made("b").await;
        let stands = target.store.get(&key, 64 << 20).await.unwrap();
        let mut other = stands.to_vec();
        if key == keys.archive() {
            other.pop();
        } else {
            other[0] = b' ';
        }
        target.store.put(&key, other.into()).await.unwrap();
        let before = all(&target).await;
        let refused = copied(&source, &target).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::AlreadyExists, "{refused}");
        assert!(refused.to_string().contains(says), "{refused}");
        assert_eq!(all(&target).await, before);
    }
}

#[tokio::test]
async fn the_same_place_by_another_name_is_no_second_one() {
    let source = made("a").await;
    let mut same = source.clone();
    same.name = "b".to_owned();
    let before = all(&source).await;
    let refused = copied(&source, &same).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    assert_eq!(all(&source).await, before);
    assert_eq!(source.store.entries(PROBES, 10).await.unwrap(), []);
}

#[tokio::test]
async fn an_encrypted_backup_is_copied_as_it_stands_and_a_plain_one_not_where_all_are_to_be_encrypted()
 {
    let recipient = include_str!("../../../tests/fixtures/encryption/first.pub");
    let recipients = crate::crypt::Recipients::parse([recipient]).unwrap();
    let source = Location::in_memory("a");
    let sealed = source.sealed(&recipients, None).unwrap();
    let keys = BackupKeys::new(&name());
    let files = sealed.key_files.clone().unwrap();
    sealed.store.put(&keys.key(), files.key).await.unwrap();
    let whole = marker("Completed", "");
    sealed.store.put(&keys.marker(), whole).await.unwrap();
    let damaged = copied(&source, &Location::in_memory("b")).await;
    let damaged = damaged.unwrap_err().to_string();
    assert!(damaged.contains("recipients.txt is missing"), "{damaged}");
    let names = files.recipients;
    sealed.store.put(&keys.recipients(), names).await.unwrap();
    let list = keys.snapshots();
    sealed.store.put(&list, SNAPSHOT.into()).await.unwrap();
    let as_they_stand = |location: &Location| Location {
        store: location.store.ciphertext(),
        ..location.clone()
    };
    let wanted = all(&as_they_stand(&source)).await;
    assert_eq!(wanted.len(), 4);
    // Whether its key is there or not.
    for source in [&source, &source.vault(), &sealed] {
        let target = Location::in_memory("b");
        copied(source, &target).await.unwrap();
        assert_eq!(all(&as_they_stand(&target)).await, wanted);
        assert_eq!(all(&target).await, []);
        assert!(!lacks(&target.store, &target.store.vault(None)).await);
        assert!(copied(source, &target).await.unwrap().stood);
    }
    let mut target = Location::in_memory("b");
    let annotations = &mut target.spec.metadata.annotations;
    annotations.insert(crate::crypt::RECIPIENTS.to_owned(), recipient.to_owned());
    let refused = copied(&made("c").await, &target).await.unwrap_err();
    assert!(refused.to_string().contains("has recipients"), "{refused}");
    assert_eq!(all(&target).await, []);
    // Others open it than what is made there.
    let other = include_str!("../../../tests/fixtures/encryption/second.pub");
    let annotations = &mut target.spec.metadata.annotations;
    annotations.insert(crate::crypt::RECIPIENTS.to_owned(), other.to_owned());
    let warned = copied(&source, &target).await.unwrap().warnings;
    assert!(warned[0].contains("rekey"), "{warned:?}");
}

#[tokio::test]
async fn a_location_of_another_cluster_takes_no_copy() {
    let source = made("a").await;
    let target = Location::in_memory("b");
    guard::write(&target, "another", false).await.unwrap();
    let refused = copied(&source, &target).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::AlreadyExists);
    assert!(refused.to_string().contains("another cluster"), "{refused}");
    assert_eq!(all(&target).await, []);
    // It is asked first of all: nothing is compared, and no probe is written, where nothing is to be written.
    let target = made("b").await;
    guard::write(&target, "another", false).await.unwrap();
    let before = all(&target).await;
    let refused = copied(&source, &target).await.unwrap_err();
    assert!(refused.to_string().contains("another cluster"), "{refused}");
    assert_eq!(all(&target).await, before);
}

#[tokio::test]
async fn a_guard_is_not_passed_by_a_backup_of_nobody_knows_whom() {
    let source = Location::in_memory("a");
    let keys = BackupKeys::new(&name());
    let puts = [
        (keys.archive(), Bytes::from("archive")),
        (keys.marker(), marker("Completed", "")),
    ];
    for (key, bytes) in puts {
        source.store.put(&key, bytes).await.unwrap();
    }
    let target = Location::in_memory("b");
    guard::write(&target, MAKER, false).await.unwrap();
    let refused = copied(&source, &target).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::AlreadyExists);
    assert!(refused.to_string().contains("can not be told"), "{refused}");
    assert_eq!(all(&target).await, []);
    // Who says whose it is, is heard.
    for (cluster, is_let_in) in [("another", false), (MAKER, true)] {
        let of = CopyOptions {
            cluster: Some(cluster.to_owned()),
            ..options()
        };
        let done = copy(&source, &target, &of, going(), &Silent).await;
        assert_eq!(done.is_ok(), is_let_in, "{cluster}: {done:?}");
    }
    assert_eq!(all(&target).await, all(&source).await);
}

#[tokio::test]
async fn a_stop_leaves_nothing_in_the_target() {
    let (source, target) = (made("a").await, Location::in_memory("b"));
    let (stop, stopped) = watch::channel(false);
    stop.send(true).unwrap();
    let done = copy(&source, &target, &options(), stopped, &Silent).await;
    assert_eq!(done.unwrap_err().kind(), Kind::Interrupted);
    assert_eq!(all(&target).await, []);
}

#[tokio::test]
async fn another_tools_backup_is_copied_without_what_a_dead_run_of_ours_left_in_its_folder() {
    let keys = BackupKeys::new(&name());
    let source = Location::in_memory("a");
    let puts = [
        (keys.archive(), Bytes::from("archive")),
        (keys.index(), "left".into()),
        (keys.digests(), "left".into()),
        ("backups/nightly/nightly-other.gz".to_owned(), "x".into()),
    ];
    for (key, bytes) in puts {
        source.store.put(&key, bytes).await.unwrap();
    }
    source
        .store
        .put(&keys.marker(), marker("InProgress", ""))
        .await
        .unwrap();
    let target = Location::in_memory("b");
    let refused = copied(&source, &target).await.unwrap_err();
    assert!(refused.to_string().contains("not finished"), "{refused}");
    let complete = marker("Completed", "");
    source
        .store
        .put(&keys.marker(), complete.clone())
        .await
        .unwrap();
    let done = copied(&source, &target).await.unwrap();
    assert_eq!(done.files, 3);
    let expected = [
        ("backups/nightly/nightly-other.gz".to_owned(), "x".into()),
        (keys.archive(), Bytes::from("archive")),
        (keys.marker(), complete),
    ];
    assert_eq!(all(&target).await, expected);
}

#[tokio::test]
async fn data_of_volumes_elsewhere_is_named_and_left_out_only_where_that_is_said() {
    use std::io::Write as _;
    let keys = BackupKeys::new(&name());
    let source = Location::in_memory("a");
    let copies = r#"[{"metadata":{"name":"p"},"spec":{"pod":{"namespace":"shop","name":"web"},"volume":"data","uploaderType":"kopia"},"status":{"phase":"Completed","snapshotID":"s"}}]"#;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(copies.as_bytes()).unwrap();
    let packed = Bytes::from(packed.finish().unwrap());
    for (key, bytes) in [
        (keys.archive(), Bytes::from("archive")),
        (keys.pod_volume_backups(), packed),
        (keys.marker(), marker("Completed", "")),
    ] {
        source.store.put(&key, bytes).await.unwrap();
    }
    let target = Location::in_memory("b");
    let refused = copied(&source, &target).await.unwrap_err();
    assert!(refused.to_string().contains("shop/web data"), "{refused}");
    assert!(refused.hint_text().unwrap().contains("--without-volumes"));
    assert_eq!(all(&target).await, []);
    let alone = CopyOptions {
        without_volumes: true,
        ..options()
    };
    let done = copy(&source, &target, &alone, going(), &Silent)
        .await
        .unwrap();
    assert!(done.warnings[0].contains("shop/web data"), "{done:?}");
    assert_eq!(all(&target).await, all(&source).await);
}
