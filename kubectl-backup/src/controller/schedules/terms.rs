//! What a Schedule asks for, once it was understood, and until when no slot of it is due: the calendar is not asked again before. Pure.

use backup_core::api::Schedule;
use backup_core::filter::{Filter, one_selector};
use backup_core::name::Name;
use backup_core::schedule::{Past, Schedule as Times};
use jiff::Timestamp;
use serde_json::Value;

use crate::controller::objects::{bounded, decode};

/// It is the value of a label of its backups, as it is.
const LONGEST_NAME: usize = 63;

/// A schedule that can be followed.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(super) schedule: Schedule,
    times: Times,
    every: u32,
    quiet: Option<Quiet>,
}

/// With this past, no slot is due from the one time to before the other.
#[derive(Clone, Debug)]
struct Quiet {
    past: Past,
    from: Timestamp,
    until: Timestamp,
}

impl Terms {
    /// What an object asks for.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn of(object: &Value) -> Result<Self, Vec<String>> {
        let schedule: Schedule = decode(object).map_err(|why| vec![why])?;
        let mut wrong = Vec::new();
        let said = |e: backup_core::Error| bounded(&e.sentence());
        let times = schedule.times().map_err(said);
        let every = schedule.every().map_err(said);
        let template = &schedule.spec.template;
        wrong.extend(
            times
                .as_ref()
                .err()
                .map(|why| format!("invalid schedule: {why}")),
        );
        wrong.extend(every.as_ref().err().cloned());
        wrong.extend(schedule.keep().err().map(said));
        wrong.extend(Filter::of(template).validate().err().map(said));
        let (all, any) = (&template.label_selector, &template.or_label_selectors);
        wrong.extend(one_selector(all.as_ref(), any).err().map(said));
        wrong.extend(template.policies().err().map(said));
        if schedule.metadata.name.len() > LONGEST_NAME {
            wrong.push(format!(
                "its backups can not be named: the schedule's name is longer than {LONGEST_NAME} characters"
            ));
        }
        wrong.extend(Name::foreign(&schedule.metadata.name).err().map(said));
        match (times, every) {
            (Ok(times), Ok(every)) if wrong.is_empty() => Ok(Self {
                schedule,
                times,
                every,
                quiet: None,
            }),
            _ => Err(wrong),
        }
    }

    /// The newest slot that is due and was not taken.
    pub(super) fn due(&mut self, past: Past, now: Timestamp) -> Option<Timestamp> {
        let is_quiet =
            |quiet: &Quiet| quiet.past == past && (quiet.from..quiet.until).contains(&now);
        if self.quiet.as_ref().is_some_and(is_quiet) {
            return None;
        }
        let due = self.times.due_of(self.every, &past, now);
        let next = || self.times.next_of(self.every, &past, now);
        self.quiet = due.is_none().then(|| Quiet {
            past,
            from: now,
            until: next().unwrap_or(Timestamp::MAX),
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}Z").parse().unwrap()
    }

    #[test]
    fn what_is_remembered_changes_no_answer() {
        for (schedule, every) in [
            ("0 * * * *", 1),
            ("@every 50m", 1),
            ("@every 7m", 3),
            ("CRON_TZ=Europe/Berlin 30 2 * * *", 1),
            ("@daily", 2),
        ] {
            let object = json!({"metadata": {"name": "s", "annotations": {"kubectl-backup/every": every.to_string()}},
                "spec": {"schedule": schedule}});
            let mut remembers = Terms::of(&object).unwrap();
            let mut past = Past {
                created: at("21T00:10:00"),
                taken: None,
                skipped: None,
            };
            let mut now = at("21T00:00:00");
            let mut taken = 0;
            while now < at("25T00:00:00") {
                let due = remembers.due(past, now);
                assert_eq!(due, Terms::of(&object).unwrap().due(past, now), "{now}");
                // As it is in life: most looks find nothing, some clocks are set back, and what is due is taken.
                if now.as_second() % 7 == 0 && due.is_some() {
                    past.taken = due;
                    taken += 1;
                }
                let back = now.as_second() % 11 == 0;
                let step = if back { -900 } else { 421 };
                now = Timestamp::from_second(now.as_second() + step).unwrap();
            }
            assert!(taken > 0, "{schedule}");
        }
    }
}
