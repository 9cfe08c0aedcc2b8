use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::api::{AccessMode, BackupStorageLocation};
use crate::archive::write::Sink;
use crate::location::trial::{Fate, Trial};
use crate::location::{Credentials, Location, open, sha256};

fn folder(path: &Path, prefix: &str) -> Location {
    let mut spec = BackupStorageLocation::at("local", &path.display().to_string(), &[]);
    spec.metadata.name = "folder".to_owned();
    spec.spec.object_storage.prefix = Some(prefix.to_owned());
    open(&spec, &Credentials::default()).unwrap()
}

async fn suite(store: &Store) {
    // Nothing yet.
    assert!(store.entries("backups/", 10).await.unwrap().is_empty());
    assert!(store.folders("backups/").await.unwrap().is_empty());
    assert!(store.find("backups/a/x", 10).await.unwrap().is_none());
    let error = store.get("backups/a/x", 10).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("backups/a/x"), "{error}");
    store.delete("backups/a/x").await.unwrap();

    // Small objects.
    store.put("backups/a/x", "one".into()).await.unwrap();
    store.put("backups/a/x", "two!".into()).await.unwrap();
    assert_eq!(
        store.create("backups/a/x", "three".into()).await.unwrap(),
        Created::Exists
    );
    assert_eq!(
        store.create("backups/b/y", "".into()).await.unwrap(),
        Created::Yes
    );
    assert!(store.probe_create("backups/b/z", "z".into()).await.unwrap());
    assert_eq!(store.get("backups/a/x", 4).await.unwrap(), "two!");
    assert_eq!(
        store.get("backups/a/x", 3).await.unwrap_err().kind(),
        Kind::Corrupt
    );
    assert_eq!(store.get("backups/b/y", 0).await.unwrap(), "");
    assert_eq!(store.range("backups/a/x", 1..3).await.unwrap(), "wo");
    assert_eq!(store.range("backups/a/x", 2..2).await.unwrap(), "");
    for range in [2..5, 4..5, 9..12] {
        let error = store.range("backups/a/x", range).await.unwrap_err();
        assert!(
            matches!(error.kind(), Kind::Corrupt | Kind::Other),
            "{error:?}"
        );
    }
    let entry = store.head("backups/a/x").await.unwrap();
    assert_eq!((entry.key.as_str(), entry.size), ("backups/a/x", 4));
    assert!(
        entry
            .modified
            .duration_until(Timestamp::now())
            .as_secs()
            .abs()
            < 60
    );

    // Listings.
    store.put("backups/a/deep/er", "1".into()).await.unwrap();
    store.put("backups.txt", "1".into()).await.unwrap();
    let keys: Vec<_> = store
        .entries("backups/a/", 10)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| (entry.key, entry.size))
        .collect();
    assert_eq!(
        keys,
        [
            ("backups/a/deep/er".to_owned(), 1),
            ("backups/a/x".to_owned(), 4)
        ]
    );
    assert_eq!(
        store.entries("backups/", 2).await.unwrap_err().kind(),
        Kind::Corrupt
    );
    assert_eq!(store.folders("backups/").await.unwrap(), ["a", "b"]);

    // Uploads.
    let usual = [0, 5, PART - 1, PART, PART + 1, 3 * PART + 17].map(|size| (size, false));
    let slim = [SMALL_PART, 3 * SMALL_PART + 17].map(|size| (size, true));
    for (size, is_slim) in usual.into_iter().chain(slim) {
        let bytes: Vec<u8> = (0..size).map(|i| (i / 7) as u8).collect();
        let mut upload = store.upload("backups/a/up").unwrap();
        if is_slim {
            upload = upload.slim();
        }
        for chunk in bytes.chunks(1_000_003) {
            upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        let sent = upload.finish().await.unwrap();
        assert_eq!((sent.bytes, sent.sha256), (size as u64, sha256(&bytes)));
        let mut read = Vec::new();
        let mut body = store.stream("backups/a/up").await.unwrap();
        while let Some(chunk) = body.next().await {
            read.extend_from_slice(&chunk.unwrap());
        }
        assert!(read == bytes, "{size}");
    }
    let mut upload = store.upload("backups/c/up").unwrap();
    upload.write(vec![1; 2 * PART].into()).await.unwrap();
    assert!(
        store.entries("backups/c/", 10).await.unwrap().is_empty(),
        "not visible before it is whole"
    );
    upload.abort().await;
    assert!(
        !store
            .folders("backups/")
            .await
            .unwrap()
            .contains(&"c".to_owned())
    );

    // Keys that lead elsewhere.
    for key in ["../x", "backups/../../x", "/x", "a//b", "a/./b", "a/\0", ""] {
        assert!(store.put(key, "x".into()).await.is_err(), "{key:?}");
        assert!(store.get(key, 10).await.is_err(), "{key:?}");
        assert!(store.upload(key).is_err(), "{key:?}");
    }

    for key in [
        "backups/a/x",
        "backups/a/up",
        "backups/a/deep/er",
        "backups/b/y",
        "backups/b/z",
        "backups.txt",
    ] {
        store.delete(key).await.unwrap();
        store.delete(key).await.unwrap();
    }
    assert!(store.entries("backups/", 10).await.unwrap().is_empty());
    assert!(store.folders("backups/").await.unwrap().is_empty());
}

use crate::location::backend::{PART, SMALL_PART};

