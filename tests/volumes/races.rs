//! Several at work, and one that is stopped or killed: what is in the store is whole, or is not visible.

use std::fs;
use std::time::{Duration, Instant};

use harness::clock::age;
use harness::proxy::{Action, Match, Proxy};
use harness::run::Signal;
use jiff::SignedDuration;
use rustix::process::Pid;

use super::{Place, VOLUME, files, listed, noise, packs};

const LONG: Duration = Duration::from_secs(180);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A place with a small snapshot in it, and a source that takes a while.
fn begun() -> (Place, std::path::PathBuf, serde_json::Value) {
    let place = Place::folder();
    let small = place.home.join("small");
    fs::create_dir(&small).unwrap();
    fs::write(small.join("a"), b"a").unwrap();
    let first = place.backup(&small).ok().json();
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..3 {
        fs::write(source.join(number.to_string()), noise(number + 1, 40 << 20)).unwrap();
    }
    (place, source, first)
}

#[test]
fn a_backup_that_was_stopped_while_a_prune_took_it_for_dead_makes_no_snapshot() {
    let (place, source, first) = begun();
    let known = packs(&place).len();
    let stopped = place.backup(&source).spawn();
    until("a pack", || packs(&place).len() > known);
    stopped.signal(Signal::STOP);
    let claims = files(&place.path("0b5e.claims"));
    assert_eq!(claims.len(), 1, "{claims:?}\n{}", stopped.stderr());
    // As long as it may live, a prune leaves it alone.
    let refused = place.mover(&["prune", VOLUME]).code(1);
    assert!(
        refused.stderr.contains("a backup is at work"),
        "{}",
        refused.stderr
    );
    age(&claims[0], SignedDuration::from_hours(2));
    place.mover(&["prune", VOLUME]).ok();
    stopped.signal(Signal::CONT);
    let ended = stopped.wait(LONG).code(1);
    assert!(ended.stderr.contains("claim"), "{}", ended.stderr);
    assert_eq!(place.snapshots().len(), 1);
    place.checked_by_restic(&first, &place.key(), &place.home.join("restic"));
    // What the next one needs it stores again.
    let second = place.backup(&source).ok().json();
    let target = place.home.join("back");
    place.restore(&second, &target).ok();
    assert_eq!(listed(&target, false), listed(&source, false));
    place.checked_by_restic(&second, &place.key(), &place.home.join("restic2"));
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_that_is_seen_and_the_next_goes_on() {
    let (place, source, first) = begun();
    for more in 1..3 {
        let known = packs(&place).len();
        let killed = place.backup(&source).spawn();
        until("packs", || packs(&place).len() >= known + more);
        killed.kill();
        assert_eq!(place.snapshots().len(), 1);
        let said = place
            .restic(1, &place.key(), &["check", "--read-data"])
            .ok();
        assert!(
            said.stdout.contains("no errors were found"),
            "{}",
            said.stdout
        );
    }
    assert_eq!(files(&place.path("0b5e.claims")).len(), 2);
    let second = place.backup(&source).ok().json();
    // What the dead left is nobody's; a prune marks it, and removes their claims when they are surely dead.
    let refused = place.mover(&["prune", VOLUME]).code(1);
    assert!(
        refused.stderr.contains("a backup is at work"),
        "{}",
        refused.stderr
    );
    for claim in files(&place.path("0b5e.claims")) {
        age(&claim, SignedDuration::from_hours(2));
    }
    let pruned = place.mover(&["prune", VOLUME]).ok().json();
    assert!(
        pruned["markedBytes"].as_u64().unwrap() > 15 << 20,
        "{pruned}"
    );
    assert_eq!(pruned["removedBytes"], 0);
    assert!(files(&place.path("0b5e.claims")).is_empty());
    place.checked_by_restic(&second, &place.key(), &place.home.join("restic"));
    place.restore(&first, &place.home.join("back")).ok();
    place
        .mover(&["prune", VOLUME, "--keep-marked", "1h"])
        .code(2);
}

/// The child of a process whose command line has this word.
fn child(pid: u32, word: &str) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let others =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let all: Vec<String> = std::iter::once(children).chain(others).collect();
    all.iter()
        .flat_map(|all| all.split_whitespace())
        .find_map(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let is_it = line.split('\0').any(|part| part == word);
            is_it.then(|| Pid::from_raw(pid.parse().ok()?)).flatten()
        })
}

#[test]
fn a_sender_that_is_killed_and_a_run_that_is_asked_to_stop_make_no_snapshot_and_leave_no_claim() {
    let (place, source, first) = begun();
    for signal in [Signal::KILL, Signal::INT] {
        let known = packs(&place).len();
        let running = place.backup(&source).arg("--apart").spawn();
        until("a pack", || packs(&place).len() > known);
        if signal == Signal::KILL {
            let sender = child(running.pid(), "send").expect("a sender");
            rustix::process::kill_process(sender, signal).unwrap();
        } else {
            running.signal(signal);
        }
        let ended = running.wait(LONG);
        let code = if signal == Signal::KILL { 1 } else { 130 };
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert_eq!(place.snapshots().len(), 1);
        assert!(files(&place.path("0b5e.claims")).is_empty());
    }
    place.checked_by_restic(&first, &place.key(), &place.home.join("restic"));
}

#[test]
fn two_backups_at_once_both_stand() {
    let (place, source, _) = begun();
    let both = [place.backup(&source).spawn(), place.backup(&source).spawn()];
    let saved = both.map(|one| one.wait(LONG).ok().json());
    assert_eq!(place.snapshots().len(), 3);
    for (number, saved) in saved.iter().enumerate() {
        let target = place.home.join(format!("back-{number}"));
        place.restore(saved, &target).ok();
        assert_eq!(listed(&target, false), listed(&source, false));
    }
    place.checked_by_restic(&saved[0], &place.key(), &place.home.join("restic"));
}

#[test]
fn a_store_that_refuses_in_mid_stream_ends_the_backup_within_seconds_and_shows_nothing() {
    let mut place = Place::minio("volumes-refused");
    let (minio, _) = place.minio.unwrap();
    let proxy = Proxy::start(minio.upstream());
    let direct = std::mem::replace(
        &mut place.location,
        format!("s3://volumes-refused/p?endpoint={}", proxy.url()),
    );
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..4 {
        fs::write(source.join(number.to_string()), noise(number + 1, 40 << 20)).unwrap();
    }
    let body = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    proxy.every(
        Match::method("PUT").and_path("/data/"),
        Action::status(403, body),
    );
    let begin = Instant::now();
    let call = |place: &Place| place.backup(&source).env("AWS_ENDPOINT_URL", proxy.url());
    let refused = call(&place).code(1);
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
    assert!(refused.stderr.contains("0b5e/data/"), "{}", refused.stderr);
    let seen = minio.list("volumes-refused", "p/restic/cluster/shop/0b5e/snapshots/");
    assert!(seen.is_empty(), "{seen:?}");
    proxy.clear_rules();
    // A few answers that are lost, or that say to come again, cost a moment.
    proxy.nth(
        2,
        Match::method("PUT").and_path("/data/"),
        Action::status(503, "busy"),
    );
    let saved = call(&place).ok().json();
    place.location = direct;
    let key = minio.get("volumes-refused", "p/restic/cluster/shop/0b5e.key");
    let key = place.home.write("password", key);
    place.checked_by_restic(&saved, &key, &place.home.join("restic"));
}
