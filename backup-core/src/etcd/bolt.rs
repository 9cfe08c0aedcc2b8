//! bbolt's pages, read and never written: metas, leaves, branches, the buckets in them. Pure: bytes in, values out. Every length and
//! every position is checked against what is there; elements that overlap are refused, so that no page costs more than its bytes.
//!
//! The format (all numbers little endian) is bbolt's of version 2. A page begins with its own number (8 bytes), its type (2), the count
//! of its elements (2) and the number of pages that follow it as its overflow (4). Where etcd runs, the free list is not stored.

pub(super) mod file;
#[cfg(test)]
pub(super) mod fixture;
pub(super) mod walk;

use std::ops::Range;

/// Bytes of a page's header.
pub(super) const HEADER: usize = 16;

/// Bytes of an element in a page's table.
pub(super) const ELEMENT: usize = 16;

/// Bytes from a meta page's begin that its meta fills.
pub(super) const META: usize = HEADER + 64;

/// Bytes of a bucket's header in the value that holds it.
const BUCKET: usize = 16;

/// Levels of a tree; eight hold more pages than there can be.
pub(super) const MOST_DEPTH: usize = 24;

/// Buckets in the bucket of buckets; etcd makes eleven.
pub(super) const MOST_BUCKETS: usize = 256;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// The page sizes bbolt itself looks for.
pub(super) const PAGE_SIZES: Range<u32> = 1 << 10..(16 << 20) + 1;

/// What a page is.
pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META_PAGE: u16 = 0x04;

/// The element holds a bucket.
const IS_BUCKET: u32 = 0x01;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The first 16 bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The page's own number.
    pub id: u64,
    /// What it is.
    pub kind: u16,
    /// How many elements it has.
    pub count: u16,
    /// How many pages follow that are part of it.
    pub overflow: u32,
}

impl Header {
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(page, 0)?,
            kind: u16_at(page, 8)?,
            count: u16_at(page, 10)?,
            overflow: u32_at(page, 12)?,
        })
    }
}

/// Where a database begins, at one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Bytes of a page.
    pub page_size: u32,
    /// The root page of the bucket of buckets.
    pub root: u64,
    /// Pages from here on were never used.
    pub high_water: u64,
    /// The transaction that wrote it.
    pub transaction: u64,
}

impl Meta {
    /// A meta whose checksum is right, out of the beginning of a page.
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        let meta = page.get(HEADER..META)?;
        let is_ours = u32_at(meta, 0)? == MAGIC && u32_at(meta, 4)? == VERSION;
        if !is_ours || fnv1a(meta.get(..56)?) != u64_at(meta, 56)? {
            return None;
        }
        let page_size = u32_at(meta, 8)?;
        if !page_size.is_power_of_two() || !PAGE_SIZES.contains(&page_size) {
            return None;
        }
        Some(Self {
            page_size,
            root: u64_at(meta, 16)?,
            high_water: u64_at(meta, 40)?,
            transaction: u64_at(meta, 48)?,
        })
    }
}

/// The newer of two.
pub(super) fn newest(a: Option<Meta>, b: Option<Meta>) -> Option<Meta> {
    match (a, b) {
        (Some(a), Some(b)) if b.transaction > a.transaction => Some(b),
        (a, b) => a.or(b),
    }
}

/// FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// An element of a leaf, as places in its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeafSlot {
    /// Whether the value is a bucket.
    pub is_bucket: bool,
    /// Its key.
    pub key: Range<usize>,
    /// Its value.
    pub value: Range<usize>,
}

/// An element of a branch, as a place in its page and a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BranchSlot {
    /// The child's first key, when it was written.
    pub key: Range<usize>,
    /// The child.
    pub child: u64,
}

/// What is wrong with a page; ends a sentence that begins with the page.
pub(super) type Fault = &'static str;

/// The table of a leaf with `count` elements whose data lies within `size` bytes from the page's begin. `page` must hold the table, and
/// may end before the data does.
pub(super) fn leaf_slots(
    page: &[u8],
    count: u16,
    size: usize,
    slots: &mut Vec<LeafSlot>,
) -> Result<(), Fault> {
    slots.clear();
    let mut free = HEADER + ELEMENT * usize::from(count);
    if free > size.min(page.len()) {
        return Err("has more elements than fit");
    }
    for index in 0..usize::from(count) {
        let at = HEADER + ELEMENT * index;
        let (flags, pos, key, value) = element(page, at).ok_or("ends in its table")?;
        let begin = at + pos as usize;
        let middle = begin + key as usize;
        let end = middle + value as usize;
        if begin < free || end > size {
            return Err("has an element outside its bounds");
        }
        if key == 0 {
            return Err("has an element without a key");
        }
        free = end;
        slots.push(LeafSlot {
            is_bucket: flags & IS_BUCKET != 0,
            key: begin..middle,
            value: middle..end,
        });
    }
    Ok(())
}

