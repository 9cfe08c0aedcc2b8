//! Fetches objects out of an archive with the help of its index: ranges of members, coalesced, decompressed within bounds.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use flate2::bufread::GzDecoder;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::index::Index;
use super::pack::crc32_hex;
use super::row::{MemberRow, Row};
use super::sha256_hex;
use crate::error::{Error, Result};

/// Where bytes come from: an object in a store, a spool file, or memory.
#[allow(clippy::len_without_is_empty)]
#[async_trait]
pub trait Source: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The store's.
    async fn len(&self) -> Result<u64>;

    /// Exactly these bytes.
    ///
    /// # Errors
    /// `Corrupt`, when it is shorter; the store's.
    async fn read(&self, range: Range<u64>) -> Result<Bytes>;

    /// All of it, in order, in chunks.
    ///
    /// # Errors
    /// The store's.
    async fn stream(&self) -> Result<BoxStream<'static, Result<Bytes>>>;
}

/// An object of the archive with its body.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its line in the index.
    pub row: Row,
    /// Its JSON, its CRC-32 checked against the row.
    pub body: Bytes,
}

/// An archive that can be read object by object.
pub struct Archive<S> {
    /// Its index.
    pub index: Index<S>,
    archive: S,
    /// The archive of the Secrets, where they stand apart and are opened.
    apart: Option<S>,
}

/// Members are fetched in ranges of up to about so many bytes.
const RANGE: u64 = 4 << 20;

/// Bytes between two wanted members that are read along rather than asked around.
const GAP: u64 = 256 << 10;

impl<S: Source> Archive<S> {
    /// Opens the pair.
    ///
    /// # Errors
    /// As [`Index::open`]; `Corrupt`, when the archive is of another length than its index says.
    pub async fn open(archive: S, index: S) -> Result<Self> {
        let index = Index::open(index).await?;
        let length = archive.len().await?;
        if length != index.archive_size() {
            return Err(Error::corrupt(format!(
                "archive is {length} bytes, its index says {}",
                index.archive_size()
            )));
        }
        Ok(Self {
            index,
            archive,
            apart: None,
        })
    }

    /// Shows the Secrets of another archive as if they were in this one.
    ///
    /// # Errors
    /// `Corrupt`, where that holds anything else, or the two do not fit together.
    pub(crate) fn join(mut self, secrets: Self) -> Result<Self> {
        self.index.join(secrets.index)?;
        self.apart = Some(secrets.archive);
        Ok(self)
    }

    /// The archive that holds a row's body.
    fn holder(&self, apart: bool) -> &S {
        match &self.apart {
            Some(secrets) if apart => secrets,
            _ => &self.archive,
        }
    }

    /// One object's JSON.
    ///
    /// # Errors
    /// `Corrupt`, or the source's.
    pub async fn body(&self, row: &Row) -> Result<Bytes> {
        let member = self.one_member(row).await?;
        let packed = self
            .holder(row.apart)
            .read(member.at..member.at + member.length)
            .await?;
        body_of(
            row,
            &gunzip(&packed, &member).map_err(|e| e.context(describe(row)))?,
        )
    }

    /// The objects of these rows (of one resource), in the rows' order; members are fetched in ranges of up to about 4 MiB, with the next
    /// range under way while one is worked on.
    pub fn objects(&self, rows: Vec<Row>) -> BoxStream<'_, Result<Object>> {
        stream::try_unfold(VecDeque::from(rows), move |mut rows| async move {
            let batch = self.batch(&mut rows).await?;
            Ok::<_, Error>(batch.map(|batch| (batch, rows)))
        })
        .map_ok(move |batch| async move {
            let packed = self.holder(batch.apart).read(batch.range.clone()).await?;
            Ok(stream::iter(batch.unpack(packed)))
        })
        .try_buffered(2)
        .try_flatten()
        .boxed()
    }

    /// Takes rows off the front as long as their members lie close together, in the archive's order.
    async fn batch(&self, rows: &mut VecDeque<Row>) -> Result<Option<Batch>> {
        let Some(first) = rows.pop_front() else {
            return Ok(None);
        };
        let mut batch = Batch::default();
        let member = self.one_member(&first).await?;
        batch.range = member.at..member.at + member.length;
        batch.apart = first.apart;
        batch.members.insert(first.member, member);
        batch.rows.push(first);
        while let Some(next) = rows.front() {
            if !batch.members.contains_key(&next.member) {
                let member = self.one_member(next).await?;
                let end = member.at + member.length;
                let close = member.at >= batch.range.end
                    && member.at - batch.range.end <= GAP
                    && end - batch.range.start <= RANGE;
                if !close {
                    break;
                }
                batch.range.end = end;
                batch.members.insert(next.member, member);
            }
            batch.rows.extend(rows.pop_front());
        }
        Ok(Some(batch))
    }

    async fn one_member(&self, row: &Row) -> Result<MemberRow> {
        let index = self.index.part(row.apart);
        let mut members = index.members(row.member, 1).await?;
        members
            .pop()
            .ok_or_else(|| damaged(row, "it has no member"))
    }
}

