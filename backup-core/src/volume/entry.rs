//! What a volume consists of: entries with their paths, and the order in which all of this program hands them on. Names are bytes. Whatever comes
//! from outside is checked here ([`Entry::check`], [`Order`]); nothing is read or written.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::text;
use crate::error::{Error, Result};
use crate::location::Sha256;

/// Linux allows no longer names and no longer paths; deeper ones can exist, and are refused by name.
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 16 << 10;
const LONGEST_TARGET: usize = 4096;
/// Extended attributes of one entry, all together.
const MOST_ATTRIBUTES: usize = 1 << 20;
/// No volume has more entries: folders of a planted snapshot may hold one another so often that a walk never ends.
pub(crate) const MOST_ENTRIES: u64 = if cfg!(test) { 50_000 } else { 200_000_000 };

/// Where an entry is, below the volume's root: names with slashes between. The root itself is empty.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EntryPath(#[serde(with = "text")] Vec<u8>);

impl EntryPath {
    /// The volume's root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Of these bytes, unchecked.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the volume's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names on the way to it.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// Its last name; nothing for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.names().last()
    }

    /// An entry in it.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// The folder that it is in; nothing for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let at = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..at].to_vec()))
    }

    /// Whether it is below this folder, at any depth.
    pub(super) fn is_below(&self, folder: &Self) -> bool {
        let mut names = self.names();
        folder.names().all(|name| names.next() == Some(name)) && names.next().is_some()
    }

    /// Errors unless every name could be one in a folder.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_root() {
            return Ok(());
        }
        let is_name = |name: &[u8]| {
            !name.is_empty()
                && name != b"."
                && name != b".."
                && name.len() <= LONGEST_NAME
                && !name.contains(&0)
        };
        let names = self.0.split(|byte| *byte == b'/');
        if self.0.len() <= LONGEST_PATH && names.into_iter().all(is_name) {
            return Ok(());
        }
        Err(Error::corrupt(format!("{self} is no path in a volume")))
    }
}

/// As it is where it can be read, else with its odd bytes escaped.
impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str("/");
        }
        f.write_str(&text::shown(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A folder comes before what is in it, and what is in it before its next sibling; siblings by the bytes of their names.
impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.names().cmp(other.names())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum What {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link.
    Link {
        /// What it names.
        #[serde(with = "text")]
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket that somebody once listened on.
    Socket,
    /// A block device.
    Block {
        /// Its number, as the kernel packs it for programs.
        device: u64,
    },
    /// A character device.
    Character {
        /// Its number.
        device: u64,
    },
}

impl What {
    /// What digests are made of: a letter for its type, where a link leads, which device it is.
    pub(crate) fn parts(&self) -> (u8, &[u8], u64) {
        match self {
            Self::Folder => (b'd', b"", 0),
            Self::File => (b'f', b"", 0),
            Self::Link { target } => (b'l', target, 0),
            Self::Fifo => (b'p', b"", 0),
            Self::Socket => (b's', b"", 0),
            Self::Block { device } => (b'b', b"", *device),
            Self::Character { device } => (b'c', b"", *device),
        }
    }
}

/// A moment to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(pub i64, pub u32);

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// `user.mime_type`
    #[serde(rename = "n")]
    pub name: String,
    /// Its value.
    #[serde(rename = "v", with = "text")]
    pub value: Vec<u8>,
}

/// An entry of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is.
    #[serde(rename = "p")]
    pub path: EntryPath,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// Permissions with setuid, setgid and sticky bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's.
    pub gid: u32,
    /// Of a regular file, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// When its content was last written.
    pub mtime: Moment,
    /// When anything about it was last changed.
    pub ctime: Moment,
    /// Which one it is on its device.
    #[serde(rename = "ino", default, skip_serializing_if = "is_zero")]
    pub inode: u64,
    /// The device.
    #[serde(rename = "dev", default, skip_serializing_if = "is_zero")]
    pub device: u64,
    /// How many names it has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub links: u64,
    /// Access control lists among them; sorted by name.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Entry {
    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.what == What::Folder
    }

    /// Whether it has content.
    pub fn is_file(&self) -> bool {
        self.what == What::File
    }

    /// Errors where no file system can have such a thing.
    ///
    /// # Errors
    /// `Corrupt`, naming it.
    pub fn check(&self) -> Result<()> {
        self.path.check()?;
        let odd = |why: &str| Err(Error::corrupt(format!("{}: {why}", self.path)));
        if self.path.is_root() && !self.is_folder() {
            return odd("the root of a volume is a folder");
        }
        if self.mode > 0o7777 {
            return odd("its mode is no mode");
        }
        if self.mtime.1 >= 1_000_000_000 || self.ctime.1 >= 1_000_000_000 {
            return odd("its time is none");
        }
        if let What::Link { target } = &self.what
            && (target.is_empty() || target.len() > LONGEST_TARGET || target.contains(&0))
        {
            return odd("it is a link to what can not be named");
        }
        let attributes = self.attributes.iter();
        let sizes = attributes.map(|one| one.name.len() + one.value.len());
        if sizes.sum::<usize>() > MOST_ATTRIBUTES {
            return odd("it has more than 1 MiB of extended attributes");
        }
        let odd_name = |one: &Attribute| one.name.is_empty() || one.name.contains('\0');
        if self.attributes.iter().any(odd_name) {
            return odd("an extended attribute has a name that can not be one");
        }
        Ok(())
    }

    /// Adds what a restore brings back of it to a digest of the whole listing.
    pub(super) fn digest(&self, into: &mut Sha256) {
        let mut field = |bytes: &[u8]| {
            into.update(&(bytes.len() as u64).to_be_bytes());
            into.update(bytes);
        };
        field(self.path.as_bytes());
        let (kind, target, device) = self.what.parts();
        field(&[kind]);
        field(target);
        let size = if self.is_file() { self.size } else { 0 };
        for number in [
            device,
            u64::from(self.mode),
            u64::from(self.uid),
            u64::from(self.gid),
            size,
            self.mtime.0.cast_unsigned(),
            u64::from(self.mtime.1),
            self.inode,
            self.device,
            self.links,
        ] {
            field(&number.to_be_bytes());
        }
        for one in &self.attributes {
            field(one.name.as_bytes());
            field(&one.value);
        }
    }
}

