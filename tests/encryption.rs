//! Encrypted backups: nobody reads them without a key, and with one they are backups like any other.

mod copied;
mod files;
mod locations;
mod secrets_only;

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::Backup;
use harness::store::Minio;

use crate::place::{Archive, on};

/// What must be nowhere in a bucket: a Secret's value, and names that say much.
const VALUE: &str = "a-value-that-nobody-may-read";
const SECRET: &str = "crown-jewels";

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/encryption")
        .join(name)
}

pub(crate) fn key(name: &str) -> String {
    fs::read_to_string(fixture(name)).unwrap().trim().to_owned()
}

/// A cluster's namespace with a secret in it, and a bucket.
struct Vault {
    cluster: &'static Cluster,
    minio: &'static Minio,
    bucket: String,
    namespace: String,
    home: Folder,
}

impl Vault {
    fn new(name: &str) -> Self {
        let (cluster, minio) = (Cluster::shared(), Minio::shared());
        let namespace = cluster.create_namespace(name);
        let literal = format!("--from-literal=v={VALUE}");
        cluster.kubectl(&[
            "-n", &namespace, "create", "secret", "generic", SECRET, &literal,
        ]);
        let bucket = format!("vault-{name}");
        minio.bucket(&bucket);
        Self {
            cluster,
            minio,
            bucket,
            namespace,
            home: Folder::new("home"),
        }
    }

    fn run(&self, arguments: &[&str]) -> Backup {
        let location = format!("s3://{}/p?endpoint={}", self.bucket, self.minio.endpoint());
        on(self.cluster, &location, arguments)
            .credentials_of(self.minio)
            .home(self.home.path())
    }

    fn opened_by(&self, identity: &str, arguments: &[&str]) -> Backup {
        let path = fixture(identity);
        self.run(arguments)
            .args(&["--identity".as_ref(), path.as_os_str()])
    }

    fn keys(&self) -> Vec<String> {
        self.minio.list(&self.bucket, "")
    }

    /// Nothing in the bucket tells what must not be told.
    fn tells_nothing(&self) {
        let mut looked = 0;
        for object in self.keys() {
            let bytes = self.minio.get(&self.bucket, &object);
            let hidden = [
                VALUE.as_bytes().to_vec(),
                STANDARD.encode(VALUE).into_bytes(),
                SECRET.as_bytes().to_vec(),
                self.namespace.as_bytes().to_vec(),
            ];
            for hidden in hidden {
                let is_there = bytes.windows(hidden.len()).any(|window| window == hidden);
                assert!(!is_there, "{object}: {}", String::from_utf8_lossy(&hidden));
                assert!(!object.contains(&*String::from_utf8_lossy(&hidden)));
            }
            // What is packed tells nothing until it is unpacked: everything but what is meant to be read is a file of age.
            let clear = ["manifest.json", "recipients.txt", ".kubectl-backup.json"];
            if !clear.iter().any(|file| object.ends_with(file)) {
                assert!(object.ends_with(".age"), "{object}");
                assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{object}");
            }
            looked += 1;
        }
        assert!(looked > 8, "{looked}");
    }

    fn secret(&self, namespace: &str) -> String {
        let object = self
            .cluster
            .get_raw(&format!("/api/v1/namespaces/{namespace}/secrets/{SECRET}"));
        let value = object["data"]["v"].as_str().unwrap_or_default().to_owned();
        String::from_utf8(STANDARD.decode(value).unwrap()).unwrap()
    }
}

