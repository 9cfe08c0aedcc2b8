//! Snapshots that leave the machine encrypted: nobody reads them without an identity, and with one they are snapshots like any other. Go's age and zstd
//! open them without us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::etcd::{Etcd, KeyValue, Version};
use harness::process::Folder;
use harness::run::{Backup, etcd_launcher, kubectl_backup};
use harness::store::Minio;
use harness::tools;
use serde_json::Value;

use super::place::{CLUSTER, contents, of, restored, status, unpacked};
use crate::encryption::{fixture, key};

/// What must be nowhere in a bucket.
const VALUE: &str = "a-value-that-nobody-may-read";

/// An etcd with a secret in it, and a bucket of its own.
pub(super) struct Vault {
    etcd: Etcd,
    live: Vec<KeyValue>,
    pub(super) bucket: &'static str,
    pub(super) folder: Folder,
}

impl Vault {
    pub(super) fn new(bucket: &'static str) -> Self {
        let etcd = Etcd::start();
        for number in 0..200 {
            etcd.put(&format!("/registry/secrets/default/s{number}"), VALUE);
        }
        // Larger than some chunks of age, and of what does not compress.
        etcd.fill(&harness::etcd::Fill::of(1 << 20));
        Self {
            live: contents(&etcd),
            etcd,
            bucket: Minio::shared().bucket(bucket),
            folder: Folder::new(bucket),
        }
    }

    fn location(&self) -> String {
        let endpoint = Minio::shared().endpoint();
        format!("s3://{}/p?endpoint={endpoint}", self.bucket)
    }

    pub(super) fn take(&self, name: &str, arguments: &[&str]) -> Backup {
        let name = format!("--name={name}");
        let cluster = format!("--cluster={CLUSTER}");
        of(&self.etcd, &[&cluster, &name])
            .args(arguments)
            .location(&self.location())
            .credentials_of(Minio::shared())
    }

    /// One for two recipients.
    pub(super) fn taken(&self, name: &str) {
        let (first, second) = (key("first.pub"), key("ed25519.pub"));
        let run = self.take(name, &["--recipient", &first, "--recipient", &second]);
        let run = run.ok();
        assert!(run.stderr.contains("it is encrypted for"), "{}", run.stderr);
    }

    /// The plugin, with the bucket alone.
    pub(super) fn plugin(&self, arguments: &[&str]) -> Backup {
        kubectl_backup(&["etcd"])
            .args(arguments)
            .location(&self.location())
            .credentials_of(Minio::shared())
    }

    pub(super) fn opened_by(&self, identity: &str, arguments: &[&str]) -> Backup {
        let path = fixture(identity);
        self.plugin(arguments)
            .args(&["--identity".as_ref(), path.as_os_str()])
    }

    /// The keys of a snapshot's files: its data, its own key, its manifest, and whom it is for.
    pub(super) fn files(&self, name: &str) -> [String; 4] {
        let folder = format!("p/plugins/etcd-launcher/{CLUSTER}/{name}");
        let all = Minio::shared().list(self.bucket, &folder);
        assert_eq!(all.len(), 4, "{all:?}");
        [
            ".db.zst.age",
            ".key.age",
            "/manifest.json",
            ".recipients.txt",
        ]
        .map(|ending| {
            let found = all.iter().find(|key| key.ends_with(ending));
            found.unwrap_or_else(|| panic!("{ending}: {all:?}")).clone()
        })
    }

    pub(super) fn get(&self, key: &str) -> Vec<u8> {
        Minio::shared().get(self.bucket, key).to_vec()
    }

    pub(super) fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        Minio::shared().put(self.bucket, key, bytes.into());
    }

    /// A file of the bucket, here.
    pub(super) fn saved(&self, key: &str) -> PathBuf {
        let name = key.rsplit('/').next().unwrap();
        self.folder.write(name, self.get(key))
    }

    fn age(&self, identity: &Path, file: &Path) -> Vec<u8> {
        let run = Command::new(tools::path("age"))
            .arg("-d")
            .arg("-i")
            .args([identity, file])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{told}");
        run.stdout
    }

    /// `restore` into an empty data dir.
    pub(super) fn restore(&self, snapshot: &str, data_dir: &Path, arguments: &[&str]) -> Backup {
        let tool = tools::path("etcdutl").display().to_string();
        let data_dir = data_dir.display().to_string();
        let cluster = format!("n={}", self.etcd.member(0).peer_url());
        etcd_launcher(&["restore", snapshot, "--yes", "--name", "n"])
            .args(&["--data-dir", &data_dir, "--etcdutl", &tool])
            .args(&["--initial-cluster", &cluster, "--cluster", CLUSTER])
            .args(arguments)
            .location(&self.location())
            .credentials_of(Minio::shared())
    }
}

