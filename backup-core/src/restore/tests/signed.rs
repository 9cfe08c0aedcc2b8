//! Where only what is signed counts, nothing that somebody put into the bucket beside a backup says how a restore goes on.

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::place::Place;
use super::super::*;
use super::whole::{Saved, object, uid};
use crate::catalog::Digests;
use crate::crypt::BackupKey;
use crate::layout::{BackupKeys, RestoreKeys};
use crate::signature::SigningKey;

const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDagrLykrCEyxU17BFw6t8A/VQItJjMmqtNYf9Dv9r1X\n-----END PRIVATE KEY-----\n";

/// Signs the backup, in a location that asks for it from now on.
async fn sign(saved: &mut Saved) {
    let keys = BackupKeys::new(&"b".parse().unwrap());
    let store = &saved.location.store;
    let mut digests = Digests::new();
    for key in [keys.archive(), keys.index(), keys.marker()] {
        let bytes = store.get(&key, 1 << 20).await.unwrap();
        digests = digests.add_bytes(&key, &bytes);
    }
    let (sums, key) = (
        digests.to_bytes(),
        SigningKey::from_pem(KEY.as_bytes()).unwrap(),
    );
    store.put(&keys.signature(), key.sign(&sums)).await.unwrap();
    store.put(&keys.digests(), sums).await.unwrap();
    saved.location.signatures.keys = vec![key.public()];
}

fn restored() -> RestoreKeys {
    RestoreKeys::new(&"r".parse().unwrap())
}

/// Plants a journal that names the same options, with a mapping of images. Gives back its bytes.
async fn plant(saved: &Saved, change: impl FnOnce(&mut RestoreOptions)) -> Bytes {
    let mut options = saved.options();
    options.backup = "b".parse().unwrap();
    change(&mut options);
    let store = &saved.location.store;
    let hash = options_hash(&saved.target.cluster(), store, &options).await;
    let mut spec = spec(&options);
    let images = json!([["docker.io", "evil.example.com"]]);
    spec.rest.insert("imageMapping".to_owned(), images);
    let header = Header {
        format: journal::FORMAT.to_owned(),
        backup: "b".to_owned(),
        options_hash: hash.unwrap(),
        started: options.now,
        spec,
        backup_uid: None,
        cluster: None,
    };
    let place = Place::Store(store.clone());
    journal::Journal::open(place, &"r".parse().unwrap(), &header, false)
        .await
        .unwrap();
    store.get(&restored().journal(0), 1 << 20).await.unwrap()
}

/// Whoever may write to a bucket sees which backups in it are encrypted: what he plants beside one is not read with what is opened of it.
#[tokio::test]
async fn a_planted_journal_changes_nothing_of_a_restore_of_what_was_encrypted() {
    let pod = json!({"spec": {"containers": [{"name": "c", "image": "docker.io/app:1"}]}});
    let mut saved = Saved::new(&[object("pods", 1, "n/x", pod)]).await;
    let planted = plant(&saved, |_| {}).await;
    saved.location = saved.location.with_secrets(&BackupKey::generate());
    let mut options = saved.options();
    options.backup = "b".parse().unwrap();
    let cluster = saved.target.cluster();
    let decided = decide_name(&cluster, &saved.location, &options).await;
    let (name, goes_on) = decided.unwrap();
    assert_eq!((name.as_str() == "r", goes_on), (false, false));
    let report = saved.restore(|_| {}).await.unwrap();
    assert_eq!((report.counts[0], report.resumed), (2, false));
    let made = saved.target.get("/api/v1/namespaces/n/pods/x");
    assert_eq!(made["spec"]["containers"][0]["image"], "docker.io/app:1");
    let store = &saved.location.store;
    let now = store.get(&restored().journal(0), 1 << 20).await.unwrap();
    assert_eq!(now, planted);
    assert!(in_folder(&saved, &restored().journal(0)));
}

/// What lies in the location of the restore.
async fn in_location(saved: &Saved) -> Vec<String> {
    let entries = saved.location.store.entries("restores/r/", 100).await;
    let keys = entries.unwrap().into_iter().map(|entry| entry.key);
    keys.collect()
}

fn in_folder(saved: &Saved, key: &str) -> bool {
    saved.options().state_dir.join(key).exists()
}

