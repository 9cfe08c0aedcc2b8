//! What is plain where an encrypted snapshot is meant, and the key that is not where it has to be.

use harness::process::Folder;
use harness::run::etcd_launcher;
use harness::store::Minio;

use super::encrypted::Vault;
use super::place::CLUSTER;
use crate::encryption::fixture;

#[test]
fn a_plain_snapshot_in_the_place_of_an_encrypted_one_is_refused_where_an_identity_is_named() {
    let vault = Vault::new("encrypted-downgraded");
    vault.taken("a");
    let described = vault.opened_by("first.key", &["describe", "a"]).ok().stdout;
    let [data, own, _, _] = vault.files("a");
    assert!(described.contains(&own), "{described}");
    let identity = fixture("first.key").display().to_string();
    let named = ["--identity", identity.as_str()];
    let folder = Folder::new("downgraded");

    // The data alone, without its key and with it.
    let file = vault.saved(&data).display().to_string();
    let verify = |file: &str| etcd_launcher(&["verify", file]).args(&named);
    let refused = verify(&file).code(1).stderr;
    let key = own.rsplit('/').next().unwrap();
    assert!(refused.contains(key), "{refused}");
    assert!(refused.contains("has to lie beside it"), "{refused}");
    vault.saved(&own);
    verify(&file).ok();
    // Under another name they belong together as before.
    let renamed = vault.folder.write("mine.db.zst.age", vault.get(&data));
    vault.folder.write("mine.key.age", vault.get(&own));
    verify(&renamed.display().to_string()).ok();

    // Whoever may write there deletes it and puts a plain one there, of the same name.
    vault
        .plugin(&["delete", "a", "--cluster", CLUSTER, "--yes"])
        .ok();
    vault.take("a", &[]).ok();
    for refused in [
        vault.opened_by("first.key", &["verify", "a"]),
        vault.restore("a", &folder.join("data"), &named),
    ] {
        let told = refused.code(1).stderr;
        assert!(told.contains("is not encrypted"), "{told}");
    }
    assert!(!folder.join("data/member").exists());
    // Nor is it taken for one by its name.
    let objects = Minio::shared().list(vault.bucket, "p/plugins");
    let plain = objects.iter().find(|key| key.ends_with(".db.zst")).unwrap();
    let called = vault.folder.write("x.db.zst.age", vault.get(plain));
    let told = etcd_launcher(&["verify", &called.display().to_string()])
        .code(1)
        .stderr;
    assert!(told.contains("is not encrypted"), "{told}");
    // Who names no identity asks for whatever stands: so old plain ones are restored.
    vault.plugin(&["verify", "a"]).ok();
    vault.restore("a", &folder.join("data"), &[]).ok();
}
