//! A completed restore is rolled back by a restore of the state that it replaced.

use std::path::PathBuf;

use harness::run::kubectl_backup;
use harness::wait_for;

use super::place::{LONG, Place, message};

/// The id of a restore's attempt.
fn attempt(place: &Place, name: &str) -> String {
    let restore = place.restore(name).unwrap();
    restore["status"]["attempt"]["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// What each member keeps of what an attempt replaced.
fn kept(place: &Place, attempt: &str) -> Vec<PathBuf> {
    let members = place.members.iter();
    members
        .map(|member| member.data_dir().join(format!(".restore-{attempt}")))
        .collect()
}

/// Restores, rolls back with the plugin, and rolls that back.
fn rolled_back(members: usize) {
    let place = Place::of(members);
    place.restore_well("restored");
    let rollback = |name: &str| {
        let made = kubectl_backup(&["etcd", "rollback", name, "--yes", "--wait", "-o", "name"])
            .args(&["-n", &place.namespace])
            .kubeconfig(place.hosting.kubeconfig())
            .ok();
        let title = made.stdout.lines().next().unwrap();
        title.strip_prefix("etcdrestore/").unwrap().to_owned()
    };
    let back = rollback("restored");
    place.assert_put_back();
    assert!(!place.is_restored(), "{}", place.story());
    // Above all that was seen: a client that goes on from the restored state lists anew.
    let target = |name: &str| {
        place.restore(name).unwrap()["status"]["attempt"]["targetRevision"]
            .as_i64()
            .unwrap()
    };
    assert!(target(&back) > target("restored"));
    assert!(place.keys(0).revision() >= target(&back));
    let again = rollback(&back);
    place.assert_put_back();
    assert!(place.is_restored(), "{again}: {}", place.story());

    // Of three states that were replaced two are kept, and the newest is rolled back to.
    let are_kept = |name: &str, wanted: bool| {
        let folders = kept(&place, &attempt(&place, name));
        folders.iter().all(|folder| folder.exists() == wanted)
    };
    place.relaunch_until("the oldest to be removed", LONG, || {
        are_kept("restored", false).then_some(())
    });
    assert!(are_kept(&back, true) && are_kept(&again, true));
    if members > 1 {
        return;
    }
    let events = place.events_about(&again);
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("StatesRemoved")),
        "{events:?}"
    );
    rollback(&again);
    place.assert_put_back();
    assert!(!place.is_restored(), "{}", place.story());
}

#[test]
fn a_restore_of_one_member_is_rolled_back_and_that_as_well() {
    rolled_back(1);
}

#[test]
fn a_restore_of_three_members_is_rolled_back_to_one_state_on_all_of_them() {
    rolled_back(3);
}

#[test]
fn a_state_that_no_majority_keeps_is_not_rolled_back_to() {
    let place = Place::of(3);
    place.restore_well("restored");
    let attempt = attempt(&place, "restored");
    for kept in &kept(&place, &attempt)[..2] {
        std::fs::remove_dir_all(kept).unwrap();
    }
    place.apply_restore("back", &format!("kept-{attempt}"));
    let restore = place.wait_for_phase("back", "Failed");
    let told = message(&restore);
    assert!(told.contains("1 of 3 members keep"), "{told}");
    assert!(
        told.contains("that of etcd-0, etcd-1 was removed"),
        "{told}"
    );
    place.assert_put_back();
    assert!(place.is_restored());
}

#[test]
fn a_kept_state_that_was_altered_is_refused_and_a_rollback_goes_on_whoever_is_killed() {
    let place = Place::of(3);
    place.restore_well("restored");
    let attempt = attempt(&place, "restored");
    for member in &place.members {
        let journal = member.data_dir().join(".restore-journal");
        wait_for("the note of the old state's keys", LONG, || {
            let text = std::fs::read_to_string(&journal).unwrap();
            let mut lines = text.lines();
            lines
                .any(|line| line.contains("Committed") && line.contains("former"))
                .then_some(())
        });
    }
    let databases: Vec<_> = kept(&place, &attempt)
        .iter()
        .map(|kept| kept.join("member/snap/db"))
        .collect();
    let whole: Vec<_> = databases
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    for (file, bytes) in databases.iter().zip(&whole) {
        let mut altered = bytes.clone();
        let mut places = 0;
        for at in 0..altered.len() - 5 {
            if altered[at..].starts_with(b"later") {
                altered[at] = b'L';
                places += 1;
            }
        }
        assert!(places > 0, "the state has none of what was written later");
        std::fs::write(file, altered).unwrap();
    }
    let name = format!("kept-{attempt}");
    place.apply_restore("altered", &name);
    let restore = place.wait_for_phase("altered", "Failed");
    let told = message(&restore);
    assert!(told.contains("holds other keys"), "{told}");
    place.assert_put_back();
    assert!(place.is_restored());

    for (file, bytes) in databases.iter().zip(&whole) {
        std::fs::write(file, bytes).unwrap();
    }
    // Each is killed in Preflight, so also the one that brings the state to the destination.
    for member in &place.members {
        member.crash_at(&["Preflight:done", "Preflight:done", "Planned:done"]);
        member.stop();
    }
    place.wait_until_etcd_serves();
    place.apply_restore("back", &name);
    place.wait_for_phase("back", "Completed");
    place.assert_put_back();
    assert!(!place.is_restored(), "{}", place.story());
    for member in &place.members {
        assert!(member.has_passed_all(), "{:?}", member.points_left());
    }
}
