//! The files of a copy, on their way under its claim: all but the marker. Compares what arrived with what was to come, and decides nothing about which.

use futures::{StreamExt, stream};
use tokio::sync::watch;

use super::gather::{File, Plan, damaged, file_name};
use crate::archive::write::Sink as _;
use crate::backup::cancelled;
use crate::error::{Error, Kind, Result};
use crate::location::claim::Claim;
use crate::location::vault::LARGEST_MANIFEST;
use crate::location::{Location, Sha256};
use crate::progress::Progress;

/// Files on their way at a time. Each of them holds at most three parts of 8 MiB.
const AT_A_TIME: usize = 3;

/// The work under a claim, up to the marker.
pub(super) struct Work<'a> {
    pub(super) source: &'a Location,
    pub(super) target: &'a Location,
    pub(super) plan: &'a Plan,
    pub(super) claim: &'a Claim,
    pub(super) cancel: watch::Receiver<bool>,
    /// Whether one file failed: the others, too, are ended where it is known what became of them, so that nothing of them is left.
    pub(super) over: watch::Sender<bool>,
    pub(super) progress: &'a dyn Progress,
}

impl Work<'_> {
    pub(super) async fn files(&self) -> Result<()> {
        self.progress.step(&format!(
            "copying {} to {}",
            self.plan.entry.name, self.target.name
        ));
        let ended: Vec<Result<()>> = stream::iter(self.plan.files.clone())
            .map(|file| async move {
                let ended = self.file(&file).await;
                if ended.is_err() {
                    self.over.send_replace(true);
                }
                ended
            })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        // In the order in which they ended: the first error is the cause.
        ended.into_iter().collect::<Result<()>>()?;
        // A backup that is deleted meanwhile loses its marker first.
        let marker = self.claim.keys().marker();
        let now = self.source.store.find(&marker, LARGEST_MANIFEST).await?;
        if now.as_ref() != Some(&self.plan.entry.raw) {
            return Err(Error::other(format!(
                "backup {} was deleted or written anew while it was copied",
                self.plan.entry.name
            ))
            .hint("look with `kubectl backup get`, and run the command again"));
        }
        self.claim.confirm().await?;
        for (key, bytes) in &self.plan.seals {
            self.claim.put(key, bytes.clone()).await?;
            self.progress.done(0, bytes.len() as u64);
        }
        self.heed()
    }

    fn heed(&self) -> Result<()> {
        if *self.cancel.borrow() {
            return Err(Error::new(
                Kind::Interrupted,
                format!(
                    "copying backup {} was stopped; there is no backup of that name in location {:?}",
                    self.plan.entry.name, self.target.name
                ),
            ));
        }
        if *self.over.borrow() {
            return Err(Error::other("another file could not be copied"));
        }
        Ok(())
    }

    /// Ends when nothing more is to be copied.
    async fn stopped(&self) {
        tokio::select! {
            () = cancelled(self.cancel.clone()) => {}
            () = cancelled(self.over.subscribe()) => {}
        }
    }

    /// One file, and whether what arrived is what was to come.
    async fn file(&self, file: &File) -> Result<()> {
        self.heed()?;
        let mut upload = self.claim.upload(&file.key).await?;
        let mut body = self.source.store.stream(&file.key).await?;
        let sent = async {
            loop {
                let chunk = tokio::select! {
                    chunk = body.next() => chunk,
                    () = self.stopped() => return self.heed(),
                };
                let Some(chunk) = chunk.transpose()? else {
                    return Ok(());
                };
                let bytes = chunk.len() as u64;
                upload.write(chunk).await?;
                self.progress.done(0, bytes);
            }
        };
        if let Err(e) = sent.await {
            upload.abort().await;
            return Err(e);
        }
        let uploaded = upload.finish().await?;
        let name = &self.plan.entry.name;
        let shown = file_name(&self.claim.keys().folder(), &file.key);
        match &file.sha256 {
            Some(wanted) if *wanted != uploaded.sha256 => {
                let why = format!("{shown} is not what was written: its SHA-256 is another");
                Err(damaged(name, &why))
            }
            Some(_) => Ok(()),
            None if uploaded.bytes != file.size => Err(Error::other(format!(
                "{shown} of backup {name} had {} bytes, and {} came: it was written anew while it was copied",
                file.size, uploaded.bytes
            ))
            .hint("run the command again")),
            // Nobody wrote down what it has to be: what stands there now is compared with what was sent.
            None if self.written(&file.key).await? == uploaded.sha256 => Ok(()),
            None => Err(Error::corrupt(format!(
                "{shown} of backup {name} reads otherwise in location {:?} than it was written there",
                self.target.name
            ))
            .hint("the store alters what it is given; check it with `kubectl backup location check`")),
        }
    }

    /// The SHA-256 of what stands in the target.
    async fn written(&self, key: &str) -> Result<String> {
        let mut digest = Sha256::default();
        let mut body = self.target.store.stream(key).await?;
        while let Some(chunk) = body.next().await {
            digest.update(&chunk?);
        }
        Ok(digest.finish())
    }
}
