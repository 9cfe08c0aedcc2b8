//! Tiny databases for tests: a writer of bbolt's format that is no part of the product, and a history of keys as etcd would write it.

use std::collections::BTreeMap;

use super::{BRANCH, ELEMENT, HEADER, LEAF, META_PAGE, fnv1a};

/// A key of bucket `key`.
pub(in crate::etcd) fn revision(main: i64, sub: i64, is_tombstone: bool) -> Vec<u8> {
    let mark: &[u8] = if is_tombstone { b"t" } else { b"" };
    [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes(), mark].concat()
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A record, as etcd writes it: numbers of 0 and empty bytes are left out.
pub(in crate::etcd) fn record(key: &[u8], numbers: [i64; 3], value: &[u8], lease: i64) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = |tag: u8, bytes: &[u8], out: &mut Vec<u8>| {
        if !bytes.is_empty() {
            out.push(tag);
            varint(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
    };
    let number = |tag: u8, number: i64, out: &mut Vec<u8>| {
        if number != 0 {
            out.push(tag);
            varint(number.cast_unsigned(), out);
        }
    };
    bytes(0x0a, key, &mut out);
    number(0x10, numbers[0], &mut out);
    number(0x18, numbers[1], &mut out);
    number(0x20, numbers[2], &mut out);
    bytes(0x2a, value, &mut out);
    number(0x30, lease, &mut out);
    out
}

/// A meta page of a whole page's size.
pub(in crate::etcd) fn meta_page(
    id: u64,
    page_size: u32,
    root: u64,
    high_water: u64,
    transaction: u64,
) -> Vec<u8> {
    let mut meta = Vec::new();
    for number in [0xED0C_DAED, 2, page_size, 0] {
        meta.extend_from_slice(&u32::to_le_bytes(number));
    }
    for number in [root, 0, u64::MAX, high_water, transaction] {
        meta.extend_from_slice(&number.to_le_bytes());
    }
    let checksum = fnv1a(&meta);
    meta.extend_from_slice(&checksum.to_le_bytes());
    let mut page = header(id, META_PAGE, 0, 0);
    page.extend_from_slice(&meta);
    page.resize(page_size as usize, 0);
    page
}

pub(in crate::etcd) fn header(id: u64, kind: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut page = id.to_le_bytes().to_vec();
    page.extend_from_slice(&kind.to_le_bytes());
    page.extend_from_slice(&count.to_le_bytes());
    page.extend_from_slice(&overflow.to_le_bytes());
    page
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// A page before it has a number.
enum Node {
    Leaf(Vec<(u32, Vec<u8>, Value)>),
    Branch(Vec<(Vec<u8>, usize)>),
}

/// A value, or a bucket whose root is a node.
enum Value {
    Bytes(Vec<u8>),
    Bucket(usize),
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Bucket(_) => 16,
        }
    }
}

impl Node {
    fn size(&self) -> usize {
        HEADER
            + match self {
                Self::Leaf(elements) => elements
                    .iter()
                    .map(|(_, key, value)| ELEMENT + key.len() + value.len())
                    .sum::<usize>(),
                Self::Branch(elements) => elements.iter().map(|(key, _)| ELEMENT + key.len()).sum(),
            }
    }

    fn write(&self, id: u64, overflow: u32, ids: &[u64]) -> Vec<u8> {
        let (kind, count) = match self {
            Self::Leaf(elements) => (LEAF, elements.len()),
            Self::Branch(elements) => (BRANCH, elements.len()),
        };
        let mut page = header(id, kind, count as u16, overflow);
        let mut data = Vec::new();
        let pos = |index: usize, data: &Vec<u8>| (ELEMENT * (count - index) + data.len()) as u32;
        match self {
            Self::Leaf(elements) => {
                for (index, (flags, key, value)) in elements.iter().enumerate() {
                    for number in [
                        *flags,
                        pos(index, &data),
                        key.len() as u32,
                        value.len() as u32,
                    ] {
                        page.extend_from_slice(&number.to_le_bytes());
                    }
                    data.extend_from_slice(key);
                    match value {
                        Value::Bytes(bytes) => data.extend_from_slice(bytes),
                        Value::Bucket(root) => {
                            data.extend_from_slice(&ids[*root].to_le_bytes());
                            data.extend_from_slice(&0_u64.to_le_bytes());
                        }
                    }
                }
            }
            Self::Branch(elements) => {
                for (index, (key, child)) in elements.iter().enumerate() {
                    page.extend_from_slice(&pos(index, &data).to_le_bytes());
                    page.extend_from_slice(&(key.len() as u32).to_le_bytes());
                    page.extend_from_slice(&ids[*child].to_le_bytes());
                    data.extend_from_slice(key);
                }
            }
        }
        page.extend_from_slice(&data);
        page
    }
}

/// A database to be.
#[derive(Clone, Debug)]
pub(in crate::etcd) struct Build {
    pub page_size: u32,
    /// Most elements of a page; few make deep trees.
    pub most: usize,
    /// Mixes the order of pages, and puts that many free pages with stale content between them.
    pub seed: u64,
    pub free: usize,
    pub with_trailer: bool,
    pub buckets: BTreeMap<Vec<u8>, Entries>,
}

impl Build {
    pub(in crate::etcd) fn new() -> Self {
        let buckets = [
            "alarm", "auth", "cluster", "key", "lease", "members", "meta",
        ];
        Self {
            page_size: 4096,
            most: 64,
            seed: 0,
            free: 0,
            with_trailer: true,
            buckets: buckets.map(|name| (name.into(), Vec::new())).into(),
        }
    }

    pub(in crate::etcd) fn put(mut self, bucket: &str, key: &[u8], value: &[u8]) -> Self {
        let entries = self.buckets.entry(bucket.into()).or_default();
        entries.push((key.to_vec(), value.to_vec()));
        entries.sort();
        self
    }

    pub(in crate::etcd) fn history(mut self, history: &History) -> Self {
        self.buckets
            .insert(b"key".to_vec(), history.entries.clone());
        if history.compacted > 0 {
            let revision = revision(history.compacted, 0, false);
            self = self.put("meta", b"finishedCompactRev", &revision);
            self = self.put("meta", b"scheduledCompactRev", &revision);
        }
        self
    }

    pub(in crate::etcd) fn bytes(&self) -> Vec<u8> {
        let mut nodes = Vec::new();
        let mut root = Vec::new();
        for (name, entries) in &self.buckets {
            let elements = entries
                .iter()
                .map(|(key, value)| (0, key.clone(), Value::Bytes(value.clone())))
                .collect();
            let leaf = Node::Leaf(elements);
            if leaf.size() <= self.page_size as usize / 4 {
                let inline = [&[0; 16][..], &leaf.write(0, 0, &[])].concat();
                root.push((1, name.clone(), Value::Bytes(inline)));
            } else {
                let Node::Leaf(elements) = leaf else {
                    unreachable!()
                };
                let tree = self.tree(elements, &mut nodes);
                root.push((1, name.clone(), Value::Bucket(tree)));
            }
        }
        let root = self.tree(root, &mut nodes);
        self.place(&nodes, root)
    }

    /// Leaves, and branches above them until one is left; returns its index.
    fn tree(&self, elements: Vec<(u32, Vec<u8>, Value)>, nodes: &mut Vec<Node>) -> usize {
        let page = self.page_size as usize;
        let mut level: Vec<(Vec<u8>, usize)> = Vec::new();
        let mut leaf = Vec::new();
        let mut size = HEADER;
        let mut first = Vec::new();
        let mut elements = elements.into_iter().peekable();
        while let Some((flags, key, value)) = elements.next() {
            if leaf.is_empty() {
                first.clone_from(&key);
            }
            size += ELEMENT + key.len() + value.len();
            leaf.push((flags, key, value));
            let next = elements
                .peek()
                .map_or(0, |(_, key, value)| ELEMENT + key.len() + value.len());
            let is_full = leaf.len() >= self.most || (leaf.len() >= 2 && size + next > page);
            if is_full || elements.peek().is_none() {
                level.push((std::mem::take(&mut first), nodes.len()));
                nodes.push(Node::Leaf(std::mem::take(&mut leaf)));
                size = HEADER;
            }
        }
        if level.is_empty() {
            nodes.push(Node::Leaf(Vec::new()));
            return nodes.len() - 1;
        }
        while level.len() > 1 {
            // As many as fit a page: their keys have 18 bytes at most.
            let fan = self.most.min((page - HEADER) / (ELEMENT + 18)).max(2);
            level = level
                .chunks(fan)
                .map(|chunk| {
                    nodes.push(Node::Branch(chunk.to_vec()));
                    (chunk[0].0.clone(), nodes.len() - 1)
                })
                .collect();
        }
        level[0].1
    }

    fn place(&self, nodes: &[Node], root: usize) -> Vec<u8> {
        let page = self.page_size as usize;
        // What is placed, and in which order: nodes, and free pages that repeat one of them.
        let mut order: Vec<(usize, bool)> = (0..nodes.len()).map(|index| (index, true)).collect();
        order.extend((0..self.free).map(|index| (index % nodes.len(), false)));
        if self.seed > 0 {
            let mut state = self.seed;
            for index in (1..order.len()).rev() {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                order.swap(index, (state >> 33) as usize % (index + 1));
            }
        }
        let mut ids = vec![0; nodes.len()];
        let mut next = 2;
        let mut starts = Vec::new();
        for (index, is_used) in &order {
            starts.push(next);
            if *is_used {
                ids[*index] = next;
            }
            next += nodes[*index].size().div_ceil(page) as u64;
        }
        let mut bytes = Vec::new();
        for (id, transaction) in [(0, 8), (1, 7)] {
            bytes.extend(meta_page(id, self.page_size, ids[root], next, transaction));
        }
        for ((index, _), start) in order.iter().zip(starts) {
            let pages = nodes[*index].size().div_ceil(page);
            let mut written = nodes[*index].write(start, pages as u32 - 1, &ids);
            written.resize(pages * page, 0);
            bytes.extend(written);
        }
        if self.with_trailer {
            seal(&mut bytes);
        }
        bytes
    }
}

/// Appends the trailer.
pub(in crate::etcd) fn seal(bytes: &mut Vec<u8>) {
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    bytes.extend_from_slice(sha256.as_ref());
}

/// What etcd would have written: changes one after the other, and compactions.
#[derive(Clone, Debug, Default)]
pub(in crate::etcd) struct History {
    pub entries: Entries,
    pub live: BTreeMap<Vec<u8>, [i64; 2]>,
    pub revision: i64,
    pub compacted: i64,
}

impl History {
    pub(in crate::etcd) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.revision = self.revision.max(1) + 1;
        let now = self.revision;
        let state = self.live.entry(key.to_vec()).or_insert([now, 0]);
        state[1] += 1;
        let numbers = [state[0], now, state[1]];
        let entry = (revision(now, 0, false), record(key, numbers, value, 0));
        self.entries.push(entry);
    }

    pub(in crate::etcd) fn delete(&mut self, key: &[u8]) {
        if self.live.remove(key).is_some() {
            self.revision += 1;
            let entry = (
                revision(self.revision, 0, true),
                record(key, [0; 3], b"", 0),
            );
            self.entries.push(entry);
        }
    }

    /// As etcd does: of what is not newer, the newest of each key stays unless it is a removal before the revision itself.
    pub(in crate::etcd) fn compact(&mut self, at: i64) {
        use crate::etcd::entry::{Record, Revision};
        let mut newest: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let key_of = |value: &[u8]| Record::parse(value).unwrap().key.to_vec();
        let main = |key: &[u8]| Revision::parse(key).unwrap().main;
        for (key, value) in &self.entries {
            if main(key) <= at {
                newest.insert(key_of(value), key.clone());
            }
        }
        self.entries.retain(|(key, value)| {
            let revision = Revision::parse(key).unwrap();
            revision.main > at
                || (newest[&key_of(value)] == *key
                    && (!revision.is_tombstone || revision.main == at))
        });
        self.compacted = at;
    }
}