#[test]
fn an_encrypted_backup_tells_nothing_without_an_identity_and_everything_with_one() {
    let vault = Vault::new("unnamed-here");
    let namespace = vault.namespace.clone();
    let recipients = ["first.pub", "ed25519.pub", "rsa.pub", "locked.pub"].map(key);
    let mut create = vec![
        "create",
        "b",
        "-n",
        &namespace,
        "--labels",
        "team=crown-jewels",
    ];
    for recipient in &recipients {
        create.extend(["--recipient", recipient]);
    }
    let made = vault.run(&create).ok();
    assert!(
        made.stderr.contains("Velero can not read it"),
        "{}",
        made.stderr
    );
    vault.tells_nothing();

    // Who has no identity sees that it is there, and how it ended.
    let listed = vault.run(&["get"]).ok().stdout;
    assert!(
        listed.contains("ENCRYPTED") && listed.contains("Completed"),
        "{listed}"
    );
    let described = vault.run(&["describe", "b"]).ok();
    assert!(
        described.stdout.contains("Encrypted"),
        "{}",
        described.stdout
    );
    assert!(
        described.stderr.contains("--identity"),
        "{}",
        described.stderr
    );
    assert!(!described.stdout.contains(SECRET), "{}", described.stdout);
    let target = format!("{namespace}:{namespace}-copy");
    let restore = [
        "restore",
        "create",
        "--from-backup",
        "b",
        "--namespace-mappings",
        &target,
        "--yes",
    ];
    let out = vault.home.join("b.tar.gz");
    let out = out.to_str().unwrap();
    for arguments in [
        &restore[..],
        &["verify", "b"],
        &["logs", "b"],
        &["contents", "b", "secrets"],
        &["download", "b", "--output", out],
    ] {
        let refused = vault.run(arguments).code(1);
        assert!(refused.stderr.contains("age1"), "{}", refused.stderr);
        assert!(refused.stderr.contains("--identity"), "{}", refused.stderr);
        let refused = vault.opened_by("second.key", arguments).code(1);
        assert!(refused.stderr.contains("fits"), "{}", refused.stderr);
    }
    vault.opened_by("second.key", &["diff", "b"]).code(2);
    assert!(!fs::exists(out).unwrap());

    // Each recipient reads alone.
    let passphrase = vault.home.write("passphrase", "correct horse\n");
    for (number, identity) in ["first.key", "ed25519", "rsa", "locked"].iter().enumerate() {
        let copy = format!("{namespace}-{number}");
        let mapping = format!("{namespace}:{copy}");
        let restored = vault.opened_by(
            identity,
            &[
                "restore",
                "create",
                "--from-backup",
                "b",
                "--namespace-mappings",
                &mapping,
                "--yes",
            ],
        );
        let restored = match *identity {
            "locked" => restored.args(&["--passphrase-file".as_ref(), passphrase.as_os_str()]),
            _ => restored,
        };
        let restored = restored.ok();
        assert!(restored.stderr.contains("alone"), "{}", restored.stderr);
        assert_eq!(vault.secret(&copy), VALUE);
    }
    // Nor does what restores leave tell anything.
    vault.tells_nothing();

    let first = |arguments: &[&str]| vault.opened_by("first.key", arguments);
    assert!(first(&["verify", "b"]).ok().stdout.contains("verified"));
    assert!(first(&["logs", "b"]).ok().stdout.contains("secrets"));
    assert!(
        first(&["contents", "b", "secrets"])
            .ok()
            .stdout
            .contains(SECRET)
    );
    assert!(
        first(&["describe", "b", "--details"])
            .ok()
            .stdout
            .contains(SECRET)
    );
    let same = first(&[
        "diff",
        "b",
        "-n",
        &namespace,
        "--include-resources",
        "secrets",
    ])
    .ok();
    assert!(!same.stdout.contains(SECRET), "{}", same.stdout);
    first(&["download", "b", "--output", out]).ok();
    let archive = Archive::of(&fs::read(out).unwrap());
    assert!(
        archive
            .names("secrets")
            .contains(&format!("{namespace}/{SECRET}"))
    );

    // The user's own file serves where no other is named; the variable too.
    let own = vault.home.join(".config/kubectl-backup/identities");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::copy(fixture("first.key"), &own).unwrap();
    vault.run(&["verify", "b"]).ok();
    fs::remove_file(&own).unwrap();
    vault
        .run(&["verify", "b"])
        .env("KUBECTL_BACKUP_IDENTITY", fixture("rsa"))
        .ok();

    // Deleting needs none.
    vault.run(&["delete", "b", "--yes"]).ok();
    let left = vault.keys();
    assert!(
        left.iter().all(|key| !key.contains("/backups/")),
        "{left:?}"
    );
}

#[test]
fn rekey_gives_a_backup_to_others_and_takes_it_from_those_before() {
    let vault = Vault::new("rekeyed");
    let namespace = &vault.namespace;
    vault
        .run(&[
            "create",
            "b",
            "-n",
            namespace,
            "--recipient",
            &key("first.pub"),
        ])
        .ok();
    let folder = "p/plugins/kubectl-backup/backups/b";
    let archive = vault
        .minio
        .get(&vault.bucket, &format!("{folder}/b.tar.gz.age"));
    let rekey = ["rekey", "b", "--recipient", &key("ed25519.pub")];
    let refused = vault.run(&rekey).code(1);
    assert!(refused.stderr.contains("--identity"), "{}", refused.stderr);
    vault.opened_by("second.key", &rekey).code(1);
    vault.opened_by("first.key", &["verify", "b"]).ok();
    vault.opened_by("first.key", &["rekey", "b"]).code(2);
    vault.opened_by("first.key", &rekey).ok();
    assert_eq!(
        vault
            .minio
            .get(&vault.bucket, &format!("{folder}/b.tar.gz.age")),
        archive
    );
    let gone = vault.opened_by("first.key", &["verify", "b"]).code(1);
    assert!(gone.stderr.contains("SHA256:"), "{}", gone.stderr);
    vault.opened_by("ed25519", &["verify", "b"]).ok();
    vault.tells_nothing();
    // Over a passphrase, and back.
    let passphrase = vault.home.write("passphrase", "battery staple\n");
    let passphrase = passphrase.to_str().unwrap();
    let with = ["--passphrase-file", passphrase];
    vault
        .opened_by("ed25519", &["rekey", "b", "--recipient", "passphrase"])
        .code(1);
    vault
        .opened_by("ed25519", &["rekey", "b", "--recipient", "passphrase"])
        .args(&with)
        .ok();
    vault.run(&["verify", "b"]).args(&with).ok();
    vault.opened_by("ed25519", &["verify", "b"]).code(1);
    let wrong = vault.home.write("wrong", "battery\n");
    let refused = vault
        .run(&["verify", "b", "--passphrase-file", wrong.to_str().unwrap()])
        .code(1);
    assert!(refused.stderr.contains("passphrase"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("battery"), "{}", refused.stderr);
    vault.run(&["create", "plain", "-n", namespace]).ok();
    vault
        .opened_by(
            "first.key",
            &["rekey", "plain", "--recipient", &key("first.pub")],
        )
        .code(1);
}

#[test]
fn expired_encrypted_backups_are_pruned_without_an_identity() {
    let vault = Vault::new("pruned");
    let namespace = &vault.namespace;
    let recipient = key("first.pub");
    let create = |name: &str, ttl: &str| {
        vault
            .run(&[
                "create",
                name,
                "-n",
                namespace,
                "--ttl",
                ttl,
                "--recipient",
                &recipient,
            ])
            .ok();
    };
    create("short", "1s");
    create("long", "30d");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let pruned = vault.run(&["prune", "--yes"]).ok();
    assert!(
        pruned.stdout.contains("short") && !pruned.stdout.contains("long"),
        "{}",
        pruned.stdout
    );
    let left = vault.run(&["get", "-o", "name"]).ok().stdout;
    assert_eq!(left, "backup/long\n");
    assert!(vault.keys().iter().all(|key| !key.contains("/short/")));
}
