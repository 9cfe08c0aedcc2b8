//! A whole database that lies in a file becomes a snapshot of a location: the same pipeline and the same checks, with a file where a member
//! would be. The file is only read.

use std::path::Path;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::pipe::{How, Source, pass};
use super::publish::Begun;
use super::{Target, describe, now};
use crate::error::{Error, Result};
use crate::etcd::client::Message;
use crate::etcd::digest::LiveDigest;
use crate::etcd::manifest::{Compression, Etcd, Manifest, TRAILER};
use crate::etcd::sealed::Encryption;
use crate::progress::Progress;

/// Bytes that are read at a time.
const CHUNK: u64 = 256 << 10;

/// What the manifest says of a database that no member sends.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Whose it was.
    pub etcd: Etcd,
    /// Over its live keys, as who examined it found it.
    pub digest: LiveDigest,
    /// Program and version.
    pub tool: String,
    /// For whom it is encrypted.
    pub encryption: Option<Encryption>,
}

/// Stores the database in `path`, which has `bytes` and no trailer, with the trailer that etcd would send.
///
/// # Errors
/// As [`super::take`].
pub async fn store(
    path: &Path,
    bytes: u64,
    origin: Origin,
    target: &Target,
    progress: &dyn Progress,
) -> Result<Manifest> {
    let created_at = now();
    target.must_be_free().await?;
    let failed =
        |e: std::io::Error| Error::other(format!("can not read {}", path.display())).because(e);
    let mut source = Whole {
        name: path.display().to_string(),
        file: File::open(path).await.map_err(failed)?,
        remaining: bytes,
        hash: Some(Context::new(&SHA256)),
    };
    let run = uuid::Uuid::new_v4().simple().to_string();
    let compression = Compression::Zstd;
    let mut begun = Begun::new(target, &run, &compression, origin.encryption.as_ref()).await?;
    progress.step(&format!("storing {}", path.display()));
    let how = How {
        compression: &compression,
        spool: None,
        hold_limit: Some(std::time::Duration::MAX),
        progress,
    };
    let sealing = begun.sealing.take();
    let passed = match pass(&mut source, &mut begun.sink, &how, sealing).await {
        Ok(passed) => passed,
        Err(e) => return Err(begun.abort(e, progress).await),
    };
    let stored = begun.finish().await?;
    let manifest = Manifest {
        digest: Some(origin.digest),
        ..describe(
            target,
            &stored,
            &compression,
            created_at,
            passed.snapshot,
            passed.walked.facts,
            origin.etcd,
            &origin.tool,
        )
    };
    stored.publish(manifest).await
}

/// A database, then the digest that etcd would send behind it.
struct Whole {
    name: String,
    file: File,
    remaining: u64,
    hash: Option<Context>,
}

#[async_trait]
impl Source for Whole {
    async fn next(&mut self) -> Result<Option<Message>> {
        if self.remaining == 0 {
            let digest = self.hash.take().map(Context::finish);
            debug_assert!(
                digest
                    .as_ref()
                    .is_none_or(|d| d.as_ref().len() as u64 == TRAILER)
            );
            return Ok(digest.map(|digest| Message {
                bytes: digest.as_ref().to_vec(),
                remaining: 0,
            }));
        }
        let wanted = usize::try_from(self.remaining.min(CHUNK)).unwrap_or_default();
        let mut bytes = vec![0; wanted];
        self.file
            .read_exact(&mut bytes)
            .await
            .map_err(|e| Error::other(format!("can not read {}", self.name)).because(e))?;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes);
        }
        self.remaining -= wanted as u64;
        Ok(Some(Message {
            bytes,
            remaining: self.remaining,
        }))
    }
}
