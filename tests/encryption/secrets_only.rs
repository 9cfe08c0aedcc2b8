//! Backups of which the Secrets alone are encrypted: Velero reads them and restores the rest, and only who has an identity gets the Secrets.

mod tampered;
mod velero;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::{Backup, kubectl_backup};
use harness::tools;

use super::{SECRET, VALUE, fixture, key};
use crate::copy::signed::key_pair;
use crate::place::Archive;

/// The files of such a backup that are sealed, and those beside them that `rekey` writes anew.
const SEALED: [&str; 2] = ["secrets.tar.gz.age", "secrets.index.jsonl.zst.age"];
const OF_KEY: [&str; 2] = ["secrets.key.age", "secrets.recipients.txt"];

/// What a file says to whoever unpacks it.
fn unpacked(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    if name.ends_with(".gz") {
        MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap();
    } else if name.ends_with(".zst") {
        text = zstd::decode_all(bytes).unwrap();
    } else {
        text = bytes.to_vec();
    }
    text
}

/// Errors where a file that is not sealed says one of these, packed or unpacked.
#[track_caller]
fn tells_none(name: &str, bytes: &[u8], hidden: &BTreeSet<String>) {
    if name.ends_with(".age") {
        assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{name}");
    }
    let unpacked = unpacked(name, bytes);
    for hidden in hidden {
        let word = hidden.as_bytes();
        let is_in = |text: &[u8]| text.windows(word.len()).any(|window| window == word);
        assert!(!is_in(bytes) && !is_in(&unpacked), "{name} tells {hidden}");
        assert!(!name.contains(hidden.as_str()), "{name}");
    }
}

/// A namespace with a Secret in it, a home, and a remembered location in a folder whose Secrets are encrypted.
struct Home {
    cluster: &'static Cluster,
    namespace: String,
    folder: Folder,
}

impl Home {
    fn new(name: &str) -> Self {
        let cluster = Cluster::shared();
        let namespace = cluster.create_namespace(name);
        let literal = format!("--from-literal=v={VALUE}");
        for made in [
            &["secret", "generic", SECRET, &literal][..],
            &["configmap", "settings", "--from-literal=greeting=hello"],
        ] {
            cluster.kubectl(&[&["-n", &namespace, "create"], made].concat());
        }
        let home = Self {
            cluster,
            namespace,
            folder: Folder::new("home"),
        };
        home.remember("s", &[]);
        home
    }

    /// Remembers a folder whose backups have their Secrets encrypted.
    fn remember(&self, name: &str, more: &[&str]) {
        let folder = self.path(name, "").display().to_string();
        fs::create_dir_all(&folder).unwrap();
        let recipient = key("first.pub");
        let own = [
            "location",
            "create",
            name,
            "--provider=local",
            "--bucket",
            &folder,
            "--recipient",
            &recipient,
            "--encrypt",
            "secrets",
        ];
        self.anywhere(&own).args(more).ok();
    }

    fn anywhere(&self, arguments: &[&str]) -> Backup {
        kubectl_backup(arguments)
            .home(self.folder.path())
            .kubeconfig(self.cluster.kubeconfig())
    }

    fn run(&self, arguments: &[&str]) -> Backup {
        self.anywhere(arguments).location("s")
    }

    fn opened_by(&self, identity: &str, arguments: &[&str]) -> Backup {
        let path = fixture(identity);
        self.run(arguments)
            .args(&["--identity".as_ref(), path.as_os_str()])
    }

    fn create(&self, backup: &str) {
        self.run(&["create", backup, "-n", &self.namespace]).ok();
    }

    /// A path in the folder of a location.
    fn path(&self, location: &str, inside: &str) -> PathBuf {
        self.folder.join(format!("of-{location}")).join(inside)
    }

    /// Where a file of a backup lies.
    fn file(&self, backup: &str, file: &str) -> PathBuf {
        self.path("s", &format!("backups/{backup}/{file}"))
    }

    fn secret(&self, namespace: &str) -> Option<String> {
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{SECRET}");
        let answer = self.cluster.client().get(&path).unwrap();
        (answer.status == 200).then(|| {
            let value = answer.json()["data"]["v"].as_str().unwrap().to_owned();
            String::from_utf8(STANDARD.decode(value).unwrap()).unwrap()
        })
    }

