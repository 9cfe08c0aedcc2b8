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
    step: std::sync::Mutex<(String, Option<Instant>)>,
}

impl Told {
    pub(crate) fn new(rows: Rows) -> Self {
        Self {
            rows,
            step: std::sync::Mutex::default(),
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
        if let Ok(mut step) = self.step.lock() {
            *step = (text.to_owned(), None);
        }
        self.say(text.to_owned());
    }

    fn done(&self, _objects: u64, bytes: u64) {
        let all = self.rows.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if bytes > 0
            && let Ok(mut last) = self.rows.last_byte.lock()
        {
            *last = Some(Instant::now());
        }
        let Ok(mut step) = self.step.lock() else {
            return;
        };
        if step.1.is_some_and(|at| at.elapsed() < SELDOM) {
            return;
        }
        step.1 = Some(Instant::now());
        let text = format!("{}: {} MiB", step.0, all >> 20);
        drop(step);
        self.say(text);
    }
}
