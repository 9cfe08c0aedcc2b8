//! JSON objects edited without decoding what is not touched: numbers, key order and unknown fields stay byte for byte.
//! It knows nothing of Kubernetes beyond "an object has keys".

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// One JSON object: keys in their order, values as they were written.
#[derive(Clone, Debug, Default)]
pub struct RawObject<'a> {
    entries: Vec<(Cow<'a, str>, Cow<'a, RawValue>)>,
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
        self.entries
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.get())
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
        before != self.entries.len()
    }

    /// Sets a key to a value, in its place where it stands already, else last.
    ///
    /// # Errors
    /// `Other`, when the value can not be written as JSON.
    pub fn set(&mut self, key: &str, value: &impl Serialize) -> Result<()> {
        let raw = serde_json::value::to_raw_value(value)
            .map_err(|e| Error::other(format!("field {key:?} can not be written")).because(e))?;
        match self.entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, slot)) => *slot = Cow::Owned(raw),
            None => self
                .entries
                .push((Cow::Owned(key.to_owned()), Cow::Owned(raw))),
        }
        Ok(())
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
                    match object.entries.iter_mut().find(|(k, _)| *k == key) {
                        Some((_, slot)) => *slot = Cow::Borrowed(value),
                        None => object.entries.push((key, Cow::Borrowed(value))),
                    }
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
}
