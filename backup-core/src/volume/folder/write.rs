//! A folder as a [`Target`]: it is empty when it is begun, everything is created anew in it by open descriptors, and no link is followed. What can not be brought back of
//! one entry is noted; the rest goes on. A folder's own mode and times come when everything in it stands.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::super::entry::{Entry, EntryPath, Moment, What};
use super::super::repository::Target;
use super::super::source::Trouble;
use crate::error::{Error, Kind, Result};

/// What is left out of a file where it is all zeros.
const HOLE: usize = 4096;

/// So many are named; all are counted.
const NAMED: usize = 50;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What a restore came to.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Entries of all kinds.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first of what could not be brought back.
    pub troubles: Vec<Trouble>,
    /// How much could not be.
    pub trouble_count: u64,
}

struct Level {
    folder: OwnedFd,
    entry: Entry,
}

/// A file that is being written.
struct Writing {
    entry: Entry,
    /// Nothing where it is another name of one that stands, or could not be made.
    file: Option<OwnedFd>,
    at: u64,
}

/// An empty folder of this machine.
pub struct FolderTarget {
    root: Option<OwnedFd>,
    open: Vec<Level>,
    writing: Option<Writing>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), EntryPath>,
    restored: Restored,
}

fn is_empty(folder: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        // A fresh ext4 has this one.
        if name != b"." && name != b".." && name != b"lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

impl FolderTarget {
    /// The empty folder at this path.
    ///
    /// # Errors
    /// `AlreadyExists` where anything is in it.
    pub fn new(path: &Path) -> Result<Self> {
        let failed = |e: Errno| {
            Error::invalid(format!("can not restore into {}", path.display()))
                .because(io::Error::from(e))
        };
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
        if !is_empty(&root).map_err(failed)? {
            return Err(Error::new(
                Kind::AlreadyExists,
                format!("{} is not empty", path.display()),
            )
            .hint("nothing is restored over files that stand: give an empty folder"));
        }
        Ok(Self {
            root: Some(root),
            open: Vec::new(),
            writing: None,
            links: HashMap::new(),
            restored: Restored::default(),
        })
    }

    /// What came of it.
    pub fn restored(&self) -> &Restored {
        &self.restored
    }

    fn trouble(&mut self, path: &EntryPath, what: impl ToString) {
        self.restored.trouble_count += 1;
        if self.restored.troubles.len() < NAMED {
            self.restored.troubles.push(Trouble {
                path: path.clone(),
                what: what.to_string(),
            });
        }
    }

    /// Ends the file that is being written.
    fn end_file(&mut self) {
        let Some(Writing { entry, file, at }) = self.writing.take() else {
            return;
        };
        let Some(file) = file else { return };
        if at != entry.size {
            let what = format!("it has {at} bytes and should have {}", entry.size);
            self.trouble(&entry.path, what);
        }
        // What was left out at its end.
        if let Err(e) = rustix::fs::ftruncate(&file, at) {
            self.trouble(&entry.path, io::Error::from(e));
        }
        self.restored.bytes += at;
        if let Err(what) = of_open(&file, &entry) {
            self.trouble(&entry.path, what);
        }
    }

    /// Ends the folders that this path is not in.
    fn end_folders(&mut self, path: Option<&EntryPath>) {
        while let Some(level) = self.open.last() {
            let is_in = path
                .and_then(EntryPath::parent)
                .is_some_and(|parent| parent == level.entry.path);
            if is_in {
                return;
            }
            let Some(level) = self.open.pop() else { return };
            if let Err(what) = of_open(&level.folder, &level.entry) {
                self.trouble(&level.entry.path, what);
            }
        }
    }

    fn create(&mut self, entry: &Entry) -> Result<(), String> {
        let said = |e: Errno| io::Error::from(e).to_string();
        let (Some(level), Some(name)) = (self.open.last(), entry.path.name()) else {
            return Err("the folder that it is in could not be made".to_owned());
        };
        let (folder, name) = (&level.folder, OsStr::from_bytes(name));
        let private = Mode::RWXU;
        match &entry.what {
            What::Folder => {
                match rustix::fs::mkdirat(folder, name, private) {
                    Ok(()) => {}
                    // That of a fresh file system, below its root.
                    Err(Errno::EXIST) if entry.path.as_bytes() == b"lost+found" => {}
                    Err(e) => return Err(said(e)),
                }
                let opened = rustix::fs::openat(folder, name, FOLDER, Mode::empty());
                self.open.push(Level {
                    folder: opened.map_err(said)?,
                    entry: entry.clone(),
                });
                return Ok(());
            }
            What::File => {
                self.restored.files += 1;
                if let Some(first) = self.first_name(entry)
                    && rustix::fs::linkat(
                        &self.open[0].folder,
                        OsStr::from_bytes(first.as_bytes()),
                        folder,
                        name,
                        AtFlags::empty(),
                    )
                    .is_ok()
                {
                    self.writing = Some(Writing {
                        entry: entry.clone(),
                        file: None,
                        at: 0,
                    });
                    return Ok(());
                }
                // Where no link can be made, it is a file by itself.
                let file = rustix::fs::openat(folder, name, NEW_FILE, Mode::RUSR | Mode::WUSR);
                self.writing = Some(Writing {
                    entry: entry.clone(),
                    file: Some(file.map_err(said)?),
                    at: 0,
                });
                if entry.links > 1 {
                    let of = (entry.device, entry.inode);
                    self.links.entry(of).or_insert_with(|| entry.path.clone());
                }
                return Ok(());
            }
            What::Link { target } => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), folder, name).map_err(said)?;
            }
            What::Fifo => make(folder, name, FileType::Fifo, 0).map_err(said)?,
            What::Socket => make(folder, name, FileType::Socket, 0).map_err(said)?,
            What::Block { device } => {
                make(folder, name, FileType::BlockDevice, *device).map_err(said)?;
            }
            What::Character { device } => {
                make(folder, name, FileType::CharacterDevice, *device).map_err(said)?;
            }
        }
        of_named(folder, name, entry)
    }

    fn first_name(&self, entry: &Entry) -> Option<&EntryPath> {
        if entry.links < 2 {
            return None;
        }
        self.links.get(&(entry.device, entry.inode))
    }
}

