//! The archiver's side of a backup: a [`Source`] over the streams of a mover's `list` and `send`. A file is asked for when it is opened, so nothing comes that is
//! unchanged. What comes is in the order in which it was asked for; each file that is asked for is read at once, so the first one that is waited for always has a reader.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::super::entry::Entry;
use super::super::source::{Content, Entries, Found, Missed, Opener, Source};
use super::frame::{Ended, FileEnded, Frame, Wanted};
use crate::error::{Error, Result};

/// Pieces of a file that wait to be read.
const WAITING: usize = 8;

/// What comes of a file.
enum Piece {
    Data(Bytes),
    Zeros(u64),
    Ended(FileEnded),
}

/// The streams of a mover's `send`.
pub struct Asking {
    /// Its stdin.
    pub to: Box<dyn Write + Send>,
    /// Its stdout.
    pub from: Box<dyn Read + Send>,
}

/// What the program that sends ended with, when both of its streams have ended.
pub type Exit = Box<dyn FnOnce() -> Result<()> + Send>;

struct Asked {
    to: Option<Box<dyn Write + Send>>,
    waiting: VecDeque<SyncSender<Piece>>,
    /// Files that were asked for and have not ended.
    owed: u64,
}

/// Says that nobody asks any more, for where the end of one direction is not heard at the other end.
fn ask_no_more(asked: &Mutex<Asked>) {
    let to = locked(asked).to.take();
    if let Some(mut to) = to {
        // Who is gone needs no word.
        let said = Frame::End(Ended::default()).write(&mut *to);
        let _ = said.and_then(|()| to.flush());
    }
}

/// A volume that a mover lists and sends.
pub struct WireSource {
    listing: Mutex<Option<Box<dyn Read + Send>>>,
    asked: Arc<Mutex<Asked>>,
    /// What its last words were.
    last: Mutex<Option<std::thread::JoinHandle<Result<()>>>>,
    listed: Arc<Mutex<Option<Result<()>>>>,
    exit: Mutex<Option<Exit>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut(what: &str) -> Error {
    Error::other(format!("the mover did not say that it {what} everything"))
        .hint("it was killed, evicted or lost its connection; run the backup again")
}

impl WireSource {
    /// Over these streams; `exit` waits for both programs and says whether they ended well.
    pub fn new(listing: Box<dyn Read + Send>, asking: Asking, exit: Exit) -> Self {
        let asked = Arc::new(Mutex::new(Asked {
            to: Some(asking.to),
            waiting: VecDeque::new(),
            owed: 0,
        }));
        let theirs = Arc::clone(&asked);
        let from = asking.from;
        let last = std::thread::spawn(move || {
            let ended = hand_out(from, &theirs);
            // Whoever waits learns that nothing comes, and nobody asks any more.
            let mut theirs = locked(&theirs);
            theirs.waiting.clear();
            drop(theirs.to.take());
            ended
        });
        Self {
            listing: Mutex::new(Some(listing)),
            asked,
            last: Mutex::new(Some(last)),
            listed: Arc::default(),
            exit: Mutex::new(Some(exit)),
        }
    }

    /// Whether a file that was asked for has still to come: for who watches the streams.
    pub fn owes(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let asked = Arc::clone(&self.asked);
        // It is held for longer only by one who can not ask.
        move || asked.try_lock().map_or(true, |asked| asked.owed > 0)
    }
}

/// Gives what comes to whoever asked for it, until the end is said.
fn hand_out(mut from: Box<dyn Read + Send>, asked: &Mutex<Asked>) -> Result<()> {
    let mut reader: Option<SyncSender<Piece>> = None;
    let mut files = 0;
    loop {
        let frame = Frame::read(&mut *from)?.ok_or_else(|| cut("sent"))?;
        let piece = match frame {
            Frame::Data(bytes) => Piece::Data(bytes),
            Frame::Zeros(many) => Piece::Zeros(many),
            Frame::File(ended) => Piece::Ended(ended),
            Frame::End(ended) => {
                let is_whole =
                    reader.is_none() && ended.count == files && locked(asked).waiting.is_empty();
                return if is_whole { Ok(()) } else { Err(cut("sent")) };
            }
            Frame::Entry(_) | Frame::Trouble(_) | Frame::Vanished(_) | Frame::Wanted(_) => {
                return Err(Error::corrupt("the mover sends what nobody asked for"));
            }
        };
        let is_end = matches!(piece, Piece::Ended(_));
        let to = match reader.take() {
            Some(reader) => reader,
            None => {
                let next = locked(asked).waiting.pop_front();
                next.ok_or_else(|| Error::corrupt("the mover sends what nobody asked for"))?
            }
        };
        // Who stopped reading (a file that grew) gets no more of it.
        let _ = to.send(piece);
        if is_end {
            files += 1;
            let mut asked = locked(asked);
            asked.owed = asked.owed.saturating_sub(1);
        } else {
            reader = Some(to);
        }
    }
}

impl Source for WireSource {
    fn entries(&self) -> Result<Entries> {
        let listing = locked(&self.listing).take();
        let listing = listing.ok_or_else(|| Error::other("a mover lists once"))?;
        Ok(Box::new(Listing {
            from: listing,
            asked: Arc::clone(&self.asked),
            listed: Arc::clone(&self.listed),
            count: 0,
            troubles: 0,
            vanished: 0,
        }))
    }

