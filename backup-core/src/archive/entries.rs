//! Walks a tar that may be hostile: headers checked, names bounded and checked, nothing held but one name. Long names come as GNU
//! records or pax headers (Go writes either). It knows nothing of what the entries are for.

use std::io::{self, BufReader, Read};

use tar::{EntryType, Header};

use super::path::check_path;
use crate::error::{Error, Result};

/// tar's block.
pub(super) const BLOCK: usize = 512;

/// Longest long-name record or pax header.
const LONGEST_RECORD: u64 = 64 << 10;

/// A regular file of the tar; its body is read next, or passed over.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) size: u64,
    /// Where its body starts in the tar.
    pub(super) at: u64,
}

/// The entries of a tar, in order.
pub(super) struct Entries<R> {
    reader: BufReader<R>,
    at: u64,
    /// What is left of the body of the current entry, and its padding.
    body: u64,
    padding: u64,
    /// Headers seen.
    headers: u64,
    most: u64,
}

impl<R: Read> Entries<R> {
    /// Walks; more than `most` headers are an error.
    pub(super) fn new(reader: R, most: u64) -> Self {
        Self {
            reader: BufReader::with_capacity(64 << 10, reader),
            at: 0,
            body: 0,
            padding: 0,
            headers: 0,
            most,
        }
    }