#[tokio::test]
async fn memory_and_folders_hold_objects_alike() {
    suite(&Store::in_memory()).await;
    let dir = tempfile::tempdir().unwrap();
    suite(&folder(&dir.path().join("new/one"), "").store).await;
    suite(&folder(&dir.path().join("two"), "/some/prefix/").store).await;
}

#[tokio::test]
async fn two_prefixes_of_one_store_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (folder(dir.path(), "a").store, folder(dir.path(), "b").store);
    a.put("backups/x/y", "1".into()).await.unwrap();
    assert!(b.entries("backups/", 10).await.unwrap().is_empty());
    assert!(dir.path().join("a/backups/x/y").is_file());
}

#[tokio::test]
async fn a_folder_is_private_and_is_not_made_by_reading() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("b");
    let store = folder(&root, "").store;
    assert!(store.folders("backups/").await.unwrap().is_empty());
    assert!(!root.exists());
    store.put("backups/a/x", "1".into()).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("backups/a")), 0o700);
    assert_eq!(mode(&root.join("backups/a/x")), 0o600);
}

#[tokio::test]
async fn links_are_not_followed_and_staged_files_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let store = folder(dir.path(), "").store;
    store.put("backups/a/x", "1".into()).await.unwrap();
    let a = dir.path().join("backups/a");
    symlink("/etc/hostname", a.join("link")).unwrap();
    symlink("/etc", a.join("etc")).unwrap();
    std::fs::write(a.join(".x.abc.part"), "half").unwrap();
    let keys = store.entries("backups/", 10).await.unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(store.get("backups/a/link", 1000).await.is_err());
    symlink("/etc", dir.path().join("backups/evil")).unwrap();
    assert_eq!(store.folders("backups/").await.unwrap(), ["a"]);
}

#[tokio::test]
async fn an_upload_that_was_dropped_is_aborted_by_its_id_and_an_id_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = folder(dir.path(), "").store;
    let mut upload = store.upload("backups/a/x").unwrap();
    upload.write(vec![1; PART].into()).await.unwrap();
    drop(upload);
    let staged: Vec<_> = std::fs::read_dir(dir.path().join("backups/a"))
        .unwrap()
        .collect();
    assert_eq!(staged.len(), 1);
    let file = staged[0].as_ref().unwrap().file_name();
    let id = file.to_str().unwrap().split('.').nth(2).unwrap().to_owned();
    std::fs::write(dir.path().join("keep.part"), "x").unwrap();
    for id in ["../../keep", "", "a/b", "..", &"a".repeat(100)] {
        assert!(
            store.backend.abort("backups/a/x", id).await.is_err(),
            "{id:?}"
        );
    }
    store.backend.abort("backups/a/x", &id).await.unwrap();
    assert!(!dir.path().join("backups/a").exists());
    assert!(dir.path().join("keep.part").exists());
}

#[tokio::test]
async fn a_read_only_location_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = folder(dir.path(), "").spec;
    spec.spec.access_mode = Some(AccessMode::ReadOnly);
    let store = open(&spec, &Credentials::default()).unwrap().store;
    let error = store.put("backups/a/x", "1".into()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Forbidden);
    assert!(error.hint_text().unwrap().contains("accessMode"));
    assert!(store.upload("backups/a/x").is_err());
    assert!(store.delete("backups/a/x").await.is_err());
}

#[tokio::test]
async fn a_file_where_a_folder_should_be_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let store = folder(&dir.path().join("file"), "").store;
    let error = store.put("backups/a/x", "1".into()).await.unwrap_err();
    assert!(
        error.hint_text().unwrap().contains("objectStorage.bucket"),
        "{error:?}"
    );
    assert!(store.folders("backups/").await.is_err());
}

#[tokio::test]
async fn a_failing_upload_is_aborted_and_says_so_once_and_for_all() {
    let memory = Store::in_memory();
    let store = Trial::of(&memory)
        .judged(|verb, _| {
            if verb == "part" {
                Fate::Refused
            } else {
                Fate::Happens
            }
        })
        .store();
    let mut upload = store.upload("backups/a/x").unwrap();
    let mut failed = false;
    for _ in 0..8 {
        failed |= upload.write(vec![1; PART].into()).await.is_err();
    }
    assert!(failed);
    assert!(upload.finish().await.is_err());
    assert!(memory.entries("backups/", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_store_that_overwrites_what_it_should_only_create_is_found_out() {
    let store = Trial::of(&Store::in_memory()).overwriting().store();
    assert!(!store.probe_create("plugins/x", "1".into()).await.unwrap());
}

#[test]
fn providers_and_keys_are_checked_by_name() {
    let location = |provider: &str, bucket: &str, key: &str| {
        let mut spec = BackupStorageLocation::at(provider, bucket, &[]);
        spec.metadata.name = "x".to_owned();
        if !key.is_empty() {
            spec.spec.config.insert(key.to_owned(), "1".to_owned());
        }
        let error = open(&spec, &Credentials::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        format!("{cause} / {}", error.hint_text().unwrap_or_default())
    };
    assert!(location("gpc", "b", "").contains("not known"));
    assert!(location("velero.io/azure", "b", "").contains("storage account"));
    assert!(location("swift", "b", "").contains("\"swift\" is not known"));
    assert!(location("", "b", "").contains("spec.provider"));
    assert!(location("local", "relative", "").contains("absolute"));
    assert!(location("local", "/x", "region").contains("\"region\""));
    let error = location("aws", "b", "s3url");
    assert!(
        error.contains("\"s3url\"") && error.contains("s3Url"),
        "{error}"
    );
    assert!(location("aws", "", "").contains("objectStorage.bucket"));
}
