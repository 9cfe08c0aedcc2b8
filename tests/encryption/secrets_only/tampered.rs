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
    fs::write(home.file("a", OF_KEY[0]), own_key).unwrap();
    restore(&target).ok();
    assert_eq!(home.secret(&target).as_deref(), Some(VALUE));
}
