//! Rewrites a foreign archive (one gzip stream, any order, format 1.0 or 1.1) into a form that can be read object by object, in files
//! that have no name: the one place where the object side uses the disk. The archive is hostile: every name, size and count is checked
//! and bounded.

use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;

use super::entries::{Entries, Entry};
use super::feed::{Feed, Gunzip, feed};
use super::index::Index;
use super::object::Facts;
use super::pack::{Item, LEVEL, Packed, pack_bodies};
use super::path::{self, Copy, ObjectPath, check_namespace, check_segment};
use super::read::{Archive, Source};
use super::row::{Outcome, ResourceRow};
use super::write::{ArchiveWriter, IndexWriter, Sink};
use crate::discovery::ApiResource;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Most headers in a tar: five million objects, twice, each with a long name.
pub(super) const MOST_HEADERS: u64 = 20_000_000;

/// Most objects.
const MOST_OBJECTS: usize = 5_000_000;

/// Most resource types.
const MOST_TYPES: usize = 100_000;

/// Most bytes of tar.
pub(super) const MOST_TAR: u64 = 1 << 40;

/// Most warnings.
const MOST_WARNINGS: usize = 100;

/// Bodies of one type that are packed together, and bodies held over all types.
const PAGE: usize = 1 << 20;
const HELD: usize = 8 << 20;

/// A file of the spool as a source: an unlinked file.
#[derive(Clone, Debug)]
pub struct Spooled {
    file: Arc<File>,
    length: u64,
}

/// What was seen on the way.
#[derive(Clone, Debug, Default)]
pub struct SpoolReport {
    /// Warnings, such as an object that comes twice (the last counts).
    pub warnings: Vec<String>,
    /// Resources of which objects were taken in another version than the preferred one.
    pub others: Vec<OtherVersion>,
}

/// A resource of which objects were taken in another version than the one that the backup preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherVersion {
    /// `gadgets.example.com`
    pub resource: String,
    /// The version that was preferred; empty where it is not there at all.
    pub preferred: String,
    /// The version that was taken.
    pub taken: String,
    /// How many objects.
    pub count: u64,
}

/// How well a version of a resource suits the reader, 0 not at all: resource, version, and whether the backup preferred it.
pub trait Rank: Fn(&str, &str, bool) -> u8 + Send + 'static {}

impl<F: Fn(&str, &str, bool) -> u8 + Send + 'static> Rank for F {}

/// The [`Rank`] of who takes every object in the version that the backup preferred.
pub fn as_stored(_: &str, _: &str, _: bool) -> u8 {
    0
}

/// Streams `archive` to its end into unlinked 0600 files in `folder` (made when absent; free space is checked against
/// a multiple of the archive's length first) and opens it. Of an object that is there in several versions the one counts that suits `rank` best,
/// of equal ones the preferred.
///
/// # Errors
/// `Corrupt` for a truncated stream, something that is not gzip or tar, names that leave their folder, absolute names, links, entries
/// too large or too many, bodies that are no JSON object.
pub async fn spool(
    archive: &dyn Source,
    folder: &Path,
    rank: impl Rank,
    progress: &dyn Progress,
) -> Result<(Archive<Spooled>, SpoolReport)> {
    progress.step("reading the archive to its end");
    let length = archive.len().await?;
    prepare(folder, length)?;
    let (bodies, rows) = (Unnamed::create(folder)?, Unnamed::create(folder)?);

    let (chunks, feed) = feed();
    let (sender, mut pages) = mpsc::channel(2);
    let reading = tokio::task::spawn_blocking(move || Reader::new(sender, rank).read(feed));
    let mut stream = archive.stream().await?;
    let send = async move {
        while let Some(chunk) = stream.next().await {
            if chunks.send(chunk?).await.is_err() {
                break;
            }
        }
        Ok::<_, Error>(())
    };
    let write = async move {
        let mut writer = ArchiveWriter::start_bodies(bodies, rows, "").await?;
        while let Some(page) = pages.recv().await {
            let page: Packed = page;
            progress.done(
                page.rows.len() as u64,
                page.rows.iter().map(|row| row.length).sum(),
            );
            writer.append(page).await?;
        }
        Ok(writer)
    };
    let ((), writer) = tokio::try_join!(send, write)?;
    let mut read = reading
        .await
        .map_err(|e| Error::other("reading the archive stopped").because(e))??;

    let resources = read.resources();
    let (bodies, rows, _) = writer.finish(&resources).await?;
    let (bodies, mut rows) = (bodies.source(), rows.source());
    if !read.repeated.is_empty() {
        let draft = Index::open(rows).await?;
        rows = without_superseded(&draft, Unnamed::create(folder)?, &resources, &mut read).await?;
    }
    let report = SpoolReport {
        others: read.others(),
        warnings: read.warnings.finish(),
    };
    Ok((Archive::open(bodies, rows).await?, report))
}

