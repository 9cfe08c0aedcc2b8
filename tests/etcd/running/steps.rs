//! Which steps a hosted restore has is the product's to say: each of them has to be among those at which the stories kill a launcher.

use std::sync::LazyLock;

use harness::wait_for;

use super::place::{LONG, Place, SNAPSHOT};

// Names and nothing else.
#[path = "../../../etcd-launcher/src/run/step.rs"]
#[allow(dead_code, reason = "only the names are needed here")]
mod step;
use step::Step;

/// Where the points are listed at which launchers are killed, this page included.
const STORIES: [&str; 3] = [
    include_str!("crashes.rs"),
    include_str!("given_up.rs"),
    include_str!("steps.rs"),
];

/// The steps of a restore that goes well, in their order.
pub(super) static STEPS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let steps = Step::ALL.iter().filter(|step| way(**step) != Way::Back);
    steps.map(|step| step.name()).collect()
});

#[derive(PartialEq, Eq)]
enum Way {
    /// On the way of a restore that goes well.
    Forward,
    /// On the way back, with something for every member to do.
    Back,
}

/// No wildcard: a step without a line here does not compile.
fn way(step: Step) -> Way {
    match step {
        Step::Preflight
        | Step::Planned
        | Step::Pausing
        | Step::Watching
        | Step::Stopping
        | Step::Swapping
        | Step::Starting
        | Step::Committed
        | Step::Restarting
        | Step::Unpausing
        | Step::Completed => Way::Forward,
        Step::RollingBack | Step::RolledBack | Step::Failed => Way::Back,
    }
}

#[test]
fn at_every_step_a_story_kills_the_coordinator_and_a_member() {
    let is_killed = |step: Step, moment: &str| {
        let point = format!("\"{}:{moment}\"", step.name());
        STORIES.iter().any(|story| story.contains(&point))
    };
    for &step in Step::ALL {
        let name = step.name();
        assert!(
            is_killed(step, "undecided") || is_killed(step, "decided"),
            "no coordinator is killed around its decision for {name}"
        );
        // What members do at an end that goes back is what they did before it.
        assert!(
            is_killed(step, "remembered") || (step.is_end() && way(step) == Way::Back),
            "no member is killed at {name}"
        );
    }
}

#[test]
fn a_coordinator_that_is_killed_around_the_end_of_what_never_stopped_is_followed_by_another() {
    let place = Place::of(1);
    let member = &place.members[0];
    member.crash_at(&["Watching:decided"]);
    member.stop();
    place.wait_until_etcd_serves();
    place.apply_restore("watched", SNAPSHOT);
    wait_for("the launcher's end", LONG, || {
        member.has_ended().then_some(())
    });
    place.abort("watched");
    member.crash_at(&["Failed:undecided", "Failed:decided"]);
    place.relaunch_until("every point", LONG, || {
        member.has_passed_all().then_some(())
    });
    assert_eq!(place.end_of("watched"), "Failed");
    place.assert_put_back();
    assert!(!place.is_restored());
}
