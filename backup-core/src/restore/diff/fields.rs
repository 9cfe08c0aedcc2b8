//! The fields in which two JSON objects differ, each with its path. Pure; values stay as they were written. The values of a Secret are
//! never told.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::merge::same;
use crate::raw::RawObject;

/// Deeper values are told as a whole.
const DEEPEST: usize = 64;
/// More fields of one object are not told.
const MOST: usize = 1000;
/// What `kubectl apply` remembers holds the data of a Secret once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One field that differs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// `.spec.template.spec.containers[web].image`; items of lists that have names go by them.
    pub path: String,
    /// Its value in the backup, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<RawValue>>,
    /// Its value on the other side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Box<RawValue>>,
}

/// The fields that differ.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The first of them.
    pub(super) fields: Vec<Field>,
    /// How many more there are.
    pub(super) more: usize,
}

impl Found {
    /// One field that is on the other side only; its value is JSON.
    pub(super) fn added(path: String, value: String) -> Self {
        let after = RawValue::from_string(value).ok();
        let before = None;
        Self {
            fields: vec![Field {
                path,
                before,
                after,
            }],
            more: 0,
        }
    }
}

/// What differs; of a Secret without any value.
pub(super) fn between(one: &RawObject<'_>, two: &RawObject<'_>, secret: bool) -> Found {
    let mut walk = Walk {
        secret,
        found: Vec::new(),
        more: 0,
    };
    walk.objects("", one, two, 0);
    Found {
        fields: walk.found,
        more: walk.more,
    }
}

struct Walk {
    secret: bool,
    found: Vec<Field>,
    more: usize,
}

impl Walk {
    fn objects(&mut self, path: &str, one: &RawObject<'_>, two: &RawObject<'_>, depth: usize) {
        let only_there = two.iter().filter(|(key, _)| one.get(key).is_none());
        for (key, _) in one.iter().chain(only_there) {
            self.values(&step(path, key), one.get(key), two.get(key), depth);
        }
    }

    fn values(&mut self, path: &str, one: Option<&str>, two: Option<&str>, depth: usize) {
        let there = |value: Option<&str>| value.filter(|text| *text != "null").map(str::to_owned);
        let (one, two) = (there(one), there(two));
        match (&one, &two) {
            (None, None) => return,
            (Some(a), Some(b)) if a == b => return,
            (Some(a), Some(b)) if depth < DEEPEST => {
                if let (Ok(a), Ok(b)) = (RawObject::parse(a), RawObject::parse(b)) {
                    return self.objects(path, &a, &b, depth + 1);
                }
                if let (Some(a), Some(b)) = (List::read(a), List::read(b)) {
                    if self.lists(path, &a, &b, depth + 1) {
                        return;
                    }
                } else if same(a, b) {
                    return;
                }
            }
            _ => {}
        }
        self.tell(path, one, two);
    }

    /// Item by item; false where they differ in a way that this does not tell: in their order.
    fn lists(&mut self, path: &str, one: &List<'_>, two: &List<'_>, depth: usize) -> bool {
        let (Some(a), Some(b)) = (one.names(), two.names()) else {
            for at in 0..one.0.len().max(two.0.len()) {
                let path = format!("{path}[{at}]");
                self.values(&path, one.item(Some(&at)), two.item(Some(&at)), depth);
            }
            return true;
        };
        let before = self.found.len() + self.more;
        let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for name in names {
            let path = format!("{path}[{name}]");
            self.values(&path, one.item(a.get(name)), two.item(b.get(name)), depth);
        }
        a == b || self.found.len() + self.more > before
    }

    fn tell(&mut self, path: &str, one: Option<String>, two: Option<String>) {
        if self.found.len() >= MOST {
            self.more += 1;
            return;
        }
        let hidden = self.secret
            && (path.starts_with(".data") || path.starts_with(".stringData") || path.contains(LAST_APPLIED)
                // All annotations at once may hold it as well.
                || path == ".metadata.annotations" || path == ".metadata");
        let shown = |text: Option<String>| {
            let text = if hidden {
                text.map(|_| "\"***\"".to_owned())
            } else {
                text
            };
            text.and_then(|text| RawValue::from_string(text).ok())
        };
        self.found.push(Field {
            path: path.to_owned(),
            before: shown(one),
            after: shown(two),
        });
    }
}

/// A list as it was written.
#[derive(Deserialize)]
struct List<'a>(#[serde(borrow)] Vec<&'a RawValue>);

impl<'a> List<'a> {
    fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    fn item(&self, at: Option<&usize>) -> Option<&str> {
        self.0.get(*at?).map(|value| value.get())
    }

