//! Hooks of pods that `restore create` brings back, by their annotations.

use harness::busybox;
use harness::node::Node;
use serde_json::json;

use super::{Hooked, SECRET, pod, shell, tells_no_command};

#[test]
fn a_pod_that_is_restored_gets_its_init_container_and_runs_its_hook() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let hooked = Hooked::start();
    hooked.namespace("data");
    let post = "post.hook.restore";
    let (command, on_error) = (format!("{post}/command"), format!("{post}/on-error"));
    let exec = format!("{post}/exec-timeout");
    let (ready, wait) = (
        format!("{post}/wait-for-ready"),
        format!("{post}/wait-timeout"),
    );
    let init = "init.hook.restore";
    let (image, name, first) = (
        format!("{init}/container-image"),
        format!("{init}/container-name"),
        format!("{init}/command"),
    );
    let restored = shell(&format!("echo restored >> /tmp/log # {SECRET}"));
    let hangs = shell(&format!(
        "echo began >> /tmp/log; sleep 600; echo ended >> /tmp/log # {SECRET}"
    ));
    let fails = shell(&format!("echo restored >> /tmp/log; exit 9 # {SECRET}"));
    let asks = [
        (command.as_str(), restored.as_str()),
        (&ready, "true"),
        (&wait, "80s"),
    ];
    let inits = [
        (image.as_str(), busybox::IMAGE),
        (&name, "early"),
        (&first, "[\"echo\", \"early bird\"]"),
    ];
    let pods = [
        pod("data", "db", &[&asks[..], &inits[..]].concat()),
        pod("data", "fails", &[(&command, &fails), (&on_error, "Fail")]),
        pod("data", "lenient", &[(&command, &fails)]),
        pod(
            "data",
            "pending",
            &[
                (&command, &restored),
                (&ready, "true"),
                (&wait, "3s"),
                (&on_error, "Fail"),
            ],
        )
        .ready_while(&["test", "-e", "/tmp/never"]),
        pod(
            "data",
            "hangs",
            &[(&command, &hangs), (&exec, "2s"), (&on_error, "Fail")],
        ),
        pod("data", "plain", &[]),
    ];
    hooked.run_pods("data", &pods);
    hooked.call(&["create", "data", "-n", "data"]).ok();
    let restore = [
        "restore",
        "create",
        "again",
        "--from-backup",
        "data",
        "--namespace-mappings",
        "data:copy",
    ];
    let run = hooked.call(&restore).code(3);
    tells_no_command(&run);
    assert_eq!(hooked.said("copy", "db"), ["restored"], "{}", run.stderr);
    let log = ["-n", "copy", "logs", "db", "-c", "early"];
    assert_eq!(hooked.node.kubectl(&log).stdout, "early bird\n");
    for (pod, part) in [
        ("fails", "exit status 9"),
        ("lenient", "exit status 9"),
        ("pending", "was not ready within 3 s"),
        (
            "hangs",
            "did not end within 2 s; it may still run in the pod",
        ),
    ] {
        let line = run
            .stderr
            .lines()
            .find(|line| line.contains(&format!("copy/{pod}:")));
        let line = line.unwrap_or_else(|| panic!("{pod}: {}", run.stderr));
        assert!(line.contains(part), "{line}");
        assert_eq!(line.starts_with("not restored"), pod != "lenient", "{line}");
    }
    assert_eq!(hooked.said("copy", "pending"), Vec::<String>::new());
    assert_eq!(hooked.said("copy", "hangs"), ["began"]);
    let record = hooked
        .call(&["restore", "describe", "again", "-o", "json"])
        .ok()
        .json();
    let counts = json!({"hooksAttempted": 5, "hooksFailed": 4});
    assert_eq!(
        record["restore"]["status"]["hookStatus"], counts,
        "{record:#}"
    );
    // Those that have run do not run again.
    hooked.call(&restore).ok();
    assert_eq!(hooked.said("copy", "db"), ["restored"]);
    assert_eq!(hooked.said("data", "db"), Vec::<String>::new());
}
