//! One snapshot through its stages, side by side: received, hashed and walked, packed and encrypted, stored. Blocks of a MiB pass through short queues, so
//! that memory does not grow with the database. What is stored at the end is not yet visible: that is the caller's, who has the verdict here.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::Fault;
use super::queue::{Giver, Hold, Taker, queue};
use super::sink::Sink;
use crate::crypt::file::Sealing;
use crate::error::{Error, Kind, Result};
use crate::etcd::client::{Message, Messages};
use crate::etcd::manifest::{Compression, Snapshot, TRAILER};
use crate::etcd::stream::{Walk, Walked};
use crate::progress::Progress;

/// Bytes that go from stage to stage together.
const BLOCK: usize = 1 << 20;

/// Blocks that wait before a stage.
const WAITING: usize = 3;

/// Packed bytes that are handed on together.
const PACKED: usize = 256 << 10;

/// zstd's level: faster than etcd sends, and small enough.
const LEVEL: i32 = 1;

/// What came through.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub(super) snapshot: Snapshot,
    pub(super) walked: Walked,
    /// Whether the store was too slow, and a spool was used.
    pub(super) spooled: bool,
}

/// Where messages come from: a member, or a test.
#[async_trait]
pub(super) trait Source: Send {
    async fn next(&mut self) -> Result<Option<Message>>;
}

#[async_trait]
impl Source for Messages {
    async fn next(&mut self) -> Result<Option<Message>> {
        Self::next(self).await
    }
}

/// How the bytes are to be passed.
pub(super) struct How<'a> {
    pub(super) compression: &'a Compression,
    pub(super) spool: Option<&'a Path>,
    pub(super) hold_limit: Option<Duration>,
    pub(super) progress: &'a dyn Progress,
}

/// Passes a whole snapshot into `sink` and checks it: its length is what was announced, its trailer is its digest, its pages hang together.
///
/// # Errors
/// `Corrupt` for what is not whole; what the member, the store or the spool fail with. The sink is to be aborted then.
pub(super) async fn pass(
    source: &mut dyn Source,
    sink: &mut Sink,
    how: &How<'_>,
    sealing: Option<Sealing>,
) -> Result<Passed> {
    let first = source
        .next()
        .await?
        .ok_or_else(|| cut("it sent nothing at all"))?;
    let total = first.bytes.len() as u64 + first.remaining;
    if total == 0 || !total.is_multiple_of(512) {
        return Err(cut(&format!(
            "it announced {total} bytes, which no database has"
        )));
    }
    sink.room_for(total + TRAILER, how.compression)?;
    how.progress.expect_bytes(total + TRAILER);
    let hold = Arc::new(Hold::new(total, how.hold_limit));
    let (to_walk, blocks) = mpsc::channel(WAITING);
    let (to_pack, packed) = mpsc::channel(WAITING);
    let (giver, mut taker) = queue(Arc::clone(&hold), how.spool);
    let compression = how.compression.clone();
    let walking = tokio::task::spawn_blocking(move || walk(blocks, total + TRAILER));
    let out = Out { giver, sealing };
    let packing =
        tokio::task::spawn_blocking(move || pack(packed, out, &compression, total + TRAILER));
    let received = receive(
        source,
        first,
        Stages {
            to_walk,
            to_pack,
            hold,
            total,
            progress: how.progress,
        },
    );
    let ((), walked, (), ()) = tokio::try_join!(
        own(received),
        own(joined(walking)),
        own(joined(packing)),
        own(store(&mut taker, sink)),
    )?;
    // What is walked ends with etcd's digest, and is compared with it.
    if !walked.has_trailer || walked.bytes != total + TRAILER {
        return Err(cut("its digest at the end is missing"));
    }
    Ok(Passed {
        snapshot: Snapshot {
            sha256: walked.sha256.clone(),
            bytes: total + TRAILER,
        },
        walked,
        spooled: taker.has_spooled(),
    })
}

/// A stage that ended because of another one waits for that one to tell why.
async fn own<T>(stage: impl Future<Output = Result<T, Fault>>) -> Result<T> {
    match stage.await {
        Ok(done) => Ok(done),
        Err(Fault::Own(error)) => Err(error),
        Err(Fault::Neighbours) => std::future::pending().await,
    }
}

async fn joined<T>(thread: tokio::task::JoinHandle<Result<T, Fault>>) -> Result<T, Fault> {
    thread.await.unwrap_or_else(|e| {
        Err(Error::other("a stage of the snapshot broke off")
            .because(e)
            .into())
    })
}

fn cut(why: &str) -> Error {
    Error::corrupt(format!("the member did not send a whole snapshot: {why}"))
        .hint("the member or the network failed: take the snapshot again")
}

/// What the receiving stage feeds.
struct Stages<'a> {
    to_walk: mpsc::Sender<Bytes>,
    to_pack: mpsc::Sender<Bytes>,
    hold: Arc<Hold>,
    total: u64,
    progress: &'a dyn Progress,
}

