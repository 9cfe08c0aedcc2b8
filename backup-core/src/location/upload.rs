//! A large object on its way into a store, in bounded memory: at most one part being filled and two being sent.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::backend::{Failure, PART, SMALL_PART};
use super::claim::{Lease, UploadId};
use super::store::{Patience, Store, repeat};
use crate::archive::write::Sink;
use crate::crypt::file::Sealing;
use crate::error::{Error, Kind, Result};

/// Parts that are being sent at a time.
const IN_FLIGHT: usize = 2;

/// What is larger gets room for a whole part.
const SMALL: usize = 256 << 10;

/// S3 takes no more parts, which bounds an object to about 80 GiB.
const MOST_PARTS: usize = 10_000;

/// What an upload came to.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
}

/// An object on its way into a store: parts of 8 MiB, two in flight; one PUT where it is smaller. Dropped without `finish` or `abort` it
/// leaves an upload that the claim names and `prune` removes.
pub struct Upload {
    store: Store,
    key: String,
    full: String,
    lease: Option<Arc<Lease>>,
    digest: digest::Context,
    bytes: u64,
    /// Size of a part, and how many are sent at a time.
    part: usize,
    in_flight: usize,
    buffer: BytesMut,
    /// Where it is encrypted on its way; begun with the first part.
    sealing: Option<Sealing>,
    id: Option<String>,
    parts: Vec<Option<String>>,
    sending: JoinSet<Result<(usize, String), Failure>>,
    failed: bool,
}

/// A store that says no while a part is still on its way may break the connection on which it says so, and looks as if it were away. So it is asked once
/// more with nothing to send: what it refuses then is what it refused.
async fn or_refusal(store: &Store, full: &str, failure: Failure) -> Failure {
    if !(failure.transient && failure.in_doubt) {
        return failure;
    }
    match store.backend.may_write(full).await {
        Err(refusal)
            if matches!(
                refusal.error.kind(),
                Kind::Forbidden | Kind::Unauthorized | Kind::NotFound
            ) =>
        {
            refusal
        }
        _ => failure,
    }
}

/// Lower-case hex of a SHA-256.
pub fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of what comes in pieces.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Sha256 {
    /// The next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Lower-case hex.
    pub fn finish(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

/// SHA-256 of bytes, lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[async_trait]
impl Sink for Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if self.failed {
            return Err(Error::other(format!("the upload of {} failed", self.key)));
        }
        let written = self.take(bytes).await;
        self.failed = written.is_err();
        written
    }
}

impl Upload {
    pub(super) fn new(store: &Store, key: &str, lease: Option<Arc<Lease>>) -> Result<Self> {
        store.writable()?;
        Ok(Self {
            full: store.full(key)?,
            store: store.clone(),
            key: key.to_owned(),
            lease,
            digest: digest::Context::new(&digest::SHA256),
            bytes: 0,
            part: PART,
            in_flight: IN_FLIGHT,
            buffer: BytesMut::new(),
            sealing: None,
            id: None,
            parts: Vec::new(),
            sending: JoinSet::new(),
            failed: false,
        })
    }

    /// For what grows slowly beside a larger upload, as the index does beside its archive: smaller parts, one in flight. Nothing may have
    /// been written yet.
    pub(crate) fn slim(mut self) -> Self {
        self.part = SMALL_PART;
        self.in_flight = 1;
        self
    }

    fn alive(&self) -> Result<()> {
        self.lease.as_ref().map_or(Ok(()), |lease| lease.alive())
    }

    async fn take(&mut self, bytes: Bytes) -> Result<()> {
        self.digest.update(&bytes);
        self.bytes += bytes.len() as u64;
        if self.buffer.len() + bytes.len() >= self.part {
            self.seal().await?;
        }
        match &mut self.sealing {
            Some(sealing) => {
                let sealed = sealing.seal(bytes)?;
                self.gather(sealed).await
            }
            None => self.gather(bytes).await,
        }
    }

    /// From now on it goes in parts: where it is to be encrypted, all of it is, from its first byte on. What is smaller the store encrypts.
    async fn seal(&mut self) -> Result<()> {
        if self.sealing.is_none()
            && let Some(mut sealing) = self.store.backend.sealing(&self.full)?
        {
            let first = sealing.seal(std::mem::take(&mut self.buffer).freeze())?;
            self.sealing = Some(sealing);
            self.gather(first).await?;
        }
        Ok(())
    }

