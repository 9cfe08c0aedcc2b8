//! Restores that do not go the usual way: refused, deleted, forgotten, two at once, members away.

use std::time::Duration;

use harness::hosted::{CLUSTER, Hosted, NAMESPACE};
use harness::wait_for;
use serde_json::json;

const SNAPSHOT: &str = "before";

fn prepared(members: usize) -> Hosted {
    let hosted = Hosted::without_api_server(members);
    hosted.keys(0).put("/registry/earlier", b"1");
    hosted.save_snapshot(SNAPSHOT);
    hosted.keys(0).put("/registry/later", b"2");
    hosted
}

fn has_later(hosted: &Hosted, index: usize) -> bool {
    hosted.keys(index).get("/registry/later").is_some()
}

fn delete(hosted: &Hosted, name: &str) {
    hosted.hosting.kubectl(&[
        "delete",
        "etcdrestore",
        "-n",
        NAMESPACE,
        name,
        "--wait=false",
    ]);
}

#[test]
fn what_can_not_be_restored_is_refused_with_a_reason_and_nothing_is_stopped() {
    let hosted = prepared(1);
    hosted.store_snapshot("damaged", &vec![7; 40960]);
    hosted.apply_restore("absent", "nothing-like-it");
    hosted.apply_restore("damaged", "damaged");
    for (name, reason) in [("absent", "nothing-like-it"), ("damaged", "")] {
        let restore = hosted.wait_for_phase(name, "Failed");
        let message = restore["status"]["message"].as_str().unwrap();
        assert!(message.contains(reason) && !message.is_empty(), "{message}");
    }
    hosted.wait_until_settled();
    assert!(has_later(&hosted, 0));
    assert_eq!(hosted.replicas("apiserver"), 2);
    // Another cluster's snapshot: its members are none of this one.
    let other = harness::etcd::Etcd::start();
    other.put("/registry/foreign", b"x");
    let file = other.save_snapshot("foreign.db");
    hosted.store_snapshot("foreign", &std::fs::read(file).unwrap());
    hosted.apply_restore("foreign", "foreign");
    let restore = hosted.wait_for_phase("foreign", "Failed");
    let message = restore["status"]["message"].as_str().unwrap();
    assert!(message.contains("another cluster"), "{message}");
    assert!(has_later(&hosted, 0));
}

#[test]
fn a_restore_that_is_deleted_before_the_commit_goes_back_and_one_after_it_is_finished() {
    let hosted = prepared(1);
    for (number, step) in [
        "Planned",
        "Pausing",
        "Watching",
        "Stopping",
        "Swapping",
        "Starting",
        "Restarting",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("restore-{number}");
        hosted.apply_restore(&name, SNAPSHOT);
        let later: Vec<&str> = [
            "Planned",
            "Pausing",
            "Watching",
            "Stopping",
            "Swapping",
            "Starting",
            "Committed",
            "Restarting",
            "Unpausing",
            "Completed",
        ]
        .into_iter()
        .skip_while(|known| known != step)
        .collect();
        hosted.wait_for_step(&name, &later);
        delete(&hosted, &name);
        hosted.relaunch_until("it to be gone", Duration::from_secs(120), || {
            hosted.restore(&name).is_none().then_some(())
        });
        hosted.wait_until_settled();
        hosted.wait_until_etcd_serves();
        assert_eq!(hosted.replicas("apiserver"), 2, "{step}");
        assert_ne!(hosted.cluster()["spec"]["pause"], json!(true), "{step}");
        if *step == "Restarting" {
            assert!(!has_later(&hosted, 0), "{step}");
        }
        hosted.keys(0).put("/registry/later", b"2");
    }
}

#[test]
fn a_restore_whose_finalizer_was_taken_away_is_settled_by_its_members() {
    let hosted = prepared(3);
    for (number, step) in ["Swapping", "Starting", "Committed"].iter().enumerate() {
        let name = format!("restore-{number}");
        // Whoever coordinates ends right after the decision, so that there is time to take it away.
        for index in 0..3 {
            hosted.members[index].stop();
            let point = format!("run:{step}:decided");
            hosted.launch(index, &[("ETCD_LAUNCHER_CRASH_AT", point.as_str())]);
        }
        hosted.wait_until_etcd_serves();
        hosted.apply_restore(&name, SNAPSHOT);
        wait_for("the decision", Duration::from_secs(120), || {
            let restore = hosted.restore(&name)?;
            (restore["status"]["attempt"]["step"] == *step).then_some(())
        });
        hosted.hosting.kubectl(&[
            "patch",
            "etcdrestore",
            "-n",
            NAMESPACE,
            &name,
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":null}}"#,
        ]);
        delete(&hosted, &name);
        hosted.wait_until_etcd_serves();
        hosted.wait_until_settled();
        let later: Vec<bool> = (0..3).map(|index| has_later(&hosted, index)).collect();
        assert!(
            later.iter().all(|one| *one == later[0]),
            "{step}: {later:?}"
        );
        if *step != "Committed" {
            assert!(later[0], "{step}");
        }
        assert_eq!(hosted.replicas("apiserver"), 2);
        hosted.keys(0).put("/registry/later", b"2");
    }
}