#[tokio::test]
async fn a_planted_journal_changes_nothing_of_a_restore_where_only_what_is_signed_counts() {
    for asks in [false, true] {
        let pod = json!({"spec": {"containers": [{"name": "c", "image": "docker.io/app:1"}]}});
        let mut saved = Saved::new(&[object("pods", 1, "n/x", pod)]).await;
        if asks {
            sign(&mut saved).await;
        }
        let planted = plant(&saved, |_| {}).await;
        let mut options = saved.options();
        options.backup = "b".parse().unwrap();
        let cluster = saved.target.cluster();
        let decided = decide_name(&cluster, &saved.location, &options).await;
        let (name, goes_on) = decided.unwrap();
        assert_eq!((name.as_str() == "r", goes_on), (!asks, !asks));

        let report = saved.restore(|_| {}).await.unwrap();
        assert_eq!((report.counts[0], report.resumed), (2, !asks));
        let made = saved.target.get("/api/v1/namespaces/n/pods/x");
        let image = if asks {
            "docker.io/app:1"
        } else {
            "evil.example.com/app:1"
        };
        assert_eq!(made["spec"]["containers"][0]["image"], image);
        let rest = &report.restore.spec.rest;
        assert_eq!(rest.contains_key("imageMapping"), !asks);
        if !asks {
            continue;
        }
        // It is as it was planted, and the own one is where nobody else writes.
        let store = &saved.location.store;
        let now = store.get(&restored().journal(0), 1 << 20).await.unwrap();
        assert_eq!(now, planted);
        assert!(!in_location(&saved).await.contains(&restored().journal(1)));
        assert!(in_folder(&saved, &restored().journal(0)));
        // What was done is shown where people look for it.
        let shown = crate::catalog::get_restore(store, &"r".parse().unwrap()).await;
        assert_eq!(shown.unwrap().status.phase, report.restore.status.phase);
        // By its own journal it goes on.
        assert!(saved.restore(|_| {}).await.unwrap().resumed);
    }
}

#[tokio::test]
async fn a_record_of_another_restore_is_not_written_over_by_one_that_never_read_it() {
    let mut saved = Saved::new(&[object("configmaps", 1, "n/x", json!({}))]).await;
    sign(&mut saved).await;
    let store = &saved.location.store;
    store.put(&restored().marker(), "{}".into()).await.unwrap();
    let report = saved.restore(|_| {}).await.unwrap();
    let told = report.warnings.join("\n");
    assert!(told.contains("on this machine alone"), "{told}");
    assert_eq!(in_location(&saved).await, [restored().marker()]);
    assert!(in_folder(&saved, &restored().marker()));
}

fn recreate(options: &mut RestoreOptions) {
    options.existing = ExistingPolicy::Recreate;
}

const LIVE: &str = "/api/v1/namespaces/n/configmaps/x";

async fn with_config_map() -> Saved {
    let body = json!({"data": {"from": "backup"}});
    let saved = Saved::new(&[object("configmaps", 1, "n/x", body)]).await;
    let namespace = json!({"metadata": {"name": "n"}});
    saved.target.put("/api/v1/namespaces/n", namespace);
    saved
}

#[tokio::test]
async fn what_a_restore_keeps_lies_where_nobody_else_writes() {
    let mut saved = with_config_map().await;
    sign(&mut saved).await;
    let live = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"from": "target"}, "immutable": true,
        "metadata": {"name": "x", "namespace": "n", "uid": uid(77), "resourceVersion": "7"}});
    saved.target.put(LIVE, live);
    let report = saved.restore(recreate).await.unwrap();
    assert_eq!(report.counts, [0, 1, 0, 0], "{:?}", report.errors);
    let listed = in_location(&saved).await;
    assert!(listed.contains(&restored().marker()), "{listed:?}");
    let is_kept = |key: &String| key.contains("/kept/") || key.contains("/journal-");
    assert!(!listed.iter().any(is_kept), "{listed:?}");
    assert!(in_folder(&saved, &restored().all_kept()));
}

#[tokio::test]
async fn what_somebody_says_was_kept_is_not_put_back_where_only_what_is_signed_counts() {
    for asks in [false, true] {
        let mut saved = with_config_map().await;
        if asks {
            sign(&mut saved).await;
        }
        plant(&saved, recreate).await;
        let digest = crate::location::sha256(b"configmaps n x ");
        let kept = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"from": "nobody"}, "immutable": true,
            "metadata": {"name": "x", "namespace": "n"}});
        saved.side(&restored().kept(&digest[..32], 1), kept).await;
        // The one of the backup is refused, so that the one that is said to have stood there comes back.
        saved.target.0.lock().unwrap().refuses_text = Some("\"from\":\"backup\"");
        let report = saved.restore(recreate).await.unwrap();
        assert_eq!(report.counts[3], 1, "{asks}: {report:?}");
        let live = saved.target.get(LIVE);
        if asks {
            assert_eq!(live, Value::Null);
        } else {
            assert_eq!(live["data"]["from"], "nobody");
        }
    }
}
