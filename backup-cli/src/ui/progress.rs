//! How far the work is: a bar on a terminal once it takes longer than a blink, elsewhere a line now and then.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backup_core::progress::Progress;
use tokio::task::JoinHandle;

use super::Ui;
use crate::output;

/// Work shorter than this draws nothing.
const BLINK: Duration = Duration::from_millis(250);

/// Longer lines are cut: a full line would break where the terminal echoes a key behind it, and a part of it would stay.
const LONGEST: usize = 72;

/// How often the line is drawn anew, and what it begins with each time.
const TICK: Duration = Duration::from_millis(100);
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Takes a line away; draws one that does not break at the terminal's edge.
const CLEAR: &str = "\r\u{1b}[2K";
const NO_WRAP: &str = "\u{1b}[?7l";
const WRAP: &str = "\u{1b}[?7h";

/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// Watches one piece of work, until it is dropped.
pub struct Bar<'a> {
    ui: &'a Ui,
    seen: Arc<Seen>,
    ticker: JoinHandle<()>,
}

/// The last line of the terminal, as far as a bar has it.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Somebody watches a piece of work.
    live: bool,
    /// The bar stands there now.
    drawn: bool,
}

impl Line {
    /// Takes the bar away where it stands; it comes back by itself.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            put(CLEAR);
        }
    }

    fn draw(&mut self, text: &str) {
        if self.live {
            self.drawn = true;
            put(&format!("{CLEAR}{NO_WRAP}{text}{WRAP}"));
        }
    }

    fn end(&mut self) {
        self.live = false;
        self.clear();
    }
}

fn put(text: &str) {
    let mut err = io::stderr().lock();
    // Where standard error is gone there is nobody left to tell.
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
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
        let about = self.about();
        let ticker = match (self.quiet, self.bars) {
            (true, _) => tokio::spawn(async {}),
            (false, true) => tokio::spawn(draw(Arc::clone(&self.last_line), Arc::clone(&seen))),
            (false, false) => tokio::spawn(write_lines(Arc::clone(&seen), LINE, move |line| {
                put(&format!("{about}{line}"));
            })),
        };
        if let Ok(mut line) = self.last_line.lock() {
            line.live = true;
        }
        Bar {
            ui: self,
            seen,
            ticker,
        }
    }

    /// Takes the bar away, for a process that ends in the middle of its work.
    pub fn clear_progress(&self) {
        if let Ok(mut line) = self.last_line.lock() {
            line.end();
        }
    }
}

async fn draw(last: Arc<Mutex<Line>>, seen: Arc<Seen>) {
    tokio::time::sleep(BLINK).await;
    for frame in SPINNER.iter().cycle() {
        let text = super::clean(&seen.line()).replace(['\n', '\t'], " ");
        let text: String = text.chars().take(LONGEST).collect();
        if let Ok(mut line) = last.lock() {
            line.draw(&format!("{frame} {text}"));
        }
        tokio::time::sleep(TICK).await;
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

    fn note(&self, text: &str) {
        self.ui.note(text);
    }

    fn warn(&self, text: &str) {
        self.ui.warn(text);
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.ticker.abort();
        self.ui.clear_progress();
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
