//! Brings a snapshot into the volume of a mover, and looks that it stands there: entry by entry by the mover's own listing, not by what it says of its work.

use std::io::Read;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::choose::Data;
use super::compare::{Sent, Standing};
use super::group::{Shared, Word};
use crate::crypt::Recipients;
use crate::error::{Error, Kind, Result};
use crate::mover::Mover;
use crate::volume::entry::Entry;
use crate::volume::key::{KeptInMemory, Keyring};
use crate::volume::wire::{self, Ended, Sending};
use crate::volume::{Target, VolumeStore};

/// What a mover says of its work is not longer.
const LONGEST: u64 = 1 << 20;

/// So many bytes are told of at a time.
const TOLD: u64 = 4 << 20;

/// So many of the things that could not be brought back are named.
const NAMED: usize = 5;

/// A stream to a mover, with an eye on what is sent.
struct Watched<W> {
    to: Sending<W>,
    sent: Sent,
    words: mpsc::UnboundedSender<Word>,
    untold: u64,
}

impl<W> Watched<W> {
    fn tell(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        if untold > 0 {
            let _ = self.words.send(Word::Bytes(untold));
        }
    }
}

impl<W: std::io::Write> Target for Watched<W> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.sent.note(entry)?;
        self.to.entry(entry)
    }

    fn data(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        self.to.data(bytes)?;
        self.untold += length;
        if self.untold >= TOLD {
            self.tell();
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.tell();
        self.to.finish()
    }
}

/// What was sent, and what the mover could not do with it.
pub(super) struct Came {
    sent: Sent,
    said: Ended,
}

/// Whether the volume is empty; an error names what stands there, which is somebody's.
pub(super) async fn is_empty(mover: &Mover, number: usize) -> Result<()> {
    let program = mover.list(number).await?;
    let mut output = program.output;
    let listed = on_a_thread(move || {
        wire::listed(&mut output, &mut |entry| match entry.path.is_root() {
            true => Ok(()),
            false => Err(not_empty(entry)),
        })
    });
    let (listed, ended) = futures::join!(listed, program.ended);
    listed?;
    let ended = ended.unwrap_or_else(|_| Err("nobody attended to it".to_owned()));
    ended.map_err(|why| Error::other(format!("`mover list` failed: {why}")))
}

fn not_empty(entry: &Entry) -> Error {
    Error::new(
        Kind::AlreadyExists,
        format!(
            "the volume that its claim was given is not empty, and not this restore's: {} is in it",
            entry.path
        ),
    )
    .hint("nothing was written to it; its class hands out volumes that stand: empty that volume, or name a class that makes new ones (--storage-class-mappings)")
}

/// Sends the snapshot; the mover says that all of it came. With `over_own` what an earlier run of this restore left in the volume goes first.
pub(super) async fn send(
    shared: &Shared,
    mover: &Mover,
    (number, over_own): (usize, bool),
    data: &Data,
    words: mpsc::UnboundedSender<Word>,
) -> Result<Came> {
    let program = mover.receive(number, over_own).await?;
    let (cache, recipients) = (KeptInMemory::default(), Recipients::default());
    let ring = Keyring {
        recipients: &recipients,
        passphrase: None,
        identities: &shared.identities,
        cache: &cache,
    };
    let target = Watched {
        to: Sending::new(program.input),
        sent: Sent::of(data.copy.entries),
        words,
        untold: 0,
    };
    let restored = VolumeStore::new(&shared.store, &data.place)
        .restore(data.copy.repository, &data.copy.snapshot, &ring, target)
        .await;
    let sent = match restored {
        Ok(Watched { to, sent, .. }) => {
            drop(to.into_inner());
            sent
        }
        // Why the mover took nothing any more says more than that it did not.
        Err(e) => {
            return Err(match mover.broke() {
                Some(why) => Error::other(format!("the mover broke off: {why}")),
                None => e,
            });
        }
    };
    let mut output = program.output;
    let text = on_a_thread(move || {
        let mut text = String::new();
        let read = (&mut output).take(LONGEST).read_to_string(&mut text);
        read.map_err(|e| Error::other("the mover broke off").because(e))?;
        Ok(text)
    });
    let (text, ended) = futures::join!(text, program.ended);
    let ended = ended.unwrap_or_else(|_| Err("nobody attended to it".to_owned()));
    ended.map_err(|why| Error::other(format!("`mover receive` failed: {why}")))?;
    let said: Ended = serde_json::from_str(text?.trim()).map_err(|e| {
        Error::corrupt("what the mover says of its work can not be read").because(e)
    })?;
    if said.count != sent.count() {
        return Err(Error::corrupt(format!(
            "the mover says that {} entries came, and {} were sent",
            said.count,
            sent.count()
        )));
    }
    Ok(Came { sent, said })
}

/// Looks at what stands. Gives back what is to be said of owners and the like that are not what they were.
pub(super) async fn look(mover: &Mover, number: usize, came: Came) -> Result<Option<String>> {
    let program = mover.list(number).await?;
    let mut output = program.output;
    let compared = on_a_thread(move || {
        let mut standing = Standing::new(&came.sent);
        let listed = wire::listed(&mut output, &mut |entry| standing.take(entry));
        let compared = listed.and_then(|()| standing.end());
        match compared {
            Ok((0, _)) => Ok(None),
            Ok((count, first)) => Ok(Some(differing(count, &first, &came.said))),
            Err(e) => Err(match troubles(&came.said) {
                Some(troubles) => e.context(troubles),
                None => e,
            }),
        }
    });
    let (compared, ended) = futures::join!(compared, program.ended);
    let compared = compared?;
    let ended = ended.unwrap_or_else(|_| Err("nobody attended to it".to_owned()));
    ended.map_err(|why| Error::other(format!("`mover list` failed: {why}")))?;
    Ok(compared)
}

/// `3 entries could not be brought back: a: No space left on device; ...`
fn troubles(said: &Ended) -> Option<String> {
    if said.trouble_count == 0 {
        return None;
    }
    let named = said.troubles.iter().take(NAMED);
    let named: Vec<_> = named
        .map(|trouble| format!("{}: {}", trouble.path, crate::pod::short(&trouble.what)))
        .collect();
    Some(format!(
        "{} entries could not be brought back ({})",
        said.trouble_count,
        named.join("; ")
    ))
}

fn differing(count: u64, first: &[String], said: &Ended) -> String {
    let why = troubles(said).map_or_else(String::new, |why| format!("; {why}"));
    format!(
        "{count} entries have another owner, mode, time, attribute or link than they had, {} among them{why}",
        first.join(", ")
    )
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::other("the work on a volume broke off").because(e))?
}
