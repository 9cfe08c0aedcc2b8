//! Reads an index: the table of contents, then only the frames that are needed. Everything read is bounded and checked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use serde::de::DeserializeOwned;

use super::path::{self, check_namespace, check_segment};
use super::read::Source;
use super::row::{Contents, FrameRow, HeaderRow, MemberRow, ResourceRow, Row};
use super::write::{TRAILER, TRAILER_END, TRAILER_MAGIC};
use super::{
    FORMAT, FORMAT_APART, LARGEST_BODY, LARGEST_CONTENTS, LARGEST_FRAME, SECRETS, sha256_hex,
};
use crate::error::{Error, Result};
use crate::location::Sha256;

/// The first read: most indexes have table of contents and resources in so much of their end.
const TAIL: u64 = 128 << 10;

/// Frames of members kept decoded.
const KEPT: usize = 4;

/// An open index: its small parts in memory, object rows read frame by frame.
pub struct Index<S> {
    source: S,
    contents: Contents,
    resources: Vec<ResourceRow>,
    /// The object frames of each resource, by their number in the contents.
    objects: BTreeMap<String, Vec<usize>>,
    /// The member frames: the first member of each, and its number in the contents.
    members: Vec<(u64, usize)>,
    kept: Mutex<Vec<(usize, Arc<Vec<MemberRow>>)>>,
    /// The digest of the table of contents.
    seal: [u8; 32],
    /// The index of the Secrets, where they stand apart and are opened.
    apart: Option<Box<Self>>,
}

impl<S: Source> Index<S> {
    /// Reads header, table of contents and resource rows: its length, and two or three ranges.
    ///
    /// # Errors
    /// `Corrupt` when it is truncated, altered or of a format we do not know.
    pub async fn open(source: S) -> Result<Self> {
        let length = source.len().await?;
        let tail_at = length.saturating_sub(TAIL);
        let tail = source.read(tail_at..length).await?;
        let trailer = Trailer::parse(&tail, length)?;
        let packed = if trailer.at >= tail_at {
            let from = (trailer.at - tail_at) as usize;
            tail.slice(from..from + trailer.length as usize)
        } else {
            source.read(trailer.at..trailer.at + trailer.length).await?
        };
        if aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &packed).as_ref() != trailer.sha256
        {
            return Err(damaged("its table of contents has another digest"));
        }
        let lines = inflate(&packed, trailer.size)?;
        let contents: Contents = serde_json::from_slice(&lines)
            .map_err(|e| damaged("its table of contents can not be read").because(e))?;
        check_format(&contents.format)?;
        let (objects, members) = check_contents(&contents, trailer.at)?;