/// Writes the index again without the rows of bodies that came again later.
async fn without_superseded(
    draft: &Index<Spooled>,
    file: Unnamed,
    resources: &[ResourceRow],
    read: &mut Read,
) -> Result<Spooled> {
    const MEMBERS: u64 = 4096;
    let mut writer = IndexWriter::start(file, &draft.check_rest().await?).await?;
    for resource in draft.resources_with_objects() {
        for frame in 0..draft.frames(resource) {
            for row in draft.rows(resource, frame).await? {
                let hash = read
                    .keys
                    .hash(resource, row.namespace.as_deref(), &row.name);
                // Rows of one type are in the order in which the bodies came, so the last one is kept.
                match read.repeated.get_mut(&hash) {
                    Some(later) if *later > 0 => *later -= 1,
                    _ => writer.object(resource, &row).await?,
                }
            }
        }
    }
    let count = draft.member_count();
    for first in (0..count).step_by(MEMBERS as usize) {
        for row in draft.members(first, MEMBERS.min(count - first)).await? {
            writer.member(&row).await?;
        }
    }
    let (file, ..) = writer.finish(resources.iter().cloned()).await?;
    Ok(file.source())
}

/// Hashes of objects' keys: 128 bits under secret keys, so that no two are taken for one.
struct Keys([RandomState; 2]);

impl Keys {
    fn hash(&self, resource: &str, namespace: Option<&str>, name: &str) -> u128 {
        let [one, two] = &self.0;
        let key = (resource, namespace, name);
        u128::from(one.hash_one(key)) << 64 | u128::from(two.hash_one(key))
    }

    fn bytes(&self, bytes: &[u8]) -> u64 {
        self.0[0].hash_one(bytes)
    }
}

/// A bounded list of sentences.
#[derive(Default)]
struct Warnings {
    list: Vec<String>,
    more: u64,
}

impl Warnings {
    fn push(&mut self, text: String) {
        if self.list.len() < MOST_WARNINGS {
            self.list.push(text);
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.list
                .push(format!("and {} more warnings like these", self.more));
        }
        self.list
    }
}

/// A copy of an object that was taken.
#[derive(Clone, Copy)]
struct Seen {
    rank: u8,
    /// It is of the plain path.
    plain: bool,
    /// It is of a version that was not preferred.
    other: bool,
    /// Of its bytes, under a secret key.
    hash: u64,
}

/// What is known of a resource type.
#[derive(Default)]
struct Type {
    /// The version of the bodies that were taken, and how well it suits.
    version: Option<(u8, String)>,
    /// The version that the backup preferred.
    preferred: Option<String>,
    /// Objects that were taken in another one.
    others: u64,
    /// Known from the first body.
    resource: Option<Arc<ApiResource>>,
    page: Vec<Item>,
    held: usize,
}

