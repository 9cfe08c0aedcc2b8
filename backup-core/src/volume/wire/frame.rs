//! Frames: a letter, a length in four bytes, big end first, and so many bytes.

use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::entry::{Entry, EntryPath};
use super::super::source::Trouble;
use crate::error::{Error, Result};

/// No frame is longer: an entry with all of its attributes fits.
const LONGEST: u32 = 4 << 20;
/// Data is cut into pieces of this size.
pub(super) const PIECE: usize = 256 << 10;

/// A file that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) path: EntryPath,
    pub(super) size: u64,
    pub(super) inode: u64,
    pub(super) device: u64,
}

/// How a file ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEnded {
    /// It is another one than it was when it was listed.
    #[serde(default)]
    pub(super) changed: bool,
    /// Why it is not whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// The last words of whoever sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Entries, or files, that were sent or brought back.
    pub count: u64,
    /// What could not be, as far as it is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Trouble>,
    /// How much could not be.
    #[serde(default)]
    pub trouble_count: u64,
    /// Entries that were deleted before they were looked at.
    #[serde(default)]
    pub vanished_count: u64,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Entry(Box<Entry>),
    Trouble(Trouble),
    Vanished(EntryPath),
    Wanted(Wanted),
    Data(Bytes),
    Zeros(u64),
    File(FileEnded),
    End(Ended),
}

fn json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::from)
}

impl Frame {
    /// Writes it.
    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let small;
        let (letter, bytes): (u8, &[u8]) = match self {
            Self::Data(bytes) => (b'D', bytes),
            Self::Entry(entry) => {
                small = json(entry)?;
                (b'N', &small)
            }
            Self::Trouble(trouble) => {
                small = json(trouble)?;
                (b'T', &small)
            }
            Self::Vanished(path) => {
                small = json(path)?;
                (b'V', &small)
            }
            Self::Wanted(wanted) => {
                small = json(wanted)?;
                (b'W', &small)
            }
            Self::Zeros(many) => {
                small = many.to_be_bytes().to_vec();
                (b'Z', &small)
            }
            Self::File(ended) => {
                small = json(ended)?;
                (b'F', &small)
            }
            Self::End(ended) => {
                small = json(ended)?;
                (b'E', &small)
            }
        };
        let length = u32::try_from(bytes.len()).ok().filter(|l| *l <= LONGEST);
        let length = length.ok_or_else(|| io::Error::other("a frame is too long"))?;
        to.write_all(&[letter])?;
        to.write_all(&length.to_be_bytes())?;
        to.write_all(bytes)
    }

    /// Reads one; nothing at the end of the stream.
    pub(super) fn read(from: &mut dyn Read) -> Result<Option<Self>> {
        let cut = |e: io::Error| Error::other("the stream of a mover broke off").because(e);
        let mut head = [0; 5];
        let mut had = 0;
        while had < head.len() {
            match from.read(&mut head[had..]) {
                Ok(0) if had == 0 => return Ok(None),
                Ok(0) => return Err(cut(io::ErrorKind::UnexpectedEof.into())),
                Ok(more) => had += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(cut(e)),
            }
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if length > LONGEST {
            return Err(Error::corrupt("a mover sends what is no frame"));
        }
        // Not more room than what comes.
        let mut bytes = Vec::new();
        let read = from.take(length.into()).read_to_end(&mut bytes);
        if read.map_err(cut)? < length as usize {
            return Err(cut(io::ErrorKind::UnexpectedEof.into()));
        }
        let odd = |e: serde_json::Error| Error::corrupt("a mover sends an odd frame").because(e);
        Ok(Some(match head[0] {
            b'D' => Self::Data(bytes.into()),
            b'N' => Self::Entry(serde_json::from_slice(&bytes).map_err(odd)?),
            b'T' => Self::Trouble(serde_json::from_slice(&bytes).map_err(odd)?),
            b'V' => Self::Vanished(serde_json::from_slice(&bytes).map_err(odd)?),
            b'W' => Self::Wanted(serde_json::from_slice(&bytes).map_err(odd)?),
            b'F' => Self::File(serde_json::from_slice(&bytes).map_err(odd)?),
            b'E' => Self::End(serde_json::from_slice(&bytes).map_err(odd)?),
            b'Z' => {
                let many: [u8; 8] = bytes[..]
                    .try_into()
                    .map_err(|_| Error::corrupt("a mover sends an odd frame"))?;
                Self::Zeros(u64::from_be_bytes(many))
            }
            _ => {
                return Err(
                    Error::corrupt("a mover sends a frame of no kind that is known")
                        .hint("its image is of another version than this program"),
                );
            }
        }))
    }
}
