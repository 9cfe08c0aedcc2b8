//! With recipients, the bucket and one identity are enough; and without them nobody reads.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::process::Output;
use harness::run::kubectl_backup;
use harness::tools;

use super::{Place, VOLUME, fixture, listed, text};

/// A location with recipients, known by its name in this home.
fn sealed() -> Place {
    let mut place = Place::folder();
    let bucket = place.home.join("bucket");
    let recipients = fixture("first.pub");
    kubectl_backup(&[
        "location",
        "create",
        "sealed",
        "--provider=local",
        "--bucket",
    ])
    .arg(&bucket)
    .arg("--recipients-file")
    .arg(&recipients)
    .home(place.home.path())
    .ok();
    place.location = "sealed".to_owned();
    place
}

fn tells(folder: &Path, hidden: &[u8]) -> bool {
    let mut command = Command::new("grep");
    let hidden = std::str::from_utf8(hidden).unwrap();
    let found = Output::of(command.args(["-raqF", hidden]).arg(folder));
    found.code == 0
}

#[test]
fn the_bucket_and_an_identity_alone_restore_and_another_machine_begins_a_repository_of_its_own() {
    let place = sealed();
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), b"what-nobody-may-read\n").unwrap();
    let cache = place.home.join("cache");
    let with = ["--key-cache", text(&cache)];
    let first = place.backup(&source).args(&with).ok().json();
    let second = place.backup(&source).args(&with).ok().json();
    assert_eq!(
        (&second["repository"], &second["readBytes"]),
        (&1.into(), &0.into())
    );
    let bucket = place.home.join("bucket");
    assert!(!tells(&bucket, b"what-nobody-may-read"));
    assert!(!tells(&bucket, b"AGE-SECRET-KEY"));
    assert!(!place.path("0b5e.key").exists());
    // Another machine, or this one when it has lost everything.
    let elsewhere = place.home.join("elsewhere");
    let other = place
        .backup(&source)
        .args(&["--key-cache", text(&elsewhere)])
        .ok();
    assert!(
        other.stderr.contains("did not keep its key"),
        "{}",
        other.stderr
    );
    let other = other.json();
    assert_eq!(other["repository"], 2);
    fs::remove_dir_all(&cache).unwrap();
    fs::remove_dir_all(place.home.join(".config")).unwrap();
    let mut bare = Place::folder();
    bare.location = format!("file://{}", bucket.display());
    for saved in [&first, &second, &other] {
        let target = bare.home.join(format!("back-{}", saved["snapshot"]));
        let refused = bare.restore(saved, &target).code(1);
        assert!(refused.stderr.contains("--identity"), "{}", refused.stderr);
        bare.restore(saved, &target)
            .arg("--identity")
            .arg(fixture("first.key"))
            .ok();
        assert_eq!(listed(&target, false), listed(&source, false));
    }
    // With age and restic alone, too.
    let mut age = Command::new(tools::path("age"));
    let age = age.arg("-d").arg("-i").arg(fixture("first.key"));
    let password = Output::of(age.arg(place.path("0b5e.key.age"))).ok().stdout;
    let password = place.home.write("password", password);
    place.checked_by_restic(&second, &password, &place.home.join("restic"));
}

#[test]
fn a_password_that_somebody_exchanged_is_named_and_nothing_is_added_under_it() {
    let place = Place::folder();
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), b"a").unwrap();
    let first = place.backup(&source).ok().json();
    let key = fs::read(place.key()).unwrap();
    fs::write(place.key(), "another\n").unwrap();
    let refused = place.restore(&first, &place.home.join("back")).code(1);
    assert!(
        refused.stderr.contains("does not open it"),
        "{}",
        refused.stderr
    );
    let second = place.backup(&source).ok();
    assert!(
        second.stderr.contains("another repository was begun"),
        "{}",
        second.stderr
    );
    assert_eq!(second.json()["repository"], 2);
    fs::write(place.key(), key).unwrap();
    place.restore(&first, &place.home.join("back")).ok();
    place.checked_by_restic(&first, &place.key(), &place.home.join("restic"));
    let second = second.json();
    place.checked_by_restic(
        &second,
        &place.path("0b5e.2.key"),
        &place.home.join("restic2"),
    );
    place.mover(&["check", VOLUME, "--read-data"]).ok();
}
