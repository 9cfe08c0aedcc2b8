//! JSON patches (RFC 6902) as the library behind Velero reads them: an index below zero counts from the end, `test` of what is not there is
//! equal to null. Works on a copy of the caller's; what fails half-way is thrown away with it. Pure; bounded in what `copy` may multiply.

use std::fmt;

use serde_json::Value;

/// All that the `copy` operations of one patch may copy, bytes.
const COPIED: usize = super::LARGEST;
/// A path has no more segments: no object is nested deeper.
const SEGMENTS: usize = 128;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
    Test,
}

impl Verb {
    /// By its name, in any case.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.to_lowercase().as_str() {
            "add" => Self::Add,
            "remove" => Self::Remove,
            "replace" => Self::Replace,
            "move" => Self::Move,
            "copy" => Self::Copy,
            "test" => Self::Test,
            _ => return None,
        })
    }
}

/// A JSON pointer (RFC 6901): its segments, unescaped. None is the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pointer(Vec<String>);

impl Pointer {
    /// Reads it; nothing where it does not begin with `/` or is far too long.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let segments: Vec<String> = text
            .strip_prefix('/')?
            .split('/')
            .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
            .collect();
        (segments.len() <= SEGMENTS).then_some(Self(segments))
    }

    /// Whether it is within `other`, or the same.
    fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.0 {
            write!(f, "/{}", segment.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) verb: Verb,
    pub(super) path: Pointer,
    /// Of `move` and `copy`.
    pub(super) from: Pointer,
    /// Of `add`, `replace` and `test`.
    pub(super) value: Value,
}

/// Why a patch was not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A `test` found something else: the patch does not apply, and that is no error.
    Different,
    /// It can not be done; why, in words.
    Impossible(String),
}

/// Does all operations in their order.
///
/// # Errors
/// Why it could not; the document is then half done and has to be thrown away.
pub(super) fn apply(document: &mut Value, operations: &[Operation]) -> Result<(), Refusal> {
    let mut copied = 0;
    for operation in operations {
        once(document, operation, &mut copied)?;
    }
    Ok(())
}

fn once(document: &mut Value, operation: &Operation, copied: &mut usize) -> Result<(), Refusal> {
    let path = &operation.path;
    match operation.verb {
        Verb::Add => add(document, path, operation.value.clone()),
        Verb::Remove => remove(document, path).map(drop),
        Verb::Replace => {
            *find(document, path)? = operation.value.clone();
            Ok(())
        }
        Verb::Move => {
            if path != &operation.from && path.is_within(&operation.from) {
                return Err(impossible(format!("{path} is within {}", operation.from)));
            }
            let value = remove(document, &operation.from)?;
            add(document, path, value)
        }
        Verb::Copy => {
            let value = find(document, &operation.from)?.clone();
            *copied = copied.saturating_add(value.to_string().len());
            if *copied > COPIED {
                return Err(impossible(format!(
                    "it copies more than {} MiB",
                    COPIED >> 20
                )));
            }
            add(document, path, value)
        }
        Verb::Test => {
            let here = match seek(document, path)? {
                Some(value) => value,
                None => &Value::Null,
            };
            if *here == operation.value {
                Ok(())
            } else {
                Err(Refusal::Different)
            }
        }
    }
}

fn impossible(why: String) -> Refusal {
    Refusal::Impossible(why)
}

/// The container of what a pointer means, and the last segment.
fn container<'v, 'p>(
    document: &'v mut Value,
    path: &'p Pointer,
) -> Result<(&'v mut Value, &'p str), Refusal> {
    let missing = || impossible(format!("there is no {path}"));
    let Some((last, before)) = path.0.split_last() else {
        return Err(impossible(
            "the object as a whole can not be changed".to_owned(),
        ));
    };
    let mut here = document;
    for segment in before {
        here = match here {
            Value::Object(map) => map.get_mut(segment),
            Value::Array(list) => at(segment, list.len()).and_then(|n| list.get_mut(n)),
            _ => None,
        }
        .ok_or_else(missing)?;
    }
    match here {
        Value::Object(_) | Value::Array(_) => Ok((here, last)),
        _ => Err(missing()),
    }
}

/// A place of a list by its number; below zero from the end.
fn at(segment: &str, length: usize) -> Option<usize> {
    let number: i64 = segment.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let number = if number < 0 { number + length } else { number };
    usize::try_from(number).ok().filter(|_| number < length)
}

/// What stands there; nothing where an object lacks the key.
fn seek<'v>(document: &'v mut Value, path: &Pointer) -> Result<Option<&'v mut Value>, Refusal> {
    if path.0.is_empty() {
        return Ok(Some(document));
    }
    let (container, key) = container(document, path)?;
    match container {
        Value::Object(map) => Ok(map.get_mut(key)),
        Value::Array(list) => match at(key, list.len()) {
            Some(number) => Ok(list.get_mut(number)),
            None => Err(impossible(format!("there is no {path}"))),
        },
        _ => Ok(None),
    }
}

fn find<'v>(document: &'v mut Value, path: &Pointer) -> Result<&'v mut Value, Refusal> {
    seek(document, path)?.ok_or_else(|| impossible(format!("there is no {path}")))
}