/// Rows whose members lie in one range of the archive.
#[derive(Default)]
struct Batch {
    range: Range<u64>,
    /// Of which archive it is; rows of one resource are all in one.
    apart: bool,
    members: BTreeMap<u64, MemberRow>,
    rows: Vec<Row>,
}

impl Batch {
    /// The objects, one after the other: one member is held decompressed at a time.
    fn unpack(self, packed: Bytes) -> impl Iterator<Item = Result<Object>> {
        let Self {
            range,
            members,
            rows,
            ..
        } = self;
        let mut open: Option<(u64, Bytes)> = None;
        rows.into_iter().map(move |row| {
            let data = match &open {
                Some((number, data)) if *number == row.member => data.clone(),
                _ => {
                    let member = members
                        .get(&row.member)
                        .ok_or_else(|| damaged(&row, "it has no member"))?;
                    let from = (member.at - range.start) as usize;
                    let to = from + member.length as usize;
                    let bytes = packed.get(from..to).ok_or_else(|| {
                        damaged(&row, "the archive is shorter than its index says")
                    })?;
                    let data = gunzip(bytes, member).map_err(|e| e.context(describe(&row)))?;
                    open = Some((row.member, data.clone()));
                    data
                }
            };
            let body = body_of(&row, &data)?;
            Ok(Object { row, body })
        })
    }
}

fn describe(row: &Row) -> String {
    format!(
        "object {:?} can not be read from the archive",
        super::path::key(row.namespace.as_deref(), &row.name)
    )
}

fn damaged(row: &Row, why: &str) -> Error {
    Error::corrupt(format!("{}: {why}", describe(row)))
}

/// A member, decompressed: exactly as large as its row says.
fn gunzip(packed: &[u8], member: &MemberRow) -> Result<Bytes> {
    let bad = |why: String| Error::corrupt(format!("the member at byte {} {why}", member.at));
    if sha256_hex(packed) != member.sha256 {
        return Err(bad(
            "is not what was written: its SHA-256 is another".to_owned()
        ));
    }
    let mut data = Vec::with_capacity(usize::try_from(member.size).unwrap_or(0));
    let mut decoder = GzDecoder::new(packed);
    (&mut decoder)
        .take(member.size + 1)
        .read_to_end(&mut data)
        .map_err(|e| bad("does not decompress".to_owned()).because(e))?;
    if data.len() as u64 != member.size {
        return Err(bad(format!(
            "does not decompress to the {} bytes its index says",
            member.size
        )));
    }
    Ok(Bytes::from(data))
}

fn body_of(row: &Row, data: &Bytes) -> Result<Bytes> {
    let place = row
        .offset
        .checked_add(row.length)
        .filter(|end| *end <= data.len() as u64)
        .map(|end| row.offset as usize..end as usize)
        .ok_or_else(|| damaged(row, "it lies outside of its member"))?;
    let body = data.slice(place);
    if !row.crc32.is_empty() && crc32_hex(&body) != row.crc32 {
        return Err(damaged(row, "its checksum differs"));
    }
    Ok(body)
}

/// Bytes in memory.
#[async_trait]
impl Source for Bytes {
    async fn len(&self) -> Result<u64> {
        Ok(self.as_ref().len() as u64)
    }

    async fn read(&self, range: Range<u64>) -> Result<Self> {
        let inside = range.start <= range.end && range.end <= self.as_ref().len() as u64;
        if !inside {
            return Err(Error::corrupt(format!(
                "only {} bytes, not {}..{}",
                self.as_ref().len(),
                range.start,
                range.end
            )));
        }
        Ok(self.slice(range.start as usize..range.end as usize))
    }

    async fn stream(&self) -> Result<BoxStream<'static, Result<Self>>> {
        const CHUNK: usize = 64 << 10;
        let rest = self.clone();
        Ok(stream::unfold(rest, |mut rest| async move {
            let chunk = rest.split_to(rest.as_ref().len().min(CHUNK));
            (!chunk.is_empty()).then_some((Ok(chunk), rest))
        })
        .boxed())
    }
}

#[async_trait]
impl<S: Source + ?Sized> Source for &S {
    async fn len(&self) -> Result<u64> {
        (**self).len().await
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        (**self).read(range).await
    }

    async fn stream(&self) -> Result<BoxStream<'static, Result<Bytes>>> {
        (**self).stream().await
    }
}
