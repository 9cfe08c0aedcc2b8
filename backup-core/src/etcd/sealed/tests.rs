use super::*;
use crate::Kind;
use crate::etcd::catalog;
use crate::etcd::facts::Member;
use crate::etcd::hashkv::HashKv;
use crate::etcd::manifest::tests::{keys, manifest};
use crate::name::Name;

fn fixture(name: &str) -> &'static str {
    match name {
        "first.pub" => include_str!("../../../../tests/fixtures/encryption/first.pub"),
        "second.pub" => include_str!("../../../../tests/fixtures/encryption/second.pub"),
        "first.key" => include_str!("../../../../tests/fixtures/encryption/first.key"),
        _ => include_str!("../../../../tests/fixtures/encryption/second.key"),
    }
}

fn encryption(name: &str) -> Encryption {
    let recipients = Recipients::parse([fixture(name)]).unwrap();
    Encryption::of(recipients, None).unwrap().unwrap()
}

fn identities(name: &str) -> Identities {
    let mut identities = Identities::default();
    identities.add(name, fixture(name).as_bytes().to_vec());
    identities
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A snapshot as it was before it was sealed.
fn whole(keys: &SnapshotKeys, run: &str) -> Manifest {
    let mut manifest = manifest(keys);
    manifest.data.file = SnapshotKeys::data_file(run, true, true);
    manifest.data.key = Some(SnapshotKeys::key_file(run));
    manifest.data.encryption = Some(AGE.to_owned());
    manifest.config = Some("nightly".to_owned());
    manifest.target_revision = Some(70);
    manifest.facts.revision = 42;
    manifest.facts.encryption_keys = vec!["aescbc:hidden".to_owned()];
    manifest.facts.members = vec![Member {
        name: "hidden-member".to_owned(),
        ..Member::default()
    }];
    manifest.facts.keys.resources = Some([("hidden.example.org".to_owned(), 3)].into());
    manifest.hash_kv = Some(HashKv {
        hash: 987_654_321,
        revision: 42,
        compact_revision: 0,
    });
    manifest.etcd.version = "3.6.16".to_owned();
    manifest.etcd.endpoint = "https://hidden:2379".to_owned();
    manifest
}

/// Stores one, with all its files.
async fn save(store: &Store, called: &str, run: char) -> Manifest {
    let (keys, run) = (keys("c", called), run.to_string().repeat(32));
    let manifest = whole(&keys, &run);
    let (key, files) = encryption("first.pub").key().unwrap();
    let recipients = SnapshotKeys::recipients_file(&SnapshotKeys::key_file(&run)).unwrap();
    let raw = seal(&manifest, &key).unwrap();
    for (file, bytes) in [
        (manifest.data.file.clone(), key.seal("x".into()).unwrap()),
        (SnapshotKeys::key_file(&run), files.key),
        (recipients, files.recipients),
        ("manifest.json".to_owned(), raw.into()),
    ] {
        store.put(&keys.file(&file), bytes).await.unwrap();
    }
    manifest
}

async fn get(store: &Store, called: &str) -> Entry {
    catalog::get(store, &name("c"), &name(called))
        .await
        .unwrap()
}

async fn stored(store: &Store) -> usize {
    store.entries("plugins/", 100).await.unwrap().len()
}

#[tokio::test]
async fn without_an_identity_a_manifest_tells_no_digest_and_no_name_and_with_one_all() {
    let store = Store::in_memory();
    let written = save(&store, "a", 'a').await;
    let entry = get(&store, "a").await;
    assert!(entry.is_locked() && entry.key().is_none());
    let text = String::from_utf8(entry.raw.to_vec()).unwrap();
    let digest = written.snapshot.sha256.as_str();
    for hidden in ["hidden", "987654321", digest] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
    let clear = &entry.manifest;
    assert_eq!(clear.data, written.data);
    assert_eq!(
        (clear.facts.revision, clear.target_revision),
        (42, Some(70))
    );
    assert_eq!(clear.snapshot.bytes, written.snapshot.bytes);
    assert_eq!(clear.config, written.config);
    assert_eq!(clear.etcd.version, "3.6.16");
    let opened = entry.unlocked(&store, &identities("first.key")).await;
    let opened = opened.unwrap();
    assert_eq!(opened.manifest, written);
    assert!(!opened.is_locked() && opened.key().is_some());
    for others in [Identities::default(), identities("second.key")] {
        let refused = entry.unlocked(&store, &others).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Unauthorized, "{refused}");
        let text = refused.sentence();
        assert!(text.contains("age1"), "{text}");
        assert!(refused.hint_text().unwrap().contains("--identity"));
    }
}

