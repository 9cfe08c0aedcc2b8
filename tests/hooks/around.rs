//! Around a backup: in which order, what failures mean, and who may run them.

use std::time::{Duration, Instant};

use harness::node::Node;
use harness::run::Signal;
use jiff::{SignedDuration, Timestamp};

use super::{Hooked, PATIENT, SECRET, is_ready, pod, says, shell, tells_no_command};

#[test]
fn hooks_run_around_what_is_read_and_their_failures_are_told() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let hooked = Hooked::start();
    order(&hooked);
    failures(&hooked);
    what_dies(&hooked);
    rights(&hooked);
    assert_eq!(hooked.notes(), Vec::<String>::new());
}

/// The pod is read between its hooks: it is not ready from the first to the second, and is saved like that.
fn order(hooked: &Hooked) {
    hooked.namespace("order");
    let freeze = shell("echo pre >> /tmp/log; touch /tmp/frozen; sleep 6");
    let thaw = shell("echo post >> /tmp/log; rm /tmp/frozen");
    let hooks = [("pre/command", freeze.as_str()), ("post/command", &thaw)];
    let db = pod("order", "db", &hooks).ready_while(&["test", "!", "-e", "/tmp/frozen"]);
    hooked.run_pods("order", &[db, pod("order", "plain", &[])]);
    let run = hooked.call(&["create", "order", "-n", "order"]).ok();
    assert_eq!(
        hooked.said("order", "db"),
        ["pre", "post"],
        "{}",
        run.stderr
    );
    assert_eq!(hooked.said("order", "plain"), Vec::<String>::new());
    assert!(!is_ready(&hooked.saved("order", "order/db")));
    assert!(is_ready(&hooked.saved("order", "order/plain")));
    let marker = hooked.marker("order");
    assert_eq!(marker["status"]["phase"], "Completed");
    let counts = serde_json::json!({"hooksAttempted": 2, "hooksFailed": 0});
    assert_eq!(marker["status"]["hookStatus"], counts);
    hooked.call(&["verify", "order"]).ok();
    let log = hooked.log("order");
    assert!(log.contains("pod order/db was read at its hooks"), "{log}");
    let described = hooked.call(&["describe", "order"]).ok().stdout;
    let line = described
        .lines()
        .find(|line| line.starts_with("Hooks attempted"));
    assert!(line.is_some_and(|line| line.ends_with(" 2")), "{described}");
    // A selector that leaves the pod out leaves its hooks out.
    hooked
        .call(&["create", "order-plain", "-n", "order", "-l", "app=plain"])
        .ok();
    assert_eq!(hooked.said("order", "db"), ["pre", "post"]);
    assert!(hooked.marker("order-plain")["status"]["hookStatus"].is_null());
    let wait = [
        "-n",
        "order",
        "wait",
        "--for=condition=Ready",
        "pod/db",
        "--timeout=60s",
    ];
    hooked.node.kubectl(&wait);
}

/// What a failure means, and that post hooks run after it.
fn failures(hooked: &Hooked) {
    hooked.namespace("fail");
    let post = says("post");
    let fails = shell(&format!(
        "echo pre >> /tmp/log; echo woe; exit 7 # {SECRET}"
    ));
    let slow = shell("echo pre >> /tmp/log; sleep 50");
    let loud = shell("head -c 200000 /dev/zero | tr '\\0' x; echo pre >> /tmp/log");
    let nothing = format!("/no/such/program-{SECRET}");
    let pods = [
        pod(
            "fail",
            "fails",
            &[("pre/command", &fails), ("post/command", &post)],
        ),
        pod(
            "fail",
            "lenient",
            &[
                ("pre/command", &fails),
                ("pre/on-error", "Continue"),
                ("post/command", &post),
            ],
        ),
        pod(
            "fail",
            "slow",
            &[
                ("pre/command", &slow),
                ("pre/timeout", "2s"),
                ("post/command", &post),
            ],
        ),
        pod("fail", "loud", &[("pre/command", &loud)]),
        pod(
            "fail",
            "absent",
            &[
                ("pre/command", &fails),
                ("pre/container", "absent"),
                ("post/command", &post),
            ],
        ),
        pod(
            "fail",
            "nothing",
            &[("pre/command", &nothing), ("post/command", &post)],
        ),
        pod("fail", "pending", &[("pre/command", &fails)])
            .with("nodeSelector", serde_json::json!({"no": "such"})),
    ];
    hooked.run_pods("fail", &pods);
    let began = Instant::now();
    let run = hooked.call(&["create", "fail", "-n", "fail"]).code(3);
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
    tells_no_command(&run);
    let line = |pod: &str| {
        let lines: Vec<&str> = run
            .stderr
            .lines()
            .filter(|line| line.contains(&format!("fail/{pod}:")))
            .collect();
        assert_eq!(lines.len(), 1, "{pod}: {}", run.stderr);
        lines[0].to_owned()
    };
    assert!(
        line("fails").contains("not saved") && line("fails").contains("exit status 7"),
        "{}",
        run.stderr
    );
    assert!(
        line("lenient").contains("exit status 7") && !line("lenient").contains("not saved"),
        "{}",
        run.stderr
    );
    assert!(
        line("slow").contains("2 s") && line("slow").contains("may still run"),
        "{}",
        run.stderr
    );
    assert!(
        line("absent").contains("no container \"absent\""),
        "{}",
        run.stderr
    );
    assert!(
        line("nothing").contains("was not started"),
        "{}",
        run.stderr
    );
    assert!(
        line("pending").contains("Pending") && !line("pending").contains("not saved"),
        "{}",
        run.stderr
    );
    for pod in ["fails", "lenient", "slow"] {
        assert_eq!(hooked.said("fail", pod), ["pre", "post"], "{pod}");
    }
    assert_eq!(hooked.said("fail", "loud"), ["pre"]);
    for pod in ["absent", "nothing"] {
        assert_eq!(hooked.said("fail", pod), Vec::<String>::new(), "{pod}");
    }
    let marker = hooked.marker("fail");
    assert_eq!(marker["status"]["phase"], "PartiallyFailed");
    assert_eq!(marker["status"]["errors"], 4);
    let counts = serde_json::json!({"hooksAttempted": 9, "hooksFailed": 5});
    assert_eq!(marker["status"]["hookStatus"], counts);
    let log = hooked.log("fail");
    assert!(!log.contains(SECRET), "{log}");
    let of = |pod: &str| {
        log.lines()
            .find(|line| line.contains(&format!("fail/{pod}:")))
            .unwrap()
    };
    assert!(of("fails").contains("it printed: woe"), "{}", of("fails"));
    assert!(of("loud").contains("(and more)"), "{}", of("loud"));
    let printed = of("loud").matches('x').count();
    assert!((4000..4300).contains(&printed), "{printed}");
    // The object is there all the same.
    assert_eq!(
        hooked.saved("fail", "fail/fails")["metadata"]["name"],
        "fails"
    );
}

