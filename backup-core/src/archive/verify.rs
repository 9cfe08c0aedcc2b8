//! Reads a whole archive and checks it against its index: every member's digest, every entry, every object decodes, both copies are
//! equal, the counts agree. What is wrong is named. Bounded memory: some 50 bytes per object. Checks nothing but archive and index;
//! without an index (another tool's archive) it checks what an archive tells alone.

mod expected;
mod members;
mod walk;

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::StreamExt;

use self::expected::{Keys, load, member_starts};
use self::members::{Bad, Members};
use self::walk::Walk;
use super::feed::feed;
use super::index::Index;
use super::read::Source;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// What is wrong, a sentence each, naming the file, member or object; empty when all is well. At most 1,000.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The sentences.
    pub problems: Vec<String>,
    /// Objects read and decoded.
    pub objects: u64,
    /// Bytes of JSON read.
    pub bytes: u64,
}

const MOST_PROBLEMS: usize = 1000;

impl Findings {
    fn push(&mut self, problem: String) {
        if self.problems.len() < MOST_PROBLEMS - 1 {
            self.problems.push(problem);
        } else if self.problems.len() == MOST_PROBLEMS - 1 {
            self.problems
                .push("more is wrong than is listed here".to_owned());
        }
    }

    fn error(&mut self, error: &Error) {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            let this = cause.to_string();
            if !text.contains(&this) {
                text = format!("{text}: {this}");
            }
            next = cause.source();
        }
        self.push(text);
    }

    /// Makes contents a finding; what is the source's own goes up.
    fn catch<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.kind() == Kind::Corrupt => {
                self.error(&e);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// Reads both to their end.
///
/// # Errors
/// Only the source's own: everything wrong with the contents is a finding.
pub async fn verify(
    archive: &dyn Source,
    index: Option<&dyn Source>,
    progress: &dyn Progress,
) -> Result<Findings> {
    let mut findings = Findings::default();
    let index = match index {
        Some(source) => findings.catch(Index::open(source).await)?,
        None => None,
    };
    let keys = Keys(RandomState::new());
    let mut members = None;
    let mut expected = None;
    if let Some(index) = &index {
        progress.step("reading the index");
        progress.expect(index.objects());
        findings.catch(index.check_rest().await)?;
        let starts = member_starts(index, &mut findings).await?;
        expected = Some(load(index, &keys, starts.as_deref(), &mut findings).await?);
        members = starts.is_some().then(|| Members::new(index));
        let length = archive.len().await?;
        if length != index.archive_size() {
            findings.push(format!(
                "archive is {length} bytes, its index says {}",
                index.archive_size()
            ));
        }
    }

    progress.step("reading the archive");
    let (bytes, objects) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (chunks, feed) = feed();
    let walk = Walk::new(keys, expected, findings, objects.clone());
    let given = bytes.clone();
    let walking = tokio::task::spawn_blocking(move || walk.run(feed, given));
    let mut stream = archive.stream().await?;
    let mut chunks = Some(chunks);
    let mut told = (0, 0);
    while let Some(chunk) = stream.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(e) => {
                drop(chunks);
                drop(walking.await);
                return Err(e);
            }
        };
        if let Some(members) = &mut members {
            members.update(&chunk).await?;
        }
        if let Some(sender) = &chunks
            && sender.send(chunk).await.is_err()
        {
            // The walk ended early; the members are still hashed to the archive's end.
            chunks = None;
            if members.is_none() {
                break;
            }
        }
        let now = (
            objects.load(Ordering::Relaxed),
            bytes.load(Ordering::Relaxed),
        );
        progress.done(now.0 - told.0, now.1 - told.1);
        told = now;
    }
    drop(chunks);
    let (mut walk, stopped) = walking
        .await
        .map_err(|e| Error::other("checking the archive stopped").because(e))?;
    let now = (walk.findings.objects, bytes.load(Ordering::Relaxed));
    progress.done(now.0.saturating_sub(told.0), now.1.saturating_sub(told.1));

    if let Some(error) = &stopped {
        walk.findings.error(error);
    }
    let bad = match members {
        Some(members) => members.finish(),
        None => Bad::default(),
    };
    bad.tell(&mut walk.findings);
    if let Some(index) = &index {
        walk.compare(index, stopped.is_some(), &bad).await?;
    }
    Ok(walk.findings)
}
