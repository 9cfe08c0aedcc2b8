//! The clock for spans of time: nobody sets it, and it goes on while the machine sleeps, so that a program that was asleep knows for how long.

use std::time::Duration;

use nix::time::ClockId;

/// The time since some moment, sleep included.
pub fn awake_or_asleep() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::CLOCK_BOOTTIME;
    // On macOS and the BSDs this one goes on while the machine sleeps.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = ClockId::CLOCK_MONOTONIC;
    // By the system's libc, as all clocks of the standard library: who sets a program's clock sets this one, too.
    clock.now().expect("every system has this clock").into()
}

/// How long ago such a time was.
pub fn since(at: Duration) -> Duration {
    awake_or_asleep().saturating_sub(at)
}
