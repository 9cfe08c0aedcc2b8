//! Locations with recipients: every backup that is made there is encrypted, by whatever name the place goes.

use std::fs;

use harness::process::Folder;

use super::{Vault, key};

#[test]
fn a_location_with_recipients_encrypts_every_backup_and_a_name_is_one_backups() {
    let vault = Vault::new("vaulted");
    let namespace = &vault.namespace;
    let team = vault
        .home
        .write("team.pub", format!("# the team\n{}\n", key("first.pub")));
    let credentials = vault.minio.credentials_file().display().to_string();
    let config = format!(
        "s3Url={},s3ForcePathStyle=true,region=us-east-1",
        vault.minio.endpoint()
    );
    let own = |arguments: &[&str]| {
        harness::run::kubectl_backup(arguments)
            .kubeconfig(vault.cluster.kubeconfig())
            .home(vault.home.path())
    };
    own(&["create", "before", "-n", namespace, "--location", "v"]).code(1);
    own(&[
        "location",
        "create",
        "v",
        "--provider",
        "aws",
        "--bucket",
        &vault.bucket,
        "--prefix",
        "p",
        "--config",
        &config,
        "--credentials-file",
        &credentials,
        "--recipients-file",
        team.to_str().unwrap(),
        "--default",
    ])
    .ok();
    own(&["create", "a", "-n", namespace]).ok();
    vault.tells_nothing();
    // One more may read this one.
    own(&[
        "create",
        "c",
        "-n",
        namespace,
        "--recipient",
        &key("second.pub"),
    ])
    .ok();
    for (backup, identity, code) in [
        ("a", "first.key", 0),
        ("a", "second.key", 1),
        ("c", "first.key", 0),
        ("c", "second.key", 0),
    ] {
        vault.opened_by(identity, &["verify", backup]).code(code);
    }
    by_another_name(&vault, &credentials, &config);
    let taken = own(&["create", "plain", "-n", namespace]).code(1);
    assert!(
        taken.stderr.contains("exists already, a plain one"),
        "{}",
        taken.stderr
    );
    let listed = vault.run(&["get", "-o", "name"]).ok().stdout;
    assert_eq!(listed, "backup/a\nbackup/c\nbackup/url\nbackup/plain\n");
    // What would make a plain one of it, or is not built for it, is refused by name, and nothing is written.
    let before = vault.keys();
    for (file, bytes) in crate::copy::signed::key_pair("backups") {
        vault.home.write(&file, bytes);
    }
    let (private, public) = (
        vault.home.join("backups.key").display().to_string(),
        vault.home.join("backups.pub").display().to_string(),
    );
    let folder = vault.home.join("second").display().to_string();
    let second = ["--provider=local", "--bucket", &folder];
    own(&[&["location", "create", "second"][..], &second].concat()).ok();
    let third = vault.home.join("third").display().to_string();
    let team = team.display().to_string();
    let third = [
        "--provider=local",
        "--bucket",
        &third,
        "--recipients-file",
        &team,
    ];
    own(&[&["location", "create", "third"][..], &third].concat()).ok();
    let url = format!(
        "s3://{}/p?endpoint={}",
        vault.bucket,
        vault.minio.endpoint()
    );
    let plain_from = ["--location", &url, "--credentials-file", &credentials];
    for (arguments, code, says) in [
        (
            &[&["copy", "plain", "--to", "third"], &plain_from[..]].concat()[..],
            1,
            "has recipients",
        ),
        (
            &["location", "set", "v", "--verify-key", &public][..],
            2,
            "can not be signed",
        ),
        (
            &["location", "set", "v", "--signing-key-file", &private],
            2,
            "can not be signed",
        ),
        (
            &[
                "create",
                "x",
                "-n",
                namespace,
                "--signing-key-file",
                &private,
            ],
            1,
            "can not be signed",
        ),
        (
            &["create", "x", "-n", namespace, "--in-cluster=always"],
            2,
            "has its backups encrypted",
        ),
    ] {
        let refused = own(arguments).code(code);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    assert_eq!(vault.keys(), before);
    assert!(
        !fs::exists(&folder).unwrap() || fs::read_dir(&folder).unwrap().next().is_none(),
        "{folder}"
    );
    // Who may write to the bucket puts a plain one of that name beside it.
    let stands = vault
        .minio
        .get(&vault.bucket, "p/backups/plain/velero-backup.json");
    let planted = String::from_utf8(stands.to_vec())
        .unwrap()
        .replace("\"plain\"", "\"a\"");
    vault
        .minio
        .put(&vault.bucket, "p/backups/a/velero-backup.json", planted);
    let two = vault.opened_by("first.key", &["contents", "a"]).code(1);
    assert!(two.stderr.contains("two backups a"), "{}", two.stderr);
    vault
        .minio
        .delete(&vault.bucket, "p/backups/a/velero-backup.json");
    vault.opened_by("first.key", &["verify", "a"]).ok();
    // Recipients that are none are refused before anything is made.
    let refused = own(&[
        "create",
        "x",
        "-n",
        namespace,
        "--recipient",
        "age1nonsense",
    ])
    .code(2);
    assert!(
        refused.stderr.contains("no recipient"),
        "{}",
        refused.stderr
    );
    let private = own(&[
        "create",
        "x",
        "-n",
        namespace,
        "--recipient",
        key("first.key").lines().last().unwrap(),
    ])
    .code(2);
    assert!(
        private.stderr.contains("private") && !private.stderr.contains("AGE-SECRET"),
        "{}",
        private.stderr
    );
}

/// Neither a URL nor a second name of the place makes a plain backup in it by mistake; one that is chosen has another name than the encrypted ones.
fn by_another_name(vault: &Vault, credentials: &str, config: &str) {
    let namespace = &vault.namespace;
    let made = vault.run(&["create", "url", "-n", namespace]).ok();
    let note = "is the place of location \"v\": its recipients count";
    assert!(made.stderr.contains(note), "{}", made.stderr);
    vault.tells_nothing();
    let twice = [
        "location",
        "create",
        "w",
        "--provider=aws",
        "--prefix=p/",
        "--credentials-file",
        credentials,
        "--config",
        config,
        "--bucket",
        &vault.bucket,
    ];
    let own = |arguments: &[&str]| {
        harness::run::kubectl_backup(arguments)
            .kubeconfig(vault.cluster.kubeconfig())
            .home(vault.home.path())
    };
    let refused = own(&twice).code(2);
    assert!(refused.stderr.contains("--plain"), "{}", refused.stderr);
    own(&twice).arg("--plain").ok();
    // Recipients that are given later bind no other name, and that is told.
    let given = own(&["location", "set", "v", "--recipient", &key("first.pub")]);
    let told = given.arg("--dry-run").run();
    assert!(
        told.stderr.contains("location \"w\" is the place of \"v\""),
        "{}",
        told.stderr
    );
    // Who remembers nothing of it is told by the bucket.
    let stranger = Folder::new("home");
    let plain = |name: &str| {
        vault
            .run(&["create", name, "-n", namespace])
            .home(stranger.path())
    };
    for refused in [
        plain("plain").code(1),
        own(&["create", "plain", "-n", namespace, "--location", "w"]).code(1),
    ] {
        let says = "takes encrypted backups alone";
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    let adopt = ["location", "adopt", "--yes"];
    vault.run(&adopt).home(stranger.path()).ok();
    plain("plain").code(1);
    vault.run(&adopt).arg("--plain").home(stranger.path()).ok();
    let taken = plain("a").code(1);
    assert!(
        taken.stderr.contains("exists already, an encrypted one"),
        "{}",
        taken.stderr
    );
    plain("plain").ok();
}