/// The second in which the log says this first.
#[track_caller]
fn logged(log: &str, text: &str) -> Timestamp {
    let line = log.lines().find(|line| line.contains(text));
    let line = line.unwrap_or_else(|| panic!("{text}: {log}"));
    let time = line.split('"').nth(1).unwrap();
    time.parse().unwrap()
}

/// A pod that is deleted in the middle of its hook, one whose container ends, and a hook that is killed: each is named long before its time is over, gets its post hook, and is in the backup.
fn what_dies(hooked: &Hooked) {
    hooked.namespace("dies");
    let hangs = |seconds| shell(&format!("echo pre >> /tmp/log; exec sleep {seconds}"));
    let (long, marked, post) = (hangs(100), hangs(98), says("post"));
    let hooks = [&long, &long, &marked].map(|pre| {
        [
            ("pre/command", pre.as_str()),
            ("pre/timeout", "90s"),
            ("post/command", post.as_str()),
        ]
    });
    let mortal = "touch /tmp/log; while true; do sleep 1; : mortal; done";
    hooked.run_pods(
        "dies",
        &[
            pod("dies", "deleted", &hooks[0]),
            pod("dies", "ended", &hooks[1]).runs(mortal),
            pod("dies", "hook", &hooks[2]),
        ],
    );
    let running = hooked.call(&["create", "dies", "-n", "dies"]).spawn();
    for name in ["deleted", "ended", "hook"] {
        hooked.wait_to_say("dies", name, &["pre"]);
    }
    let died = Timestamp::now();
    let delete = ["-n", "dies", "delete", "pod", "deleted", "--wait=false"];
    hooked.node.kubectl(&delete);
    for words in [": mortal", "sleep\098\0"] {
        assert_eq!(hooked.node.signal_all(words, Signal::KILL), 1, "{words:?}");
    }
    let run = running.wait(PATIENT).code(3);
    let log = hooked.log("dies");
    for (name, why) in [
        ("deleted", "is being deleted"),
        ("ended", "exit status 137"),
        ("hook", "exit status 137"),
    ] {
        let pre = format!(
            "pod dies/{name}: the hook before the backup (annotation, container main) failed: "
        );
        let line = run.stderr.lines().find(|line| line.contains(&pre));
        assert!(
            line.is_some_and(|line| line.contains(why)),
            "{}",
            run.stderr
        );
        // Five seconds are promised; a busy machine gets more, and by far not the hook's own time.
        let took = logged(&log, &pre).duration_since(died);
        assert!(
            took < SignedDuration::from_secs(30),
            "{name}: {took:#}: {log}"
        );
        let post = format!(
            "pod dies/{name}: the hook after the backup (annotation, container main) ended well"
        );
        assert!(log.contains(&post), "{log}");
        let saved = hooked.saved("dies", &format!("dies/{name}"));
        assert_eq!(saved["metadata"]["name"], name);
    }
    // The container that was started in its place was not there before.
    assert_eq!(hooked.said("dies", "ended"), ["post"]);
    assert_eq!(hooked.said("dies", "hook"), ["pre", "post"]);
}

/// Who may not run commands in pods is told which pods are left alone, and no hook runs.
fn rights(hooked: &Hooked) {
    hooked.namespace("rights");
    let hooks = [("pre/command", says("pre")), ("post/command", says("post"))];
    let hooks = hooks
        .each_ref()
        .map(|(key, command)| (*key, command.as_str()));
    hooked.run_pods("rights", &[pod("rights", "db", &hooks)]);
    let node = &hooked.node;
    node.apply("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reader}, rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get, list]}]}");
    let bound = [
        "-n",
        "rights",
        "create",
        "rolebinding",
        "reader",
        "--clusterrole=reader",
        "--user=viola",
    ];
    node.kubectl(&bound);
    let create = [
        "create",
        "rights",
        "-n",
        "rights",
        "--as=viola",
        "--as-group=system:authenticated",
    ];
    let run = hooked.call(&create).code(3);
    assert!(
        run.stderr
            .contains("pod rights/db: its hooks (annotation) are not run"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr
            .contains("may not create pods/exec in namespace rights"),
        "{}",
        run.stderr
    );
    assert_eq!(hooked.said("rights", "db"), Vec::<String>::new());
    assert_eq!(
        hooked.saved("rights", "rights/db")["metadata"]["name"],
        "db"
    );
}
