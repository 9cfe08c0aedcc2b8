//! `manifest.json`: what a snapshot of etcd is, so that a bucket alone tells it. Reads and writes the bytes; where they lie is
//! [`layout`](crate::layout::SnapshotKeys)'s, and which snapshots there are is [`catalog`](super::catalog)'s.
//!
//! # The format, version 1
//!
//! JSON in UTF-8, one object, at most 1 MiB, at `plugins/etcd-launcher/<cluster>/<snapshot>/manifest.json`. It is written once, as the last
//! object of a snapshot and create-only where the store can, and never changed: a folder without it holds no snapshot. Times are RFC 3339 in
//! UTC; sizes are bytes; digests are lower-case hex; revisions are etcd's, numbers that fit 53 bits; ids of etcd are hex without leading zeros,
//! as etcd prints them. `?` marks what may be absent.
//!
//! | field | what it is | who writes it |
//! |---|---|---|
//! | `format` | `etcd-snapshot/1`. The number is the major version, see below | who takes the snapshot |
//! | `cluster`, `name` | the two names in the key: the manifest is of no other folder's | who takes it, from the request |
//! | `config?` | name of the EtcdBackupConfig that asked for it | the launcher, where one did |
//! | `createdAt` | just before the members were asked how far they are, by the writer's clock: what etcd had acknowledged by then is in it | who takes it |
//! | `expiresAt?` | from when on it may be removed; absent: not by time | who takes it, where asked to |
//! | `data.file` | the file with the database, in the same folder: letters, digits, `.`, `-` and `_`, no folder, no dot first | who takes it |
//! | `data.sha256`, `data.bytes` | of the file as it is stored | counted while it was sent |
//! | `data.compression` | `zstd` (one or more frames, RFC 8878) or `none` | who takes it |
//! | `data.encryption?` | absent: not encrypted. `age`: the file is one of age, for the snapshot's own key; it is outside of the compression | who takes it |
//! | `data.key?` | where it is encrypted: the file, in the same folder, that holds the snapshot's own key, encrypted for the recipients. Beside it `.recipients.txt` says for whom | who takes it |
//! | `sealed?` | where it is encrypted: the whole manifest, see below | who takes it |
//! | `snapshot.sha256?` | of the database alone: what etcd appended as its trailer, and compared with it. Absent only where the manifest has `sealed` | counted while it was received |
//! | `snapshot.bytes` | of the database with the trailer, so 32 more than `facts.bytes` | counted |
//! | `facts` | what the database says of itself, see [`Facts`]: above all `revision`, the revision it really holds | read from the stream, never asked from the member |
//! | `digest?` | SHA-256 over the live keys at one revision, see [`LiveDigest`] | a reader that had the whole file; not in a snapshot that was streamed |
//! | `hashKv?` | etcd's HashKV (CRC-32C) as the member itself counted it at `revision`, with the revision that was compacted then (0: none): two are alike only where both are | the member, where it could be asked without harm |
//! | `etcd.version` | version of the member's etcd | the member |
//! | `etcd.clusterId`, `etcd.memberId` | hex | the member |
//! | `etcd.memberName`, `etcd.endpoint` | the member's name (empty where it has none), and the endpoint that was asked | the member; the request |
//! | `etcd.leader` | whether it led the cluster | the member |
//! | `kubernetesVersion?` | of the API server, as `/version` has it | who knows it |
//! | `targetRevision?` | the greatest revision that any client may have seen: a later restore must go beyond it | the launcher, where it knows a greater one than `facts.revision` |
//! | `tool` | program and version that wrote it | who takes it |
//!
//! `facts.members` and `facts.alarms` come from the member where the stream did not show them; all else in `facts` is the file's own.
//!
//! The file, decompressed, is byte for byte what `etcdctl snapshot save` writes, trailer included: `zstd -d` and `etcdutl snapshot restore`
//! need no program of ours.
//!
//! ## Encrypted snapshots
//!
//! Of an encrypted snapshot the manifest has two parts. `sealed` is the whole manifest as it would stand if nothing was encrypted (but for `data`, which is
//! of the file as it stands), a file of age for the snapshot's own key, armored. The rest is what stands in the clear too: `format`, `cluster`, `name`, `config`,
//! `createdAt`, `expiresAt`, `data`, `snapshot.bytes`, `facts.revision`, `etcd.version`, `etcd.clusterId`, `etcd.memberId`, `kubernetesVersion`,
//! `targetRevision` and `tool`. No digest of anything that is encrypted is in the clear, no name of a member, of a resource or of an endpoint. Whoever opens
//! the sealed part refuses the manifest where any field in the clear is not there with the same value, and reads the sealed part alone from then on.
//!
//! ## What may change
//!
//! New fields, at any depth, and new values of `data.compression` and `data.encryption` keep the major version. A field is never given another meaning
//! or unit, and none without `?` goes away, without a new major version; then the old one is still read.
//!
//! ## What a reader of version 1 must do
//!
//! - Refuse another major version (`etcd-snapshot/2`), and say which program is needed; take a minor one (`etcd-snapshot/1.3`).
//! - Pass over fields it does not know, and keep them where it writes the manifest elsewhere.
//! - Do without any field marked `?` (an encrypted snapshot that it can not open has no more than what is in the clear), without `facts.keys.live` and `facts.keys.resources`, and without a `facts.storageVersion` (etcd 3.5).
//! - Show a snapshot whose compression or encryption it does not know, and refuse only to read its data.
//! - Believe nothing: bound the manifest, refuse a `data.file` that is no plain file name, a `cluster` or `name` that is not the folder's,
//!   digests and sizes that can not be; and check both digests before a byte of the data is used.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::LiveDigest;
use super::facts::Facts;
use super::hashkv::HashKv;
use crate::error::{Error, Result};
use crate::layout::SnapshotKeys;

