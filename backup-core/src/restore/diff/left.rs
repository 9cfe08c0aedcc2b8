//! The backup's side: of every object of one kind, what is needed to meet it again on the other side.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use super::super::bodies::Bodies;
use crate::archive::read::{Archive, Source};
use crate::archive::row::Row;
use crate::error::Result;

/// Where an object's row is: its frame, and its place there.
pub(super) type Place = (u32, u32);

/// What is kept of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    digest: u128,
    pub(super) place: Place,
    /// It is among what was asked for.
    pub(super) wanted: bool,
    met: bool,
}

impl Entry {
    /// Whether the row's object has the same content.
    pub(super) fn is_same(&self, row: &Row) -> bool {
        !row.sha256.is_empty() && self.digest == digest(row)
    }
}

/// The objects of one kind.
pub(super) struct Left<'l, A> {
    archive: &'l Archive<A>,
    resource: &'l str,
    entries: HashMap<(u64, u64), Entry>,
    /// The frame that was read last.
    kept: Option<(u32, Vec<Row>)>,
}

impl<'l, A: Source> Left<'l, A> {
    /// Reads the rows of a kind, and which of them are wanted.
    pub(super) async fn read(
        archive: &'l Archive<A>,
        resource: &'l str,
        wanted: impl Fn(&Row) -> bool,
    ) -> Result<Self> {
        let mut entries = HashMap::new();
        for frame in 0..archive.index.frames(resource) {
            let rows = archive.index.rows(resource, frame).await?;
            for (at, row) in rows.iter().enumerate() {
                // Of an object that stands twice the last one counts.
                let entry = Entry {
                    digest: digest(row),
                    place: (number(frame), number(at)),
                    wanted: wanted(row),
                    met: false,
                };
                entries.insert(key(row), entry);
            }
        }
        Ok(Self {
            archive,
            resource,
            entries,
            kept: None,
        })
    }

    /// Frames of the index.
    pub(super) fn frames(&self) -> usize {
        self.archive.index.frames(self.resource)
    }

    /// The object of the same name, where there is one; it has been met then.
    pub(super) fn meet(&mut self, row: &Row) -> Option<Entry> {
        let entry = self.entries.get_mut(&key(row))?;
        entry.met = true;
        Some(*entry)
    }

    /// Rows of a frame that are wanted and were not met.
    pub(super) async fn unmet(&self, frame: usize) -> Result<Vec<Row>> {
        let any = self
            .entries
            .values()
            .any(|entry| entry.wanted && !entry.met && entry.place.0 == number(frame));
        if !any {
            return Ok(Vec::new());
        }
        let rows = self.archive.index.rows(self.resource, frame).await?;
        let unmet = rows.into_iter().enumerate().filter(|(at, row)| {
            self.entries.get(&key(row)).is_some_and(|entry| {
                entry.wanted && !entry.met && entry.place == (number(frame), number(*at))
            })
        });
        Ok(unmet.map(|(_, row)| row).collect())
    }

    /// The bodies of objects.
    pub(super) async fn bodies(
        &mut self,
        mut places: Vec<Place>,
    ) -> Result<BTreeMap<Place, Bytes>> {
        places.sort_unstable();
        let mut found = BTreeMap::new();
        for frame in places.chunk_by(|a, b| a.0 == b.0) {
            let number = frame[0].0;
            if self.kept.as_ref().is_none_or(|(kept, _)| *kept != number) {
                let rows = self.archive.index.rows(self.resource, number as usize);
                self.kept = Some((number, rows.await?));
            }
            let rows = self.kept.as_ref().map_or(&[][..], |(_, rows)| rows);
            let wanted = frame.iter().filter_map(|(_, at)| rows.get(*at as usize));
            let mut bodies = Bodies::new(self.archive, wanted.cloned().collect());
            for place in frame {
                if let Some((_, object)) = bodies.next().await {
                    found.insert(*place, object?.body);
                }
            }
        }
        Ok(found)
    }
}

/// An index has far fewer frames and lines than that.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Half of the digest is more than enough to tell objects of one name apart.
fn digest(row: &Row) -> u128 {
    let half = row.sha256.get(..32).unwrap_or_default();
    u128::from_str_radix(half, 16).unwrap_or_default()
}

fn key(row: &Row) -> (u64, u64) {
    let (mut a, mut b) = (DefaultHasher::new(), DefaultHasher::new());
    (&row.namespace, &row.name).hash(&mut a);
    (&row.name, 0x5eed_u16, &row.namespace).hash(&mut b);
    (a.finish(), b.finish())
}