#[test]
fn of_two_restores_the_second_waits_for_the_first() {
    let hosted = prepared(1);
    hosted.apply_restore("first", SNAPSHOT);
    hosted.apply_restore("second", SNAPSHOT);
    let (mut at_once, mut ended) = (false, 0);
    hosted.relaunch_until("both", Duration::from_secs(240), || {
        let steps: Vec<String> = ["first", "second"]
            .iter()
            .filter_map(|name| {
                let restore = hosted.restore(name)?;
                Some(restore["status"]["attempt"]["step"].as_str()?.to_owned())
            })
            .collect();
        let open = steps.iter().filter(|step| *step != "Completed").count();
        at_once |= open > 1;
        ended = steps.len() - open;
        (ended == 2).then_some(())
    });
    assert!(!at_once);
    assert!(!has_later(&hosted, 0));
}

#[test]
fn somebody_who_still_writes_is_named_and_nothing_is_stopped() {
    let hosted = prepared(1);
    hosted.apply_restore("busy", SNAPSHOT);
    let mut keys = hosted.keys(0);
    let mut number = 0;
    let restore = hosted.relaunch_until("the refusal", Duration::from_secs(120), || {
        number += 1;
        let _ = keys.try_put("/registry/events/default/x", number.to_string().as_bytes());
        let restore = hosted.restore("busy")?;
        (restore["status"]["phase"] == "Failed").then_some(restore)
    });
    let message = restore["status"]["message"].as_str().unwrap();
    assert!(message.contains("events default/x"), "{message}");
    hosted.wait_until_settled();
    assert_eq!(hosted.replicas("apiserver"), 2);
    assert!(has_later(&hosted, 0));
}

#[test]
fn a_member_that_was_away_is_left_out_and_is_not_started_when_it_comes_back() {
    let hosted = prepared(3);
    hosted.members[2].kill();
    hosted.apply_restore("without", SNAPSHOT);
    // The harness starts nobody here: the third one stays away.
    let restore = wait_for("the end", Duration::from_secs(240), || {
        let restore = hosted.restore("without")?;
        (restore["status"]["phase"] == "Completed").then_some(restore)
    });
    assert_eq!(restore["status"]["attempt"]["absent"], json!(["etcd-2"]));
    assert!(!has_later(&hosted, 0) && !has_later(&hosted, 1));
    hosted.launch(2, &[]);
    let state = wait_for("it to be put aside", Duration::from_secs(60), || {
        let state = hosted.members[2].state()?;
        state["message"]
            .as_str()?
            .contains("MemberSetAside")
            .then_some(state)
    });
    assert_eq!(state["serving"], false);
    assert!(!hosted.members[2].is_open());
    let kept = std::fs::read_dir(hosted.members[2].data_dir()).unwrap();
    assert!(
        kept.filter_map(Result::ok)
            .any(|file| file.file_name().to_string_lossy().starts_with(".aside-"))
    );
}

#[test]
fn the_hosting_api_may_be_away_in_the_middle() {
    let hosted = prepared(1);
    for (number, step) in ["Planned", "Stopping", "Starting", "Restarting"]
        .iter()
        .enumerate()
    {
        let name = format!("restore-{number}");
        hosted.apply_restore(&name, SNAPSHOT);
        let later: Vec<&str> = [
            "Planned",
            "Pausing",
            "Watching",
            "Stopping",
            "Swapping",
            "Starting",
            "Committed",
            "Restarting",
            "Unpausing",
            "Completed",
        ]
        .into_iter()
        .skip_while(|known| known != step)
        .collect();
        hosted.wait_for_step(&name, &later);
        hosted.hosting.stop_api_server();
        std::thread::sleep(Duration::from_secs(4));
        // A launcher that starts without it goes by what it remembers.
        hosted.members[0].kill();
        hosted.launch(0, &[]);
        std::thread::sleep(Duration::from_secs(3));
        hosted.hosting.start_api_server();
        hosted.wait_for_phase(&name, "Completed");
        hosted.wait_until_settled();
        assert!(!has_later(&hosted, 0), "{step}");
        hosted.keys(0).put("/registry/later", b"2");
    }
}

#[test]
fn no_etcd_is_left_behind_by_a_launcher_that_is_killed() {
    let hosted = prepared(1);
    assert!(hosted.members[0].is_open());
    hosted.members[0].kill_launcher();
    wait_for("its etcd to be gone", Duration::from_secs(10), || {
        (!hosted.members[0].is_open()).then_some(())
    });
    let _ = CLUSTER;
}

#[test]
fn an_empty_data_dir_is_not_started_a_second_time() {
    let hosted = prepared(3);
    hosted.members[1].kill();
    std::fs::remove_dir_all(hosted.members[1].data_dir()).unwrap();
    hosted.launch(1, &[]);
    let message = wait_for("its word", Duration::from_secs(30), || {
        let state = hosted.members[1].state()?;
        let message = state["message"].as_str()?.to_owned();
        message.contains("no state").then_some(message)
    });
    assert!(message.contains("has served before"), "{message}");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!hosted.members[1].is_open());
}
