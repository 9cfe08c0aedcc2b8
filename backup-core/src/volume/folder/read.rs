//! A folder as a [`Source`]: from folder to folder by open descriptors, so that no link, and nobody who moves folders about meanwhile, leads out of it.
//! A file is opened when it is listed: what is deleted afterwards is still read, and what was deleted before is not part of the volume any more, and told of. That it was
//! deleted is what its folder says, not that it can not be opened. The empty `lost+found` that a file system makes for itself is left out.

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
use super::super::source::{Content, Entries, Found, Missed, Source, Trouble};
use super::{FILE, FOLDER};
use crate::error::{Error, Result};

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
    /// The names that it had when one was last missed, sorted.
    now: Option<Vec<Vec<u8>>>,
}

struct Listing {
    root: Option<OwnedFd>,
    device: u64,
    open: Vec<Level>,
}

/// What ext4 makes at its root.
pub(super) const LOST_AND_FOUND: &[u8] = b"lost+found";

/// What a look at a name may come to instead of an entry.
enum Unseen {
    /// There is none of that name, it seems, or it was exchanged meanwhile.
    Absent,
    Trouble(Trouble),
}

impl From<Trouble> for Unseen {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Why attributes were not read.
enum Unread {
    Absent,
    Said(String),
}

impl Unread {
    fn of(what: &str, e: Errno) -> Self {
        match e {
            Errno::NOENT => Self::Absent,
            e => Self::Said(format!("{what}: {}", io::Error::from(e))),
        }
    }

