use super::*;

#[test]
fn only_files_with_a_run_id_are_taken_for_what_a_run_left() {
    let run = "0123456789abcdef0123456789abcdef";
    for data in [".db", ".db.zst", ".db.zst.age"] {
        assert!(SnapshotKeys::is_data(&format!("{run}{data}")), "{data}");
    }
    assert!(SnapshotKeys::is_data(&SnapshotKeys::data_file(
        run, true, false
    )));
    let (sealed, key) = (
        SnapshotKeys::data_file(run, true, true),
        SnapshotKeys::key_file(run),
    );
    assert!(SnapshotKeys::is_data(&sealed) && sealed.ends_with(".db.zst.age"));
    assert_eq!(SnapshotKeys::key_beside(&sealed), Some(key.clone()));
    assert_eq!(SnapshotKeys::key_beside(&format!("{run}.db.zst")), None);
    let renamed = SnapshotKeys::key_beside("my.db.zst.age");
    assert_eq!(renamed.as_deref(), Some("my.key.age"));
    let recipients = SnapshotKeys::recipients_file(&key).unwrap();
    assert!(SnapshotKeys::is_key(&key) && SnapshotKeys::is_key(&recipients));
    for other in ["key.age", "my.key.age", "manifest.json", &sealed] {
        assert!(!SnapshotKeys::is_key(other), "{other}");
        assert_eq!(SnapshotKeys::recipients_file(other), None, "{other}");
    }
    assert!(SnapshotKeys::is_upload(&format!("{run}.upload.json")));
    for other in [
        "manifest.json",
        "my.db.zst",
        "0123.db.zst",
        "0123456789abcdef0123456789abcdef.dbx",
        "0123456789abcdef0123456789abcdef",
        "0123456789abcdef0123456789abcdef.upload.json",
        "0123456789ABCDEF0123456789ABCDEF.db",
        ".upload.json",
    ] {
        assert!(!SnapshotKeys::is_data(other), "{other}");
    }
    assert!(!SnapshotKeys::is_upload("manifest.json"));
}

#[test]
fn every_file_of_a_backup_has_one_place_in_a_vault_and_what_is_no_ones_has_none() {
    for (key, stands) in [
        ("backups/a/velero-backup.json", "backups/a/manifest.json"),
        ("backups/a/claim-1.json", "backups/a/claim-1.json"),
        ("backups/a/key.age", "backups/a/key.age"),
        ("backups/a/recipients.txt", "backups/a/recipients.txt"),
        ("backups/a/snapshots.json", "backups/a/snapshots.json"),
        ("backups/a/volumes.json", "backups/a/volumes.json.age"),
        ("backups/a/a.tar.gz", "backups/a/a.tar.gz.age"),
        ("backups/a/SHA256SUMS", "backups/a/SHA256SUMS.age"),
        ("backups/a/manifest.json", "backups/a/manifest.json.age"),
        (
            "backups/a/x/velero-backup.json",
            "backups/a/x/velero-backup.json.age",
        ),
    ] {
        let stands = format!("{VAULT}{stands}");
        assert_eq!(Sealed::of(key).key(), stands);
        assert_eq!(
            Sealed::back(&stands),
            Some((key.to_owned(), Sealed::of(key)))
        );
    }
    for odd in [
        "backups/a/velero-backup.json",
        "backups/a/velero-backup.json.age",
        "backups/a/claim-1.json.age",
        "backups/a/recipients.txt.age",
        "backups/a/snapshots.json.age",
        "backups/a/other",
        "backups/a/key",
    ] {
        assert_eq!(Sealed::back(&format!("{VAULT}{odd}")), None, "{odd}");
    }
    assert!(!PROBES.starts_with(&format!("{VAULT}{BACKUPS}")));
}

#[test]
fn only_the_two_files_of_secrets_in_a_backups_own_folder_are_opened_as_such() {
    let keys = BackupKeys::new(&"secrets".parse().unwrap());
    assert_eq!(keys.archive(), "backups/secrets/secrets.tar.gz");
    for sealed in [keys.secrets_archive(), keys.secrets_index()] {
        assert!(BackupKeys::is_sealed_secrets(&sealed), "{sealed}");
        assert!(keys.is_known(&sealed), "{sealed}");
    }
    for other in [
        keys.archive(),
        keys.secrets_key(),
        keys.secrets_recipients(),
        "backups/secrets.tar.gz.age".to_owned(),
        "backups/a/b/secrets.tar.gz.age".to_owned(),
        "restores/a/secrets.tar.gz.age".to_owned(),
    ] {
        assert!(!BackupKeys::is_sealed_secrets(&other), "{other}");
    }
}

#[test]
fn a_folder_is_of_the_repository_that_it_is_named_after() {
    let of = |folder| VolumeKeys::of_folder("c", "n", folder);
    let keys = VolumeKeys::new("c", "n", "u").unwrap();
    assert_eq!(of("u"), Some(keys.clone()));
    assert_eq!(of("u.claims"), Some(keys.clone()));
    assert_eq!(of("u.12"), Some(keys.numbered(12)));
    assert_eq!(of("u.12.claims"), Some(keys.numbered(12)));
    for odd in [
        "u.1",
        "u.0",
        "u.x",
        "u.02",
        "u.2.3",
        "u.2.claims.claims",
        ".claims",
        "..",
        "",
    ] {
        assert_eq!(of(odd), None, "{odd}");
    }
}

#[test]
fn the_keys_of_a_snapshot_lie_in_its_folder() {
    let (cluster, name) = ("zvc78xnnz7".parse().unwrap(), "daily.1".parse().unwrap());
    let keys = SnapshotKeys::new(&cluster, &name);
    assert_eq!(keys.folder(), "plugins/etcd-launcher/zvc78xnnz7/daily.1/");
    assert_eq!(
        keys.manifest(),
        "plugins/etcd-launcher/zvc78xnnz7/daily.1/manifest.json"
    );
    assert!(keys.upload("x").starts_with(&keys.folder()));
    assert!(
        keys.folder()
            .starts_with(&SnapshotKeys::cluster_folder(&cluster))
    );
    assert!(
        TOP_FOLDERS
            .iter()
            .any(|top| ETCD_SNAPSHOTS.starts_with(&format!("{top}/")))
    );
}