    /// The next regular file; folders are passed over. After the last one the rest of the stream was read and found to be zeros.
    ///
    /// # Errors
    /// `Corrupt`, naming what is wrong.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        self.skip(self.body + self.padding)?;
        (self.body, self.padding) = (0, 0);
        let mut long: Option<Vec<u8>> = None;
        loop {
            let mut block = [0; BLOCK];
            if !self.fill(&mut block)? {
                return Err(Error::corrupt(format!(
                    "archive is truncated: the tar in it stops after {} bytes without its end",
                    self.at
                )));
            }
            if block == [0; BLOCK] {
                if long.is_some() {
                    return Err(self.no_tar("a long name without a file"));
                }
                self.end()?;
                return Ok(None);
            }
            let header = self.header(&block)?;
            let kind = header.entry_type();
            let mut size = header
                .entry_size()
                .map_err(|e| self.no_tar("a size that is no number").because(e))?;
            match kind {
                EntryType::GNULongName => {
                    let mut name = self.record(size)?;
                    while name.last() == Some(&0) {
                        name.pop();
                    }
                    long = Some(name);
                    continue;
                }
                EntryType::XHeader => {
                    for (key, value) in pax(&self.record(size)?)
                        .ok_or_else(|| self.no_tar("a pax header that can not be read"))?
                    {
                        match key.as_slice() {
                            b"path" => long = Some(value),
                            b"size" => return Err(self.no_tar("a size of its own in a pax header")),
                            key if key.starts_with(b"GNU.sparse") => {
                                return Err(self.no_tar("a sparse file"));
                            }
                            _ => {}
                        }
                    }
                    continue;
                }
                EntryType::XGlobalHeader => {
                    self.record(size)?;
                    continue;
                }
                _ => {}
            }
            let name = long
                .take()
                .unwrap_or_else(|| header.path_bytes().into_owned());
            let path = check_path(&name)?.to_owned();
            match kind {
                EntryType::Regular => {}
                EntryType::Directory => size = 0,
                EntryType::Link | EntryType::Symlink => {
                    return Err(Error::corrupt(format!("archive entry {path:?} is a link")));
                }
                _ => {
                    return Err(Error::corrupt(format!(
                        "archive entry {path:?} is neither a file nor a folder"
                    )));
                }
            }
            if size > super::LARGEST_BODY {
                return Err(Error::corrupt(format!(
                    "archive entry {path:?} is {size} bytes; no object is larger than {}",
                    super::LARGEST_BODY
                )));
            }
            if kind == EntryType::Directory {
                continue;
            }
            self.body = size;
            self.padding = padding(size);
            return Ok(Some(Entry {
                path,
                size,
                at: self.at,
            }));
        }
    }

    /// The body of the current entry.
    ///
    /// # Errors
    /// `Corrupt`, when it is truncated.
    pub(super) fn body(&mut self) -> Result<Vec<u8>> {
        let size = std::mem::take(&mut self.body);
        self.take(size)
    }

    fn take(&mut self, size: u64) -> Result<Vec<u8>> {
        // A size in a header is a promise only: what is reserved for it is bounded.
        let mut out = Vec::with_capacity(usize::try_from(size.min(1 << 20)).unwrap_or(0));
        let got = (&mut self.reader).take(size).read_to_end(&mut out);
        self.at += out.len() as u64;
        got.map_err(broken)?;
        if out.len() as u64 == size {
            Ok(out)
        } else {
            Err(self.truncated())
        }
    }

    fn record(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > LONGEST_RECORD {
            return Err(self.no_tar("too long a name"));
        }
        let out = self.take(size)?;
        self.skip(padding(size))?;
        Ok(out)
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        let gone =
            io::copy(&mut (&mut self.reader).take(bytes), &mut io::sink()).map_err(broken)?;
        self.at += gone;
        if gone == bytes {
            Ok(())
        } else {
            Err(self.truncated())
        }
    }

    /// Fills a block; false at the end of the stream.
    fn fill(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut got = 0;
        while got < BLOCK {
            match self.reader.read(&mut block[got..]) {
                Ok(0) if got == 0 => return Ok(false),
                Ok(0) => return Err(self.truncated()),
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(e)),
            }
        }
        self.at += BLOCK as u64;
        Ok(true)
    }

    fn header(&mut self, block: &[u8; BLOCK]) -> Result<Header> {
        let header = Header::from_byte_slice(block).clone();
        // The sum counts its own eight bytes as blanks; some old writers summed signed bytes, none we care for.
        let mut sum = 8 * 32;
        for byte in block[..148].iter().chain(&block[156..]) {
            sum += u32::from(*byte);
        }
        if header.cksum().ok() != Some(sum) {
            return Err(self.no_tar("a header that does not add up"));
        }
        self.headers += 1;
        if self.headers > self.most {
            return Err(Error::corrupt(format!(
                "archive has more than {} entries",
                self.most
            )));
        }
        Ok(header)
    }

    /// Reads what follows the first zero block: nothing but zeros.
    fn end(&mut self) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut zeros = BLOCK as u64;
        loop {
            let got = match self.reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(broken(e)),
            };
            zeros += got as u64;
            if buffer[..got].iter().any(|b| *b != 0) {
                return Err(Error::corrupt(
                    "archive has something after the end of the tar in it",
                ));
            }
            if zeros > LONGEST_END {
                return Err(Error::corrupt(
                    "archive has no end: only zeros follow its tar",
                ));
            }
        }
        if zeros < 2 * BLOCK as u64 {
            return Err(Error::corrupt(
                "archive is truncated: the second block of the end of its tar is missing",
            ));
        }
        Ok(())
    }

    fn truncated(&self) -> Error {
        Error::corrupt(format!(
            "archive is truncated: the tar in it stops in the middle of an entry after {} bytes",
            self.at
        ))
    }

    fn no_tar(&self, what: &str) -> Error {
        if self.headers == 0 || self.at <= BLOCK as u64 {
            Error::corrupt(format!("archive is no tar: it starts with {what}"))
        } else {
            Error::corrupt(format!(
                "the tar in the archive has {what} before its byte {}",
                self.at
            ))
        }
    }
}

/// Most zeros that are taken for tar's end (GNU tar fills up a record of blocks).
const LONGEST_END: u64 = 16 << 20;

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// The stream below failed; where the error below is one of ours it is kept.
fn broken(error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        let inner = error.into_inner().and_then(|inner| inner.downcast().ok());
        return inner.map_or_else(|| Error::corrupt("archive can not be read"), |e| *e);
    }
    Error::corrupt("archive can not be read").because(error)
}

/// The records of a pax header: `<length> <key>=<value>\n` each.
fn pax(mut text: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    while !text.is_empty() {
        let blank = text.iter().take(20).position(|b| *b == b' ')?;
        let length: usize = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
        let record = text.get(blank + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        text = &text[length..];
    }
    Some(records)
}
