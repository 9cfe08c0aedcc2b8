//! Takes the pages as they go by. Whether one is used is not known yet: each block is looked at as if it were, also those inside the overflow
//! of another one, for that overflow may be a stale claim.

use std::collections::{BTreeMap, VecDeque};

use super::super::bolt::file::MOST_PAGE;
use super::super::bolt::{
    BRANCH, Bucket, ELEMENT, Fault, HEADER, Header, LEAF, LeafSlot, Meta, branch_slots, leaf_slots,
};
use super::super::buckets::SMALL;
use super::super::entry::{MOST_ENCRYPTION_KEYS, Record, Revision, encryption};
use super::super::resources::Resources;
use super::notes::{Kind, Notes, Pack, pack};

/// Bytes of an entry that are kept until they are looked at: the record's key, its numbers and the prefix of an encrypted value.
const HEAD: usize = 2048;

/// Pages whose overflow is followed at a time, and the elements of all of them.
const MOST_OPEN: usize = 64;
const MOST_OPEN_SLOTS: usize = 1 << 15;

/// Bytes of pages that may hold the small buckets, for each sort of them.
const MOST_RING: usize = 1 << 20;

/// Pages that are known to hold one.
const MOST_WANTED: usize = 64;

/// What an entry does to its key; two bits of a packed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put = 0,
    Create = 1,
    Remove = 2,
    /// The empty key of a bumped restore, which is none.
    None = 3,
}

impl Change {
    pub(super) fn of(code: u64) -> Self {
        match code & 3 {
            0 => Self::Put,
            1 => Self::Create,
            2 => Self::Remove,
            _ => Self::None,
        }
    }
}

/// The pages that went by.
pub(super) struct Candidates {
    page_size: usize,
    pub metas: [Option<Meta>; 2],
    pub notes: Notes,
    /// Of leaves of revisions: see [`Entries::packed`].
    pub entries: Pack,
    /// Of branches: their children, each as the difference to the one before.
    pub children: Pack,
    pub resources: Resources,
    pub encryption: Vec<String>,
    open: Vec<Open>,
    /// Pages that are known to hold a small bucket, by number.
    wanted: BTreeMap<u64, Option<Vec<u8>>>,
    /// Pages that may.
    buckets: Ring,
    members: Ring,
    meta: Ring,
    slots: Vec<LeafSlot>,
}

/// The newest of some pages, as many as fit.
#[derive(Default)]
struct Ring {
    pages: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, id: u64, page: &[u8]) {
        self.bytes += page.len();
        self.pages.push_back((id, page.to_vec()));
        while self.bytes > MOST_RING {
            let Some((_, oldest)) = self.pages.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
    }

    fn get(&self, id: u64) -> Option<&[u8]> {
        let found = self.pages.iter().find(|(page, _)| *page == id);
        found.map(|(_, page)| page.as_slice())
    }
}

/// A leaf whose overflow goes by.
struct Open {
    id: u64,
    size: usize,
    /// Bytes of it that went by.
    passed: usize,
    slots: Vec<LeafSlot>,
    /// The element whose head comes next, and what came of it.
    next: usize,
    head: Vec<u8>,
    entries: Entries,
}

/// What the entries of one leaf come to.
#[derive(Default)]
struct Entries {
    /// Revision, resource and change of each entry.
    list: Vec<(i64, u32)>,
    last: Option<(i64, i64)>,
    encryption: Vec<u8>,
}

impl Entries {
    /// For the judge: number and numbers of the encryption keys, then of each entry, from the last to the first, how far it is from the one
    /// after it, and resource and change.
    fn packed(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 * self.list.len() + 2);
        pack(self.encryption.len() as u64, &mut out);
        out.extend_from_slice(&self.encryption);
        let mut after = self.list.last().map_or(0, |(main, _)| *main);
        for (main, code) in self.list.iter().rev() {
            pack(after.abs_diff(*main), &mut out);
            pack(u64::from(*code), &mut out);
            after = *main;
        }
        out
    }
}

impl Candidates {
    pub(super) fn new(page_size: u32) -> Self {
        Self {
            page_size: page_size as usize,
            metas: [None, None],
            notes: Notes::default(),
            entries: Pack::default(),
            children: Pack::default(),
            resources: Resources::default(),
            encryption: Vec::new(),
            open: Vec::new(),
            wanted: BTreeMap::new(),
            buckets: Ring::default(),
            members: Ring::default(),
            meta: Ring::default(),
            slots: Vec::new(),
        }
    }

    pub(super) fn page_size(&self) -> usize {
        self.page_size
    }

