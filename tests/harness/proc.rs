//! What the kernel tells of a process: its memory and the time it computed.

use std::fs;
use std::time::Duration;

/// Bytes that `/proc/PID/status` has in this field (`VmRSS`, `VmHWM`, `RssAnon`); 0 when the process is gone.
pub fn bytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib << 10)
}

/// A second, as `/proc/PID/stat` counts it on every machine that Linux runs on today.
const TICKS: u64 = 100;

/// How long all its threads together computed so far, for itself and in the kernel.
pub fn cpu_time(pid: u32) -> Duration {
    // The name of a program may have spaces; what follows its last bracket has none.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}