/// Looks that entries come in their order, each in a folder that came before it, and that they come to an end.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The last entry's path.
    last: Option<EntryPath>,
    /// How many of its names are folders.
    open: usize,
    count: u64,
}

impl Order {
    /// Takes the next one.
    pub(super) fn take(&mut self, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        self.count += 1;
        if self.count > MOST_ENTRIES {
            return Err(Error::corrupt(format!(
                "a volume has no more than {MOST_ENTRIES} entries, and {path} is one more"
            )));
        }
        let Some(last) = &self.last else {
            if !path.is_root() {
                return Err(Error::corrupt(format!(
                    "{path} comes before the root of its volume"
                )));
            }
            self.last = Some(path.clone());
            self.open = 0;
            return Ok(());
        };
        if path <= last {
            return Err(Error::corrupt(format!(
                "{path} comes after {last}, which is not its place"
            )));
        }
        let depth = path.names().count() - 1;
        let shared = path
            .names()
            .zip(last.names())
            .take_while(|(a, b)| a == b)
            .count();
        if shared < depth || self.open < depth {
            return Err(Error::corrupt(format!(
                "{path} is in no folder that was named"
            )));
        }
        self.open = if entry.is_folder() { depth + 1 } else { depth };
        self.last = Some(path.clone());
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An entry of whoever runs the tests.
    pub(crate) fn entry(path: &str, what: What, size: u64) -> Entry {
        Entry {
            path: EntryPath::new(path),
            what,
            mode: 0o755,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            size,
            mtime: Moment(7, 8),
            ctime: Moment(0, 0),
            inode: 1,
            device: 1,
            links: 1,
            attributes: Vec::new(),
        }
    }

    fn take(all: &[(&str, What)]) -> Result<()> {
        let mut order = Order::default();
        all.iter()
            .try_for_each(|(path, what)| order.take(&entry(path, what.clone(), 0)))
    }

    #[test]
    fn a_folder_comes_before_its_content_and_that_before_the_next_sibling() {
        let mut paths = ["a-b", "a/x", "a", "", "a/x/y", "b"].map(EntryPath::new);
        paths.sort();
        let sorted = paths.map(|path| String::from_utf8(path.0).unwrap());
        assert_eq!(sorted, ["", "a", "a/x", "a/x/y", "a-b", "b"]);
    }

    #[test]
    fn entries_that_are_out_of_order_or_in_no_folder_are_refused() {
        use What::{File, Folder};
        take(&[("", Folder), ("a", Folder), ("a/x", File), ("b", File)]).unwrap();
        take(&[("", Folder), ("a", Folder), ("a/b", Folder), ("a/c", File)]).unwrap();
        for odd in [
            &[("a", Folder)][..],
            &[("", Folder), ("b", File), ("a", File)],
            &[("", Folder), ("a", File), ("a", File)],
            &[("", Folder), ("a", File), ("a/x", File)],
            &[("", Folder), ("a/x", File)],
            &[("", Folder), ("a", Folder), ("b/x", File)],
            &[("", Folder), ("a", Folder), ("a/b", File), ("a/b/c", File)],
        ] {
            take(odd).unwrap_err();
        }
    }

    #[test]
    fn a_walk_that_does_not_end_is_ended() {
        let mut order = Order::default();
        order.take(&entry("", What::Folder, 0)).unwrap();
        let mut taken = 1;
        let error = loop {
            let next = entry(&format!("{taken:09}"), What::File, 0);
            match order.take(&next) {
                Ok(()) => taken += 1,
                Err(e) => break e,
            }
            assert!(taken <= MOST_ENTRIES, "it goes on");
        };
        assert_eq!(taken, MOST_ENTRIES);
        assert!(error.to_string().contains("no more than"), "{error}");
    }

    #[test]
    fn no_name_leads_out_of_a_volume() {
        for odd in ["..", "a/..", "../b", "a//b", "/a", "a/", ".", "a\0b"] {
            entry(odd, What::File, 0).check().unwrap_err();
        }
        entry("a/.b/..c", What::File, 0).check().unwrap();
        let target = b"../../etc".to_vec();
        entry("a", What::Link { target }, 0).check().unwrap();
        entry("a", What::Link { target: Vec::new() }, 0)
            .check()
            .unwrap_err();
    }

    #[test]
    fn bytes_that_are_no_text_pass_through_json() {
        let odd = Entry {
            path: EntryPath::new(&b"new\nline/\xff\xfe"[..]),
            attributes: vec![Attribute {
                name: "user.a".to_owned(),
                value: vec![0, 255],
            }],
            ..entry(
                "",
                What::Link {
                    target: b"\xf0\x28".to_vec(),
                },
                0,
            )
        };
        let json = serde_json::to_string(&odd).unwrap();
        assert!(!json.contains('\n'), "{json}");
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), odd);
        assert_eq!(odd.path.to_string(), "new\\x0aline/\\xff\\xfe");
    }
}