#[tokio::test]
async fn what_somebody_altered_or_took_from_another_snapshot_is_refused() {
    let store = Store::in_memory();
    save(&store, "a", 'a').await;
    save(&store, "b", 'b').await;
    let (a, b) = (get(&store, "a").await, get(&store, "b").await);
    let value = |entry: &Entry| -> Value { serde_json::from_slice(&entry.raw).unwrap() };
    let (of_a, of_b) = (value(&a), value(&b));
    type Change = fn(&mut Value, &Value);
    let changes: [(Change, &str); 8] = [
        (|one, _| one["facts"]["revision"] = 43.into(), "altered"),
        (
            |one, _| one["facts"]["alarms"] = serde_json::json!([{"member": "a"}]),
            "altered",
        ),
        (|one, _| one["targetRevision"] = 71.into(), "altered"),
        (|one, _| one["config"] = "other".into(), "altered"),
        (|one, _| one["added"] = 1.into(), "altered"),
        (
            |one, _| one["data"]["sha256"] = "c".repeat(64).into(),
            "altered",
        ),
        (
            |one, other| one["sealed"] = other["sealed"].clone(),
            "another key",
        ),
        (|one, _| one["sealed"] = "nonsense".into(), "altered or cut"),
    ];
    for (number, (change, says)) in changes.into_iter().enumerate() {
        let mut changed = of_a.clone();
        change(&mut changed, &of_b);
        store
            .put(&a.keys.manifest(), changed.to_string().into())
            .await
            .unwrap();
        let entry = get(&store, "a").await;
        let refused = entry.unlocked(&store, &identities("first.key")).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{number}: {refused}");
        let text = refused.sentence();
        assert!(text.contains(says), "{number}: {text}");
    }
    // All of b in the place of a, its key too: the sealed manifest is b's.
    let mut planted = of_b.clone();
    planted["name"] = "a".into();
    let key = b.manifest.data.key.clone().unwrap();
    let bytes = store.get(&b.keys.file(&key), 1 << 20).await.unwrap();
    store.put(&a.keys.file(&key), bytes).await.unwrap();
    store
        .put(&a.keys.manifest(), planted.to_string().into())
        .await
        .unwrap();
    let entry = get(&store, "a").await;
    let refused = entry.unlocked(&store, &identities("first.key")).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("of snapshot \"b\"")
    );
}

#[tokio::test]
async fn rekey_writes_the_key_alone_and_only_for_who_has_it() {
    let store = Store::in_memory();
    save(&store, "a", 'a').await;
    save(&store, "b", 'b').await;
    let entry = get(&store, "a").await;
    let to = encryption("second.pub");
    let refused = rekey(&store, &entry, &identities("second.key"), &to).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Unauthorized);
    rekey(&store, &entry, &identities("first.key"), &to)
        .await
        .unwrap();
    let now = get(&store, "a").await;
    assert_eq!(now.raw, entry.raw);
    let gone = now.unlocked(&store, &identities("first.key")).await;
    assert_eq!(gone.unwrap_err().kind(), Kind::Unauthorized);
    now.unlocked(&store, &identities("second.key"))
        .await
        .unwrap();
    assert_eq!(stored(&store).await, 8);
    // The key of another snapshot, put in its place by whoever may write: it is not wrapped for anybody.
    let (key, other) = (key_file(&now).unwrap().0, get(&store, "b").await);
    let planted = store
        .get(&key_file(&other).unwrap().0, 1 << 20)
        .await
        .unwrap();
    store.put(&key, planted.clone()).await.unwrap();
    let refused = rekey(&store, &now, &identities("first.key"), &to).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(store.get(&key, 1 << 20).await.unwrap(), planted);
    // A plain one has none.
    let plain = keys("c", "plain");
    let bytes = manifest(&plain).bytes();
    store.put(&plain.manifest(), bytes.into()).await.unwrap();
    let plain = get(&store, "plain").await;
    let refused = rekey(&store, &plain, &identities("first.key"), &to).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("is not encrypted")
    );
}

