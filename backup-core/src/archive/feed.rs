//! Brings a stream of chunks to a thread that reads: gunzip and tar are synchronous. A few chunks are under way, no more.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use tokio::sync::mpsc;

use crate::error::Error;

/// Chunks under way to the reader.
const CHUNKS: usize = 4;

/// The reading side: blocks until the next chunk comes. It ends where the sender is dropped.
pub(super) struct Feed {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    taken: u64,
}

/// A sender of chunks and the reader of them.
pub(super) fn feed() -> (mpsc::Sender<Bytes>, Feed) {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let feed = Feed {
        chunks,
        chunk: Bytes::new(),
        taken: 0,
    };
    (sender, feed)
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => break,
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

/// What a gzip stream holds, with errors that name what is wrong with it, and a bound.
pub(super) struct Gunzip {
    decoder: MultiGzDecoder<Feed>,
    given: u64,
    most: u64,
    /// How much was given so far, for others to look at.
    progress: Arc<AtomicU64>,
}

impl Gunzip {
    /// Decompresses; more than `most` bytes are an error.
    pub(super) fn new(feed: Feed, most: u64, progress: Arc<AtomicU64>) -> Self {
        Self {
            decoder: MultiGzDecoder::new(feed),
            given: 0,
            most,
            progress,
        }
    }
}

impl Read for Gunzip {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.decoder.read(out).map_err(|e| {
            let taken = self.decoder.get_ref().taken;
            let text = e.to_string();
            let what = if e.kind() == io::ErrorKind::UnexpectedEof && taken == 0 {
                "archive is empty".to_owned()
            } else if e.kind() == io::ErrorKind::UnexpectedEof {
                format!("archive is truncated: its gzip stream stops after {taken} bytes")
            } else if text.contains("header") && self.given == 0 {
                "archive is not gzip".to_owned()
            } else if text.contains("header") {
                format!("archive has something that is not gzip at about byte {taken}")
            } else {
                format!(
                    "archive is damaged at about byte {taken}: its gzip stream does not decompress"
                )
            };
            io::Error::new(e.kind(), Error::corrupt(what).because(e))
        })?;
        self.given += got as u64;
        self.progress.store(self.given, Ordering::Relaxed);
        if self.given > self.most {
            return Err(io::Error::other(Error::corrupt(format!(
                "archive decompresses to more than {} bytes",
                self.most
            ))));
        }
        Ok(got)
    }
}