    fn ended(&self) -> Result<()> {
        ask_no_more(&self.asked);
        locked(&self.listed)
            .take()
            .unwrap_or_else(|| Err(cut("listed")))?;
        let last = locked(&self.last).take();
        let last = last.ok_or_else(|| cut("sent"))?.join();
        last.map_err(|_| cut("sent"))??;
        match locked(&self.exit).take() {
            Some(exit) => exit(),
            None => Ok(()),
        }
    }
}

impl Drop for WireSource {
    /// A mover that nobody asks any more ends.
    fn drop(&mut self) {
        drop(locked(&self.asked).to.take());
    }
}

struct Listing {
    from: Box<dyn Read + Send>,
    asked: Arc<Mutex<Asked>>,
    listed: Arc<Mutex<Option<Result<()>>>>,
    count: u64,
    troubles: u64,
    vanished: u64,
}

impl Listing {
    fn end(&self, how: Result<()>) {
        locked(&self.listed).get_or_insert(how);
    }
}

impl Iterator for Listing {
    type Item = Result<Found, Missed>;

    fn next(&mut self) -> Option<Self::Item> {
        if locked(&self.listed).is_some() {
            return None;
        }
        match Frame::read(&mut *self.from) {
            Ok(Some(Frame::Entry(entry))) => {
                self.count += 1;
                let content = entry.is_file().then(|| opener(&self.asked, &entry));
                Some(Ok(Found {
                    entry: *entry,
                    content,
                }))
            }
            Ok(Some(Frame::Trouble(trouble))) => {
                self.troubles += 1;
                Some(Err(trouble.into()))
            }
            Ok(Some(Frame::Vanished(path))) => {
                self.vanished += 1;
                Some(Err(Missed::Vanished(path)))
            }
            Ok(Some(Frame::End(ended))) => {
                let said = (ended.count, ended.trouble_count, ended.vanished_count);
                let is_whole = said == (self.count, self.troubles, self.vanished);
                self.end(if is_whole { Ok(()) } else { Err(cut("listed")) });
                None
            }
            Ok(Some(_)) => {
                self.end(Err(Error::corrupt("the mover lists what is no entry")));
                None
            }
            Ok(None) => {
                self.end(Err(cut("listed")));
                None
            }
            Err(e) => {
                self.end(Err(e));
                None
            }
        }
    }
}

fn opener(asked: &Arc<Mutex<Asked>>, entry: &Entry) -> Opener {
    let asked = Arc::clone(asked);
    let wanted = Wanted {
        path: entry.path.clone(),
        size: entry.size,
        inode: entry.inode,
        device: entry.device,
    };
    Box::new(move || {
        let (sender, pieces) = sync_channel(WAITING);
        let mut asked = locked(&asked);
        let Asked { to, waiting, owed } = &mut *asked;
        let to = to.as_mut();
        let to = to.ok_or_else(|| io::Error::other("the mover sends nothing any more"))?;
        waiting.push_back(sender);
        *owed += 1;
        Frame::Wanted(wanted).write(to)?;
        to.flush()?;
        Ok(Box::new(Coming {
            pieces,
            data: Bytes::new(),
            zeros: 0,
            ended: None,
        }) as Box<dyn Content>)
    })
}

/// A file as it comes.
struct Coming {
    pieces: Receiver<Piece>,
    data: Bytes,
    zeros: u64,
    ended: Option<FileEnded>,
}

impl Coming {
    fn next(&mut self) -> io::Result<()> {
        let piece = self.pieces.recv();
        match piece.map_err(|_| io::Error::other("the mover sends nothing any more"))? {
            Piece::Data(bytes) => self.data = bytes,
            Piece::Zeros(many) => self.zeros = many,
            Piece::Ended(ended) => self.ended = Some(ended),
        }
        Ok(())
    }
}

impl Read for Coming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.data.is_empty() {
                let most = buffer.len().min(self.data.len());
                buffer[..most].copy_from_slice(&self.data.split_to(most));
                return Ok(most);
            }
            if self.zeros > 0 {
                let many = usize::try_from(self.zeros).unwrap_or(usize::MAX);
                let most = buffer.len().min(many);
                buffer[..most].fill(0);
                self.zeros -= most as u64;
                return Ok(most);
            }
            if let Some(ended) = &self.ended {
                return match &ended.error {
                    Some(error) => Err(io::Error::other(error.clone())),
                    None => Ok(0),
                };
            }
            self.next()?;
        }
    }
}

impl Content for Coming {
    fn has_changed(&mut self) -> io::Result<bool> {
        // Beyond the listed size nothing is sent: only its end is still to come.
        while self.ended.is_none() {
            if !self.data.is_empty() || self.zeros > 0 {
                return Err(io::Error::other("more of it comes than was asked for"));
            }
            self.next()?;
        }
        match self.ended.take().unwrap_or_default() {
            FileEnded {
                error: Some(error), ..
            } => Err(io::Error::other(error)),
            FileEnded { changed, .. } => Ok(changed),
        }
    }
}
