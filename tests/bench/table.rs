//! The table of what was measured, each row with what it has to hold.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use super::{RUNS, mebibytes, say, seconds};

/// What a row has to hold.
pub(super) enum Budget {
    AtLeast(f64),
    AtMost(f64),
    Shown,
}
pub(super) use Budget::{AtLeast, AtMost, Shown};

#[derive(Default)]
pub(super) struct Table {
    rows: Vec<String>,
}

impl Table {
    pub(super) fn row(
        &mut self,
        work: &str,
        ours: Duration,
        peer: &str,
        ratio: f64,
        budget: Budget,
    ) {
        let (text, holds) = match budget {
            AtLeast(least) => (
                format!("at least {least} times as fast"),
                Some(ratio >= least),
            ),
            AtMost(most) => (format!("at most {most} times"), Some(ratio <= most)),
            Shown => (String::new(), None),
        };
        let ratio = if ratio > 0.0 {
            format!("{ratio:.2}")
        } else {
            String::new()
        };
        self.push(work, &seconds(ours), peer, &ratio, &text, holds);
    }

    pub(super) fn memory(&mut self, work: &str, ours: u64, peer: &str, most: u64) {
        self.push(
            work,
            &mebibytes(ours),
            peer,
            "",
            &format!("at most {}", mebibytes(most)),
            Some(ours <= most),
        );
    }

    /// Memory that has to hold nothing.
    pub(super) fn memory_shown(&mut self, work: &str, ours: u64, peer: &str) {
        self.push(work, &mebibytes(ours), peer, "", "", None);
    }

    fn push(
        &mut self,
        work: &str,
        ours: &str,
        peer: &str,
        ratio: &str,
        budget: &str,
        holds: Option<bool>,
    ) {
        let verdict = match holds {
            Some(true) => "holds",
            Some(false) => "**does not hold**",
            None => "",
        };
        let row = format!("| {work} | {ours} | {peer} | {ratio} | {budget} | {verdict} |");
        say(&row);
        self.rows.push(row);
    }

    pub(super) fn report(&self) -> String {
        let mut text = String::from(
            "# Measured\n\nWritten by `make bench`, everything in one run on one machine: a control plane of etcd and kube-apiserver, MinIO and\n",
        );
        let cores = thread::available_parallelism().map_or(0, usize::from);
        writeln!(text, "Velero 1.18.3 share its {cores} cores with the plugin. Objects are half text, half random bytes. Medians of {RUNS}, unless \"once\".\n").unwrap();
        text.push_str(
            "| work | ours | beside it | ratio | budget | |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            writeln!(text, "{row}").unwrap();
        }
        text
    }
}