fn make(folder: &OwnedFd, name: &OsStr, kind: FileType, device: u64) -> Result<(), Errno> {
    rustix::fs::mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, device)
}

fn times(entry: &Entry) -> Timestamps {
    let Moment(seconds, nanos) = entry.mtime;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Whether what a kernel without such labels refuses may be left out.
fn is_label(name: &str, e: Errno) -> bool {
    name == "security.selinux" && matches!(e, Errno::NOTSUP | Errno::INVAL)
}

fn all(problems: Vec<String>) -> Result<(), String> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(problems.join("; "))
}

/// Owner, attributes, mode and times, in the order in which none undoes another.
fn of_open(what: &OwnedFd, entry: &Entry) -> Result<(), String> {
    let mut problems = Vec::new();
    let mut note = |what: &str, done: Result<(), Errno>| {
        if let Err(e) = done {
            problems.push(format!("{what}: {}", io::Error::from(e)));
        }
    };
    let now = rustix::fs::fstat(what);
    let is_owned = now.is_ok_and(|now| (now.st_uid, now.st_gid) == (entry.uid, entry.gid));
    if !is_owned {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        note(
            "its owner can not be set",
            rustix::fs::fchown(what, Some(uid), Some(gid)),
        );
    }
    for one in &entry.attributes {
        let set = rustix::fs::fsetxattr(what, &*one.name, &one.value, XattrFlags::empty());
        if set.is_err_and(|e| is_label(&one.name, e)) {
            continue;
        }
        note(&format!("its attribute {} can not be set", one.name), set);
    }
    let mode = Mode::from_raw_mode(entry.mode);
    note("its mode can not be set", rustix::fs::fchmod(what, mode));
    note(
        "its time can not be set",
        rustix::fs::futimens(what, &times(entry)),
    );
    all(problems)
}

