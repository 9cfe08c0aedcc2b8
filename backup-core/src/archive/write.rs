//! Puts packed pages into one archive and its index, in the order in which they arrive, streaming both. It compresses only index
//! frames, and holds of the index what is not yet a full frame: lines as they are, a few MiB over all resources.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::pack::{self, Member, Packed};
use super::row::{Contents, FrameRow, HeaderRow, MemberRow, Outcome, ResourceRow, Row};
use super::{FORMAT, FORMAT_APART, LARGEST_CONTENTS, LARGEST_FRAME, path, sha256_hex};
use crate::error::{Error, Result};

/// Where bytes go: an upload, a spool file, or memory.
#[async_trait]
pub trait Sink: Send {
    /// Takes the next bytes; waits while too much is in flight.
    ///
    /// # Errors
    /// The store's.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;
}

#[async_trait]
impl Sink for Vec<u8> {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.extend_from_slice(&bytes);
        Ok(())
    }
}

/// What an archive came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Objects in it.
    pub objects: u64,
    /// Its compressed bytes.
    pub bytes: u64,
    /// Its members.
    pub members: u64,
    /// SHA-256 of its index's table of contents, which covers all of both.
    pub seal: [u8; 32],
}

/// Writes one archive and its index.
pub struct ArchiveWriter<A, I> {
    archive: A,
    index: IndexWriter<I>,
    tar: bool,
    /// Rows of resources that nobody described, made from their pages.
    seen: BTreeMap<String, ResourceRow>,
}

impl<A: Sink, I: Sink> ArchiveWriter<A, I> {
    /// Starts both: `metadata/version` and the index's header. `mtime` in seconds since the epoch.
    ///
    /// # Errors
    /// The sinks'.
    pub async fn start(archive: A, index: I, backup: &str, mtime: u64) -> Result<Self> {
        let header = header(FORMAT, backup, mtime, String::new())?;
        Self::begin_tar(archive, index, &header, mtime).await
    }

    /// The same of a backup whose Secrets stand apart.
    ///
    /// # Errors
    /// The sinks'.
    pub async fn start_rest(archive: A, index: I, backup: &str, mtime: u64) -> Result<Self> {
        let header = header(FORMAT_APART, backup, mtime, String::new())?;
        Self::begin_tar(archive, index, &header, mtime).await
    }

    /// The same where archive and index will be sealed, and the digest of the index's table of contents is told to everybody.
    ///
    /// # Errors
    /// The sinks'.
    pub async fn start_sealed(archive: A, index: I, backup: &str, mtime: u64) -> Result<Self> {
        let salt = uuid::Uuid::new_v4().simple().to_string();
        let header = header(FORMAT, backup, mtime, salt)?;
        Self::begin_tar(archive, index, &header, mtime).await
    }

    async fn begin_tar(archive: A, index: I, header: &HeaderRow, mtime: u64) -> Result<Self> {
        let mut writer = Self::begin(archive, index, header, true).await?;
        writer
            .member(pack::version_member(mtime, pack::LEVEL)?)
            .await?;
        Ok(writer)
    }

    /// Starts an archive of bodies alone, as [`pack::pack_bodies`] makes them.
    ///
    /// # Errors
    /// The sinks'.
    pub(super) async fn start_bodies(archive: A, index: I, backup: &str) -> Result<Self> {
        let header = header(FORMAT, backup, 0, String::new())?;
        Self::begin(archive, index, &header, false).await
    }

    async fn begin(archive: A, index: I, header: &HeaderRow, tar: bool) -> Result<Self> {
        Ok(Self {
            archive,
            index: IndexWriter::start(index, header).await?,
            tar,
            seen: BTreeMap::new(),
        })
    }

    /// Says beside which index, by the digest of its table of contents, this one stands: it opens beside no other.
    pub fn stands_beside(&mut self, seal: &[u8; 32]) {
        self.index.contents.beside = super::hex(seal);
    }

    /// Appends one page. Pages of one resource come in the order of its list; resources may interleave.
    ///
    /// # Errors
    /// The sinks'.
    pub async fn append(&mut self, page: Packed) -> Result<()> {
        let first = self.index.contents.members;
        for member in page.members {
            self.member(member).await?;
        }
        let resource = page.resource.group_resource();
        self.seen
            .entry(resource.clone())
            .or_insert_with(|| ResourceRow {
                resource: resource.clone(),
                version: page.resource.version.clone(),
                kind: page.resource.kind.clone(),
                namespaced: page.resource.namespaced,
                outcome: Outcome::Saved,
                ..ResourceRow::default()
            });
        for mut row in page.rows {
            row.member += first;
            self.index.object(&resource, &row).await?;
        }
        Ok(())
    }

