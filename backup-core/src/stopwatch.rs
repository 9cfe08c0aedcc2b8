//! The clock for spans of time: nobody sets it, and it goes on while the machine sleeps, so that a program that was asleep knows for how long.

use std::time::Duration;

/// The time since some moment, sleep included.
pub fn awake_or_asleep() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    // On macOS and the BSDs this one goes on while the machine sleeps.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::new(
        now.tv_sec.try_into().unwrap_or(0),
        now.tv_nsec.try_into().unwrap_or(0),
    )
}

/// How long ago such a time was.
pub fn since(at: Duration) -> Duration {
    awake_or_asleep().saturating_sub(at)
}
