//! Every N-th slot of a schedule: "every two weeks" is a weekly schedule of which each second slot counts. Pure.
//!
//! Which slots count follows from what is noted of the past, and from nothing that a restart would lose: the N-th after the newest one that was taken, and
//! so on from there; before any was taken, the first one after the creation and each N-th after it. A slot that was missed is caught up when there is
//! somebody to do so, and those that follow do not move.

use jiff::Timestamp;

use super::{Schedule, anchor};

/// No schedule leaves out more.
pub const MOST: u32 = 12;

/// Slots that are counted one by one; of a past that is longer, the newest slot counts.
const LONGEST: usize = 1000;

/// What is noted of a schedule's past. What is noted in the future was noted by a clock that was wrong, and does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// When it came to be.
    pub created: Timestamp,
    /// The newest slot that was taken.
    pub taken: Option<Timestamp>,
    /// Slots until then are passed over.
    pub skipped: Option<Timestamp>,
}

impl Past {
    fn newest(&self, now: Timestamp) -> Timestamp {
        anchor(
            self.created,
            self.taken.into_iter().chain(self.skipped),
            now,
        )
    }
}

impl Schedule {
    /// The newest slot that counts, is due and was not taken; of every slot each `every`-th counts.
    pub fn due_of(&self, every: u32, past: &Past, now: Timestamp) -> Option<Timestamp> {
        let newest = past.newest(now);
        if every <= 1 {
            return self.due(newest, now);
        }
        let due: Vec<_> = self
            .counted(every, past, now)
            .take(LONGEST)
            .take_while(|slot| *slot <= now)
            .collect();
        if due.len() == LONGEST {
            return self.due(newest, now);
        }
        due.last().copied().filter(|slot| *slot > newest)
    }

    /// The first slot after `now` that counts; nothing where the calendar ends before.
    pub fn next_of(&self, every: u32, past: &Past, now: Timestamp) -> Option<Timestamp> {
        let next = || self.next(past.newest(now), now);
        if every <= 1 {
            return next();
        }
        let mut counted = self.counted(every, past, now).take(LONGEST);
        counted.find(|slot| *slot > now).or_else(next)
    }

    fn counted(
        &self,
        every: u32,
        past: &Past,
        now: Timestamp,
    ) -> impl Iterator<Item = Timestamp> + use<'_> {
        let first = match past.taken.filter(|taken| *taken <= now) {
            Some(taken) => self.after(taken, every),
            None => self.next(past.created, past.created),
        };
        std::iter::successors(first, move |slot| self.after(*slot, every))
    }

    /// The `every`-th slot after this one.
    fn after(&self, slot: Timestamp, every: u32) -> Option<Timestamp> {
        (0..every).try_fold(slot, |slot, _| self.next(slot, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("{text}:00Z").parse().unwrap()
    }

    fn weekly() -> Schedule {
        Schedule::parse("@weekly", None).unwrap()
    }

    fn past(taken: Option<&str>) -> Past {
        Past {
            // A Wednesday.
            created: at("2026-11-18T10:00"),
            taken: taken.map(at),
            skipped: None,
        }
    }

    /// What is taken when somebody looks at these times.
    fn taken(looks: &[&str]) -> Vec<Option<String>> {
        let mut past = past(None);
        let mut took = Vec::new();
        for look in looks {
            let due = weekly().due_of(2, &past, at(look));
            past.taken = due.or(past.taken);
            took.push(due.map(|due| due.strftime("%m-%d").to_string()));
        }
        took
    }

    #[test]
    fn the_first_sunday_and_each_second_one_after_it_counts_whenever_somebody_looks() {
        let some = |day: &str| Some(day.to_owned());
        // Sundays are 22 and 29 November, 6, 13, 20 and 27 December.
        assert_eq!(
            taken(&[
                "2026-11-21T23:59",
                "2026-11-22T00:00",
                "2026-11-22T00:01",
                "2026-11-29T12:00",
                "2026-12-06T00:00",
                "2026-12-13T01:00",
                "2026-12-20T00:00"
            ]),
            [
                None,
                some("11-22"),
                None,
                None,
                some("12-06"),
                None,
                some("12-20")
            ]
        );
        // Nobody looked at the 6th: it is caught up, and the next one is the 20th all the same.
        assert_eq!(
            taken(&[
                "2026-11-22T00:00",
                "2026-12-15T00:00",
                "2026-12-19T00:00",
                "2026-12-20T00:00"
            ]),
            [some("11-22"), some("12-06"), None, some("12-20")]
        );
        // Of several that were missed the newest one that counts is taken.
        assert_eq!(taken(&["2026-12-28T00:00"]), [some("12-20")]);
    }

    #[test]
    fn the_next_one_is_told_and_the_future_and_what_was_skipped_do_not_count() {
        let next = |past: &Past, now: &str| weekly().next_of(2, past, at(now)).unwrap();
        assert_eq!(
            next(&past(None), "2026-11-18T11:00"),
            at("2026-11-22T00:00")
        );
        let once = past(Some("2026-11-22T00:00"));
        assert_eq!(next(&once, "2026-11-25T00:00"), at("2026-12-06T00:00"));
        assert_eq!(
            weekly().next_of(1, &once, at("2026-11-25T00:00")),
            Some(at("2026-11-29T00:00"))
        );
        let wrong = past(Some("2030-01-06T00:00"));
        assert_eq!(next(&wrong, "2026-11-20T00:00"), at("2026-11-22T00:00"));
        let skipped = Past {
            skipped: Some(at("2026-11-22T08:00")),
            ..past(None)
        };
        assert_eq!(weekly().due_of(2, &skipped, at("2026-11-22T09:00")), None);
        assert_eq!(
            weekly().due_of(2, &skipped, at("2026-12-06T00:00")),
            Some(at("2026-12-06T00:00"))
        );
        assert_eq!(
            weekly().due_of(1, &skipped, at("2026-11-29T00:00")),
            Some(at("2026-11-29T00:00"))
        );
    }

    #[test]
    fn a_past_that_is_too_long_to_count_ends_with_the_newest_slot() {
        let hourly = Schedule::parse("@hourly", None).unwrap();
        let due = hourly.due_of(2, &past(None), at("2027-11-18T10:30"));
        assert_eq!(due, Some(at("2027-11-18T10:00")));
    }
}