fn element(page: &[u8], at: usize) -> Option<(u32, u32, u32, u32)> {
    Some((
        u32_at(page, at)?,
        u32_at(page, at + 4)?,
        u32_at(page, at + 8)?,
        u32_at(page, at + 12)?,
    ))
}

/// The table of a branch, as [`leaf_slots`] gives that of a leaf.
pub(super) fn branch_slots(
    page: &[u8],
    count: u16,
    size: usize,
    slots: &mut Vec<BranchSlot>,
) -> Result<(), Fault> {
    slots.clear();
    let mut free = HEADER + ELEMENT * usize::from(count);
    if free > size.min(page.len()) {
        return Err("has more elements than fit");
    }
    if count == 0 {
        return Err("is a branch without children");
    }
    for index in 0..usize::from(count) {
        let at = HEADER + ELEMENT * index;
        let pos = u32_at(page, at).ok_or("ends in its table")?;
        let key = u32_at(page, at + 4).ok_or("ends in its table")?;
        let child = u64_at(page, at + 8).ok_or("ends in its table")?;
        let begin = at + pos as usize;
        let end = begin + key as usize;
        if begin < free || end > size {
            return Err("has an element outside its bounds");
        }
        free = end;
        slots.push(BranchSlot {
            key: begin..end,
            child,
        });
    }
    Ok(())
}

/// Where a bucket's elements are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    /// In a tree of pages below this one.
    Tree(u64),
    /// In a leaf that stands in the value itself.
    Inline(Vec<u8>),
}

impl Bucket {
    /// Out of the value of an element that holds a bucket.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        match u64_at(value, 0)? {
            0 => {
                let page = value.get(BUCKET..)?;
                Header::parse(page)?;
                Some(Self::Inline(page.to_vec()))
            }
            root => {
                value.get(..BUCKET)?;
                Some(Self::Tree(root))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(elements: &[(u32, u32, u32, u32)], data: &[u8]) -> Vec<u8> {
        let mut page = vec![0; HEADER];
        for (flags, pos, key, value) in elements {
            for number in [flags, pos, key, value] {
                page.extend_from_slice(&number.to_le_bytes());
            }
        }
        page.extend_from_slice(data);
        page
    }

    #[test]
    fn the_table_of_a_leaf_is_read_and_positions_count_from_the_element() {
        let page = leaf(&[(0, 32, 1, 2), (1, 19, 2, 0)], b"abcde");
        let mut slots = Vec::new();
        leaf_slots(&page, 2, page.len(), &mut slots).unwrap();
        assert_eq!(&page[slots[0].key.clone()], b"a");
        assert_eq!(&page[slots[0].value.clone()], b"bc");
        assert_eq!(&page[slots[1].key.clone()], b"de");
        assert!(slots[1].is_bucket && slots[1].value.is_empty());
    }

    #[test]
    fn elements_that_leave_the_page_or_overlap_are_refused() {
        let mut slots = Vec::new();
        for (elements, data) in [
            (vec![(0, 16, 1, 3)], &b"abc"[..]),
            (vec![(0, 16, 4, 0)], b"abc"),
            (vec![(0, 15, 1, 1)], b"abc"),
            (vec![(0, u32::MAX, u32::MAX, u32::MAX)], b"abc"),
            (vec![(0, 32, 2, 1), (0, 16, 1, 1)], b"abc"),
            (vec![(0, 16, 0, 1)], b"abc"),
        ] {
            let page = leaf(&elements, data);
            assert!(
                leaf_slots(&page, elements.len() as u16, page.len(), &mut slots).is_err(),
                "{elements:?}"
            );
        }
        let page = leaf(&[], b"");
        assert!(leaf_slots(&page, 1, page.len(), &mut slots).is_err());
        assert!(leaf_slots(&page, u16::MAX, 1 << 30, &mut slots).is_err());
        assert!(leaf_slots(&page, 0, page.len(), &mut slots).is_ok());
        assert!(branch_slots(&page, 0, page.len(), &mut Vec::new()).is_err());
    }

    #[test]
    fn a_meta_with_a_wrong_byte_is_none() {
        let page = fixture::meta_page(0, 4096, 3, 10, 7);
        let meta = Meta::parse(&page).unwrap();
        assert_eq!(
            (meta.page_size, meta.root, meta.high_water, meta.transaction),
            (4096, 3, 10, 7)
        );
        for at in HEADER..META {
            let mut bent = page.clone();
            bent[at] ^= 1;
            assert_eq!(Meta::parse(&bent), None, "byte {at}");
        }
        assert_eq!(Meta::parse(&page[..META - 1]), None);
    }
}