/// `format` of what is written here.
pub const FORMAT: &str = "etcd-snapshot/1";

/// The most bytes a manifest may have.
pub const LARGEST: u64 = 1 << 20;

/// A trailer's length: the SHA-256 that etcd appends.
pub const TRAILER: u64 = 32;

/// A snapshot's manifest. The page above says what each field means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`], or a minor version of it.
    pub format: String,
    /// The cluster's folder. Empty in what describes a snapshot that lies in no location.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The snapshot's folder.
    pub name: String,
    /// The EtcdBackupConfig that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Just before the members were asked how far they are.
    pub created_at: Timestamp,
    /// From when on it may be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The file with the database.
    pub data: Data,
    /// The database as etcd sent it.
    pub snapshot: Snapshot,
    /// What the database says of itself.
    pub facts: Facts,
    /// Over its live keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<LiveDigest>,
    /// As the member counted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_kv: Option<HashKv>,
    /// The member it is from.
    pub etcd: Etcd,
    /// Version of the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// The revision a later restore must go beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<i64>,
    /// Program and version that wrote it.
    #[serde(default)]
    pub tool: String,
    /// The whole manifest for the snapshot's own key, armored; the rest is what is in the clear then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// The stored file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// Its name, in the manifest's folder.
    pub file: String,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// How it is encrypted, outside of the compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// The file with its key, in the manifest's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How the stored file is compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Compression {
    /// zstd.
    Zstd,
    /// Not at all.
    None,
    /// In a way that a later version knows.
    Other(String),
}

impl From<String> for Compression {
    fn from(text: String) -> Self {
        match text.as_str() {
            "zstd" => Self::Zstd,
            "none" => Self::None,
            _ => Self::Other(text),
        }
    }
}

impl From<Compression> for String {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Zstd => "zstd".to_owned(),
            Compression::None => "none".to_owned(),
            Compression::Other(text) => text,
        }
    }
}

/// The database as etcd sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// SHA-256 without the trailer, which is the trailer's value; lower-case hex. Empty where the manifest is sealed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Its size with the trailer.
    pub bytes: u64,
}

