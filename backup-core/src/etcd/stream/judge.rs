//! After the last page: what the newest meta's root reaches is followed from note to note, and counted.

use std::collections::BTreeMap;

use super::super::bolt::file::whole;
use super::super::bolt::{
    Bucket, Header, LEAF, LeafSlot, MOST_BUCKETS, MOST_DEPTH, leaf_slots, newest,
};
use super::super::buckets::{MOST_ENTRIES, SMALL, Told, settle};
use super::super::entry::{KEY_BUCKET, Record, Revision, encryption};
use super::super::facts::{Facts, Keys};
use super::NAME;
use super::candidates::{Candidates, Change};
use super::notes::{Kind, Note};
use crate::error::{Error, Result};

fn damaged(text: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("{NAME} is damaged: {text}")).hint("take another one")
}

/// A snapshot that is whole, as far as can be said, but can not be counted in passing.
fn unread(text: &str) -> Error {
    Error::other(format!(
        "{NAME} can not be judged while it streams by: {text}"
    ))
    .hint("save it to a file; `etcd-launcher verify` reads it from there")
}

/// What is counted of the entries of bucket `key`.
#[derive(Default)]
struct Count {
    revisions: u64,
    revision: i64,
    /// By resource; below zero where the history is not whole.
    live: Vec<i64>,
    /// Numbers of encryption keys.
    encryption: Vec<u8>,
    /// Whether some leaf could not be read.
    is_unread: bool,
}

impl Count {
    fn add(&mut self, resource: usize, change: Change, is_compacted: bool) {
        let one = match (change, is_compacted) {
            (Change::None, _) | (Change::Put, false) | (Change::Remove, true) => 0,
            (Change::Create, _) | (Change::Put, true) => 1,
            (Change::Remove, false) => -1,
        };
        if self.live.len() <= resource {
            self.live.resize(resource + 1, 0);
        }
        self.live[resource] += one;
    }
}

struct Judge<'a> {
    pages: &'a Candidates,
    high_water: u64,
    /// A bit per page.
    used: Vec<u64>,
    reached: u64,
}

/// Facts, and the buckets that were missed.
pub(super) fn judge(mut pages: Candidates, bytes: u64) -> Result<(Facts, Vec<&'static str>)> {
    let meta = newest(pages.metas[0], pages.metas[1])
        .ok_or_else(|| super::super::bolt::file::no_database(NAME))?;
    whole(&meta, bytes, NAME)?;
    if pages.children.is_spent {
        return Err(unread("it has too many stale branches"));
    }
    let mut facts = Facts {
        page_size: meta.page_size,
        bytes,
        ..Facts::default()
    };
    let mut missed = Vec::new();
    let mut judge = Judge {
        pages: &pages,
        high_water: meta.high_water,
        used: vec![0; meta.high_water.div_ceil(64) as usize],
        reached: 2,
    };
    let buckets = judge.buckets(meta.root)?;
    for small in &SMALL {
        let found = buckets
            .iter()
            .find(|(name, _)| name.as_slice() == small.name.as_bytes());
        let Some((_, bucket)) = found else { continue };
        if !read_small(&pages, bucket, &mut |key, value| {
            (small.take)(&mut facts, key, value)
        })? {
            missed.push(small.name);
        }
    }
    let knows_compaction = !missed.contains(&"meta");
    let compacted = facts.compact_revision;
    let mut count = Count::default();
    let mut inline = None;
    for (name, bucket) in &buckets {
        let is_key = name.as_slice() == KEY_BUCKET;
        match bucket {
            Bucket::Tree(root) if is_key => {
                judge.tree(*root, 0, &mut |id, kind, note| {
                    count_leaf(&pages, &mut count, compacted, id, kind, note)
                })?;
            }
            Bucket::Tree(root) => judge.tree(*root, 0, &mut |_, _, _| Ok(()))?,
            Bucket::Inline(page) if is_key => inline = Some(page.clone()),
            Bucket::Inline(_) => {}
        }
    }
    let reached = judge.reached;
    if !buckets
        .iter()
        .any(|(name, _)| name.as_slice() == KEY_BUCKET)
    {
        return Err(damaged("it has no bucket \"key\""));
    }
    if let Some(page) = inline {
        count_inline(&mut pages, &mut count, compacted, &page)?;
    }
    if count.is_unread {
        missed.push("key");
    }
    facts.bytes_in_use = reached * u64::from(meta.page_size);
    facts.revision = count.revision;
    let is_compacting = facts.scheduled_compact_revision > facts.compact_revision;
    let is_exact =
        knows_compaction && !is_compacting && !count.is_unread && !pages.entries.is_spent;
    facts.keys = keys(&pages, &count, is_exact);
    let names = count.encryption.iter();
    facts.encryption_keys = names
        .filter_map(|number| pages.encryption.get(usize::from(*number)).cloned())
        .collect();
    facts.encryption_keys.sort();
    settle(&mut facts);
    Ok((facts, missed))
}

