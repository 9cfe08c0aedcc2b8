use std::time::{Duration, SystemTime};

use super::*;
use crate::api::BackupStorageLocation;
use crate::etcd::manifest::tests::{keys, manifest};
use crate::location::{Credentials, open};

pub(crate) fn folder() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let mut spec = BackupStorageLocation::at("local", &path, &[]);
    spec.metadata.name = "x".to_owned();
    let store = open(&spec, &Credentials::default()).unwrap().store;
    (folder, store)
}

async fn save(store: &Store, name: &str, created: &str) -> Manifest {
    let keys = keys("c", name);
    let mut manifest = manifest(&keys);
    manifest.created_at = created.parse().unwrap();
    store
        .put(&keys.file(&manifest.data.file), "0123456789".into())
        .await
        .unwrap();
    store
        .put(&keys.manifest(), manifest.bytes().into())
        .await
        .unwrap();
    manifest
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[tokio::test]
async fn snapshots_are_listed_by_time_and_what_can_not_be_read_is_told() {
    let store = Store::in_memory();
    save(&store, "b", "2026-01-02T00:00:00Z").await;
    save(&store, "a", "2026-01-03T00:00:00Z").await;
    store
        .put(&keys("c", "broken").manifest(), "{".into())
        .await
        .unwrap();
    store
        .put(
            &keys("c", "later").manifest(),
            r#"{"format":"etcd-snapshot/9"}"#.into(),
        )
        .await
        .unwrap();
    store
        .put(&keys("c", "unfinished").file("x.db.zst"), "x".into())
        .await
        .unwrap();
    store
        .put(&keys("other", "z").manifest(), "{".into())
        .await
        .unwrap();
    let (found, warnings) = list(&store, &name("c")).await.unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|entry| entry.keys.name().as_str())
        .collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("broken") && warnings[1].contains("version 9"));
    assert_eq!(clusters(&store).await.unwrap(), [name("c"), name("other")]);
}

#[tokio::test]
async fn a_snapshot_that_is_not_there_is_told_with_what_is() {
    let store = Store::in_memory();
    let missed = get(&store, &name("c"), &name("nightly")).await.unwrap_err();
    assert!(missed.hint_text().unwrap().contains("no snapshots"));
    save(&store, "nightly-1", "2026-01-02T00:00:00Z").await;
    let missed = get(&store, &name("c"), &name("nightly")).await.unwrap_err();
    assert_eq!(missed.kind(), Kind::NotFound);
    assert!(missed.hint_text().unwrap().contains("nightly-1"));
    let missed = get(&store, &name("d"), &name("nightly")).await.unwrap_err();
    assert!(missed.hint_text().unwrap().ends_with("of c"));
    store
        .put(&keys("c", "half").file("x.db.zst"), "x".into())
        .await
        .unwrap();
    let missed = get(&store, &name("c"), &name("half")).await.unwrap_err();
    assert!(missed.to_string().contains("not complete"));
    let found = get(&store, &name("c"), &name("nightly-1")).await.unwrap();
    assert_eq!(store.head(&found.data()).await.unwrap().size, 10);
}

#[tokio::test]
async fn a_deleted_snapshot_leaves_nothing_and_one_that_can_not_be_read_can_be_deleted() {
    let (folder, store) = folder();
    save(&store, "a", "2026-01-02T00:00:00Z").await;
    delete(&store, &name("c"), &name("a")).await.unwrap();
    assert!(!folder.path().join("plugins/etcd-launcher/c/a").exists());
    let gone = delete(&store, &name("c"), &name("a")).await.unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
    store
        .put(&keys("c", "b").manifest(), "{".into())
        .await
        .unwrap();
    delete(&store, &name("c"), &name("b")).await.unwrap();
    assert!(
        store
            .find(&keys("c", "b").manifest(), 10)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_sweep_removes_what_dead_runs_left_after_a_day_and_nothing_else() {
    let (folder, store) = folder();
    let run = |digit: &str| digit.repeat(32);
    let saved = save(&store, "a", "2026-01-02T00:00:00Z").await;
    let (a, dead, live) = (keys("c", "a"), keys("c", "dead"), keys("c", "live"));
    let orphan = a.file(&SnapshotKeys::data_file(&run("1"), true, false));
    let alone = dead.file(&SnapshotKeys::data_file(&run("2"), false, false));
    let foreign = dead.file("mine.db.zst");
    let young = live.file(&SnapshotKeys::data_file(&run("3"), true, false));
    let beside_a_broken_one =
        keys("c", "broken").file(&SnapshotKeys::data_file(&run("4"), true, false));
    store
        .put(&keys("c", "broken").manifest(), "{".into())
        .await
        .unwrap();
    for key in [&orphan, &alone, &foreign, &young, &beside_a_broken_one] {
        store.put(key, "x".into()).await.unwrap();
    }
    // An upload that died under way: a note, and parts that no listing shows.
    let sent = dead.file(&SnapshotKeys::data_file(&run("5"), true, false));
    let mut upload = store.upload(&sent).unwrap();
    let id = upload.announce().await.unwrap();
    let note = dead.upload(&run("5"));
    store
        .put(&note, serde_json::to_vec(&id).unwrap().into())
        .await
        .unwrap();
    drop(upload);
    // A note that would lead elsewhere.
    let astray = dead.upload(&run("6"));
    let elsewhere = UploadId {
        key: a.manifest(),
        id: id.id,
    };
    store
        .put(&astray, serde_json::to_vec(&elsewhere).unwrap().into())
        .await
        .unwrap();

    let path = |key: &str| folder.path().join(key);
    let parts = || {
        std::fs::read_dir(folder.path().join(dead.folder()))
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .ends_with(".part")
            })
            .count()
    };
    assert_eq!(
        sweep(&store, &name("c")).await.unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(parts(), 1);
    let two_days_ago = SystemTime::now() - Duration::from_secs(2 * 86_400);
    let data = a.file(&saved.data.file);
    for key in [
        &orphan,
        &alone,
        &foreign,
        &data,
        &note,
        &astray,
        &beside_a_broken_one,
    ] {
        let file = std::fs::File::options()
            .write(true)
            .open(path(key))
            .unwrap();
        file.set_modified(two_days_ago).unwrap();
    }
    let mut removed = sweep(&store, &name("c")).await.unwrap();
    removed.sort();
    let mut expected = vec![orphan, alone, note];
    expected.sort();
    assert_eq!(removed, expected);
    assert_eq!(parts(), 0);
    for kept in [
        &data,
        &a.manifest(),
        &foreign,
        &young,
        &astray,
        &beside_a_broken_one,
    ] {
        assert!(path(kept).exists(), "{kept}");
    }
}
