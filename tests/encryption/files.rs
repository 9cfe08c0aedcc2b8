//! The files of encrypted backups: what was swapped, cut or altered is refused, and the age program reads and writes them like us.

use std::fs;
use std::process::Command;

use harness::process::Folder;
use harness::tools;

use super::{fixture, key};
use crate::place::{Archive, Place};

/// A location, and a namespace with something to save.
fn with_something_in(name: &str) -> (Place, String) {
    let place = Place::new();
    let namespace = place.cluster.create_namespace(name);
    let make = ["create", "configmap", "c", "--from-literal=a=b"];
    place
        .cluster
        .kubectl(&[&["-n", &namespace][..], &make].concat());
    (place, namespace)
}

#[test]
fn files_that_were_swapped_cut_or_altered_are_refused() {
    let (place, namespace) = with_something_in("tampered");
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
    let (place, namespace) = with_something_in("go-age");
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
        let archive = Archive::of(&age(&["-d", "-i", own, "b.tar.gz.age"]));
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