fn keys(pages: &Candidates, count: &Count, is_exact: bool) -> Keys {
    let live: Option<Vec<u64>> = count
        .live
        .iter()
        .map(|sum| u64::try_from(*sum).ok())
        .collect();
    // A sum below zero: the history is not what etcd writes.
    let live = live.filter(|_| is_exact);
    Keys {
        revisions: count.revisions,
        live: live.as_ref().map(|live| live.iter().sum()),
        resources: live.as_ref().map(|live| pages.resources.named(live)),
        exact: live.is_some(),
    }
}

fn count_leaf(
    pages: &Candidates,
    count: &mut Count,
    compacted: i64,
    id: u64,
    kind: Kind,
    note: &Note,
) -> Result<()> {
    count.revisions += u64::from(note.count);
    match kind {
        // An empty leaf is that of an empty bucket.
        Kind::Leaf if note.count > 0 => {
            return Err(damaged(format!(
                "page {id} of bucket \"key\" holds no revisions"
            )));
        }
        Kind::Unread => count.is_unread = true,
        _ => {}
    }
    if note.count > 0 && kind == Kind::Revisions {
        if note.last < count.revision {
            return Err(damaged(format!(
                "page {id} of bucket \"key\" is out of order"
            )));
        }
        count.revision = note.last;
    }
    let Some(packed) = note.packed else {
        return Ok(());
    };
    let mut read = pages.entries.read(packed);
    for _ in 0..read.next() {
        let number = read.next() as u8;
        if !count.encryption.contains(&number) {
            count.encryption.push(number);
        }
    }
    let mut main = note.last;
    for _ in 0..note.count {
        main = main.saturating_sub_unsigned(read.next());
        let code = read.next();
        count.add((code >> 2) as usize, Change::of(code), main <= compacted);
    }
    Ok(())
}

/// The entries of a `key` that is so small that it stands in the bucket of buckets.
fn count_inline(
    pages: &mut Candidates,
    count: &mut Count,
    compacted: i64,
    page: &[u8],
) -> Result<()> {
    let wrong = |text: &str| damaged(format!("bucket \"key\" {text}"));
    for slot in inline_slots(page).map_err(wrong)? {
        let revision = Revision::parse(&page[slot.key.clone()])
            .ok_or_else(|| wrong("holds a key that is no revision"))?;
        let record = Record::parse(&page[slot.value.clone()])
            .ok_or_else(|| wrong("holds an entry that is no record"))?;
        count.revisions += 1;
        count.revision = count.revision.max(revision.main);
        let change = match record {
            Record { key: [], .. } => Change::None,
            _ if revision.is_tombstone => Change::Remove,
            Record { version: 1, .. } => Change::Create,
            _ => Change::Put,
        };
        let resource = pages.resources.id(record.key);
        count.add(resource, change, revision.main <= compacted);
        if let Some((provider, key)) = encryption(record.value) {
            let name = format!("{provider}:{key}");
            let known = pages.encryption.iter().position(|known| *known == name);
            let number = known.unwrap_or_else(|| {
                pages.encryption.push(name);
                pages.encryption.len() - 1
            });
            let number = u8::try_from(number).unwrap_or(u8::MAX);
            if !count.encryption.contains(&number) {
                count.encryption.push(number);
            }
        }
    }
    Ok(())
}

