//! The pages of a file, read by position and checked against what their headers and the meta say. Opens nothing for writing and maps
//! nothing into memory: a file that shrinks meanwhile is an error here, and no signal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{BRANCH, Header, LEAF, META, Meta, PAGE_SIZES, newest};
use crate::error::{Error, Result};

/// A page with its overflow; what etcd stores is some MiB at most, unless its limits were raised by far.
pub(in crate::etcd) const MOST_PAGE: u64 = 64 << 20;

/// Bytes of a SHA-256 behind the last page.
pub(in crate::etcd) const TRAILER: u64 = 32;

/// Why a page can not be read.
#[derive(Debug)]
pub(in crate::etcd) enum PageFault {
    /// The file can not.
    Io(Error),
    /// It is wrong; the text ends a sentence that begins with the page.
    Bad(String),
}

/// A database file by pages.
#[derive(Debug)]
pub(in crate::etcd) struct PageFile {
    file: File,
    name: String,
    meta: Meta,
    bytes: u64,
    has_trailer: bool,
}

impl PageFile {
    /// Reads the metas.
    ///
    /// # Errors
    /// `Corrupt` where it is no database, or shorter than its meta says.
    pub(in crate::etcd) fn open(file: File, name: &str) -> Result<Self> {
        let length = file
            .metadata()
            .map_err(|e| Error::other(format!("can not read {name}")).because(e))?
            .len();
        // What is no database was not cut, whatever its size.
        let meta = find_meta(&file, length)
            .map_err(|e| Error::other(format!("can not read {name}")).because(e))?;
        let meta = known(meta, length, name)?;
        let (bytes, has_trailer) = split(length, name)?;
        whole(&meta, bytes, name)?;
        Ok(Self {
            file,
            name: name.to_owned(),
            meta,
            bytes,
            has_trailer,
        })
    }

    pub(in crate::etcd) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::etcd) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Without the trailer.
    pub(in crate::etcd) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(in crate::etcd) fn has_trailer(&self) -> bool {
        self.has_trailer
    }

    /// Exactly these bytes.
    pub(in crate::etcd) fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(buffer, at).map_err(|e| {
            let kind = e.kind();
            let error = format!("can not read {} at byte {at}", self.name);
            if kind == io::ErrorKind::UnexpectedEof {
                Error::corrupt(error).because("the file became shorter")
            } else {
                Error::other(error).because(e)
            }
        })
    }

    /// A leaf or a branch with its overflow.
    pub(in crate::etcd) fn page(
        &self,
        id: u64,
        buffer: &mut Vec<u8>,
    ) -> std::result::Result<Header, PageFault> {
        let bad = |text: &str| Err(PageFault::Bad(text.to_owned()));
        if id < 2 || id >= self.meta.high_water {
            return bad("is outside the database");
        }
        let size = self.meta.page_size as usize;
        let at = id * u64::from(self.meta.page_size);
        buffer.resize(size, 0);
        self.read_at(buffer, at).map_err(PageFault::Io)?;
        let Some(header) = Header::parse(buffer) else {
            return bad("has no header");
        };
        if header.id != id {
            return Err(PageFault::Bad(format!("says it is page {}", header.id)));
        }
        if header.kind != BRANCH && header.kind != LEAF {
            return Err(PageFault::Bad(format!(
                "is no leaf and no branch, but of type {:#x}",
                header.kind
            )));
        }
        let pages = u64::from(header.overflow) + 1;
        if pages > self.meta.high_water - id {
            return bad("reaches beyond the database");
        }
        let whole = pages * u64::from(self.meta.page_size);
        if whole > MOST_PAGE {
            return Err(PageFault::Bad(format!(
                "is {} MiB large; {} are read at most",
                whole >> 20,
                MOST_PAGE >> 20
            )));
        }
        if header.overflow > 0 {
            buffer.resize(whole as usize, 0);
            self.read_at(&mut buffer[size..], at + size as u64)
                .map_err(PageFault::Io)?;
        }
        Ok(header)
    }
}

/// Bytes of the database and whether a trailer follows, by the length alone: pages are multiples of 512 bytes.
pub(in crate::etcd) fn split(length: u64, name: &str) -> Result<(u64, bool)> {
    match length % 512 {
        0 => Ok((length, false)),
        TRAILER => Ok((length - TRAILER, true)),
        _ => Err(Error::corrupt(format!(
            "{name} was cut: its {length} bytes are no whole number of pages"
        ))
        .hint("it is not the whole file; fetch it again, or take another one")),
    }
}

/// The meta, or why there is none.
pub(in crate::etcd) fn known(meta: Option<Meta>, length: u64, name: &str) -> Result<Meta> {
    meta.ok_or_else(|| {
        if length == 0 {
            Error::corrupt(format!("{name} is empty"))
                .hint("it never was a snapshot; take another one")
        } else {
            no_database(name)
        }
    })
}

pub(in crate::etcd) fn no_database(name: &str) -> Error {
    Error::corrupt(format!("{name} is no database of etcd"))
        .hint("a snapshot is what `etcdctl snapshot save` writes, or the file member/snap/db of a data directory, plain or packed by gzip or zstd")
}

/// Errors where the file ends before the database does, or the meta can not be.
pub(in crate::etcd) fn whole(meta: &Meta, bytes: u64, name: &str) -> Result<()> {
    let wanted = meta.high_water.checked_mul(u64::from(meta.page_size));
    if wanted.is_none_or(|wanted| wanted > bytes) {
        let wanted = wanted.map_or_else(|| "more".to_owned(), |wanted| wanted.to_string());
        return Err(Error::corrupt(format!(
            "{name} was cut: it has {bytes} bytes where the database in it has {wanted}"
        ))
        .hint("it is not the whole file; fetch it again, or take another one"));
    }
    if meta.root < 2 || meta.root >= meta.high_water {
        return Err(Error::corrupt(format!(
            "{name} is damaged: its root, page {}, is outside the database",
            meta.root
        )));
    }
    Ok(())
}

/// The newer valid meta. Where that on page 0 is torn, the size of a page is not known, and every one that may be is tried.
fn find_meta(file: &File, bytes: u64) -> io::Result<Option<Meta>> {
    let at = |position: u64| -> io::Result<Option<Meta>> {
        if position + META as u64 > bytes {
            return Ok(None);
        }
        let mut block = [0; META];
        file.read_exact_at(&mut block, position)?;
        let is_meta = Header::parse(&block).is_some_and(|header| header.kind == super::META_PAGE);
        Ok(is_meta.then(|| Meta::parse(&block)).flatten())
    };
    if let Some(first) = at(0)? {
        let second = at(u64::from(first.page_size))?;
        let second = second.filter(|second| second.page_size == first.page_size);
        return Ok(newest(Some(first), second));
    }
    let mut size = PAGE_SIZES.start;
    while PAGE_SIZES.contains(&size) {
        if let Some(second) = at(u64::from(size))?.filter(|second| second.page_size == size) {
            return Ok(Some(second));
        }
        size *= 2;
    }
    Ok(None)
}
