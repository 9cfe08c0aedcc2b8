//! Reads a whole archive and checks it against its index: every member's digest, every entry, every object decodes, both copies are
//! equal, the counts agree. What is wrong is named. Bounded memory: some 50 bytes per object. Checks nothing but archive and index;
//! without an index (another tool's archive) it checks what an archive tells alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{Context, SHA256};
use futures::stream::StreamExt;

use super::entries::{Entries, Entry};
use super::feed::{Feed, Gunzip, feed};
use super::index::Index;
use super::object::Facts;
use super::path::{self, Copy, ObjectPath, VERSION_BODY, VERSION_PATH};
use super::read::Source;
use super::row::{MemberRow, Row};
use super::spool::{MOST_HEADERS, MOST_TAR};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// What is wrong, a sentence each, naming the file, member or object; empty when all is well. At most 1,000.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The sentences.
    pub problems: Vec<String>,
    /// Objects read and decoded.
    pub objects: u64,
    /// Bytes of JSON read.
    pub bytes: u64,
}

const MOST_PROBLEMS: usize = 1000;

impl Findings {
    fn push(&mut self, problem: String) {
        if self.problems.len() < MOST_PROBLEMS - 1 {
            self.problems.push(problem);
        } else if self.problems.len() == MOST_PROBLEMS - 1 {
            self.problems
                .push("more is wrong than is listed here".to_owned());
        }
    }

    fn error(&mut self, error: &Error) {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            let this = cause.to_string();
            if !text.contains(&this) {
                text = format!("{text}: {this}");
            }
            next = cause.source();
        }
        self.push(text);
    }

    /// Makes contents a finding; what is the source's own goes up.
    fn catch<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.kind() == Kind::Corrupt => {
                self.error(&e);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// Reads both to their end.
///
/// # Errors
/// Only the source's own: everything wrong with the contents is a finding.
pub async fn verify(
    archive: &dyn Source,
    index: Option<&dyn Source>,
    progress: &dyn Progress,
) -> Result<Findings> {
    let mut findings = Findings::default();
    let index = match index {
        Some(source) => findings.catch(Index::open(source).await)?,
        None => None,
    };
    let keys = Keys(RandomState::new());
    let mut members = None;
    let mut expected = None;
    if let Some(index) = &index {
        progress.step("reading the index");
        progress.expect(index.objects());
        findings.catch(index.check_rest().await)?;
        let starts = member_starts(index, &mut findings).await?;
        expected = Some(load(index, &keys, starts.as_deref(), &mut findings).await?);
        members = starts.is_some().then(|| Members::new(index));
        let length = archive.len().await?;
        if length != index.archive_size() {
            findings.push(format!(
                "archive is {length} bytes, its index says {}",
                index.archive_size()
            ));
        }
    }

    progress.step("reading the archive");
    let (bytes, objects) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (chunks, feed) = feed();
    let walk = Walk {
        keys,
        expected,
        findings,
        counted: objects.clone(),
        twins: HashMap::new(),
        seen: HashSet::new(),
        misplaced: Vec::new(),
        misplaced_more: 0,
        entries: 0,
    };
    let given = bytes.clone();
    let walking = tokio::task::spawn_blocking(move || walk.run(feed, given));
    let mut stream = archive.stream().await?;
    let mut chunks = Some(chunks);
    let mut told = (0, 0);
    while let Some(chunk) = stream.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(e) => {
                drop(chunks);
                drop(walking.await);
                return Err(e);
            }
        };
        if let Some(members) = &mut members {
            members.update(&chunk).await?;
        }
        if let Some(sender) = &chunks
            && sender.send(chunk).await.is_err()
        {
            // The walk ended early; the members are still hashed to the archive's end.
            chunks = None;
            if members.is_none() {
                break;
            }
        }
        let now = (
            objects.load(Ordering::Relaxed),
            bytes.load(Ordering::Relaxed),
        );
        progress.done(now.0 - told.0, now.1 - told.1);
        told = now;
    }
    drop(chunks);
    let (mut walk, stopped) = walking
        .await
        .map_err(|e| Error::other("checking the archive stopped").because(e))?;
    let now = (walk.findings.objects, bytes.load(Ordering::Relaxed));
    progress.done(now.0.saturating_sub(told.0), now.1.saturating_sub(told.1));

    if let Some(error) = &stopped {
        walk.findings.error(error);
    }
    let bad = match members {
        Some(members) => members.finish(),
        None => Bad::default(),
    };
    bad.tell(&mut walk.findings);
    if let Some(index) = &index {
        walk.compare(index, stopped.is_some(), &bad).await?;
    }
    Ok(walk.findings)
}