fn inline_slots(page: &[u8]) -> Result<Vec<LeafSlot>, &'static str> {
    let header = Header::parse(page).filter(|header| header.kind == LEAF);
    let mut slots = Vec::new();
    leaf_slots(
        page,
        header.ok_or("is no leaf")?.count,
        page.len(),
        &mut slots,
    )?;
    Ok(slots)
}

/// Reads a small bucket; false where its page was not kept.
fn read_small(
    pages: &Candidates,
    bucket: &Bucket,
    take: &mut dyn FnMut(&[u8], &[u8]) -> Told,
) -> Result<bool> {
    let page = match bucket {
        Bucket::Inline(page) => page.as_slice(),
        Bucket::Tree(root) => {
            let is_whole = pages
                .notes
                .get(*root)
                .is_some_and(|(kind, note)| kind == Kind::Leaf && note.overflow == 0);
            match pages.kept(*root).filter(|_| is_whole) {
                Some(page) => page,
                None => return Ok(false),
            }
        }
    };
    let slots = inline_slots(page).map_err(|text| damaged(format!("a small bucket {text}")))?;
    for slot in slots.iter().take(MOST_ENTRIES) {
        take(&page[slot.key.clone()], &page[slot.value.clone()])
            .map_err(|text| damaged(format!("an entry of a small bucket {text}")))?;
    }
    Ok(true)
}

impl Judge<'_> {
    /// The buckets, from the bucket of buckets: a leaf, or a branch of leaves.
    fn buckets(&mut self, root: u64) -> Result<BTreeMap<Vec<u8>, Bucket>> {
        let mut leaves = Vec::new();
        self.tree(root, 0, &mut |id, _, note| {
            leaves.push((id, note.overflow));
            Ok(())
        })?;
        let mut found = BTreeMap::new();
        for (id, overflow) in leaves {
            let page = self.pages.kept(id).filter(|_| overflow == 0);
            let page = page.ok_or_else(|| unread("its bucket of buckets is too large"))?;
            let slots = inline_slots(page).map_err(|text| damaged(format!("page {id} {text}")))?;
            for slot in slots {
                let bucket = Bucket::parse(&page[slot.value]).filter(|_| slot.is_bucket);
                let bucket = bucket
                    .ok_or_else(|| damaged(format!("page {id} holds something but buckets")))?;
                found.insert(page[slot.key].to_vec(), bucket);
                if found.len() > MOST_BUCKETS {
                    return Err(damaged("it has more buckets than etcd makes"));
                }
            }
        }
        Ok(found)
    }

    /// Every leaf below a page, in order.
    fn tree(
        &mut self,
        id: u64,
        depth: usize,
        leaf: &mut dyn FnMut(u64, Kind, &Note) -> Result<()>,
    ) -> Result<()> {
        let page = |text: &str| damaged(format!("page {id} {text}"));
        let pages = self.pages;
        let Some((kind, note)) = pages.notes.get(id).filter(|_| id < self.high_water) else {
            return Err(page("is outside the database"));
        };
        if depth == MOST_DEPTH {
            return Err(page("is deeper than a tree can be"));
        }
        self.take(id, note.overflow).map_err(page)?;
        match kind {
            Kind::Nothing => Err(page("is no leaf and no branch")),
            Kind::Bad(fault) => Err(page(fault)),
            Kind::Leaf | Kind::Revisions | Kind::Unread => leaf(id, kind, note),
            Kind::Branch => {
                let Some(packed) = note.packed else {
                    return Err(page("is a branch without children"));
                };
                let mut read = pages.children.read(packed);
                let mut child = 0_u64;
                for _ in 0..note.count {
                    let difference = read.next();
                    let sign = (difference & 1).wrapping_neg();
                    child = child.wrapping_add((difference >> 1) ^ sign);
                    self.tree(child, depth + 1, leaf)?;
                }
                Ok(())
            }
        }
    }

    fn take(&mut self, id: u64, overflow: u32) -> Result<(), &'static str> {
        let end = id + u64::from(overflow);
        if end >= self.high_water {
            return Err("reaches beyond the database");
        }
        for page in id..=end {
            let word = &mut self.used[(page / 64) as usize];
            if *word & (1 << (page % 64)) != 0 {
                return Err("is used twice");
            }
            *word |= 1 << (page % 64);
        }
        self.reached += u64::from(overflow) + 1;
        Ok(())
    }
}
