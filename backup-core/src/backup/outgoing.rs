//! A file of a backup on its way into the bucket: as it is, or sealed on the way. Its digest is of what stands in the bucket.

use async_trait::async_trait;
use bytes::Bytes;

use crate::archive::write::Sink;
use crate::crypt::BackupKey;
use crate::crypt::file::Sealing;
use crate::error::Result;
use crate::location::store::{Upload, Uploaded};

/// A file on its way.
pub(super) struct Outgoing {
    upload: Upload,
    sealing: Option<Sealing>,
}

impl Outgoing {
    /// As it is; what stands in a vault is sealed by the store.
    pub(super) fn plain(upload: Upload) -> Self {
        Self {
            upload,
            sealing: None,
        }
    }

    /// Sealed for this key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub(super) fn sealed(upload: Upload, key: &BackupKey) -> Result<Self> {
        Ok(Self {
            upload,
            sealing: Some(key.sealing()?),
        })
    }

    /// Sends the rest.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn finish(mut self) -> Result<Uploaded> {
        if let Some(sealing) = self.sealing.take() {
            self.upload.write(sealing.finish()?).await?;
        }
        self.upload.finish().await
    }
}

#[async_trait]
impl Sink for Outgoing {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(sealing) = &mut self.sealing else {
            return self.upload.write(bytes).await;
        };
        let sealed = sealing.seal(bytes)?;
        match sealed.is_empty() {
            true => Ok(()),
            false => self.upload.write(sealed).await,
        }
    }
}