#[tokio::test]
async fn deleting_needs_no_identity_and_leaves_nothing() {
    let store = Store::in_memory();
    save(&store, "a", 'a').await;
    save(&store, "b", 'b').await;
    catalog::delete(&store, &name("c"), &name("a"))
        .await
        .unwrap();
    assert_eq!(stored(&store).await, 4);
    let (listed, warnings) = catalog::list(&store, &name("c")).await.unwrap();
    assert_eq!((listed.len(), warnings.len()), (1, 0));
    let opened = listed[0].unlocked(&store, &identities("first.key")).await;
    opened.unwrap();
}

#[tokio::test]
async fn a_sweep_keeps_the_key_of_a_snapshot_that_stands_and_removes_that_of_a_dead_run() {
    let (folder, store) = catalog::tests::folder();
    save(&store, "a", 'a').await;
    save(&store, "dead", 'd').await;
    let dead = keys("c", "dead");
    store.delete(&dead.manifest()).await.unwrap();
    let two_days_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    for entry in store.entries("plugins/", 100).await.unwrap() {
        let file = std::fs::File::options()
            .write(true)
            .open(folder.path().join(&entry.key))
            .unwrap();
        file.set_modified(two_days_ago).unwrap();
    }
    let removed = catalog::sweep(&store, &name("c")).await.unwrap();
    assert_eq!(removed.len(), 3, "{removed:?}");
    assert!(removed.iter().all(|key| key.starts_with(&dead.folder())));
    let entry = get(&store, "a").await;
    entry
        .unlocked(&store, &identities("first.key"))
        .await
        .unwrap();
    assert_eq!(stored(&store).await, 4);
}

#[test]
fn a_passphrase_has_to_be_known_where_a_snapshot_is_taken() {
    let one = Recipients::parse([crate::crypt::PASSPHRASE]).unwrap();
    let refused = Encryption::of(one, None).unwrap_err();
    assert!(refused.hint_text().unwrap().contains("--passphrase-file"));
    let mut location = BackupStorageLocation::default();
    location.metadata.name = "s3".to_owned();
    assert!(Encryption::of_location(&location).unwrap().is_none());
    let annotations = &mut location.metadata.annotations;
    annotations.insert(crate::crypt::RECIPIENTS.to_owned(), "passphrase".to_owned());
    let refused = Encryption::of_location(&location).unwrap_err();
    assert!(refused.to_string().contains("a launcher knows none"));
}

#[test]
fn who_could_not_read_it_is_known_before_it_is_written() {
    let encryption = encryption("first.pub");
    encryption.is_opened_by(&identities("first.key")).unwrap();
    let refused = encryption.is_opened_by(&identities("second.key"));
    assert_eq!(refused.unwrap_err().kind(), Kind::Unauthorized);
}

#[tokio::test]
async fn a_location_that_lost_its_recipients_is_told_from_one_that_has_none() {
    let store = Store::in_memory();
    let mut location = Location {
        name: "s3".to_owned(),
        spec: BackupStorageLocation::default(),
        store: store.clone(),
        shared_with_velero: false,
        signatures: crate::signature::Signatures::default(),
        key_files: None,
        apart: None,
    };
    let cluster = name("c");
    not_lost(&location, &cluster).await.unwrap();
    save(&store, "a", 'a').await;
    let refused = not_lost(&location, &cluster).await.unwrap_err();
    assert!(refused.to_string().contains("lost its recipients"));
    // Another cluster's tell nothing of this one.
    not_lost(&location, &name("d")).await.unwrap();
    let annotations = &mut location.spec.metadata.annotations;
    annotations.insert(RECIPIENTS.to_owned(), PLAIN.to_owned());
    not_lost(&location, &cluster).await.unwrap();
    assert!(Encryption::of_location(&location.spec).unwrap().is_none());
}
