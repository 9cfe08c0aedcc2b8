//! A restore over streams: [`Sending`] on the side that reads the repository, `receive` on the mover's.

#[cfg(target_os = "linux")]
use std::io::Read;
use std::io::Write;
#[cfg(target_os = "linux")]
use std::path::Path;

use bytes::Bytes;

use super::super::entry::Entry;
#[cfg(target_os = "linux")]
use super::super::folder::FolderTarget;
use super::super::repository::Target;
use super::frame::{Ended, Frame, PIECE};
use crate::error::{Error, Result};

/// A [`Target`] at the other end of a stream.
pub struct Sending<W> {
    to: W,
    count: u64,
}

impl<W: Write> Sending<W> {
    /// Over this stream.
    pub fn new(to: W) -> Self {
        Self { to, count: 0 }
    }

    /// The stream, when all was sent.
    pub fn into_inner(self) -> W {
        self.to
    }

    fn say(&mut self, frame: &Frame) -> Result<()> {
        frame
            .write(&mut self.to)
            .map_err(|e| Error::other("the mover takes nothing any more").because(e))
    }
}

impl<W: Write> Target for Sending<W> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.count += 1;
        self.say(&Frame::Entry(Box::new(entry.clone())))
    }

    fn data(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(PIECE.min(bytes.len()));
            if piece.iter().all(|byte| *byte == 0) {
                self.say(&Frame::Zeros(piece.len() as u64))?;
            } else {
                self.say(&Frame::Data(piece))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let ended = Ended {
            count: self.count,
            ..Ended::default()
        };
        self.say(&Frame::End(ended))?;
        self.to
            .flush()
            .map_err(|e| Error::other("the mover takes nothing any more").because(e))
    }
}

/// Brings back into an empty folder what comes.
///
/// # Errors
/// A folder that is not empty; a stream that is cut or is none.
#[cfg(target_os = "linux")]
pub fn receive(folder: &Path, from: &mut dyn Read) -> Result<Ended> {
    use super::super::entry::Order;

    /// So much is written at a time where zeros come.
    const ZEROS: usize = 1 << 20;
    let mut target = FolderTarget::new(folder)?;
    let mut order = Order::default();
    let (mut count, mut left) = (0, 0_u64);
    let zeros = Bytes::from(vec![0; ZEROS]);
    let too_long = || Error::corrupt("a file comes with more bytes than it has");
    loop {
        let frame = Frame::read(from)?.ok_or_else(|| {
            Error::other("the stream ended before everything was sent")
                .hint("the folder holds a part: empty it and restore again")
        })?;
        match frame {
            Frame::Entry(entry) => {
                entry.check()?;
                order.take(&entry)?;
                count += 1;
                left = if entry.is_file() { entry.size } else { 0 };
                target.entry(&entry)?;
            }
            Frame::Data(bytes) => {
                left = left.checked_sub(bytes.len() as u64).ok_or_else(too_long)?;
                target.data(bytes)?;
            }
            Frame::Zeros(mut many) => {
                left = left.checked_sub(many).ok_or_else(too_long)?;
                while many > 0 {
                    let some = ZEROS.min(usize::try_from(many).unwrap_or(ZEROS));
                    target.data(zeros.slice(..some))?;
                    many -= some as u64;
                }
            }
            Frame::End(ended) if ended.count == count => break,
            _ => return Err(Error::corrupt("what comes is no volume")),
        }
    }
    target.finish()?;
    let restored = target.restored();
    Ok(Ended {
        count,
        troubles: restored.troubles.clone(),
        trouble_count: restored.trouble_count,
        vanished_count: 0,
    })
}
