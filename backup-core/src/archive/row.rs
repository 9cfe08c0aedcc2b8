//! The lines of the index, and the digest of an object without what a server sets. Data and pure functions.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// One object in the archive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its namespace, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "ns")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Its resourceVersion.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "rv")]
    pub resource_version: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The uids of its owners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
    /// [`content_digest`], lower-case hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// CRC-32 of the body, 8 hex digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub crc32: String,
    /// The member that holds the first copy of the body.
    pub member: u64,
    /// Where the body starts in the uncompressed member.
    pub offset: u64,
    /// The body's length.
    pub length: u64,
}

/// One gzip member of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// Where it starts in the archive.
    pub at: u64,
    /// Its compressed bytes.
    pub length: u64,
    /// Its uncompressed bytes.
    pub size: u64,
    /// SHA-256 of the compressed bytes, lower-case hex.
    pub sha256: String,
}

/// What became of an API resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its objects are in the archive (`count` may be 0).
    #[default]
    Saved,
    /// A rule left it out; `why` names the rule.
    Excluded,
    /// It could not be read, or not to its end (`count` objects are in the archive all the same); `why` tells the reason.
    Failed,
}

/// One API resource of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRow {
    /// `deployments.apps`, `pods`
    pub resource: String,
    /// `v1`
    pub version: String,
    /// `Deployment`
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What became of it.
    pub outcome: Outcome,
    /// The rule or the reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// How many of its objects are in the archive.
    #[serde(default)]
    pub count: u64,
    /// The revision it was read at.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "rv")]
    pub resource_version: String,
    /// A second revision, where the list expired half-way.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "rv2")]
    pub second_resource_version: String,
    /// Whether `rv` is the backup's common revision.
    #[serde(default)]
    pub exact: bool,
}

impl ResourceRow {
    /// `apps/v1`, `v1`
    pub fn api_version(&self) -> String {
        match self.resource.split_once('.') {
            Some((_, group)) => format!("{group}/{}", self.version),
            None => self.version.clone(),
        }
    }
}

/// The first line of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderRow {
    /// [`super::FORMAT`]
    pub format: String,
    /// The backup's name.
    pub backup: String,
    /// When it was started: RFC 3339, UTC.
    pub created: String,
}

/// One frame of the index, as the table of contents has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRow {
    /// What its lines are: `header`, `objects`, `members`, `resources`, or something newer.
    pub kind: String,
    /// Whose objects they are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Where it starts in the index.
    pub at: u64,
    /// Its compressed bytes.
    pub length: u64,
    /// Its uncompressed bytes.
    pub size: u64,
    /// Its lines.
    pub lines: u64,
    /// The smallest key of its objects, `ns/name` or `name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub min: String,
    /// The greatest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub max: String,
    /// SHA-256 of the compressed frame, lower-case hex.
    pub sha256: String,
}

/// The table of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// [`super::FORMAT`]
    pub format: String,
    /// Members of the archive.
    pub members: u64,
    /// Objects in it.
    pub objects: u64,
    /// Its bytes.
    pub size: u64,
    /// Every frame before it, in order.
    pub frames: Vec<FrameRow>,
}

/// What the index tells of an object, read from its body in one pass that decodes nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) owners: Vec<String>,
    pub(super) sha256: String,
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

impl Facts {
    /// # Errors
    /// `Corrupt`, when the body is no JSON object or its metadata are not what they should be.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        let mut object: Sorted<'_> = serde_json::from_slice(body)
            .map_err(|e| Error::corrupt("not a JSON object").because(e))?;
        let mut metadata = match object.get("metadata").copied() {
            Some(raw) => decode::<Option<Sorted<'_>>>("metadata", raw)?.unwrap_or_default(),
            None => Sorted::new(),
        };
        let mut owners: Vec<Sorted<'_>> = field(&metadata, "ownerReferences")?;
        let facts = Self {
            api_version: field(&object, "apiVersion")?,
            kind: field(&object, "kind")?,
            namespace: field(&metadata, "namespace")?,
            name: field(&metadata, "name")?,
            uid: field(&metadata, "uid")?,
            resource_version: field(&metadata, "resourceVersion")?,
            labels: field(&metadata, "labels")?,
            owners: owners
                .iter()
                .map(|owner| field(owner, "uid"))
                .filter(|uid| !uid.as_ref().is_ok_and(String::is_empty))
                .collect::<Result<_>>()?,
            sha256: String::new(),
        };
        object.remove("status");
        for key in SET_BY_SERVER {
            metadata.remove(key);
        }
        for owner in &mut owners {
            owner.remove("uid");
        }
        let mut digest = Context::new(&SHA256);
        write_object(&object, &mut digest, |key, _, digest| match key {
            "metadata" => {
                write_object(&metadata, digest, |key, _, digest| {
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
        Ok(Self {
            sha256: super::hex(digest.finish().as_ref()),
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
        // A string always serialises.
        digest.update(serde_json::Value::from(key.as_ref()).to_string().as_bytes());
        digest.update(b":");
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
