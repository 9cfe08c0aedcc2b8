//! What happens around a copy: hooks before it and after it, and claims that nobody uses, or several pods.

use jiff::Timestamp;
use serde_json::Value;

use super::{IMAGE, World, claim, pod};

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
        "date -u +%Y-%m-%dT%H:%M:%SZ > /own-a/after; echo post >> /shared/log; echo post > /own-a/state"
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
    // One after the other, and each takes longer than a hook.
    world.shell("quiet", "a", "for at in /shared /own-a; do dd if=/dev/urandom of=$at/large bs=1M count=40 2>/dev/null; done");
    let one_by_one = ["--parallel-volumes", "1"];
    let run = world.create("quiet", "quiet").args(&one_by_one).ok();
    let after = world.shell("quiet", "a", "cat /own-a/after");
    let after: Timestamp = after.trim().parse().unwrap();
    for name in ["shared", "own-a"] {
        let row = world.row("quiet", name);
        assert_eq!(
            (&row["result"], &row["hooks"]),
            (&"saved".into(), &"done".into()),
            "{row:#}"
        );
        let ended: Timestamp = row["data"][0]["ended"].as_str().unwrap().parse().unwrap();
        assert!(ended.as_second() <= after.as_second(), "{after}: {row:#}");
        let snapshot = row["data"][0]["snapshot"].as_str().unwrap();
        let read = |path: &str| world.restic(&row, &["dump", snapshot, path]).ok().stdout;
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

/// Files are copied for whoever asks for them: a pod by its annotation, a resource policy, the location.
pub(super) fn ways_to_ask(world: &World) {
    let copied = |backup: &str, more: &[&str]| {
        world
            .call(&["create", backup, "-n", "shop", "--mover-image", IMAGE])
            .args(more)
            .ok();
        let row = world.row(backup, "data");
        (
            row["result"].clone(),
            row["data"][0]["snapshot"].is_string(),
        )
    };
    let saved = ("saved".into(), true);
    assert_ne!(copied("unasked", &[]), saved);
    let annotate = |word: &str| {
        let words = ["-n", "shop", "annotate", "pod", "db", word];
        world.node.kubectl(&words);
    };
    annotate("backup.velero.io/backup-volumes=data");
    assert_eq!(copied("asked-by-pod", &[]), saved);
    annotate("backup.velero.io/backup-volumes-");
    let policies = "version: v1\nvolumePolicies:\n- {conditions: {storageClass: [local-path]}, action: {type: fs-backup}}\n";
    let policies = world.home.write("policies.yaml", policies);
    let policies = ["--resource-policies-file", policies.to_str().unwrap()];
    assert_eq!(copied("asked-by-policy", &policies), saved);
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
    made_anew(world, &row);
}

/// A claim of the same name, made anew, is another volume with a repository of its own, under a password of its own.
fn made_anew(world: &World, before: &Value) {
    let words = ["-n", "idle", "delete", "pvc", "left", "--wait=true"];
    world.node.kubectl(&words);
    world
        .node
        .apply(&(claim("idle", "left", "") + &pod("idle", "again", &["left"], &[])));
    world.wait("idle", &["again"]);
    world.shell("idle", "again", "echo new > /left/file");
    world.create("anew", "idle").ok();
    let row = world.row("anew", "left");
    assert_eq!(row["data"][0]["base"], Value::Null, "{row:#}");
    world.is_in(&row, &world.folder("idle", "left"));
    let [one, other] = [before, &row].map(|row| world.repository(row).0);
    assert_ne!(one, other);
    assert_ne!(world.password(&one), world.password(&other));
    world.nothing_is_at_work();
    let words = ["-n", "idle", "delete", "pod", "again", "--wait=true"];
    world.node.kubectl(&words);
}
