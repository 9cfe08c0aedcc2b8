//! Every effect on files that a restore's safety rests on goes through here: the journal, the exchange, what is synced and removed. What
//! etcdutl and etcd write themselves does not; it is synced through here afterwards.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use rustix::io::Errno;

#[cfg(test)]
pub(crate) mod model;

/// A tree deeper than this is none of etcd's.
const DEEPEST: usize = 8;

/// What stands under a name; links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Absent,
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A link, a socket or a device.
    Other,
}

/// The calls. A call that returned is visible to every later one; it survives a crash of the machine only once what it
/// changed was synced: a file's bytes by a sync of the file, names by a sync of the folders they stand in.
pub(crate) trait Files: Send + Sync {
    /// What stands there.
    fn kind(&self, path: &Path) -> io::Result<Kind>;
    /// The names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;
    /// The first bytes of a file, at most so many.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
    /// A new folder that only its owner may enter.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Writes into a file, made (for its owner only) where it is absent; it ends behind these bytes.
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets room aside behind a file's end, so that a disk which fills up does not stop what is written there next; where the file
    /// system can not, nothing.
    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<()>;
    /// Makes a file's bytes, or a folder's names, survive a crash of the machine.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Swaps two folders, both or neither; `Unsupported` where the file system can not.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()>;
    /// Renames to a name that must be free.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all below it.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or folder the owner and group of another.
    fn give(&self, path: &Path, like: &Path) -> io::Result<()>;
}

/// Syncs a folder and all below it, deepest first.
pub(crate) fn sync_tree(files: &dyn Files, path: &Path) -> io::Result<()> {
    walk(files, path, DEEPEST, &mut |path| files.sync(path))
}

/// Gives a folder and all below it the owner of another.
pub(crate) fn give_tree(files: &dyn Files, path: &Path, like: &Path) -> io::Result<()> {
    walk(files, path, DEEPEST, &mut |path| files.give(path, like))
}

fn walk(
    files: &dyn Files,
    path: &Path,
    depth: usize,
    each: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    match files.kind(path)? {
        Kind::File => each(path),
        Kind::Folder if depth > 0 => {
            for name in files.list(path)? {
                walk(files, &path.join(name), depth - 1, each)?;
            }
            each(path)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is no part of a data directory", path.display()),
        )),
    }
}

/// The machine's own files.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk;

impl Files for Disk {
    fn kind(&self, path: &Path) -> io::Result<Kind> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Ok(Kind::Folder),
            Ok(found) if found.is_file() => Ok(Kind::File),
            Ok(_) => Ok(Kind::Other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Kind::Absent),
            Err(e) => Err(e),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path)
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        // Only where it is needed: cutting a file gives back what was reserved behind its end.
        if file.metadata()?.len() > offset {
            file.set_len(offset)?;
        }
        file.write_all_at(bytes, offset)
    }

    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        let end = file.metadata()?.len();
        match fallocate(&file, FallocateFlags::KEEP_SIZE, end, bytes) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
            reserved => Ok(reserved?),
        }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(refused)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                // The flag is refused: the lock on the data directory keeps others away between the look and the act.
                if self.kind(to)? != Kind::Absent {
                    return Err(Errno::EXIST.into());
                }
                fs::rename(from, to)
            }
            renamed => Ok(renamed?),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn give(&self, path: &Path, like: &Path) -> io::Result<()> {
        let (is, wanted) = (fs::symlink_metadata(path)?, fs::symlink_metadata(like)?);
        if (is.uid(), is.gid()) == (wanted.uid(), wanted.gid()) {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(wanted.uid()), Some(wanted.gid()))
    }
}

fn refused(errno: Errno) -> io::Error {
    match errno {
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => {
            io::Error::new(io::ErrorKind::Unsupported, errno)
        }
        errno => errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_exchanges_renames_and_writes_as_said() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        for path in [&a, &b] {
            Disk.create_folder(path).unwrap();
            Disk.write_at(&path.join("f"), 0, path.as_os_str().as_encoded_bytes())
                .unwrap();
        }
        Disk.exchange(&a, &b).unwrap();
        assert!(Disk.read(&a.join("f"), 999).unwrap().ends_with(b"/b"));
        assert!(Disk.rename(&a, &b).is_err(), "a full folder is in the way");
        Disk.rename(&a, &folder.path().join("c")).unwrap();
        assert_eq!(Disk.kind(&a).unwrap(), Kind::Absent);

        let file = folder.path().join("j");
        Disk.write_at(&file, 0, b"0123456789").unwrap();
        Disk.reserve(&file, 4096).unwrap();
        Disk.write_at(&file, 4, b"ab").unwrap();
        assert_eq!(Disk.read(&file, 3).unwrap(), b"012");
        assert_eq!(Disk.read(&file, 99).unwrap(), b"0123ab");
        assert_eq!(
            Disk.list(folder.path()).unwrap(),
            ["b", "c", "j"].map(OsString::from)
        );
        sync_tree(&Disk, folder.path()).unwrap();
    }

    #[test]
    fn a_link_is_no_part_of_a_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        assert!(sync_tree(&Disk, folder.path()).is_err());
    }
}
