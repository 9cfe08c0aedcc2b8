//! What a launcher has seen of an attempt, and when, by its own clock: stall and silence are measured here and nowhere else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::run::decide::Watched;
use crate::run::records::{Attempt, Listening, Report, Step};

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
                Some((known, _)) if known == row => {}
                Some((known, at)) => {
                    if progress(attempt.step(), known) != progress(attempt.step(), row) {
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

/// What of a row shows that its member came on. Where etcd is started, it alone tells that it serves: one that dies and is started again, with
/// another message each time, comes no further.
fn progress(step: Step, row: &Report) -> Report {
    let mut row = Report {
        at: String::new(),
        ..row.clone()
    };
    if matches!(step, Step::Starting | Step::Restarting | Step::RollingBack) {
        row.message.clear();
        row.listening = Listening::None;
    }
    row
}

/// How long ago; nothing is no time.
pub(super) fn since(at: Option<Instant>) -> Duration {
    at.map_or(Duration::ZERO, |at| at.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::State;

    #[test]
    fn an_etcd_that_dies_again_and_again_is_no_progress_and_a_member_that_comes_on_is() {
        let row = |message: &str, listening, state| {
            let report = Report {
                attempt: "a".into(),
                sequence: 7,
                message: message.into(),
                listening,
                state,
                ..Report::default()
            };
            BTreeMap::from([("etcd-0".to_owned(), report)])
        };
        let moved = |step: Step, rows: &BTreeMap<String, Report>| {
            let attempt = Attempt {
                id: "a".into(),
                sequence: 7,
                step: Some(step),
                ..Attempt::default()
            };
            let mut seen = Seen::default();
            seen.look(&attempt, &row("starts", Listening::None, State::Working));
            let before = seen.moved;
            seen.look(&attempt, rows);
            seen.moved != before
        };
        let again = row("etcd ended", Listening::Fenced, State::Working);
        assert!(!moved(Step::Starting, &again) && !moved(Step::Restarting, &again));
        // Before that, work tells by its message how far it is.
        assert!(moved(Step::Planned, &again) && moved(Step::Swapping, &again));
        let on = row("starts", Listening::Fenced, State::Started);
        assert!(moved(Step::Starting, &on));
    }
}
