//! What a backup of a volume reads: entries in their order, each file with what opens it. Counts what went wrong and what was listed: rustic leaves out
//! what it can not read and calls that a success, so whether a snapshot may appear is decided by what is counted here.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::entry::{Entry, EntryPath, Order};
use super::rails::Rail;
use crate::error::{Error, Result};
use crate::location::Sha256;

/// So many are named; all are counted.
const NAMED: usize = 50;

/// The bytes of a file. What is read beyond the listed size is not asked for.
pub trait Content: Read + Send {
    /// Asked once the listed size was read: whether the file is another one by now.
    ///
    /// # Errors
    /// When nobody can tell.
    fn has_changed(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Bytes that nobody writes to.
impl Content for io::Cursor<Vec<u8>> {}

/// Opens a file's content; asked at most once, and not at all for what is unchanged.
pub type Opener = Box<dyn FnOnce() -> io::Result<Box<dyn Content>> + Send>;

/// An entry, and how a file is opened.
pub struct Found {
    /// What it is.
    pub entry: Entry,
    /// Of a file.
    pub content: Option<Opener>,
}

/// What is told in the place of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Something is wrong with it.
    Trouble(Trouble),
    /// It was deleted before it was looked at, and is no part of the volume any more.
    Vanished(EntryPath),
}

impl From<Trouble> for Missed {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// All entries of a volume, in the order of [`EntryPath`]; what was missed is about one of them, and what follows is still asked for.
pub type Entries = Box<dyn Iterator<Item = Result<Found, Missed>> + Send>;

/// A volume as it is read.
pub trait Source: Send + Sync {
    /// Begins; asked once.
    ///
    /// # Errors
    /// When there is nothing to read from.
    fn entries(&self) -> Result<Entries>;

    /// Asked when all was read: whether whoever sends it ended well.
    ///
    /// # Errors
    /// When it did not: what was read may be a part.
    fn ended(&self) -> Result<()> {
        Ok(())
    }
}

/// What was wrong with one of them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Trouble {
    /// Where.
    pub path: EntryPath,
    /// What.
    pub what: String,
}

/// What came of reading.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Entries that were listed.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were read; the rest is known from the snapshot before.
    pub read_bytes: u64,
    /// The first of what could not be read.
    pub troubles: Vec<Trouble>,
    /// How much could not be read.
    pub trouble_count: u64,
    /// The first of those that changed while they were read.
    pub changed: Vec<EntryPath>,
    /// How many did.
    pub changed_count: u64,
    /// The first of those that were deleted before they were looked at.
    pub vanished: Vec<EntryPath>,
    /// How many were.
    pub vanished_count: u64,
    /// Of the whole listing.
    pub(super) digest: String,
}

impl Counted {
    /// The error that keeps a snapshot from appearing, where there is one.
    pub(super) fn veto(&self) -> Result<()> {
        if self.trouble_count == 0 {
            return Ok(());
        }
        let named = self.troubles.iter().take(5);
        let named: Vec<_> = named
            .map(|trouble| format!("{}: {}", trouble.path, trouble.what))
            .collect();
        let more = self.trouble_count - named.len() as u64;
        let more = if more == 0 {
            String::new()
        } else {
            format!("; and {more} more")
        };
        Err(Error::other(format!(
            "{} of {} entries could not be read: {}{more}",
            self.trouble_count,
            self.entries + self.trouble_count,
            named.join("; ")
        ))
        .hint("no snapshot was made; run it again, which stores only what is still missing"))
    }
}

/// Which entries of a listing were opened, by their places in it: a bit for each.
#[derive(Clone, Debug, Default)]
pub(super) struct Opened(Vec<u64>);

impl Opened {
    fn add(&mut self, place: u64) {
        let word = (place / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (place % 64);
        }
    }

    /// Whether the entry at this place was.
    pub(super) fn has(&self, place: u64) -> bool {
        let word = self.0.get((place / 64) as usize).copied();
        word.unwrap_or_default() & 1 << (place % 64) != 0
    }
}

#[derive(Default)]
struct State {
    counted: Counted,
    digest: Sha256,
    order: Order,
    opened: Opened,
}

/// Counts while others read.
#[derive(Clone, Default)]
pub(super) struct Tally {
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
}

