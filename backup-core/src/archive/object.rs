//! One object's JSON: what the index tells of it, and its digest without what a server sets. Pure.
//!
//! An object is looked at once: its fields, and those of its metadata, stay as they were written, and only what is asked for is decoded.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// What the index tells of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) owners: Vec<String>,
    pub(crate) sha256: String,
}

/// One JSON object with its keys in byte order and its values as they were written; of a key that comes twice the last counts.
type Sorted<'a> = BTreeMap<Key<'a>, &'a RawValue>;

/// A key, borrowed unless it holds an escape.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl Borrow<str> for Key<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What a server sets in `metadata`.
const SET_BY_SERVER: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// An object whose text was looked at.
pub(crate) struct Object<'a> {
    fields: Sorted<'a>,
    metadata: Sorted<'a>,
}

impl<'a> Object<'a> {
    /// # Errors
    /// `Corrupt`, when the text is no JSON object or its metadata are none.
    pub(crate) fn read(text: &'a [u8]) -> Result<Self> {
        let fields: Sorted<'_> = serde_json::from_slice(text)
            .map_err(|e| Error::corrupt("not a JSON object").because(e))?;
        let metadata = match fields.get("metadata").copied() {
            Some(raw) => decode::<Option<Sorted<'_>>>("metadata", raw)?.unwrap_or_default(),
            None => Sorted::new(),
        };
        Ok(Self { fields, metadata })
    }

    /// Whether it has this field, whatever stands there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// Puts a field in, or another value in its place.
    pub(crate) fn set(&mut self, key: &'static str, value: &'a RawValue) {
        self.fields.insert(Key(Cow::Borrowed(key)), value);
    }

    /// Whether it is being deleted.
    pub(crate) fn is_terminating(&self) -> bool {
        let stamp = self.metadata.get("deletionTimestamp");
        stamp.is_some_and(|raw| raw.get() != "null")
    }

    /// Since when it is being deleted, as JSON.
    pub(crate) fn deletion_timestamp(&self) -> Option<&'a str> {
        self.metadata.get("deletionTimestamp").map(|raw| raw.get())
    }

    /// All that the index tells but the digest.
    ///
    /// # Errors
    /// `Corrupt`, when a field is not what it should be.
    pub(crate) fn facts(&self) -> Result<Facts> {
        let Self { fields, metadata } = self;
        Ok(Facts {
            api_version: field(fields, "apiVersion")?,
            kind: field(fields, "kind")?,
            namespace: field(metadata, "namespace")?,
            name: field(metadata, "name")?,
            uid: field(metadata, "uid")?,
            resource_version: field(metadata, "resourceVersion")?,
            labels: field(metadata, "labels")?,
            owners: self
                .owners()?
                .iter()
                .map(|owner| field(owner, "uid"))
                .filter(|uid| !uid.as_ref().is_ok_and(String::is_empty))
                .collect::<Result<_>>()?,
            sha256: String::new(),
        })
    }

    fn owners(&self) -> Result<Vec<Sorted<'a>>> {
        field(&self.metadata, "ownerReferences")
    }

    /// [`content_digest`].
    ///
    /// # Errors
    /// `Corrupt`, when the owner references are none.
    pub(crate) fn digest(mut self) -> Result<String> {
        let mut owners = self.owners()?;
        self.fields.remove("status");
        for key in SET_BY_SERVER {
            self.metadata.remove(key);
        }
        for owner in &mut owners {
            owner.remove("uid");
        }
        let mut digest = Context::new(&SHA256);
        write_object(&self.fields, &mut digest, |key, _, digest| match key {
            "metadata" => {
                write_object(&self.metadata, digest, |key, _, digest| {
                    if key != "ownerReferences" || owners.is_empty() {
                        return false;
                    }
                    for (position, owner) in owners.iter().enumerate() {
                        digest.update(if position == 0 { b"[" } else { b"," });
                        write_object(owner, digest, |_, _, _| false);
                    }
                    digest.update(b"]");
                    true
                });
                true
            }
            _ => false,
        });
        Ok(super::hex(digest.finish().as_ref()))
    }
}

impl Facts {
    /// All of it, from an object's text.
    ///
    /// # Errors
    /// `Corrupt`, when the body is no JSON object or a field is not what it should be.
    pub(crate) fn read(body: &[u8]) -> Result<Self> {
        let object = Object::read(body)?;
        let facts = object.facts()?;
        Ok(Self {
            sha256: object.digest()?,
            ..facts
        })
    }
}

