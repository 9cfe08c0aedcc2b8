//! Whoever is killed or stopped, wherever: the restore ends, with the new state or the old one whole on every member, and nothing of it is left.

use std::time::Duration;

use harness::wait_for;
use rustix::process::Signal;

use super::place::{LONG, Place, SNAPSHOT, STEPS};

/// Restores in which the launcher of a member ends at each of these points in turn: the one that is started instead ends at the next one. A
/// point that went by while nobody was there to come to it is one of the next restore.
fn killed_at(members: usize, who: usize, points: &[&str]) {
    let mut place = Place::of(members);
    place.members[who].crash_at(points);
    place.members[who].stop();
    place.launch(who);
    for number in 0..points.len() {
        place.wait_until_etcd_serves();
        let name = format!("restore-{number}");
        place.apply_restore(&name, SNAPSHOT);
        let phase = place.end_of(&name);
        place.assert_put_back();
        assert!(place.is_restored(), "{phase}");
        // Only what keeps a member away for long may lead back.
        assert_eq!(phase, "Completed", "{}", place.story());
        if place.members[who].has_passed_all() {
            return;
        }
        place.write_later();
    }
    panic!(
        "not every point was come to: {:?}",
        place.members[who].points_left()
    );
}

#[test]
fn a_launcher_that_is_killed_before_the_stop_goes_on_where_it_was() {
    killed_at(
        3,
        1,
        &[
            "Preflight:remembered",
            "Preflight:done",
            "Planned:remembered",
            "Planned:done",
            "Pausing:remembered",
            "Watching:remembered",
            "Watching:done",
        ],
    );
}

#[test]
fn a_launcher_that_is_killed_around_the_exchange_goes_on_where_it_was() {
    killed_at(
        3,
        2,
        &[
            "Stopping:remembered",
            "Stopping:done",
            "Swapping:remembered",
            "Swapping:done",
            "Starting:remembered",
            "Starting:done",
        ],
    );
}

#[test]
fn a_launcher_that_is_killed_after_the_commit_goes_on_where_it_was() {
    killed_at(
        3,
        0,
        &[
            "Committed:remembered",
            "Restarting:remembered",
            "Restarting:done",
            "Unpausing:remembered",
            "Unpausing:done",
            "Completed:remembered",
        ],
    );
}

#[test]
fn a_coordinator_that_is_killed_before_or_after_any_write_up_to_the_stop_is_followed_by_another() {
    killed_at(
        1,
        0,
        &[
            "Preflight:undecided",
            "Preflight:decided",
            "Planned:undecided",
            "Finalizer:before",
            "Finalizer:after",
            "Pausing:undecided",
            "Pause:before",
            "Pause:after",
            "Watch:after",
            "Stopping:undecided",
            "Stopping:decided",
        ],
    );
}

#[test]
fn a_coordinator_that_is_killed_before_or_after_any_write_from_the_stop_on_is_followed_by_another()
{
    killed_at(
        1,
        0,
        &[
            "Swapping:decided",
            "Starting:decided",
            "Committed:undecided",
            "Committed:decided",
            "Commit:before",
            "Commit:after",
            "Restarting:decided",
            "Unpausing:decided",
            "Unpause:before",
            "Unpause:after",
            "Completed:decided",
            "Release:before",
            "Release:after",
        ],
    );
}

#[test]
fn a_launcher_that_is_killed_anywhere_on_the_way_back_goes_on_with_it() {
    let place = Place::of(1);
    let member = &place.members[0];
    member.crash_at(&[
        "Starting:decided",
        "RollingBack:undecided",
        "RollingBack:decided",
        "RollingBack:remembered",
        "RollingBack:done",
        "Unpausing:undecided",
        "Unpausing:decided",
        "RecordBack:before",
        "RecordBack:after",
        "Unpause:before",
        "Unpause:after",
        "RolledBack:undecided",
        "RolledBack:decided",
        "Release:before",
        "Release:after",
    ]);
    member.stop();
    place.wait_until_etcd_serves();
    place.apply_restore("taken-back", SNAPSHOT);
    wait_for("the launcher's end", LONG, || {
        member.has_ended().then_some(())
    });
    place.abort("taken-back");
    place.relaunch_until("every point", LONG, || {
        member.has_passed_all().then_some(())
    });
    assert_eq!(place.end_of("taken-back"), "RolledBack");
    place.assert_put_back();
    assert!(!place.is_restored());
}

#[test]
fn an_etcd_that_is_killed_at_every_step_is_started_again_or_led_back() {
    let place = Place::of(3);
    place.apply_restore("restored", SNAPSHOT);
    let mut killed: Vec<String> = Vec::new();
    let phase = place.relaunch_until("an end", LONG, || {
        let restore = place.restore("restored")?;
        let step = restore["status"]["attempt"]["step"].as_str()?.to_owned();
        // A leader of one step may be a follower of the next: another member each time.
        let member = &place.members[killed.len() % 3];
        if !killed.contains(&step) && member.kill_etcd() {
            killed.push(step);
        }
        let phase = restore["status"]["phase"].as_str()?.to_owned();
        ["Completed", "RolledBack", "Failed"]
            .contains(&phase.as_str())
            .then_some(phase)
    });
    assert!(killed.len() >= 4, "too few were hit: {killed:?}");
    place.assert_put_back();
    assert_eq!(
        place.is_restored(),
        phase == "Completed",
        "{phase}\n{}",
        place.story()
    );
}

#[test]
fn a_coordinator_that_slept_while_another_one_went_on_undoes_nothing() {
    let place = Place::of(3);
    place.apply_restore("restored", SNAPSHOT);
    // Asleep in the middle of the pause, of which it may have half in its hands.
    let restore = place.wait_for_step("restored", &["Pausing", "Watching"]);
    let coordinator = restore["status"]["attempt"]["decidedBy"]
        .as_str()
        .unwrap()
        .to_owned();
    let sleeper = place
        .members
        .iter()
        .find(|member| member.name == coordinator)
        .unwrap();
    sleeper.signal(Signal::STOP);
    wait_for("another coordinator", LONG, || {
        let restore = place.restore("restored")?;
        let attempt = &restore["status"]["attempt"];
        let step = attempt["step"].as_str()?;
        let went_on = STEPS.iter().position(|known| *known == step)
            > STEPS.iter().position(|known| *known == "Pausing");
        (attempt["decidedBy"] != coordinator.as_str() && went_on).then_some(())
    });
    // Long enough for the other one to be in the middle of something.
    std::thread::sleep(Duration::from_secs(2));
    sleeper.signal(Signal::CONT);
    let phase = place.end_of("restored");
    place.assert_put_back();
    assert_eq!(place.is_restored(), phase == "Completed", "{phase}");
    // What it had in its hands when it fell asleep must not come out now.
    std::thread::sleep(Duration::from_secs(3));
    place.assert_put_back();
}
