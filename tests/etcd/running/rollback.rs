//! A completed restore is rolled back by a restore of the state that it replaced.

use harness::hosted::Hosted;
use harness::run::kubectl_backup;

use super::place::{LONG, Place};

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
    let attempt = place.restore("restored").unwrap()["status"]["attempt"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for member in &place.members[..2] {
        let kept = member.data_dir().join(format!(".restore-{attempt}"));
        std::fs::remove_dir_all(kept).unwrap();
    }
    place.apply_restore("back", &format!("kept-{attempt}"));
    let restore = place.wait_for_phase("back", "Failed");
    let message = super::place::message(&restore);
    assert!(message.contains("1 of 3 members keep"), "{message}");
    place.assert_put_back();
    assert!(place.is_restored());
    let _ = (LONG, Hosted::builder);
}
