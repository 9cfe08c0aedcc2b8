//! The walk over all buckets that facts, digest and problems come from: `key` from its newest entry to its oldest, so that the first
//! sighting of a key is its state; the other buckets in order.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::super::bolt::Bucket;
use super::super::bolt::walk::{Entry, Order, Problems, Walker};
use super::super::buckets::{SMALL, settle};
use super::super::digest::{LiveDigest, Part, over};
use super::super::entry::{KEY_BUCKET, MOST_ENCRYPTION_KEYS, Record, Revision, encryption};
use super::super::facts::{Facts, Keys};
use super::super::newest::{Newest, Sighting};
use super::super::resources::Resources;
use super::{Database, Examined, NO_KEYS, key_bucket, reachable};
use crate::error::{Error, Result};
use crate::progress::{Progress, Silent};

/// What is counted of the keys of one part.
#[derive(Clone, Default)]
struct Tally {
    keys: u64,
    resources: Vec<u64>,
    digest: Part,
}

/// What the entries of bucket `key` come to.
struct Keyspace {
    newest: Newest<Tally>,
    resources: Resources,
    encryption: BTreeSet<String>,
    revisions: u64,
    revision: i64,
    with_digest: bool,
    failed: Option<Error>,
}

impl Keyspace {
    fn new(with_digest: bool) -> Self {
        Self {
            newest: Newest::new(),
            resources: Resources::default(),
            encryption: BTreeSet::new(),
            revisions: 0,
            revision: 0,
            with_digest,
            failed: None,
        }
    }

    /// One entry, newest first; `at` is the revision whose state is wanted.
    fn take(&mut self, entry: &Entry<'_>, at: i64, is_first_pass: bool) -> Result<(), String> {
        let revision = Revision::parse(entry.key).ok_or("is no revision")?;
        let record = Record::parse(entry.value).ok_or("holds no record")?;
        if is_first_pass {
            self.revisions += 1;
            self.revision = self.revision.max(revision.main);
            if let Some((provider, key)) = encryption(record.value)
                && self.encryption.len() < MOST_ENCRYPTION_KEYS
            {
                let name = format!("{provider}:{key}");
                self.encryption.insert(name);
            }
        }
        if revision.main > at || record.key.is_empty() || self.failed.is_some() {
            return Ok(());
        }
        let part = match self.newest.sight(record.key) {
            Ok(Sighting::Newest(part)) => part,
            Ok(Sighting::Older | Sighting::Elsewhere) => return Ok(()),
            Err(error) => {
                self.failed = Some(error);
                return Ok(());
            }
        };
        if revision.is_tombstone {
            return Ok(());
        }
        let resource = self.resources.id(record.key);
        let tally = &mut self.newest.tallies[part];
        tally.keys += 1;
        if tally.resources.len() <= resource {
            tally.resources.resize(resource + 1, 0);
        }
        tally.resources[resource] += 1;
        if self.with_digest {
            tally.digest.add(&record);
        }
        Ok(())
    }

    /// Further passes over the bucket, where one could not look after all keys.
    fn finish(
        &mut self,
        database: &Database,
        bucket: &Bucket,
        at: i64,
        problems: &dyn Fn() -> Problems,
        progress: &dyn Progress,
    ) -> Result<()> {
        loop {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if !self.newest.next_pass() {
                return Ok(());
            }
            let mut walker = Walker::new(database.pages(), problems(), progress);
            walker.bucket("key", bucket, Order::Descending, &mut |entry| {
                self.take(&entry, at, false)
            })?;
        }
    }

    fn live(&self) -> u64 {
        self.newest.tallies.iter().map(|tally| tally.keys).sum()
    }

    fn digest(&self, revision: i64) -> LiveDigest {
        let parts = self.newest.tallies.iter().map(|tally| tally.digest.clone());
        LiveDigest {
            revision,
            keys: self.live(),
            sha256: over(parts),
        }
    }

    fn by_resource(&self) -> BTreeMap<String, u64> {
        let mut sums = vec![0; self.resources.len()];
        for tally in &self.newest.tallies {
            for (sum, count) in sums.iter_mut().zip(&tally.resources) {
                *sum += count;
            }
        }
        self.resources.named(&sums)
    }
}

/// Facts, digest (empty where it is not wanted) and problems.
pub(super) fn survey(
    database: &Database,
    with_digest: bool,
    problems: Problems,
    progress: &dyn Progress,
) -> Result<Examined> {
    let is_fatal = matches!(problems, Problems::Fatal);
    let pages = database.pages();
    let mut facts = Facts {
        page_size: pages.meta().page_size,
        bytes: pages.bytes(),
        ..Facts::default()
    };
    let mut walker = Walker::new(pages, problems, progress);
    let buckets = walker.buckets()?;
    database.small(&mut walker, &buckets, &mut facts)?;
    for (name, bucket) in &buckets {
        let is_read = name == KEY_BUCKET || SMALL.iter().any(|small| small.name.as_bytes() == name);
        if !is_read {
            let name = String::from_utf8_lossy(name);
            walker.bucket(&name, bucket, Order::Ascending, &mut |_| Ok(()))?;
        }
    }
    let mut keys = Keyspace::new(with_digest);
    if let Some(bucket) = key_bucket(&buckets) {
        walker.bucket("key", bucket, Order::Descending, &mut |entry| {
            keys.take(&entry, i64::MAX, true)
        })?;
        // What is wrong was told in the first pass.
        let quiet = || {
            if is_fatal {
                Problems::Fatal
            } else {
                Problems::noted()
            }
        };
        keys.finish(database, bucket, i64::MAX, &quiet, progress)?;
    } else {
        walker.problem(format!("it {NO_KEYS}"))?;
    }
    facts.bytes_in_use = walker.reached;
    facts.revision = keys.revision;
    facts.keys = Keys {
        revisions: keys.revisions,
        live: Some(keys.live()),
        resources: Some(keys.by_resource()),
        exact: true,
    };
    settle(&mut facts);
    let digest = keys.digest(facts.revision);
    facts.encryption_keys = keys.encryption.into_iter().collect();
    Ok(Examined {
        digest,
        facts,
        problems: walker.problems.into_texts(),
    })
}

/// See [`Database::digest`].
pub(super) fn digest(
    database: &Database,
    at: Option<i64>,
    progress: &dyn Progress,
) -> Result<LiveDigest> {
    let (facts, bucket) = database.history()?;
    let at = reachable(&facts, at)?;
    let mut keys = Keyspace::new(true);
    let mut walker = Walker::new(database.pages(), Problems::Fatal, progress);
    walker.bucket("key", &bucket, Order::Descending, &mut |entry| {
        keys.take(&entry, at, true)
    })?;
    keys.finish(database, &bucket, at, &|| Problems::Fatal, progress)?;
    Ok(keys.digest(at))
}

/// The greatest revision in bucket `key`; reads one path down the tree.
pub(super) fn latest(database: &Database, bucket: &Bucket) -> Result<i64> {
    let mut walker = Walker::new(database.pages(), Problems::Fatal, &Silent);
    let last = walker.last_key(bucket)?;
    match last {
        None => Ok(0),
        Some(key) => Revision::parse(&key)
            .map(|revision| revision.main)
            .ok_or_else(|| {
                Error::corrupt(format!(
                    "{} is damaged: its last key is no revision",
                    database.pages().name()
                ))
            }),
    }
}