    /// Ends both: tar's end, the rest of the index, the resources' rows (sorted), table of contents. Returns the sinks for their own finish.
    /// `count` is filled from what was appended; a resource of which there are objects and no row gets one.
    ///
    /// # Errors
    /// The sinks'.
    pub async fn finish(mut self, resources: &[ResourceRow]) -> Result<(A, I, Totals)> {
        if self.tar {
            self.member(pack::end_member(pack::LEVEL)?).await?;
        }
        for row in resources {
            self.seen.insert(row.resource.clone(), row.clone());
        }
        let (index, contents, seal) = self.index.finish(self.seen.into_values()).await?;
        let totals = Totals {
            objects: contents.objects,
            bytes: contents.size,
            members: contents.members,
            seal,
        };
        Ok((self.archive, index, totals))
    }

    async fn member(&mut self, member: Member) -> Result<()> {
        self.index
            .member(&MemberRow {
                at: self.index.contents.size,
                length: member.bytes.len() as u64,
                size: member.size,
                sha256: member.sha256,
            })
            .await?;
        self.archive.write(member.bytes).await
    }
}

/// The first line of an index.
fn header(format: &str, backup: &str, mtime: u64, salt: String) -> Result<HeaderRow> {
    let created = i64::try_from(mtime)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(|| Error::invalid(format!("time {mtime} is no time")))?;
    Ok(HeaderRow {
        format: format.to_owned(),
        backup: backup.to_owned(),
        created: created.to_string(),
        salt,
    })
}

/// A frame is cut at about this many bytes of lines.
const FRAME: usize = 1 << 20;

/// Lines held over all open frames; beyond it the largest one is cut early.
const HELD: usize = 8 << 20;

/// Lines of a frame to come.
#[derive(Default)]
struct Open {
    lines: Vec<u8>,
    count: u64,
    min: String,
    max: String,
}

/// Writes an index.
pub(super) struct IndexWriter<I> {
    sink: I,
    at: u64,
    contents: Contents,
    objects: BTreeMap<String, Open>,
    held: usize,
    members: Open,
    counts: BTreeMap<String, u64>,
    zstd: zstd::bulk::Compressor<'static>,
}

