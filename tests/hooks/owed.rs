//! No pod is left without its post hook, however the run ended that began its pre hook.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::clock::{Clock, age};
use harness::node::Node;
use harness::run::{Backup, Run, Running, Signal};
use jiff::SignedDuration;
use serde_json::Value;

use super::{Hooked, SECRET, pod, says, shell, tells_no_command};

#[test]
fn a_pod_gets_its_post_hook_after_ctrl_c_a_lost_claim_and_a_kill() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let hooked = Hooked::start();
    hooked.namespace("order");
    hooked.run_pods("order", &[pod("order", "plain", &[])]);
    stopped(&hooked);
    robbed(&hooked);
    lapsed(&hooked);
    killed(&hooked);
    assert_eq!(hooked.notes(), Vec::<String>::new());
}

/// A pod that is in the middle of its pre hook, and what makes it, until it says so.
fn in_the_middle(hooked: &Hooked, namespace: &str) -> Running {
    in_the_middle_by(hooked, namespace, |call| call)
}

fn in_the_middle_by(
    hooked: &Hooked,
    namespace: &str,
    made: impl FnOnce(Backup) -> Backup,
) -> Running {
    hooked.namespace(namespace);
    let long = shell(&format!("echo pre >> /tmp/log; sleep 80 # {SECRET}"));
    let hooks = [
        ("pre/command", long.as_str()),
        ("pre/timeout", "70s"),
        ("post/command", &says("post")),
    ];
    hooked.run_pods(namespace, &[pod(namespace, "db", &hooks)]);
    let running = made(hooked.call(&["create", namespace, "-n", namespace])).spawn();
    hooked.wait_to_say(namespace, "db", &["pre"]);
    running
}

/// Ctrl-C in the middle of a hook: the post hook runs, and nothing stays.
fn stopped(hooked: &Hooked) {
    let running = in_the_middle(hooked, "stopped");
    assert_eq!(hooked.notes().len(), 1);
    running.signal(Signal::INT);
    let run = running.wait(Duration::from_secs(30)).code(130);
    tells_no_command(&run);
    assert_eq!(
        hooked.said("stopped", "db"),
        ["pre", "post"],
        "{}",
        run.stderr
    );
    assert_eq!(hooked.notes(), Vec::<String>::new());
    assert!(!hooked.folder.join("backups/stopped").exists());
}

/// The claim of a run that is at work.
fn claim(hooked: &Hooked, backup: &str) -> PathBuf {
    let folder = hooked.folder.join(format!("backups/{backup}"));
    let files = fs::read_dir(folder).unwrap().flatten();
    let mut claims = files.filter(|file| file.file_name().to_string_lossy().starts_with("claim-"));
    let claim = claims.next().expect("a claim").path();
    assert!(claims.next().is_none());
    claim
}

/// A run that lost its claim writes nothing more: it ends with that, owes nothing, and there is no such backup.
#[track_caller]
fn ends_without_its_claim(hooked: &Hooked, backup: &str, running: Running, said: &[&str]) -> Run {
    // By far not when its hook's time is over.
    let run = running.wait(Duration::from_secs(60)).code(1);
    assert!(run.stderr.contains("claim"), "{}", run.stderr);
    assert_eq!(hooked.said(backup, "db"), said, "{}", run.stderr);
    assert_eq!(hooked.notes(), Vec::<String>::new());
    let marker = format!("backups/{backup}/velero-backup.json");
    assert!(!hooked.folder.join(marker).exists());
    run
}

/// A run whose claim somebody removed can not write its backup any more: it ends, and its post hook runs.
fn robbed(hooked: &Hooked) {
    let running = in_the_middle(hooked, "robbed");
    fs::remove_file(claim(hooked, "robbed")).unwrap();
    ends_without_its_claim(hooked, "robbed", running, &["pre", "post"]);
}

