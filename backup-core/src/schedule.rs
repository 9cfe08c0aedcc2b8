//! When a snapshot is due: five cron fields as KKP reads them, `@daily` and the like, `@every 20m`, each in a time zone. Pure: the time
//! is always an argument, and nothing here sleeps or knows who asks.
//!
//! Daylight saving: a schedule of one time a day that falls into the skipped hour runs right after it, and in the repeated hour it runs
//! once; schedules of several times a day follow the wall clock, so that they pass over the skipped hour and run twice in the repeated one.

mod duration;
mod fields;
mod rhythm;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr as _;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::error::{Error, Result};

pub use rhythm::{MOST as MOST_EVERY, Past};

/// No schedule is longer, in bytes; the CRD says the same.
pub const LONGEST: usize = 256;

/// The schedules that people ask for by a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// At midnight.
    Daily,
    /// At midnight between Saturday and Sunday.
    Weekly,
    /// At midnight before the first of the month.
    Monthly,
}

impl Preset {
    /// The schedule as an object's field has it.
    pub fn schedule(self) -> &'static str {
        match self {
            Self::Daily => "@daily",
            Self::Weekly => "@weekly",
            Self::Monthly => "@monthly",
        }
    }
}

/// A schedule that was understood.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    zone: TimeZone,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    /// So many whole seconds apart, counted from the anchor.
    Every(i64),
    Cron(Box<Cron>),
}

impl Schedule {
    /// Reads a schedule as robfig's `ParseStandard` does, which KKP uses: `0 1 * * *`, `@weekly`, `@every 1h30m`, before it
    /// `CRON_TZ=Europe/Berlin ` or `TZ=..`. `time_zone` is the object's `timeZone`; without either it is UTC.
    ///
    /// # Errors
    /// `Invalid`: what does not parse, a date that never comes, an unknown time zone, a time zone said twice.
    pub fn parse(text: &str, time_zone: Option<&str>) -> Result<Self> {
        let bad = |why: String| {
            Error::invalid(format!("schedule {text:?} can not be meant: {why}")).hint(
                "write five cron fields such as '0 1 * * *', one of @hourly, @daily, @weekly, @monthly, @yearly, or '@every 20m'",
            )
        };
        if text.len() > LONGEST {
            return Err(Error::invalid(format!(
                "a schedule is at most {LONGEST} characters long, this one has {}",
                text.len()
            )));
        }
        let (prefix, spec) = split_zone(text).map_err(bad)?;
        let time_zone = time_zone.filter(|name| !name.is_empty());
        if let (Some(one), Some(other)) = (prefix, time_zone) {
            return Err(bad(format!(
                "it names the time zone {one:?}, and timeZone is {other:?}"
            ))
            .hint("name the time zone in one place only"));
        }
        let zone = zone(prefix.or(time_zone).unwrap_or("UTC"))?;
        let rule = if let Some(interval) = spec.strip_prefix("@every ") {
            Rule::Every(duration::seconds(interval.trim()).map_err(bad)?)
        } else {
            let fields = match spec {
                "" => return Err(bad("it is empty".to_owned())),
                "@yearly" | "@annually" => "0 0 1 1 *",
                "@monthly" => "0 0 1 * *",
                "@weekly" => "0 0 * * 0",
                "@daily" | "@midnight" => "0 0 * * *",
                "@hourly" => "0 * * * *",
                word if word.starts_with('@') => {
                    return Err(bad(format!("{word:?} is no schedule that is known")));
                }
                fields => fields,
            };
            let pattern = fields::canonical(fields).map_err(bad)?;
            let cron = Cron::from_str(&pattern).map_err(|e| bad(e.to_string()))?;
            Rule::Cron(Box::new(cron))
        };
        Ok(Self {
            text: text.trim().to_owned(),
            zone,
            rule,
        })
    }

    /// The schedule as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The newest slot after `anchor` that is not after `now`: slots that were missed collapse into it. `anchor` is what
    /// [`anchor`] gives.
    pub fn due(&self, anchor: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if anchor >= now {
            return None;
        }
        let slot = match &self.rule {
            Rule::Every(seconds) => {
                let passed = now.as_second() - anchor.as_second();
                at(anchor.as_second() + passed / seconds * seconds)?
            }
            Rule::Cron(cron) => {
                let now = Zoned::new(now, self.zone.clone());
                cron.find_previous_occurrence(&now, true).ok()?.timestamp()
            }
        };
        (slot > anchor && slot <= now).then_some(slot)
    }

    /// The first slot after `now`, for `@every` counted from `anchor`; nothing where the calendar ends before.
    pub fn next(&self, anchor: Timestamp, now: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(seconds) => {
                let passed = now.as_second() - anchor.as_second();
                let slots = passed.div_euclid(*seconds).checked_add(1)?;
                at(anchor
                    .as_second()
                    .checked_add(slots.checked_mul(*seconds)?)?)
            }
            Rule::Cron(cron) => {
                let now = Zoned::new(now, self.zone.clone());
                let next = cron.find_next_occurrence(&now, false).ok()?;
                Some(next.timestamp())
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where slots are counted from: the newest slot taken, else the object's creation. A slot in the future was taken by a clock
/// that was wrong; it may not hold up snapshots until then, so it does not count.
pub fn anchor(
    created: Timestamp,
    taken: impl IntoIterator<Item = Timestamp>,
    now: Timestamp,
) -> Timestamp {
    taken
        .into_iter()
        .filter(|slot| *slot <= now)
        .fold(created, Timestamp::max)
}

fn at(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

/// The time zone that stands before the schedule, and the rest.
fn split_zone(text: &str) -> Result<(Option<&str>, &str), String> {
    let text = text.trim();
    let named = text
        .strip_prefix("CRON_TZ=")
        .or_else(|| text.strip_prefix("TZ="));
    match named.map(|named| named.split_once(char::is_whitespace)) {
        None => Ok((None, text)),
        Some(Some((zone, spec))) if !zone.is_empty() => Ok((Some(zone), spec.trim())),
        Some(_) => Err("nothing follows the time zone".to_owned()),
    }
}

fn zone(name: &str) -> Result<TimeZone> {
    // What a machine calls local, another one does not.
    let known = (!name.eq_ignore_ascii_case("local"))
        .then(|| TimeZone::get(name).ok())
        .flatten();
    known.ok_or_else(|| {
        Error::invalid(format!("time zone {name:?} is not known"))
            .hint("write it as the time zone database does, such as Europe/Berlin or UTC")
    })
}
