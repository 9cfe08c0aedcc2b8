//! Reads a snapshot of etcd back out of its bucket, in one pass and bounded memory: the stored bytes, the database in them and what it says of
//! itself are held against the manifest. Writes to no store, starts no etcd.

use std::fs::File;
use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::catalog::Entry;
use super::manifest::{Compression, Manifest};
use super::sealed::AGE;
use super::stream::{Walk, Walked};
use crate::crypt::BackupKey;
use crate::crypt::file::Unsealing;
use crate::error::{Error, Kind, Result};
use crate::location::{Store, hex};
use crate::progress::Progress;

/// Pieces that wait between the store and the reader.
const WAITING: usize = 8;

/// What is wrong with a snapshot, a sentence each; nothing where it is whole.
///
/// # Errors
/// The store's; a compression or encryption that this program does not know; `Unauthorized` for an encrypted one that was not opened.
pub async fn verify(store: &Store, entry: &Entry, progress: &dyn Progress) -> Result<Vec<String>> {
    read(store, entry, None, progress).await
}

/// Writes the database into a file, as `etcdctl snapshot save` does, and checks it like [`verify`]. The file is synced.
///
/// # Errors
/// `Corrupt` where anything is wrong: then the file is of no use. The store's, and the disk's.
pub async fn write(store: &Store, entry: &Entry, out: File, progress: &dyn Progress) -> Result<()> {
    let problems = read(store, entry, Some(out), progress).await?;
    let Some(first) = problems.first() else {
        return Ok(());
    };
    Err(Error::corrupt(format!("snapshot {} is damaged", entry.keys.name())).because(first.clone()))
}

async fn read(
    store: &Store,
    entry: &Entry,
    out: Option<File>,
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    let name = entry.keys.name();
    let data = &entry.manifest.data;
    let unknown = |what: &str, word: &str| {
        Error::invalid(format!(
            "snapshot {name} is {what} by {word:?}, which this program does not know"
        ))
        .hint("use the version that took it, or a later one")
    };
    match (data.encryption.as_deref(), entry.key()) {
        (None, _) | (Some(AGE), Some(_)) => {}
        (Some(AGE), None) => {
            return Err(
                Error::new(Kind::Unauthorized, format!("snapshot {name} is encrypted"))
                    .hint("give the private key of one of its recipients with --identity FILE"),
            );
        }
        (Some(encryption), _) => return Err(unknown("encrypted", encryption)),
    }
    if let Compression::Other(word) = &data.compression {
        return Err(unknown("compressed", word));
    }
    let key = entry.data();
    let mut chunks = match store.stream(&key).await {
        Ok(chunks) => chunks,
        Err(e) if e.kind() == Kind::NotFound => return Ok(vec![format!("{key} is missing")]),
        Err(e) => return Err(e),
    };
    let (sender, receiver) = mpsc::channel(WAITING);
    let manifest = entry.manifest.clone();
    let named = key.clone();
    let unsealing = entry.key().map(BackupKey::unsealing);
    let reader =
        tokio::task::spawn_blocking(move || judge(receiver, &manifest, &named, unsealing, out));
    let mut sent = Ok(());
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => {
                progress.done(0, chunk.len() as u64);
                // A reader that ended has its reasons, and tells them.
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(e) => {
                sent = Err(e);
                break;
            }
        }
    }
    drop(sender);
    let judged = reader
        .await
        .map_err(|e| Error::other(format!("reading {key} ended at once")).because(e))?;
    sent?;
    judged
}

/// Where the database goes while it is unpacked.
struct Sink {
    walk: Walk,
    out: Option<File>,
    /// Bytes that may still come.
    left: u64,
    /// Why it takes no more.
    refused: Option<Error>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stop = |this: &mut Self, error: Error| {
            this.refused = Some(error);
            Err(io::Error::other("the snapshot is refused"))
        };
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return stop(
                self,
                Error::corrupt("the database is larger than the manifest says"),
            );
        };
        self.left = left;
        if let Err(e) = self.walk.feed(bytes) {
            return stop(self, e);
        }
        if let Some(Err(e)) = self.out.as_mut().map(|out| out.write_all(bytes)) {
            return stop(self, Error::other("the file can not be written").because(e));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The two ways in which a database is stored.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one of them, and it does not move"
)]
enum Unpacking {
    Zstd(Box<zstd::stream::write::Decoder<'static, Sink>>),
    Plain(Sink),
}

impl Unpacking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(decoder) => decoder.write_all(bytes),
            Self::Plain(sink) => sink.write_all(bytes),
        }
    }

    fn end(self) -> (io::Result<()>, Sink) {
        match self {
            Self::Zstd(mut decoder) => {
                let flushed = decoder.flush();
                (flushed, decoder.into_inner())
            }
            Self::Plain(sink) => (Ok(()), sink),
        }
    }
}

