//! A [`Source`](super::super::source::Source) as rustic reads one. rustic logs what it can not read and goes on without it; here it is counted.

use std::sync::{Arc, Mutex, PoisonError};

use rustic_core::{
    ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult,
};

use super::super::entry::{Entry, EntryPath};
use super::super::source::{Entries, Missed, Opener, SizedReader, Tally};
use super::node;
use super::objects::Objects;

/// The entries of a volume, once.
pub(super) struct Reading {
    entries: Mutex<Option<Entries>>,
    tally: Tally,
    objects: Arc<Objects>,
}

impl Reading {
    pub(super) fn new(entries: Entries, tally: &Tally, objects: &Arc<Objects>) -> Self {
        Self {
            entries: Mutex::new(Some(entries)),
            tally: tally.clone(),
            objects: Arc::clone(objects),
        }
    }
}

impl ReadSource for Reading {
    type Open = Opening;
    type Iter = Listed;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Listed {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Listed {
            entries: entries.take(),
            tally: self.tally.clone(),
            objects: Arc::clone(&self.objects),
        }
    }
}

/// What is handed on.
pub(super) struct Listed {
    entries: Option<Entries>,
    tally: Tally,
    objects: Arc<Objects>,
}

impl Iterator for Listed {
    type Item = RusticResult<ReadSourceEntry<Opening>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // Nothing more is read for a store that is gone.
            if self.objects.has_failed() {
                return None;
            }
            let found = match self.entries.as_mut()?.next()? {
                Ok(found) => found,
                Err(Missed::Trouble(trouble)) => {
                    self.tally.trouble(&trouble.path, &trouble.what);
                    continue;
                }
                Err(Missed::Vanished(path)) => {
                    match path.check() {
                        Ok(()) => self.tally.vanished(path),
                        Err(e) => self.tally.trouble(&EntryPath::root(), e.sentence()),
                    }
                    continue;
                }
            };
            let path = found.entry.path.clone();
            let known = self.tally.list(&found.entry);
            let made = known.and_then(|place| Ok((place, node::of(&found.entry)?)));
            let (place, node) = match made {
                Ok(made) => made,
                Err(e) => {
                    self.tally.trouble(&path, e.sentence());
                    continue;
                }
            };
            let open = match (found.entry.is_file(), found.content) {
                (false, _) => None,
                (true, Some(opener)) => Some(Opening {
                    place,
                    entry: found.entry,
                    opener,
                    tally: self.tally.clone(),
                }),
                (true, None) => {
                    self.tally.trouble(&path, "nobody says how it is read");
                    continue;
                }
            };
            // What rustic drops without a word, in a test's place.
            #[cfg(test)]
            if path.as_bytes() == super::DROPPED.as_bytes() {
                continue;
            }
            let path = node::path(&path);
            return Some(Ok(ReadSourceEntry { path, node, open }));
        }
    }
}

/// A file that may be opened.
pub(super) struct Opening {
    place: u64,
    entry: Entry,
    opener: Opener,
    tally: Tally,
}

impl ReadSourceOpen for Opening {
    type Reader = SizedReader;

    fn open(self) -> RusticResult<SizedReader> {
        let path: &EntryPath = &self.entry.path;
        self.tally.open(self.place);
        SizedReader::open(&self.entry, self.opener, &self.tally).map_err(|e| {
            RusticError::new(
                ErrorKind::InputOutput,
                format!("{path} can not be opened: {e}"),
            )
        })
    }
}