/// Where each member's contents start in the tar; nothing where the members can not be read.
async fn member_starts(
    index: &Index<&dyn Source>,
    findings: &mut Findings,
) -> Result<Option<Vec<u64>>> {
    let mut starts = Vec::new();
    let (mut at, mut tar) = (0_u64, 0_u64);
    while (starts.len() as u64) < index.member_count() {
        let first = starts.len() as u64;
        let count = (index.member_count() - first).min(4096);
        let Some(rows) = findings.catch(index.members(first, count).await)? else {
            return Ok(None);
        };
        for row in rows {
            if row.at != at {
                findings.push(format!(
                    "member {} starts at byte {} by the index, the one before it ends at {at}",
                    starts.len(),
                    row.at
                ));
                return Ok(None);
            }
            starts.push(tar);
            at += row.length;
            tar = tar.saturating_add(row.size);
        }
    }
    if at != index.archive_size() {
        findings.push(format!(
            "the members end at byte {at} by the index, the archive at {}",
            index.archive_size()
        ));
    }
    Ok(Some(starts))
}

/// Hashes of objects' keys under a secret key.
struct Keys(RandomState);

impl Keys {
    fn hash(&self, resource: &str, namespace: Option<&str>, name: &str) -> u64 {
        self.0.hash_one((resource, namespace, name))
    }
}

/// What the index says of one object, in 16 bytes.
#[derive(Clone, Copy)]
struct Place {
    /// Where its body starts in the tar; `NOWHERE` where that is not known.
    at: u64,
    crc32: u32,
    /// Its length, and in the highest bit whether it was seen. (Bodies are up to 2^26 bytes.)
    length: u32,
}

const NOWHERE: u64 = u64::MAX;
const SEEN: u32 = 1 << 31;

/// What the index says.
struct Expected {
    objects: HashMap<u64, Place>,
    /// Each resource's version, kind and API version.
    resources: BTreeMap<String, (String, String, String)>,
    /// Some rows could not be read: what is not in `objects` may be right all the same.
    partial: bool,
}

async fn load(
    index: &Index<&dyn Source>,
    keys: &Keys,
    starts: Option<&[u64]>,
    findings: &mut Findings,
) -> Result<Expected> {
    let mut expected = Expected {
        objects: HashMap::new(),
        resources: BTreeMap::new(),
        partial: false,
    };
    for row in index.resources() {
        let count = index.count(&row.resource);
        if count != row.count {
            findings.push(format!(
                "{} has {} objects by its row in the index and {count} rows of objects",
                row.resource, row.count
            ));
        }
        expected.resources.insert(
            row.resource.clone(),
            (row.version.clone(), row.kind.clone(), row.api_version()),
        );
    }
    for resource in index.resources_with_objects() {
        if !expected.resources.contains_key(resource) {
            findings.push(format!(
                "{resource} has objects in the index and no row of its own"
            ));
        }
        for frame in 0..index.frames(resource) {
            let Some(rows) = findings.catch(index.rows(resource, frame).await)? else {
                expected.partial = true;
                continue;
            };
            for row in rows {
                let hash = keys.hash(resource, row.namespace.as_deref(), &row.name);
                let crc32 = u32::from_str_radix(&row.crc32, 16);
                if crc32.is_err() {
                    findings.push(format!(
                        "{} has no checksum in the index",
                        named(resource, &row)
                    ));
                }
                let start = starts.and_then(|starts| starts.get(row.member as usize));
                let place = Place {
                    at: start.map_or(NOWHERE, |start| start.saturating_add(row.offset)),
                    crc32: crc32.unwrap_or_default(),
                    length: row.length as u32,
                };
                if expected.objects.insert(hash, place).is_some() {
                    findings.push(format!(
                        "{} stands in the index twice",
                        named(resource, &row)
                    ));
                }
            }
        }
    }
    Ok(expected)
}

