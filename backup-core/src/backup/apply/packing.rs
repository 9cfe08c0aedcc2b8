//! What becomes of a page that was read: it is split and counted, packed on other threads, and handed on to the writer in the order of reading.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::reading::Listing;
use super::{Run, Stop};
use crate::archive::pack::{self, Packed};
use crate::archive::row::ResourceRow;
use crate::backup::budget::Reserved;
use crate::backup::page::{self, Page};
use crate::error::{Error, Result};

/// So many bytes of pods that wait for their hooks are held; more are saved as they were listed.
const HELD: usize = 16 << 20;

/// So many Secrets of a page that were not saved are told one by one.
const MOST_TOLD: usize = 20;

/// A page on its way through the packing threads.
pub(in crate::backup) type Packing = JoinHandle<Result<(Packed, Reserved)>>;

impl Run<'_> {
    /// Hands packed pages on in the order in which they were read.
    pub(in crate::backup) async fn send(&self, mut packed: mpsc::Receiver<Packing>) -> Result<()> {
        while let Some(packing) = packed.recv().await {
            let page = packing
                .await
                .map_err(|e| Error::other("packing a page broke off").because(e))??;
            self.pages.send(page).await.map_err(|_| gone())?;
        }
        Ok(())
    }

    pub(super) async fn split(&self, body: Bytes, listing: &Listing<'_>) -> Result<Page, Stop> {
        let resource = Arc::clone(listing.resource);
        let keep = Arc::clone(listing.keep);
        let _thread = self.threads.acquire().await;
        tokio::task::spawn_blocking(move || page::split(&body, &resource, &keep))
            .await
            .map_err(|e| Stop::All(Error::other("splitting a page broke off").because(e)))?
            .map_err(|e| match self.hides(listing.resource) {
                true => {
                    self.apply.progress.warn(&e.to_string());
                    Stop::Type("the server's answer can not be read".to_owned())
                }
                false => Stop::Type(e.to_string()),
            })
    }

    /// Counts a page and gives it to the packing threads.
    pub(in crate::backup) async fn hand_on(
        &self,
        listing: &Listing<'_>,
        page: Page,
        mut share: Reserved,
        length: usize,
        row: &mut ResourceRow,
    ) -> Result<(), Stop> {
        let Page {
            mut items,
            mut seen,
            ..
        } = page;
        let is_told = !self.hides(listing.resource);
        if !is_told {
            // Their names, and what of them can not be read, are in no file that is not sealed; who looks on is told.
            let more = seen.unfit.len().saturating_sub(MOST_TOLD);
            for (namespace, text) in seen.unfit.iter().take(MOST_TOLD) {
                let place = match namespace.as_str() {
                    "" => String::new(),
                    namespace => format!("in namespace {namespace}: "),
                };
                self.apply.progress.warn(&format!("{place}{text}"));
            }
            if more > 0 {
                let text = format!("{more} more Secrets were not saved");
                self.apply.progress.warn(&text);
            }
            for (_, text) in &mut seen.unfit {
                "a Secret was not saved; which one and why is told to who makes the backup alone, where Secrets are encrypted"
                    .clone_into(text);
            }
        }
        self.apply.progress.done(items.len() as u64, length as u64);
        {
            let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let held = all.hooked.len();
            all.merge(seen);
            items.extend(all.release_beyond(held, HELD));
        }
        if items.is_empty() {
            return Ok(());
        }
        row.count += items.len() as u64;
        if is_told {
            let resource = listing.resource;
            let key = format!("{}/{}", resource.api_version(), resource.kind);
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let names = names.entry(key).or_default();
            for item in &items {
                names.push(item.namespace.as_deref(), &item.name);
            }
        }
        let resource = Arc::clone(listing.resource);
        let threads = Arc::clone(&self.threads);
        let mtime = self.apply.mtime;
        let packing = tokio::spawn(async move {
            let thread = threads.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _thread = thread;
                let packed = pack::pack(&resource, &items, mtime, pack::LEVEL)?;
                drop(items);
                share.shrink(weight(&packed));
                Ok((packed, share))
            })
            .await
            .map_err(|e| Error::other("packing a page broke off").because(e))?
        });
        listing
            .packing
            .send(packing)
            .await
            .map_err(|_| Stop::All(gone()))
    }
}

fn gone() -> Error {
    Error::other("the archive's writer is gone")
}

/// What a packed page holds on to, about: its members (a large body's bytes are shared by both copies) and its rows.
fn weight(packed: &Packed) -> usize {
    let mut last = None;
    let members: usize = packed
        .members
        .iter()
        .map(|member| {
            let here = member.bytes.as_ptr();
            let shared = last.replace(here) == Some(here);
            if shared { 0 } else { member.bytes.len() }
        })
        .sum();
    members + packed.rows.len() * 512
}