fn judge(
    mut chunks: mpsc::Receiver<Bytes>,
    manifest: &Manifest,
    key: &str,
    mut unsealing: Option<Unsealing>,
    out: Option<File>,
) -> Result<Vec<String>> {
    let sink = Sink {
        walk: Walk::new(),
        out,
        left: manifest.snapshot.bytes,
        refused: None,
    };
    let mut unpacking = if manifest.data.compression == Compression::Zstd {
        let decoder = zstd::stream::write::Decoder::new(sink)
            .map_err(|e| Error::other("zstd can not be begun").because(e))?;
        Unpacking::Zstd(Box::new(decoder))
    } else {
        Unpacking::Plain(sink)
    };
    let (mut stored, mut bytes, mut broken) = (Context::new(&SHA256), 0_u64, None);
    while let Some(chunk) = chunks.blocking_recv() {
        stored.update(&chunk);
        bytes += chunk.len() as u64;
        if bytes > manifest.data.bytes {
            break;
        }
        // The stored bytes are counted to their end all the same: what was altered is said by their digest.
        if broken.is_some() {
            continue;
        }
        let plain = match &mut unsealing {
            None => Ok(chunk),
            Some(unsealing) => unsealing.feed(&chunk).map_err(io::Error::other),
        };
        broken = plain.and_then(|plain| unpacking.write(&plain)).err();
    }
    drop(chunks);
    if let (Some(unsealing), None) = (unsealing, &broken) {
        let rest = unsealing.finish().map_err(io::Error::other);
        broken = rest.and_then(|rest| unpacking.write(&rest)).err();
    }
    let (flushed, sink) = unpacking.end();
    let broken = broken.or(flushed.err());
    let mut problems = Vec::new();
    if bytes != manifest.data.bytes {
        let more = if bytes > manifest.data.bytes {
            "more than "
        } else {
            ""
        };
        let has = bytes.min(manifest.data.bytes);
        problems.push(format!(
            "{key} has {more}{has} bytes, the manifest says {}",
            manifest.data.bytes
        ));
    } else if hex(stored.finish().as_ref()) != manifest.data.sha256 {
        problems.push(format!(
            "{key} is not what was stored: its digest differs from the manifest's"
        ));
    }
    match (sink.refused, broken) {
        (Some(e), _) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {
            problems.push(e.to_string());
        }
        (Some(e), _) => return Err(e),
        (None, Some(e)) => problems.push(format!("{key} can not be unpacked: {e}")),
        (None, None) => match sink.walk.finish() {
            Ok(walked) => compare(&mut problems, manifest, &walked),
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {
                problems.push(e.to_string());
            }
            Err(e) => return Err(e),
        },
    }
    if let Some(out) = &sink.out {
        out.sync_all()
            .map_err(|e| Error::other("the file can not be written").because(e))?;
    }
    Ok(problems)
}

/// What the database turned out to be, held against what was written down when it was taken.
fn compare(problems: &mut Vec<String>, manifest: &Manifest, walked: &Walked) {
    let (was, is) = (&manifest.facts, &walked.facts);
    if walked.bytes != manifest.snapshot.bytes {
        problems.push(format!(
            "the database has {} bytes, the manifest says {}",
            walked.bytes, manifest.snapshot.bytes
        ));
    }
    if !walked.has_trailer {
        problems.push("the database does not end with etcd's digest".to_owned());
    }
    if walked.sha256 != manifest.snapshot.sha256 {
        problems.push(
            "the database is not the one the manifest is about: its digest differs".to_owned(),
        );
    }
    let numbers = [
        ("revision", was.revision, is.revision),
        (
            "compacted revision",
            was.compact_revision,
            is.compact_revision,
        ),
    ];
    for (what, was, is) in numbers {
        if was != is {
            problems.push(format!(
                "the database's {what} is {is}, the manifest says {was}"
            ));
        }
    }
    if was.keys.revisions != is.keys.revisions {
        problems.push(format!(
            "the database has {} revisions of keys, the manifest says {}",
            is.keys.revisions, was.keys.revisions
        ));
    }
}