/// The synchronous side: gunzip, tar, checks, packing.
struct Reader<R> {
    pages: mpsc::Sender<Packed>,
    rank: R,
    keys: Keys,
    /// What was taken for a key.
    seen: HashMap<u128, Seen>,
    repeated: HashMap<u128, u64>,
    types: BTreeMap<String, Type>,
    held: usize,
    warnings: Warnings,
}

/// An object of the archive.
struct Body {
    bytes: Bytes,
    facts: Facts,
}

impl Body {
    fn read(entry: &Entry, entries: &mut Entries<Gunzip>) -> Result<Self> {
        let bytes: Bytes = entries.body()?.into();
        let facts = Facts::read(&bytes).map_err(|e| bad(entry, "is no object").because(e))?;
        Ok(Self { bytes, facts })
    }

    fn version(&self) -> &str {
        let version = &self.facts.api_version;
        version.rsplit('/').next().unwrap_or_default()
    }
}

/// What the synchronous side learnt.
struct Read {
    keys: Keys,
    repeated: HashMap<u128, u64>,
    types: BTreeMap<String, Type>,
    warnings: Warnings,
}

impl Read {
    fn others(&self) -> Vec<OtherVersion> {
        let types = self.types.iter().filter(|(_, about)| about.others > 0);
        let other = |(resource, about): (&String, &Type)| OtherVersion {
            resource: resource.clone(),
            preferred: about.preferred.clone().unwrap_or_default(),
            taken: about.version.clone().unwrap_or_default().1,
            count: about.others,
        };
        types.map(other).collect()
    }

    fn resources(&self) -> Vec<ResourceRow> {
        self.types
            .iter()
            .filter_map(|(name, about)| {
                let resource = about.resource.as_ref()?;
                Some(ResourceRow {
                    resource: name.clone(),
                    version: about
                        .version
                        .as_ref()
                        .map_or_else(|| resource.version.clone(), |(_, version)| version.clone()),
                    kind: resource.kind.clone(),
                    namespaced: resource.namespaced,
                    outcome: Outcome::Saved,
                    ..ResourceRow::default()
                })
            })
            .collect()
    }
}

impl<R: Rank> Reader<R> {
    fn new(pages: mpsc::Sender<Packed>, rank: R) -> Self {
        Self {
            pages,
            rank,
            keys: Keys([RandomState::new(), RandomState::new()]),
            seen: HashMap::new(),
            repeated: HashMap::new(),
            types: BTreeMap::new(),
            held: 0,
            warnings: Warnings::default(),
        }
    }

    fn read(mut self, feed: Feed) -> Result<Read> {
        let mut entries = Entries::new(Gunzip::new(feed, MOST_TAR, Arc::default()), MOST_HEADERS);
        while let Some(entry) = entries.next()? {
            self.entry(&entry, &mut entries)?;
        }
        for name in self.types.keys().cloned().collect::<Vec<_>>() {
            self.pack(&name)?;
        }
        Ok(Read {
            keys: self.keys,
            repeated: self.repeated,
            types: self.types,
            warnings: self.warnings,
        })
    }

