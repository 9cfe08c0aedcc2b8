//! Signed backups: whoever may write to the bucket, and has no key, plants nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use harness::process::Folder;

use super::{Home, files};

/// Keys as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them.
const OWN: [&str; 2] = [
    "MC4CAQAwBQYDK2VwBCIEIDagrLykrCEyxU17BFw6t8A/VQItJjMmqtNYf9Dv9r1X",
    "MCowBQYDK2VwAyEAeZMXMnTRC7pqWWuGCRk9fPJx0qrJGlTN6kD4jxD7XoY=",
];
const STRANGERS: [&str; 2] = [
    "MC4CAQAwBQYDK2VwBCIEIIMHXO2elYpAUyID59LeZcu4YkR1h64o81CTgc4vPgfC",
    "MCowBQYDK2VwAyEAjRs+fgkasefjWMlmnqjgSZlg1ZP7M5CjHdfjEFNEflc=",
];

fn pem(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// The names and contents of a private and a public key's files.
pub(crate) fn key_pair(name: &str) -> [(String, String); 2] {
    [
        (format!("{name}.key"), pem("PRIVATE KEY", OWN[0])),
        (format!("{name}.pub"), pem("PUBLIC KEY", OWN[1])),
    ]
}

/// The files with the private and the public key.
fn key_files(home: &Home, name: &str, key: [&str; 2]) -> [String; 2] {
    let file = |ending: &str, text: String| {
        let path = home.folder.write(format!("{name}.{ending}"), text);
        path.display().to_string()
    };
    [
        file("key", pem("PRIVATE KEY", key[0])),
        file("pub", pem("PUBLIC KEY", key[1])),
    ]
}

/// A home with a location that signs and asks for signatures, the files of its keys, and the folder.
fn signed(name: &str) -> (Home, [String; 2], String) {
    let home = Home::new(name);
    let [private, public] = key_files(&home, "own", OWN);
    let folder = home.location_of_folder("signed");
    let keys = ["--signing-key-file", &private, "--verify-key", &public];
    home.run(&["location", "set", "signed"]).args(&keys).ok();
    (home, [private, public], folder)
}

/// Where a file of a backup lies.
fn path(folder: &str, backup: &str, file: &str) -> PathBuf {
    Path::new(folder).join("backups").join(backup).join(file)
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex = |byte: &u8| format!("{byte:02x}");
    digest.as_ref().iter().map(hex).collect()
}

/// Writes the list of digests anew, as an attacker would.
fn list_again(folder: &str, backup: &str) {
    let mut text = String::new();
    for (file, bytes) in files(folder, backup) {
        if !file.starts_with("SHA256SUMS") {
            text += &format!("{}  {file}\n", sha256(&bytes));
        }
    }
    fs::write(path(folder, backup, "SHA256SUMS"), text).unwrap();
}

/// Everything that reads the backup's objects refuses it in these words, and nothing is restored.
#[track_caller]
fn is_refused(home: &Home, backup: &str, says: &str) {
    let target = format!("{}-planted", home.namespace);
    let mapping = format!("{}:{target}", home.namespace);
    let download = home.folder.join("download").display().to_string();
    let elsewhere = format!("file://{}", home.folder.join("elsewhere").display());
    let restore = [
        "restore",
        "create",
        "--from-backup",
        backup,
        "--namespace-mappings",
        &mapping,
    ];
    for (arguments, code) in [
        (&restore[..], 1),
        (&["verify", backup], 1),
        (&["diff", backup], 2),
        (&["contents", backup], 1),
        (&["download", backup, "--output", &download], 1),
        (&["copy", backup, "--to", &elsewhere], 1),
    ] {
        let refused = home.run(arguments).location("signed").code(code);
        let said = refused.stdout + &refused.stderr;
        assert!(said.contains(says), "{arguments:?}\n{said}");
    }
    let there = [
        "get",
        "namespace",
        &target,
        "--ignore-not-found",
        "-o",
        "name",
    ];
    assert_eq!(home.cluster.kubectl(&there).stdout, "");
    assert!(!Path::new(&download).exists());
    assert!(!home.folder.join("elsewhere/backups").exists());
}

#[test]
fn a_signed_backup_is_used_as_any_other_and_openssl_checks_it_too() {
    let (home, [_, public], folder) = signed("signed-used");
    home.create("b", "signed");
    let signature = path(&folder, "b", "SHA256SUMS.sig");
    assert_eq!(fs::read(&signature).unwrap().len(), 64);
    let run = |arguments: &[&str]| home.run(arguments).location("signed");
    let verified = run(&["verify", "b", "-o", "json"]).ok().json();
    assert_eq!(verified["signedBy"], "5bf12e9377cb084977cc55288e5c2a16");
    let verified = run(&["verify", "b"]).ok().stdout;
    assert!(verified.contains("signed by 5bf12e93"), "{verified}");
    assert!(!verified.contains("is no file of the backup"), "{verified}");
    let same = run(&["diff", "b", "-n", &home.namespace]).ok();
    assert!(
        same.stderr.contains("0 objects different"),
        "{}",
        same.stderr
    );
    let object = format!("{}/settings", home.namespace);
    let shown = run(&["contents", "b", "configmaps", &object, "-o", "json"]).ok();
    assert_eq!(shown.json()["data"]["greeting"], "hello");
    let target = format!("{}-back", home.namespace);
    let mapping = format!("{}:{target}", home.namespace);
    let restore = [
        "restore",
        "create",
        "--from-backup",
        "b",
        "--namespace-mappings",
        &mapping,
    ];
    run(&restore).ok();
    let back = format!("/api/v1/namespaces/{target}/configmaps/settings");
    assert_eq!(home.cluster.get_raw(&back)["data"]["greeting"], "hello");

    // The signature goes along with a copy, and counts there.
    let second = home.location_of_folder("second");
    home.run(&["location", "set", "second", "--verify-key", &public])
        .ok();
    run(&["copy", "b", "--to", "second"]).ok();
    assert!(files(&second, "b") == files(&folder, "b"));
    home.run(&["verify", "b"]).location("second").ok();
    // Who may only check may not make one that would be refused.
    let refused = home
        .run(&["create", "c", "-n", &home.namespace])
        .location("second")
        .code(1);
    assert!(
        refused.stderr.contains("--signing-key-file"),
        "{}",
        refused.stderr
    );
    assert_eq!(files(&second, "c"), []);
    run(&["delete", "b", "--yes"]).ok();
    assert_eq!(files(&folder, "b"), []);

    let sums = path(&second, "b", "SHA256SUMS");
    let signature = path(&second, "b", "SHA256SUMS.sig");
    let checked = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", &public])
        .arg("-in")
        .arg(sums)
        .arg("-sigfile")
        .arg(signature)
        .output();
    match checked {
        Ok(checked) => assert!(checked.status.success(), "{checked:?}"),
        Err(_) => harness::skip!("there is no openssl: its own check was left out"),
    }
}

#[test]
fn who_writes_to_the_bucket_without_a_key_plants_no_restore() {
    let (home, _, folder) = signed("signed-planted");
    home.create("good", "signed");
    home.create("other", "signed");
    // Beside the bucket's owner somebody makes backups that nobody signs: one who remembers nothing of the place, for the owner's URL has its keys.
    let url = format!("file://{folder}");
    let theirs = Folder::new("home");
    let by_url = |name: &str| {
        home.run(&["create", name, "-n", &home.namespace])
            .location(&url)
    };
    let signed = by_url("mine").ok();
    assert!(
        signed.stderr.contains("key to sign with"),
        "{}",
        signed.stderr
    );
    home.run(&["verify", "mine"]).location("signed").ok();
    home.run(&["delete", "mine", "--yes"])
        .location("signed")
        .ok();
    by_url("unsigned").home(theirs.path()).ok();
    is_refused(&home, "unsigned", "it is not signed");
    // What it advises where the backup is known to be good leads to it.
    let asked = home.run(&["verify", "unsigned"]).location("signed").code(1);
    assert!(asked.stderr.contains("second name"), "{}", asked.stderr);
    home.run(&["location", "create", "second", "--provider=local"])
        .args(&["--bucket", &folder])
        .ok();
    home.run(&["verify", "unsigned"]).location("second").ok();
    home.run(&["location", "delete", "second", "--yes"]).ok();
    let [stranger, _] = key_files(&home, "stranger", STRANGERS);
    by_url("strange")
        .home(theirs.path())
        .args(&["--signing-key-file", &stranger])
        .ok();
    is_refused(&home, "strange", "its signature is of none of the keys");
    // Its list says what the key says which it is to be.
    is_refused(&home, "strange", "5bf12e9377cb084977cc55288e5c2a16");

    let good = files(&folder, "good");
    let put_back = || {
        fs::remove_dir_all(path(&folder, "good", "")).unwrap();
        fs::create_dir(path(&folder, "good", "")).unwrap();
        for (file, bytes) in &good {
            fs::write(path(&folder, "good", file), bytes).unwrap();
        }
    };
    let read = |backup: &str, file: &str| fs::read(path(&folder, backup, file)).unwrap();
    let write = |file: &str, bytes: &[u8]| fs::write(path(&folder, "good", file), bytes).unwrap();

    // Another signed backup, under this name: with its own marker, and with one that has this name.
    for (file, bytes) in files(&folder, "other") {
        write(&file.replace("other", "good"), &bytes);
    }
    is_refused(&home, "good", "not this backup");
    let marker = String::from_utf8(read("other", "velero-backup.json")).unwrap();
    write(
        "velero-backup.json",
        marker
            .replace(r#""name": "other""#, r#""name": "good""#)
            .as_bytes(),
    );
    is_refused(&home, "good", "velero-backup.json is not what was signed");
    put_back();

    // An object of the archive, with the list of digests written anew.
    let mut archive = read("good", "good.tar.gz");
    let middle = archive.len() / 2;
    archive[middle] ^= 1;
    write("good.tar.gz", &archive);
    list_again(&folder, "good");
    is_refused(&home, "good", "its signature is of none of the keys");
    put_back();

    // The archive and the index of another one, under this one's list and signature: as large as they are, they fit each other.
    for file in ["good.tar.gz", "index.jsonl.zst"] {
        write(file, &read("other", &file.replace("good", "other")));
    }
    let restore = |says: &str| {
        let arguments = [
            "restore",
            "create",
            "--from-backup",
            "good",
            "--dry-run=client",
        ];
        let refused = home.run(&arguments).location("signed").code(1);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
        let contents = ["contents", "good", "configmaps"];
        let refused = home.run(&contents).location("signed").code(1);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    };
    restore("index.jsonl.zst is not what was signed");
    put_back();

    // The side file by which volumes are told.
    write("good-volumeinfo.json.gz", b"");
    restore("good-volumeinfo.json.gz is not what was signed");
    put_back();
    fs::remove_file(path(&folder, "good", "SHA256SUMS.sig")).unwrap();
    is_refused(&home, "good", "it is not signed");
    put_back();
    home.run(&["verify", "good"]).location("signed").ok();

    // What is only listed is not held up, and says nothing of who made it.
    let listed = home.run(&["get", "-o", "name"]).location("signed").ok();
    assert!(
        listed.stdout.contains("backup/strange"),
        "{}",
        listed.stdout
    );
    // A key that is added counts at once, beside the others.
    let [_, strangers] = key_files(&home, "stranger", STRANGERS);
    let own = home.folder.join("own.pub").display().to_string();
    home.run(&["location", "set", "signed", "--verify-key", &own])
        .args(&["--verify-key", &strangers])
        .ok();
    for backup in ["good", "strange"] {
        home.run(&["verify", backup]).location("signed").ok();
    }
    // Without keys nothing is asked for.
    home.run(&["location", "set", "signed", "--verify-key="])
        .ok();
    home.run(&["verify", "unsigned"]).location("signed").ok();
}

/// Restores of equal options go on where their journal says, with the mappings that it has: one that anybody may have put there is not to count.
#[test]
fn a_journal_that_somebody_plants_changes_nothing_of_a_restore() {
    let (home, _, folder) = signed("signed-journal");
    let image = "--image=docker.io/app:1";
    let kind = ["create", "cronjob", "app", image, "--schedule=0 0 1 1 *"];
    home.cluster
        .kubectl(&[&kind[..], &["-n", &home.namespace]].concat());
    home.create("b", "signed");
    let target = format!("{}-back", home.namespace);
    let mapping = format!("{}:{target}", home.namespace);
    let theirs = Folder::new("home");
    let restore = |location: &str| {
        let arguments = ["restore", "create", "--from-backup", "b"];
        let call = home.run(&arguments);
        // Who remembers nothing of the place is asked for no key there.
        let call = match location.contains("://") {
            true => call.home(theirs.path()),
            false => call,
        };
        call.args(&["--namespace-mappings", &mapping])
            .location(location)
            .ok()
            .stderr
    };
    let path = format!("/apis/batch/v1/namespaces/{target}/cronjobs/app");
    let made = || {
        let object = home.cluster.get_raw(&path);
        let pod = &object["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        let image = pod["containers"][0]["image"].as_str().unwrap().to_owned();
        home.cluster
            .kubectl(&["delete", "cronjob", "app", "-n", &target]);
        image
    };
    let restores = Path::new(&folder).join("restores");
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        entries.map(|entry| name(entry.unwrap())).collect()
    };
    const JOURNAL: &str = "journal-000000.jsonl.zst";

    // By the bucket's URL strangers are asked for no key: so the attacker has the journal of such a restore, and gives it a mapping.
    let url = format!("file://{folder}");
    restore(&url);
    assert_eq!(made(), "docker.io/app:1");
    let [first] = &names(&restores)[..] else {
        panic!("{:?}", names(&restores));
    };
    let journal = fs::read(restores.join(first).join(JOURNAL)).unwrap();
    let text = String::from_utf8(zstd::decode_all(&journal[..]).unwrap()).unwrap();
    let mut header: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    header["spec"]["imageMapping"] = serde_json::json!([["docker.io", "evil.example.com"]]);
    let planted = zstd::encode_all(format!("{header}\n").as_bytes(), 1).unwrap();
    let plant = || {
        fs::remove_dir_all(&restores).unwrap();
        fs::create_dir_all(restores.join("planted")).unwrap();
        fs::write(restores.join("planted").join(JOURNAL), &planted).unwrap();
    };
    plant();
    let told = restore(&url);
    assert!(told.contains("restore planted goes on"), "{told}");
    assert_eq!(made(), "evil.example.com/app:1");

    plant();
    let told = restore("signed");
    assert!(!told.contains("planted"), "{told}");
    assert_eq!(made(), "docker.io/app:1");
    assert_eq!(names(&restores.join("planted")), [JOURNAL]);
    let own = names(&restores);
    let own = own.iter().find(|name| *name != "planted").unwrap();
    // The record is there to be seen; what a restore goes on by is in the user's own folder.
    let shown = home.run(&["restore", "describe", own]).location("signed");
    assert!(shown.ok().stdout.contains("Completed"));
    let there = names(&restores.join(own));
    assert!(!there.iter().any(|name| name == JOURNAL), "{there:?}");
    let state = home.folder.join(".local/state/kubectl-backup/restores");
    assert!(state.join(own).join(JOURNAL).exists());
}

/// An object of the archive that is exchanged so that all checksums but SHA-256 fit.
#[test]
fn an_object_whose_checksum_was_kept_is_found_by_its_digest() {
    let (home, _, folder) = signed("signed-member");
    home.create("b", "signed");
    let file = path(&folder, "b", "b.tar.gz");
    let mut archive = fs::read(&file).unwrap();
    // A byte of a gzip member's header that nobody reads: its time.
    assert_eq!(archive[..3], [0x1f, 0x8b, 8]);
    let members = |archive: &[u8]| -> Vec<usize> {
        let starts = archive.windows(4).enumerate();
        let begins = |bytes: &[u8]| bytes[..3] == [0x1f, 0x8b, 8];
        starts
            .filter(|(_, bytes)| begins(bytes))
            .map(|(at, _)| at)
            .collect()
    };
    for at in members(&archive) {
        archive[at + 4] ^= 1;
    }
    fs::write(&file, archive).unwrap();
    let object = format!("{}/settings", home.namespace);
    let shown = ["contents", "b", "configmaps", &object, "-o", "json"];
    let refused = home.run(&shown).location("signed").code(1);
    assert!(
        refused.stderr.contains("its SHA-256 is another"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_key_that_can_not_be_meant_is_refused_with_what_it_is() {
    let (home, [private, public], _) = signed("signed-keys");
    let [stranger, _] = key_files(&home, "stranger", STRANGERS);
    let kept = home
        .run(&["location", "get", "signed", "-o", "yaml"])
        .ok()
        .stdout;
    assert!(kept.contains(OWN[1]) && kept.contains(&private), "{kept}");
    assert!(!kept.contains(OWN[0]), "{kept}");
    let nothing = home.folder.write("nothing", "").display().to_string();
    let set = ["location", "set", "signed"];
    for (flags, says) in [
        (&["--verify-key", &private][..], "it is a private one"),
        (&["--verify-key", &nothing], "no PEM block PUBLIC KEY"),
        (&["--verify-key", "/absent"], "can not be read"),
        (&["--verify-key=", "--verify-key", &public], "stands alone"),
        (&["--signing-key-file", &public], "it is the public key"),
        (&["--signing-key-file", "/absent"], "can not be read"),
        (&["--signing-key-file", &stranger], "is none of those"),
    ] {
        let refused = home.run(&[&set, flags].concat()).code(2);
        assert!(
            refused.stderr.contains(says),
            "{flags:?}\n{}",
            refused.stderr
        );
        assert!(!refused.stderr.contains(OWN[0]), "{}", refused.stderr);
    }
    let after = home
        .run(&["location", "get", "signed", "-o", "yaml"])
        .ok()
        .stdout;
    assert_eq!(after, kept);
    // A key that is gone keeps nobody from reading.
    home.create("b", "signed");
    fs::remove_file(&private).unwrap();
    home.run(&["verify", "b"]).location("signed").ok();
    let refused = home
        .run(&["create", "c", "-n", &home.namespace])
        .location("signed")
        .code(2);
    assert!(refused.stderr.contains("own.key"), "{}", refused.stderr);
    // An annotation that was tampered with asks for all or nothing.
    let yaml = home.folder.join(".config/kubectl-backup/locations.yaml");
    let text = fs::read_to_string(&yaml).unwrap();
    let cut = BASE64_STANDARD.encode("another");
    fs::write(&yaml, text.replace(OWN[1], &cut)).unwrap();
    let refused = home.run(&["verify", "b"]).location("signed").code(1);
    assert!(
        refused.stderr.contains("kubectl-backup/verify-keys"),
        "{}",
        refused.stderr
    );
}
