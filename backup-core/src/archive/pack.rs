//! Objects -> compressed members and index rows: CPU work only, on one page of one API resource at a time, so that pages can be
//! packed in parallel. The order of members in the archive is decided by [`super::write`].

use std::sync::Arc;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use tar::{EntryType, Header};

use super::entries::BLOCK;
use super::object::Facts;
use super::path::{self, VERSION_BODY, VERSION_PATH, check_segment};
use super::row::Row;
use super::{LARGEST_BODY, sha256_hex};
use crate::discovery::ApiResource;
use crate::error::{Error, Result};

/// An object to be saved.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its JSON, with `apiVersion` and `kind`.
    pub body: Bytes,
    /// What its JSON tells of it.
    pub(crate) facts: Facts,
}

impl Item {
    /// An object from its JSON.
    ///
    /// # Errors
    /// `Corrupt`, when it is none.
    pub fn read(namespace: Option<String>, name: String, body: Bytes) -> Result<Self> {
        Ok(Self {
            namespace,
            name,
            facts: Facts::read(&body)?,
            body,
        })
    }
}

/// One compressed member.
#[derive(Clone, Debug)]
pub struct Member {
    /// The gzip bytes.
    pub bytes: Bytes,
    /// Uncompressed size.
    pub size: u64,
    /// SHA-256 of `bytes`, hex.
    pub sha256: String,
}

/// A page, packed: members in their order, and rows whose `member` counts from 0 within this page.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The API resource of all its objects.
    pub resource: Arc<ApiResource>,
    /// Members in order; a large body stands twice and shares its bytes.
    pub members: Vec<Member>,
    /// A row per object.
    pub rows: Vec<Row>,
}

/// deflate's level for archives. Level 1 uses fixed codes and leaves base64 as large as it is; level 2 takes a quarter off at 0.8 of the speed
/// (821 against 1021 MB/s of tar on one core), and level 6 wins 5 % more for half the speed.
pub const LEVEL: u32 = 2;

/// A larger body is a member of its own.
const LARGE_BODY: usize = 16 << 10;

/// Members are cut at about this much tar.
const MEMBER_TAR: usize = 1 << 20;

/// Packs objects of one resource. `mtime` is in seconds since the epoch; `level` is deflate's.
///
/// # Errors
/// `Invalid`, when a name could leave its folder in an archive, or an object is too large for one.
pub fn pack(resource: &Arc<ApiResource>, items: &[Item], mtime: u64, level: u32) -> Result<Packed> {
    let group_resource = resource.group_resource();
    check_segment("resource", &group_resource)?;
    check_segment("version", &resource.version)?;
    let preferred = format!("{}-preferredversion/", resource.version);
    let header = base_header(mtime);
    let mut packer = Packer::new(level);
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let mut row = row(&group_resource, item)?;
        let namespace = item.namespace.as_deref();
        let paths =
            ["", &preferred].map(|f| path::object(&group_resource, f, namespace, &item.name));
        if item.body.len() > LARGE_BODY {
            let body = packer.compress(&item.body)?;
            for (copy, path) in paths.iter().enumerate() {
                push_header(&mut packer.open, &header, path, item.body.len());
                packer.cut()?;
                if copy == 0 {
                    row.member = packer.members.len() as u64;
                }
                packer.members.push(body.clone());
                push_padding(&mut packer.open, item.body.len());
            }
        } else {
            let both = 2 * (item.body.len() + 2 * BLOCK) + paths[0].len() + paths[1].len();
            if packer.open.len() + both > MEMBER_TAR {
                packer.cut()?;
            }
            for (copy, path) in paths.iter().enumerate() {
                push_header(&mut packer.open, &header, path, item.body.len());
                if copy == 0 {
                    row.member = packer.members.len() as u64;
                    row.offset = packer.open.len() as u64;
                }
                packer.open.extend_from_slice(&item.body);
                push_padding(&mut packer.open, item.body.len());
            }
        }
        rows.push(row);
    }
    packer.cut()?;
    Ok(Packed {
        resource: resource.clone(),
        members: packer.members,
        rows,
    })
}

/// Packs bodies alone, once each and without tar: for a spool, which nobody reads but [`super::read`].
///
/// # Errors
/// As [`pack`].
pub(super) fn pack_bodies(
    resource: &Arc<ApiResource>,
    items: &[Item],
    level: u32,
) -> Result<Packed> {
    let group_resource = resource.group_resource();
    let mut packer = Packer::new(level);
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        if packer.open.len() + item.body.len() > MEMBER_TAR {
            packer.cut()?;
        }
        rows.push(Row {
            member: packer.members.len() as u64,
            offset: packer.open.len() as u64,
            ..row(&group_resource, item)?
        });
        packer.open.extend_from_slice(&item.body);
    }
    packer.cut()?;
    Ok(Packed {
        resource: resource.clone(),
        members: packer.members,
        rows,
    })
}