fn decode<'a, T: Deserialize<'a>>(key: &str, raw: &'a RawValue) -> Result<T> {
    serde_json::from_str(raw.get())
        .map_err(|e| Error::corrupt(format!("field {key:?} is not what it should be")).because(e))
}

fn field<'a, T: Deserialize<'a> + Default>(object: &Sorted<'a>, key: &str) -> Result<T> {
    match object.get(key) {
        Some(raw) => Ok(decode::<Option<T>>(key, raw)?.unwrap_or_default()),
        None => Ok(T::default()),
    }
}

/// Feeds an object as compact JSON; `replace` may write a value of its own and says whether it did.
fn write_object(
    object: &Sorted<'_>,
    digest: &mut Context,
    replace: impl Fn(&str, &RawValue, &mut Context) -> bool,
) {
    digest.update(b"{");
    for (position, (Key(key), value)) in object.iter().enumerate() {
        if position > 0 {
            digest.update(b",");
        }
        if key.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
            digest.update(b"\"");
            digest.update(key.as_bytes());
            digest.update(b"\":");
        } else {
            // A string always serialises.
            digest.update(serde_json::Value::from(key.as_ref()).to_string().as_bytes());
            digest.update(b":");
        }
        if !replace(key, value, digest) {
            digest.update(value.get().as_bytes());
        }
    }
    digest.update(b"}");
}

/// The SHA-256, in hex, of an object without what a server sets: `status`, and in `metadata` uid, resourceVersion, generation,
/// creationTimestamp, managedFields, selfLink, deletionTimestamp, deletionGracePeriodSeconds and ownerReferences' uids.
///
/// Hashed is compact JSON: the keys of the object, of `metadata` and of each owner reference in byte order (of a key that comes twice
/// the last value), every other value exactly as it was written.
///
/// # Errors
/// `Corrupt`, when the body is no JSON object.
pub fn content_digest(body: &[u8]) -> Result<String> {
    Facts::read(body).map(|facts| facts.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_sees_content_and_not_what_a_server_sets() {
        let one = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","uid":"1","resourceVersion":"5","managedFields":[{"x":1}],"creationTimestamp":null,"labels":{"l":"v"},"ownerReferences":[{"name":"o","uid":"u1"}]},"data":{"n":1e2},"status":{"x":1}}"#;
        let two = br#"{"metadata":{"labels":{"l":"v"},"name":"a","uid":"2","generation":3,"ownerReferences":[{"uid":"u2","name":"o"}]},"kind":"ConfigMap","apiVersion":"v1","data":{"n":1e2}}"#;
        let digest = content_digest(one).unwrap();
        assert_eq!(digest, content_digest(two).unwrap());
        let hashed = br#"{"apiVersion":"v1","data":{"n":1e2},"kind":"ConfigMap","metadata":{"labels":{"l":"v"},"name":"a","ownerReferences":[{"name":"o"}]}}"#;
        assert_eq!(digest, crate::archive::sha256_hex(hashed));
        for other in [
            &br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","labels":{"l":"v"},"ownerReferences":[{"name":"o"}]},"data":{"n":100.0}}"#[..],
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","labels":{"l":"v"},"ownerReferences":[{"name":"o"}]},"data":{"n":1e2}}"#,
        ] {
            assert_ne!(digest, content_digest(other).unwrap());
        }
        let facts = Facts::read(one).unwrap();
        assert_eq!(
            (facts.uid.as_str(), facts.owners.as_slice()),
            ("1", &["u1".to_owned()][..])
        );
    }

    #[test]
    fn what_is_no_object_is_refused_and_many_keys_are_quick() {
        for bad in [
            &b"[]"[..],
            b"",
            b"{",
            b"{}x",
            b"\"a\"",
            br#"{"metadata":3}"#,
            b"{\"a\":\"\xff\"}",
        ] {
            assert!(content_digest(bad).is_err(), "{bad:?}");
        }
        assert!(content_digest(b"{}").is_ok());
        let many: Vec<String> = (0..200_000).map(|n| format!("\"k{n}\":1")).collect();
        assert!(content_digest(format!("{{{}}}", many.join(",")).as_bytes()).is_ok());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(content_digest(deep.as_bytes()).is_ok());
    }
}