    fn entry(&mut self, entry: &Entry, entries: &mut Entries<Gunzip>) -> Result<()> {
        // Files that are no objects, such as `metadata/version`, are passed over.
        let Some(place) = ObjectPath::parse(&entry.path) else {
            return Ok(());
        };
        let names = [place.resource, place.name];
        names
            .into_iter()
            .try_for_each(|name| check_segment("name", name))
            .and_then(|()| place.namespace.map_or(Ok(()), check_namespace))
            .map_err(|e| bad(entry, "has a name that can not be").because(e))?;
        if !self.types.contains_key(place.resource) {
            if self.types.len() >= MOST_TYPES {
                return Err(Error::corrupt(format!(
                    "archive has more than {MOST_TYPES} resource types"
                )));
            }
            self.types
                .insert(place.resource.to_owned(), Type::default());
        }
        let hash = self.keys.hash(place.resource, place.namespace, place.name);
        let known = self.seen.get(&hash).copied();
        let (body, rank) = match place.copy {
            Copy::Other(version) => {
                let rank = (self.rank)(place.resource, version, false);
                if rank == 0 || known.is_some_and(|known| known.rank >= rank) {
                    return Ok(());
                }
                self.note_version(place.resource, rank, version);
                (Body::read(entry, entries)?, rank)
            }
            Copy::Preferred(version) => {
                let rank = (self.rank)(place.resource, version, true);
                self.prefer(place.resource, version);
                self.note_version(place.resource, rank, version);
                if known.is_some_and(|known| known.rank >= rank) {
                    return Ok(());
                }
                (Body::read(entry, entries)?, rank)
            }
            // Its version is only in the body.
            Copy::Plain => {
                let body = Body::read(entry, entries)?;
                let rank = (self.rank)(place.resource, body.version(), true);
                self.prefer(place.resource, body.version());
                if known.is_some_and(|known| known.rank > rank) {
                    return Ok(());
                }
                // The same bytes as the copy before it.
                let hash_of_body = self.keys.bytes(&body.bytes);
                if let Some(known) = self.seen.get_mut(&hash)
                    && !known.plain
                    && (known.rank, known.hash) == (rank, hash_of_body)
                {
                    known.plain = true;
                    return Ok(());
                }
                if rank > 0 {
                    self.note_version(place.resource, rank, body.version());
                }
                if known.is_some_and(|known| known.plain) {
                    self.warnings.push(format!(
                        "{:?} comes twice in the archive; the last one counts",
                        entry.path
                    ));
                }
                (body, rank)
            }
        };
        if known.is_some() {
            *self.repeated.entry(hash).or_default() += 1;
        }
        let seen = Seen {
            rank,
            plain: place.copy == Copy::Plain,
            other: matches!(place.copy, Copy::Other(_)),
            hash: self.keys.bytes(&body.bytes),
        };
        if let Some(about) = self.types.get_mut(place.resource) {
            about.others += u64::from(seen.other);
            about.others -= u64::from(known.is_some_and(|known| known.other));
        }
        self.seen.insert(hash, seen);
        if self.seen.len() > MOST_OBJECTS {
            return Err(Error::corrupt(format!(
                "archive has more than {MOST_OBJECTS} objects"
            )));
        }
        self.object(entry, &place, body)
    }

    /// The first that is told as preferred is.
    fn prefer(&mut self, resource: &str, version: &str) {
        if let Some(about) = self.types.get_mut(resource) {
            about.preferred.get_or_insert_with(|| version.to_owned());
        }
    }

    /// The first of the versions that suit best is the resource's.
    fn note_version(&mut self, resource: &str, rank: u8, version: &str) {
        if let Some(about) = self.types.get_mut(resource)
            && about.version.as_ref().is_none_or(|(best, _)| *best < rank)
        {
            about.version = Some((rank, version.to_owned()));
        }
    }

    fn object(&mut self, entry: &Entry, place: &ObjectPath<'_>, body: Body) -> Result<()> {
        let Body { bytes, facts } = body;
        if facts.name != place.name || facts.namespace != place.namespace.unwrap_or_default() {
            self.warnings.push(format!(
                "{:?} in the archive holds an object of another name, {:?}",
                entry.path,
                path::key(Some(&facts.namespace), &facts.name)
            ));
        }
        let about = self.types.entry(place.resource.to_owned()).or_default();
        about.resource.get_or_insert_with(|| {
            let (plural, group) = place
                .resource
                .split_once('.')
                .unwrap_or((place.resource, ""));
            let version = facts.api_version.rsplit('/').next().unwrap_or_default();
            Arc::new(ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                plural: plural.to_owned(),
                kind: facts.kind.clone(),
                namespaced: place.namespace.is_some(),
                ..ApiResource::default()
            })
        });
        let size = bytes.len();
        about.held += size;
        self.held += size;
        about.page.push(Item {
            namespace: place.namespace.map(str::to_owned),
            name: place.name.to_owned(),
            body: bytes,
            facts,
        });
        if about.held >= PAGE || about.page.len() >= 4096 {
            self.pack(place.resource)?;
        } else if self.held > HELD {
            let largest = self.types.iter().max_by_key(|(_, about)| about.held);
            if let Some(name) = largest.map(|(name, _)| name.clone()) {
                self.pack(&name)?;
            }
        }
        Ok(())
    }

    fn pack(&mut self, name: &str) -> Result<()> {
        let Some(about) = self.types.get_mut(name) else {
            return Ok(());
        };
        self.held -= std::mem::take(&mut about.held);
        let items = std::mem::take(&mut about.page);
        let Some(resource) = about.resource.as_ref().filter(|_| !items.is_empty()) else {
            return Ok(());
        };
        let page = pack_bodies(resource, &items, LEVEL)?;
        // The other side is gone only when it failed: its error is the one that is shown.
        self.pages
            .blocking_send(page)
            .map_err(|_| Error::other("the spool can not be written"))
    }
}