/// The member that opens every archive.
pub(super) fn version_member(mtime: u64, level: u32) -> Result<Member> {
    let mut tar = Vec::new();
    push_header(
        &mut tar,
        &base_header(mtime),
        VERSION_PATH,
        VERSION_BODY.len(),
    );
    tar.extend_from_slice(VERSION_BODY);
    push_padding(&mut tar, VERSION_BODY.len());
    Packer::new(level).compress(&tar)
}

/// The member that ends every archive: tar's two zero blocks.
pub(super) fn end_member(level: u32) -> Result<Member> {
    Packer::new(level).compress(&[0; 2 * BLOCK])
}

/// The row of an item, but for its place.
fn row(group_resource: &str, item: &Item) -> Result<Row> {
    check_segment("name", &item.name)?;
    if let Some(namespace) = &item.namespace {
        check_segment("namespace", namespace)?;
    }
    if item.body.len() as u64 > LARGEST_BODY {
        return Err(Error::invalid(format!(
            "{group_resource} {:?} is {} bytes; an archive takes objects of up to {LARGEST_BODY}",
            path::key(item.namespace.as_deref(), &item.name),
            item.body.len()
        )));
    }
    let facts = item.facts.clone();
    Ok(Row {
        namespace: item.namespace.clone(),
        name: item.name.clone(),
        uid: facts.uid,
        resource_version: facts.resource_version,
        labels: facts.labels,
        owners: facts.owners,
        sha256: facts.sha256,
        crc32: crc32_hex(&item.body),
        member: 0,
        offset: 0,
        length: item.body.len() as u64,
        apart: false,
    })
}

/// CRC-32 as rows have it.
pub(super) fn crc32_hex(body: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(body))
}

/// Cuts tar into members; one deflate state and one buffer for all of them.
struct Packer {
    deflate: Compress,
    /// The tar of the member being filled.
    open: Vec<u8>,
    members: Vec<Member>,
}

impl Packer {
    fn new(level: u32) -> Self {
        Self {
            deflate: Compress::new(Compression::new(level.min(9)), false),
            open: Vec::new(),
            members: Vec::new(),
        }
    }

    /// Ends the open member, if it holds anything.
    fn cut(&mut self) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let tar = std::mem::take(&mut self.open);
        let member = self.compress(&tar)?;
        self.members.push(member);
        self.open = tar;
        self.open.clear();
        Ok(())
    }

    /// One gzip member: RFC 1952 without name and time, so that equal contents give equal bytes.
    fn compress(&mut self, data: &[u8]) -> Result<Member> {
        let mut out = Vec::with_capacity(data.len() / 3 + 128);
        out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
        self.deflate.reset();
        loop {
            let done =
                usize::try_from(self.deflate.total_in()).map_or(data.len(), |n| n.min(data.len()));
            let status = self
                .deflate
                .compress_vec(&data[done..], &mut out, FlushCompress::Finish)
                .map_err(|e| Error::other("can not compress").because(e))?;
            if status == Status::StreamEnd {
                break;
            }
            out.reserve(data.len() / 4 + 1024);
        }
        out.extend_from_slice(&crc32fast::hash(data).to_le_bytes());
        // The size modulo 2^32, as the format has it.
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.shrink_to_fit();
        Ok(Member {
            sha256: sha256_hex(&out),
            bytes: Bytes::from(out),
            size: data.len() as u64,
        })
    }
}

fn base_header(mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_entry_type(EntryType::Regular);
    header
}

fn push_header(tar: &mut Vec<u8>, base: &Header, path: &str, size: usize) {
    const NAME: usize = 100;
    let name = path.as_bytes();
    if name.len() > NAME {
        let mut record = base.clone();
        record.set_entry_type(EntryType::GNULongName);
        put_name(&mut record, b"././@LongLink");
        record.set_size(name.len() as u64 + 1);
        record.set_cksum();
        tar.extend_from_slice(record.as_bytes());
        tar.extend_from_slice(name);
        tar.push(0);
        push_padding(tar, name.len() + 1);
    }
    let mut header = base.clone();
    put_name(&mut header, &name[..name.len().min(NAME)]);
    header.set_size(size as u64);
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
}

fn put_name(header: &mut Header, name: &[u8]) {
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
}

fn push_padding(tar: &mut Vec<u8>, size: usize) {
    tar.resize(tar.len() + size.next_multiple_of(BLOCK) - size, 0);
}
