//! The mover's side of a backup: `list` and `send`.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::super::entry::EntryPath;
use super::super::folder::{FILE, FOLDER, FolderSource};
use super::super::source::{Missed, Source as _, Trouble};
use super::frame::{Ended, FileEnded, Frame, PIECE, Wanted};
use crate::error::{Error, Result};

fn broke(e: io::Error) -> Error {
    Error::other("nobody takes what is sent").because(e)
}

/// Lists a folder.
///
/// # Errors
/// When nobody listens, or there is no folder.
pub fn list(folder: &Path, to: &mut dyn Write) -> Result<Ended> {
    let mut ended = Ended::default();
    for found in FolderSource::new(folder).entries()? {
        let frame = match found {
            Ok(found) => {
                ended.count += 1;
                Frame::Entry(Box::new(found.entry))
            }
            // Who takes them names them.
            Err(Missed::Trouble(trouble)) => {
                ended.trouble_count += 1;
                Frame::Trouble(trouble)
            }
            Err(Missed::Vanished(path)) => {
                ended.vanished_count += 1;
                Frame::Vanished(path)
            }
        };
        frame.write(to).map_err(broke)?;
    }
    Frame::End(ended.clone()).write(to).map_err(broke)?;
    to.flush().map_err(broke)?;
    Ok(ended)
}

/// Sends the files that are asked for, until nobody asks any more.
///
/// # Errors
/// When nobody listens, or there is no folder.
pub fn send(folder: &Path, from: &mut dyn Read, to: &mut dyn Write) -> Result<Ended> {
    let flags = FOLDER.difference(OFlags::NOFOLLOW);
    let root = rustix::fs::openat(CWD, folder, flags, Mode::empty()).map_err(|e| {
        Error::invalid(format!("can not read the folder {}", folder.display()))
            .because(io::Error::from(e))
    })?;
    let mut ended = Ended::default();
    loop {
        let wanted = match Frame::read(from)? {
            None | Some(Frame::End(_)) => break,
            Some(Frame::Wanted(wanted)) => wanted,
            Some(_) => return Err(Error::corrupt("what is asked for is no file")),
        };
        let file = match one(&root, &wanted, to) {
            Ok(file) => file,
            Err(Failed::Reading(e)) => FileEnded {
                changed: false,
                error: Some(e.to_string()),
            },
            Err(Failed::Sending(e)) => return Err(broke(e)),
        };
        ended.count += 1;
        if let Some(what) = &file.error {
            ended.trouble_count += 1;
            if ended.troubles.len() < 50 {
                ended.troubles.push(Trouble {
                    path: wanted.path.clone(),
                    what: what.clone(),
                });
            }
        }
        Frame::File(file).write(to).map_err(broke)?;
        // Whoever asked waits for it before the next is asked for.
        to.flush().map_err(broke)?;
    }
    Frame::End(ended.clone()).write(to).map_err(broke)?;
    to.flush().map_err(broke)?;
    Ok(ended)
}

enum Failed {
    Reading(io::Error),
    Sending(io::Error),
}

/// Opens a file below the root, from folder to folder, so that no link leads out.
fn open(root: &OwnedFd, path: &EntryPath) -> io::Result<OwnedFd> {
    path.check().map_err(io::Error::other)?;
    let mut folder: Option<OwnedFd> = None;
    let mut names = path.names().peekable();
    while let Some(name) = names.next() {
        let flags = if names.peek().is_some() { FOLDER } else { FILE };
        let at = folder.as_ref().unwrap_or(root);
        let name = OsStr::from_bytes(name);
        folder = Some(rustix::fs::openat(at, name, flags, Mode::empty())?);
    }
    folder.ok_or_else(|| io::Error::other("it is a folder"))
}

fn one(root: &OwnedFd, wanted: &Wanted, to: &mut dyn Write) -> Result<FileEnded, Failed> {
    let reading = |e: rustix::io::Errno| Failed::Reading(e.into());
    let file = open(root, &wanted.path).map_err(Failed::Reading)?;
    let before = rustix::fs::fstat(&file).map_err(reading)?;
    let is_other = FileType::from_raw_mode(before.st_mode) != FileType::RegularFile
        || (before.st_ino, before.st_dev) != (wanted.inode, wanted.device);
    if is_other {
        return Err(Failed::Reading(io::Error::other(
            "another file stands there than was listed",
        )));
    }
    let mut file = std::fs::File::from(file);
    let mut left = wanted.size;
    let mut buffer = vec![0; PIECE];
    let mut zeros = 0;
    while left > 0 {
        let most = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
        let read = match file.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failed::Reading(e)),
        };
        left -= read as u64;
        if buffer[..read].iter().all(|byte| *byte == 0) {
            zeros += read as u64;
            continue;
        }
        send_zeros(&mut zeros, to)?;
        let data = Frame::Data(Bytes::copy_from_slice(&buffer[..read]));
        data.write(to).map_err(Failed::Sending)?;
    }
    send_zeros(&mut zeros, to)?;
    let after = rustix::fs::fstat(&file).map_err(reading)?;
    let is_changed = after.st_size.cast_unsigned() != wanted.size
        || (after.st_mtime, after.st_mtime_nsec) != (before.st_mtime, before.st_mtime_nsec);
    Ok(FileEnded {
        changed: is_changed,
        error: None,
    })
}

fn send_zeros(zeros: &mut u64, to: &mut dyn Write) -> Result<(), Failed> {
    if *zeros > 0 {
        let frame = Frame::Zeros(std::mem::take(zeros));
        frame.write(to).map_err(Failed::Sending)?;
    }
    Ok(())
}