fn bad(entry: &Entry, what: &str) -> Error {
    Error::corrupt(format!("archive entry {:?} {what}", entry.path))
}

/// Makes the folder and looks at the space in it.
fn prepare(folder: &Path, length: u64) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::other(format!("spool folder {} can not be used", folder.display()))
            .because(e)
            .hint("choose another one with --spool-dir")
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    let space = rustix::fs::statvfs(folder).map_err(|e| failed(e.into()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    // Bodies are kept once, less tightly packed than others pack them, and their index beside them.
    let need = length.saturating_mul(2).saturating_add(16 << 20);
    if free < need {
        return Err(Error::other(format!(
            "spool folder {} has {} MiB free, {} MiB are needed",
            folder.display(),
            free >> 20,
            need >> 20
        ))
        .hint("choose a folder with more space with --spool-dir"));
    }
    Ok(())
}

/// A file without a name, being written.
struct Unnamed {
    file: Arc<File>,
    length: u64,
    folder: String,
}

impl Unnamed {
    fn create(folder: &Path) -> Result<Self> {
        let path = folder.join(format!(".spool-{}", uuid::Uuid::new_v4()));
        let failed = |e: std::io::Error| {
            Error::other(format!(
                "no file can be made in spool folder {}",
                folder.display()
            ))
            .because(e)
            .hint("choose another one with --spool-dir")
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        Ok(Self {
            file: Arc::new(file),
            length: 0,
            folder: folder.display().to_string(),
        })
    }

    fn source(self) -> Spooled {
        Spooled {
            file: self.file,
            length: self.length,
        }
    }
}

#[async_trait]
impl Sink for Unnamed {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let (file, at) = (self.file.clone(), self.length);
        self.length += bytes.len() as u64;
        blocking(move || file.write_all_at(&bytes, at))
            .await
            .map_err(|e| {
                e.context(format!(
                    "spool folder {} can not be written to",
                    self.folder
                ))
                .hint("choose a folder with more space with --spool-dir")
            })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
        .and_then(|result| result)
        .map_err(|e| Error::other("the spool failed").because(e))
}

#[async_trait]
impl Source for Spooled {
    async fn len(&self) -> Result<u64> {
        Ok(self.length)
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.length {
            return Err(Error::corrupt("the spool is shorter than its index says"));
        }
        let file = self.file.clone();
        blocking(move || {
            let mut out = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut out, range.start)?;
            Ok(Bytes::from(out))
        })
        .await
    }

    async fn stream(&self) -> Result<BoxStream<'static, Result<Bytes>>> {
        const CHUNK: u64 = 1 << 20;
        let this = self.clone();
        Ok(stream::unfold((this, 0), |(this, at)| async move {
            let end = this.length.min(at + CHUNK);
            (at < end).then_some(())?;
            Some((this.read(at..end).await, (this, end)))
        })
        .boxed())
    }
}
