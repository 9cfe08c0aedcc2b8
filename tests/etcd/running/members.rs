//! Members that are away, that come back, that lost their data.

use std::time::Duration;

use harness::wait_for;
use serde_json::json;

use super::place::{LONG, Place, SNAPSHOT};

#[test]
fn a_member_that_was_away_is_left_out_and_put_aside_and_the_next_restore_brings_it_back() {
    let mut place = Place::of(3);
    place.members[2].kill();
    place.apply_restore("without", SNAPSHOT);
    // Nobody starts it here: the third one stays away.
    let restore = wait_for("the end", LONG, || {
        let restore = place.restore("without")?;
        (restore["status"]["phase"] == "Completed").then_some(restore)
    });
    assert_eq!(restore["status"]["attempt"]["absent"], json!(["etcd-2"]));
    assert!(place.is_restored_on(0) && place.is_restored_on(1));
    place.launch(2);
    let state = wait_for("it to be put aside", LONG, || {
        let state = place.members[2].state()?;
        state["message"]
            .as_str()?
            .contains("MemberSetAside")
            .then_some(state)
    });
    assert_eq!(state["serving"], false);
    assert!(!place.members[2].is_open());
    assert_eq!(put_aside(&place, 2), 1);
    // Whoever looks at the restore later sees it, too.
    let told = wait_for("the condition", LONG, || {
        let restore = place.restore("without")?;
        let condition = super::place::condition(&restore, "MembersSetAside")?.clone();
        Some(condition)
    });
    assert_eq!(told["status"], "True");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("etcd-2") && message.contains(".aside-"),
        "{message}"
    );

    // It has no data and its place is free: the next restore has all three.
    place.write_later();
    place.restore_well("all");
    let all = place.restore("all").unwrap()["status"]["attempt"].clone();
    assert_eq!(all["members"].as_array().unwrap().len(), 3, "{all}");
    assert_eq!(all["absent"], json!(null));

    // A rollback goes on without a member that is away, and so does the one after that, which it comes back to with the state it had.
    place.members[2].kill();
    place.apply_restore("back", &format!("kept-{}", all["id"].as_str().unwrap()));
    let restore = wait_for("the end", LONG, || {
        let restore = place.restore("back")?;
        (restore["status"]["phase"] == "Completed").then_some(restore)
    });
    assert_eq!(restore["status"]["attempt"]["absent"], json!(["etcd-2"]));
    assert!(!place.is_restored_on(0) && !place.is_restored_on(1));
    place.apply_restore("again", SNAPSHOT);
    wait_for("its first step", LONG, || {
        let restore = place.restore("again")?;
        (restore["status"]["attempt"]["step"] == "Preflight").then_some(())
    });
    place.launch(2);
    let again = place.wait_for_phase("again", "Completed")["status"]["attempt"].clone();
    assert_eq!(again["members"].as_array().unwrap().len(), 3, "{again}");
    assert_eq!(put_aside(&place, 2), 2);
    place.assert_put_back();
    assert!(place.is_restored());
}

/// How many states a member has put aside.
fn put_aside(place: &Place, index: usize) -> usize {
    let files = std::fs::read_dir(place.members[index].data_dir()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".aside-")).count()
}

#[test]
fn no_etcd_is_left_behind_by_a_launcher_that_is_killed() {
    let place = Place::of(1);
    assert!(place.members[0].is_open());
    place.members[0].kill_launcher();
    wait_for("its etcd to be gone", Duration::from_secs(30), || {
        (!place.members[0].is_open()).then_some(())
    });
}

#[test]
fn an_empty_data_dir_is_not_started_a_second_time() {
    let place = Place::of(3);
    place.members[1].kill();
    std::fs::remove_dir_all(place.members[1].data_dir()).unwrap();
    place.launch(1);
    let message = wait_for("its word", LONG, || {
        let state = place.members[1].state()?;
        let message = state["message"].as_str()?.to_owned();
        message.contains("no state").then_some(message)
    });
    assert!(message.contains("has served before"), "{message}");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!place.members[1].is_open());
}
