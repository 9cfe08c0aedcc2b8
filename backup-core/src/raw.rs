//! JSON objects edited without decoding what is not touched: numbers, key order and unknown fields stay byte for byte.
//! It knows nothing of Kubernetes beyond "an object has keys".

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// Objects with more keys are looked up by an index: a hostile one may not cost the square of its keys.
const FEW: usize = 32;

/// One JSON object: keys in their order, values as they were written.
#[derive(Clone, Debug, Default)]
pub struct RawObject<'a> {
    entries: Vec<(Cow<'a, str>, Cow<'a, RawValue>)>,
    /// Where each key stands; empty while there are only a few.
    index: HashMap<Cow<'a, str>, usize>,
}

impl<'a> RawObject<'a> {
    /// Reads one object; of a key that comes twice the last value counts, as for every JSON decoder in Go.
    ///
    /// # Errors
    /// `Corrupt`, when the text is not one JSON object.
    pub fn parse(text: &'a str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| Error::corrupt("not a JSON object").because(e))
    }

    /// The same from bytes.
    ///
    /// # Errors
    /// `Corrupt`, when they are not one JSON object in UTF-8.
    pub fn from_slice(bytes: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| Error::corrupt("not a JSON object").because(e))
    }

    /// The raw text of a value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.position(key).map(|at| self.entries[at].1.get())
    }

    /// A value, decoded.
    ///
    /// # Errors
    /// `Corrupt`, when it is there and of another type.
    pub fn read<'s, T: Deserialize<'s>>(&'s self, key: &str) -> Result<Option<T>> {
        match self.get(key) {
            None | Some("null") => Ok(None),
            Some(text) => serde_json::from_str(text).map(Some).map_err(|e| {
                Error::corrupt(format!("field {key:?} is not what it should be")).because(e)
            }),
        }
    }

    /// Keys and raw values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(k, v)| (k.as_ref(), v.get()))
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Drops a key; tells whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(k, _)| k != key);
        if before != self.entries.len() {
            self.reindex();
        }
        before != self.entries.len()
    }

    /// Sets a key to a value, in its place where it stands already, else last.
    ///
    /// # Errors
    /// `Other`, when the value can not be written as JSON.
    pub fn set(&mut self, key: &str, value: &impl Serialize) -> Result<()> {
        let raw = serde_json::value::to_raw_value(value)
            .map_err(|e| Error::other(format!("field {key:?} can not be written")).because(e))?;
        self.put(Cow::Owned(key.to_owned()), Cow::Owned(raw));
        Ok(())
    }

    fn position(&self, key: &str) -> Option<usize> {
        if self.index.is_empty() {
            return self.entries.iter().position(|(k, _)| k == key);
        }
        self.index.get(key).copied()
    }

    fn put(&mut self, key: Cow<'a, str>, value: Cow<'a, RawValue>) {
        if let Some(at) = self.position(&key) {
            self.entries[at].1 = value;
            return;
        }
        self.entries.push((key, value));
        if self.index.is_empty() {
            self.reindex();
        } else if let Some((key, _)) = self.entries.last() {
            self.index.insert(key.clone(), self.entries.len() - 1);
        }
    }

    fn reindex(&mut self) {
        self.index.clear();
        if self.entries.len() > FEW {
            let keys = self.entries.iter().enumerate();
            self.index = keys.map(|(at, (key, _))| (key.clone(), at)).collect();
        }
    }

    /// The object as JSON text, compact around the untouched values.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            self.entries
                .iter()
                .map(|(k, v)| k.len() + v.get().len() + 6)
                .sum::<usize>()
                + 2,
        );
        out.push(b'{');
        for (position, (key, value)) in self.entries.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            // A string always serialises, and a Vec always takes it.
            out.extend_from_slice(serde_json::Value::from(key.as_ref()).to_string().as_bytes());
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
        out
    }
}

impl Serialize for RawObject<'_> {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.entries.iter().map(|(k, v)| (k, v)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = RawObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut object = RawObject::default();
                while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
                    let value: &'de RawValue = map.next_value()?;
                    object.put(key, Cow::Borrowed(value));
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// A key, borrowed unless it holds an escape.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Borrowed<'b>(#[serde(borrow)] Cow<'b, str>);
        Borrowed::deserialize(deserializer).map(|Borrowed(text)| Self(text))
    }
}

/// JSON with line breaks and two spaces of indent, every value as it was written. The text must be JSON.
pub fn pretty(text: &str) -> String {
    /// Deeper levels are not indented further, or a hostile nesting would cost the square of its length.
    const DEEPEST: usize = 64;
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(DEEPEST)));
    };
    let mut characters = text.chars().filter(|c| !c.is_control()).peekable();
    while let Some(c) = characters.next() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            out.push(c);
            continue;
        }
        match c {
            ' ' => {}
            '{' | '[' => {
                out.push(c);
                while characters.next_if_eq(&' ').is_some() {}
                if let Some(close) = characters.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                quoted = c == '"';
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_byte_for_byte() {
        let text =
            r#"{"b":1e2,"a":123456789012345678901234567890,"z":{"y": [1, 2]},"q\"":"\u003c"}"#;
        let mut object = RawObject::parse(text).unwrap();
        assert_eq!(object.to_vec(), text.as_bytes());
        assert!(object.remove("b"));
        object.set("n", &serde_json::json!({"k": 1})).unwrap();
        let want =
            r#"{"a":123456789012345678901234567890,"z":{"y": [1, 2]},"q\"":"\u003c","n":{"k":1}}"#;
        assert_eq!(String::from_utf8(object.to_vec()).unwrap(), want);
    }

    #[test]
    fn of_a_key_that_comes_twice_the_last_value_counts() {
        assert_eq!(
            RawObject::parse(r#"{"a":1,"a":2}"#).unwrap().get("a"),
            Some("2")
        );
    }

    #[test]
    fn many_keys_are_found_replaced_and_removed_like_few() {
        let text: Vec<String> = (0..200_000).map(|n| format!("\"k{n}\":{n}")).collect();
        let text = format!("{{{},\"k7\":8}}", text.join(","));
        let mut object = RawObject::parse(&text).unwrap();
        assert_eq!(object.get("k7"), Some("8"));
        object.set("k199999", &1).unwrap();
        assert!(object.remove("k0") && !object.remove("k0"));
        assert_eq!(
            (object.get("k199999"), object.get("k1")),
            (Some("1"), Some("1"))
        );
        assert_eq!(object.iter().count(), 199_999);
    }

    #[test]
    fn pretty_json_keeps_every_value_as_it_was_written() {
        let text = r#"{"a":1e2,"b":[],"c":[1,{"d":"x, {\"y\": [\\"}],"e":{ },"f":123456789012345678901234567890}"#;
        let shown = pretty(text);
        let want = "{\n  \"a\": 1e2,\n  \"b\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"x, {\\\"y\\\": [\\\\\"\n    }\n  ],\n  \"e\": {},\n  \"f\": 123456789012345678901234567890\n}";
        assert_eq!(shown, want);
    }
}
