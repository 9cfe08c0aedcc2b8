//! Unpacks a stream by what it begins with: age around one of the others, gzip, zstd, or nothing to unpack. Runs on a thread of its own, for the decoders are synchronous;
//! a few chunks are under way to it, no more.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use backup_core::Error;
use backup_core::Result;
use backup_core::crypt::Opener;
use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use tokio::sync::mpsc;

/// Chunks under way.
const CHUNKS: usize = 4;

/// Bytes that come out at a time.
const PIECE: usize = 256 << 10;

/// Bytes that tell what it is.
const BEGIN: usize = 32;

/// The largest window a zstd frame may ask for, as the program zstd has it: 128 MiB. Ours ask for 8 at most.
const WINDOW_LOG: u32 = 27;

const AGE: &[u8] = b"age-encryption.org/";
const ARMORED: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE---";
const GZIP: &[u8] = &[0x1F, 0x8B];
const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];

/// The receiving side of the chunks: blocks until the next one comes.
pub(super) struct Feed {
    chunks: mpsc::Receiver<Option<Bytes>>,
    chunk: Bytes,
    ended: bool,
    taken: u64,
}

/// A sender of chunks, whose last word is nothing, and the reader of them.
pub(super) fn feed() -> (mpsc::Sender<Option<Bytes>>, Feed) {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let feed = Feed {
        chunks,
        chunk: Bytes::new(),
        ended: false,
        taken: 0,
    };
    (sender, feed)
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Some(chunk)) => self.chunk = chunk,
                Some(None) => self.ended = true,
                // Nobody reads the source any more: why is told there.
                None => return Err(io::Error::other("the source was given up")),
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount);
        self.taken += amount as u64;
    }
}

impl Read for Feed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.fill_buf()?.read(out)?;
        self.consume(got);
        Ok(got)
    }
}

/// Gives all that is in the stream to `out`, piece by piece; what is encrypted only where it was proved. Where the flag beside the opener is set, what is not
/// encrypted was put in the place of what is.
///
/// # Errors
/// `Corrupt` where it is empty, does not decompress to its end, was altered, or is packed in a way that is not known here; `Unauthorized` where it is encrypted
/// and nothing fits; `Corrupt` where it has to be and is not; those of `out`.
pub(super) fn unpack(
    feed: Feed,
    (opener, only_encrypted): (&Opener, bool),
    name: &str,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (begin, whole) = begun(feed, name)?;
    if !begin.starts_with(AGE) {
        known(&begin, name)?;
        if only_encrypted {
            return Err(plain(name));
        }
        return unpacked(&begin, whole, "", name, out);
    }
    let opened = opener
        .reader(whole)
        .map_err(|e| e.context(format!("{name} can not be opened")))?;
    let (begin, plain) = begun(BufReader::with_capacity(PIECE, opened), name)?;
    if begin.starts_with(AGE) {
        return Err(Error::corrupt(format!("{name} is encrypted twice"))
            .hint("decrypt the outer one first: age -d -i KEY"));
    }
    unpacked(&begin, plain, "age", name, out)
}

/// What is not encrypted where that was meant.
pub(crate) fn plain(name: &str) -> Error {
    Error::corrupt(format!(
        "{name} is not encrypted, and an encrypted snapshot is asked for"
    ))
    .hint("somebody may have put a plain snapshot in its place; where it is one of old, ask for it without an identity and without a passphrase")
}

/// The first bytes of a stream, and all of it.
fn begun<R: BufRead>(mut from: R, name: &str) -> Result<(Vec<u8>, impl BufRead + use<R>)> {
    let mut begin = Vec::with_capacity(BEGIN);
    (&mut from)
        .take(BEGIN as u64)
        .read_to_end(&mut begin)
        .map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                Error::corrupt(format!("{name} was altered or cut"))
                    .because(e)
                    .hint("fetch it again, or use another snapshot")
            }
            _ => Error::other(format!("{name} can not be read")).because(e),
        })?;
    if begin.is_empty() {
        return Err(Error::corrupt(format!("{name} is empty"))
            .hint("it never was a snapshot; use another one"));
    }
    let whole = Read::chain(Cursor::new(begin.clone()), from);
    Ok((begin, whole))
}

/// What is not encrypted any more; `around` names what it came out of.
fn unpacked(
    begin: &[u8],
    whole: impl BufRead,
    around: &str,
    name: &str,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    known(begin, name)?;
    let failed = |e| Error::other(format!("{name} can not be read")).because(e);
    if begin.starts_with(GZIP) {
        copy(MultiGzDecoder::new(whole), "gzip", name, out)
    } else if begin.starts_with(ZSTD) {
        let mut decoder = zstd::Decoder::with_buffer(whole).map_err(failed)?;
        decoder.window_log_max(WINDOW_LOG).map_err(failed)?;
        copy(decoder, "zstd", name, out)
    } else {
        copy(whole, around, name, out)
    }
}

fn copy(
    mut from: impl Read,
    format: &str,
    name: &str,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut total = 0_u64;
    loop {
        let got = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if format.is_empty() => {
                return Err(Error::other(format!("{name} can not be read")).because(e));
            }
            Err(e) => {
                let what = if e.kind() == io::ErrorKind::UnexpectedEof {
                    "was cut: its"
                } else {
                    "is damaged: its"
                };
                return Err(Error::corrupt(format!(
                    "{name} {what} {format} stream ends after {total} bytes of the database"
                ))
                .because(e)
                .hint("fetch it again, or use another snapshot"));
            }
        };
        total += got as u64;
        out(&buffer[..got])?;
    }
}

/// Errors where it is something else that can be named.
fn known(begin: &[u8], name: &str) -> Result<()> {
    let (what, hint) = if begin.starts_with(ARMORED) {
        (
            "is encrypted with age and armored",
            "decrypt it first: age -d -i KEY",
        )
    } else if begin.starts_with(b"PK\x03\x04") {
        ("is a zip archive", "unpack it first")
    } else if begin.starts_with(b"\xFD7zXZ\0") || begin.starts_with(b"BZh") {
        ("is packed by xz or bzip2", "unpack it first")
    } else if begin.starts_with(b"<") {
        (
            "is a page of HTML or XML",
            "a store answered with an error where the snapshot was expected; look into the file",
        )
    } else {
        return Ok(());
    };
    Err(Error::corrupt(format!("{name} {what}, and no snapshot")).hint(hint))
}

/// Whether a file begins as something that has to be unpacked, or refused by name.
pub(super) fn is_packed(path: &Path) -> Result<bool> {
    let failed = |e| Error::other(format!("can not read {}", path.display())).because(e);
    let mut begin = Vec::with_capacity(BEGIN);
    File::open(path)
        .map_err(|e| super::open_failed(path, e))?
        .take(BEGIN as u64)
        .read_to_end(&mut begin)
        .map_err(failed)?;
    Ok(begin.starts_with(AGE)
        || begin.starts_with(GZIP)
        || begin.starts_with(ZSTD)
        || known(&begin, "").is_err())
}
