//! The five fields of cron as robfig's `ParseStandard` reads them, written anew for the evaluator, which reads some of them
//! otherwise: it takes 7 as Sunday, knows L, W and #, and refuses `5/15`. Pure.

/// A field: what it is called, its bounds, its names.
struct Field {
    title: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        title: "minute",
        least: 0,
        most: 59,
        names: &[],
    },
    Field {
        title: "hour",
        least: 0,
        most: 23,
        names: &[],
    },
    Field {
        title: "day of month",
        least: 1,
        most: 31,
        names: &[],
    },
    Field {
        title: "month",
        least: 1,
        most: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Field {
        title: "day of week",
        least: 0,
        most: 6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

/// What a field allows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    /// A bit per value.
    bits: u64,
    /// `*`, `?` or `*/1` is in it: with two days of which one is such a star both must match, else either.
    star: bool,
    /// It is `*/n` alone: such schedules follow the wall clock.
    step: Option<u32>,
}

impl Allowed {
    fn has(&self, value: u32) -> bool {
        self.bits >> value & 1 == 1
    }

    fn written(&self, field: &Field) -> String {
        match (self.star, self.step) {
            (true, _) => "*".to_owned(),
            (false, Some(step)) if field.names.is_empty() && field.least == 0 => {
                format!("*/{step}")
            }
            _ => {
                let values = (field.least..=field.most).filter(|value| self.has(*value));
                let values: Vec<_> = values.map(|value| value.to_string()).collect();
                values.join(",")
            }
        }
    }
}

/// The same schedule in words that every reader of cron takes alike.
///
/// # Errors
/// In words: what does not parse, and a date that never comes.
pub(super) fn canonical(text: &str) -> Result<String, String> {
    let parts: Vec<_> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!(
            "cron has five fields (minute, hour, day of month, month, day of week), this has {}",
            parts.len()
        ));
    }
    let mut fields = Vec::with_capacity(FIELDS.len());
    for (part, field) in parts.iter().zip(&FIELDS) {
        fields.push(allowed(part, field).map_err(|why| format!("{} {part:?} {why}", field.title))?);
    }
    let [_, _, day, month, weekday] = &fields[..] else {
        return Err("cron has five fields".to_owned());
    };
    // With a weekday that is no star a day comes anyway: either is enough.
    let comes = !day.star && !weekday.star
        || (1..=12).any(|m| month.has(m) && (1..=longest(m)).any(|d| day.has(d)));
    if !comes {
        return Err("that day never comes".to_owned());
    }
    let written: Vec<_> = fields
        .iter()
        .zip(&FIELDS)
        .map(|(allowed, field)| allowed.written(field))
        .collect();
    Ok(written.join(" "))
}

fn longest(month: u32) -> u32 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn allowed(text: &str, field: &Field) -> Result<Allowed, String> {
    let mut all = Allowed {
        bits: 0,
        star: false,
        step: None,
    };
    let alone = !text.contains(',');
    for range in text.split(',') {
        let (values, step) = match range.split_once('/') {
            None => (range, 1),
            Some((values, step)) => (values, number(step).ok_or("has a step that is no number")?),
        };
        if step == 0 {
            return Err("has a step of zero".to_owned());
        }
        let any = matches!(values, "*" | "?");
        let (from, to) = match values.split_once('-') {
            _ if any => (field.least, field.most),
            Some((from, to)) => (value(from, field)?, value(to, field)?),
            // `5/15` is `5-59/15`.
            None if range.contains('/') => (value(values, field)?, field.most),
            None => (value(values, field)?, value(values, field)?),
        };
        if from > to {
            return Err(format!("goes backwards: {from} is more than {to}"));
        }
        all.star |= any && step == 1;
        all.step = (any && alone && step > 1).then_some(step);
        let mut next = from;
        while next <= to {
            all.bits |= 1 << next;
            next = next.saturating_add(step);
        }
    }
    Ok(all)
}

fn value(text: &str, field: &Field) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    let named = field.names.iter().position(|name| *name == lower);
    let found = match named.and_then(|index| u32::try_from(index).ok()) {
        Some(index) => index + field.least,
        None => number(text).ok_or_else(|| format!("has {text:?}, which is no number"))?,
    };
    if !(field.least..=field.most).contains(&found) {
        let sunday = if field.title == "day of week" && found == 7 {
            "; Sunday is 0"
        } else {
            ""
        };
        return Err(format!(
            "is not between {} and {}{sunday}",
            field.least, field.most
        ));
    }
    Ok(found)
}

fn number(text: &str) -> Option<u32> {
    // A sign would parse, too.
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_anew_without_a_change_of_meaning() {
        for (text, want) in [
            ("0 1 * * *", "0 1 * * *"),
            ("*/15 ? ? * ?", "*/15 * * * *"),
            (
                "5/15 0-23/6 1,15 JAN-Mar mon-FRI",
                "5,20,35,50 0,6,12,18 1,15 1,2,3 1,2,3,4,5",
            ),
            (
                "0 0 */2 * sun",
                "0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * 0",
            ),
            ("0 0 */1 */1 */1", "0 0 * * *"),
            ("0 0 *,3 * 1-5/2", "0 0 * * 1,3,5"),
            ("*/90 * * * *", "*/90 * * * *"),
            ("07 08 09 10 *", "7 8 9 10 *"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_robfigs_parser_refuses_is_refused() {
        for text in [
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "1-2-3 * * * *",
            "1/2/3 * * * *",
            "-1 * * * *",
            "+1 * * * *",
            "a * * * *",
            "* * L * *",
            "* * 15W * *",
            "* * * * 5#2",
            "* * * * monday",
            "1,, * * * *",
            "99999999999999999999 * * * *",
        ] {
            assert!(canonical(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_day_that_never_comes_is_refused_and_a_rare_one_is_not() {
        assert!(canonical("0 0 30 2 *").is_err());
        assert!(canonical("0 0 31 4,6,9,11 ?").is_err());
        assert!(canonical("0 0 29 2 *").is_ok());
        assert!(canonical("0 0 30 2 1").is_ok(), "or on Mondays");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in "[-0-9a-zA-Z*?/, #@+]{0,60}") {
            let _ = canonical(&text);
        }
    }
}
