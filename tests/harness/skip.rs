//! Tests that cannot run here say so, and are counted.
//!
//! A test that returns early looks like one that passed. What is skipped is therefore written to stderr and to the
//! file `KUBECTL_BACKUP_SKIPS` names, so that a run can end with their number.

use std::fs::File;
use std::io::Write;
use std::{env, thread};

/// Skips the calling test for a reason: reports it and returns.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::skip::report(&format!($($reason)+));
        return;
    }};
}

/// Reports that the current test is skipped.
pub fn report(reason: &str) {
    let current = thread::current();
    let line = format!("SKIPPED {}: {reason}\n", current.name().unwrap_or("a test"));
    // The macros of the standard library write into what cargo captures of a passing test.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os("KUBECTL_BACKUP_SKIPS") {
        let written = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
