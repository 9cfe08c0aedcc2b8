//! Memory of processes while they work. The kernel keeps no peak of all that is asked for, so it is looked at every 2 ms.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::proc::bytes;
use harness::process::Output;
use harness::run::Backup;

/// Wall-clock time, the highest `memory` its process had, and what it printed, of one call that succeeds.
pub(super) fn measured(call: Backup, memory: fn(u32) -> u64) -> (Duration, u64, Output) {
    let start = Instant::now();
    let running = call.spawn();
    let pid = running.pid();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(memory(pid));
                thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        let run = running.wait(Duration::from_secs(1800));
        let time = start.elapsed();
        ended.store(true, Ordering::Relaxed);
        (time, watch.join().unwrap(), run.ok())
    })
}

/// Bytes of anonymous memory a process has now.
pub(super) fn anonymous(pid: u32) -> u64 {
    bytes(pid, "RssAnon")
}

/// The most memory a process ever had resident, in bytes; 0 when it is gone.
pub(super) fn peak_of(pid: u32) -> u64 {
    bytes(pid, "VmHWM")
}

/// The same of a process and its children, summed.
pub(super) fn peak_of_family(pid: u32) -> u64 {
    peak_of(pid) + children(pid).map(peak_of_family).sum::<u64>()
}

/// What any thread of a process started and did not wait for yet.
pub(super) fn children(pid: u32) -> impl Iterator<Item = u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
}
