//! How long a store keeps a member waiting: the time in which no byte came, over all tries, since more came than ever before. A download that goes
//! on is never measured, however long it takes. By the clock of who waits.

use std::time::{Duration, Instant};

use crate::run::records::Attempt;

/// The waits of one decision.
pub(super) struct Waits {
    decision: (String, i64),
    /// The most bytes that a try has brought.
    furthest: u64,
    waited: Duration,
    /// When the last try ended, or the first began.
    since: Instant,
}

impl Waits {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            decision: (String::new(), 0),
            furthest: 0,
            waited: Duration::ZERO,
            since: Instant::now(),
        }
    }

    /// A try begins; the first one of a decision begins anew.
    pub(super) fn begin(&mut self, attempt: &Attempt) {
        if (&self.decision.0, self.decision.1) != (&attempt.id, attempt.sequence) {
            *self = Self {
                decision: (attempt.id.clone(), attempt.sequence),
                ..Self::new()
            };
        }
    }

    /// A try failed, after so many bytes, the last of which came then: how long nothing came.
    pub(super) fn failed(&mut self, bytes: u64, last: Option<Instant>, now: Instant) -> Duration {
        let came = last.filter(|last| *last > self.since);
        if came.is_some() && bytes > self.furthest {
            self.furthest = bytes;
            self.waited = Duration::ZERO;
        }
        self.waited += now.saturating_duration_since(came.unwrap_or(self.since));
        self.since = now;
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_nothing_comes_is_counted_and_coming_further_than_ever_begins_anew() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let begun = || Waits {
            since: start,
            ..Waits::new()
        };
        let seconds = Duration::from_secs;
        // Each try brings the same few bytes at once, and no more.
        let mut stuck = begun();
        assert_eq!(stuck.failed(5, Some(at(1)), at(61)), seconds(60));
        assert_eq!(stuck.failed(5, Some(at(62)), at(122)), seconds(120));
        assert_eq!(
            stuck.failed(0, Some(at(62)), at(182)),
            seconds(180),
            "an old byte"
        );
        // One that comes on for an hour, is cut off, and comes as far again.
        let mut slow = begun();
        assert_eq!(slow.failed(9000, Some(at(3600)), at(3660)), seconds(60));
        assert_eq!(slow.failed(8000, Some(at(7200)), at(7260)), seconds(120));
        assert_eq!(slow.failed(9001, Some(at(9000)), at(9060)), seconds(60));
    }

    #[test]
    fn another_decision_begins_anew_and_another_try_does_not() {
        let attempt = |sequence| Attempt {
            id: "a".into(),
            sequence,
            ..Attempt::default()
        };
        let mut waits = Waits::new();
        waits.begin(&attempt(1));
        let now = waits.since + Duration::from_secs(60);
        waits.failed(0, None, now);
        waits.begin(&attempt(1));
        assert_eq!(waits.failed(0, None, now), Duration::from_secs(60));
        waits.begin(&attempt(2));
        assert!(waits.failed(0, None, waits.since) < Duration::from_secs(60));
    }
}
