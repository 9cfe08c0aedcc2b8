//! The lines of the index. Data alone; what of it comes out of an object is read in [`super::object`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// [`super::object::content_digest`], lower-case hex.
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
    /// Whether it is in the archive of Secrets that stands apart; known from where the row was read.
    #[serde(skip)]
    pub apart: bool,
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
    /// How many of its objects are encrypted apart from the archive, and are not opened here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub apart: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl ResourceRow {
    /// How many of its objects the backup holds, in its archive or apart from it.
    pub fn objects(&self) -> u64 {
        self.count.saturating_add(self.apart)
    }

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
    /// [`super::FORMAT`] or [`super::FORMAT_APART`]
    pub format: String,
    /// The backup's name.
    pub backup: String,
    /// When it was started: RFC 3339, UTC.
    pub created: String,
    /// Random, where the digest of the table of contents stands in the clear and the index does not: nothing can be guessed from the one of the other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub salt: String,
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
    /// As in the header.
    pub format: String,
    /// Members of the archive.
    pub members: u64,
    /// Objects in it.
    pub objects: u64,
    /// Its bytes.
    pub size: u64,
    /// Of Secrets that stand apart: the digest of the table of contents of the index that they stand beside, lower-case hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub beside: String,
    /// Every frame before it, in order.
    pub frames: Vec<FrameRow>,
}