fn add(document: &mut Value, path: &Pointer, value: Value) -> Result<(), Refusal> {
    let (container, key) = container(document, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
            Ok(())
        }
        Value::Array(list) if key == "-" => {
            list.push(value);
            Ok(())
        }
        // One place more than there are: behind the last.
        Value::Array(list) => match at(key, list.len() + 1) {
            Some(number) => {
                list.insert(number, value);
                Ok(())
            }
            None => Err(impossible(format!(
                "{path} is no place of a list of {}",
                list.len()
            ))),
        },
        _ => Err(impossible(format!("there is no {path}"))),
    }
}

fn remove(document: &mut Value, path: &Pointer) -> Result<Value, Refusal> {
    let (container, key) = container(document, path)?;
    let removed = match container {
        Value::Object(map) => map.remove(key),
        Value::Array(list) => at(key, list.len()).map(|number| list.remove(number)),
        _ => None,
    };
    removed.ok_or_else(|| impossible(format!("there is no {path}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operation(verb: &str, from: &str, path: &str, value: Value) -> Operation {
        Operation {
            verb: Verb::named(verb).unwrap(),
            path: Pointer::parse(path).unwrap(),
            from: Pointer::parse(from).unwrap(),
            value,
        }
    }

    fn patched(operations: &[Operation]) -> Result<Value, Refusal> {
        let mut document = json!({"a": {"b/c": 1, "d~e": [10, 20]}, "n": null, "s": "x"});
        apply(&mut document, operations).map(|()| document)
    }

    #[test]
    fn operations_do_what_the_standard_and_veleros_library_say() {
        for (verb, from, path, value, pointer, want) in [
            ("add", "", "/a/new", json!(1), "/a/new", json!(1)),
            (
                "add",
                "",
                "/a/d~0e/-",
                json!(30),
                "/a/d~0e",
                json!([10, 20, 30]),
            ),
            (
                "add",
                "",
                "/a/d~0e/0",
                json!(5),
                "/a/d~0e",
                json!([5, 10, 20]),
            ),
            (
                "add",
                "",
                "/a/d~0e/2",
                json!(30),
                "/a/d~0e",
                json!([10, 20, 30]),
            ),
            (
                "add",
                "",
                "/a/d~0e/-1",
                json!(30),
                "/a/d~0e",
                json!([10, 20, 30]),
            ),
            ("Replace", "", "/a/b~1c", json!(2), "/a/b~1c", json!(2)),
            (
                "replace",
                "",
                "/a/d~0e/-1",
                json!(2),
                "/a/d~0e",
                json!([10, 2]),
            ),
            ("replace", "", "/n", json!(2), "/n", json!(2)),
            ("remove", "", "/a/d~0e/1", json!(""), "/a/d~0e", json!([10])),
            ("move", "/a/b~1c", "/m", json!(""), "/m", json!(1)),
            ("copy", "/a/d~0e", "/m", json!(""), "/m", json!([10, 20])),
            ("test", "", "/s", json!("x"), "/s", json!("x")),
            ("test", "", "/none", json!(null), "/s", json!("x")),
        ] {
            let done = patched(&[operation(verb, from, path, value)]).unwrap();
            assert_eq!(done.pointer(pointer), Some(&want), "{verb} {path}");
        }
        let moved = patched(&[operation("move", "/s", "/a/s", json!(null))]).unwrap();
        assert!(moved.get("s").is_none() && moved["a"]["s"] == "x");
    }

    #[test]
    fn what_can_not_be_done_says_why() {
        for (verb, from, path) in [
            ("add", "", "/none/x"),
            ("add", "", "/s/x"),
            ("add", "", "/a/d~0e/999999999999"),
            ("add", "", "/a/d~0e/-9"),
            ("add", "", "/a/d~0e/99999999999999999999999"),
            ("add", "", "/a/d~0e/x"),
            ("add", "", ""),
            ("replace", "", "/none"),
            ("replace", "", "/a/d~0e/2"),
            ("remove", "", "/none"),
            ("remove", "", "/a/d~0e/2"),
            ("remove", "", ""),
            ("move", "/a", "/a/b"),
            ("move", "/none", "/a/b"),
            ("copy", "/none", "/a/b"),
            ("test", "", "/none/x"),
            ("test", "", "/a/d~0e/7"),
        ] {
            let refused = patched(&[operation(verb, from, path, json!(1))]).unwrap_err();
            assert!(matches!(refused, Refusal::Impossible(_)), "{verb} {path}");
        }
        assert_eq!(
            patched(&[operation("test", "", "/s", json!("y"))]).unwrap_err(),
            Refusal::Different
        );
        assert!(Pointer::parse("spec/x").is_none());
        assert!(Pointer::parse(&"/x".repeat(129)).is_none());
    }

    #[test]
    fn copies_of_copies_are_bounded() {
        let twice: Vec<_> = (0..64)
            .map(|n| operation("copy", "/a", &format!("/a/n{n}"), json!(null)))
            .collect();
        let refused = patched(&twice).unwrap_err();
        assert_eq!(
            refused,
            Refusal::Impossible("it copies more than 3 MiB".into())
        );
    }
}
