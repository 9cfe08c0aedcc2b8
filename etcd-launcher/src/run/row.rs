//! A member's own row in the restore's status: kept here, written by a task of its own, so that a long act does not look like silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backup_core::progress::Progress;
use jiff::Timestamp;
use tokio::sync::watch;

use super::hosting::{Hosting, Written};
use super::memory::RestoreRef;
use super::pace::Pace;
use super::records::{Attempt, Report, Started, State};
use crate::health::Health;

/// A row that does not change is written again after this, so that others see this launcher alive.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Progress is told no more often than this.
const SELDOM: Duration = Duration::from_secs(2);

/// The row, and whose restore it is in.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    restore: RestoreRef,
    report: Report,
}

/// Keeps the row.
#[derive(Clone)]
pub(crate) struct Rows {
    me: Arc<str>,
    row: Arc<watch::Sender<Option<Row>>>,
    health: Health,
    bytes: Arc<AtomicU64>,
    last_byte: Arc<std::sync::Mutex<Option<Instant>>>,
    heartbeat: Duration,
}

impl Rows {
    /// No row yet.
    pub(crate) fn new(me: &str, health: Health, pace: Pace) -> Self {
        let (row, _) = watch::channel(None);
        Self {
            me: me.into(),
            row: Arc::new(row),
            health,
            bytes: Arc::default(),
            last_byte: Arc::default(),
            heartbeat: pace.of(HEARTBEAT),
        }
    }

    /// Goes on to a decision: the row begins anew where the sequence is another, and keeps what was found before.
    pub(crate) fn at(&self, restore: &RestoreRef, attempt: &Attempt, pod_uid: &str) {
        self.row.send_if_modified(|row| {
            let same = row.as_ref().is_some_and(|row| {
                row.restore == *restore
                    && row.report.attempt == attempt.id
                    && row.report.sequence == attempt.sequence
            });
            if same {
                return false;
            }
            let kept = row
                .take()
                .filter(|row| row.restore == *restore && row.report.attempt == attempt.id)
                .map(|row| row.report)
                .unwrap_or_default();
            *row = Some(Row {
                restore: restore.clone(),
                report: Report {
                    attempt: attempt.id.clone(),
                    pod_uid: pod_uid.to_owned(),
                    sequence: attempt.sequence,
                    state: State::Working,
                    message: String::new(),
                    started: None,
                    offline: None,
                    ..kept
                },
            });
            true
        });
    }

    /// Changes the row.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Report)) {
        self.row.send_if_modified(|row| {
            let Some(row) = row else { return false };
            let before = row.report.clone();
            change(&mut row.report);
            row.report != before
        });
        if let Some(row) = &*self.row.borrow() {
            let message = row.report.message.clone();
            self.health.tell(|health| {
                if !message.is_empty() {
                    health.message = message;
                }
            });
        }
    }

    /// Whether the row says what was built.
    pub(crate) fn has_built(&self) -> bool {
        let row = self.row.borrow();
        row.as_ref().is_some_and(|row| row.report.built.is_some())
    }

    /// What the row says of the new state that runs.
    pub(crate) fn started(&self) -> Option<Started> {
        let row = self.row.borrow();
        row.as_ref().and_then(|row| row.report.started.clone())
    }

    /// Whether the row says what is kept.
    pub(crate) fn has_kept(&self) -> bool {
        let row = self.row.borrow();
        row.as_ref().is_some_and(|row| row.report.kept.is_some())
    }

    /// Bytes that the work at hand has brought since its last step, and when the last of them came.
    pub(crate) fn came(&self) -> (u64, Option<Instant>) {
        let last = self.last_byte.lock().ok().and_then(|last| *last);
        (self.bytes.load(Ordering::Relaxed), last)
    }

    /// There is no attempt any more.
    pub(crate) fn clear(&self) {
        self.row.send_if_modified(|row| row.take().is_some());
    }

    /// Writes the row whenever it changes, and every few seconds; never ends.
    pub(crate) async fn keep_written(self, hosting: Hosting) {
        let mut changes = self.row.subscribe();
        loop {
            let row = changes.borrow_and_update().clone();
            let written = match row {
                Some(row) => self.write(&hosting, &row).await,
                None => true,
            };
            let pause = if written {
                self.heartbeat
            } else {
                Duration::from_millis(300)
            };
            let _ = tokio::time::timeout(pause, changes.changed()).await;
        }
    }

    /// Whether it stands now, or never will.
    async fn write(&self, hosting: &Hosting, row: &Row) -> bool {
        let Ok(read) = hosting.restore(&row.restore).await else {
            return false;
        };
        let Some(restore) = read else { return true };
        let mut report = row.report.clone();
        report.at = Timestamp::now().to_string();
        let Ok(value) = serde_json::to_value(&report) else {
            return true;
        };
        let me = self.me.to_string();
        let written = hosting
            .write_status(&restore, |status| {
                let rows = status
                    .entry("reports")
                    .or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
                if let Some(rows) = rows.as_object_mut() {
                    rows.insert(me, value);
                }
            })
            .await;
        matches!(written, Ok(Written::Yes))
    }
}

/// Long work tells the row how far it is.
pub(crate) struct Told {
    rows: Rows,
    now: std::sync::Mutex<Now>,
}

/// The work at hand.
#[derive(Default)]
struct Now {
    step: String,
    /// Bytes it will come to; 0 where nobody said.
    expected: u64,
    told: Option<Instant>,
}

impl Told {
    pub(crate) fn new(rows: Rows) -> Self {
        Self {
            rows,
            now: std::sync::Mutex::default(),
        }
    }

    /// Why a member is unfit stays until that is over: the next look at the same thing does not hide it.
    fn say(&self, text: String) {
        self.rows.tell(|report| {
            if report.state != State::Unfit {
                report.message = text;
            }
        });
    }
}

impl Progress for Told {
    fn step(&self, text: &str) {
        self.rows.bytes.store(0, Ordering::Relaxed);
        if let Ok(mut now) = self.now.lock() {
            *now = Now {
                step: text.to_owned(),
                ..Now::default()
            };
        }
        self.say(text.to_owned());
    }

    fn expect_bytes(&self, bytes: u64) {
        if let Ok(mut now) = self.now.lock() {
            now.expected += bytes;
        }
    }

    fn done(&self, _objects: u64, bytes: u64) {
        let all = self.rows.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if bytes > 0
            && let Ok(mut last) = self.rows.last_byte.lock()
        {
            *last = Some(Instant::now());
        }
        let Ok(mut now) = self.now.lock() else {
            return;
        };
        if now.told.is_some_and(|at| at.elapsed() < SELDOM) {
            return;
        }
        now.told = Some(Instant::now());
        // Each MiB is a change that others see: who waits for this one waits on.
        let text = match (all * 100).checked_div(now.expected) {
            Some(percent) => format!("{}: {} %, {} MiB", now.step, percent.min(100), all >> 20),
            None => format!("{}: {} MiB", now.step, all >> 20),
        };
        drop(now);
        self.say(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_percent_where_its_end_is_known() {
        let health = Health::new("etcd-0");
        let rows = Rows::new("etcd-0", health.clone(), Pace::new(1));
        rows.at(&RestoreRef::default(), &Attempt::default(), "uid");
        let told = Told::new(rows);
        told.step("reading");
        told.expect_bytes(4 << 20);
        told.done(0, 1_803_551);
        assert_eq!(health.report().message, "reading: 43 %, 1 MiB");
        told.step("copying");
        told.done(0, 3 << 20);
        assert_eq!(health.report().message, "copying: 3 MiB");
    }
}