fn named(resource: &str, row: &Row) -> String {
    format!(
        "{resource} {:?}",
        path::key(row.namespace.as_deref(), &row.name)
    )
}

/// Hashes the compressed bytes member by member.
struct Members<'a> {
    index: &'a Index<&'a dyn Source>,
    number: u64,
    row: Option<MemberRow>,
    left: u64,
    digest: Context,
    bad: Bad,
}

/// Members whose bytes are not those of the index.
#[derive(Default)]
struct Bad {
    count: u64,
    of: u64,
    /// The first of them.
    first: BTreeMap<u64, MemberRow>,
}

/// Members that are named.
const NAMED: usize = 20;

impl<'a> Members<'a> {
    fn new(index: &'a Index<&'a dyn Source>) -> Self {
        Self {
            index,
            number: 0,
            row: None,
            left: 0,
            digest: Context::new(&SHA256),
            bad: Bad {
                of: index.member_count(),
                ..Bad::default()
            },
        }
    }

    async fn update(&mut self, mut chunk: &[u8]) -> Result<()> {
        while !chunk.is_empty() {
            if self.row.is_none() {
                if self.number >= self.index.member_count() {
                    return Ok(());
                }
                // Read once already, when the starts were taken.
                let row = self.index.members(self.number, 1).await?.pop();
                self.left = row.as_ref().map_or(0, |row| row.length);
                self.row = row;
            }
            let now = chunk
                .len()
                .min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.digest.update(&chunk[..now]);
            chunk = &chunk[now..];
            self.left -= now as u64;
            if self.left == 0 {
                self.end();
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        let digest = std::mem::replace(&mut self.digest, Context::new(&SHA256)).finish();
        if let Some(row) = self.row.take() {
            if self.left > 0 || super::hex(digest.as_ref()) != row.sha256 {
                self.bad.count += 1;
                if self.bad.first.len() < NAMED {
                    self.bad.first.insert(self.number, row);
                }
            }
            self.number += 1;
        }
    }

    fn finish(mut self) -> Bad {
        self.end();
        let missing = self.bad.of.saturating_sub(self.number);
        self.bad.count += missing;
        self.bad
    }
}

impl Bad {
    fn tell(&self, findings: &mut Findings) {
        if self.count as usize > NAMED {
            findings.push(format!(
                "{} of {} members of the archive are not as they were written",
                self.count, self.of
            ));
            return;
        }
        for (number, row) in &self.first {
            findings.push(format!(
                "member {number} of the archive (bytes {}..{}) is not as it was written",
                row.at,
                row.at + row.length
            ));
        }
        let more = self.count - self.first.len() as u64;
        if more > 0 {
            findings.push(format!("{more} members of the archive are missing"));
        }
    }
}

/// A copy whose other copy has not come yet.
#[derive(Clone, Copy)]
struct Twin {
    crc32: u32,
    length: u32,
}

/// The synchronous side: gunzip, tar, JSON.
struct Walk {
    keys: Keys,
    expected: Option<Expected>,
    findings: Findings,
    counted: Arc<AtomicU64>,
    twins: HashMap<u64, Twin>,
    /// Objects seen, where no index tells.
    seen: HashSet<u64>,
    misplaced: Vec<String>,
    misplaced_more: u64,
    entries: u64,
}

impl Walk {
    fn run(mut self, feed: Feed, given: Arc<AtomicU64>) -> (Self, Option<Error>) {
        let mut entries = Entries::new(Gunzip::new(feed, MOST_TAR, given), MOST_HEADERS);
        let stopped = loop {
            match entries.next() {
                Ok(None) => break None,
                Ok(Some(entry)) => match entries.body() {
                    Ok(body) => self.entry(&entry, &body),
                    Err(e) => {
                        break Some(
                            e.context(format!("archive entry {:?} can not be read", entry.path)),
                        );
                    }
                },
                Err(e) => break Some(e),
            }
        };
        if !self.misplaced.is_empty() {
            let shown = self.misplaced.join(", ");
            let more = match self.misplaced_more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            self.findings.push(format!(
                "the index does not fit the archive: {shown}{more} are not where it says"
            ));
        }
        (self, stopped)
    }

    fn entry(&mut self, entry: &Entry, body: &[u8]) {
        self.entries += 1;
        if self.expected.is_some() && self.entries == 1 {
            if entry.path != VERSION_PATH || body != VERSION_BODY {
                self.findings.push(format!(
                    "archive starts with {:?} instead of {VERSION_PATH} 1.1.0",
                    entry.path
                ));
            }
            if entry.path == VERSION_PATH {
                return;
            }
        }
        let Some(place) = ObjectPath::parse(&entry.path) else {
            if self.expected.is_some() {
                self.findings
                    .push(format!("archive entry {:?} is no object", entry.path));
            }
            return;
        };
        let hash = self.keys.hash(place.resource, place.namespace, place.name);
        let this = Twin {
            crc32: crc32fast::hash(body),
            length: body.len() as u32,
        };
        let twin = (place.copy != Copy::Other)
            .then(|| self.twins.remove(&hash))
            .flatten();
        match twin {
            Some(twin) if twin.crc32 == this.crc32 && twin.length == this.length => {}
            Some(_) => {
                self.findings
                    .push(format!("the two copies of {} differ", describe(&place)));
                self.decode(entry, &place, body);
            }
            None => self.decode(entry, &place, body),
        }
        if twin.is_none() && place.copy != Copy::Other {
            self.twins.insert(hash, this);
        }
        match place.copy {
            Copy::Plain => self.plain(entry, &place, hash, this),
            Copy::Preferred(version) => {
                if let Some(expected) = &self.expected
                    && expected
                        .resources
                        .get(place.resource)
                        .is_some_and(|(v, ..)| v != version)
                {
                    self.findings.push(format!(
                        "archive entry {:?} is of another version than the index says",
                        entry.path
                    ));
                }
            }
            Copy::Other => {
                if self.expected.is_some() {
                    self.findings.push(format!(
                        "archive entry {:?} is not in the index",
                        entry.path
                    ));
                }
            }
        }
    }

    /// The copy that the index knows.
    fn plain(&mut self, entry: &Entry, place: &ObjectPath<'_>, hash: u64, this: Twin) {
        self.findings.objects += 1;
        self.findings.bytes += entry.size;
        self.counted.store(self.findings.objects, Ordering::Relaxed);
        let Some(expected) = &mut self.expected else {
            if !self.seen.insert(hash) {
                self.findings
                    .push(format!("archive entry {:?} comes twice", entry.path));
            }
            return;
        };
        let Some(known) = expected.objects.get_mut(&hash) else {
            if !expected.partial {
                self.findings.push(format!(
                    "{} is in the archive and not in the index",
                    describe(place)
                ));
            }
            return;
        };
        if known.length & SEEN != 0 {
            self.findings
                .push(format!("archive entry {:?} comes twice", entry.path));
        }
        let same = known.crc32 == this.crc32 && known.length & !SEEN == this.length;
        known.length |= SEEN;
        if !same {
            self.findings.push(format!(
                "{} was changed: its bytes in the archive are not those that were saved",
                describe(place)
            ));
        }
        if known.at != NOWHERE && known.at != entry.at {
            if self.misplaced.len() < 3 {
                self.misplaced.push(describe(place));
            } else {
                self.misplaced_more += 1;
            }
        }
    }

    /// Checks that a body is the object its path says.
    fn decode(&mut self, entry: &Entry, place: &ObjectPath<'_>, body: &[u8]) {
        let facts = match Facts::read(body) {
            Ok(facts) => facts,
            Err(e) => {
                self.findings
                    .error(&e.context(format!("archive entry {:?} is no object", entry.path)));
                return;
            }
        };
        let mut wrong = |what: &str, is: &str| {
            self.findings.push(format!(
                "archive entry {:?} holds an object of {what} {is:?}",
                entry.path
            ));
        };
        if facts.name != place.name {
            wrong("name", &facts.name);
        }
        if facts.namespace != place.namespace.unwrap_or_default() {
            wrong("namespace", &facts.namespace);
        }
        let known = self
            .expected
            .as_ref()
            .and_then(|e| e.resources.get(place.resource));
        match known {
            Some((_, kind, api_version)) => {
                if facts.kind != *kind {
                    wrong("kind", &facts.kind);
                }
                if facts.api_version != *api_version {
                    wrong("apiVersion", &facts.api_version);
                }
            }
            None => {
                if facts.kind.is_empty() {
                    wrong("kind", "");
                }
                if facts.api_version.is_empty() {
                    wrong("apiVersion", "");
                }
            }
        }
    }

    /// What is left after the walk: objects that did not come, and copies without the other.
    async fn compare(
        &mut self,
        index: &Index<&dyn Source>,
        stopped: bool,
        bad: &Bad,
    ) -> Result<()> {
        let Some(expected) = self.expected.take() else {
            return Ok(());
        };
        let missing = expected
            .objects
            .values()
            .any(|place| place.length & SEEN == 0);
        if !missing && self.twins.is_empty() {
            return Ok(());
        }
        let mut unread = 0;
        let mut damaged: BTreeMap<u64, (Vec<String>, u64)> = BTreeMap::new();
        for resource in index.resources_with_objects() {
            for frame in 0..index.frames(resource) {
                // What is wrong with it was said when it was read first.
                let rows = match index.rows(resource, frame).await {
                    Err(e) if e.kind() == Kind::Corrupt => continue,
                    rows => rows?,
                };
                for row in rows {
                    let hash = self
                        .keys
                        .hash(resource, row.namespace.as_deref(), &row.name);
                    let seen = expected
                        .objects
                        .get(&hash)
                        .is_some_and(|place| place.length & SEEN != 0);
                    if stopped {
                        if seen {
                            continue;
                        }
                        unread += 1;
                        if bad.first.contains_key(&row.member) {
                            let (names, more) = damaged.entry(row.member).or_default();
                            if names.len() < NAMED {
                                names.push(named(resource, &row));
                            } else {
                                *more += 1;
                            }
                        }
                    } else if !seen {
                        self.findings.push(format!(
                            "{} is missing in the archive",
                            named(resource, &row)
                        ));
                    } else if self.twins.contains_key(&hash) {
                        self.findings.push(format!(
                            "{} has no second copy in the archive",
                            named(resource, &row)
                        ));
                    }
                }
            }
        }
        for (member, (names, more)) in damaged {
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            self.findings
                .push(format!("member {member} holds {}{more}", names.join(", ")));
        }
        if unread > 0 {
            self.findings.push(format!(
                "{unread} of {} objects could not be read",
                index.objects()
            ));
        }
        Ok(())
    }
}

fn describe(place: &ObjectPath<'_>) -> String {
    format!(
        "{} {:?}",
        place.resource,
        path::key(place.namespace, place.name)
    )
}