    /// The names of its items and where they are, where all are objects with a name and no two share one.
    fn names(&self) -> Option<BTreeMap<String, usize>> {
        let name = |item: &RawValue| RawObject::parse(item.get()).ok()?.read("name").ok()?;
        let named = self.0.iter().enumerate();
        let names: BTreeMap<String, usize> = named
            .map(|(at, item)| Some((name(item)?, at)))
            .collect::<Option<_>>()?;
        (names.len() == self.0.len()).then_some(names)
    }
}

/// A path goes on: `.key`, or `['a.b/c']`.
fn step(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '$');
    if !key.is_empty() && key.chars().all(plain) {
        format!("{path}.{key}")
    } else {
        format!("{path}['{}']", key.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(one: &str, two: &str, secret: bool) -> Vec<String> {
        let (one, two) = (
            RawObject::parse(one).unwrap(),
            RawObject::parse(two).unwrap(),
        );
        let text = |value: &Option<Box<RawValue>>| {
            value
                .as_ref()
                .map_or("-".to_owned(), |value| value.get().to_owned())
        };
        between(&one, &two, secret)
            .fields
            .iter()
            .map(|field| {
                format!(
                    "{} {} {}",
                    field.path,
                    text(&field.before),
                    text(&field.after)
                )
            })
            .collect()
    }

    #[test]
    fn fields_are_told_by_their_path() {
        for (one, two, want) in [
            (
                r#"{"a":1,"b":{"c":[1, 2]}}"#,
                r#"{"b":{"c":[1,2]},"a":1}"#,
                &[][..],
            ),
            (r#"{"a":null}"#, r#"{"b":null}"#, &[]),
            (
                r#"{"a":1}"#,
                r#"{"a":2,"b":{"c":3}}"#,
                &[".a 1 2", r#".b - {"c":3}"#],
            ),
            (
                r#"{"l":{"x.y/z":"1"}}"#,
                r#"{"l":{}}"#,
                &[r#".l['x.y/z'] "1" -"#],
            ),
            (
                r#"{"l":[1,2,3]}"#,
                r#"{"l":[1,5]}"#,
                &[".l[1] 2 5", ".l[2] 3 -"],
            ),
            (
                r#"{"c":[{"name":"a","v":1},{"name":"b","v":2}]}"#,
                r#"{"c":[{"name":"b","v":3},{"name":"c"}]}"#,
                &[
                    r#".c[a] {"name":"a","v":1} -"#,
                    ".c[b].v 2 3",
                    r#".c[c] - {"name":"c"}"#,
                ],
            ),
            (
                r#"{"c":[{"name":"a"},{"name":"b"}]}"#,
                r#"{"c":[{"name":"b"},{"name":"a"}]}"#,
                &[r#".c [{"name":"a"},{"name":"b"}] [{"name":"b"},{"name":"a"}]"#],
            ),
        ] {
            assert_eq!(told(one, two, false), want, "{one} {two}");
        }
    }

    #[test]
    fn the_values_of_a_secret_are_never_told() {
        let one = r#"{"type":"a","data":{"k":"c2VjcmV0"},"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{c2VjcmV0}"}}}"#;
        for two in [
            r#"{"type":"b","data":{"k":"b3RoZXI="},"metadata":{"annotations":{"a":"b"}}}"#,
            r#"{"type":"b","metadata":{}}"#,
            r#"{"type":"b"}"#,
        ] {
            for told in [told(one, two, true), told(two, one, true)] {
                let text = told.join("\n");
                assert!(
                    !text.contains("c2VjcmV0") && !text.contains("b3RoZXI"),
                    "{text}"
                );
                assert!(text.contains("***") && text.contains(".type"), "{text}");
            }
        }
    }

    #[test]
    fn of_very_many_fields_the_rest_is_counted() {
        let many = |value: &str| {
            let pairs: Vec<_> = (0..1500).map(|n| format!("\"k{n}\":{value}")).collect();
            format!("{{{}}}", pairs.join(","))
        };
        let (one, two) = (many("1"), many("2"));
        let (one, two) = (
            RawObject::parse(&one).unwrap(),
            RawObject::parse(&two).unwrap(),
        );
        let found = between(&one, &two, false);
        assert_eq!((found.fields.len(), found.more), (1000, 500));
    }

    #[test]
    fn a_hostile_nesting_ends() {
        let deep = |inner: &str| {
            format!(
                "{{\"a\":{}{inner}{}}}",
                "[".repeat(20_000),
                "]".repeat(20_000)
            )
        };
        assert!(!told(&deep("1"), &deep("2"), false).is_empty());
    }
}
