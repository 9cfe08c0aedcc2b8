//! Encrypted backups: nobody reads them without a key, and with one they are backups like any other.

mod copied;
mod secrets_only;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::Backup;
use harness::store::Minio;
use harness::tools;

use crate::place::{Place, on};

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
    let archive = crate::place::Archive::of(&fs::read(out).unwrap());
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

#[test]
fn files_that_were_swapped_cut_or_altered_are_refused() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("tampered");
    place.cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "configmap",
        "c",
        "--from-literal=a=b",
    ]);
    let recipient = key("first.pub");
    for name in ["a", "b"] {
        place
            .run(&["create", name, "-n", &namespace, "--recipient", &recipient])
            .ok();
    }
    let file = |backup: &str, file: &str| {
        place
            .folder
            .join(format!("plugins/kubectl-backup/backups/{backup}/{file}"))
    };
    let identity = fixture("first.key");
    let verify = || {
        place
            .run(&["verify", "a"])
            .args(&["--identity".as_ref(), identity.as_os_str()])
    };
    verify().ok();
    let archive = fs::read(file("a", "a.tar.gz.age")).unwrap();
    let mut altered = archive.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    for (bytes, how) in [
        (fs::read(file("b", "b.tar.gz.age")).unwrap(), "another key"),
        (
            archive[..archive.len() - 20].to_vec(),
            "altered, moved or cut",
        ),
        (altered, "altered, moved or cut"),
        (archive[..100].to_vec(), "does not begin"),
        (b"hello".repeat(100), "encrypted file of this program"),
    ] {
        fs::write(file("a", "a.tar.gz.age"), bytes).unwrap();
        let refused = verify().code(1);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains(how), "{how}: {said}");
    }
    fs::write(file("a", "a.tar.gz.age"), &archive).unwrap();
    verify().ok();
    // The key of another backup of the same recipients opens, and fits nothing.
    let own = fs::read(file("a", "key.age")).unwrap();
    fs::copy(file("b", "key.age"), file("a", "key.age")).unwrap();
    let refused = verify().code(1);
    assert!(refused.stderr.contains("another key"), "{}", refused.stderr);
    fs::write(file("a", "key.age"), own).unwrap();
    // Nor is the part in the clear believed.
    let manifest = fs::read_to_string(file("a", "manifest.json")).unwrap();
    fs::write(
        file("a", "manifest.json"),
        manifest.replacen("Completed", "Failed", 1),
    )
    .unwrap();
    let refused = verify().code(1);
    assert!(
        refused.stderr.contains("in the clear"),
        "{}",
        refused.stderr
    );
}

#[test]
fn the_age_program_reads_what_we_write_and_we_read_what_it_writes() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("go-age");
    place.cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "configmap",
        "c",
        "--from-literal=a=b",
    ]);
    place
        .run(&[
            "create",
            "b",
            "-n",
            &namespace,
            "--recipient",
            &key("first.pub"),
            "--recipient",
            &key("ed25519.pub"),
        ])
        .ok();
    let folder = place.folder.join("plugins/kubectl-backup/backups/b");
    let age = |arguments: &[&str]| {
        let run = Command::new(tools::path("age"))
            .args(arguments)
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
        run.stdout
    };
    let home = Folder::new("age");
    for identity in ["first.key", "ed25519"] {
        let own = age(&["-d", "-i", fixture(identity).to_str().unwrap(), "key.age"]);
        let own = home.write("k", own);
        let own = own.to_str().unwrap();
        let archive = crate::place::Archive::of(&age(&["-d", "-i", own, "b.tar.gz.age"]));
        assert!(
            archive
                .names("configmaps")
                .contains(&format!("{namespace}/c"))
        );
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        let sealed = home.write("sealed", manifest["sealed"].as_str().unwrap());
        let marker = age(&["-d", "-i", own, sealed.to_str().unwrap()]);
        let marker: serde_json::Value = serde_json::from_slice(&marker).unwrap();
        assert_eq!(marker["spec"]["includedNamespaces"][0], namespace.as_str());
    }
    // What it writes for the backup's key is as good as what we write.
    let own = fs::read_to_string(home.join("k")).unwrap();
    let key_file = home.write("own", own.trim());
    let keygen = Command::new(tools::path("age-keygen"))
        .arg("-y")
        .arg(key_file)
        .output()
        .unwrap();
    let public = String::from_utf8(keygen.stdout).unwrap();
    let own = home.join("k");
    for file in ["b.tar.gz.age", "index.jsonl.zst.age", "SHA256SUMS.age"] {
        let plain = home.write("plain", age(&["-d", "-i", own.to_str().unwrap(), file]));
        age(&["-r", public.trim(), "-o", file, plain.to_str().unwrap()]);
    }
    // And its key files too.
    let key_age = folder.join("key.age");
    age(&[
        "-r",
        &key("second.pub"),
        "-o",
        key_age.to_str().unwrap(),
        own.to_str().unwrap(),
    ]);
    let identity = fixture("second.key");
    let verified = place
        .run(&["verify", "b"])
        .args(&["--identity".as_ref(), identity.as_os_str()])
        .ok();
    assert!(verified.stdout.contains("verified"), "{}", verified.stdout);
}
