//! Removes what a restore that died left in its folder: everything below it, from folder to folder by open descriptors. No link is followed, no other file system is
//! entered, and the folder itself stays. Whoever calls it knows that all of it is his.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::super::entry::EntryPath;
use super::FOLDER;
use super::read::{LOST_AND_FOUND, names};
use crate::error::{Error, Result};

/// A restore holds a descriptor for each folder that it is in, and so does this: none of ours is deeper.
const DEEPEST: usize = 4096;

struct Level {
    path: EntryPath,
    folder: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// Removes everything below the folder at this path; the empty `lost+found` of a file system stays.
///
/// # Errors
/// What could not be removed, by name; a file system that is mounted in it.
pub fn clear(path: &Path) -> Result<()> {
    let failed = |at: &EntryPath, e: Errno| {
        Error::other(format!("can not remove {at} below {}", path.display()))
            .hint("nothing is restored over what stands: empty the folder by hand")
            .because(io::Error::from(e))
    };
    let root = EntryPath::root();
    let flags = FOLDER.difference(OFlags::NOFOLLOW);
    let folder = rustix::fs::openat(CWD, path, flags, Mode::empty());
    let folder = folder.map_err(|e| {
        Error::invalid(format!("can not restore into {}", path.display()))
            .because(io::Error::from(e))
    })?;
    let stat = rustix::fs::fstat(&folder);
    let device = stat.map_err(|e| failed(&root, e))?.st_dev;
    let first = names(&folder).map_err(|e| failed(&root, e))?.into_iter();
    let mut open = vec![Level {
        path: root,
        folder,
        names: first,
    }];
    while let Some(level) = open.last_mut() {
        let Some(name) = level.names.next() else {
            let done = open.pop();
            if let (Some(done), Some(above)) = (done, open.last()) {
                remove_folder(&above.folder, &done.path).map_err(|e| failed(&done.path, e))?;
            }
            continue;
        };
        let at = level.path.join(&name);
        let name = OsStr::from_bytes(&name);
        let io = |e: Errno| failed(&at, e);
        let stat = match rustix::fs::statat(&level.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat.map_err(io)?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            gone(rustix::fs::unlinkat(&level.folder, name, AtFlags::empty())).map_err(io)?;
            continue;
        }
        let folder = match enter(&level.folder, name, device) {
            Err(Errno::XDEV) => {
                return Err(Error::other(format!(
                    "something is mounted at {at} below {}",
                    path.display()
                ))
                .hint("unmount it, or empty the folder by hand"));
            }
            folder => folder.map_err(io)?,
        };
        if open.len() > DEEPEST {
            return Err(failed(&at, Errno::NAMETOOLONG));
        }
        // A folder that was restored may forbid to write in it; where the mode is not ours to change, removing says so.
        let _ = rustix::fs::fchmod(&folder, Mode::RWXU);
        let below = names(&folder).map_err(io)?.into_iter();
        open.push(Level {
            path: at,
            folder,
            names: below,
        });
    }
    Ok(())
}

/// Opens a folder in this one: no link, and nothing that is mounted there. What is opened counts, not what was looked at before.
fn enter(above: &OwnedFd, name: &OsStr, device: u64) -> Result<OwnedFd, Errno> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let folder = match rustix::fs::openat2(above, name, FOLDER, Mode::empty(), inside) {
        // An older kernel, or one that forbids the call: a mount of the same file system is not told from a folder there.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(above, name, FOLDER, Mode::empty())?,
        folder => folder?,
    };
    if rustix::fs::fstat(&folder)?.st_dev != device {
        return Err(Errno::XDEV);
    }
    Ok(folder)
}

fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

fn remove_folder(above: &OwnedFd, path: &EntryPath) -> Result<(), Errno> {
    let name = path.name().unwrap_or_default();
    let is_lost_and_found = path.as_bytes() == LOST_AND_FOUND;
    let name = OsStr::from_bytes(name);
    if is_lost_and_found {
        let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if stat.st_uid == 0 {
            return Ok(());
        }
    }
    gone(rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::super::FolderTarget;
    use super::*;

    #[test]
    fn everything_below_goes_and_nothing_that_a_link_names() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("a/b/c")).unwrap();
        fs::create_dir(path("lost+found")).unwrap();
        for name in ["f", "a/f", "a/b/c/f", "lost+found/#1"] {
            fs::write(path(name), "f").unwrap();
        }
        symlink(outside.path(), path("link")).unwrap();
        symlink(outside.path(), path("a/link")).unwrap();
        symlink("nowhere", path("a/b/dangling")).unwrap();
        rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::set_permissions(path("a/b"), fs::Permissions::from_mode(0o555)).unwrap();
        clear(folder.path()).unwrap();
        FolderTarget::new(folder.path()).unwrap();
        assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"kept");
        // One that is empty, and none.
        clear(folder.path()).unwrap();
        clear(&folder.path().join("none")).unwrap_err();
    }

    #[test]
    fn a_tree_that_is_hundreds_of_folders_deep_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut deep = folder.path().to_owned();
        for _ in 0..300 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), "f").unwrap();
        clear(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
