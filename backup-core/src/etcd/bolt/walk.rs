//! Walks the trees of a file, from the first key to the last or the other way, and checks on the way what bbolt keeps to: keys in order
//! inside a page and over pages, children within their parent's bounds, no page used twice, none outside the database. What is wrong
//! ends the walk, or is noted and passed over. The work is bounded by the file's size, the memory by one path from root to leaf.

use std::cmp::Ordering;
use std::mem;

use super::file::{MOST_PAGE, PageFault, PageFile};
use super::{
    BRANCH, BranchSlot, Bucket, Header, LeafSlot, MOST_BUCKETS, MOST_DEPTH, branch_slots,
    leaf_slots,
};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Problems that are written out; the rest is counted.
const MOST_PROBLEMS: usize = 50;

/// Buffers above this are not kept for the next page.
const SPARE: usize = 1 << 20;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::etcd) enum Order {
    Ascending,
    Descending,
}

/// An element that holds no bucket.
#[derive(Clone, Copy, Debug)]
pub(in crate::etcd) struct Entry<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Looks at an entry; an error is what is wrong with it, as the end of a sentence about it.
pub(in crate::etcd) type Each<'a> = &'a mut dyn FnMut(Entry<'_>) -> Result<(), String>;

/// What happens to a problem.
#[derive(Debug)]
pub(in crate::etcd) enum Problems {
    /// It ends the walk.
    Fatal,
    /// It is noted.
    Noted { texts: Vec<String>, more: u64 },
}

impl Problems {
    pub(in crate::etcd) fn noted() -> Self {
        Self::Noted {
            texts: Vec::new(),
            more: 0,
        }
    }

    pub(in crate::etcd) fn add(&mut self, file: &str, text: String) -> Result<()> {
        match self {
            Self::Fatal => Err(Error::corrupt(format!("{file} is damaged: {text}"))
                .hint("`etcd-launcher verify` lists everything that is wrong with it")),
            Self::Noted { texts, more } => {
                if texts.len() < MOST_PROBLEMS {
                    texts.push(text);
                } else {
                    *more += 1;
                }
                Ok(())
            }
        }
    }

    /// A sentence each, and one about those that were only counted.
    pub(in crate::etcd) fn into_texts(self) -> Vec<String> {
        match self {
            Self::Fatal => Vec::new(),
            Self::Noted { mut texts, more } => {
                if more > 0 {
                    texts.push(format!("and {more} more"));
                }
                texts
            }
        }
    }
}

/// A walk over the trees of one file.
pub(in crate::etcd) struct Walker<'a> {
    file: &'a PageFile,
    progress: &'a dyn Progress,
    /// What was wrong so far.
    pub problems: Problems,
    /// A bit per page.
    used: Vec<u64>,
    /// Bytes of the pages that were reached, the metas included.
    pub reached: u64,
    /// Bytes of the branches on the way from the root to here.
    held: u64,
    spare: Vec<Vec<u8>>,
    bucket: String,
    order: Order,
    last: Option<Vec<u8>>,
}

/// What a child's keys must lie within: from here on, and before there.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    from: &'a [u8],
    before: Option<&'a [u8]>,
}

impl<'a> Walker<'a> {
    pub(in crate::etcd) fn new(
        file: &'a PageFile,
        problems: Problems,
        progress: &'a dyn Progress,
    ) -> Self {
        let pages = file.meta().high_water;
        Self {
            file,
            progress,
            problems,
            used: vec![0; pages.div_ceil(64) as usize],
            reached: 2 * u64::from(file.meta().page_size),
            held: 0,
            spare: Vec::new(),
            bucket: String::new(),
            order: Order::Ascending,
            last: None,
        }
    }

    /// Notes what is wrong, or fails with it.
    pub(in crate::etcd) fn problem(&mut self, text: String) -> Result<()> {
        self.problems.add(self.file.name(), text)
    }

    /// The buckets of the file by name, in the order of their names. What is wrong with one ends no more than that.
    ///
    /// # Errors
    /// When the file can not be read, and where problems are fatal.
    pub(in crate::etcd) fn buckets(&mut self) -> Result<Vec<(Vec<u8>, Bucket)>> {
        let mut found: Vec<(Vec<u8>, Bucket)> = Vec::new();
        let root = Bucket::Tree(self.file.meta().root);
        self.walk(
            "the bucket of buckets",
            &root,
            Order::Ascending,
            true,
            &mut |entry| {
                if found.len() == MOST_BUCKETS {
                    return Err("is one of more buckets than etcd makes".to_owned());
                }
                let bucket = Bucket::parse(entry.value).ok_or("holds no bucket")?;
                found.push((entry.key.to_vec(), bucket));
                Ok(())
            },
        )?;
        Ok(found)
    }