    fn at(self, path: &EntryPath) -> Unseen {
        match self {
            Self::Absent => Unseen::Absent,
            Self::Said(what) => trouble(path, what).into(),
        }
    }
}

/// A name that is listed and never there.
#[cfg(test)]
const GHOST: &str = "listed-and-not-there";
/// A name that a file system has lost its hold of.
#[cfg(test)]
const STALE: &str = "stale";

fn stat(folder: &OwnedFd, name: &OsStr) -> Result<Stat, Errno> {
    #[cfg(test)]
    match name.to_str() {
        Some(GHOST) => return Err(Errno::NOENT),
        Some(STALE) => return Err(Errno::STALE),
        _ => {}
    }
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// The names in a folder, sorted by their bytes; none where the folder itself was deleted meanwhile.
pub(super) fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut found = Vec::new();
    let read = Dir::read_from(folder).and_then(|entries| {
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                found.push(name.to_vec());
            }
        }
        Ok(())
    });
    match read {
        Ok(()) => {}
        Err(Errno::NOENT) => found.clear(),
        Err(e) => return Err(e),
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
) -> Result<Vec<Attribute>, Unread> {
    let mut names = Vec::with_capacity(1024);
    loop {
        names.clear();
        match list(&mut names) {
            Ok(_) => break,
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if names.capacity() < LARGEST => names.reserve(names.capacity() * 2),
            Err(e) => return Err(Unread::of("its extended attributes can not be listed", e)),
        }
    }
    let mut found = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let Ok(name) = std::str::from_utf8(name) else {
            let what = "an extended attribute has a name that is no UTF-8";
            return Err(Unread::Said(what.to_owned()));
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
                Err(e) => {
                    let what = format!("its attribute {name} can not be read");
                    return Err(Unread::of(&what, e));
                }
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn of_open(what: &OwnedFd) -> Result<Vec<Attribute>, Unread> {
    attributes(
        |names| rustix::fs::flistxattr(what, spare_capacity(names)),
        |name, value| rustix::fs::fgetxattr(what, name, spare_capacity(value)),
    )
}

/// Of what is not to be opened, or can not be.
fn of_named(folder: &OwnedFd, name: &OsStr) -> Result<Vec<Attribute>, Unread> {
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
    fn descend(&mut self, path: &EntryPath, folder: OwnedFd) -> Result<Option<Entry>, Unseen> {
        let io = |e: Errno| trouble(path, io::Error::from(e));
        let stat = rustix::fs::fstat(&folder).map_err(io)?;
        if stat.st_dev != self.device {
            return Err(trouble(path, "another file system is mounted there").into());
        }
        let attributes = of_open(&folder).map_err(|e| e.at(path))?;
        let entry = made(path.clone(), What::Folder, &stat, attributes);
        let names = names(&folder).map_err(io)?;
        if names.is_empty() && path.as_bytes() == LOST_AND_FOUND {
            return Ok(None);
        }
        self.open.push(Level {
            path: path.clone(),
            folder,
            names: names.into_iter(),
            now: None,
        });
        Ok(Some(entry))
    }

    /// The next one; nothing where it is no part of the volume.
    fn look(&mut self, name: &[u8]) -> Result<Option<Found>, Missed> {
        let Some(level) = self.open.last() else {
            return Ok(None);
        };
        let path = level.path.join(name);
        // What is exchanged between the look and the opening is looked at again, a few times.
        for _ in 0..5 {
            match self.look_once(&path, name) {
                Ok(found) => return Ok(found),
                Err(Unseen::Trouble(trouble)) => return Err(trouble.into()),
                Err(Unseen::Absent) => {
                    let is_listed = self.is_listed(name);
                    let is_listed = is_listed.map_err(|e| trouble(&path, io::Error::from(e)))?;
                    if !is_listed {
                        return Err(Missed::Vanished(path));
                    }
                }
            }
        }
        let what = "its folder lists it, and it is not there, or became something else, whenever it was looked at";
        Err(trouble(&path, what).into())
    }

    /// Whether the folder that is being read still has this name. It is read again for one that it seems to have only: many may go at a time.
    fn is_listed(&mut self, name: &[u8]) -> Result<bool, Errno> {
        let Some(level) = self.open.last_mut() else {
            return Ok(false);
        };
        let has = |names: &[Vec<u8>]| names.binary_search_by(|known| (**known).cmp(name)).is_ok();
        if level.now.as_deref().is_some_and(|now| !has(now)) {
            return Ok(false);
        }
        let now = names(&level.folder)?;
        Ok(has(level.now.insert(now)))
    }

    fn look_once(&mut self, path: &EntryPath, name: &[u8]) -> Result<Option<Found>, Unseen> {
        let Some(Level { folder, .. }) = self.open.last() else {
            return Ok(None);
        };
        let name = OsStr::from_bytes(name);
        let io = |e: Errno| match e {
            Errno::NOENT => Unseen::Absent,
            e => trouble(path, io::Error::from(e)).into(),
        };
        let stat = stat(folder, name).map_err(io)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let flags = match kind {
            FileType::Directory => Some(FOLDER),
            FileType::RegularFile => Some(FILE),
            _ => None,
        };
        if let Some(flags) = flags {
            let opened = match open(folder, name, flags) {
                Ok(opened) => opened,
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Err(Unseen::Absent),
                Err(e) => return Err(io(e)),
            };
            if kind == FileType::Directory {
                let entry = self.descend(path, opened)?;
                return Ok(entry.map(|entry| Found {
                    entry,
                    content: None,
                }));
            }
            let stat = rustix::fs::fstat(&opened).map_err(io)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(Unseen::Absent);
            }
            let attributes = of_open(&opened).map_err(|e| e.at(path))?;
            let entry = made(path.clone(), What::File, &stat, attributes);
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
                Err(Errno::INVAL) => return Err(Unseen::Absent),
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
            _ => return Err(trouble(path, "it is of no kind that is known").into()),
        };
        let attributes = of_named(folder, name).map_err(|e| e.at(path))?;
        Ok(Some(Found {
            entry: made(path.clone(), what, &stat, attributes),
            content: None,
        }))
    }
}

impl Iterator for Listing {
    type Item = Result<Found, Missed>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(root) = self.root.take() {
            let path = EntryPath::root();
            return match self.descend(&path, root) {
                Ok(entry) => entry.map(|entry| {
                    Ok(Found {
                        entry,
                        content: None,
                    })
                }),
                Err(Unseen::Trouble(trouble)) => Some(Err(trouble.into())),
                Err(Unseen::Absent) => Some(Err(trouble(&path, "it is not there").into())),
            };
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    type Seen = Vec<Result<String, Missed>>;

    /// What is listed, and what happens once this many were.
    fn listed(folder: &Path, after: usize, act: impl FnOnce()) -> Seen {
        let mut entries = FolderSource::new(folder).entries().unwrap();
        let mut seen: Seen = Vec::new();
        let mut next = || {
            let found = entries.next()?;
            Some(found.map(|found| found.entry.path.to_string()))
        };
        seen.extend(std::iter::from_fn(&mut next).take(after));
        act();
        seen.extend(std::iter::from_fn(next));
        seen
    }

    fn gone(path: &str) -> Result<String, Missed> {
        Err(Missed::Vanished(EntryPath::new(path)))
    }

    #[test]
    fn what_is_deleted_before_it_is_looked_at_is_told_and_the_rest_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a", "b", "d/x", "d/y", "e"] {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), name).unwrap();
        }
        std::os::unix::fs::symlink("a", path("c")).unwrap();
        // The root and `a`; then the root's other names are known.
        let seen = listed(folder.path(), 2, || {
            fs::remove_file(path("b")).unwrap();
            fs::remove_file(path("c")).unwrap();
            fs::remove_dir_all(path("d")).unwrap();
        });
        let ok = |name: &str| Ok(name.to_owned());
        let expected = [ok("/"), ok("a"), gone("b"), gone("c"), gone("d"), ok("e")];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_folder_that_goes_while_it_is_read_loses_its_files_and_each_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("d");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("x"), "x").unwrap();
        let seen = listed(folder.path(), 2, || fs::remove_dir_all(&inner).unwrap());
        let ok = |name: &str| Ok(name.to_owned());
        assert_eq!(seen, [ok("/"), ok("d"), gone("d/x")]);
    }

    #[test]
    fn a_name_that_is_listed_and_is_never_there_and_a_stale_one_are_troubles() {
        for (name, said) in [(GHOST, "lists it"), (STALE, "tale")] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), name).unwrap();
            fs::write(folder.path().join("z"), "z").unwrap();
            let seen = listed(folder.path(), 0, || {});
            let Err(Missed::Trouble(trouble)) = &seen[1] else {
                panic!("{seen:?}");
            };
            assert!(trouble.what.contains(said), "{trouble:?}");
            assert_eq!(seen[2], Ok("z".to_owned()));
        }
    }

    #[test]
    fn attributes_of_what_is_not_there_are_absent_and_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let root = rustix::fs::openat(CWD, folder.path(), FOLDER, Mode::empty()).unwrap();
        let read = of_named(&root, OsStr::new("x"));
        assert!(matches!(read, Err(Unread::Absent)));
    }

    #[test]
    fn an_empty_lost_and_found_is_left_out_at_the_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("d/lost+found")).unwrap();
        fs::create_dir(folder.path().join("lost+found")).unwrap();
        let ok = |name: &str| Ok(name.to_owned());
        let seen = listed(folder.path(), 0, || {});
        assert_eq!(seen, [ok("/"), ok("d"), ok("d/lost+found")]);
        fs::write(folder.path().join("lost+found/#12"), "x").unwrap();
        let seen = listed(folder.path(), 0, || {});
        assert_eq!(seen[3..], [ok("lost+found"), ok("lost+found/#12")]);
    }
}
