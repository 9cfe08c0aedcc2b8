//! The digests of an archive's members, taken beside the walk through what they hold.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};

use super::super::index::Index;
use super::super::read::Source;
use super::super::row::MemberRow;
use super::Findings;
use crate::error::Result;

/// Hashes the compressed bytes member by member.
pub(super) struct Members<'a> {
    index: &'a Index<&'a dyn Source>,
    number: u64,
    row: Option<MemberRow>,
    left: u64,
    digest: Context,
    bad: Bad,
}

/// Members whose bytes are not those of the index.
#[derive(Default)]
pub(super) struct Bad {
    count: u64,
    of: u64,
    /// The first of them.
    pub(super) first: BTreeMap<u64, MemberRow>,
}

/// Members that are named.
pub(super) const NAMED: usize = 20;

impl<'a> Members<'a> {
    pub(super) fn new(index: &'a Index<&'a dyn Source>) -> Self {
        Self {
            index,
            number: 0,
            row: None,
            left: 0,
            digest: Context::new(&SHA256),
            bad: Bad {
                of: index.member_count(),
                ..Bad::default()
            },
        }
    }

    pub(super) async fn update(&mut self, mut chunk: &[u8]) -> Result<()> {
        while !chunk.is_empty() {
            if self.row.is_none() {
                if self.number >= self.index.member_count() {
                    return Ok(());
                }
                // Read once already, when the starts were taken.
                let row = self.index.members(self.number, 1).await?.pop();
                self.left = row.as_ref().map_or(0, |row| row.length);
                self.row = row;
            }
            let now = chunk
                .len()
                .min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.digest.update(&chunk[..now]);
            chunk = &chunk[now..];
            self.left -= now as u64;
            if self.left == 0 {
                self.end();
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        let digest = std::mem::replace(&mut self.digest, Context::new(&SHA256)).finish();
        if let Some(row) = self.row.take() {
            if self.left > 0 || super::super::hex(digest.as_ref()) != row.sha256 {
                self.bad.count += 1;
                if self.bad.first.len() < NAMED {
                    self.bad.first.insert(self.number, row);
                }
            }
            self.number += 1;
        }
    }

    pub(super) fn finish(mut self) -> Bad {
        self.end();
        let missing = self.bad.of.saturating_sub(self.number);
        self.bad.count += missing;
        self.bad
    }
}

impl Bad {
    pub(super) fn tell(&self, findings: &mut Findings) {
        if self.count as usize > NAMED {
            findings.push(format!(
                "{} of {} members of the archive are not as they were written",
                self.count, self.of
            ));
            return;
        }
        for (number, row) in &self.first {
            findings.push(format!(
                "member {number} of the archive (bytes {}..{}) is not as it was written",
                row.at,
                row.at + row.length
            ));
        }
        let more = self.count - self.first.len() as u64;
        if more > 0 {
            findings.push(format!("{more} members of the archive are missing"));
        }
    }
}