    /// Every entry of a bucket.
    ///
    /// # Errors
    /// When the file can not be read, and where problems are fatal.
    pub(in crate::etcd) fn bucket(
        &mut self,
        name: &str,
        bucket: &Bucket,
        order: Order,
        each: Each<'_>,
    ) -> Result<()> {
        self.walk(name, bucket, order, false, each)
    }

    /// The last key of a bucket, by one path down its tree; what was walked before counts as used, so this is the only walk of a walker.
    ///
    /// # Errors
    /// As [`Walker::bucket`].
    pub(in crate::etcd) fn last_key(&mut self, bucket: &Bucket) -> Result<Option<Vec<u8>>> {
        let mut page = Vec::new();
        let mut next = match bucket {
            Bucket::Inline(bytes) => {
                page.clone_from(bytes);
                None
            }
            Bucket::Tree(root) => Some(*root),
        };
        for _ in 0..MOST_DEPTH {
            let header = match next.map(|id| self.file.page(id, &mut page)) {
                None => Header::parse(&page),
                Some(Ok(header)) => Some(header),
                Some(Err(PageFault::Io(error))) => return Err(error),
                Some(Err(PageFault::Bad(text))) => {
                    self.bad_page(next.unwrap_or_default(), &text)?;
                    return Ok(None);
                }
            };
            let Some(header) = header else { break };
            if header.kind != BRANCH {
                let mut slots = Vec::new();
                if let Err(text) = leaf_slots(&page, header.count, page.len(), &mut slots) {
                    self.bad_page(next.unwrap_or_default(), text)?;
                }
                return Ok(slots.last().map(|slot| page[slot.key.clone()].to_vec()));
            }
            let mut slots = Vec::new();
            if let Err(text) = branch_slots(&page, header.count, page.len(), &mut slots) {
                self.bad_page(next.unwrap_or_default(), text)?;
            }
            let Some(last) = slots.last() else { break };
            next = Some(last.child);
        }
        self.bad_page(next.unwrap_or_default(), "is deeper than a tree can be")?;
        Ok(None)
    }

    fn walk(
        &mut self,
        name: &str,
        bucket: &Bucket,
        order: Order,
        holds_buckets: bool,
        each: Each<'_>,
    ) -> Result<()> {
        name.clone_into(&mut self.bucket);
        self.order = order;
        self.last = None;
        let all = Bounds {
            from: &[],
            before: None,
        };
        match bucket {
            Bucket::Tree(root) => self.subtree(*root, all, 0, holds_buckets, each),
            Bucket::Inline(page) => {
                let Some(header) = Header::parse(page).filter(|header| header.kind == super::LEAF)
                else {
                    return self.problem(format!("bucket {name:?} is no leaf"));
                };
                self.leaf(None, page, header.count, all, holds_buckets, each)
            }
        }
    }