impl<I: Sink> IndexWriter<I> {
    pub(super) async fn start(sink: I, header: &HeaderRow) -> Result<Self> {
        let broken = |e| Error::other("can not set up zstd").because(e);
        let mut zstd = zstd::bulk::Compressor::new(3).map_err(broken)?;
        zstd.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))
            .map_err(broken)?;
        let mut writer = Self {
            sink,
            at: 0,
            contents: Contents {
                format: header.format.clone(),
                ..Contents::default()
            },
            objects: BTreeMap::new(),
            held: 0,
            members: Open::default(),
            counts: BTreeMap::new(),
            zstd,
        };
        let mut open = Open::default();
        open.push(&line(header)?);
        writer.frame("header", "", open).await?;
        Ok(writer)
    }

    pub(super) async fn object(&mut self, resource: &str, row: &Row) -> Result<()> {
        let key = path::key(row.namespace.as_deref(), &row.name);
        let line = line(row).map_err(|e| e.context(format!("{resource} {key:?}")))?;
        if !self.objects.contains_key(resource) {
            self.objects.insert(resource.to_owned(), Open::default());
            self.counts.entry(resource.to_owned()).or_default();
        }
        if let Some(open) = self.objects.get_mut(resource)
            && open.would_overflow(&line)
        {
            self.cut(resource).await?;
        }
        self.held += line.len();
        self.contents.objects += 1;
        *self.counts.entry(resource.to_owned()).or_default() += 1;
        let open = self.objects.entry(resource.to_owned()).or_default();
        open.push(&line);
        if open.count == 1 || key < open.min {
            open.min.clone_from(&key);
        }
        if key > open.max {
            open.max = key;
        }
        if open.lines.len() >= FRAME {
            self.cut(resource).await?;
        } else if self.held > HELD {
            let largest = self
                .objects
                .iter()
                .max_by_key(|(_, open)| open.lines.len())
                .map(|(resource, _)| resource.clone());
            if let Some(largest) = largest {
                self.cut(&largest).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn member(&mut self, row: &MemberRow) -> Result<()> {
        self.members.push(&line(row)?);
        self.contents.members += 1;
        self.contents.size = row.at + row.length;
        if self.members.lines.len() >= FRAME {
            let open = std::mem::take(&mut self.members);
            self.frame("members", "", open).await?;
        }
        Ok(())
    }

    /// Writes the rest. The rows' counts are those of the objects written.
    pub(super) async fn finish(
        mut self,
        resources: impl Iterator<Item = ResourceRow>,
    ) -> Result<(I, Contents, [u8; 32])> {
        while let Some(resource) = self.objects.keys().next().cloned() {
            self.cut(&resource).await?;
        }
        let open = std::mem::take(&mut self.members);
        self.frame("members", "", open).await?;
        let mut open = Open::default();
        for mut row in resources {
            row.count = self.counts.get(&row.resource).copied().unwrap_or(0);
            let line = line(&row)?;
            if open.lines.len() >= FRAME || open.would_overflow(&line) {
                self.frame("resources", "", std::mem::take(&mut open))
                    .await?;
            }
            open.push(&line);
        }
        self.frame("resources", "", open).await?;

        let toc = line_up_to(&self.contents, LARGEST_CONTENTS)?;
        let packed = self.compress(&toc)?;
        let mut trailer = Vec::with_capacity(TRAILER);
        trailer.extend_from_slice(&TRAILER_MAGIC.to_le_bytes());
        trailer.extend_from_slice(&(TRAILER as u32 - 8).to_le_bytes());
        for number in [self.at, packed.len() as u64, toc.len() as u64] {
            trailer.extend_from_slice(&number.to_le_bytes());
        }
        let mut seal = [0; 32];
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &packed);
        seal.copy_from_slice(digest.as_ref());
        trailer.extend_from_slice(&seal);
        trailer.extend_from_slice(TRAILER_END);
        self.sink.write(packed.into()).await?;
        self.sink.write(trailer.into()).await?;
        Ok((self.sink, self.contents, seal))
    }

    async fn cut(&mut self, resource: &str) -> Result<()> {
        if let Some(open) = self.objects.remove(resource) {
            self.held -= open.lines.len();
            self.frame("objects", resource, open).await?;
        }
        Ok(())
    }

    async fn frame(&mut self, kind: &str, resource: &str, open: Open) -> Result<()> {
        if open.count == 0 {
            return Ok(());
        }
        let packed = self.compress(&open.lines)?;
        self.contents.frames.push(FrameRow {
            kind: kind.to_owned(),
            resource: resource.to_owned(),
            at: self.at,
            length: packed.len() as u64,
            size: open.lines.len() as u64,
            lines: open.count,
            min: open.min,
            max: open.max,
            sha256: sha256_hex(&packed),
        });
        self.at += packed.len() as u64;
        self.sink.write(packed.into()).await
    }

    fn compress(&mut self, lines: &[u8]) -> Result<Vec<u8>> {
        self.zstd
            .compress(lines)
            .map_err(|e| Error::other("can not compress the index").because(e))
    }
}

impl Open {
    fn push(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
        self.count += 1;
    }

    fn would_overflow(&self, line: &[u8]) -> bool {
        self.count > 0 && (self.lines.len() + line.len()) as u64 > LARGEST_FRAME
    }
}

/// Bytes of the trailer.
pub(super) const TRAILER: usize = 72;

/// What it starts with: zstd passes over such a frame.
pub(super) const TRAILER_MAGIC: u32 = 0x184D_2A5B;

/// What it ends with.
pub(super) const TRAILER_END: &[u8; 8] = b"KBINDEX1";

fn line(row: &impl Serialize) -> Result<Vec<u8>> {
    line_up_to(row, LARGEST_FRAME)
}

fn line_up_to(row: &impl Serialize, most: u64) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(row)
        .map_err(|e| Error::other("can not write a line of the index").because(e))?;
    line.push(b'\n');
    if line.len() as u64 > most {
        return Err(Error::invalid(format!(
            "its line in the index would be {} bytes; an index takes {most}",
            line.len()
        )));
    }
    Ok(line)
}
