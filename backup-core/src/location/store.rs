//! Objects below a location's prefix: get, put, list, upload in parts. Hides whether it is a bucket or a folder. Errors name the key and
//! the location, and say which setting to look at.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use object_store::ObjectStore;

use crate::archive::read::Source;
use crate::archive::write::Sink;
use crate::error::Result;

/// Objects below a prefix.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key below the prefix.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When the store last wrote it, by the store's clock.
    pub modified: Timestamp,
}

/// How a create-only PUT ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was not there, and is now.
    Yes,
    /// Something was there, and still is.
    Exists,
}

/// What an upload came to.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, lower-case hex.
    pub sha256: String,
}

impl Store {
    /// A small object, whole: at most `most` bytes.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when it is larger.
    pub async fn get(&self, key: &str, most: u64) -> Result<Bytes> {
        let _ = (key, most);
        todo!()
    }

    /// The same, or nothing where it is absent.
    ///
    /// # Errors
    /// As [`Store::get`], but for `NotFound`.
    pub async fn find(&self, key: &str, most: u64) -> Result<Option<Bytes>> {
        let _ = (key, most);
        todo!()
    }

    /// Its size and time.
    ///
    /// # Errors
    /// `NotFound`, and the store's.
    pub async fn head(&self, key: &str) -> Result<Entry> {
        let _ = key;
        todo!()
    }

    /// Exactly these bytes.
    ///
    /// # Errors
    /// `Corrupt`, when the object is shorter.
    pub async fn range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let _ = (key, range);
        todo!()
    }

    /// All of it, in chunks.
    ///
    /// # Errors
    /// `NotFound`, and the store's.
    pub async fn stream(&self, key: &str) -> Result<BoxStream<'static, Result<Bytes>>> {
        let _ = key;
        todo!()
    }

    /// Writes a small object, over what was there.
    ///
    /// # Errors
    /// The store's.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let _ = (key, bytes);
        todo!()
    }

    /// Writes a small object only where none was (the store must be known to refuse a second one).
    ///
    /// # Errors
    /// The store's.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<Created> {
        let _ = (key, bytes);
        todo!()
    }

    /// Removes an object; fine where it is absent.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let _ = key;
        todo!()
    }

    /// Everything below a folder (`backups/x/`), in no particular order.
    pub fn list(&self, folder: &str) -> BoxStream<'static, Result<Entry>> {
        let _ = folder;
        todo!()
    }

    /// The names of the folders directly in a folder (`backups/`), sorted.
    ///
    /// # Errors
    /// The store's.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let _ = folder;
        todo!()
    }

    /// An object as a source of bytes.
    pub fn source(&self, key: String) -> StoreSource {
        StoreSource {
            store: self.clone(),
            key,
        }
    }
}

/// An object of a store, read by ranges.
#[derive(Clone, Debug)]
pub struct StoreSource {
    store: Store,
    key: String,
}

#[async_trait]
impl Source for StoreSource {
    async fn len(&self) -> Result<u64> {
        Ok(self.store.head(&self.key).await?.size)
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.store.range(&self.key, range).await
    }

    async fn stream(&self) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.store.stream(&self.key).await
    }
}

/// An object on its way into a store: parts of 8 MiB, three in flight; one PUT where it is smaller. Dropped without `finish` or `abort` it
/// leaves an upload that the claim names and `prune` removes.
pub struct Upload {}

#[async_trait]
impl Sink for Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let _ = bytes;
        todo!()
    }
}

impl Upload {
    /// Sends the rest; after it the object is visible whole.
    ///
    /// # Errors
    /// The store's; the upload is aborted then.
    pub async fn finish(self) -> Result<Uploaded> {
        todo!()
    }

    /// Gives it up; nothing stays in the store.
    pub async fn abort(self) {
        todo!()
    }
}