    async fn gather(&mut self, mut bytes: Bytes) -> Result<()> {
        while self.buffer.len() + bytes.len() >= self.part {
            let piece = bytes.split_to(self.part - self.buffer.len());
            self.buffer.extend_from_slice(&piece);
            let part = std::mem::take(&mut self.buffer).freeze();
            self.send(part).await?;
        }
        if self.buffer.capacity() < self.part && self.buffer.len() + bytes.len() > SMALL {
            // Growing step by step would copy it several times, and hold twice as much.
            self.buffer.reserve(self.part - self.buffer.len());
        }
        self.buffer.extend_from_slice(&bytes);
        Ok(())
    }

    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        let number = self.parts.len();
        if number >= MOST_PARTS {
            return Err(Error::other(format!(
                "{} is larger than {} GiB, the most that fits one object",
                self.key,
                (MOST_PARTS * self.part) >> 30
            ))
            .hint("split the backup, for example by namespaces"));
        }
        let id = self.begin().await?;
        while self.sending.len() >= self.in_flight {
            self.landed().await?;
        }
        self.alive()?;
        self.parts.push(None);
        let (store, full) = (self.store.clone(), self.full.clone());
        let at = (number * self.part) as u64;
        self.sending.spawn(async move {
            repeat(Patience::Long, None, || async {
                let sent = store.backend.part(&full, &id, number, at, bytes.clone());
                match sent.await {
                    Err(failure) => Err(or_refusal(&store, &full, failure).await),
                    sent => sent,
                }
            })
            .await
            .map(|part| (number, part))
        });
        Ok(())
    }

    async fn begin(&mut self) -> Result<String> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        self.alive()?;
        let id = repeat(Patience::Long, None, || {
            self.store.backend.begin(&self.full)
        })
        .await
        .map_err(|failure| failure.error)?;
        // Known before the claim has it, so that `abort` finds it whatever happens next.
        self.id = Some(id.clone());
        if let Some(lease) = &self.lease {
            lease.add_upload(&self.key, &id).await?;
        }
        Ok(id)
    }

    async fn landed(&mut self) -> Result<()> {
        match self.sending.join_next().await {
            None => Ok(()),
            Some(Ok(Ok((number, part)))) => {
                self.parts[number] = Some(part);
                Ok(())
            }
            Some(Ok(Err(failure))) => Err(failure.error),
            Some(Err(e)) => {
                Err(Error::other(format!("the upload of {} broke off", self.key)).because(e))
            }
        }
    }

    /// Sends the rest; after it the object is visible whole.
    ///
    /// # Errors
    /// The store's; the upload is aborted then.
    pub async fn finish(mut self) -> Result<Uploaded> {
        match self.end().await {
            Ok(()) => Ok(Uploaded {
                bytes: self.bytes,
                sha256: hex(self.digest.finish().as_ref()),
            }),
            Err(e) => {
                self.abort().await;
                Err(e)
            }
        }
    }

    async fn end(&mut self) -> Result<()> {
        if self.failed {
            return Err(Error::other(format!("the upload of {} failed", self.key)));
        }
        if self.id.is_some() {
            self.seal().await?;
        }
        if let Some(sealing) = self.sealing.take() {
            self.gather(sealing.finish()?).await?;
        }
        let rest = std::mem::take(&mut self.buffer).freeze();
        let Some(id) = self.id.clone() else {
            return match &self.lease {
                Some(lease) => lease.write(&self.key, rest).await,
                None => self.store.put(&self.key, rest).await,
            };
        };
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        while !self.sending.is_empty() {
            self.landed().await?;
        }
        let parts: Vec<String> = std::mem::take(&mut self.parts)
            .into_iter()
            .map(|part| part.expect("every part has landed"))
            .collect();
        match &self.lease {
            Some(lease) => {
                lease
                    .complete(&self.key, &id, self.bytes, || self.complete(&id, &parts))
                    .await
            }
            None => self
                .complete(&id, &parts)
                .await
                .map_err(|failure| failure.error),
        }
    }

    /// An answer that was lost makes the next attempt say that there is no such upload: then the object itself tells.
    async fn complete(&self, id: &str, parts: &[String]) -> Result<(), Failure> {
        let fence = || self.alive();
        let mut again = false;
        repeat(Patience::Long, Some(&fence), || {
            let looked_for = std::mem::replace(&mut again, true);
            let parts = parts.to_vec();
            async move {
                let failure = match self.store.backend.complete(&self.full, id, parts).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                };
                if looked_for && !failure.transient {
                    let found = self.store.backend.head(&self.full).await?;
                    if found.size == self.bytes {
                        return Ok(());
                    }
                }
                Err(failure)
            }
        })
        .await
    }

    /// Begins it in the store before any part is sent, and tells its id, so that the caller can note it where another run finds it.
    pub(crate) async fn announce(&mut self) -> Result<UploadId> {
        let id = self.begin().await?;
        Ok(UploadId {
            key: self.key.clone(),
            id,
        })
    }

    /// Gives it up; nothing stays in the store.
    pub async fn abort(self) {
        // What can not be aborted now stays in the claim, and prune aborts it.
        let _ = self.give_up().await;
    }

    /// The same; an error where something of it may stay.
    pub(crate) async fn give_up(mut self) -> Result<()> {
        self.sending.shutdown().await;
        let Some(id) = &self.id else { return Ok(()) };
        repeat(Patience::Quick, None, || {
            self.store.backend.abort(&self.full, id)
        })
        .await
        .map_err(|failure| failure.error)
    }
}
