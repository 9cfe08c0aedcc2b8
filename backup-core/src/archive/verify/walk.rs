//! The walk through an archive: gunzip, tar, JSON, and what is found against the index.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::entries::{Entries, Entry};
use super::super::feed::{Feed, Gunzip};
use super::super::index::Index;
use super::super::object::Facts;
use super::super::path::{self, Copy, ObjectPath, VERSION_BODY, VERSION_PATH};
use super::super::read::Source;
use super::super::spool::{MOST_HEADERS, MOST_TAR};
use super::Findings;
use super::expected::{Expected, Keys, NOWHERE, SEEN, named};
use super::members::{Bad, NAMED};
use crate::error::{Error, Kind, Result};

/// A copy whose other copy has not come yet.
#[derive(Clone, Copy)]
struct Twin {
    crc32: u32,
    length: u32,
}

/// The synchronous side: gunzip, tar, JSON.
pub(super) struct Walk {
    keys: Keys,
    expected: Option<Expected>,
    pub(super) findings: Findings,
    counted: Arc<AtomicU64>,
    twins: HashMap<u64, Twin>,
    /// Objects seen, where no index tells.
    seen: HashSet<u64>,
    misplaced: Vec<String>,
    misplaced_more: u64,
    entries: u64,
}

impl Walk {
    /// `counted` grows with the objects that were seen.
    pub(super) fn new(
        keys: Keys,
        expected: Option<Expected>,
        findings: Findings,
        counted: Arc<AtomicU64>,
    ) -> Self {
        Self {
            keys,
            expected,
            findings,
            counted,
            twins: HashMap::new(),
            seen: HashSet::new(),
            misplaced: Vec::new(),
            misplaced_more: 0,
            entries: 0,
        }
    }

    pub(super) fn run(mut self, feed: Feed, given: Arc<AtomicU64>) -> (Self, Option<Error>) {
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
        let other = matches!(place.copy, Copy::Other(_));
        let twin = (!other).then(|| self.twins.remove(&hash)).flatten();
        match twin {
            Some(twin) if twin.crc32 == this.crc32 && twin.length == this.length => {}
            Some(_) => {
                self.findings
                    .push(format!("the two copies of {} differ", describe(&place)));
                self.decode(entry, &place, body);
            }
            None => self.decode(entry, &place, body),
        }
        if twin.is_none() && !other {
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
            Copy::Other(_) => {
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
    pub(super) async fn compare(
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