/// The member a snapshot is from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Etcd {
    /// Version of its etcd.
    pub version: String,
    /// Its cluster's id, hex.
    pub cluster_id: String,
    /// Its own id, hex.
    pub member_id: String,
    /// Its name.
    #[serde(default)]
    pub member_name: String,
    /// The endpoint that was asked.
    #[serde(default)]
    pub endpoint: String,
    /// Whether it led the cluster.
    #[serde(default)]
    pub leader: bool,
}

impl Manifest {
    /// Reads the manifest of the snapshot with these keys.
    ///
    /// # Errors
    /// `Invalid` where a later major version wrote it; `Corrupt` where it is no manifest, or another folder's.
    pub fn parse(bytes: &[u8], keys: &SnapshotKeys) -> Result<Self> {
        let key = keys.manifest();
        let corrupt = |why: &str| Error::corrupt(format!("{key} is no manifest: {why}"));
        if bytes.len() as u64 > LARGEST {
            return Err(corrupt("it is larger than 1 MiB"));
        }
        let format = format_of(bytes).map_err(|e| corrupt("it is not JSON").because(e))?;
        match major(&format) {
            Some(1) => {}
            Some(version) => {
                return Err(Error::invalid(format!(
                    "{key} has format version {version}, which this program does not know"
                ))
                .hint("use the version of etcd-launcher that wrote it, or a later one"));
            }
            None => return Err(corrupt("its format is not etcd-snapshot")),
        }
        let read: Self = serde_json::from_slice(bytes)
            .map_err(|e| corrupt("a field is missing or can not be").because(e))?;
        read.check().map_err(corrupt)?;
        if read.cluster != keys.cluster().as_str() || read.name != keys.name().as_str() {
            return Err(corrupt(&format!(
                "it is of snapshot {:?} of cluster {:?}",
                read.name, read.cluster
            )));
        }
        Ok(read)
    }

    fn check(&self) -> Result<(), &'static str> {
        if !is_plain(&self.data.file) {
            return Err("data.file is not a plain file name");
        }
        let key = self.data.key.as_deref();
        if key.is_some_and(|key| SnapshotKeys::recipients_file(key).is_none()) {
            return Err("data.key is not the name of a key");
        }
        if self.sealed.is_some() && (key.is_none() || self.data.encryption.is_none()) {
            return Err("it is sealed, and names no key");
        }
        let is_hidden = self.sealed.is_some() && self.snapshot.sha256.is_empty();
        if !is_digest(&self.data.sha256) || !is_hidden && !is_digest(&self.snapshot.sha256) {
            return Err("a digest is not a SHA-256");
        }
        if self.snapshot.bytes % 512 != TRAILER || self.snapshot.bytes <= TRAILER {
            return Err("snapshot.bytes is not the size of a database with its trailer");
        }
        if self.facts.revision < 0 || self.target_revision.is_some_and(|target| target < 0) {
            return Err("a revision is negative");
        }
        Ok(())
    }

    /// As it is stored.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest is always JSON");
        bytes.push(b'\n');
        bytes
    }
}

/// `format` alone, so that a later version is refused as such whatever else it changed.
fn format_of(bytes: &[u8]) -> serde_json::Result<String> {
    #[derive(Deserialize)]
    struct Format {
        #[serde(default)]
        format: String,
    }
    serde_json::from_slice::<Format>(bytes).map(|read| read.format)
}

/// The 1 of `etcd-snapshot/1` and `etcd-snapshot/1.3`.
fn major(format: &str) -> Option<u32> {
    let version = format.strip_prefix("etcd-snapshot/")?;
    version.split('.').next()?.parse().ok()
}

