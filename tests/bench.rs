//! The budgets of object backups and restores, beside Velero and beside bare requests, in one run on one machine.
//!
//! Prints a table and keeps it in BENCH.md. It judges by ratios; a row that does not hold says so. Nothing here is a test.
//! With arguments (`objects`, `tuned`, `many-objects`, `large-objects`, `controller`, `etcd`, `etcd-restore`, `volumes`) only those parts are measured, and BENCH.md stays as it is.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers that reports and ends"
)]

// Beside this program there is a module of the tests of the same name.
#[path = "bench/bare.rs"]
mod bare;
#[path = "bench/controller.rs"]
mod controller;
#[path = "bench/etcd.rs"]
mod etcd;
#[path = "bench/hosted.rs"]
mod hosted;
#[path = "bench/memory.rs"]
mod memory;
#[path = "bench/objects.rs"]
mod objects;
#[path = "bench/scale.rs"]
mod scale;
#[path = "bench/table.rs"]
mod table;
#[path = "bench/volumes.rs"]
mod volumes;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::store::Minio;
use table::Table;

const RUNS: usize = 5;
const BUCKET: &str = "bench";

fn main() {
    let minio = Minio::shared();
    minio.bucket(BUCKET);
    let mut table = Table::default();
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let parts: [(&str, Part); 8] = [
        ("objects", objects::objects),
        ("tuned", scale::against_tuned),
        ("many-objects", scale::many_objects),
        ("large-objects", objects::large_objects),
        ("controller", controller::beside_velero),
        ("etcd", etcd::snapshots),
        ("etcd-restore", hosted::restores),
        ("volumes", volumes::beside_restic),
    ];
    for part in &asked {
        let known = parts.map(|(name, _)| name);
        assert!(
            known.contains(&part.as_str()),
            "{part} is none of {known:?}"
        );
    }
    for (name, measure) in parts {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            measure(minio, &mut table);
        }
    }
    let report = table.report();
    println!("{report}");
    if !asked.is_empty() {
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../BENCH.md");
    // What was measured in runs of their own stays below it.
    let before = fs::read_to_string(&file).unwrap_or_default();
    let others = before.find("\nMeasured in").map(|start| &before[start..]);
    fs::write(&file, report + others.unwrap_or_default()).unwrap();
}

/// Measures something and writes its rows.
type Part = fn(&'static Minio, &mut Table);

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The median of some runs.
fn times(runs: usize, mut work: impl FnMut(usize) -> Duration) -> Duration {
    let all: Vec<Duration> = (0..runs).map(&mut work).collect();
    say(&format!("{all:?}"));
    median(all)
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

fn say(text: &str) {
    println!("bench: {text}");
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