#[test]
fn an_encrypted_snapshot_tells_nothing_and_age_zstd_and_etcdutl_open_it() {
    let vault = Vault::new("encrypted-told");
    let revision = vault.etcd.revision();
    vault.taken("nightly");
    let [data, own, manifest, recipients] = vault.files("nightly");
    for object in Minio::shared().list(vault.bucket, "") {
        let bytes = vault.get(&object);
        for hidden in [VALUE, "/registry/", "etcd-0", "127.0.0.1"] {
            let mut windows = bytes.windows(hidden.len());
            let is_there = windows.any(|window| window == hidden.as_bytes());
            assert!(!is_there, "{object} tells {hidden}");
        }
    }
    let fingerprints = String::from_utf8(vault.get(&recipients)).unwrap();
    assert!(fingerprints.contains("SHA256:"), "{fingerprints}");

    // Without us.
    let identity = fixture("ed25519");
    let k = vault
        .folder
        .write("k", vault.age(&identity, &vault.saved(&own)));
    let packed = vault.age(&k, &vault.saved(&data));
    let file = unpacked(&vault.folder, &packed);
    let said = status(Version::V3_6, &file);
    assert_eq!(said["revision"], revision);
    assert_eq!(said["totalKey"], vault.live.len());
    assert_eq!(contents(&restored(Version::V3_6, &file)), vault.live);

    // The manifest: what is in the clear, and what is sealed.
    let clear: Value = serde_json::from_slice(&vault.get(&manifest)).unwrap();
    assert_eq!(clear["facts"], serde_json::json!({"revision": revision}));
    assert_eq!(clear["data"]["encryption"], "age");
    assert_eq!(clear["data"]["sha256"], sha256(&vault.get(&data)));
    let text = vault.get(&manifest);
    let plain = fs::read(&file).unwrap();
    let digest = super::place::hex(&plain[plain.len() - 32..]);
    assert!(!String::from_utf8_lossy(&text).contains(&digest));
    for absent in ["digest", "hashKv"] {
        assert_eq!(clear.get(absent), None);
    }
    let sealed = vault
        .folder
        .write("sealed", clear["sealed"].as_str().unwrap());
    let whole: Value = serde_json::from_slice(&vault.age(&k, &sealed)).unwrap();
    assert_eq!(whole["snapshot"]["sha256"], digest);
    assert_eq!(whole["data"], clear["data"]);
    assert_eq!(whole["facts"]["members"][0]["name"], "etcd-0");
}