/// Whether it names a file, and nothing but a file, of the manifest's folder.
fn is_plain(file: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=200).contains(&file.len())
        && file.bytes().all(good)
        && !file.starts_with('.')
        && file != "manifest.json"
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn keys(cluster: &str, name: &str) -> SnapshotKeys {
        SnapshotKeys::new(&cluster.parse().unwrap(), &name.parse().unwrap())
    }

    pub(crate) fn manifest(keys: &SnapshotKeys) -> Manifest {
        Manifest {
            format: FORMAT.to_owned(),
            cluster: keys.cluster().to_string(),
            name: keys.name().to_string(),
            config: None,
            created_at: "2026-11-28T05:24:00Z".parse().unwrap(),
            expires_at: None,
            data: Data {
                file: SnapshotKeys::data_file(&"0".repeat(32), true, false),
                sha256: "a".repeat(64),
                bytes: 10,
                compression: Compression::Zstd,
                encryption: None,
                key: None,
            },
            snapshot: Snapshot {
                sha256: "b".repeat(64),
                bytes: 20480 + TRAILER,
            },
            facts: Facts::default(),
            digest: None,
            hash_kv: None,
            etcd: Etcd::default(),
            kubernetes_version: None,
            target_revision: None,
            tool: "etcd-launcher v0".to_owned(),
            sealed: None,
            rest: serde_json::Map::new(),
        }
    }

    fn changed(change: impl FnOnce(&mut Value)) -> Result<Manifest> {
        let keys = keys("c", "s");
        let mut value = serde_json::to_value(manifest(&keys)).unwrap();
        change(&mut value);
        Manifest::parse(value.to_string().as_bytes(), &keys)
    }

    #[test]
    fn a_manifest_survives_and_what_a_later_version_added_is_kept() {
        let keys = keys("c", "s");
        let written = manifest(&keys);
        assert_eq!(Manifest::parse(&written.bytes(), &keys).unwrap(), written);
        let read = changed(|value| {
            value["format"] = "etcd-snapshot/1.7".into();
            value["later"] = serde_json::json!({"a": 1});
            value["data"]["later"] = 1.into();
            value["data"]["compression"] = "brotli".into();
        })
        .unwrap();
        assert_eq!(read.data.compression, Compression::Other("brotli".into()));
        assert_eq!(
            serde_json::to_value(&read).unwrap()["later"],
            serde_json::json!({"a": 1})
        );
    }

    #[test]
    fn another_major_version_is_refused_as_such_whatever_else_it_changed() {
        let keys = keys("c", "s");
        let refused =
            Manifest::parse(br#"{"format":"etcd-snapshot/2","data":[]}"#, &keys).unwrap_err();
        assert_eq!(refused.kind(), crate::Kind::Invalid);
        assert!(refused.to_string().contains("version 2"), "{refused}");
        assert!(refused.hint_text().is_some());
    }

    #[test]
    fn what_can_not_be_is_refused() {
        type Change = fn(&mut Value);
        let changes: [Change; 19] = [
            |value| value["data"]["file"] = "../../x.db".into(),
            |value| value["data"]["file"] = "a/b.db".into(),
            |value| value["data"]["file"] = ".part".into(),
            |value| value["data"]["file"] = "".into(),
            |value| value["data"]["file"] = "manifest.json".into(),
            |value| value["data"]["sha256"] = "a".into(),
            |value| value["snapshot"]["sha256"] = "Z".repeat(64).into(),
            |value| value["snapshot"]["bytes"] = 20480.into(),
            |value| value["snapshot"]["bytes"] = 32.into(),
            |value| value["facts"]["revision"] = (-1).into(),
            |value| value["name"] = "other".into(),
            |value| value["cluster"] = "other".into(),
            |value| value["format"] = "velero/1".into(),
            |value| value["snapshot"] = Value::Null,
            |value| value["snapshot"]["sha256"] = "".into(),
            |value| value["data"]["key"] = "../x.key.age".into(),
            |value| value["data"]["key"] = "manifest.json".into(),
            |value| value["data"]["key"] = "key.age".into(),
            |value| value["sealed"] = "x".into(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let refused = changed(change).unwrap_err();
            assert_eq!(refused.kind(), crate::Kind::Corrupt, "{number}: {refused}");
        }
        let keys = keys("c", "s");
        for bytes in [&b""[..], b"{}", b"[]", b"\xff", &vec![b' '; 2 << 20]] {
            assert!(Manifest::parse(bytes, &keys).is_err());
        }
    }
}
