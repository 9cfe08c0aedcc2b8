//! Shell patterns over names: `*`, `?`, `[a-z]`, `[!a-z]`. Names hold no separators, so `*` matches everything.

use crate::error::{Error, Result};

/// Whether it is more than a plain name.
pub(super) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// Refuses a pattern that matches nothing because it is not finished.
pub(super) fn check(pattern: &str) -> Result<()> {
    let mut rest = pattern.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'[' {
            let Some((_, after)) = class(rest, b'a') else {
                return Err(Error::invalid(format!(
                    "the pattern {pattern:?} has a '[' that is not closed"
                )));
            };
            rest = after;
        }
    }
    Ok(())
}

/// Whether the whole text matches. Linear in pattern times text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // Where to go on when the last `*` has to take one byte more.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern.split_first(), text.split_first()) {
            (None, None) => return true,
            (Some((b'*', after)), _) => {
                star = Some((after, text));
                Some((after, text))
            }
            (Some((b'?', after)), Some((_, rest))) => Some((after, rest)),
            (Some((b'[', after)), Some((byte, rest))) => class(after, *byte)
                .filter(|(inside, _)| *inside)
                .map(|(_, after)| (after, rest)),
            (Some((one, after)), Some((byte, rest))) if one == byte => Some((after, rest)),
            _ => None,
        };
        match (step, star) {
            (Some(next), _) => (pattern, text) = next,
            (None, Some((after, at))) => {
                let Some((_, rest)) = at.split_first() else {
                    return false;
                };
                star = Some((after, rest));
                (pattern, text) = (after, rest);
            }
            (None, None) => return false,
        }
    }
}

/// Reads a class whose `[` was taken already: whether the byte is in it, and what follows. Nothing when it is not closed.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'!' | b'^', tail @ ..] => (true, tail),
        tail => (false, tail),
    };
    let mut inside = false;
    let mut first = true;
    loop {
        match rest {
            [b']', tail @ ..] if !first => return Some((inside != negated, tail)),
            [low, b'-', high, tail @ ..] if *high != b']' => {
                inside |= (*low..=*high).contains(&byte);
                rest = tail;
            }
            [one, tail @ ..] => {
                inside |= *one == byte;
                rest = tail;
            }
            [] => return None,
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("prod-*", "prod-eu", true),
            ("prod-*", "preprod-eu", false),
            ("*-eu", "prod-eu", true),
            ("a*b*c", "aXbXbYc", true),
            ("a*b*c", "aXbXbY", false),
            ("ns-?", "ns-1", true),
            ("ns-?", "ns-10", false),
            ("ns-[0-4]", "ns-3", true),
            ("ns-[!0-4]", "ns-3", false),
            ("ns-[ab]x", "ns-bx", true),
            ("plain", "plain", true),
            ("plain", "plainer", false),
            ("[", "[", false),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
        assert!(check("ns-[0-4").is_err());
        assert!(check("ns-[0-4]*").is_ok());
    }
}