impl Tally {
    /// One whose readers read nothing more once this is set.
    pub(super) fn until(over: Arc<AtomicBool>) -> Self {
        Self {
            over,
            ..Self::default()
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the next entry of the listing, and says at which place of it that is.
    pub(super) fn list(&self, entry: &Entry) -> Result<u64> {
        self.with(|state| {
            entry.check()?;
            state.order.take(entry)?;
            entry.digest(&mut state.digest);
            let place = state.counted.entries;
            state.counted.entries += 1;
            if entry.is_file() {
                state.counted.files += 1;
                state.counted.bytes += entry.size;
            }
            Ok(place)
        })
    }

    /// The file at this place is read, and not taken over from a snapshot.
    pub(super) fn open(&self, place: u64) {
        self.with(|state| state.opened.add(place));
    }

    /// Those that were opened so far.
    pub(super) fn opened(&self) -> Opened {
        self.with(|state| state.opened.clone())
    }

    pub(super) fn trouble(&self, path: &EntryPath, what: impl ToString) {
        self.with(|state| {
            state.counted.trouble_count += 1;
            if state.counted.troubles.len() < NAMED {
                state.counted.troubles.push(Trouble {
                    path: path.clone(),
                    what: what.to_string(),
                });
            }
        });
    }

    pub(super) fn vanished(&self, path: EntryPath) {
        self.with(|state| {
            state.counted.vanished_count += 1;
            if state.counted.vanished.len() < NAMED {
                state.counted.vanished.push(path);
            }
        });
    }

    fn changed(&self, path: &EntryPath) {
        self.with(|state| {
            state.counted.changed_count += 1;
            if state.counted.changed.len() < NAMED {
                state.counted.changed.push(path.clone());
            }
        });
    }

    /// What was counted so far.
    pub(super) fn counted(&self) -> Counted {
        self.with(|state| Counted {
            digest: state.digest.clone().finish(),
            ..state.counted.clone()
        })
    }
}

/// A file that is read to its listed size, neither less nor more.
pub(super) struct SizedReader {
    content: Box<dyn Content>,
    path: EntryPath,
    size: u64,
    left: u64,
    tally: Tally,
    over: bool,
}

impl SizedReader {
    pub(super) fn open(entry: &Entry, opener: Opener, tally: &Tally) -> io::Result<Self> {
        let content = opener().inspect_err(|e| tally.trouble(&entry.path, e))?;
        Ok(Self {
            content,
            path: entry.path.clone(),
            size: entry.size,
            left: entry.size,
            tally: tally.clone(),
            over: false,
        })
    }

    fn is_wanted(&self) -> io::Result<()> {
        match self.tally.over.load(Ordering::SeqCst) {
            true => Err(io::Error::other("nothing is stored any more")),
            false => Ok(()),
        }
    }

    /// All of the buffer, unless the content ends before: rustic's chunker never asks for more at a time than it was once given, and would come to single bytes.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.is_wanted()?;
            match self.content.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.tally.trouble(&self.path, &e);
                    return Err(e);
                }
            }
        }
        Ok(filled)
    }

    /// Once, when all was read.
    fn end(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        match self.content.has_changed() {
            Ok(false) => {}
            Ok(true) => self.tally.changed(&self.path),
            Err(e) => self.tally.trouble(&self.path, e),
        }
    }
}

impl Read for SizedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_wanted()?;
        let unbounded = Rail::SizedReaders.is_off();
        if self.left == 0 && !unbounded {
            self.end();
            return Ok(0);
        }
        let most = if unbounded {
            buffer.len()
        } else {
            buffer
                .len()
                .min(usize::try_from(self.left).unwrap_or(usize::MAX))
        };
        if most == 0 {
            return Ok(0);
        }
        let read = self.fill(&mut buffer[..most])?;
        if read == 0 && !unbounded {
            let what = format!(
                "it ended after {} of {} bytes: it was cut while it was read",
                self.size - self.left,
                self.size
            );
            self.tally.trouble(&self.path, &what);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.left = self.left.saturating_sub(read as u64);
        self.tally
            .with(|state| state.counted.read_bytes += read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Moment, What};
    use super::*;

    fn file(size: u64) -> Entry {
        Entry {
            path: EntryPath::new("a"),
            what: What::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size,
            mtime: Moment(0, 0),
            ctime: Moment(0, 0),
            inode: 0,
            device: 0,
            links: 1,
            attributes: Vec::new(),
        }
    }

    fn read(size: u64, bytes: &[u8]) -> (io::Result<Vec<u8>>, Counted) {
        let tally = Tally::default();
        let bytes = bytes.to_vec();
        let opener: Opener = Box::new(move || Ok(Box::new(io::Cursor::new(bytes))));
        let mut sized = SizedReader::open(&file(size), opener, &tally).unwrap();
        let mut all = Vec::new();
        let read = sized.read_to_end(&mut all).map(|_| all);
        (read, tally.counted())
    }

    /// Comes in pieces of seven bytes.
    struct Pieces(io::Cursor<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(7);
            self.0.read(&mut buffer[..most])
        }
    }

    impl Content for Pieces {}

    #[test]
    fn content_that_comes_in_small_pieces_is_read_in_large_ones() {
        let bytes = vec![1; 10_000];
        let opener: Opener = Box::new(move || Ok(Box::new(Pieces(io::Cursor::new(bytes)))));
        let tally = Tally::default();
        let mut sized = SizedReader::open(&file(10_000), opener, &tally).unwrap();
        let mut buffer = [0; 4096];
        let reads = [0; 4].map(|_| sized.read(&mut buffer).unwrap());
        assert_eq!(reads, [4096, 4096, 10_000 - 2 * 4096, 0]);
    }

    #[test]
    fn what_was_opened_is_known_by_its_place() {
        let tally = Tally::default();
        for place in [0, 63, 64, 1000] {
            tally.open(place);
        }
        let opened = tally.opened();
        let all: Vec<_> = (0..2000).filter(|place| opened.has(*place)).collect();
        assert_eq!(all, [0, 63, 64, 1000]);
    }

    #[test]
    fn a_file_that_grew_is_cut_at_its_listed_size_and_one_that_shrank_is_an_error() {
        assert_eq!(read(3, b"abcdef").0.unwrap(), b"abc");
        let (refused, counted) = read(7, b"abcdef");
        assert!(refused.unwrap_err().to_string().contains("6 of 7"));
        assert_eq!(counted.trouble_count, 1);
        let said = counted.veto().unwrap_err();
        assert!(said.to_string().contains("a: it ended after 6"), "{said}");
        assert_eq!(read(0, b"").0.unwrap(), b"");
        read(6, b"abcdef").1.veto().unwrap();
    }
}
