//! What somebody with the bucket alone does to encrypted Secrets: it is found by who checks, and by who restores before anything is changed.

use std::fs;

use super::super::VALUE;
use super::{Home, OF_KEY, SEALED};

#[test]
fn secrets_that_were_swapped_cut_or_altered_are_refused() {
    let home = Home::new("sealed-tampered");
    home.create("a");
    home.create("b");
    let first = |arguments: &[&str]| home.opened_by("first.key", arguments);
    let restore = |target: &str| {
        let mapping = format!("{}:{target}", home.namespace);
        first(&["restore", "create", "--from-backup", "a", "--yes"])
            .args(&["--namespace-mappings", &mapping])
    };
    let target = format!("{}-copy", home.namespace);
    for file in SEALED {
        let own = fs::read(home.file("a", file)).unwrap();
        let mut flipped = own.clone();
        let middle = flipped.len() - 30;
        flipped[middle] ^= 1;
        for bytes in [
            Some(fs::read(home.file("b", file)).unwrap()),
            Some(flipped),
            Some(own[..own.len() - 1].to_vec()),
            None,
        ] {
            match bytes {
                Some(bytes) => fs::write(home.file("a", file), bytes).unwrap(),
                None => fs::remove_file(home.file("a", file)).unwrap(),
            }
            // Who can not open it sees by the digests that it is not what was written.
            let found = home.run(&["verify", "a"]).code(1);
            assert!(found.stdout.contains(file), "{}", found.stdout);
            let found = first(&["verify", "a"]).code(1);
            assert!(found.stdout.contains(file), "{}", found.stdout);
            restore(&target).code(1);
            assert!(!home.is_there(&target));
            // The rest needs none of it.
            home.run(&["contents", "a", "configmaps"]).ok();
            first(&["contents", "a", "configmaps"]).ok();
            first(&["contents", "a", "secrets"]).code(1);
        }
        fs::write(home.file("a", file), own).unwrap();
    }
    // Both of them, with the key: of another backup all the same.
    let own = SEALED.map(|file| fs::read(home.file("a", file)).unwrap());
    for file in SEALED {
        fs::copy(home.file("b", file), home.file("a", file)).unwrap();
    }
    let own_key = fs::read(home.file("a", OF_KEY[0])).unwrap();
    fs::copy(home.file("b", OF_KEY[0]), home.file("a", OF_KEY[0])).unwrap();
    let refused = restore(&target).code(1);
    assert!(
        refused.stderr.contains("of something else"),
        "{}",
        refused.stderr
    );
    assert!(!home.is_there(&target));
    let found = first(&["verify", "a"]).code(1).stdout;
    assert!(
        found.contains("of something else") && found.contains(SEALED[0]),
        "{found}"
    );
    // Whoever leaves the Secrets out gets the rest, identity or not.
    let rest = format!("{}-rest", home.namespace);
    restore(&rest)
        .args(&["--exclude-resources", "secrets"])
        .ok();
    assert_eq!((home.is_there(&rest), home.secret(&rest)), (true, None));
    for (file, bytes) in SEALED.into_iter().zip(own) {
        fs::write(home.file("a", file), bytes).unwrap();
    }
    // Without its key nobody can open them: it is missed by who copies and who checks.
    fs::remove_file(home.file("a", OF_KEY[0])).unwrap();
    let found = home.run(&["verify", "a"]).code(1).stdout;
    assert!(found.contains(OF_KEY[0]), "{found}");
    let elsewhere = format!("file://{}", home.path("elsewhere", "").display());
    let refused = home.run(&["copy", "a", "--to", &elsewhere]).code(1);
    assert!(refused.stderr.contains(OF_KEY[0]), "{}", refused.stderr);
    // What is no key any more is found without one, too.
    for ruined in [&b"nothing"[..], &own_key[..own_key.len() - 40]] {
        fs::write(home.file("a", OF_KEY[0]), ruined).unwrap();
        let found = home.run(&["verify", "a"]).code(1).stdout;
        assert!(found.contains("no key encrypted with age"), "{found}");
        let refused = home.run(&["copy", "a", "--to", &elsewhere]).code(1);
        assert!(refused.stderr.contains(OF_KEY[0]), "{}", refused.stderr);
    }
    fs::write(home.file("a", OF_KEY[0]), own_key).unwrap();
    restore(&target).ok();
    assert_eq!(home.secret(&target).as_deref(), Some(VALUE));
}

#[test]
fn secrets_that_the_rest_does_not_tell_of_any_more_are_missed() {
    let home = Home::new("sealed-hidden");
    home.create("a");
    home.create("b");
    let first = |arguments: &[&str]| home.opened_by("first.key", arguments);
    let target = format!("{}-copy", home.namespace);
    let mapping = format!("{}:{target}", home.namespace);
    let restore = [
        "restore",
        "create",
        "--from-backup",
        "a",
        "--yes",
        "--namespace-mappings",
        &mapping,
    ];
    let is_refused = |says: &str| {
        for run in [home.run(&restore), first(&restore)] {
            let refused = run.code(1).stderr;
            assert!(refused.contains(says), "{refused}");
        }
        assert!(!home.is_there(&target));
        for kind in [&[][..], &["secrets"]] {
            let contents = [&["contents", "a"], kind].concat();
            let refused = first(&contents).code(1).stderr;
            assert!(refused.contains(says), "{refused}");
        }
        home.run(&["contents", "a", "configmaps"]).ok();
        first(&["verify", "a"]).code(1);
    };
    // Without its index the archive could be read as another tool's.
    let index = home.file("a", "index.jsonl.zst");
    let own = fs::read(&index).unwrap();
    fs::remove_file(&index).unwrap();
    is_refused("index.jsonl.zst is missing");
    // Nor does it become another tool's.
    let marker = home.file("a", "velero-backup.json");
    let written = fs::read(&marker).unwrap();
    let mut stripped: serde_json::Value = serde_json::from_slice(&written).unwrap();
    let annotations = stripped["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.retain(|key, _| !key.starts_with("kubectl-backup/"));
    let stripped = stripped.to_string();
    for with_index in [false, true] {
        if with_index {
            fs::write(&index, &own).unwrap();
        }
        fs::write(&marker, &stripped).unwrap();
        is_refused("says nothing of encrypted Secrets");
    }
    fs::write(&marker, &written).unwrap();
    // What was written anew beside the Secrets does not get them.
    let archive = [home.file("a", "a.tar.gz"), home.file("b", "b.tar.gz")];
    let own = [fs::read(&archive[0]).unwrap(), own];
    fs::copy(&archive[1], &archive[0]).unwrap();
    fs::copy(home.file("b", "index.jsonl.zst"), &index).unwrap();
    for arguments in [&restore[..], &["contents", "a", "secrets"]] {
        let refused = first(arguments).code(1).stderr;
        assert!(refused.contains("beside another archive"), "{refused}");
    }
    let found = first(&["verify", "a"]).code(1).stdout;
    assert!(found.contains("beside another archive"), "{found}");
    assert!(!home.is_there(&target));
    fs::write(&archive[0], &own[0]).unwrap();
    fs::write(&index, &own[1]).unwrap();
    first(&restore).ok();
    assert_eq!(home.secret(&target).as_deref(), Some(VALUE));
}
