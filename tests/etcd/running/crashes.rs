//! Whoever is killed, wherever: the restore ends, with the new state or the old one whole on every member, and nothing of it is left.

use harness::hosted::{Hosted, NAMESPACE};
use serde_json::Value;

const SNAPSHOT: &str = "before";

/// A cluster with a snapshot that has `earlier`, and `later` beside it in etcd.
fn prepared(members: usize) -> Hosted {
    let hosted = Hosted::without_api_server(members);
    hosted.keys(0).put("/registry/earlier", b"1");
    hosted.save_snapshot(SNAPSHOT);
    hosted.keys(0).put("/registry/later", b"2");
    hosted
}

/// What every member holds once all is over: true for the new state.
#[track_caller]
fn settled(hosted: &Hosted, name: &str, who: &[usize]) -> bool {
    let restore = hosted.relaunch_until("an end", std::time::Duration::from_secs(240), || {
        let restore = hosted.restore(name)?;
        let phase = restore["status"]["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        ["Completed", "RolledBack", "Failed"]
            .contains(&phase.as_str())
            .then_some(restore)
    });
    hosted.wait_until_settled();
    // Whoever has not come to the point by now would end in the middle of what follows.
    for index in who {
        hosted.members[*index].stop();
        hosted.launch(*index, &[]);
    }
    hosted.wait_until_etcd_serves();
    hosted.wait_until_settled();
    let is_new = restore["status"]["phase"] == "Completed";
    for index in 0..hosted.members.len() {
        let mut keys = hosted.keys(index);
        assert_eq!(
            keys.get("/registry/earlier").map(|kv| kv.value),
            Some(b"1".to_vec())
        );
        assert_eq!(
            keys.get("/registry/later").is_none(),
            is_new,
            "{}",
            hosted.story()
        );
    }
    for name in ["controller-manager", "scheduler"] {
        assert_eq!(hosted.replicas(name), 1);
    }
    assert_eq!(hosted.replicas("apiserver"), 2);
    assert_ne!(hosted.cluster()["spec"]["pause"], Value::Bool(true));
    let ids: Vec<_> = hosted
        .members
        .iter()
        .map(|member| member.state().unwrap()["clusterId"].clone())
        .collect();
    let stands = &hosted.stateful_set()["metadata"]["annotations"]["etcd-launcher/cluster-id"];
    assert!(ids.iter().all(|id| id == stands), "{ids:?} {stands}");
    hosted.hosting.kubectl(&[
        "delete",
        "etcdrestore",
        "-n",
        NAMESPACE,
        name,
        "--timeout=30s",
    ]);
    is_new
}

fn restart_with(hosted: &Hosted, index: usize, point: &str) {
    hosted.members[index].stop();
    hosted.launch(index, &[("ETCD_LAUNCHER_CRASH_AT", point)]);
}

/// Restores once for each point, with the launchers of `who` ending there; then writes `later` again.
fn crash_at(hosted: &Hosted, points: &[&str], who: &[usize]) {
    for (number, point) in points.iter().enumerate() {
        for index in who {
            restart_with(hosted, *index, &format!("run:{point}"));
        }
        hosted.wait_until_etcd_serves();
        let name = format!("restore-{number}");
        hosted.apply_restore(&name, SNAPSHOT);
        let is_new = settled(hosted, &name, who);
        // Only what keeps a member away for long may lead back.
        assert!(is_new, "{point}: went back\n{}", hosted.story());
        hosted.keys(0).put("/registry/later", b"2");
    }
}

#[test]
fn a_launcher_that_is_killed_at_any_step_goes_on_where_it_was() {
    let hosted = prepared(3);
    crash_at(
        &hosted,
        &[
            "Preflight:done",
            "Planned:remembered",
            "Planned:done",
            "Watching:remembered",
            "Stopping:remembered",
            "Stopping:done",
            "Swapping:remembered",
            "Swapping:done",
            "Starting:remembered",
            "Starting:done",
            "Committed:remembered",
            "Restarting:remembered",
            "Restarting:done",
            "Unpausing:remembered",
            "Completed:remembered",
        ],
        &[1],
    );
}

#[test]
fn a_coordinator_that_is_killed_before_or_after_any_write_is_followed_by_another() {
    let hosted = prepared(1);
    crash_at(
        &hosted,
        &[
            "Planned:undecided",
            "Finalizer:after",
            "Pausing:undecided",
            "Pause:after",
            "Watch:after",
            "Stopping:decided",
            "Swapping:decided",
            "Committed:undecided",
            "Committed:decided",
            "Commit:before",
            "Commit:after",
            "Restarting:decided",
            "Unpause:after",
            "Completed:decided",
            "Release:after",
        ],
        &[0],
    );
}
