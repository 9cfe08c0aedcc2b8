//! The difference of two JSON objects as a merge patch (RFC 7386), and whether two values mean the same. Pure; values are compared as
//! they are written, so that numbers beyond any machine type count too.

use serde_json::value::RawValue;

use crate::error::Result;
use crate::raw::RawObject;

/// The patch that makes `have` into `want`; empty where they mean the same.
///
/// # Errors
/// `Corrupt`, when a nested value is no JSON.
pub(super) fn diff(have: &RawObject<'_>, want: &RawObject<'_>) -> Result<RawObject<'static>> {
    let mut patch = RawObject::default();
    for (key, _) in have.iter().filter(|(_, value)| *value != "null") {
        if matches!(want.get(key), None | Some("null")) {
            patch.set(key, &serde_json::Value::Null)?;
        }
    }
    for (key, wanted) in want.iter().filter(|(_, value)| *value != "null") {
        let here = have.get(key).filter(|value| *value != "null");
        match here {
            Some(here) if same(here, wanted) => {}
            Some(here) if is_object(here) && is_object(wanted) => {
                patch.set(
                    key,
                    &diff(&RawObject::parse(here)?, &RawObject::parse(wanted)?)?,
                )?;
            }
            _ => patch.set(
                key,
                &serde_json::from_str::<&RawValue>(wanted).map_err(corrupt)?,
            )?,
        }
    }
    Ok(patch)
}

/// Whether a patch only removes.
///
/// # Errors
/// `Corrupt`, when a nested value is no JSON.
pub(super) fn only_removes(patch: &RawObject<'_>) -> Result<bool> {
    for (_, value) in patch.iter().filter(|(_, value)| *value != "null") {
        if !is_object(value) {
            return Ok(false);
        }
        let inner = RawObject::parse(value)?;
        // What is empty was added: `emptyDir: {}`.
        if inner.is_empty() || !only_removes(&inner)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two JSON texts mean the same: key order, spaces and escapes do not count, absent and null are one.
pub(super) fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim(), b.trim());
    if a == b {
        return true;
    }
    match (a.as_bytes().first(), b.as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => {
            let (Ok(a), Ok(b)) = (RawObject::parse(a), RawObject::parse(b)) else {
                return false;
            };
            let within = |x: &RawObject<'_>, y: &RawObject<'_>| {
                x.iter().all(|(key, value)| {
                    value == "null" || y.get(key).is_some_and(|other| same(value, other))
                })
            };
            within(&a, &b) && within(&b, &a)
        }
        (Some(b'['), Some(b'[')) => {
            let (Ok(a), Ok(b)) = (
                serde_json::from_str::<Vec<&RawValue>>(a),
                serde_json::from_str::<Vec<&RawValue>>(b),
            ) else {
                return false;
            };
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same(a.get(), b.get()))
        }
        (Some(b'"'), Some(b'"')) => {
            matches!((serde_json::from_str::<String>(a), serde_json::from_str::<String>(b)),
                (Ok(a), Ok(b)) if a == b)
        }
        // `1e2` and `100`; whole numbers beyond a float's precision are told apart by their digits.
        _ if [a, b].iter().any(|n| n.contains(['.', 'e', 'E'])) => {
            matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
        }
        _ => false,
    }
}

fn is_object(text: &str) -> bool {
    text.starts_with('{')
}

fn corrupt(e: serde_json::Error) -> crate::Error {
    crate::Error::corrupt("not JSON").because(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(have: &str, want: &str) -> String {
        let (have, want) = (
            RawObject::parse(have).unwrap(),
            RawObject::parse(want).unwrap(),
        );
        String::from_utf8(diff(&have, &want).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_patch_that_only_removes_is_known() {
        for (have, want, only) in [
            (r#"{"a":1,"b":{"c":1}}"#, r#"{"b":{}}"#, true),
            (r#"{"a":1,"b":{"c":1}}"#, r#"{"b":{"d":1}}"#, false),
            (r#"{"a":1}"#, r#"{"a":2}"#, false),
            (r#"{"a":[1]}"#, r#"{"a":[]}"#, false),
            (r#"{}"#, r#"{"a":{"b":{}}}"#, false),
        ] {
            let (have, want) = (
                RawObject::parse(have).unwrap(),
                RawObject::parse(want).unwrap(),
            );
            let patch = diff(&have, &want).unwrap();
            assert_eq!(only_removes(&patch).unwrap(), only, "{patch:?}");
        }
    }

    #[test]
    fn a_patch_holds_what_differs_and_nothing_else() {
        for (have, want, expected) in [
            (
                r#"{"a":1,"b":{"c":[1,2]}}"#,
                r#"{"b":{"c":[1, 2]},"a":1}"#,
                "{}",
            ),
            (
                r#"{"a":1,"gone":{"x":1}}"#,
                r#"{"a":2,"new":{"y":"z"}}"#,
                r#"{"gone":null,"a":2,"new":{"y":"z"}}"#,
            ),
            (
                r#"{"m":{"a":1,"b":2}}"#,
                r#"{"m":{"a":1,"b":3,"c":4}}"#,
                r#"{"m":{"b":3,"c":4}}"#,
            ),
            (r#"{"l":[1,2,3]}"#, r#"{"l":[1,2]}"#, r#"{"l":[1,2]}"#),
            (r#"{"a":null}"#, r#"{"b":null}"#, "{}"),
            (r#"{"a":{"x":1}}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (
                r#"{"n":123456789012345678901234567890}"#,
                r#"{"n":123456789012345678901234567891}"#,
                r#"{"n":123456789012345678901234567891}"#,
            ),
            (r#"{"n":1e2}"#, r#"{"n":100}"#, "{}"),
            (r#"{"s":"\u0041"}"#, r#"{"s":"A"}"#, "{}"),
        ] {
            assert_eq!(patch(have, want), expected, "{have} -> {want}");
        }
    }
}