    fn subtree(
        &mut self,
        id: u64,
        bounds: Bounds<'_>,
        depth: usize,
        holds_buckets: bool,
        each: Each<'_>,
    ) -> Result<()> {
        let mut page = self.spare.pop().unwrap_or_default();
        let header = match self.file.page(id, &mut page) {
            Ok(header) => header,
            Err(PageFault::Io(error)) => return Err(error),
            Err(PageFault::Bad(text)) => return self.bad_page(id, &text),
        };
        if depth == MOST_DEPTH {
            return self.bad_page(id, "is deeper than a tree can be");
        }
        if !self.take(id, header.overflow) {
            return self.bad_page(id, "is used twice");
        }
        self.reached += page.len() as u64;
        self.progress.done(0, page.len() as u64);
        if header.kind == BRANCH {
            self.held += page.len() as u64;
            if self.held > MOST_PAGE {
                self.bad_page(id, "is a branch of branches that are too large")?;
            } else {
                self.branch(id, &page, header.count, bounds, depth, holds_buckets, each)?;
            }
            self.held -= page.len() as u64;
        } else {
            self.leaf(Some(id), &page, header.count, bounds, holds_buckets, each)?;
        }
        if page.capacity() <= SPARE {
            self.spare.push(page);
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the state of a recursion")]
    fn branch(
        &mut self,
        id: u64,
        page: &[u8],
        count: u16,
        bounds: Bounds<'_>,
        depth: usize,
        holds_buckets: bool,
        each: Each<'_>,
    ) -> Result<()> {
        let mut slots: Vec<BranchSlot> = Vec::new();
        if let Err(text) = branch_slots(page, count, page.len(), &mut slots) {
            return self.bad_page(id, text);
        }
        let key = |index: usize| slots.get(index).map(|slot| &page[slot.key.clone()]);
        // A branch whose keys are not in order leads nowhere that can be judged.
        let in_order = (1..slots.len()).all(|index| key(index - 1) < key(index));
        let within = key(0).is_none_or(|first| first >= bounds.from)
            && match (bounds.before, key(slots.len() - 1)) {
                (Some(before), Some(last)) => last < before,
                _ => true,
            };
        if !in_order {
            return self.bad_page(id, "has keys out of order");
        }
        if !within {
            self.bad_page(id, "has keys outside its parent's bounds")?;
        }
        let mut indices: Vec<usize> = (0..slots.len()).collect();
        if self.order == Order::Descending {
            indices.reverse();
        }
        for index in indices {
            let child = Bounds {
                from: key(index).unwrap_or_default(),
                before: key(index + 1).or(bounds.before),
            };
            self.subtree(slots[index].child, child, depth + 1, holds_buckets, each)?;
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        id: Option<u64>,
        page: &[u8],
        count: u16,
        bounds: Bounds<'_>,
        holds_buckets: bool,
        each: Each<'_>,
    ) -> Result<()> {
        let mut slots: Vec<LeafSlot> = Vec::new();
        if let Err(text) = leaf_slots(page, count, page.len(), &mut slots) {
            let text = format!("{} of bucket {:?} {text}", place(id), self.bucket);
            return self.problem(text);
        }
        if self.order == Order::Descending {
            slots.reverse();
        }
        let mut last = mem::take(&mut self.last);
        let wanted = match self.order {
            Order::Ascending => Ordering::Less,
            Order::Descending => Ordering::Greater,
        };
        for slot in &slots {
            let entry = Entry {
                key: &page[slot.key.clone()],
                value: &page[slot.value.clone()],
            };
            let mut wrong = None;
            if last
                .as_deref()
                .is_some_and(|last| last.cmp(entry.key) != wanted)
            {
                wrong = Some("is out of order".to_owned());
            } else if entry.key < bounds.from
                || bounds.before.is_some_and(|before| entry.key >= before)
            {
                wrong = Some("is outside the bounds of its page".to_owned());
            } else if slot.is_bucket != holds_buckets {
                let what = if holds_buckets { "no" } else { "a" };
                wrong = Some(format!("is {what} bucket"));
            }
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(entry.key);
            if let Some(text) = wrong.or_else(|| each(entry).err()) {
                self.problem(format!(
                    "key {} in {} of bucket {:?} {text}",
                    shown(entry.key),
                    place(id),
                    self.bucket
                ))?;
            }
        }
        self.last = last;
        Ok(())
    }

    fn bad_page(&mut self, id: u64, text: &str) -> Result<()> {
        let text = format!("page {id} of bucket {:?} {text}", self.bucket);
        self.problem(text)
    }

    /// Whether none of these pages was used before; they are now.
    fn take(&mut self, id: u64, overflow: u32) -> bool {
        let pages = id..=id + u64::from(overflow);
        let is_free = pages.clone().all(|page| {
            let word = self.used.get((page / 64) as usize);
            word.is_some_and(|word| word & (1 << (page % 64)) == 0)
        });
        if is_free {
            for page in pages {
                self.used[(page / 64) as usize] |= 1 << (page % 64);
            }
        }
        is_free
    }
}

fn place(id: Option<u64>) -> String {
    id.map_or_else(|| "the value".to_owned(), |id| format!("page {id}"))
}

/// A key for messages: as text where it is text, else in hexadecimal digits, and not all of it.
fn shown(key: &[u8]) -> String {
    const MOST: usize = 64;
    let cut = &key[..key.len().min(MOST)];
    let dots = if key.len() > MOST { ".." } else { "" };
    if cut.iter().all(|byte| byte.is_ascii_graphic()) {
        format!("{:?}{dots}", String::from_utf8_lossy(cut))
    } else {
        let digits: String = cut.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digits}{dots}")
    }
}
