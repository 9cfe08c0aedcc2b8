//! Anything that object_store reaches, as a [`Backend`]. Knows no provider; what its errors mean is [`failure`](super::failure)'s.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use http::Method;
use jiff::Timestamp;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, TagSet,
};

use super::backend::{Backend, Failure, Reading};
use super::failure::{self, Words};
use super::kept::Kept;
use super::lend::Lender;
use super::store::{Created, Entry};
use crate::error::{Error, Kind};

/// So many keys may stand between one and its own beginning, when a listing is asked for it.
const PASSED: usize = 1000;

/// A bucket.
pub(crate) struct Bucket {
    /// Reads, lists and removes: a peer that is silent for a minute is gone.
    pub objects: Arc<dyn ObjectStore>,
    /// Writes: an answer comes only after the last byte was sent, which takes its time on a slow line.
    pub writes: Arc<dyn ObjectStore>,
    /// The same, for uploads in parts.
    pub parts: Arc<dyn MultipartStore>,
    /// For messages.
    pub place: String,
    /// What its refusals mean.
    pub words: &'static Words,
    /// Tags of every object.
    pub tags: TagSet,
    /// Signs addresses, where the store knows such.
    pub signer: Option<Arc<dyn Signer>>,
    /// Lends credentials for a part of it; else why nobody does.
    pub lender: Result<Arc<dyn Lender>, String>,
}

impl Bucket {
    fn failure(&self, doing: &str, error: object_store::Error) -> Failure {
        failure::of(self.words, doing, &self.place, error)
    }

    fn path(&self, key: &str) -> Result<Path, Failure> {
        Path::parse(key).map_err(|e| {
            Failure::final_answer(Error::invalid(format!("key {key:?} is not allowed")).because(e))
        })
    }
}

impl Bucket {
    /// To who may list no more than a part of the bucket, S3 does not say that an object is absent: it refuses to tell. Then the listing tells.
    async fn settled(&self, path: &Path, failure: Failure) -> Failure {
        if failure.error.kind() != Kind::Forbidden || self.is_listed(path).await != Some(false) {
            return failure;
        }
        let (key, place) = (path.as_ref(), &self.place);
        Failure::final_answer(Error::not_found(format!("{key} is not in {place}")))
    }

    /// Whether the listing has an object; nothing where it can not be had, or tells nothing for long.
    async fn is_listed(&self, path: &Path) -> Option<bool> {
        let key = path.as_ref();
        let (folder, _) = key.rsplit_once('/').unwrap_or_default();
        let folder = Path::parse(folder).ok()?;
        // No key that is looked for stands before its own beginning.
        let last = key.chars().next_back()?;
        let before = Path::parse(key.strip_suffix(last)?).ok()?;
        let mut found = self.objects.list_with_offset(Some(&folder), &before);
        for _ in 0..PASSED {
            match found.next().await {
                Some(Ok(meta)) if meta.location == *path => return Some(true),
                Some(Ok(meta)) if meta.location.as_ref() < key => {}
                Some(Ok(_)) | None => return Some(false),
                Some(Err(_)) => return None,
            }
        }
        None
    }
}

