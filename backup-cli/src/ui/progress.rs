//! How far the work is: a bar on a terminal once it takes longer than a blink, elsewhere a line now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backup_core::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use super::Ui;
use crate::output;

/// Work shorter than this draws nothing.
const BLINK: Duration = Duration::from_millis(250);

/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// Watches one piece of work, until it is dropped.
pub struct Bar<'a> {
    ui: &'a Ui,
    seen: Arc<Seen>,
    bar: ProgressBar,
    ticker: JoinHandle<()>,
}

struct Seen {
    step: Mutex<String>,
    expected: AtomicU64,
    expected_bytes: AtomicU64,
    objects: AtomicU64,
    bytes: AtomicU64,
    since: Instant,
}

impl Seen {
    fn new() -> Self {
        Self {
            step: Mutex::default(),
            expected: AtomicU64::new(0),
            expected_bytes: AtomicU64::new(0),
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            since: Instant::now(),
        }
    }

    fn line(&self) -> String {
        let step = self.step.lock().map(|s| s.clone()).unwrap_or_default();
        let (expected, objects, bytes) = (
            self.expected.load(Ordering::Relaxed),
            self.objects.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        );
        let mut line = if step.is_empty() {
            "working".to_owned()
        } else {
            step
        };
        if objects > 0 && expected > objects {
            line.push_str(&format!(
                ": {} of {} objects",
                output::count(objects),
                output::count(expected)
            ));
        } else if objects > 0 {
            line.push_str(&format!(": {} objects", output::count(objects)));
        }
        let expected = self.expected_bytes.load(Ordering::Relaxed);
        if bytes > 0 && expected >= bytes {
            line.push_str(&format!(
                ", {} of {} ({} %)",
                output::size(bytes),
                output::size(expected),
                u128::from(bytes) * 100 / u128::from(expected)
            ));
        } else if bytes > 0 {
            line.push_str(&format!(", {}", output::size(bytes)));
        }
        line
    }
}

impl Ui {
    /// Starts to watch a piece of work.
    pub fn progress(&self) -> Bar<'_> {
        let seen = Arc::new(Seen::new());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(
            ProgressStyle::with_template("{spinner} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        let about = self.about();
        let ticker = match (self.quiet, self.bars) {
            (true, _) => tokio::spawn(async {}),
            (false, true) => tokio::spawn(draw(bar.clone(), Arc::clone(&seen))),
            (false, false) => tokio::spawn(write_lines(Arc::clone(&seen), LINE, move |line| {
                let line = format!("{about}{line}");
                // Where standard error is gone there is nobody left to tell.
                let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes());
            })),
        };
        if let Ok(mut current) = self.bar.lock() {
            *current = Some(bar.clone());
        }
        Bar {
            ui: self,
            seen,
            bar,
            ticker,
        }
    }

    /// Takes the bar away, for a process that ends in the middle of its work.
    pub fn clear_progress(&self) {
        if let Some(bar) = self.bar.lock().ok().and_then(|mut bar| bar.take()) {
            bar.finish_and_clear();
        }
    }
}

async fn draw(bar: ProgressBar, seen: Arc<Seen>) {
    tokio::time::sleep(BLINK).await;
    bar.set_draw_target(ProgressDrawTarget::stderr());
    loop {
        bar.set_message(super::clean(&seen.line()).replace('\n', " "));
        bar.tick();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn write_lines(seen: Arc<Seen>, every: Duration, write: impl Fn(String)) {
    loop {
        tokio::time::sleep(every).await;
        write(format!(
            "{} ({})\n",
            super::clean(&seen.line()).replace('\n', " "),
            output::duration(seen.since.elapsed())
        ));
    }
}

impl Progress for Bar<'_> {
    fn step(&self, text: &str) {
        if let Ok(mut step) = self.seen.step.lock() {
            text.clone_into(&mut step);
        }
    }

    fn expect(&self, objects: u64) {
        self.seen.expected.fetch_add(objects, Ordering::Relaxed);
    }

    fn expect_bytes(&self, bytes: u64) {
        self.seen.expected_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn done(&self, objects: u64, bytes: u64) {
        self.seen.objects.fetch_add(objects, Ordering::Relaxed);
        self.seen.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn warn(&self, text: &str) {
        self.ui.warn(text);
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.ticker.abort();
        self.bar.finish_and_clear();
        if let Ok(mut current) = self.ui.bar.lock() {
            *current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_terminal_a_line_is_written_now_and_then() {
        let seen = Arc::new(Seen::new());
        *seen.step.lock().unwrap() = "reading \u{1b}[2Jpods\nand more".to_owned();
        seen.expected.store(4000, Ordering::Relaxed);
        seen.objects.store(1200, Ordering::Relaxed);
        seen.bytes.store(2 << 20, Ordering::Relaxed);
        let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
        let every = Duration::from_millis(1);
        let ticker = tokio::spawn(write_lines(seen, every, move |line| {
            sender.send(line).unwrap();
        }));
        for _ in 0..2 {
            let line = lines.recv().await.unwrap();
            assert!(
                line.starts_with("reading [2Jpods and more: 1,200 of 4,000 objects, 2.0 MiB ("),
                "{line:?}"
            );
            assert!(line.ends_with("s)\n"), "{line:?}");
        }
        ticker.abort();
    }
}
