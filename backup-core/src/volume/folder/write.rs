//! A folder as a [`Target`]: it is empty when it is begun, everything is created anew in it by open descriptors, and no link is followed. What can not be brought back of
//! one entry is noted; the rest goes on, and what is in a folder that could not be made is noted by name. A folder's own mode and times come when everything in it stands.

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
use super::FOLDER;
use super::read::LOST_AND_FOUND;
use crate::error::{Error, Kind, Result};

/// What is left out of a file where it is all zeros.
const HOLE: usize = 4096;

/// So many are named; all are counted.
const NAMED: usize = 50;

const NO_FOLDER: &str = "the folder that it is in could not be made";

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

/// A file that stands whole and may get other names.
struct Linked {
    path: EntryPath,
    size: u64,
    mtime: Moment,
}

/// An empty folder of this machine.
pub struct FolderTarget {
    root: OwnedFd,
    open: Vec<Level>,
    writing: Option<Writing>,
    /// The last whole file of each that has several names, by its first.
    links: HashMap<(u64, u64), Linked>,
    restored: Restored,
}

/// Something in a folder, if it is not empty; at the root of a volume, a fresh file system's own empty folder is nothing.
fn something_in(folder: &OwnedFd, is_root: bool) -> Result<Option<Vec<u8>>, Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_none = name == b"."
            || name == b".."
            || is_root && name == LOST_AND_FOUND && is_fresh(folder, OsStr::from_bytes(name))?;
        if !is_none {
            return Ok(Some(name.to_vec()));
        }
    }
    Ok(None)
}