    /// The next page.
    pub(super) fn take(&mut self, page: &[u8]) {
        let id = self.notes.len();
        if id < 2 {
            let meta = Meta::parse(page).filter(|meta| meta.page_size as usize == self.page_size);
            self.metas[id as usize] = meta;
            self.wanted.extend(meta.map(|meta| (meta.root, None)));
            self.notes.push(Kind::Nothing, 0, 0);
            return;
        }
        self.continue_open(page);
        let header = Header::parse(page).filter(|header| header.id == id);
        let (kind, header) = match header {
            Some(header) if header.kind == LEAF => (Kind::Leaf, header),
            Some(header) if header.kind == BRANCH => (Kind::Branch, header),
            _ => {
                self.notes.push(Kind::Nothing, 0, 0);
                return;
            }
        };
        self.notes.push(kind, header.count, header.overflow);
        let size = (u64::from(header.overflow) + 1) * self.page_size as u64;
        let table = HEADER + ELEMENT * usize::from(header.count);
        if header.overflow > 0 && table > page.len() {
            // bbolt splits such pages, but may read them.
            self.notes.set(id, Kind::Unread, 0, None);
            return;
        }
        let result = if size > MOST_PAGE {
            Err("is larger than pages are read")
        } else if kind == Kind::Branch {
            self.branch(&header, page, size as usize)
        } else {
            self.leaf(&header, page, size as usize)
        };
        if let Err(fault) = result {
            self.notes.set(id, Kind::Bad(fault), 0, None);
        }
    }

    fn branch(&mut self, header: &Header, page: &[u8], size: usize) -> Result<(), Fault> {
        let mut slots = Vec::new();
        // Only its table counts here, which is in the first block unless the keys are few and huge.
        branch_slots(page, header.count, size, &mut slots)?;
        let mut out = Vec::with_capacity(2 * slots.len());
        let mut before = 0_u64;
        for slot in &slots {
            let difference = slot.child.wrapping_sub(before).cast_signed();
            pack(
                ((difference << 1) ^ (difference >> 63)).cast_unsigned(),
                &mut out,
            );
            before = slot.child;
        }
        let packed = self.children.keep(&out);
        self.notes.set(header.id, Kind::Branch, 0, packed);
        Ok(())
    }

    fn leaf(&mut self, header: &Header, page: &[u8], size: usize) -> Result<(), Fault> {
        let mut slots = std::mem::take(&mut self.slots);
        let table = leaf_slots(page, header.count, size, &mut slots);
        let done = table.and_then(|()| self.leaf_entries(header, page, size, &slots));
        self.slots = slots;
        done
    }

    fn leaf_entries(
        &mut self,
        header: &Header,
        page: &[u8],
        size: usize,
        slots: &[LeafSlot],
    ) -> Result<(), Fault> {
        self.keep_small(header.id, page, slots);
        // A leaf of revisions shows it by its first key, unless even that lies in the overflow.
        let is_of_revisions = slots.first().is_some_and(|slot| {
            let key = page.get(slot.key.clone());
            !slot.is_bucket
                && key.map_or(matches!(slot.key.len(), 17 | 18), |key| {
                    Revision::parse(key).is_some()
                })
        });
        if !is_of_revisions {
            return Ok(());
        }
        let mut entries = Entries::default();
        if header.overflow > 0 {
            self.open(Open {
                id: header.id,
                size,
                passed: 0,
                slots: slots.to_vec(),
                next: 0,
                head: Vec::new(),
                entries,
            });
            self.continue_newest(page);
            return Ok(());
        }
        for slot in slots {
            let (key, value) = (&page[slot.key.clone()], &page[slot.value.clone()]);
            let record = Record::parse(value).ok_or("holds an entry that is no record")?;
            self.entry(&mut entries, slot, key, &record)?;
        }
        self.close(header.id, &entries);
        Ok(())
    }

    fn entry(
        &mut self,
        entries: &mut Entries,
        slot: &LeafSlot,
        key: &[u8],
        record: &Record<'_>,
    ) -> Result<(), Fault> {
        let revision = Revision::parse(key).ok_or("holds a key that is no revision")?;
        if slot.is_bucket {
            return Err("holds a bucket among revisions");
        }
        let place = (revision.main, revision.sub);
        if entries.last.is_some_and(|last| last >= place) {
            return Err("has keys out of order");
        }
        entries.last = Some(place);
        let change = if record.key.is_empty() {
            Change::None
        } else if revision.is_tombstone {
            Change::Remove
        } else if record.version == 1 {
            Change::Create
        } else {
            Change::Put
        };
        let resource = self.resources.id(record.key) as u32;
        entries
            .list
            .push((revision.main, resource << 2 | change as u32));
        if let Some((provider, key)) = encryption(record.value) {
            let known = self.encryption.iter().position(|known| {
                known
                    .strip_prefix(provider)
                    .and_then(|rest| rest.strip_prefix(':'))
                    == Some(key)
            });
            let number = known.or_else(|| {
                let next = self.encryption.len();
                (next < MOST_ENCRYPTION_KEYS).then(|| {
                    self.encryption.push(format!("{provider}:{key}"));
                    next
                })
            });
            // 64 numbers fit a byte.
            if let Some(number) = number.and_then(|number| u8::try_from(number).ok())
                && !entries.encryption.contains(&number)
            {
                entries.encryption.push(number);
            }
        }
        Ok(())
    }

