//! An [`Entry`] as restic's format has it, and back. Everything in a volume stands below `/data`, so that the root's own owner, mode and times have a place.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node, NodeType};

use super::super::entry::{Attribute, Entry, EntryPath, Moment, What};
use crate::error::{Error, Result};

/// Where a volume's root stands in a snapshot.
pub(super) const ROOT: &str = "/data";
/// The same as the one name in the snapshot's tree.
pub(super) const ROOT_NAME: &[u8] = b"data";

// Go's bits of a mode, which restic writes.
const GO_DIRECTORY: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHARACTER: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

fn go_mode(entry: &Entry) -> u32 {
    let kind = match entry.what {
        What::Folder => GO_DIRECTORY,
        What::File => 0,
        What::Link { .. } => GO_LINK,
        What::Fifo => GO_FIFO,
        What::Socket => GO_SOCKET,
        What::Block { .. } => GO_DEVICE,
        What::Character { .. } => GO_DEVICE | GO_CHARACTER,
    };
    let special = [
        (SETUID, GO_SETUID),
        (SETGID, GO_SETGID),
        (STICKY, GO_STICKY),
    ];
    let special = special.iter().filter(|(bit, _)| entry.mode & bit != 0);
    special.fold(kind | (entry.mode & 0o777), |mode, (_, go)| mode | go)
}

fn mode(go: u32) -> u32 {
    let special = [
        (SETUID, GO_SETUID),
        (SETGID, GO_SETGID),
        (STICKY, GO_STICKY),
    ];
    let special = special.iter().filter(|(_, bit)| go & bit != 0);
    special.fold(go & 0o777, |mode, (bit, _)| mode | bit)
}

fn time(moment: Moment) -> Result<Timestamp> {
    let failed = || Error::other("its time is outside of the years that can be written");
    let nanos = i32::try_from(moment.1).map_err(|_| failed())?;
    Timestamp::new(moment.0, nanos).map_err(|_| failed())
}

fn moment(time: Option<Timestamp>) -> Moment {
    let nanos = time.map_or(0, Timestamp::as_nanosecond);
    let (seconds, rest) = (
        nanos.div_euclid(1_000_000_000),
        nanos.rem_euclid(1_000_000_000),
    );
    // A timestamp has fewer seconds than fit.
    Moment(seconds as i64, rest as u32)
}

/// Where it stands in a snapshot.
pub(super) fn path(path: &EntryPath) -> PathBuf {
    let root = PathBuf::from(ROOT);
    if path.is_root() {
        return root;
    }
    root.join(OsStr::from_bytes(path.as_bytes()))
}

/// The node that is written for it.
pub(super) fn of(entry: &Entry) -> Result<Node> {
    let kind = match &entry.what {
        What::Folder => NodeType::Dir,
        What::File => NodeType::File,
        What::Link { target } => NodeType::from_link(Path::new(OsStr::from_bytes(target))),
        What::Fifo => NodeType::Fifo,
        What::Socket => NodeType::Socket,
        What::Block { device } => NodeType::Dev { device: *device },
        What::Character { device } => NodeType::Chardev { device: *device },
    };
    let attributes = entry.attributes.iter();
    let attributes = attributes.map(|one| rustic_core_attribute(&one.name, &one.value));
    let meta = Metadata {
        mode: Some(go_mode(entry)),
        mtime: Some(time(entry.mtime)?),
        ctime: Some(time(entry.ctime)?),
        // restic wants one, and ours would change with each reading.
        atime: Some(time(entry.mtime)?),
        uid: Some(entry.uid),
        gid: Some(entry.gid),
        inode: entry.inode,
        device_id: entry.device,
        size: if entry.is_file() { entry.size } else { 0 },
        links: entry.links,
        extended_attributes: attributes.collect::<Result<_>>()?,
        ..Metadata::default()
    };
    let name = entry.path.name().unwrap_or(ROOT_NAME);
    Ok(Node::new_node(OsStr::from_bytes(name), kind, meta))
}

/// rustic does not name the type of an attribute for others; what it reads, it makes.
fn rustic_core_attribute<T: serde::de::DeserializeOwned>(name: &str, value: &[u8]) -> Result<T> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let attribute = serde_json::json!({ "name": name, "value": STANDARD.encode(value) });
    serde_json::from_value(attribute)
        .map_err(|e| Error::other("an extended attribute can not be kept").because(e))
}

/// What a node in this folder says. Whoever wrote the repository may be hostile.
///
/// # Errors
/// `Corrupt`, where no file system can have such a thing.
pub(super) fn entry(folder: &EntryPath, node: &Node) -> Result<Entry> {
    let name = node.name();
    let name = name.as_bytes();
    if name.contains(&b'/') {
        return Err(Error::corrupt(format!("a name in {folder} has a slash")));
    }
    named(folder.join(name), node)
}

/// The same of the root.
pub(super) fn named(path: EntryPath, node: &Node) -> Result<Entry> {
    let what = match &node.node_type {
        NodeType::Dir => What::Folder,
        NodeType::File => What::File,
        link @ NodeType::Symlink { .. } => What::Link {
            target: link.to_link().as_os_str().as_bytes().to_vec(),
        },
        NodeType::Dev { device } => What::Block { device: *device },
        NodeType::Chardev { device } => What::Character { device: *device },
        NodeType::Fifo => What::Fifo,
        NodeType::Socket => What::Socket,
    };
    let meta = &node.meta;
    let attributes = meta.extended_attributes.iter().map(|one| Attribute {
        name: one.name.clone(),
        value: one.value.clone().unwrap_or_default(),
    });
    let entry = Entry {
        path,
        what,
        mode: mode(meta.mode.unwrap_or(0o755)),
        uid: meta.uid.unwrap_or_default(),
        gid: meta.gid.unwrap_or_default(),
        size: meta.size,
        mtime: moment(meta.mtime),
        ctime: moment(meta.ctime),
        inode: meta.inode,
        device: meta.device_id,
        links: meta.links,
        attributes: attributes.collect(),
    };
    entry.check()?;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_entry_comes_back_as_it_was() {
        let kinds = [
            What::Folder,
            What::File,
            What::Link {
                target: b"../\xff\n".to_vec(),
            },
            What::Fifo,
            What::Socket,
            What::Block { device: 0x801 },
            What::Character { device: 0x103 },
        ];
        for what in kinds {
            for (mode, time) in [(0o7755, Moment(-5, 999_999_999)), (0, Moment(1, 0))] {
                let entry = Entry {
                    path: EntryPath::new(&b"a\xfe/\"b\\\n"[..]),
                    what: what.clone(),
                    mode,
                    uid: u32::MAX,
                    gid: 7,
                    size: if what == What::File { 9 } else { 0 },
                    mtime: time,
                    ctime: time,
                    inode: u64::MAX,
                    device: 3,
                    links: 2,
                    attributes: vec![Attribute {
                        name: "user.a".to_owned(),
                        value: vec![0, 255],
                    }],
                };
                let node = of(&entry).unwrap();
                // Through what is stored.
                let node: Node =
                    serde_json::from_slice(&serde_json::to_vec(&node).unwrap()).unwrap();
                let folder = EntryPath::new(&b"a\xfe"[..]);
                assert_eq!(super::entry(&folder, &node).unwrap(), entry);
            }
        }
    }
}
