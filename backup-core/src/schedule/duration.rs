//! Durations as Go writes them (`time.ParseDuration`): `20m`, `1h30m`, `1.5h`. Pure.

/// The longest interval between two snapshots: what reaches beyond it is a mistake.
const LONGEST: u128 = 10 * 366 * 86_400;

const NANOS: u128 = 1_000_000_000;

/// Units of Go and their length in nanoseconds; the longer spelling first.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS),
    ("m", 60 * NANOS),
    ("h", 3600 * NANOS),
];

/// Whole seconds of a duration; below one second it is one, as robfig's `Every` has it.
///
/// # Errors
/// In words: what does not parse, nothing or less, more than ten years.
pub(super) fn seconds(text: &str) -> Result<i64, String> {
    let nanos =
        parse(text).ok_or_else(|| format!("{text:?} is no duration such as 20m or 1h30m"))?;
    if nanos == 0 {
        return Err("the interval is zero".to_owned());
    }
    let seconds = (nanos / NANOS).max(1);
    if seconds > LONGEST {
        return Err("the interval is longer than ten years".to_owned());
    }
    i64::try_from(seconds).map_err(|e| e.to_string())
}

fn parse(text: &str) -> Option<u128> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        // `m` is also the beginning of `ms`.
        let (name, unit) = UNITS
            .iter()
            .filter(|(name, _)| after.starts_with(name))
            .max_by_key(|(name, _)| name.len())?;
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(*unit)?)?;
        // Digits beyond the nanosecond of an hour tell nothing.
        let fraction = &fraction[..fraction.len().min(15)];
        if !fraction.is_empty() {
            let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
            total = total.checked_add(fraction.parse::<u128>().ok()? * unit / scale)?;
        }
        rest = &after[name.len()..];
    }
    Some(total)
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, want) in [
            ("20m", 1200),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("+90s", 90),
            ("1h0m0s", 3600),
            (".5m", 30),
            ("1.m", 60),
            ("1500ms", 1),
            ("1ns", 1),
            ("999\u{b5}s", 1),
            ("999\u{3bc}s", 1),
            ("0.0000000000000000000000001h1h", 3600),
        ] {
            assert_eq!(seconds(text).as_ref(), Ok(&want), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_and_never_panics() {
        for text in [
            "",
            "0",
            "0s",
            "-5m",
            "5",
            "m",
            ".m",
            "1d",
            "5 m",
            "1h 30m",
            "99999999999999999999999999999999999999999h",
            "100000h100000h",
            "9223372036854775807h",
            "1\u{e9}",
            "+",
            "++1s",
        ] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,40}") {
            let _ = seconds(&text);
        }

        #[test]
        fn hours_minutes_and_seconds_add_up(h in 0_i64..1000, m in 0_i64..1000, s in 1_i64..1000) {
            proptest::prop_assert_eq!(seconds(&format!("{h}h{m}m{s}s")), Ok(h * 3600 + m * 60 + s));
        }
    }
}