        let mut index = Self {
            source,
            contents,
            resources: Vec::new(),
            objects,
            members,
            kept: Mutex::default(),
            seal: trailer.sha256,
            apart: None,
        };
        let mut rows: Vec<ResourceRow> = Vec::new();
        for frame in index
            .contents
            .frames
            .iter()
            .filter(|f| f.kind == "resources")
        {
            let packed = if frame.at >= tail_at {
                let from = (frame.at - tail_at) as usize;
                tail.slice(from..from + frame.length as usize)
            } else {
                index.fetch(frame).await?
            };
            rows.append(&mut decode(frame, &packed)?);
        }
        rows.sort_by(|a, b| a.resource.cmp(&b.resource));
        if rows.windows(2).any(|w| w[0].resource == w[1].resource) {
            return Err(damaged("a resource stands in it twice"));
        }
        index.resources = rows;
        Ok(index)
    }

    /// Reads all of it and tells its SHA-256; nothing where it is not the one that is open here.
    ///
    /// # Errors
    /// The source's.
    pub(crate) async fn whole(&self) -> Result<Option<String>> {
        let mut digest = Sha256::default();
        let (mut end, mut length) = (Vec::with_capacity(2 * TRAILER), 0);
        let mut body = self.source.stream().await?;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            digest.update(&chunk);
            length += chunk.len() as u64;
            end.extend_from_slice(&chunk[chunk.len().saturating_sub(TRAILER)..]);
            end.drain(..end.len().saturating_sub(TRAILER));
        }
        let is_this = Trailer::parse(&end, length).is_ok_and(|it| it.sha256 == self.seal);
        Ok(is_this.then(|| digest.finish()))
    }

    /// SHA-256 of the table of contents, which covers every byte of index and archive; lower-case hex.
    pub fn seal(&self) -> String {
        super::hex(&self.seal)
    }

    /// Shows the Secrets of another index as if they were in this one.
    ///
    /// # Errors
    /// `Corrupt`, where that holds anything else or stands beside another index, where this one has Secrets itself, or the two disagree how many there are.
    pub(super) fn join(&mut self, apart: Self) -> Result<()> {
        apart.check_beside(self)?;
        let secrets = |resource: &str| resource == SECRETS;
        let alone = apart.objects.keys().all(|resource| secrets(resource))
            && apart.resources.iter().all(|row| secrets(&row.resource));
        let count = apart.count(SECRETS);
        let row = self.resources.iter_mut().find(|row| secrets(&row.resource));
        let Some(row) = row.filter(|row| {
            alone && (row.count, row.apart) == (0, count) && !self.objects.contains_key(SECRETS)
        }) else {
            return Err(damaged("what it says of Secrets is not what stands apart"));
        };
        (row.count, row.apart) = (count, 0);
        self.apart = Some(Box::new(apart));
        Ok(())
    }

    /// Errors unless these Secrets were sealed to stand beside that index: nothing of the rest was altered since.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn check_beside<R: Source>(&self, rest: &Index<R>) -> Result<()> {
        if self.contents.beside == rest.seal() {
            return Ok(());
        }
        Err(Error::corrupt(
            "the Secrets were saved beside another archive than the one that stands there: it or its index was written anew",
        )
        .hint("take another backup or another copy of it, and look who can write there"))
    }

    /// The index that a row was read from.
    pub(super) fn part(&self, apart: bool) -> &Self {
        match &self.apart {
            Some(secrets) if apart => secrets,
            _ => self,
        }
    }

    fn is_apart(&self, resource: &str) -> bool {
        self.apart.is_some() && resource == SECRETS
    }

    /// The index that has the objects of a resource.
    fn of(&self, resource: &str) -> &Self {
        self.part(self.is_apart(resource))
    }

    /// Every API resource of the backup's cluster and what became of it, sorted by `resource`.
    pub fn resources(&self) -> &[ResourceRow] {
        &self.resources
    }

    /// Objects in the archive.
    pub fn objects(&self) -> u64 {
        let apart = self.apart.as_ref().map_or(0, |apart| apart.objects());
        self.contents.objects.saturating_add(apart)
    }

    /// The archive's bytes.
    pub fn archive_size(&self) -> u64 {
        self.contents.size
    }

    /// How many object frames a resource has.
    pub fn frames(&self, resource: &str) -> usize {
        self.of(resource).objects.get(resource).map_or(0, Vec::len)
    }

    /// The rows of one frame of a resource, in list order.
    ///
    /// # Errors
    /// `Corrupt`, or the source's.
    pub async fn rows(&self, resource: &str, frame: usize) -> Result<Vec<Row>> {
        let of = self.of(resource);
        let frame = of
            .objects
            .get(resource)
            .and_then(|frames| frames.get(frame))
            .map(|number| &of.contents.frames[*number])
            .ok_or_else(|| Error::not_found(format!("index has no frame {frame} of {resource}")))?;
        let mut rows: Vec<Row> = decode(frame, &of.fetch(frame).await?)?;
        for row in &mut rows {
            check_row(resource, row, of.contents.members)?;
            row.apart = self.is_apart(resource);
        }
        Ok(rows)
    }

    /// The row of one object; reads one frame where the list order allows it. Where an object stands twice the last one counts.
    ///
    /// # Errors
    /// `Corrupt`, or the source's.
    pub async fn find(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Row>> {
        let key = path::key(namespace, name);
        let of = self.of(resource);
        for frame in (0..self.frames(resource)).rev() {
            let number = of.objects[resource][frame];
            let about = &of.contents.frames[number];
            if key < about.min || key > about.max {
                continue;
            }
            let found = self
                .rows(resource, frame)
                .await?
                .into_iter()
                .rfind(|row| row.name == name && row.namespace.as_deref() == namespace);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Members `first..first + count`.
    ///
    /// # Errors
    /// `Corrupt`, or the source's.
    pub async fn members(&self, first: u64, count: u64) -> Result<Vec<MemberRow>> {
        let end = first
            .checked_add(count)
            .filter(|end| *end <= self.contents.members)
            .ok_or_else(|| {
                damaged(&format!(
                    "it has {} members, not {first} and {count} more",
                    self.contents.members
                ))
            })?;
        let mut out = Vec::new();
        let mut frame = self
            .members
            .partition_point(|(start, _)| *start <= first)
            .saturating_sub(1);
        while (out.len() as u64) < count {
            let (start, number) = self.members[frame];
            let rows = self.member_frame(number).await?;
            let from = (first.max(start) - start) as usize;
            let to = (end - start).min(rows.len() as u64) as usize;
            out.extend_from_slice(&rows[from..to]);
            frame += 1;
        }
        Ok(out)
    }

    /// The names of all resources that have objects.
    pub(super) fn resources_with_objects(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// How many objects of a resource there are by the table of contents.
    pub(super) fn count(&self, resource: &str) -> u64 {
        self.objects.get(resource).map_or(0, |frames| {
            frames
                .iter()
                .map(|number| self.contents.frames[*number].lines)
                .sum()
        })
    }

    /// How many members there are.
    pub(super) fn member_count(&self) -> u64 {
        self.contents.members
    }

    /// The header, and a look at every frame that nothing else reads.
    pub(crate) async fn check_rest(&self) -> Result<HeaderRow> {
        let mut header = None;
        for frame in &self.contents.frames {
            match frame.kind.as_str() {
                "objects" | "members" | "resources" => {}
                "header" if header.is_none() && frame.at == 0 && frame.lines == 1 => {
                    header = decode::<HeaderRow>(frame, &self.fetch(frame).await?)?.pop();
                }
                "header" => return Err(damaged("it has a second header")),
                _ => check_digest(frame, &self.fetch(frame).await?)?,
            }
        }
        let header = header.ok_or_else(|| damaged("it has no header"))?;
        check_format(&header.format)?;
        Ok(header)
    }

    async fn member_frame(&self, number: usize) -> Result<Arc<Vec<MemberRow>>> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rows)) = kept().iter().find(|(n, _)| *n == number) {
            return Ok(rows.clone());
        }
        let frame = &self.contents.frames[number];
        let rows: Vec<MemberRow> = decode(frame, &self.fetch(frame).await?)?;
        for row in &rows {
            let fits = row
                .at
                .checked_add(row.length)
                .is_some_and(|end| end <= self.contents.size);
            if !fits
                || row.size > LARGEST_MEMBER
                || row.length > LARGEST_MEMBER + (LARGEST_MEMBER >> 8)
            {
                return Err(damaged(
                    "a member is larger than members are or lies outside of the archive",
                ));
            }
        }
        let rows = Arc::new(rows);
        let mut kept = kept();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((number, rows.clone()));
        Ok(rows)
    }

    /// A frame's bytes, as the table of contents knows them.
    async fn fetch(&self, frame: &FrameRow) -> Result<Bytes> {
        self.source.read(frame.at..frame.at + frame.length).await
    }
}