    fn is_there(&self, namespace: &str) -> bool {
        let path = format!("/api/v1/namespaces/{namespace}");
        self.cluster.client().get(&path).unwrap().status == 200
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn without_an_identity_the_secrets_are_refused_by_name_and_the_rest_is_read() {
    let home = Home::new("sealed-secrets");
    let namespace = home.namespace.as_str();
    home.create("b");
    let stands = files(&home.path("s", ""));
    let hidden = BTreeSet::from([VALUE, SECRET].map(str::to_owned));
    for path in &stands {
        tells_none(path.to_str().unwrap(), &fs::read(path).unwrap(), &hidden);
    }
    for file in SEALED.iter().chain(&OF_KEY) {
        assert!(home.file("b", file).is_file(), "{file}");
    }

    let listed = home.run(&["get"]).ok().stdout;
    assert!(
        listed.contains("ENCRYPTED") && listed.contains("secrets"),
        "{listed}"
    );
    let described = home.run(&["describe", "b"]).ok().stdout;
    assert!(
        described.contains(&format!("1, encrypted for {}", &key("first.pub")[..16])),
        "{described}"
    );
    let described = home.run(&["describe", "b", "-o", "json"]).ok().json();
    assert_eq!(described["secrets"]["count"], 1);
    let kinds = home.run(&["contents", "b"]).ok().stdout;
    assert!(kinds.contains("saved, encrypted apart"), "{kinds}");
    let object = format!("{namespace}/settings");
    home.run(&["contents", "b", "configmaps", &object]).ok();
    let checked = home.run(&["verify", "b"]).ok();
    assert!(
        checked.stdout.contains("verified") && checked.stderr.contains("were not opened"),
        "{checked:?}"
    );

    // What would need them says so, and changes nothing.
    let copy = format!("{namespace}-copy");
    let mapping = format!("{namespace}:{copy}");
    let restore = [
        "restore",
        "create",
        "--from-backup",
        "b",
        "--namespace-mappings",
        &mapping,
        "--yes",
    ];
    let dry = [&restore[..6], &["--dry-run=client"]].concat();
    for arguments in [&restore[..], &dry, &["contents", "b", "secrets"]] {
        let refused = home.run(arguments).code(1);
        assert!(
            refused.stderr.contains("--identity")
                && refused.stderr.contains("--exclude-resources secrets")
                && !refused.stderr.contains("goes on"),
            "{}",
            refused.stderr
        );
        let refused = home.opened_by("second.key", arguments).code(1);
        assert!(refused.stderr.contains("fits"), "{}", refused.stderr);
    }
    let differs = home.run(&["diff", "b", "-n", namespace]).code(2);
    assert!(
        differs.stderr.contains("not compared: secrets"),
        "{}",
        differs.stderr
    );
    assert!(!home.is_there(&copy));
    assert_eq!(files(&home.path("s", "")), stands);
    // Both ways out.
    home.run(&restore)
        .args(&["--exclude-resources", "secrets"])
        .ok();
    assert!(home.is_there(&copy));
    assert_eq!(home.secret(&copy), None);
    let without = [
        "diff",
        "b",
        "-n",
        namespace,
        "--exclude-resources",
        "secrets",
    ];
    home.run(&without).ok();
    home.opened_by("first.key", &restore).ok();
    assert_eq!(home.secret(&copy).as_deref(), Some(VALUE));

    let first = |arguments: &[&str]| home.opened_by("first.key", arguments);
    let shown = first(&["contents", "b", "secrets"]).ok().stdout;
    assert!(shown.contains(SECRET), "{shown}");
    first(&["diff", "b", "-n", namespace]).ok();
    let checked = first(&["verify", "b", "-o", "json"]).ok().json();
    assert_eq!(checked["secretsOpened"], true);
    let rest = home.run(&["verify", "b", "-o", "json"]).ok().json();
    let count = |checked: &serde_json::Value| checked["objects"].as_u64().unwrap();
    assert_eq!(count(&checked), count(&rest) + 1);
    // An identity of the user's own that opens other things is no hindrance to what needs none.
    let own = home.folder.join(".config/kubectl-backup/identities");
    fs::copy(fixture("second.key"), &own).unwrap();
    home.run(&["contents", "b", "configmaps", &object]).ok();
    home.run(&restore).code(1);
    fs::remove_file(&own).unwrap();
    // Nor is one that the environment names.
    let named = |arguments: &[&str]| {
        let key = fixture("second.key");
        home.run(arguments).env("KUBECTL_BACKUP_IDENTITY", key)
    };
    named(&["contents", "b", "configmaps", &object]).ok();
    named(&without).ok();
    let checked = named(&["verify", "b", "-o", "json"]).ok();
    assert_eq!(checked.json()["secretsOpened"], false);
    assert!(checked.stderr.contains("fits"), "{}", checked.stderr);
    named(&restore).code(1);
    home.opened_by("second.key", &["verify", "b"]).code(1);
    home.opened_by("second.key", &without).ok();
    fs::copy(fixture("first.key"), &own).unwrap();
    home.run(&["contents", "b", "secrets"]).ok();

    let out = home.folder.join("b.tar.gz").display().to_string();
    let got = home.run(&["download", "b", "--output", &out]).ok();
    assert!(got.stderr.contains("1 Secret"), "{}", got.stderr);
    let got = Archive::of(&fs::read(&out).unwrap());
    assert_eq!(got.names("secrets"), [""; 0]);
    assert_eq!(
        got.names("configmaps")
            .iter()
            .filter(|name| **name == object)
            .count(),
        1
    );
    let pruned = home.run(&["prune", "--yes"]).ok();
    assert!(!pruned.stdout.contains('b'), "{}", pruned.stdout);
    home.run(&["delete", "b", "--yes"]).ok();
    let left: Vec<_> = files(&home.path("s", ""));
    let left = left
        .iter()
        .filter(|path| path.to_str().unwrap().contains("/backups/"));
    assert_eq!(left.count(), 0);
}

#[test]
fn secrets_of_a_signed_backup_are_rekeyed_and_copied_and_the_signature_still_holds() {
    let home = Home::new("sealed-signed");
    for (file, bytes) in key_pair("backups") {
        home.folder.write(&file, bytes);
    }
    let path = |file: &str| home.folder.join(file).display().to_string();
    let (private, public) = (path("backups.key"), path("backups.pub"));
    home.remember("second", &["--verify-key", &public]);
    home.anywhere(&["location", "set", "s", "--signing-key-file", &private])
        .args(&["--verify-key", &public, "--replicate-to", "second"])
        .ok();
    home.create("b");
    let stands = |location: &str| {
        let folder = home.path(location, "backups/b");
        let mut all: Vec<_> = files(&folder)
            .into_iter()
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read(path).unwrap())
            })
            .collect();
        all.retain(|(name, _)| !OF_KEY.contains(&name.as_str()));
        all
    };
    let made = stands("s");
    assert_eq!(made.len(), 14);
    let key_files = |location: &str| {
        OF_KEY.map(|file| fs::read(home.path(location, &format!("backups/b/{file}"))).unwrap())
    };
    let first = |arguments: &[&str]| home.opened_by("first.key", arguments);
    let in_second = |arguments: &[&str]| {
        let path = fixture("first.key");
        home.anywhere(arguments)
            .location("second")
            .args(&["--identity".as_ref(), path.as_os_str()])
    };
    first(&["verify", "b"]).ok();
    in_second(&["verify", "b"]).ok();
    assert!(stands("second") == made);
    assert_eq!(key_files("second"), key_files("s"));

    // For others: nothing that is signed is touched, and the copy keeps its own.
    let rekey = ["rekey", "b", "--recipient", &key("second.pub")];
    home.run(&rekey).code(1);
    home.opened_by("second.key", &rekey).code(1);
    let told = first(&rekey).ok().stderr;
    assert!(
        told.contains("its Secrets are encrypted for age1"),
        "{told}"
    );
    assert!(stands("s") == made);
    assert_ne!(key_files("s"), key_files("second"));
    first(&["verify", "b"]).code(1);
    let verified = home.opened_by("second.key", &["verify", "b"]).ok().stdout;
    assert!(verified.contains("signed by"), "{verified}");
    in_second(&["verify", "b"]).ok();
    in_second(&["contents", "b", "secrets"]).ok();
    // It is a copy still.
    home.run(&["copy", "b", "--to", "second"]).ok();
    let mapping = format!("{0}:{0}-copy", home.namespace);
    let restore = [
        "restore",
        "create",
        "--from-backup",
        "b",
        "--namespace-mappings",
        &mapping,
        "--yes",
    ];
    home.opened_by("second.key", &restore).ok();
    let copy = format!("{}-copy", home.namespace);
    assert_eq!(home.secret(&copy).as_deref(), Some(VALUE));
    // The key of another backup, for whom it may be, is not that of this one.
    home.create("other");
    let own = fs::read(home.file("b", OF_KEY[0])).unwrap();
    fs::copy(home.file("other", OF_KEY[0]), home.file("b", OF_KEY[0])).unwrap();
    let refused = first(&["verify", "b"]).code(1);
    assert!(
        refused.stdout.contains("of something else"),
        "{}",
        refused.stdout
    );
    fs::write(home.file("b", OF_KEY[0]), own).unwrap();
    home.opened_by("second.key", &["verify", "b"]).ok();
}

