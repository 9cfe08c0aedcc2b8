//! Snapshots of an etcd of 2 GiB that waits for its disk, to MinIO, beside `etcdctl snapshot save` to a local file.

use std::fs;
use std::time::{Duration, Instant};

use harness::etcd::{Content, Etcd, Fill};
use harness::run::etcd_launcher;
use harness::store::Minio;

use super::memory::{anonymous, measured};
use super::table::{AtMost, Shown, Table};
use super::{BUCKET, RUNS, mebibytes, median, say, seconds};

/// A page of the database.
pub(super) const PAGE: u64 = 4096;

/// What may be resident besides 24 bytes a page.
pub(super) const ANONYMOUS: u64 = 128 << 20;

/// For whom the encrypted one is.
const RECIPIENT: &str = include_str!("../fixtures/encryption/first.pub");

/// The row of the budget, the same encrypted, and one for each half of the data.
pub(super) fn snapshots(minio: &Minio, table: &mut Table) {
    // What lies around the values in pages brings it to 2 GiB.
    let etcd = filled(1800 << 20, Content::Half);
    let size = fs::metadata(etcd.member(0).database()).unwrap().len();
    let (mut ours, mut theirs, mut peak, mut stored) = (Vec::new(), Vec::new(), 0, 0);
    let (mut sealed, mut sealed_peak) = (Vec::new(), 0);
    // In turns, for what a machine does besides changes with time.
    for _ in 0..RUNS {
        theirs.push(etcdctl(&etcd));
        let (time, memory, bytes) = save(&etcd, minio, &[]);
        ours.push(time);
        peak = peak.max(memory);
        stored = bytes;
        let (time, memory, _) = save(&etcd, minio, &["--recipient", RECIPIENT.trim()]);
        sealed.push(time);
        sealed_peak = sealed_peak.max(memory);
    }
    say(&format!(
        "ours {ours:?}, encrypted {sealed:?}, theirs {theirs:?}"
    ));
    let [ours, sealed, theirs] = [ours, sealed, theirs].map(median);
    table.row(
        &format!(
            "etcd snapshot of {} to MinIO, compressed to {} and verified",
            mebibytes(size),
            mebibytes(stored)
        ),
        ours,
        &format!("etcdctl snapshot save to a local file: {}", seconds(theirs)),
        ours.as_secs_f64() / theirs.as_secs_f64(),
        AtMost(1.2),
    );
    table.memory(
        "peak anonymous memory of that snapshot",
        peak,
        "",
        ANONYMOUS + size / PAGE * 24,
    );
    table.row(
        "the same, encrypted for one recipient",
        sealed,
        &format!("etcdctl snapshot save to a local file: {}", seconds(theirs)),
        sealed.as_secs_f64() / theirs.as_secs_f64(),
        AtMost(1.2),
    );
    table.memory(
        "peak anonymous memory of that one",
        sealed_peak,
        "",
        ANONYMOUS + size / PAGE * 24,
    );
    drop(etcd);
    for (content, what) in [
        (Content::Json, "JSON alone"),
        (Content::Random, "random bytes alone"),
    ] {
        let etcd = filled(900 << 20, content);
        let size = fs::metadata(etcd.member(0).database()).unwrap().len();
        let theirs = etcdctl(&etcd);
        let (time, _, stored) = save(&etcd, minio, &[]);
        table.row(
            &format!(
                "{} of {what}, compressed to {}, once",
                mebibytes(size),
                mebibytes(stored)
            ),
            time,
            &format!("etcdctl: {}", seconds(theirs)),
            time.as_secs_f64() / theirs.as_secs_f64(),
            Shown,
        );
    }
}

fn filled(bytes: u64, content: Content) -> Etcd {
    let etcd = Etcd::builder().fsync(true).quota(8 << 30).start();
    let fill = Fill {
        value_bytes: 4000,
        content,
        ..Fill::of(bytes)
    };
    let began = Instant::now();
    let filled = etcd.fill(&fill);
    say(&format!("{filled:?} in {}", seconds(began.elapsed())));
    etcd
}

/// What `etcdctl snapshot save` takes; its file is removed again.
fn etcdctl(etcd: &Etcd) -> Duration {
    let began = Instant::now();
    let file = etcd.save_snapshot("theirs.db");
    let took = began.elapsed();
    fs::remove_file(file).unwrap();
    took
}

/// Time, peak of anonymous memory and stored bytes of one snapshot, which is removed again.
fn save(etcd: &Etcd, minio: &Minio, arguments: &[&str]) -> (Duration, u64, u64) {
    let prefix = "etcd/plugins/etcd-launcher/bench/run";
    let location = format!("s3://{BUCKET}/etcd?endpoint={}", minio.endpoint());
    let call = etcd_launcher(&["snapshot", "--cluster=bench", "--name=run", "-o=json"])
        .args(arguments)
        .env("ETCDCTL_ENDPOINTS", etcd.endpoint())
        .location(&location)
        .credentials_of(minio);
    let (time, peak, printed) = measured(call, anonymous);
    let printed = printed.json();
    let stored = printed["data"]["bytes"].as_u64().unwrap();
    for key in minio.list(BUCKET, prefix) {
        minio.delete(BUCKET, &key);
    }
    (time, peak, stored)
}
