//! Whatever fails while a snapshot is on its way leaves nothing that looks like one.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::etcd::{Content, Etcd, Fill, Version};
use harness::http_client::Endpoint;
use harness::process::{Folder, PidSlot};
use harness::proxy::{Action, Match, Proxy};
use harness::run::{Run, Signal};
use harness::store::Minio;

use super::place::{Bucket, contents, of, restored, status, unpacked};
use crate::etcd::wire::{Event, Wire};

/// Random, so that it stays as large as it is.
fn fill(bytes: u64) -> Fill {
    Fill {
        content: Content::Random,
        ..Fill::of(bytes)
    }
}

fn proxy() -> Proxy {
    Proxy::start(&Endpoint::plain(Minio::shared().endpoint()))
}

fn part(number: u32) -> Match {
    Match::method("PUT").and_path(&format!("partNumber={number}&"))
}

fn on(wire: &Wire) -> String {
    format!("--endpoints={}", wire.url())
}

#[test]
fn a_stream_that_is_cut_or_altered_leaves_nothing() {
    let etcd = Etcd::start();
    etcd.fill(&fill(12 << 20));
    let bucket = Bucket::new("streams");
    let size = fs::metadata(etcd.member(0).database()).unwrap().len();
    for (after, event, says) in [
        (100_000, Event::Cut, "read on from the member"),
        (size - 50_000, Event::Cut, "read on from the member"),
        (size / 2, Event::Flip, "altered"),
    ] {
        let wire = Wire::to(etcd.endpoint()).after(after, event);
        let run = bucket.snapshot(&etcd, "a").arg(on(&wire)).code(1);
        assert!(run.stderr.contains(says), "{says}: {}", run.stderr);
        assert!(run.stderr.contains("hint:"), "{}", run.stderr);
        bucket.assert_is_empty();
        let file = bucket.folder.join("x.db");
        let wire = Wire::to(etcd.endpoint()).after(after, Event::Cut);
        of(&etcd, &[&on(&wire)]).arg(&file).code(1);
        assert_eq!(fs::read_dir(bucket.folder.path()).unwrap().count(), 0);
    }
    // The same name, once all is well.
    bucket.snapshot(&etcd, "a").ok();
    bucket.saved("a");
}

#[test]
fn a_member_that_is_killed_in_mid_stream_leaves_nothing() {
    let etcd = Etcd::of(3);
    etcd.fill(&fill(12 << 20));
    let bucket = Bucket::new("killed-member");
    let etcd = Arc::new(etcd);
    let victim = Arc::clone(&etcd);
    let wire = Wire::to(etcd.endpoint()).after(
        4 << 20,
        Event::Run(Box::new(move || victim.member(0).kill())),
    );
    let run = bucket.snapshot(&etcd, "a").arg(on(&wire)).code(1);
    assert!(!etcd.member(0).is_running());
    assert!(run.stderr.contains(wire.url()), "{}", run.stderr);
    bucket.assert_is_empty();
    // The others are there, and the name is free.
    let run = bucket.snapshot(&etcd, "a").ok();
    assert!(run.stderr.contains(etcd.endpoint()), "{}", run.stderr);
    bucket.saved("a");
}