fn entry(meta: &ObjectMeta) -> Entry {
    Entry {
        key: meta.location.as_ref().to_owned(),
        size: meta.size,
        modified: Timestamp::from_nanosecond(
            i128::from(meta.last_modified.timestamp_micros()) * 1000,
        )
        .unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

#[async_trait]
impl Backend for Bucket {
    fn place(&self) -> &str {
        &self.place
    }

    async fn head(&self, key: &str) -> Result<Entry, Failure> {
        let path = self.path(key)?;
        match self.objects.head(&path).await {
            Ok(meta) => Ok(entry(&meta)),
            Err(e) => {
                let failure = self.failure(&format!("read {key}"), e);
                Err(self.settled(&path, failure).await)
            }
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading, Failure> {
        let path = self.path(key)?;
        let doing = format!("read {key}");
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let got = match self.objects.get_opts(&path, options).await {
            Ok(got) => got,
            Err(e) => {
                let failure = self.failure(&doing, e);
                return Err(self.settled(&path, failure).await);
            }
        };
        let (place, words) = (self.place.clone(), self.words);
        Ok(Reading {
            size: got.meta.size,
            version: got.meta.e_tag.clone(),
            body: got
                .into_stream()
                .map(move |chunk| chunk.map_err(|e| failure::of(words, &doing, &place, e)))
                .boxed(),
        })
    }

    async fn put(&self, key: &str, bytes: Bytes, create: bool) -> Result<Created, Failure> {
        let path = self.path(key)?;
        let options = PutOptions {
            mode: if create {
                PutMode::Create
            } else {
                PutMode::Overwrite
            },
            tags: self.tags.clone(),
            ..PutOptions::default()
        };
        match self.writes.put_opts(&path, bytes.into(), options).await {
            Ok(_) => Ok(Created::Yes),
            Err(object_store::Error::AlreadyExists { .. }) if create => Ok(Created::Exists),
            Err(e) => Err(self.failure(&format!("write {key}"), e)),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        let path = self.path(key)?;
        match self.objects.delete(&path).await {
            Ok(()) => Ok(()),
            Err(object_store::Error::NotFound { source, .. })
                if !failure::names_missing_bucket(&*source) =>
            {
                Ok(())
            }
            Err(e) => Err(self.failure(&format!("remove {key}"), e)),
        }
    }

    fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Entry, Failure>> {
        let (place, words) = (self.place.clone(), self.words);
        let doing = format!("list {folder}");
        let prefix = match self.path(folder.trim_end_matches('/')) {
            Ok(path) => path,
            Err(e) => return futures::stream::once(async { Err(e) }).boxed(),
        };
        let found = match after.map(|after| self.path(after)) {
            None => self.objects.list(Some(&prefix)),
            // Not every store heeds the offset: what comes again is not told again.
            Some(Ok(after)) => self
                .objects
                .list_with_offset(Some(&prefix), &after)
                .try_filter(move |meta| futures::future::ready(meta.location > after))
                .boxed(),
            Some(Err(e)) => return futures::stream::once(async { Err(e) }).boxed(),
        };
        found
            .map(move |meta| match meta {
                Ok(meta) => Ok(entry(&meta)),
                Err(e) => Err(failure::of(words, &doing, &place, e)),
            })
            .boxed()
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Failure> {
        let prefix = self.path(folder.trim_end_matches('/'))?;
        let found = self
            .objects
            .list_with_delimiter(Some(&prefix))
            .await
            .map_err(|e| self.failure(&format!("list {folder}"), e))?;
        Ok(found
            .common_prefixes
            .iter()
            .filter_map(|path| path.filename().map(str::to_owned))
            .collect())
    }

    fn lists_in_order(&self) -> bool {
        true
    }

    async fn begin(&self, key: &str) -> Result<String, Failure> {
        let path = self.path(key)?;
        let options = PutMultipartOptions {
            tags: self.tags.clone(),
            ..PutMultipartOptions::default()
        };
        // A store without tags is asked by the plain call: its trait's default refuses options.
        let begun = if self.tags.is_empty() {
            self.parts.create_multipart(&path).await
        } else {
            self.parts.create_multipart_opts(&path, options).await
        };
        begun.map_err(|e| self.failure(&format!("begin an upload of {key}"), e))
    }

    async fn part(
        &self,
        key: &str,
        id: &str,
        number: usize,
        _at: u64,
        bytes: Bytes,
    ) -> Result<String, Failure> {
        let path = self.path(key)?;
        self.parts
            .put_part(&path, &id.to_owned(), number, PutPayload::from(bytes))
            .await
            .map(|part| part.content_id)
            .map_err(|e| self.failure(&format!("upload part {} of {key}", number + 1), e))
    }

    async fn complete(&self, key: &str, id: &str, parts: Vec<String>) -> Result<(), Failure> {
        let path = self.path(key)?;
        let parts = parts
            .into_iter()
            .map(|content_id| PartId { content_id })
            .collect();
        self.parts
            .complete_multipart(&path, &id.to_owned(), parts)
            .await
            .map(|_| ())
            .map_err(|e| self.failure(&format!("complete the upload of {key}"), e))
    }

    async fn kept(&self, key: &str) -> Result<Kept, Failure> {
        let path = self.path(key)?;
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match self.objects.get_opts(&path, options).await {
            Ok(got) => Ok(got.extensions.get().copied().unwrap_or_default()),
            Err(object_store::Error::NotFound { source, .. })
                if !failure::names_missing_bucket(&*source) =>
            {
                Ok(Kept::default())
            }
            Err(e) => {
                let failure = self.failure(&format!("ask whether {key} is locked"), e);
                let failure = self.settled(&path, failure).await;
                match failure.error.kind() {
                    Kind::NotFound if failure.error.hint_text().is_none() => Ok(Kept::default()),
                    _ => Err(failure),
                }
            }
        }
    }

    fn lender(&self) -> Result<Arc<dyn Lender>, String> {
        self.lender.clone()
    }

    async fn signed(&self, key: &str, lasts: Duration) -> Result<Option<String>, Failure> {
        let path = self.path(key)?;
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let signed = signer.signed_url(Method::GET, &path, lasts).await;
        signed
            .map(|url| Some(url.into()))
            .map_err(|e| self.failure(&format!("sign an address of {key}"), e))
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), Failure> {
        let path = self.path(key)?;
        match self.parts.abort_multipart(&path, &id.to_owned()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => {
                let failure = self.failure(&format!("abort the upload of {key}"), e);
                // An id that nobody knows (any more) is what was wanted; stores word it differently.
                let gone = ["NoSuchUpload", "No existing upload", "not found"];
                let text = failure::chain(&failure.error);
                if gone.iter().any(|word| text.contains(word)) {
                    Ok(())
                } else {
                    Err(failure)
                }
            }
        }
    }
}
