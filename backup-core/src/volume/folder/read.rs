//! A folder as a [`Source`]: from folder to folder by open descriptors, so that no link, and nobody who moves folders about meanwhile, leads out of it.
//! A file is opened when it is listed: what is deleted afterwards is still read, and what was deleted before is not part of the volume any more.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::entry::{Attribute, Entry, EntryPath, Moment, What};
use super::super::source::{Content, Entries, Found, Source, Trouble};
use crate::error::{Error, Result};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// The kernel keeps no larger attribute, and no longer list of them.
const LARGEST: usize = 1 << 17;

/// A folder of this machine.
pub struct FolderSource {
    path: PathBuf,
}

impl FolderSource {
    /// The folder at this path; a link to one is followed, once.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }
}

impl Source for FolderSource {
    fn entries(&self) -> Result<Entries> {
        let failed = |e: Errno| {
            Error::invalid(format!("can not read the folder {}", self.path.display()))
                .because(io::Error::from(e))
        };
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let root = rustix::fs::openat(CWD, &self.path, flags, Mode::empty()).map_err(failed)?;
        let device = rustix::fs::fstat(&root).map_err(failed)?.st_dev;
        Ok(Box::new(Listing {
            root: Some(root),
            device,
            open: Vec::new(),
        }))
    }
}

/// A folder that is being read.
struct Level {
    path: EntryPath,
    folder: OwnedFd,
    names: IntoIter<Vec<u8>>,
}

struct Listing {
    root: Option<OwnedFd>,
    device: u64,
    open: Vec<Level>,
}

fn is_gone(e: Errno) -> bool {
    matches!(e, Errno::NOENT | Errno::STALE)
}

/// The names in a folder, sorted by their bytes.
fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(name.to_vec());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Without the time of its last access being changed, where we may.
fn open(folder: &OwnedFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(folder, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(folder, name, flags, Mode::empty()),
        opened => opened,
    }
}

fn times(stat: &Stat) -> (Moment, Moment) {
    let nanos = |nanos: u64| u32::try_from(nanos).unwrap_or_default();
    (
        Moment(stat.st_mtime, nanos(stat.st_mtime_nsec)),
        Moment(stat.st_ctime, nanos(stat.st_ctime_nsec)),
    )
}