impl Stages<'_> {
    async fn hand_on(&self, block: Bytes) -> Result<(), Fault> {
        let length = block.len() as u64;
        let sent = self.to_walk.send(block.clone()).await;
        sent.map_err(|_| Fault::Neighbours)?;
        let sent = self.to_pack.send(block).await;
        sent.map_err(|_| Fault::Neighbours)?;
        self.hold.received(length);
        self.progress.done(0, length);
        Ok(())
    }
}

/// Takes all messages, which are to be `total` bytes and the trailer.
async fn receive(source: &mut dyn Source, first: Message, stages: Stages<'_>) -> Result<(), Fault> {
    let whole = stages.total + TRAILER;
    let mut block = BytesMut::with_capacity(BLOCK);
    let mut received = 0;
    let mut next = Some(first);
    while let Some(message) = next {
        let bytes = message.bytes;
        received += bytes.len() as u64;
        if received > whole {
            return Err(cut("it sent more than it announced").into());
        }
        if block.len() + bytes.len() > BLOCK && !block.is_empty() {
            let full = std::mem::replace(&mut block, BytesMut::with_capacity(BLOCK));
            stages.hand_on(full.freeze()).await?;
        }
        block.extend_from_slice(&bytes);
        next = source.next().await?;
    }
    // The member is free, whatever the stages still have to do.
    stages.hold.release();
    if received < stages.total {
        let total = stages.total;
        return Err(cut(&format!("it ended after {received} of {total} bytes")).into());
    }
    if received < whole {
        return Err(cut("its digest at the end is missing").into());
    }
    stages.hand_on(block.freeze()).await
}

/// Hashes and walks on a thread of its own.
fn walk(mut blocks: mpsc::Receiver<Bytes>, whole: u64) -> Result<Walked, Fault> {
    let mut walk = Walk::new();
    let mut seen = 0;
    while let Some(block) = blocks.blocking_recv() {
        seen += block.len() as u64;
        walk.feed(&block).map_err(damaged)?;
    }
    // Half a database is not judged: why it is half is another stage's to tell.
    if seen != whole {
        return Err(Fault::Neighbours);
    }
    Ok(walk.finish().map_err(damaged)?)
}

fn damaged(error: Error) -> Error {
    if error.kind() != Kind::Corrupt {
        return error;
    }
    error.context("what the member sent is no whole database").hint(
        "take the snapshot again; if it stays so, that member's database is damaged: take it from another one, and look at this one's with `etcd-launcher verify`",
    )
}

/// Where packed bytes go: encrypted before they come to any store or spool.
struct Out {
    giver: Giver,
    sealing: Option<Sealing>,
}

impl Out {
    fn give(&mut self, bytes: Bytes) -> Result<(), Fault> {
        let bytes = match &mut self.sealing {
            Some(sealing) => sealing.seal(bytes)?,
            None => bytes,
        };
        // What waits for the rest of its chunk gives nothing yet.
        if bytes.is_empty() {
            return Ok(());
        }
        self.giver.give(bytes)
    }

    fn end(mut self) -> Result<(), Fault> {
        if let Some(sealing) = self.sealing.take() {
            self.giver.give(sealing.finish()?)?;
        }
        self.giver.end();
        Ok(())
    }
}

/// Packs and encrypts on a thread of its own.
fn pack(
    mut blocks: mpsc::Receiver<Bytes>,
    mut out: Out,
    compression: &Compression,
    whole: u64,
) -> Result<(), Fault> {
    let mut seen = 0;
    match compression {
        Compression::None => {
            while let Some(block) = blocks.blocking_recv() {
                seen += block.len() as u64;
                out.give(block)?;
            }
        }
        Compression::Zstd => {
            let broke =
                |e| Fault::Own(Error::other("the snapshot can not be compressed").because(e));
            let mut encoder =
                zstd::Encoder::new(Vec::with_capacity(PACKED * 2), LEVEL).map_err(broke)?;
            // Both let a reader check what it unpacks.
            encoder.include_checksum(true).map_err(broke)?;
            encoder.set_pledged_src_size(Some(whole)).map_err(broke)?;
            while let Some(block) = blocks.blocking_recv() {
                seen += block.len() as u64;
                encoder.write_all(&block).map_err(broke)?;
                if encoder.get_ref().len() >= PACKED {
                    let packed =
                        std::mem::replace(encoder.get_mut(), Vec::with_capacity(PACKED * 2));
                    out.give(packed.into())?;
                }
            }
            if seen == whole {
                out.give(encoder.finish().map_err(broke)?.into())?;
            }
        }
        Compression::Other(name) => {
            return Err(Error::invalid(format!("compression {name:?} is not known"))
                .hint("use zstd or none")
                .into());
        }
    }
    if seen != whole {
        return Err(Fault::Neighbours);
    }
    out.end()
}

async fn store(taker: &mut Taker, sink: &mut Sink) -> Result<(), Fault> {
    while let Some(bytes) = taker.take().await? {
        sink.write(bytes).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
