//! What an index says of each object, held in a few bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

use super::super::index::Index;
use super::super::path;
use super::super::read::Source;
use super::super::row::Row;
use super::Findings;
use crate::error::Result;

/// Where each member's contents start in the tar; nothing where the members can not be read.
pub(super) async fn member_starts(
    index: &Index<&dyn Source>,
    findings: &mut Findings,
) -> Result<Option<Vec<u64>>> {
    let mut starts = Vec::new();
    let (mut at, mut tar) = (0_u64, 0_u64);
    while (starts.len() as u64) < index.member_count() {
        let first = starts.len() as u64;
        let count = (index.member_count() - first).min(4096);
        let Some(rows) = findings.catch(index.members(first, count).await)? else {
            return Ok(None);
        };
        for row in rows {
            if row.at != at {
                findings.push(format!(
                    "member {} starts at byte {} by the index, the one before it ends at {at}",
                    starts.len(),
                    row.at
                ));
                return Ok(None);
            }
            starts.push(tar);
            at += row.length;
            tar = tar.saturating_add(row.size);
        }
    }
    if at != index.archive_size() {
        findings.push(format!(
            "the members end at byte {at} by the index, the archive at {}",
            index.archive_size()
        ));
    }
    Ok(Some(starts))
}

/// Hashes of objects' keys under a secret key.
pub(super) struct Keys(pub(super) RandomState);

impl Keys {
    pub(super) fn hash(&self, resource: &str, namespace: Option<&str>, name: &str) -> u64 {
        self.0.hash_one((resource, namespace, name))
    }
}

/// What the index says of one object, in 16 bytes.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Where its body starts in the tar; `NOWHERE` where that is not known.
    pub(super) at: u64,
    pub(super) crc32: u32,
    /// Its length, and in the highest bit whether it was seen. (Bodies are up to 2^26 bytes.)
    pub(super) length: u32,
}

pub(super) const NOWHERE: u64 = u64::MAX;
pub(super) const SEEN: u32 = 1 << 31;

/// What the index says.
pub(super) struct Expected {
    pub(super) objects: HashMap<u64, Place>,
    /// Each resource's version, kind and API version.
    pub(super) resources: BTreeMap<String, (String, String, String)>,
    /// Some rows could not be read: what is not in `objects` may be right all the same.
    pub(super) partial: bool,
}

pub(super) async fn load(
    index: &Index<&dyn Source>,
    keys: &Keys,
    starts: Option<&[u64]>,
    findings: &mut Findings,
) -> Result<Expected> {
    let mut expected = Expected {
        objects: HashMap::new(),
        resources: BTreeMap::new(),
        partial: false,
    };
    for row in index.resources() {
        let count = index.count(&row.resource);
        if count != row.count {
            findings.push(format!(
                "{} has {} objects by its row in the index and {count} rows of objects",
                row.resource, row.count
            ));
        }
        expected.resources.insert(
            row.resource.clone(),
            (row.version.clone(), row.kind.clone(), row.api_version()),
        );
    }
    for resource in index.resources_with_objects() {
        if !expected.resources.contains_key(resource) {
            findings.push(format!(
                "{resource} has objects in the index and no row of its own"
            ));
        }
        for frame in 0..index.frames(resource) {
            let Some(rows) = findings.catch(index.rows(resource, frame).await)? else {
                expected.partial = true;
                continue;
            };
            for row in rows {
                let hash = keys.hash(resource, row.namespace.as_deref(), &row.name);
                let crc32 = u32::from_str_radix(&row.crc32, 16);
                if crc32.is_err() {
                    findings.push(format!(
                        "{} has no checksum in the index",
                        named(resource, &row)
                    ));
                }
                let start = starts.and_then(|starts| starts.get(row.member as usize));
                let place = Place {
                    at: start.map_or(NOWHERE, |start| start.saturating_add(row.offset)),
                    crc32: crc32.unwrap_or_default(),
                    length: row.length as u32,
                };
                if expected.objects.insert(hash, place).is_some() {
                    findings.push(format!(
                        "{} stands in the index twice",
                        named(resource, &row)
                    ));
                }
            }
        }
    }
    Ok(expected)
}

pub(super) fn named(resource: &str, row: &Row) -> String {
    format!(
        "{resource} {:?}",
        path::key(row.namespace.as_deref(), &row.name)
    )
}