fn sha256(bytes: &[u8]) -> String {
    super::place::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

#[test]
fn everything_that_reads_needs_an_identity_and_what_lists_and_deletes_needs_none() {
    let vault = Vault::new("encrypted-read");
    let revision = vault.etcd.revision().to_string();
    vault.taken("nightly");
    let listed = vault.plugin(&["get", "-o", "wide"]).ok().stdout;
    assert!(
        listed.contains(&revision) && listed.contains("age"),
        "{listed}"
    );
    let clear = vault.plugin(&["describe", "nightly"]).ok();
    assert!(clear.stdout.contains(&revision), "{}", clear.stdout);
    assert!(clear.stdout.contains("SHA256:"), "{}", clear.stdout);
    assert!(!clear.stdout.contains("Live keys"), "{}", clear.stdout);
    assert!(clear.stderr.contains("--identity"), "{}", clear.stderr);
    let all = vault.opened_by("first.key", &["describe", "nightly"]).ok();
    assert!(
        all.stdout.contains("Live keys") && all.stdout.contains("secrets"),
        "{}",
        all.stdout
    );
    let out = vault.folder.join("x.db").display().to_string();
    let download = ["download", "nightly", "--output-file", &out];
    for arguments in [&["verify", "nightly"][..], &download] {
        let none = vault.plugin(arguments).code(1);
        assert!(
            none.stderr.contains("no identity is given"),
            "{}",
            none.stderr
        );
        let other = vault.opened_by("second.key", arguments).code(1);
        assert!(other.stderr.contains("fits"), "{}", other.stderr);
        assert!(!fs::exists(&out).unwrap());
        vault.opened_by("ed25519", arguments).ok();
    }
    assert_eq!(contents(&restored(Version::V3_6, out.as_ref())), vault.live);
    // The launcher's commands, by URL and by name.
    let [data, ..] = vault.files("nightly");
    let endpoint = Minio::shared().endpoint();
    let url = format!("s3://{}/{data}?endpoint={endpoint}", vault.bucket);
    let identity = fixture("first.key").display().to_string();
    let with = ["--identity", identity.as_str()];
    for command in ["verify", "describe"] {
        let run = |arguments: &[&str]| {
            etcd_launcher(&[command, &url])
                .args(arguments)
                .credentials_of(Minio::shared())
        };
        let refused = run(&[]).code(1);
        assert!(refused.stderr.contains("--identity"), "{}", refused.stderr);
        let told = run(&with).ok().stdout;
        assert!(told.contains(&revision), "{told}");
    }
    let folder = Folder::new("restored");
    let refused = vault.restore("nightly", &folder.join("none"), &[]).code(1);
    assert!(
        refused.stderr.contains("no identity is given"),
        "{}",
        refused.stderr
    );
    vault.restore("nightly", &folder.join("data"), &with).ok();
    let database = folder.join("data/member/snap/db");
    let verified = etcd_launcher(&["verify", "-o", "json"])
        .arg(&database)
        .ok()
        .json();
    assert_eq!(verified["digest"]["keys"], vault.live.len());

    vault
        .plugin(&["delete", "nightly", "--cluster", CLUSTER, "--yes"])
        .ok();
    let left = Minio::shared().list(vault.bucket, "p/plugins");
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn what_was_cut_altered_or_taken_from_another_snapshot_is_refused_and_nothing_is_restored() {
    let vault = Vault::new("encrypted-altered");
    vault.taken("a");
    vault.etcd.put("/later", "x");
    vault.taken("b");
    let [data, own, manifest, _] = vault.files("a");
    let [other_data, other_own, other_manifest, _] = vault.files("b");
    let whole = vault.get(&data);
    let mut bent = whole.clone();
    bent[whole.len() / 2] ^= 1;
    let mut lying: Value = serde_json::from_slice(&vault.get(&manifest)).unwrap();
    lying["facts"]["revision"] = 1.into();
    let identity = fixture("first.key").display().to_string();
    let folder = Folder::new("refused");
    for (number, (key, bytes, says)) in [
        (&data, whole[..whole.len() / 2].to_vec(), "altered"),
        (&data, bent, "altered"),
        (&data, vault.get(&other_data), "another"),
        (&own, vault.get(&other_own), "another key"),
        (&manifest, vault.get(&other_manifest), "of snapshot \"b\""),
        (
            &manifest,
            lying.to_string().into_bytes(),
            "somebody altered",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let before = vault.get(key);
        vault.put(key, bytes);
        let verified = vault.opened_by("first.key", &["verify", "a"]).code(1);
        let told = format!("{}{}", verified.stdout, verified.stderr);
        assert!(told.contains(says), "{number}: {told}");
        let data_dir = folder.join(number.to_string());
        let refused = vault
            .restore("a", &data_dir, &["--identity", &identity])
            .code(1);
        assert!(!refused.stdout.contains("restored from"), "{number}");
        assert!(!data_dir.join("member").exists(), "{number}");
        vault.put(key, before);
    }
    vault.opened_by("first.key", &["verify", "a"]).ok();
    // A key that is gone is told as such.
    Minio::shared().delete(vault.bucket, &own);
    let refused = vault.opened_by("first.key", &["verify", "a"]).code(1);
    assert!(refused.stderr.contains("is missing"), "{}", refused.stderr);
}

#[test]
fn rekey_gives_a_snapshot_to_others_and_touches_neither_data_nor_manifest() {
    let vault = Vault::new("encrypted-rekeyed");
    vault.taken("a");
    let [data, own, manifest, _] = vault.files("a");
    let before = [vault.get(&data), vault.get(&manifest)];
    let to = key("second.pub");
    let rekey = ["rekey", "a", "--recipient", &to];
    vault.plugin(&rekey).code(1);
    vault.opened_by("second.key", &rekey).code(1);
    vault.opened_by("first.key", &["rekey", "a"]).code(2);
    let run = vault.opened_by("first.key", &rekey).ok();
    assert_eq!(run.stdout, "snapshot/a rekeyed\n");
    assert_eq!([vault.get(&data), vault.get(&manifest)], before);
    let refused = vault.opened_by("first.key", &["verify", "a"]).code(1);
    assert!(refused.stderr.contains("age1"), "{}", refused.stderr);
    vault.opened_by("second.key", &["verify", "a"]).ok();
    let identity = fixture("second.key");
    let saved = vault.saved(&own);
    assert!(
        vault
            .age(&identity, &saved)
            .starts_with(b"AGE-SECRET-KEY-1")
    );
    // One that is not encrypted has no key.
    vault.take("plain", &[]).ok();
    let refused = vault
        .opened_by("second.key", &["rekey", "plain", "--recipient", &to])
        .code(1);
    assert!(
        refused.stderr.contains("is not encrypted"),
        "{}",
        refused.stderr
    );
    // Plain ones beside it are read as ever.
    vault.plugin(&["verify", "plain"]).ok();
}

#[test]
fn a_file_is_one_of_age_for_its_recipients_and_its_name_says_so() {
    let vault = Vault::new("encrypted-file");
    let folder = &vault.folder;
    let recipients = folder.write("team.pub", [key("first.pub"), key("rsa.pub")].join("\n"));
    let recipients = recipients.display().to_string();
    let file = folder.join("x.db.zst.age");
    let save = |file: &Path, arguments: &[&str]| of(&vault.etcd, arguments).arg(file);
    for (name, arguments, says) in [
        ("x.db", &["--recipients-file", &recipients][..], ".age"),
        ("x.db.zst.age", &[], "for whom"),
        ("x.db.age", &["--recipient=passphrase"], "--passphrase-file"),
        ("x.db.age", &["--recipient=age1nonsense"], "no recipient"),
    ] {
        let refused = save(&folder.join(name), arguments).code(2);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
        assert!(!folder.join(name).exists());
    }
    save(&file, &["--recipients-file", &recipients]).ok();
    for identity in ["first.key", "rsa"] {
        let packed = vault.age(&fixture(identity), &file);
        let file = unpacked(folder, &packed);
        assert_eq!(contents(&restored(Version::V3_6, &file)), vault.live);
    }
    // Not compressed, for a passphrase.
    let passphrase = folder.write("passphrase", "correct horse\n");
    let passphrase = ["--passphrase-file", passphrase.to_str().unwrap()];
    let locked = folder.join("y.db.age");
    let for_it = [&["--recipient", "passphrase"][..], &passphrase].concat();
    save(&locked, &for_it).ok();
    let identity = fixture("rsa").display().to_string();
    let folder = Folder::new("from-files");
    for (number, (file, opened)) in [
        (&file, &["--identity", &identity][..]),
        (&locked, &passphrase),
    ]
    .into_iter()
    .enumerate()
    {
        let file = file.display().to_string();
        let refused = etcd_launcher(&["verify", &file]).code(1);
        assert!(
            refused.stderr.contains("no identity is given"),
            "{}",
            refused.stderr
        );
        etcd_launcher(&["verify", &file]).args(opened).ok();
        let data_dir = folder.join(number.to_string());
        vault.restore(&file, &data_dir, &[]).code(1);
        assert!(!data_dir.join("member").exists());
        vault.restore(&file, &data_dir, opened).ok();
    }
    let bytes = fs::read(&file).unwrap();
    let cut = folder.write("cut.db.zst.age", &bytes[..bytes.len() - 1]);
    let cut = cut.display().to_string();
    let refused = etcd_launcher(&["verify", &cut, "--identity", &identity]).code(1);
    assert!(refused.stderr.contains("cut"), "{}", refused.stderr);
}

#[test]
fn a_location_with_recipients_has_no_plain_snapshots() {
    let vault = Vault::new("encrypted-location");
    let home = Folder::new("home");
    let folder = home.join("location").display().to_string();
    let recipient = key("first.pub");
    let create = ["location", "create", "v", "--provider", "local"];
    kubectl_backup(&create)
        .args(&["--bucket", &folder, "--recipient", &recipient])
        .home(home.path())
        .ok();
    let run = of(&vault.etcd, &["--cluster=c", "--name=a", "--location=v"])
        .home(home.path())
        .ok();
    assert!(run.stderr.contains("age1"), "{}", run.stderr);
    let stored = Path::new(&folder).join("plugins/etcd-launcher/c/a");
    let names: Vec<_> = fs::read_dir(stored)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.iter().any(|name| name.ends_with(".db.zst.age")));
    let identity = fixture("first.key").display().to_string();
    let verify = ["etcd", "verify", "a", "--location", "v"];
    kubectl_backup(&verify)
        .args(&["--identity", &identity])
        .home(home.path())
        .ok();
    kubectl_backup(&verify).home(home.path()).code(1);
}

#[test]
fn no_other_name_of_a_place_with_recipients_gets_plain_snapshots() {
    let vault = Vault::new("encrypted-place");
    let minio = Minio::shared();
    let home = Folder::new("home");
    let config = format!("s3Url={}", minio.endpoint());
    let create = ["location", "create", "v", "--provider=aws", "--prefix=p"];
    kubectl_backup(&create)
        .args(&["--bucket", vault.bucket, "--config", &config])
        .args(&["--recipient", &key("first.pub")])
        .args(&[
            "--credentials-file",
            &minio.credentials_file().display().to_string(),
        ])
        .home(home.path())
        .ok();
    let run = vault.take("a", &[]).home(home.path()).ok();
    let note = "is the place of location \"v\": its recipients count";
    assert!(run.stderr.contains(note), "{}", run.stderr);
    let all = minio.list(vault.bucket, "p/");
    assert!(all.iter().any(|file| file.ends_with(".age")), "{all:?}");
    let object = |name: &str| {
        let endpoint = minio.endpoint();
        let url = format!("s3://{}/p/deep/er/{name}?endpoint={endpoint}", vault.bucket);
        of(&vault.etcd, &[&url]).credentials_of(minio)
    };
    let refused = object("x.db").home(home.path()).code(2);
    assert!(
        refused.stderr.contains("end it with .age"),
        "{}",
        refused.stderr
    );
    object("x.db.age").home(home.path()).ok();
    assert!(
        vault
            .get("p/deep/er/x.db.age")
            .starts_with(b"age-encryption.org/v1")
    );

    // Who remembers nothing of it is told by the bucket.
    let stranger = Folder::new("home");
    vault.put(
        "p/.kubectl-backup.json",
        r#"{"cluster": "c", "encrypted": true}"#,
    );
    for plain in [vault.take("b", &[]), object("y.db")] {
        let refused = plain.home(stranger.path()).code(1);
        assert!(
            refused.stderr.contains("encrypted alone"),
            "{}",
            refused.stderr
        );
    }
    let left = minio.list(vault.bucket, "p/");
    assert!(
        !left
            .iter()
            .any(|file| file.contains("y.db") || file.contains("/b/")),
        "{left:?}"
    );
    let recipient = ["--recipient", &key("first.pub")].map(str::to_owned);
    let recipient = recipient.each_ref().map(String::as_str);
    vault.take("b", &recipient).home(stranger.path()).ok();
}

#[test]
fn three_members_are_restored_from_an_encrypted_snapshot_by_the_commands_that_the_first_prints() {
    let etcd = Etcd::of(3);
    etcd.put("/registry/secrets/default/a", VALUE);
    let then = contents(&etcd);
    let home = Folder::new("three");
    let location = format!("file://{}", home.join("location").display());
    let recipient = key("first.pub");
    of(
        &etcd,
        &["--cluster=c", "--name=a", "--recipient", &recipient],
    )
    .location(&location)
    .ok();
    etcd.put("/later", "x");
    for member in etcd.members() {
        member.stop();
    }
    let tool = tools::path("etcdutl").display().to_string();
    let restore = |arguments: &[&str], data_dir: &Path| {
        let data_dir = data_dir.display().to_string();
        etcd_launcher(&["restore"])
            .args(arguments)
            .args(&["--yes", "--etcdutl", &tool, "--data-dir", &data_dir])
            .ok()
    };
    let identity = fixture("first.key").display().to_string();
    let named = ["a", "--cluster", "c", "--location", &location];
    let first = [&named[..], &["--identity", &identity]].concat();
    let printed = restore(&first, etcd.member(0).data_dir()).stdout;
    let commands = printed.lines().filter_map(|line| {
        let words = line.trim().strip_prefix("etcd-launcher restore ")?;
        Some(words.split_whitespace().collect::<Vec<_>>())
    });
    let commands: Vec<_> = commands.collect();
    assert_eq!(commands.len(), 2, "{printed}");
    for (member, mut words) in etcd.members()[1..].iter().zip(commands) {
        let at = words.iter().position(|word| *word == "--data-dir").unwrap();
        words.drain(at..at + 2);
        restore(&words, member.data_dir());
    }
    for member in etcd.members() {
        member.start();
    }
    etcd.wait_until_healthy();
    for member in etcd.members() {
        assert_eq!(member.keys().list("/"), then, "{}", member.name());
    }
}
