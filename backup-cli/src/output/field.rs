//! The path to one field of a JSON object, in the part of kubectl's JSONPath that sorting needs: `{.metadata.labels.app}`, `.status.phase`,
//! `.metadata.labels['a.b/c']`, `.items[0]`; a dot within a key is written `\.`. Pure.

use std::cmp::Ordering;
use std::str::FromStr;

use backup_core::Error;
use serde_json::Value;

use crate::error::Result;

/// A path to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl FromStr for Field {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let inner = match text.strip_prefix('{') {
            Some(rest) => rest
                .strip_suffix('}')
                .ok_or_else(|| bad(text, "a brace is not closed"))?,
            None => text,
        };
        let mut steps = Vec::new();
        let mut rest = inner.strip_prefix('$').unwrap_or(inner);
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('[') {
                Some(within) => bracket(text, within)?,
                None => key(text, rest.strip_prefix('.').unwrap_or(rest))?,
            };
            steps.push(step);
            rest = after;
        }
        if steps.is_empty() {
            return Err(bad(text, "it names no field"));
        }
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }
}

fn bad(text: &str, why: &str) -> Error {
    Error::invalid(format!(
        "{text:?} is no path to a field: {why}; write it as .metadata.name"
    ))
}

/// What stands in brackets, and the text after them.
fn bracket<'t>(text: &str, within: &'t str) -> Result<(Step, &'t str), Error> {
    for quote in ['\'', '"'] {
        if let Some(quoted) = within.strip_prefix(quote) {
            return quoted
                .split_once(&format!("{quote}]"))
                .map(|(key, rest)| (Step::Key(key.to_owned()), rest))
                .ok_or_else(|| bad(text, "a quote is not closed"));
        }
    }
    let (number, rest) = within
        .split_once(']')
        .ok_or_else(|| bad(text, "a bracket is not closed"))?;
    let number = number
        .parse()
        .map_err(|_| bad(text, "only numbers and quoted keys may stand in brackets"))?;
    Ok((Step::Index(number), rest))
}

/// A key up to the next dot or bracket, and the text after it.
fn key<'t>(text: &str, rest: &'t str) -> Result<(Step, &'t str), Error> {
    let mut key = String::new();
    let mut chars = rest.char_indices();
    let mut end = rest.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => key.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = at;
                break;
            }
            '{' | '}' | '*' | '@' | '?' | '(' => {
                return Err(bad(text, "it may name one field only"));
            }
            c => key.push(c),
        }
    }
    if key.is_empty() {
        return Err(bad(text, "a name between dots is missing"));
    }
    Ok((Step::Key(key), &rest[end..]))
}

impl Field {
    /// The field's value, where the object has it.
    fn of<'v>(&self, object: &'v Value) -> Option<&'v Value> {
        self.steps
            .iter()
            .try_fold(object, |value, step| match step {
                Step::Key(key) => value.get(key),
                Step::Index(number) => value.get(number),
            })
            .filter(|value| !value.is_null())
    }

    /// Items in the order of the field; those without it come first, as kubectl has it, and equal ones stay as they were.
    ///
    /// # Errors
    /// When there are items and none has the field.
    pub fn sort<T>(&self, mut items: Vec<(T, Value)>) -> Result<Vec<T>> {
        let known = items.iter().any(|(_, value)| self.of(value).is_some());
        if !items.is_empty() && !known {
            return Err(Error::not_found(format!(
                "no object of the list has the field {}",
                self.text
            ))
            .hint("the fields are those that -o json shows")
            .into());
        }
        items.sort_by(|(_, a), (_, b)| compare(self.of(a), self.of(b)));
        Ok(items.into_iter().map(|(item, _)| item).collect())
    }
}

/// Absent first, then numbers by value, then everything else by its text.
fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            a.total_cmp(&b)
        }
        (Some(Value::Number(_)), Some(_)) => Ordering::Less,
        (Some(_), Some(Value::Number(_))) => Ordering::Greater,
        (Some(a), Some(b)) => text(a).cmp(&text(b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sorted(field: &str, items: &[Value]) -> Result<Vec<usize>> {
        let items = items.iter().cloned().enumerate().collect();
        field.parse::<Field>().unwrap().sort(items)
    }

    #[test]
    fn paths_are_written_as_for_kubectl() {
        let object = json!({"metadata": {"name": "a", "labels": {"a.b/c": "d"}}, "list": [1, 2], "none": null});
        for (path, value) in [
            (".metadata.name", Some(json!("a"))),
            ("metadata.name", Some(json!("a"))),
            ("{.metadata.name}", Some(json!("a"))),
            ("$.metadata.name", Some(json!("a"))),
            (r".metadata.labels.a\.b/c", Some(json!("d"))),
            (".metadata.labels['a.b/c']", Some(json!("d"))),
            (r#".metadata["labels"]["a.b/c"]"#, Some(json!("d"))),
            (".list[1]", Some(json!(2))),
            (".list[2]", None),
            (".none", None),
            (".metadata.name.more", None),
        ] {
            let field: Field = path.parse().unwrap();
            assert_eq!(field.of(&object), value.as_ref(), "{path}");
        }
        for path in [
            "",
            "{.a",
            ".",
            "..a",
            "a..b",
            ".a[",
            ".a[x]",
            ".a['b",
            ".items[*].a",
            "{.a}{.b}",
        ] {
            assert!(path.parse::<Field>().is_err(), "{path}");
        }
    }

    #[test]
    fn numbers_sort_by_value_texts_by_text_and_what_is_absent_comes_first() {
        let numbers = [
            json!({"n": 10}),
            json!({"n": 9}),
            json!({}),
            json!({"n": 9}),
        ];
        assert_eq!(sorted(".n", &numbers).unwrap(), [2, 1, 3, 0]);
        let texts = [json!({"t": "b"}), json!({"t": "a"}), json!({"t": 3})];
        assert_eq!(sorted(".t", &texts).unwrap(), [2, 1, 0]);
        assert!(sorted(".n", &[]).unwrap().is_empty());
        let refused = sorted(".absent", &texts).unwrap_err();
        assert!(refused.error().to_string().contains(".absent"));
    }
}