#[test]
fn how_much_a_location_encrypts_is_never_less_than_it_says() {
    let home = Home::new("sealed-modes");
    let namespace = home.namespace.as_str();
    let all = home.path("all", "").display().to_string();
    let recipient = key("first.pub");
    home.anywhere(&["location", "create", "all", "--provider=local"])
        .args(&["--bucket", &all, "--recipient", &recipient])
        .ok();
    let none = home.path("none", "").display().to_string();
    home.anywhere(&[
        "location",
        "create",
        "none",
        "--provider=local",
        "--bucket",
        &none,
    ])
    .ok();
    let create = ["create", "x", "-n", namespace];
    let refused = home.anywhere(&create).args(&["--encrypt", "secrets"]);
    let refused = refused.location("all").code(2).stderr;
    assert!(refused.contains("not their Secrets alone"), "{refused}");
    let refused = home.anywhere(&create).args(&["--encrypt", "all"]);
    let refused = refused.location("none").code(2).stderr;
    assert!(refused.contains("for whom is not said"), "{refused}");
    home.anywhere(&["location", "set", "none", "--encrypt", "secrets"])
        .code(2);
    // A plain backup has its Secrets in the clear: it is not copied where they have to be encrypted.
    home.anywhere(&create).location("none").ok();
    let refused = home
        .anywhere(&["copy", "x", "--to", "s", "--location", "none"])
        .code(1);
    assert!(refused.stderr.contains("recipients"), "{}", refused.stderr);
    assert!(!home.path("s", "backups").exists());
    // More is always allowed, and one without Secrets has no file of them.
    home.run(&["create", "whole", "-n", namespace, "--encrypt", "all"])
        .ok();
    assert!(
        home.path("s", "plugins/kubectl-backup/backups/whole")
            .exists()
    );
    home.run(&[
        "create",
        "none",
        "-n",
        namespace,
        "--exclude-resources",
        "secrets",
    ])
    .ok();
    assert!(!home.file("none", SEALED[0]).exists());
    home.run(&[
        "restore",
        "create",
        "--from-backup",
        "none",
        "--dry-run=client",
    ])
    .ok();
    // So it is copied to another such place.
    home.remember("second", &[]);
    home.run(&["copy", "none", "--to", "second"]).ok();
    home.anywhere(&["verify", "none"]).location("second").ok();
    // A location may turn from the one to the other; what was made stays as it is.
    home.anywhere(&["location", "set", "s", "--encrypt", "all"])
        .args(&["--replicate-to", "none"])
        .ok();
    home.anywhere(&["location", "set", "s", "--encrypt", "secrets"])
        .args(&["--replicate-to", "none"])
        .ok();
}

#[test]
fn the_age_program_opens_the_secrets_too() {
    let home = Home::new("sealed-go-age");
    home.create("b");
    let age = |arguments: &[&str]| {
        let run = Command::new(tools::path("age")).args(arguments).output();
        let run = run.unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "{said}");
        run.stdout
    };
    let path = |file: &str| home.file("b", file).display().to_string();
    let identity = fixture("first.key").display().to_string();
    let own = age(&["-d", "-i", &identity, &path(OF_KEY[0])]);
    let own = home.folder.write("k", own).display().to_string();
    let archive = Archive::of(&age(&["-d", "-i", &own, &path(SEALED[0])]));
    let name = format!("{}/{SECRET}", home.namespace);
    assert_eq!(archive.names("secrets"), [name]);
    let index = age(&["-d", "-i", &own, &path(SEALED[1])]);
    let index = String::from_utf8(zstd::decode_all(index.as_slice()).unwrap()).unwrap();
    assert!(index.contains(SECRET) && index.contains("salt"), "{index}");
}
