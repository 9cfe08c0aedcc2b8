use serde_json::{Value, json};

use super::*;
use crate::crypt::BackupKey;
use crate::error::Kind;

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// `volumes.json` with one claim that was saved and one that was not.
fn volumes() -> Value {
    json!({"format": "kubectl-backup/volumes/1", "needs": [], "cluster": "c", "backupUid": "b", "run": "r", "volumes": [
        {"namespace": "shop", "claim": "data", "claimUid": "u", "result": "saved", "data": [
            {"method": "files", "source": "live", "repository": 2, "snapshot": DIGEST, "run": "r",
             "began": "2026-11-30T10:00:00Z", "ended": "2026-11-30T10:00:00Z"}]},
        {"namespace": "shop", "claim": "rows", "claimUid": "w", "result": "saved", "data": [
            {"method": "snapshot", "source": "csi", "driver": "d.io", "handle": "snap/1", "class": "fast", "run": "r",
             "began": "2026-11-30T10:00:00Z", "cut": "2026-11-30T10:00:00Z", "ended": "2026-11-30T10:00:00Z"}]},
        {"namespace": "shop", "claim": "cache", "claimUid": "v", "result": "leftOut", "why": "so"}]})
}

async fn put(store: &Store, key: String, value: &Value) {
    store.put(&key, value.to_string().into()).await.unwrap();
}

#[tokio::test]
async fn what_a_backup_owns_is_read_without_a_key_and_of_an_older_plain_one_from_its_rows() {
    let (store, name): (_, Name) = (Store::in_memory(), "a".parse().unwrap());
    let keys = BackupKeys::new(&name);
    assert_eq!(owned(&store, &name).await.unwrap(), Owned::default());
    put(&store, keys.volumes(), &volumes()).await;
    let rows = owned(&store, &name).await.unwrap();
    let [one] = &rows.files[..] else {
        panic!("{rows:?}");
    };
    assert_eq!(
        (one.keys.repository(), &*one.id),
        ("restic/c/shop/u.2/".to_owned(), DIGEST)
    );
    let cut = StorageSnapshot {
        cluster: "c".to_owned(),
        run: "r".to_owned(),
        driver: "d.io".to_owned(),
        handle: "snap/1".to_owned(),
    };
    assert_eq!(rows.cuts, [cut]);
    let copies = copies::copies(&store, &name).await.unwrap().unwrap();
    let written = write(&copies).unwrap();
    store.put(&keys.snapshots(), written.clone()).await.unwrap();
    store.delete(&keys.volumes()).await.unwrap();
    assert_eq!(owned(&store, &name).await.unwrap(), rows);

    let vault = store.vault(Some(&BackupKey::generate()));
    vault.put(&keys.volumes(), "{}".into()).await.unwrap();
    let blind = store.vault(None);
    // That it has rows is seen, and what they say is not.
    let unknown = owned(&blind, &name).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::Corrupt, "{unknown}");
    vault.put(&keys.snapshots(), written).await.unwrap();
    assert_eq!(owned(&blind, &name).await.unwrap(), rows);
    let clear = store
        .get("plugins/kubectl-backup/backups/a/snapshots.json", 9999)
        .await;
    assert!(clear.unwrap().starts_with(b"{"));
}

#[tokio::test]
async fn what_is_not_understood_is_never_nothing() {
    let (store, name): (_, Name) = (Store::in_memory(), "a".parse().unwrap());
    let keys = BackupKeys::new(&name);
    let row = json!({"method": "files", "cluster": "c", "namespace": "n", "claimUid": "u", "repository": 1, "snapshot": DIGEST});
    let whole = json!({"format": FORMAT, "needs": [], "snapshots": [row]});
    put(&store, keys.snapshots(), &whole).await;
    assert_eq!(owned(&store, &name).await.unwrap().files.len(), 1);
    for (pointer, odd) in [
        ("/format", json!("kubectl-backup/snapshots/2")),
        ("/needs", json!(["more"])),
        ("/snapshots", json!({})),
        ("/snapshots/0/method", json!("snapshot")),
        ("/snapshots/0/cluster", json!("../c")),
        ("/snapshots/0/namespace", json!("")),
        ("/snapshots/0/claimUid", json!("u.2")),
        ("/snapshots/0/repository", json!(0)),
        ("/snapshots/0/snapshot", json!("latest")),
    ] {
        let mut value = whole.clone();
        *value.pointer_mut(pointer).unwrap() = odd;
        put(&store, keys.snapshots(), &value).await;
        let refused = owned(&store, &name).await.unwrap_err();
        assert!(
            matches!(refused.kind(), Kind::Corrupt | Kind::Invalid),
            "{pointer}: {refused}"
        );
    }
    let cut =
        json!({"method": "snapshot", "cluster": "c", "run": "r", "driver": "d.io", "handle": "h"});
    for (pointer, odd) in [
        ("/cluster", json!("")),
        ("/run", json!("../r")),
        ("/driver", json!("D_")),
        ("/handle", json!("a\nb")),
        ("/handle", json!("")),
    ] {
        let mut list = json!({"format": FORMAT, "snapshots": [cut.clone()]});
        put(&store, keys.snapshots(), &list).await;
        assert_eq!(owned(&store, &name).await.unwrap().cuts.len(), 1);
        *list["snapshots"][0].pointer_mut(pointer).unwrap() = odd;
        put(&store, keys.snapshots(), &list).await;
        let refused = owned(&store, &name).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{pointer}");
    }
    store.delete(&keys.snapshots()).await.unwrap();
    let mut newer = volumes();
    newer["volumes"][0]["data"][0]["method"] = "moon".into();
    put(&store, keys.volumes(), &newer).await;
    owned(&store, &name).await.unwrap_err();
}