/// No member is larger uncompressed: a largest body, or about 1 MiB of tar with names.
const LARGEST_MEMBER: u64 = LARGEST_BODY + (2 << 20);

/// Where the table of contents is.
struct Trailer {
    at: u64,
    length: u64,
    size: u64,
    sha256: [u8; 32],
}

impl Trailer {
    fn parse(tail: &[u8], length: u64) -> Result<Self> {
        let truncated = || damaged("it is truncated, or its end was altered");
        let trailer: &[u8; TRAILER] = tail.last_chunk().ok_or_else(truncated)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&trailer[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let magic = u64::from(TRAILER_MAGIC) | ((TRAILER as u64 - 8) << 32);
        if number(0) != magic || &trailer[TRAILER - 8..] != TRAILER_END {
            return Err(truncated());
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&trailer[32..64]);
        let this = Self {
            at: number(8),
            length: number(16),
            size: number(24),
            sha256,
        };
        let ends = this.at.checked_add(this.length) == Some(length - TRAILER as u64);
        let bounded = this.size <= LARGEST_CONTENTS && this.length <= LARGEST_CONTENTS + (1 << 20);
        if !ends || !bounded {
            return Err(truncated());
        }
        Ok(this)
    }
}

fn damaged(why: &str) -> Error {
    Error::corrupt(format!("the backup's index is damaged: {why}"))
}

fn check_format(format: &str) -> Result<()> {
    if [FORMAT, FORMAT_APART].contains(&format) {
        return Ok(());
    }
    let shown: String = format.chars().take(80).collect();
    Err(Error::corrupt(format!(
        "the backup's index has the format {shown:?}, known are {FORMAT:?} and {FORMAT_APART:?}"
    ))
    .hint("use a newer version of kubectl-backup"))
}

type Frames = (BTreeMap<String, Vec<usize>>, Vec<(u64, usize)>);

/// More than etcd's largest database has room for; what is kept per object while one verifies stays bounded by it.
const MOST_OBJECTS: u64 = 50_000_000;

/// Checks that frames tile the index, that sizes are bounded and that sums agree.
fn check_contents(contents: &Contents, end: u64) -> Result<Frames> {
    let mut objects: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut members = Vec::new();
    let (mut at, mut object_lines, mut member_lines) = (0_u64, 0_u64, 0_u64);
    let mut resources = 0;
    let overflow = || damaged("its numbers do not add up");
    for (number, frame) in contents.frames.iter().enumerate() {
        if frame.at != at {
            return Err(damaged("its frames do not follow each other"));
        }
        at = at
            .checked_add(frame.length)
            .filter(|at| *at <= end)
            .ok_or_else(overflow)?;
        // zstd adds little to what it can not compress.
        let bounded = frame.size <= LARGEST_FRAME && frame.length <= LARGEST_FRAME + (1 << 20);
        if !bounded || frame.lines > frame.size || frame.lines == 0 {
            return Err(damaged("a frame is larger than frames are"));
        }
        match frame.kind.as_str() {
            "objects" => {
                object_lines = object_lines.saturating_add(frame.lines);
                objects
                    .entry(frame.resource.clone())
                    .or_default()
                    .push(number);
            }
            "members" => {
                members.push((member_lines, number));
                member_lines = member_lines.saturating_add(frame.lines);
            }
            // These are held whole.
            "resources" => {
                resources += frame.size;
                if resources > LARGEST_CONTENTS {
                    return Err(damaged("it has more resources than an index has"));
                }
            }
            _ => {}
        }
    }
    if object_lines > MOST_OBJECTS || member_lines > MOST_OBJECTS {
        return Err(damaged("it has more objects than any cluster"));
    }
    if at != end || object_lines != contents.objects || member_lines != contents.members {
        return Err(overflow());
    }
    Ok((objects, members))
}

fn check_row(resource: &str, row: &Row, members: u64) -> Result<()> {
    let checked = check_segment("name", &row.name)
        .and_then(|()| row.namespace.as_deref().map_or(Ok(()), check_namespace));
    if let Err(e) = checked {
        return Err(damaged(&format!("a row of {resource} can not be")).because(e));
    }
    if row.member >= members || row.length > LARGEST_BODY || row.offset > LARGEST_MEMBER {
        return Err(damaged(&format!(
            "{resource} {:?} lies outside of the archive",
            path::key(row.namespace.as_deref(), &row.name)
        )));
    }
    Ok(())
}

fn inflate(packed: &[u8], size: u64) -> Result<Vec<u8>> {
    let lines = zstd::bulk::decompress(packed, size as usize)
        .map_err(|e| damaged("a frame does not decompress").because(e))?;
    if lines.len() as u64 == size {
        Ok(lines)
    } else {
        Err(damaged(
            "a frame has another size than the table of contents says",
        ))
    }
}

/// The lines of a frame, its digest and their number checked.
fn decode<T: DeserializeOwned>(frame: &FrameRow, packed: &[u8]) -> Result<Vec<T>> {
    check_digest(frame, packed)?;
    let lines = inflate(packed, frame.size)?;
    let mut rows = Vec::new();
    for line in lines.split_inclusive(|b| *b == b'\n') {
        rows.push(serde_json::from_slice(line).map_err(|e| {
            damaged(&format!(
                "a line of {} {} can not be read",
                frame.kind, frame.resource
            ))
            .because(e)
        })?);
        if rows.len() as u64 > frame.lines {
            break;
        }
    }
    if rows.len() as u64 == frame.lines {
        Ok(rows)
    } else {
        Err(damaged(
            "a frame has another number of lines than the table of contents says",
        ))
    }
}

fn check_digest(frame: &FrameRow, packed: &[u8]) -> Result<()> {
    if sha256_hex(packed) == frame.sha256 {
        return Ok(());
    }
    Err(damaged(&format!(
        "the frame of {} {} at byte {} has another digest",
        frame.kind, frame.resource, frame.at
    )))
}
