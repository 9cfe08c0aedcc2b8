//! What a launcher has seen of an attempt, and when, by its own clock: stall and silence are measured here and nowhere else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::run::decide::Watched;
use crate::run::records::{Attempt, Report};

/// What this launcher has seen of an attempt, and when, by its own clock.
#[derive(Default)]
pub(crate) struct Seen {
    pub(super) attempt: String,
    pub(super) since: Option<Instant>,
    pub(super) sequence: i64,
    pub(super) rows: BTreeMap<String, (Report, Instant)>,
    pub(super) moved: Option<Instant>,
    pub(super) stepped: Option<Instant>,
    pub(super) watched: Watched,
    pub(super) told: String,
}

impl Seen {
    pub(super) fn look(&mut self, attempt: &Attempt, reports: &BTreeMap<String, Report>) {
        let now = Instant::now();
        if self.attempt != attempt.id {
            *self = Self {
                attempt: attempt.id.clone(),
                since: Some(now),
                told: std::mem::take(&mut self.told),
                ..Self::default()
            };
        }
        if self.sequence != attempt.sequence || self.stepped.is_none() {
            self.sequence = attempt.sequence;
            self.moved = Some(now);
            self.stepped = Some(now);
            self.watched = Watched::Unknown;
        }
        for (name, row) in reports {
            if row.attempt != attempt.id {
                continue;
            }
            match self.rows.get_mut(name) {
                Some((known, at)) if known == row => {
                    let _ = at;
                }
                Some((known, at)) => {
                    let without_time = |row: &Report| Report {
                        at: String::new(),
                        ..row.clone()
                    };
                    if without_time(known) != without_time(row) {
                        self.moved = Some(now);
                    }
                    *known = row.clone();
                    *at = now;
                }
                None => {
                    self.moved = Some(now);
                    self.rows.insert(name.clone(), (row.clone(), now));
                }
            }
        }
    }

    pub(super) fn silent(&self) -> BTreeMap<String, Duration> {
        let rows = self.rows.iter();
        rows.map(|(name, (_, at))| (name.clone(), at.elapsed()))
            .collect()
    }
}

/// How long ago; nothing is no time.
pub(super) fn since(at: Option<Instant>) -> Duration {
    at.map_or(Duration::ZERO, |at| at.elapsed())
}