#[test]
fn ctrl_c_leaves_nothing_and_says_so_by_its_exit_code() {
    let etcd = Etcd::start();
    etcd.fill(&fill(24 << 20));
    let bucket = Bucket::new("interrupted");
    let stopped = |call: harness::run::Backup, wire: &Wire, signal| -> Run {
        let running = call.arg(on(wire)).spawn();
        harness::wait_for("the stream", Duration::from_secs(30), || {
            (wire.passed() > 4 << 20).then_some(())
        });
        running.signal(signal);
        running.wait(Duration::from_secs(60))
    };
    let slow = || Wire::to(etcd.endpoint()).rate(4 << 20);
    let run = stopped(bucket.snapshot(&etcd, "a"), &slow(), Signal::INT).code(130);
    assert!(run.stderr.contains("stopping"), "{}", run.stderr);
    bucket.assert_is_empty();
    let file = bucket.folder.join("x.db");
    stopped(of(&etcd, &[]).arg(&file), &slow(), Signal::TERM).code(130);
    assert_eq!(fs::read_dir(bucket.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_store_that_refuses_in_mid_upload_is_left_empty() {
    let etcd = Etcd::start();
    etcd.fill(&fill(30 << 20));
    let bucket = Bucket::new("refusing");
    let no = || {
        Action::status(
            403,
            "<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
        )
    };
    let (first, third) = (Match::method("POST").and_path("uploads"), part(3));
    let complete = Match::method("POST").and_path("uploadId=");
    let manifest = Match::method("PUT").and_path("manifest.json");
    for (what, says) in [
        (first, "begin an upload"),
        (third, "part 3"),
        (complete, "complete"),
        (manifest, "manifest.json"),
    ] {
        let proxy = proxy();
        proxy.every(what, no());
        let run = bucket.through(&proxy.url(), &etcd, "a").code(1);
        assert!(
            run.stderr.contains(says) && run.stderr.contains("AccessDenied"),
            "{says}: {}",
            run.stderr
        );
        assert!(
            proxy.calls().iter().any(|call| call.status == Some(403)),
            "{says}"
        );
        drop(proxy);
        bucket.assert_is_empty();
    }
    // What passes is waited for.
    let proxy = proxy();
    proxy.nth(
        1,
        part(2),
        Action::status(503, "<Error><Code>SlowDown</Code></Error>"),
    );
    proxy.nth(1, part(3), Action::Cut);
    proxy.nth(
        1,
        Match::method("PUT").and_path("manifest.json"),
        Action::CutAfterForward,
    );
    bucket.through(&proxy.url(), &etcd, "a").ok();
    let (_, packed) = bucket.saved("a");
    assert_eq!(
        contents(&restored(Version::V3_6, &unpacked(&bucket.folder, &packed))),
        contents(&etcd)
    );
}

#[test]
fn a_slow_store_may_not_hold_etcd_up_unless_a_spool_takes_what_it_does_not() {
    let etcd = Etcd::start();
    etcd.fill(&fill(80 << 20));
    let bucket = Bucket::new("slow");
    let proxy = proxy();
    let call = |name: &str, more: &[&str]| {
        // Two parts are under way at a time.
        for number in [1, 2] {
            proxy.nth(1, part(number), Action::Delay(Duration::from_secs(12)));
        }
        let call = bucket.through(&proxy.url(), &etcd, name);
        let run = call.arg("--hold-limit=2s").args(more).run();
        proxy.clear_rules();
        run
    };
    let began = Instant::now();
    let run = call("a", &[]).code(1);
    assert!(
        run.stderr.contains("does not keep up") && run.stderr.contains("--spool-dir"),
        "{}",
        run.stderr
    );
    assert!(began.elapsed() < Duration::from_secs(60));
    bucket.assert_is_empty();
    let run = call("a", &["--spool-dir=/absent/spool"]).code(1);
    assert!(run.stderr.contains("/absent/spool"), "{}", run.stderr);
    bucket.assert_is_empty();
    let spool = Folder::new("spool");
    let run = call("a", &[&format!("--spool-dir={}", spool.path().display())]).ok();
    assert!(
        run.stderr.contains("went through the spool"),
        "{}",
        run.stderr
    );
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
    let (manifest, packed) = bucket.saved("a");
    let file = unpacked(&bucket.folder, &packed);
    assert_eq!(
        status(Version::V3_6, &file)["revision"],
        manifest["facts"]["revision"]
    );
}

#[test]
fn a_store_that_dies_in_mid_upload_shows_no_snapshot() {
    let etcd = Etcd::start();
    etcd.fill(&fill(80 << 20));
    let minio = Minio::start();
    let bucket = minio.bucket("dying");
    let proxy = Proxy::start(&Endpoint::plain(minio.endpoint()));
    let slot = Arc::new(PidSlot::default());
    slot.set(minio.pid().unwrap());
    proxy.nth(1, part(3), Action::Kill(slot));
    let location = format!("s3://{bucket}/x?endpoint={}", proxy.url());
    let run = of(&etcd, &["--cluster=c", "--name=a", "--hold-limit=5s"])
        .location(&location)
        .credentials_of(&minio)
        .env("AWS_ENDPOINT_URL", proxy.url())
        .code(1);
    assert!(run.stderr.contains("does not keep up"), "{}", run.stderr);
    assert!(
        run.stderr.contains("could not be removed"),
        "{}",
        run.stderr
    );
    // The store's own disk: a note of the upload for the next sweep, and nothing that looks like a snapshot.
    let kept = minio
        .folder()
        .join("data/dying/x/plugins/etcd-launcher/c/a");
    let names: Vec<_> = fs::read_dir(kept)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].ends_with(".upload.json"), "{names:?}");
}

#[test]
fn of_two_runs_with_one_name_one_wins_and_the_other_leaves_nothing() {
    let etcd = Etcd::start();
    etcd.fill(&fill(10 << 20));
    let bucket = Bucket::new("twice");
    let proxy = proxy();
    // Both have sent their data before either asks for the manifest again.
    proxy.every(
        Match::method("PUT").and_path("manifest.json"),
        Action::Delay(Duration::from_secs(2)),
    );
    let runs: Vec<_> = (0..2)
        .map(|_| bucket.through(&proxy.url(), &etcd, "a").spawn())
        .collect();
    let runs: Vec<_> = runs
        .into_iter()
        .map(|run| run.wait(Duration::from_secs(120)))
        .collect();
    let mut codes: Vec<_> = runs.iter().map(|run| run.code).collect();
    codes.sort();
    assert_eq!(codes, [0, 1], "{runs:#?}");
    let sent = proxy.calls();
    let manifests = sent
        .iter()
        .filter(|call| call.method == "PUT" && call.target.contains("manifest.json"));
    assert_eq!(manifests.count(), 2, "they did not meet");
    let lost = runs.iter().find(|run| run.code == 1).unwrap();
    assert!(lost.stderr.contains("exists already"), "{}", lost.stderr);
    bucket.saved("a");
}
