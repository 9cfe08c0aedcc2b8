//! What happens around a copy: hooks before it and after it, and claims that nobody uses, or several pods.

use super::{World, claim, pod};

/// Hooks are around the copies of all of their group's volumes; each claim is copied once.
pub(super) fn hooks(world: &World) {
    world.namespace("quiet");
    // What is written between the two hooks is in no file of the copy, for nothing is: the last hook before writes last.
    let pre = serde_json::json!([
        "sh",
        "-c",
        "echo pre >> /shared/log; echo pre > /own-a/state; date +%s%N > /own-a/at; sync"
    ])
    .to_string();
    let post = serde_json::json!([
        "sh",
        "-c",
        "echo post >> /shared/log; echo post > /own-a/state"
    ])
    .to_string();
    let hooks = [
        ("pre.hook.backup.velero.io/command", pre.as_str()),
        ("post.hook.backup.velero.io/command", post.as_str()),
    ];
    let other = serde_json::json!(["sh", "-c", "echo other-pre >> /shared/log"]).to_string();
    let after = serde_json::json!(["sh", "-c", "echo other-post >> /shared/log"]).to_string();
    let others = [
        ("pre.hook.backup.velero.io/command", other.as_str()),
        ("post.hook.backup.velero.io/command", after.as_str()),
    ];
    world.node.apply(
        &(claim("quiet", "shared", "")
            + &claim("quiet", "own-a", "")
            + &pod("quiet", "a", &["shared", "own-a"], &hooks)
            + &pod("quiet", "b", &["shared"], &others)),
    );
    world.wait("quiet", &["a", "b"]);
    let run = world.create("quiet", "quiet").ok();
    for name in ["shared", "own-a"] {
        let row = world.row("quiet", name);
        assert_eq!(
            (&row["result"], &row["hooks"]),
            (&"saved".into(), &"done".into()),
            "{row:#}"
        );
        let snapshot = row["data"][0]["snapshot"].as_str().unwrap();
        let read = |path: &str| {
            world
                .restic(&row, None, &["dump", snapshot, path])
                .ok()
                .stdout
        };
        match name {
            "own-a" => assert_eq!(read("/data/state"), "pre\n"),
            _ => {
                let log = read("/data/log");
                let mut lines: Vec<_> = log.lines().collect();
                lines.sort_unstable();
                assert_eq!(lines, ["other-pre", "pre"], "{}", run.stderr);
            }
        }
    }
    let log = world.shell("quiet", "a", "cat /shared/log");
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 4, "{log}");
    assert!(lines[2..].iter().all(|line| line.contains("post")), "{log}");
    let marker = world.marker("quiet");
    assert_eq!(marker["status"]["hookStatus"]["hooksAttempted"], 4);
    assert_eq!(marker["status"]["hookStatus"]["hooksFailed"], 0);
    world.nothing_is_at_work();
}

/// A claim of no pod gets a mover wherever the scheduler likes; one that is not bound has nothing.
pub(super) fn not_in_use(world: &World) {
    world.namespace("idle");
    world.node.apply(
        &(claim("idle", "left", "")
            + &claim("idle", "unbound", "")
            + &pod("idle", "once", &["left"], &[])),
    );
    world.wait("idle", &["once"]);
    world.shell("idle", "once", "echo kept > /left/file");
    world
        .node
        .kubectl(&["-n", "idle", "delete", "pod", "once", "--wait=true"]);
    world.create("idle", "idle").ok();
    let row = world.row("idle", "left");
    assert_eq!(row["result"], "saved", "{row:#}");
    assert_eq!(row["node"], "node1");
    world.is_in(&row, &world.folder("idle", "left"));
    let unbound = world.row("idle", "unbound");
    assert_eq!(unbound["result"], "nothing", "{unbound:#}");
    world.nothing_is_at_work();
}