/// A run that was silent for longer than its claim lives, for its machine slept: somebody else thaws the pod meanwhile, and when it wakes it does so itself, and writes no backup.
fn lapsed(hooked: &Hooked) {
    let clock = Clock::new();
    let running = in_the_middle_by(hooked, "lapsed", |call| clock.of(call));
    running.signal(Signal::STOP);
    let beside = ["create", "meanwhile", "-n", "order", "-l", "app=plain"];
    // One that is silent for less may be at work, though somebody has to look at it.
    age(&claim(hooked, "lapsed"), SignedDuration::from_mins(9));
    let run = hooked.call(&beside).code(3);
    let lives = "pod lapsed/db is owed its post hook";
    assert!(run.stderr.contains(lives), "{}", run.stderr);
    assert_eq!(hooked.said("lapsed", "db"), ["pre"], "{}", run.stderr);

    let so_long = SignedDuration::from_mins(12);
    clock.has_slept(so_long);
    age(&claim(hooked, "lapsed"), so_long);
    let run = hooked.call(&["prune", "--yes"]).ok();
    let ran = "owed by the run that made backup lapsed";
    assert!(run.stderr.contains(ran), "{}", run.stderr);
    assert_eq!(
        hooked.said("lapsed", "db"),
        ["pre", "post"],
        "{}",
        run.stderr
    );
    assert_eq!(hooked.notes(), Vec::<String>::new());

    running.signal(Signal::CONT);
    let run = ends_without_its_claim(hooked, "lapsed", running, &["pre", "post", "post"]);
    assert!(
        run.stderr.contains("it could not be refreshed for 7"),
        "{}",
        run.stderr
    );
}

/// kill -9 in the middle of a hook: what is owed is run by the next command, and not while the run may live.
fn killed(hooked: &Hooked) {
    let running = in_the_middle(hooked, "killed");
    let notes = hooked.notes();
    assert!(notes.len() == 1 && !notes[0].contains(SECRET), "{notes:?}");
    // One that is stopped lives.
    running.signal(Signal::STOP);
    let run = hooked
        .call(&["create", "beside", "-n", "order", "-l", "app=plain"])
        .ok();
    assert!(
        run.stderr.contains("pod killed/db is owed its post hook"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("may still be at work"),
        "{}",
        run.stderr
    );
    assert_eq!(hooked.said("killed", "db"), ["pre"]);
    running.kill();
    // Two that find it at once do not both run it.
    let both = [(); 2].map(|()| hooked.call(&["prune", "--yes"]).spawn());
    let both = both.map(|prune| prune.wait(Duration::from_secs(60)));
    let run = hooked
        .call(&["create", "next", "-n", "order", "-l", "app=plain"])
        .ok();
    let told = format!("{}{}{}", both[0].stderr, both[1].stderr, run.stderr);
    assert_eq!(hooked.said("killed", "db"), ["pre", "post"], "{told}");
    let ran = "pod killed/db: the hook after the backup (annotation, container main) ended well";
    assert_eq!(told.matches(ran).count(), 1, "{told}");
    assert!(
        told.contains("owed by the run that made backup killed"),
        "{told}"
    );
    tells_no_command(&run);
    assert_eq!(hooked.notes(), Vec::<String>::new());
    // A pod that is gone is owed nothing; what was planted runs nothing.
    let running = in_the_middle(hooked, "gone");
    running.kill();
    let now = [
        "-n",
        "gone",
        "delete",
        "pod",
        "db",
        "--grace-period=0",
        "--force",
    ];
    hooked.node.kubectl(&now);
    let note: Value = serde_json::from_str(&hooked.notes()[0]).unwrap();
    let run = hooked.call(&["prune", "--yes"]).ok();
    assert!(
        run.stderr.contains("pod gone/db was owed its post hook"),
        "{}",
        run.stderr
    );
    let uid = hooked
        .node
        .kubectl(&[
            "-n",
            "killed",
            "get",
            "pod",
            "db",
            "-o",
            "jsonpath={.metadata.uid}",
        ])
        .stdout;
    let mut planted = note;
    planted["uid"] = uid.as_str().into();
    planted["namespace"] = "killed".into();
    planted["command"] = serde_json::json!(["touch", "/tmp/planted"]);
    planted["hooks"] = serde_json::json!(["touch /tmp/planted"]);
    let file = format!(
        "plugins/kubectl-backup/hooks/{}.{uid}.json",
        planted["run"].as_str().unwrap()
    );
    hooked.folder.write(&file, planted.to_string());
    let run = hooked.call(&["prune", "--yes"]).code(3);
    assert!(run.stderr.contains("by hand"), "{}", run.stderr);
    // It stays, and the message names it.
    assert!(run.stderr.contains(&file), "{}", run.stderr);
    let listed = hooked.call(&["get"]).ok();
    let owed = "1 post hook owed to pods";
    assert!(listed.stderr.contains(owed), "{}", listed.stderr);
    fs::remove_file(hooked.folder.join(&file)).unwrap();
    assert_eq!(hooked.said("killed", "db"), ["pre", "post"]);
    let planted = [
        "-n",
        "killed",
        "exec",
        "db",
        "--",
        "test",
        "!",
        "-e",
        "/tmp/planted",
    ];
    hooked.node.kubectl(&planted);
}
