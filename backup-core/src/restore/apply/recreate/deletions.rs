//! What a run has deleted, and what of it is owed: see the page of [`super`].

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex as Plain, MutexGuard, PoisonError};

use tokio::sync::{Mutex, OnceCell};

use super::super::super::journal;
use super::super::super::kept::{self, Kept};
use super::super::super::place::Place;
use super::super::Job;
use crate::layout::RestoreKeys;

/// What a run has deleted.
#[derive(Debug, Default)]
pub(in crate::restore) struct Deletions {
    pub(super) passage: Mutex<Passage>,
    /// Deleted, and neither created nor put back.
    missing: Plain<HashSet<(String, Option<String>, String)>>,
    /// Keys of what was kept for places that are taken again, until the journal has them.
    settled: Plain<Vec<String>>,
    /// The journal, where an earlier run of this restore may have left some missing.
    pub(super) earlier: Option<(Place, RestoreKeys)>,
    /// What they left, once that was asked.
    before: OnceCell<Before>,
}

/// Whether objects go when they are deleted.
#[derive(Debug, Default)]
pub(super) enum Passage {
    #[default]
    Untried,
    Open,
    /// This one hangs.
    Blocked(String),
}

impl Deletions {
    /// None yet. `earlier` is the journal of this restore, where an earlier run of it did not end well.
    pub(in crate::restore) fn new(earlier: Option<(Place, RestoreKeys)>) -> Self {
        Self {
            earlier,
            ..Self::default()
        }
    }

    pub(super) fn deleted(&self, job: &Job) {
        lock(&self.missing).insert(place(job));
    }

    /// Its place is taken again: what is kept as `key` is owed to nobody any more.
    pub(super) fn settle(&self, job: &Job, key: &str) {
        lock(&self.missing).remove(&place(job));
        lock(&self.settled).push(key.to_owned());
    }

    pub(super) fn is_missing(&self, job: &Job) -> bool {
        lock(&self.missing).contains(&place(job))
    }

    /// What was settled since the last time, for the journal.
    pub(in crate::restore) fn take_settled(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.settled))
    }

    /// What earlier runs kept, and what their journal says is settled. Where that can not be read, nothing is settled: nothing may be lost by it.
    async fn before(&self, kept: &Kept) -> &Before {
        let read = || async {
            let mut before = Before::default();
            if let Some((journal, keys)) = &self.earlier {
                before.settled = journal::settled(journal, keys).await.unwrap_or_default();
                before.kept = kept.all().await.unwrap_or_default();
            }
            before
        };
        self.before.get_or_init(read).await
    }

    /// Whether an earlier run saw the place taken again for which this is kept.
    pub(super) async fn was_settled(&self, kept: &Kept, key: &str) -> bool {
        self.before(kept).await.settled.contains(key)
    }

    /// The key of what an earlier run kept of this place and did not see settled.
    pub(super) async fn owed(&self, kept: &Kept, job: &Job) -> Option<String> {
        let before = self.before(kept).await;
        let key = before.kept.get(&kept::digest(job))?;
        (!before.settled.contains(key)).then(|| key.clone())
    }
}

/// What earlier runs left.
#[derive(Debug, Default)]
struct Before {
    settled: HashSet<String>,
    /// The newest key of each place.
    kept: HashMap<String, String>,
}

fn place(job: &Job) -> (String, Option<String>, String) {
    let (namespace, name) = (job.namespace.clone(), job.name.clone());
    (job.resource.name.clone(), namespace, name)
}

fn lock<T>(of: &Plain<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