/// The same of what is not to be opened.
fn of_named(folder: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), String> {
    let mut problems = Vec::new();
    let mut note = |what: &str, done: Result<(), Errno>| {
        if let Err(e) = done {
            problems.push(format!("{what}: {}", io::Error::from(e)));
        }
    };
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let now = rustix::fs::statat(folder, name, flags);
    let is_owned = now.is_ok_and(|now| (now.st_uid, now.st_gid) == (entry.uid, entry.gid));
    if !is_owned {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        note(
            "its owner can not be set",
            rustix::fs::chownat(folder, name, Some(uid), Some(gid), flags),
        );
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    for one in &entry.attributes {
        let set = rustix::fs::lsetxattr(&path, &*one.name, &one.value, XattrFlags::empty());
        if set.is_err_and(|e| is_label(&one.name, e)) {
            continue;
        }
        note(&format!("its attribute {} can not be set", one.name), set);
    }
    // A link has no mode of its own.
    if !matches!(entry.what, What::Link { .. }) {
        let mode = Mode::from_raw_mode(entry.mode);
        note(
            "its mode can not be set",
            rustix::fs::chmodat(folder, name, mode, AtFlags::empty()),
        );
    }
    note(
        "its time can not be set",
        rustix::fs::utimensat(folder, name, &times(entry), flags),
    );
    all(problems)
}

impl Target for FolderTarget {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_file();
        self.restored.entries += 1;
        if entry.path.is_root() {
            let root = self.root.take();
            let root = root.ok_or_else(|| Error::corrupt("the volume has two roots"))?;
            self.open.push(Level {
                folder: root,
                entry: entry.clone(),
            });
            return Ok(());
        }
        self.end_folders(Some(&entry.path));
        if let Err(what) = self.create(entry) {
            self.trouble(&entry.path, what);
        }
        Ok(())
    }

    fn data(&mut self, bytes: Bytes) -> Result<()> {
        let Some(writing) = &mut self.writing else {
            // Of a file that could not be made, which is noted.
            return Ok(());
        };
        let Some(file) = &writing.file else {
            return Ok(());
        };
        let path = writing.entry.path.clone();
        let mut rest = &bytes[..];
        let mut failed = None;
        while !rest.is_empty() && failed.is_none() {
            let first = HOLE - (writing.at % HOLE as u64) as usize;
            let zeros = |block: &[u8]| block.iter().all(|byte| *byte == 0);
            let (mut length, mut block) = (0, first.min(rest.len()));
            let is_hole = block == HOLE && zeros(&rest[..block]);
            while block > 0 && (block == HOLE && zeros(&rest[length..length + block])) == is_hole {
                length += block;
                block = HOLE.min(rest.len() - length);
            }
            let (piece, after) = rest.split_at(length);
            if !is_hole {
                let mut done = 0;
                while done < piece.len() {
                    match rustix::io::pwrite(file, &piece[done..], writing.at + done as u64) {
                        Ok(0) => failed = Some("nothing more can be written to it".to_owned()),
                        Ok(more) => done += more,
                        Err(Errno::INTR) => {}
                        Err(e) => failed = Some(io::Error::from(e).to_string()),
                    }
                    if failed.is_some() {
                        break;
                    }
                }
            }
            writing.at += length as u64;
            rest = after;
        }
        if let Some(what) = failed {
            writing.file = None;
            self.trouble(&path, what);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.end_file();
        let root = self
            .open
            .first()
            .map(|level| level.folder.try_clone())
            .transpose()
            .map_err(|e| Error::other("the folder can not be used").because(e))?;
        self.end_folders(None);
        if let Some(root) = root {
            rustix::fs::syncfs(&root).map_err(|e| {
                Error::other("what was restored can not be made durable")
                    .because(io::Error::from(e))
            })?;
        }
        Ok(())
    }
}