/// The extended attributes that `list` names and `get` reads, sorted by name.
fn attributes(
    list: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>,
    get: impl Fn(&str, &mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Vec<Attribute>, String> {
    let said = |e: Errno| io::Error::from(e).to_string();
    let mut names = Vec::with_capacity(1024);
    loop {
        names.clear();
        match list(&mut names) {
            Ok(_) => break,
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if names.capacity() < LARGEST => names.reserve(names.capacity() * 2),
            Err(e) => {
                return Err(format!(
                    "its extended attributes can not be listed: {}",
                    said(e)
                ));
            }
        }
    }
    let mut found = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let Ok(name) = std::str::from_utf8(name) else {
            return Err("an extended attribute has a name that is no UTF-8".to_owned());
        };
        let mut value = Vec::with_capacity(256);
        loop {
            value.clear();
            match get(name, &mut value) {
                Ok(_) => {
                    found.push(Attribute {
                        name: name.to_owned(),
                        value,
                    });
                    break;
                }
                // Removed meanwhile.
                Err(Errno::NODATA) => break,
                Err(Errno::RANGE) if value.capacity() < LARGEST => {
                    value.reserve(value.capacity() * 2);
                }
                Err(e) => return Err(format!("its attribute {name} can not be read: {}", said(e))),
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn of_open(what: &OwnedFd) -> Result<Vec<Attribute>, String> {
    attributes(
        |names| rustix::fs::flistxattr(what, spare_capacity(names)),
        |name, value| rustix::fs::fgetxattr(what, name, spare_capacity(value)),
    )
}

/// Of what is not to be opened, or can not be.
fn of_named(folder: &OwnedFd, name: &OsStr) -> Result<Vec<Attribute>, String> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    attributes(
        |names| rustix::fs::llistxattr(&path, spare_capacity(names)),
        |name, value| rustix::fs::lgetxattr(&path, name, spare_capacity(value)),
    )
}

fn made(path: EntryPath, what: What, stat: &Stat, attributes: Vec<Attribute>) -> Entry {
    let (mtime, ctime) = times(stat);
    let size = if what == What::File {
        u64::try_from(stat.st_size).unwrap_or_default()
    } else {
        0
    };
    Entry {
        path,
        what,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size,
        mtime,
        ctime,
        inode: stat.st_ino,
        device: stat.st_dev,
        // Of 32 bits on other machines.
        #[allow(clippy::useless_conversion)]
        links: u64::from(stat.st_nlink),
        attributes,
    }
}

fn trouble(path: &EntryPath, what: impl ToString) -> Trouble {
    Trouble {
        path: path.clone(),
        what: what.to_string(),
    }
}

impl Listing {
    fn descend(&mut self, path: &EntryPath, folder: OwnedFd) -> Result<Entry, Trouble> {
        let io = |e: Errno| trouble(path, io::Error::from(e));
        let stat = rustix::fs::fstat(&folder).map_err(io)?;
        if stat.st_dev != self.device {
            return Err(trouble(path, "another file system is mounted there"));
        }
        let attributes = of_open(&folder).map_err(|e| trouble(path, e))?;
        let entry = made(path.clone(), What::Folder, &stat, attributes);
        let names = names(&folder).map_err(io)?.into_iter();
        self.open.push(Level {
            path: path.clone(),
            folder,
            names,
        });
        Ok(entry)
    }

    /// The next one; nothing where it is not there any more.
    fn look(&mut self, name: &[u8]) -> Result<Option<Found>, Trouble> {
        let Some(level) = self.open.last() else {
            return Ok(None);
        };
        let path = level.path.join(name);
        let name = OsStr::from_bytes(name);
        // What is exchanged between the look and the opening is looked at again, a few times.
        for _ in 0..5 {
            let folder = &self.open[self.open.len() - 1].folder;
            let io = |e: Errno| trouble(&path, io::Error::from(e));
            let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(e) if is_gone(e) => return Ok(None),
                Err(e) => return Err(io(e)),
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let flags = match kind {
                FileType::Directory => Some(FOLDER),
                FileType::RegularFile => Some(FILE),
                _ => None,
            };
            if let Some(flags) = flags {
                let opened = match open(folder, name, flags) {
                    Ok(opened) => opened,
                    Err(e) if is_gone(e) => return Ok(None),
                    Err(Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => continue,
                    Err(e) => return Err(io(e)),
                };
                if kind == FileType::Directory {
                    let entry = self.descend(&path, opened)?;
                    return Ok(Some(Found {
                        entry,
                        content: None,
                    }));
                }
                let stat = rustix::fs::fstat(&opened).map_err(io)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    continue;
                }
                let attributes = of_open(&opened).map_err(|e| trouble(&path, e))?;
                let entry = made(path, What::File, &stat, attributes);
                let file = OpenFile::new(opened, &stat);
                return Ok(Some(Found {
                    entry,
                    content: Some(Box::new(move || Ok(Box::new(file)))),
                }));
            }
            let what = match kind {
                FileType::Symlink => match rustix::fs::readlinkat(folder, name, Vec::new()) {
                    Ok(target) => What::Link {
                        target: target.into_bytes(),
                    },
                    Err(e) if is_gone(e) => return Ok(None),
                    Err(Errno::INVAL) => continue,
                    Err(e) => return Err(io(e)),
                },
                FileType::Fifo => What::Fifo,
                FileType::Socket => What::Socket,
                FileType::BlockDevice => What::Block {
                    device: stat.st_rdev,
                },
                FileType::CharacterDevice => What::Character {
                    device: stat.st_rdev,
                },
                _ => return Err(trouble(&path, "it is of no kind that is known")),
            };
            let attributes = of_named(folder, name).map_err(|e| trouble(&path, e))?;
            return Ok(Some(Found {
                entry: made(path, what, &stat, attributes),
                content: None,
            }));
        }
        Err(trouble(
            &path,
            "it became something else whenever it was looked at",
        ))
    }
}

impl Iterator for Listing {
    type Item = Result<Found, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(root) = self.root.take() {
            let entry = self.descend(&EntryPath::root(), root);
            return Some(entry.map(|entry| Found {
                entry,
                content: None,
            }));
        }
        loop {
            let level = self.open.last_mut()?;
            let Some(name) = level.names.next() else {
                self.open.pop();
                continue;
            };
            if let Some(found) = self.look(&name).transpose() {
                return Some(found);
            }
        }
    }
}

/// A file that was opened when it was listed.
struct OpenFile {
    file: File,
    size: i64,
    times: (Moment, Moment),
}

impl OpenFile {
    fn new(descriptor: OwnedFd, stat: &Stat) -> Self {
        Self {
            file: descriptor.into(),
            size: stat.st_size,
            times: times(stat),
        }
    }
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Content for OpenFile {
    fn has_changed(&mut self) -> io::Result<bool> {
        let now = rustix::fs::fstat(&self.file)?;
        // Deleting it, and another name for it, change the time of its last change alone.
        Ok(now.st_size != self.size || times(&now).0 != self.times.0)
    }
}
