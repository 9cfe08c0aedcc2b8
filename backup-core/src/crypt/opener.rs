//! Who opens a whole file of age as it streams by: the key that a backup has of its own, or whatever identities there are. Reads no file itself.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use age::stream::StreamReader;
use age::{DecryptError, Decryptor, Identity};

use super::{BackupKey, Identities, LARGEST_KEY_FILE};
use crate::error::{Error, Result};

/// A file whose header is bounded: the `age` crate keeps all of it, and whoever wrote the file chooses how long it is.
pub struct Bounded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left.get() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "its header is larger than 64 KiB",
            ));
        }
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX);
        let there = self.inner.fill_buf()?;
        Ok(&there[..there.len().min(most)])
    }

    fn consume(&mut self, amount: usize) {
        self.left.set(self.left.get().saturating_sub(amount as u64));
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.fill_buf()?.read(out)?;
        self.consume(got);
        Ok(got)
    }
}

/// What a file holds, piece by piece.
pub type Opened<R> = StreamReader<Bounded<R>>;

/// Opens a file for the first of these identities that fits.
pub(super) fn decrypt<'a, R: BufRead>(
    file: R,
    identities: impl Iterator<Item = &'a dyn Identity>,
) -> Result<Opened<R>, DecryptError> {
    let left = Rc::new(Cell::new(LARGEST_KEY_FILE));
    let bounded = Bounded {
        inner: file,
        left: Rc::clone(&left),
    };
    let opened = Decryptor::new_buffered(bounded)?.decrypt(identities)?;
    left.set(u64::MAX);
    Ok(opened)
}

/// What opens a file.
#[derive(Clone, Debug)]
pub enum Opener {
    /// The key of its backup, and nothing else.
    Key(BackupKey),
    /// Whichever of these fits.
    Identities(Identities),
}

impl Default for Opener {
    fn default() -> Self {
        Self::Identities(Identities::default())
    }
}

impl Opener {
    /// What a file holds. Each piece is proved before it comes out; what was cut is an error at its end.
    ///
    /// # Errors
    /// `Corrupt` where it is no file of age, or one of another key; else as [`Identities::reader`].
    pub fn reader<R: BufRead>(&self, file: R) -> Result<Opened<R>> {
        let key = match self {
            Self::Identities(identities) => return identities.reader(file),
            Self::Key(key) => key,
        };
        let refused = |e: DecryptError| match e {
            DecryptError::NoMatchingKeys => Error::corrupt(
                "it is encrypted with another key: a file of another backup was put in its place, or its header was altered",
            ),
            DecryptError::Io(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
                Error::other("its header can not be read").because(e)
            }
            _ => Error::corrupt("its header was altered or cut"),
        };
        let identity = key.identity() as &dyn Identity;
        decrypt(file, std::iter::once(identity)).map_err(refused)
    }
}
