//! The program killed right after each record of the journal, before what the record announces: the data dir holds the old or the new state,
//! whole; the same command goes on, and a rollback brings the old state back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use harness::run::Signal;
use harness::tools;

use super::place::{Digest, Place};
use crate::etcd::step::Step;

/// The switch that only tests use.
const CRASH_AT: &str = "ETCD_LAUNCHER_CRASH_AT";

/// What writes the record, and what is there right after it.
enum Killed {
    /// `restore` of the snapshot; whether the exchange was made by then.
    Restoring { exchanged: bool },
    /// `rollback` after a restore on which nothing ran; whether it was exchanged back by then.
    RollingBack { back: bool },
    /// `rollback` after a restore that is not exchanged.
    GivingUp,
    /// Not by these commands: somebody who starts etcd writes it.
    Elsewhere,
}

/// No wildcard: a step without a line here does not compile.
fn killed(step: Step) -> Killed {
    match step {
        Step::Planned | Step::Fetched | Step::Built | Step::Proven | Step::Exchanging => {
            Killed::Restoring { exchanged: false }
        }
        Step::Exchanged => Killed::Restoring { exchanged: true },
        Step::RollingBack => Killed::RollingBack { back: false },
        Step::RolledBack => Killed::RollingBack { back: true },
        Step::Abandoned => Killed::GivingUp,
        Step::Starting | Step::Verified | Step::Committed => Killed::Elsewhere,
    }
}

#[track_caller]
fn assert_held(place: &Place, wanted: &Digest, step: Step, when: &str) {
    assert_eq!(place.held(), *wanted, "{} {when}", step.name());
}

#[test]
fn killed_at_every_record_it_goes_on_or_back() {
    let place = Place::new();
    let pristine = place.saved();
    for step in Step::ALL {
        let step = *step;
        place.put_back(&pristine);
        let name = step.name();
        match killed(step) {
            Killed::Restoring { exchanged } => {
                let after = if exchanged { &place.new } else { &place.old };
                place.restore().env(CRASH_AT, name).code(137);
                assert_held(&place, after, step, "after the crash");
                let crashed = place.saved();
                place.restore().ok();
                assert_held(&place, &place.new, step, "again");
                let told = place.status();
                assert_eq!(told["attempts"].as_array().unwrap().len(), 1, "{name}");
                assert_eq!(told["attempts"][0]["step"], "Exchanged", "{name}");
                assert_eq!(place.left().len(), 2, "{name}: {:?}", place.left());
                place.put_back(&crashed);
                place.rollback().ok();
                assert_held(&place, &place.old, step, "back");
                assert_eq!(place.left(), ["member"], "{name}");
            }
            Killed::RollingBack { back } => {
                let after = if back { &place.old } else { &place.new };
                place.restore().ok();
                place.rollback().env(CRASH_AT, name).code(137);
                assert_held(&place, after, step, "after the crash");
                let crashed = place.saved();
                place.rollback().ok();
                assert_held(&place, &place.old, step, "again");
                assert_eq!(place.left(), ["member"], "{name}");
                place.put_back(&crashed);
                place.restore().ok();
                assert_held(&place, &place.new, step, "restored instead");
            }
            Killed::GivingUp => {
                place.restore().env(CRASH_AT, "Built").code(137);
                place.rollback().env(CRASH_AT, name).code(137);
                assert_held(&place, &place.old, step, "after the crash");
                place.rollback().ok();
                place.assert_untouched();
                place.restore().ok();
                assert_held(&place, &place.new, step, "restored instead");
            }
            Killed::Elsewhere => {
                place.restore().env(CRASH_AT, name).ok();
                place.rollback().env(CRASH_AT, name).ok();
                place.assert_untouched();
            }
        }
    }
    // And what came of it all is a state that etcd runs on.
    place.restore().ok();
    assert_eq!(place.started(), place.then);
}

#[test]
fn a_rollback_that_goes_forward_is_killed_at_every_record_and_goes_on() {
    let place = Place::new();
    place.restore().ok();
    assert_eq!(place.started(), place.then);
    let seen = place.etcd.put("/seen", "x");
    place.stop();
    let started = place.held();
    let pristine = place.saved();
    for step in Step::ALL {
        let step = *step;
        let Killed::Restoring { exchanged } = killed(step) else {
            continue;
        };
        place.put_back(&pristine);
        place.rollback().env(CRASH_AT, step.name()).code(137);
        let after = if exchanged { &place.old } else { &started };
        assert_held(&place, after, step, "after the crash");
        place.rollback().ok();
        assert_held(&place, &place.old, step, "again");
        // The kept state, and what was replaced by going back to it.
        assert_eq!(place.left().len(), 3, "{:?}", place.left());
    }
    assert_eq!(place.started(), place.now);
    assert!(place.etcd.revision() > seen);
}

#[test]
fn an_etcdutl_that_outlives_its_launcher_is_waited_for() {
    let place = Place::new();
    let slow = place.etcd.folder().join("slow-etcdutl");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = version ] || sleep 2\nexec {} \"$@\"\n",
        tools::path("etcdutl").display()
    );
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    let slow = slow.to_str().unwrap();
    let call = || {
        harness::run::etcd_launcher(&["restore", "--yes", "--etcdutl", slow])
            .arg(&place.snapshot)
            .arg("--data-dir")
            .arg(place.data_dir())
    };
    let running = call().spawn();
    harness::wait_for("the build", Duration::from_secs(30), || {
        place
            .left()
            .iter()
            .any(|n| n.ends_with(".part"))
            .then_some(())
    });
    // The launcher alone, as the kernel kills it when memory is short: etcdutl goes on.
    running.signal(Signal::KILL);
    call().ok();
    assert_eq!(place.held(), place.new);
    assert_eq!(place.left().len(), 2, "{:?}", place.left());
    drop(running);
}

#[test]
fn ctrl_c_while_the_snapshot_comes_changes_nothing() {
    let place = Place::new();
    let pipe = place.etcd.folder().join("pipe");
    harness::run::program("mkfifo", &[&pipe]).ok();
    // Somebody holds the other end and sends nothing.
    let end = fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let running = place.restore_of(&pipe, &[]).spawn();
    harness::wait_for("the plan", Duration::from_secs(30), || {
        place
            .data_dir()
            .join(".restore-journal")
            .exists()
            .then_some(())
    });
    thread::sleep(Duration::from_millis(300));
    running.signal(Signal::INT);
    let run = running.wait(Duration::from_secs(20));
    assert_eq!(run.code, 130, "{}", run.stderr);
    assert!(run.stderr.contains("nothing was changed"), "{}", run.stderr);
    drop(end);
    place.assert_untouched();
}
