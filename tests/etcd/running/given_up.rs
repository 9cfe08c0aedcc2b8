//! Restores that are given up, forgotten, or in each other's way.

use harness::run::kubectl_backup;
use harness::wait_for;
use serde_json::json;

use super::place::{LONG, Place, SNAPSHOT, condition, from};

/// Deletes a restore at each of these steps. The launcher ends right after it decided the step, so that the deletion comes neither sooner nor
/// later. What is not committed goes back, what is committed is finished.
fn deleted_at(steps: &[&str]) {
    let mut place = Place::of(1);
    for (number, step) in steps.iter().enumerate() {
        let name = format!("restore-{number}");
        place.members[0].crash_at(&[&format!("{step}:decided")]);
        place.members[0].stop();
        place.wait_until_etcd_serves();
        place.apply_restore(&name, SNAPSHOT);
        wait_for("the launcher's end", LONG, || {
            place.members[0].has_ended().then_some(())
        });
        let restore = place.restore(&name).unwrap();
        assert_eq!(restore["status"]["attempt"]["step"], **step);
        place.delete_restore(&name);
        place.wait_until_gone(&name);
        place.assert_put_back();
        let is_committed = from("Committed").contains(step);
        assert_eq!(place.is_restored(), is_committed, "{step}");
        place.write_later();
    }
}

#[test]
fn a_restore_that_is_deleted_before_the_stop_leaves_all_as_it_was() {
    deleted_at(&["Preflight", "Planned", "Pausing", "Watching"]);
}

#[test]
fn a_restore_that_is_deleted_after_the_stop_goes_back() {
    deleted_at(&["Stopping", "Swapping", "Starting"]);
}

#[test]
fn a_restore_that_is_deleted_after_the_commit_is_finished() {
    deleted_at(&["Committed", "Restarting", "Unpausing", "Completed"]);
}

#[test]
fn a_restore_that_is_aborted_goes_back_and_says_so() {
    let place = Place::of(3);
    // Whoever decides the stop ends right after it, so that the question comes in time.
    for member in &place.members {
        member.crash_at(&["Stopping:decided"]);
        member.stop();
    }
    place.wait_until_etcd_serves();
    place.apply_restore("aborted", SNAPSHOT);
    place.wait_for_step("aborted", &from("Stopping"));
    place.abort("aborted");
    let restore = place.wait_for_phase("aborted", "RolledBack");
    let message = super::place::message(&restore);
    assert!(message.contains("given up"), "{message}");
    place.assert_put_back();
    assert!(!place.is_restored());
}

#[test]
fn a_restore_without_a_launcher_alive_is_given_up_by_force_and_its_members_obey_when_they_come_back()
 {
    let place = Place::of(1);
    let abort = || {
        kubectl_backup(&["etcd", "abort", "stuck", "--force", "-n", &place.namespace])
            .kubeconfig(place.hosting.kubeconfig())
    };
    place.members[0].crash_at(&["Starting:remembered"]);
    place.members[0].stop();
    place.wait_until_etcd_serves();
    place.apply_restore("stuck", SNAPSHOT);
    place.wait_for_step("stuck", &from("Planned"));
    let refused = abort().code(1);
    assert!(refused.stderr.contains("is at work"), "{}", refused.stderr);
    wait_for("the launcher's end", LONG, || {
        place.members[0].has_ended().then_some(())
    });
    assert_eq!(place.replicas("apiserver"), 0);
    let given_up = abort().ok();
    assert!(
        given_up.stdout.contains("deployment/apiserver scaled to 2")
            && given_up.stdout.contains("given up by hand at Starting"),
        "{}",
        given_up.stdout
    );
    assert_eq!(place.replicas("apiserver"), 2);
    assert_eq!(
        place.restore("stuck").unwrap()["status"]["phase"],
        "RolledBack"
    );
    // The new state lies in its place, and is not started.
    place.launch(0);
    assert!(!place.is_restored());
    place.assert_put_back();
    abort().code(1);
    place.delete_restore("stuck");
    place.wait_until_gone("stuck");
}

#[test]
fn a_restore_whose_finalizer_was_taken_away_is_settled_by_its_members() {
    let mut place = Place::of(3);
    for (number, step) in ["Swapping", "Starting", "Committed"].iter().enumerate() {
        let name = format!("restore-{number}");
        // Whoever coordinates ends right after the decision, so that there is time to take it away.
        for member in &place.members {
            member.crash_at(&[&format!("{step}:decided")]);
            member.stop();
        }
        place.wait_until_etcd_serves();
        place.apply_restore(&name, SNAPSHOT);
        harness::wait_for("the decision", LONG, || {
            let restore = place.restore(&name)?;
            let now = restore["status"]["attempt"]["step"].as_str()?;
            from(step).contains(&now).then_some(())
        });
        place.kubectl(&[
            "patch",
            "etcdrestore",
            &name,
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":null}}"#,
        ]);
        place.delete_restore(&name);
        for member in &place.members {
            member.crash_at(&[]);
        }
        place.assert_put_back();
        let is_new = place.is_restored();
        if *step == "Committed" {
            assert!(is_new, "{step}: what anybody saw committed is committed");
        }
        place.write_later();
    }
}

#[test]
fn of_two_restores_the_second_waits_for_the_first() {
    let place = Place::of(1);
    place.apply_restore("first", SNAPSHOT);
    place.apply_restore("second", SNAPSHOT);
    let (mut at_once, mut waited) = (false, false);
    place.relaunch_until("both", LONG, || {
        if let Some(told) = condition(&place.restore("second")?, "Waiting") {
            waited |= told["status"] == "True"
                && told["message"]
                    .as_str()?
                    .contains("restore first is at work");
        }
        let steps: Vec<String> = ["first", "second"]
            .iter()
            .filter_map(|name| {
                let restore = place.restore(name)?;
                Some(restore["status"]["attempt"]["step"].as_str()?.to_owned())
            })
            .collect();
        let open = steps.iter().filter(|step| *step != "Completed").count();
        at_once |= open > 1;
        (steps.len() == 2 && open == 0).then_some(())
    });
    assert!(!at_once && waited);
    place.assert_put_back();
    assert!(place.is_restored());
    let second = place.restore("second").unwrap();
    let attempts = ["first", "second"]
        .map(|name| place.restore(name).unwrap()["status"]["attempt"]["newClusterId"].clone());
    assert_ne!(attempts[0], attempts[1]);
    assert_ne!(second["status"]["attempt"]["oldClusterId"], json!(""));
    assert_eq!(second["status"]["attempt"]["oldClusterId"], attempts[0]);
}