    fn close(&mut self, id: u64, entries: &Entries) {
        let last = entries.list.last().map_or(0, |(main, _)| *main);
        let packed = self.entries.keep(&entries.packed());
        self.notes.set(id, Kind::Revisions, last, packed);
    }

    /// Keeps the page where it may hold a small bucket, or the bucket of buckets.
    fn keep_small(&mut self, id: u64, page: &[u8], slots: &[LeafSlot]) {
        if let Some(place) = self.wanted.get_mut(&id) {
            *place = Some(page.to_vec());
            // What it says of buckets may still come by.
            for slot in slots.iter().filter(|slot| slot.is_bucket) {
                let (Some(name), Some(value)) =
                    (page.get(slot.key.clone()), page.get(slot.value.clone()))
                else {
                    continue;
                };
                let is_small = SMALL.iter().any(|small| small.name.as_bytes() == name);
                if let Some(Bucket::Tree(root)) = Bucket::parse(value)
                    && is_small
                    && self.wanted.len() < MOST_WANTED
                {
                    self.wanted.entry(root).or_default();
                }
            }
            return;
        }
        let Some(first) = slots.first() else { return };
        let key = page.get(first.key.clone()).unwrap_or_default();
        let value = page.get(first.value.clone()).unwrap_or_default();
        if first.is_bucket {
            self.buckets.push(id, page);
        } else if matches!(key, b"confState" | b"consistent_index") {
            self.meta.push(id, page);
        } else if value.starts_with(b"{\"id\":")
            || matches!(key, b"authEnabled" | b"clusterVersion")
        {
            self.members.push(id, page);
        }
    }

    /// The first block of a page that [`Candidates::keep_small`] kept.
    pub(super) fn kept(&self, id: u64) -> Option<&[u8]> {
        let wanted = self.wanted.get(&id).and_then(Option::as_deref);
        let rings = [&self.buckets, &self.meta, &self.members];
        wanted.or_else(|| rings.iter().find_map(|ring| ring.get(id)))
    }

    /// Follows one more page's overflow, and gives up the oldest one where there are too many.
    fn open(&mut self, open: Open) {
        self.open.push(open);
        let slots = |open: &[Open]| open.iter().map(|open| open.slots.len()).sum::<usize>();
        while self.open.len() > MOST_OPEN
            || (self.open.len() > 1 && slots(&self.open) > MOST_OPEN_SLOTS)
        {
            let given_up = self.open.remove(0);
            self.notes.set(given_up.id, Kind::Unread, 0, None);
        }
    }

    fn continue_open(&mut self, page: &[u8]) {
        let mut open = std::mem::take(&mut self.open);
        open.retain_mut(|open| self.advance(open, page));
        self.open = open;
    }

    fn continue_newest(&mut self, page: &[u8]) {
        if let Some(mut newest) = self.open.pop()
            && self.advance(&mut newest, page)
        {
            self.open.push(newest);
        }
    }

    /// The next block of a leaf with overflow; false when it is done with.
    fn advance(&mut self, open: &mut Open, page: &[u8]) -> bool {
        let from = open.passed;
        open.passed += page.len();
        while let Some(slot) = open.slots.get(open.next).cloned() {
            if !matches!(slot.key.len(), 17 | 18) {
                let fault = "holds a key that is no revision";
                self.notes.set(open.id, Kind::Bad(fault), 0, None);
                return false;
            }
            let end = slot.value.end.min(slot.value.start.saturating_add(HEAD));
            // Elements lie one after the other, so that this begins in this block or in a later one.
            let begin = slot.key.start + open.head.len();
            if begin < open.passed {
                let piece = begin.saturating_sub(from)..end.min(open.passed) - from;
                open.head
                    .extend_from_slice(page.get(piece).unwrap_or_default());
            }
            if slot.key.start + open.head.len() < end {
                break;
            }
            let head = std::mem::take(&mut open.head);
            let (key, value) = head.split_at(slot.key.len());
            let record = Record::parse_head(value, slot.value.len());
            let taken = match record {
                // A key of kilobytes, or no record: what can not be told here is told by a walk over the file.
                None if value.len() < slot.value.len() => {
                    self.notes.set(open.id, Kind::Unread, 0, None);
                    return false;
                }
                None => Err("holds an entry that is no record"),
                Some(record) => self.entry(&mut open.entries, &slot, key, &record),
            };
            if let Err(fault) = taken {
                self.notes.set(open.id, Kind::Bad(fault), 0, None);
                return false;
            }
            open.head = head;
            open.head.clear();
            open.next += 1;
        }
        if open.next == open.slots.len() {
            let entries = std::mem::take(&mut open.entries);
            self.close(open.id, &entries);
            return false;
        }
        open.passed < open.size
    }
}
