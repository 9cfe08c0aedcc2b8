//! What a restore replaced is brought back, before and after etcd has run on the new state.

use std::fs;
use std::path::PathBuf;

use harness::etcd::{Etcd, Version};

use super::place::{Place, digest};

#[test]
fn what_nobody_has_seen_is_exchanged_back_as_it_was() {
    let place = Place::new();
    place.restore().ok();
    assert_eq!(place.held(), place.new);
    place.rollback().ok();
    place.assert_untouched();
    // Once more, and nothing more happens.
    let again = place.rollback().ok();
    assert!(again.stdout.contains("already"), "{}", again.stdout);
    assert_eq!(place.started(), place.now);
    assert_eq!(place.etcd.revision(), place.revision);
}

#[test]
fn what_somebody_has_seen_is_rolled_back_above_its_revisions() {
    let place = Place::new();
    place.restore().ok();
    assert_eq!(place.started(), place.then);
    let seen = place.etcd.put("/written/since", "x");
    place.stop();
    let run = place.rollback().ok();
    assert!(run.stderr.contains("etcd has run"), "{}", run.stderr);
    assert_eq!(place.held(), place.old);
    assert_eq!(place.started(), place.now);
    assert!(place.etcd.revision() > seen);
    let watch = place
        .etcd
        .try_etcdctl(&["watch", "--prefix", "/", &format!("--rev={seen}")]);
    assert!(watch.stderr.contains("compacted"), "{watch:?}");
    // Said again it is not undone.
    place.stop();
    let again = place.rollback().ok();
    assert!(again.stdout.contains("already"), "{}", again.stdout);
    assert_eq!(place.held(), place.old);
    // What was written since is kept as well.
    let told = place.status();
    let kept: PathBuf = told["attempts"][1]["kept"].as_str().unwrap().into();
    assert_eq!(digest(&kept.join("snap/db")).keys, place.new.keys + 1);
}

#[test]
fn what_an_etcd_had_only_in_its_log_when_it_was_killed_comes_back() {
    let etcd = Etcd::builder().version(Version::V3_6).start();
    etcd.put("/a", "1");
    let snapshot = etcd.save_snapshot("snapshot.db");
    for number in 0..500 {
        etcd.put(&format!("/late/{number}"), "x");
    }
    let member = etcd.member(0);
    let (now, revision) = (etcd.keys().list("/"), etcd.revision());
    member.kill();
    let behind = digest(&member.database()).keys;
    super::restore(Version::V3_6, &snapshot, etcd.data_dir()).ok();
    member.start();
    etcd.wait_until_healthy();
    assert_eq!(etcd.keys().list("/").len(), 1);
    member.stop();
    harness::run::etcd_launcher(&["rollback", "--yes", "--data-dir"])
        .arg(etcd.data_dir())
        .arg("--etcd")
        .arg(harness::tools::path("etcd"))
        .arg("--etcdutl")
        .arg(harness::tools::path("etcdutl"))
        .ok();
    member.start();
    etcd.wait_until_healthy();
    let back = etcd.keys().list("/");
    let lost: Vec<_> = now.iter().filter(|key| !back.contains(key)).collect();
    assert!(
        lost.is_empty(),
        "{behind} of {} were in the database, lost are {lost:?}",
        now.len()
    );
    assert_eq!(back.len(), now.len());
    assert!(etcd.revision() > revision);
}

#[test]
fn a_database_that_lags_behind_its_log_is_brought_up_to_it() {
    let place = Place::new();
    place.restore().ok();
    place.started();
    place.stop();
    let told = place.status();
    let kept: PathBuf = told["attempts"][0]["kept"].as_str().unwrap().into();
    // As if etcd had been killed before it wrote anything to its database.
    let bytes = fs::read(&place.snapshot).unwrap();
    fs::write(kept.join("snap/db"), &bytes[..bytes.len() - 32]).unwrap();
    place.rollback().ok();
    assert_eq!(place.held(), place.old);
}

#[test]
fn nothing_to_roll_back_is_said() {
    let place = Place::new();
    let run = place.rollback().code(1);
    assert!(run.stderr.contains("nothing"), "{}", run.stderr);
    place.assert_untouched();
}

#[test]
fn a_kept_state_that_was_removed_is_named() {
    let place = Place::new();
    place.restore().ok();
    let told = place.status();
    let kept = told["attempts"][0]["kept"].as_str().unwrap();
    fs::remove_dir_all(kept).unwrap();
    for started in [false, true] {
        if started {
            place.started();
            place.stop();
        }
        let run = place.rollback().code(1);
        assert!(run.stderr.contains(".restore-"), "{}", run.stderr);
        assert_eq!(place.held(), place.new, "started: {started}");
    }
}

#[test]
fn a_kept_state_with_other_values_than_were_noted_does_not_come_back() {
    let place = Place::new();
    place.restore().ok();
    place.started();
    place.stop();
    let told = place.status();
    let kept: PathBuf = told["attempts"][0]["kept"].as_str().unwrap().into();
    // One value, and nothing that etcd checks.
    let db = kept.join("snap/db");
    let mut bytes = fs::read(&db).unwrap();
    let mut altered = 0;
    for at in 0..bytes.len() - 5 {
        if &bytes[at..at + 5] == b"after" {
            bytes[at] = b'A';
            altered += 1;
        }
    }
    assert!(altered >= 50);
    fs::write(&db, bytes).unwrap();
    let run = place.rollback().code(1);
    assert!(run.stderr.contains("nothing was changed"), "{}", run.stderr);
    assert_eq!(place.held(), place.new);
}
