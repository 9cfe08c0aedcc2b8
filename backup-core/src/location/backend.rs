//! What a provider has to be able to do: a dozen operations on keys, each tried once. Repeating, prefixes and bounds are the
//! [`Store`](super::Store)'s; what one of them means for a user is said in [`Failure`].

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::kept::Kept;
use super::lend::Lender;
use super::store::{Created, Entry};
use crate::crypt::file::Sealing;
use crate::error::Error;

/// All parts of an upload but the last have this size: some stores want them equal.
pub(crate) const PART: usize = 8 << 20;

/// The same for what trickles beside a larger upload; S3 takes no smaller ones.
pub(crate) const SMALL_PART: usize = 5 << 20;

/// Why an operation did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For the user.
    pub error: Error,
    /// Whether it may succeed when it is tried again.
    pub transient: bool,
    /// Nobody answered: what was sent may have been done, or may be done later.
    pub in_doubt: bool,
    /// The store can not do what was asked at all.
    pub unsupported: bool,
}

impl Failure {
    /// An answer that stays the same however often it is asked for.
    pub(crate) fn final_answer(error: Error) -> Self {
        Self {
            error,
            transient: false,
            in_doubt: false,
            unsupported: false,
        }
    }
}

/// An object that is being read.
pub(crate) struct Reading {
    /// The whole object's size in bytes.
    pub size: u64,
    /// Tells one version of the object from another, where the store has such a thing.
    pub version: Option<String>,
    /// The bytes of the range.
    pub body: BoxStream<'static, Result<Bytes, Failure>>,
}

/// A bucket or a folder. Keys are whole: the location's prefix is in them.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// What it is, for messages: `bucket "b" at http://127.0.0.1:9000`.
    fn place(&self) -> &str;

    /// Size and time of an object.
    async fn head(&self, key: &str) -> Result<Entry, Failure>;

    /// An object or a range of it. A range that begins at or after the object's end is `Corrupt`.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading, Failure>;

    /// Writes an object; with `create` only where none is.
    async fn put(&self, key: &str, bytes: Bytes, create: bool) -> Result<Created, Failure>;

    /// Removes an object; fine where it is absent.
    async fn delete(&self, key: &str) -> Result<(), Failure>;

    /// Objects below a folder (with its slash), those after a key only where one is given.
    fn list(&self, folder: &str, after: Option<&str>)
    -> BoxStream<'static, Result<Entry, Failure>>;

    /// Folders directly in a folder, without slashes.
    async fn folders(&self, folder: &str) -> Result<Vec<String>, Failure>;

    /// Whether [`Backend::list`] takes up after a key, in the keys' order.
    fn lists_in_order(&self) -> bool;

    /// Begins an upload; the id is enough to abort it from another process.
    async fn begin(&self, key: &str) -> Result<String, Failure>;

    /// Sends a part, counted from 0, which begins at this byte of the object.
    async fn part(
        &self,
        key: &str,
        id: &str,
        number: usize,
        at: u64,
        bytes: Bytes,
    ) -> Result<String, Failure>;

    /// Makes the object of its parts visible.
    async fn complete(&self, key: &str, id: &str, parts: Vec<String>) -> Result<(), Failure>;

    /// Gives an upload up; fine where it is unknown.
    async fn abort(&self, key: &str, id: &str) -> Result<(), Failure>;

    /// Asks whether an object could be written now, with no body that might hide the answer; a store that can not say so says yes.
    async fn may_write(&self, key: &str) -> Result<(), Failure> {
        let id = self.begin(key).await?;
        self.abort(key, &id).await
    }

    /// What would stay of an object that is removed; nothing where there is none.
    async fn kept(&self, _key: &str) -> Result<Kept, Failure> {
        Ok(Kept::default())
    }

    /// An address by which anybody may read an object for so long; nothing where the store has no such thing.
    async fn signed(&self, _key: &str, _for: Duration) -> Result<Option<String>, Failure> {
        Ok(None)
    }

    /// Who lends credentials for a part of it; else why nobody does.
    fn lender(&self) -> Result<Arc<dyn Lender>, String> {
        Err("it is a folder of the machine that makes the backup".to_owned())
    }

    /// How what is uploaded in parts is sealed before it is cut into them; nothing where it goes as it is. [`Backend::put`] seals by itself.
    fn sealing(&self, _key: &str) -> Result<Option<Sealing>, Error> {
        Ok(None)
    }

    /// Removes what died writers left directly in a folder and what no listing shows.
    async fn sweep(&self, _folder: &str) -> Result<(), Failure> {
        Ok(())
    }
}

/// Implements [`Backend`] around `self.inner`: these operations go there by `self.$through`, which gets their name, their key and the work;
/// whatever it does in another way follows them.
macro_rules! around {
    (
        $around:ident: $through:ident {
            $($name:ident($key:ident $(, $with:ident: $type:ty)*) -> $out:ty;)*
        }
        $($own:tt)*
    ) => {
        #[async_trait::async_trait]
        impl Backend for $around {
            $(
                async fn $name(&self, $key: &str $(, $with: $type)*) -> Result<$out, Failure> {
                    let work = self.inner.$name($key $(, $with)*);
                    self.$through(stringify!($name), $key, work).await
                }
            )*

            $($own)*
        }
    };
}
pub(super) use around;
