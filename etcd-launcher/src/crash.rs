//! Ends the process at a point that a test names, as if it had been killed there: right after a record or a move, before what follows it.
//! Does nothing where the variable is not set.

/// Names the point.
pub(crate) const CRASH_AT: &str = "ETCD_LAUNCHER_CRASH_AT";

/// A point that was reached.
pub(crate) fn here(point: &str) {
    if std::env::var_os(CRASH_AT).is_some_and(|wanted| *wanted == *point) {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}