/// Whether it is an empty folder of root's.
fn is_fresh(root: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
    let folder = match rustix::fs::openat(root, name, FOLDER, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        Err(e) => return Err(e),
    };
    let owner = Uid::from_raw(rustix::fs::fstat(&folder)?.st_uid);
    Ok(owner.is_root() && something_in(&folder, false)?.is_none())
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
        if let Some(name) = something_in(&root, true).map_err(failed)? {
            let name = EntryPath::new(name);
            return Err(Error::new(
                Kind::AlreadyExists,
                format!("{} is not empty: {name} is in it", path.display()),
            )
            .hint("nothing is restored over files that stand: give an empty folder"));
        }
        Ok(Self {
            root,
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
        if entry.links > 1 && at == entry.size {
            let linked = Linked {
                path: entry.path,
                size: entry.size,
                mtime: entry.mtime,
            };
            self.links.insert((entry.device, entry.inode), linked);
        }
    }

    /// Ends the folders that this path is not below.
    fn end_folders(&mut self, path: Option<&EntryPath>) {
        while let Some(level) = self.open.last() {
            if path.is_some_and(|path| path.is_below(&level.entry.path)) {
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
            return Err(NO_FOLDER.to_owned());
        };
        // Another one is open where this one's could not be made.
        if entry.path.parent().as_ref() != Some(&level.entry.path) {
            return Err(NO_FOLDER.to_owned());
        }
        let (folder, name) = (&level.folder, OsStr::from_bytes(name));
        let private = Mode::RWXU;
        match &entry.what {
            What::Folder => {
                match rustix::fs::mkdirat(folder, name, private) {
                    Ok(()) => {}
                    // That of a fresh file system, below its root.
                    Err(Errno::EXIST) if entry.path.as_bytes() == LOST_AND_FOUND => {}
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
                        &self.root,
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

    /// What stands of this file under another name. One that was written to between two looks is two files.
    fn first_name(&self, entry: &Entry) -> Option<&EntryPath> {
        let known = self.links.get(&(entry.device, entry.inode))?;
        let is_same = entry.links > 1 && (known.size, known.mtime) == (entry.size, entry.mtime);
        is_same.then_some(&known.path)
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

/// The bits that give the rights of a file's owner or group to whoever runs it.
const SET_ID: u32 = 0o6000;

/// Who is to own it. The greatest number means nobody to the kernel, which would leave the owner as it is.
fn owner(entry: &Entry) -> Result<(Uid, Gid), Errno> {
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    Ok((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid)))
}

/// The mode that it gets: who has not got his file does not lend its rights.
fn mode(entry: &Entry, is_owned: bool) -> Mode {
    let taken = if is_owned { 0 } else { SET_ID };
    Mode::from_raw_mode(entry.mode & !taken)
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
    let mut is_owned = now.is_ok_and(|now| (now.st_uid, now.st_gid) == (entry.uid, entry.gid));
    if !is_owned {
        let owner = owner(entry);
        let set = owner.and_then(|(uid, gid)| rustix::fs::fchown(what, Some(uid), Some(gid)));
        is_owned = set.is_ok();
        note("its owner can not be set", set);
    }
    for one in &entry.attributes {
        let set = rustix::fs::fsetxattr(what, &*one.name, &one.value, XattrFlags::empty());
        if set.is_err_and(|e| is_label(&one.name, e)) {
            continue;
        }
        note(&format!("its attribute {} can not be set", one.name), set);
    }
    let mode = mode(entry, is_owned);
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
    let mut is_owned = now.is_ok_and(|now| (now.st_uid, now.st_gid) == (entry.uid, entry.gid));
    if !is_owned {
        let owner = owner(entry);
        let set = owner
            .and_then(|(uid, gid)| rustix::fs::chownat(folder, name, Some(uid), Some(gid), flags));
        is_owned = set.is_ok();
        note("its owner can not be set", set);
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
        let mode = mode(entry, is_owned);
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
            if !self.open.is_empty() {
                return Err(Error::corrupt("the volume has two roots"));
            }
            let root = self.root.try_clone();
            let root = root.map_err(|e| Error::other("the folder can not be used").because(e))?;
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
        self.end_folders(None);
        rustix::fs::syncfs(&self.root).map_err(|e| {
            Error::other("what was restored can not be made durable").because(io::Error::from(e))
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::super::super::entry::tests::entry;
    use super::*;

    /// Restores these, each file with its bytes.
    fn restored(folder: &Path, entries: &[(Entry, &[u8])]) -> Restored {
        let mut target = FolderTarget::new(folder).unwrap();
        target.entry(&entry("", What::Folder, 0)).unwrap();
        for (entry, bytes) in entries {
            target.entry(entry).unwrap();
            if !bytes.is_empty() {
                target.data(Bytes::copy_from_slice(bytes)).unwrap();
            }
        }
        target.finish().unwrap();
        target.restored().clone()
    }

    fn named(restored: &Restored) -> Vec<String> {
        let troubles = restored.troubles.iter();
        troubles.map(|trouble| trouble.path.to_string()).collect()
    }

    #[test]
    fn a_folder_that_can_not_be_made_costs_what_is_in_it_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        // No file system has such a name, and nothing that is in it may land elsewhere.
        let long = "x".repeat(300);
        let deep = format!("a/{long}");
        let restored = restored(
            folder.path(),
            &[
                (entry("a", What::Folder, 0), b""),
                (entry(&deep, What::Folder, 0), b""),
                (entry(&format!("{deep}/f"), What::File, 1), b"f"),
                (entry(&format!("{deep}/g"), What::Folder, 0), b""),
                (entry(&format!("{deep}/g/h"), What::File, 1), b"h"),
                (entry("a/y", What::File, 1), b"y"),
                (entry("z", What::File, 1), b"z"),
            ],
        );
        let expected = ["", "/f", "/g", "/g/h"].map(|rest| format!("{deep}{rest}"));
        assert_eq!(named(&restored), expected);
        assert!(restored.troubles[1].what.contains("could not be made"));
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert_eq!((read("a/y"), read("z")), (b"y".to_vec(), b"z".to_vec()));
        let count = |name: &str| fs::read_dir(folder.path().join(name)).unwrap().count();
        assert_eq!((count(""), count("a")), (2, 1));
        let mode = fs::metadata(folder.path().join("a")).unwrap().permissions();
        assert_eq!(
            mode.mode() & 0o7777,
            0o755,
            "it was ended as the others are"
        );
    }

    #[test]
    fn other_names_of_a_file_are_links_only_while_it_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let of = |path: &str, size, mtime| Entry {
            links: 4,
            mtime: Moment(mtime, 0),
            ..entry(path, What::File, size)
        };
        let restored = restored(
            folder.path(),
            &[
                (of("a", 3, 1), b"one"),
                (of("b", 3, 1), b"one"),
                // Written to before its third name was looked at.
                (of("c", 3, 2), b"two"),
                (of("d", 5, 2), b"three"),
            ],
        );
        assert_eq!(restored.trouble_count, 0);
        let of = |name: &str| {
            let path = folder.path().join(name);
            (
                fs::metadata(&path).unwrap().nlink(),
                fs::read(path).unwrap(),
            )
        };
        assert_eq!(of("a"), (2, b"one".to_vec()));
        assert_eq!(of("b"), (2, b"one".to_vec()));
        assert_eq!(of("c"), (1, b"two".to_vec()));
        assert_eq!(of("d"), (1, b"three".to_vec()));
    }

    #[test]
    fn a_file_that_did_not_come_whole_gets_no_other_names() {
        let folder = tempfile::tempdir().unwrap();
        let of = |path: &str| Entry {
            links: 2,
            ..entry(path, What::File, 3)
        };
        let restored = restored(folder.path(), &[(of("a"), b"on"), (of("b"), b"one")]);
        assert_eq!(named(&restored), ["a"]);
        assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"one");
    }

    #[test]
    fn what_can_not_be_given_to_its_owner_lends_nobody_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        let of = |path: &str, what, uid| Entry {
            mode: 0o6755,
            uid,
            ..entry(path, what, 0)
        };
        let own = rustix::process::getuid().as_raw();
        let restored = restored(
            folder.path(),
            &[
                (of("file", What::File, u32::MAX), b""),
                (of("fifo", What::Fifo, u32::MAX), b""),
                (of("mine", What::File, own), b""),
            ],
        );
        assert_eq!(named(&restored), ["file", "fifo"]);
        let mode = |name: &str| {
            let known = fs::metadata(folder.path().join(name)).unwrap();
            known.permissions().mode() & 0o7777
        };
        assert_eq!((mode("file"), mode("fifo")), (0o755, 0o755));
        assert_eq!(mode("mine"), 0o6755);
    }

    #[test]
    fn an_empty_lost_and_found_of_root_alone_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let lost = folder.path().join("lost+found");
        let is_taken = || {
            let refused = FolderTarget::new(folder.path()).map(drop).unwrap_err();
            assert!(refused.to_string().contains("lost+found"), "{refused}");
            assert_eq!(refused.kind(), Kind::AlreadyExists);
        };
        fs::write(&lost, "").unwrap();
        is_taken();
        fs::remove_file(&lost).unwrap();
        std::os::unix::fs::symlink("/", &lost).unwrap();
        is_taken();
        fs::remove_file(&lost).unwrap();
        fs::create_dir_all(lost.join("#1")).unwrap();
        is_taken();
        fs::remove_dir(lost.join("#1")).unwrap();
        if rustix::process::getuid().is_root() {
            FolderTarget::new(folder.path()).unwrap();
            std::os::unix::fs::chown(&lost, Some(1000), None).unwrap();
        }
        is_taken();
    }
}
