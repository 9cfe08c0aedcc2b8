//! A snapshot's tree, entry by entry in the order of a listing, and the blobs of its files. Everything is checked against the digest that names it: rustic
//! authenticates what it reads, but not that it is what was asked for, so whoever writes the bucket could exchange one blob for another.

use std::collections::BTreeMap;
use std::vec::IntoIter;

use bytes::Bytes;
use rustic_core::repofile::{BlobType, Node, PackId, Tree};
use rustic_core::{BlobId, DataId, IndexedFull, Repository, TreeId};

use super::super::entry::{Entry, EntryPath, Order};
use super::node;
use crate::error::{Error, Result};
use crate::location::sha256;

/// No folder is deeper in another.
const DEEPEST: usize = 4096;

/// A blob, which is what its name says.
pub(super) fn blob<S: IndexedFull>(
    repository: &Repository<S>,
    id: &BlobId,
    kind: BlobType,
) -> Result<Bytes> {
    let bytes = repository
        .get_blob_cached(id, kind)
        .map_err(|e| Error::corrupt(super::said(&e)))?;
    let id = id.to_hex();
    if sha256(&bytes) != id.as_str() {
        return Err(Error::corrupt(format!(
            "blob {} is not what was written: its SHA-256 is another",
            id.as_str()
        )));
    }
    Ok(bytes)
}

fn tree<S: IndexedFull>(repository: &Repository<S>, id: TreeId) -> Result<IntoIter<Node>> {
    let bytes = blob(repository, &id.into(), BlobType::Tree)?;
    let tree: Tree = serde_json::from_slice(&bytes)
        .map_err(|e| Error::corrupt("a folder of the snapshot can not be read").because(e))?;
    Ok(tree.nodes.into_iter())
}

/// An entry with the blobs of its content.
pub(super) struct Stored {
    pub(super) entry: Entry,
    pub(super) content: Vec<DataId>,
}

/// Walks through a snapshot's tree.
pub(super) struct Walk<'a, S: IndexedFull> {
    repository: &'a Repository<S>,
    root: Option<TreeId>,
    open: Vec<(EntryPath, IntoIter<Node>)>,
    order: Order,
    failed: bool,
    /// The packs that were needed so far, each with the byte behind the last that was needed of it.
    pub(super) packs: BTreeMap<PackId, u64>,
}

impl<'a, S: IndexedFull> Walk<'a, S> {
    pub(super) fn new(repository: &'a Repository<S>, root: TreeId) -> Self {
        Self {
            repository,
            root: Some(root),
            open: Vec::new(),
            order: Order::default(),
            failed: false,
            packs: BTreeMap::new(),
        }
    }

    fn tree(&mut self, id: TreeId) -> Result<IntoIter<Node>> {
        let index = self.repository.get_index_entry(&id);
        let index = index.map_err(|e| Error::corrupt(super::said(&e)))?;
        let at = index.location;
        need(&mut self.packs, index.pack, at.offset, at.length);
        tree(self.repository, id)
    }

    /// How many bytes the index says that a file's blobs have; the packs that they are in are needed.
    pub(super) fn located(&mut self, stored: &Stored) -> Result<u64> {
        let mut bytes = 0;
        for id in &stored.content {
            let index = self.repository.get_index_entry(id).map_err(|e| {
                Error::corrupt(format!("{}: {}", stored.entry.path, super::said(&e)))
            })?;
            bytes += u64::from(index.data_length());
            let at = index.location;
            need(&mut self.packs, index.pack, at.offset, at.length);
        }
        Ok(bytes)
    }

    fn descend(&mut self, path: &EntryPath, node: &Node) -> Result<()> {
        let Some(id) = node.subtree else {
            return Err(Error::corrupt(format!("folder {path} has no tree")));
        };
        if self.open.len() >= DEEPEST {
            return Err(Error::corrupt(format!("{path} lies too deep")));
        }
        let nodes = self.tree(id)?;
        self.open.push((path.clone(), nodes));
        Ok(())
    }

    fn begin(&mut self, root: TreeId) -> Result<Stored> {
        let mut nodes = self.tree(root)?;
        let (Some(node), None) = (nodes.next(), nodes.next()) else {
            return Err(not_ours());
        };
        if node.name().as_encoded_bytes() != node::ROOT_NAME || !node.is_dir() {
            return Err(not_ours());
        }
        let entry = node::named(EntryPath::root(), &node)?;
        self.descend(&entry.path, &node)?;
        self.hand_on(entry, node)
    }

    fn hand_on(&mut self, entry: Entry, node: Node) -> Result<Stored> {
        self.order.take(&entry)?;
        let content = node.content.unwrap_or_default();
        if !entry.is_file() && !content.is_empty() {
            return Err(Error::corrupt(format!(
                "{} has content and is no file",
                entry.path
            )));
        }
        Ok(Stored { entry, content })
    }

    fn step(&mut self) -> Result<Option<Stored>> {
        if let Some(root) = self.root.take() {
            return self.begin(root).map(Some);
        }
        loop {
            let Some((folder, nodes)) = self.open.last_mut() else {
                return Ok(None);
            };
            let Some(node) = nodes.next() else {
                self.open.pop();
                continue;
            };
            let entry = node::entry(folder, &node)?;
            if entry.is_folder() {
                self.descend(&entry.path, &node)?;
            }
            return self.hand_on(entry, node).map(Some);
        }
    }
}

impl<S: IndexedFull> Iterator for Walk<'_, S> {
    type Item = Result<Stored>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.step();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// The snapshot that another one builds upon, walked through beside it.
pub(super) struct Before<'a, S: IndexedFull> {
    walk: Option<Walk<'a, S>>,
    next: Option<Stored>,
}

impl<'a, S: IndexedFull> Before<'a, S> {
    pub(super) fn new(walk: Option<Walk<'a, S>>) -> Self {
        Self { walk, next: None }
    }

    /// Whether this file is there as well, unchanged and with this content; asked in the order of a listing. What can not be read of the snapshot it does not have.
    pub(super) fn has(&mut self, file: &Stored) -> bool {
        while let Some(walk) = &mut self.walk {
            if let Some(next) = &self.next
                && next.entry.path >= file.entry.path
            {
                break;
            }
            self.next = walk.next().and_then(Result::ok);
            if self.next.is_none() {
                self.walk = None;
            }
        }
        self.next.as_ref().is_some_and(|next| {
            let (then, now) = (&next.entry, &file.entry);
            then.is_file()
                && then.path == now.path
                && (then.size, then.mtime, then.ctime) == (now.size, now.mtime, now.ctime)
                && next.content == file.content
        })
    }
}

fn not_ours() -> Error {
    Error::corrupt("the snapshot holds no volume: another program made it")
        .hint("restic restores it")
}

/// That much of this pack is needed.
fn need(packs: &mut BTreeMap<PackId, u64>, pack: PackId, offset: u32, length: u32) {
    let end = u64::from(offset) + u64::from(length);
    let known = packs.entry(pack).or_default();
    *known = end.max(*known);
}
