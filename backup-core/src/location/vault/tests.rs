use futures::StreamExt as _;
use proptest::prelude::*;

use super::*;
use crate::archive::write::Sink as _;
use crate::catalog;
use crate::layout::BackupKeys;
use crate::location::claim::{Claim, Purpose};
use crate::location::{Location, Store};
use crate::name::Name;

fn sample(length: usize) -> Bytes {
    (0..length).map(|i| (i * 13 + i / 255) as u8).collect()
}

async fn whole(store: &Store, key: &str) -> Result<Vec<u8>> {
    let mut stream = store.stream(key).await?;
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

fn backup(name: &str) -> Backup {
    let mut backup = Backup {
        api_version: "velero.io/v1".to_owned(),
        kind: "Backup".to_owned(),
        ..Backup::default()
    };
    backup.metadata.name = name.to_owned();
    for (key, value) in [
        (CLUSTER_UID, "uid-of-cluster"),
        ("note", "annotation of a user"),
    ] {
        backup
            .metadata
            .annotations
            .insert(key.to_owned(), value.to_owned());
    }
    for (key, value) in [(SCHEDULE_NAME, "nightly"), ("team", "label-of-a-user")] {
        backup
            .metadata
            .labels
            .insert(key.to_owned(), value.to_owned());
    }
    backup
        .spec
        .included_namespaces
        .push("hidden-namespace".to_owned());
    backup.status.phase = crate::api::Phase::Completed;
    backup.status.failure_reason = Some("of hidden-namespace".to_owned());
    backup
}

fn marker_of(name: &str) -> Bytes {
    serde_json::to_vec_pretty(&backup(name)).unwrap().into()
}

#[tokio::test]
async fn files_are_sealed_and_read_back_whole_and_in_ranges() {
    let plain = Store::in_memory();
    let key = BackupKey::generate();
    let vault = plain.vault(Some(&key));
    for length in [0, 1, 65_536, 65_537, 200_000] {
        let bytes = sample(length);
        vault.put("backups/a/x", bytes.clone()).await.unwrap();
        assert_eq!(whole(&vault, "backups/a/x").await.unwrap(), bytes);
        assert_eq!(vault.head("backups/a/x").await.unwrap().size, length as u64);
        assert_eq!(vault.get("backups/a/x", 1 << 20).await.unwrap(), bytes);
        let stands = plain.get("plugins/kubectl-backup/backups/a/x.age", 1 << 20);
        assert_ne!(stands.await.unwrap(), bytes);
    }
    assert!(plain.find("backups/a/x", 1).await.unwrap().is_none());
    assert!(vault.get("backups/a/x", 10).await.is_err());
    assert!(vault.range("backups/a/x", 199_999..200_001).await.is_err());
    assert!(vault.find("backups/a/absent", 10).await.unwrap().is_none());
    let listed = vault.entries("backups/a/", 10).await.unwrap();
    assert_eq!(
        (listed[0].key.as_str(), listed[0].size),
        ("backups/a/x", 200_000)
    );
    assert_eq!(vault.folders("backups/").await.unwrap(), ["a"]);
    // What is of no backup is the location's own.
    vault.put("restores/r/j", "x".into()).await.unwrap();
    assert_eq!(plain.get("restores/r/j", 10).await.unwrap(), "x");
}

#[tokio::test]
async fn a_file_that_was_cut_down_to_nothing_is_not_taken_for_an_empty_one() {
    let plain = Store::in_memory();
    let vault = plain.vault(Some(&BackupKey::generate()));
    let stands = "plugins/kubectl-backup/backups/a/x.age";
    vault.put("backups/a/x", sample(70_000)).await.unwrap();
    let whole_file = plain.get(stands, 1 << 20).await.unwrap();
    let cut = whole_file.slice(..HEAD as usize + 16);
    assert_eq!(plain_size(cut.len() as u64), Some((1, 0)));
    plain.put(stands, cut).await.unwrap();
    for refused in [
        whole(&vault, "backups/a/x").await.err(),
        vault.get("backups/a/x", 1 << 20).await.err(),
    ] {
        assert_eq!(refused.unwrap().kind(), Kind::Corrupt);
    }
    vault.put("backups/a/x", Bytes::new()).await.unwrap();
    assert_eq!(whole(&vault, "backups/a/x").await.unwrap(), b"");
}

#[tokio::test]
async fn what_is_uploaded_in_parts_is_one_sealed_file() {
    for length in [3, (8 << 20) - 1, 8 << 20, 20_000_000] {
        let plain = Store::in_memory();
        let key = BackupKey::generate();
        let vault = plain.vault(Some(&key));
        let bytes = sample(length);
        let mut upload = vault.upload("backups/a/a.tar.gz").unwrap();
        for piece in bytes.chunks(700_001) {
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let uploaded = upload.finish().await.unwrap();
        assert_eq!(uploaded.bytes, length as u64);
        assert_eq!(uploaded.sha256, crate::location::sha256(&bytes));
        assert!(whole(&vault, "backups/a/a.tar.gz").await.unwrap() == bytes);
        let stands = plain.get("plugins/kubectl-backup/backups/a/a.tar.gz.age", 1 << 30);
        assert!(key.open(&stands.await.unwrap()).unwrap() == bytes);
    }
}

#[tokio::test]
async fn without_the_key_the_part_in_the_clear_is_all_that_is_seen_and_altering_it_is_found() {
    let plain = Store::in_memory();
    let key = BackupKey::generate();
    let (sealed, locked) = (plain.vault(Some(&key)), plain.vault(None));
    let name = Name::foreign("a").unwrap();
    let keys = BackupKeys::new(&name);
    let marker = marker_of("a");
    sealed.put(&keys.index(), "index".into()).await.unwrap();
    sealed.put(&keys.marker(), marker.clone()).await.unwrap();
    assert_eq!(sealed.get(&keys.marker(), 1 << 20).await.unwrap(), marker);
    let stands = plain.get("plugins/kubectl-backup/backups/a/manifest.json", 1 << 20);
    let stands = String::from_utf8(stands.await.unwrap().to_vec()).unwrap();
    for hidden in [
        "hidden-namespace",
        "label-of-a-user",
        "annotation of a user",
    ] {
        assert!(!stands.contains(hidden), "{stands}");
    }
    let entry = catalog::get(&plain, &name).await.unwrap();
    assert!(entry.encrypted);
    assert_eq!(entry.backup.metadata.labels[SCHEDULE_NAME], "nightly");
    assert_eq!(
        entry.backup.metadata.annotations[CLUSTER_UID],
        "uid-of-cluster"
    );
    assert!(catalog::names_us(&entry.backup));
    let (all, warnings) = catalog::list(&plain).await.unwrap();
    assert_eq!((all.len(), warnings.len()), (1, 0));
    let refused = locked.get(&keys.index(), 100).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unauthorized);
    assert!(refused.hint_text().unwrap().contains("--identity"));
    assert!(locked.put(&keys.index(), "x".into()).await.is_err());
    let mut upload = locked.upload(&keys.archive()).unwrap();
    assert!(upload.write(sample(9 << 20)).await.is_err());
    let other = plain.vault(Some(&BackupKey::generate()));
    for file in [keys.index(), keys.marker()] {
        let refused = other.get(&file, 1 << 20).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    }
    for (from, to) in [
        ("Completed", "Failed"),
        ("nightly", "another"),
        ("\"version\": 1", "\"version\": 2"),
    ] {
        let altered = stands.replacen(from, to, 1);
        assert_ne!(altered, stands);
        plain
            .put(
                "plugins/kubectl-backup/backups/a/manifest.json",
                altered.into(),
            )
            .await
            .unwrap();
        let refused = sealed.get(&keys.marker(), 1 << 20).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    }
}

#[tokio::test]
async fn claims_create_and_delete_encrypted_backups_as_they_do_plain_ones() {
    let location = Location::in_memory("m");
    let plain = location.store.clone();
    let recipients = include_str!("../../../../tests/fixtures/encryption/first.pub");
    let recipients = crate::crypt::Recipients::parse([recipients]).unwrap();
    let sealed = location.sealed(&recipients, None).unwrap();
    let name = Name::foreign("a").unwrap();
    let claim = Claim::take(&sealed.store, &name, Purpose::Create, "host")
        .await
        .unwrap();
    let keys = claim.keys().clone();
    let files = sealed.key_files.as_ref().unwrap();
    claim.put(&keys.key(), files.key.clone()).await.unwrap();
    claim
        .put(&keys.recipients(), files.recipients.clone())
        .await
        .unwrap();
    let mut archive = claim.upload(&keys.archive()).await.unwrap();
    archive.write(sample(9 << 20)).await.unwrap();
    archive.finish().await.unwrap();
    claim.put(&keys.index(), "index".into()).await.unwrap();
    claim.put_marker(marker_of("a")).await.unwrap();
    claim.release().await;
    let listed = plain.entries("plugins/kubectl-backup/", 100).await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|e| e.key.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(
        listed,
        [
            "a.tar.gz.age",
            "index.jsonl.zst.age",
            "key.age",
            "manifest.json",
            "recipients.txt"
        ]
    );
    // A second one of the name is refused.
    let again = Claim::take(&plain.vault(None), &name, Purpose::Create, "host").await;
    assert_eq!(again.err().unwrap().kind(), Kind::AlreadyExists);
    catalog::delete(&plain.vault(None), &name, "host")
        .await
        .unwrap();
    assert!(plain.entries("plugins/", 100).await.unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_range_is_that_of_the_whole(start in 0_u64..210_000, length in 0_u64..210_000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let key = BackupKey::generate();
            let vault = Store::in_memory().vault(Some(&key));
            let bytes = sample(210_000);
            vault.put("backups/a/x", bytes.clone()).await.unwrap();
            let range = start..(start + length).min(210_000);
            let got = vault.range("backups/a/x", range.clone()).await.unwrap();
            let meant = bytes.slice(range.start as usize..range.end as usize);
            assert!(got == meant, "{range:?}");
        });
    }
}
