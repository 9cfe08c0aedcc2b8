//! Carries a plan out: pages as raw bytes, types in parallel, members packed on other threads, everything into one writer in the order of
//! arrival. What is in flight is bounded in bytes. A type is never begun again once its pages are on their way into the archive.

mod packing;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::budget::{Budget, Reserved};
use super::copies::Copying;
use super::gather::Gathered;
use super::names::Names;
use super::page::{Keep, Pick, Seen};
use super::plan::{self, Plan};
use super::point_in_time::{self, Looked, Moment, Patience};
use super::writers::{Secrets, Writers, write};
use crate::archive::SECRETS;
use crate::archive::pack::Packed;
use crate::archive::row::{Outcome, ResourceRow};
use crate::archive::write::{Sink, Totals};
use crate::cluster::{ApiError, Cluster};
use crate::discovery::ApiResource;
use crate::error::{Error, Result};
use crate::hooks::bracket::Brackets;
use crate::progress::Progress;
pub(super) use reading::Listing;

/// Types read at a time.
const AT_A_TIME: usize = 8;

/// Everything that applying a plan needs to know.
pub(super) struct Apply<'a> {
    /// The cluster.
    pub(super) cluster: &'a Cluster,
    /// What was gathered.
    pub(super) gathered: Arc<Gathered>,
    /// All types at one revision.
    pub(super) exact: bool,
    /// The archive's time stamps, in seconds since the epoch.
    pub(super) mtime: u64,
    /// Whether to stop.
    pub(super) cancel: watch::Receiver<bool>,
    /// How long things may take that pass by themselves.
    pub(super) patience: Patience,
    /// Where pods run their hooks.
    pub(super) brackets: &'a Brackets,
    /// Where claims are copied, if any are.
    pub(super) copying: Option<&'a Copying>,
    /// Who watches.
    pub(super) progress: &'a dyn Progress,
}

/// What was applied.
#[derive(Debug)]
pub(super) struct Applied<A, I> {
    /// The archive's bytes went here.
    pub(super) archive: A,
    /// The index's went here.
    pub(super) index: I,
    /// What it came to.
    pub(super) totals: Totals,
    /// Every API resource and what became of it, sorted.
    pub(super) rows: Vec<ResourceRow>,
    /// The common revision.
    pub(super) revision: Option<u64>,
    /// What was seen.
    pub(super) seen: Seen,
    /// The names of what was saved, by `<apiVersion>/<Kind>`; without those of Secrets that stand apart.
    pub(super) names: BTreeMap<String, Names>,
    /// Secrets that stand apart.
    pub(super) apart: Option<Secrets<A, I>>,
}

impl Apply<'_> {
    /// Carries the plan out. Where there is something for it, Secrets go `apart`, and nothing else tells of them but how many they are.
    ///
    /// # Errors
    /// The sinks', and the cluster's where it went away as a whole. A type that can not be read is a failed row.
    pub(super) async fn run<A, I>(
        &self,
        plan: Plan,
        backup: &str,
        archive: A,
        index: I,
        apart: Option<(A, I)>,
    ) -> Result<Applied<A, I>>
    where
        A: Sink + 'static,
        I: Sink + 'static,
    {
        let Plan {
            lists,
            related,
            namespaces,
            rows,
        } = plan;
        let budget = Budget::new();
        self.progress
            .step(&format!("looking at {} resource types", lists.len()));
        let (moment, mut looked) =
            point_in_time::look(self.cluster, lists, self.exact, &budget).await?;
        let expected = looked
            .iter()
            .filter_map(|l| l.glance.as_ref().ok())
            .map(|glance| glance.objects)
            .sum();
        self.progress.expect(expected);
        self.progress
            .step(&format!("reading {} resource types", looked.len()));
        // The largest first, so that no long one is left alone at the end.
        looked.sort_by_key(|l| {
            let glance = l.glance.as_ref().ok();
            std::cmp::Reverse(glance.map_or(0, |g| g.objects * g.bytes as u64))
        });

        let with_secrets = apart.is_none();
        let writer = Writers::start((archive, index), apart, backup, self.mtime).await?;
        let (pages, arriving) = mpsc::channel(AT_A_TIME);
        let mut writing = JoinSet::new();
        writing.spawn(write(writer, arriving));
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let run = Run {
            apply: self,
            budget,
            moment,
            threads: Arc::new(Semaphore::new(threads)),
            pages,
            seen: Mutex::default(),
            rows: Mutex::new(rows),
            names: Mutex::default(),
            with_secrets,
        };
        let read = async {
            stream::iter(looked)
                .map(|looked| run.list(looked))
                .buffer_unordered(AT_A_TIME)
                .try_collect::<()>()
                .await?;
            run.second_phase(related, namespaces).await?;
            run.hooked_pods().await
        };
        let read = tokio::select! {
            read = read => Some(read),
            () = super::cancelled(self.cancel.clone()) => None,
        };
        let Run {
            moment,
            pages,
            seen,
            rows,
            names,
            ..
        } = run;
        let Some(read) = read else {
            // Nothing of the writer is under way any more when the caller cleans up.
            writing.shutdown().await;
            return Err(super::interrupted(backup));
        };
        // The writer ends when nobody can send any more. What it says of itself comes before what others say of it.
        drop(pages);
        let writer = match writing.join_next().await {
            Some(Ok(written)) => written?,
            _ => return Err(Error::other("the archive's writer broke off")),
        };
        read?;
        let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        rows.sort_by(|a, b| (&a.resource, &a.version).cmp(&(&b.resource, &b.version)));
        let (main, apart) = writer.finish(&rows).await?;
        let (archive, index, totals) = main;
        Ok(Applied {
            apart,
            archive,
            index,
            totals,
            rows,
            revision: moment.common(),
            seen: seen.into_inner().unwrap_or_else(PoisonError::into_inner),
            names: names.into_inner().unwrap_or_else(PoisonError::into_inner),
        })
    }
}

/// Why a list ended before its end.
pub(super) enum Stop {
    /// Nothing more can be read or written.
    All(Error),
    /// This type can not be read (any further).
    Type(String),
    /// This type may not be read.
    Forbidden(String),
}

impl From<ApiError> for Stop {
    fn from(e: ApiError) -> Self {
        if point_in_time::is_fatal(&e) {
            Self::All(e.into())
        } else if e.is_forbidden() {
            Self::Forbidden(e.message)
        } else if e.is_not_found() {
            Self::Type("the server does not serve it any more".to_owned())
        } else {
            Self::Type(e.to_string())
        }
    }
}

/// One run of a plan, shared by all lists.
pub(super) struct Run<'a> {
    pub(super) apply: &'a Apply<'a>,
    pub(super) budget: Budget,
    moment: Moment,
    threads: Arc<Semaphore>,
    pages: mpsc::Sender<(Packed, Reserved)>,
    pub(super) seen: Mutex<Seen>,
    rows: Mutex<Vec<ResourceRow>>,
    names: Mutex<BTreeMap<String, Names>>,
    /// Whether Secrets are among the rest.
    with_secrets: bool,
}

impl Run<'_> {
    /// Reads one type wherever it is listed, and leaves its row.
    async fn list(&self, looked: Looked) -> Result<()> {
        let Looked {
            list,
            glance,
            common,
        } = looked;
        let keep = self.keep(Pick::All);
        let mut row = plan::row(&list.resource);
        match glance {
            Ok(glance) => {
                let failures = self.read(&list, &glance, common, &keep, &mut row).await?;
                if !failures.is_empty() {
                    row.outcome = Outcome::Failed;
                    row.why = failures
                        .into_iter()
                        .map(|(_, why)| why)
                        .collect::<Vec<_>>()
                        .join("; ");
                }
            }
            // What answered a first look with an error after all repeats is not asked again.
            Err(e) => {
                row.outcome = Outcome::Failed;
                row.why = match self.stop(&list.resource, e) {
                    Stop::All(e) => return Err(e),
                    Stop::Type(why) | Stop::Forbidden(why) => why,
                };
            }
        }
        self.leave(row);
        Ok(())
    }

    /// What pages of this run keep.
    pub(super) fn keep(&self, pick: Pick) -> Arc<Keep> {
        // One selector is the server's work, several are ours: one LIST instead of one per selector.
        let filter = &self.apply.gathered.filter;
        Arc::new(Keep {
            by_labels: matches!(pick, Pick::All) && filter.selectors.len() > 1,
            gathered: Arc::clone(&self.apply.gathered),
            pick,
            tell_passed: false,
        })
    }

    /// Takes a finished row.
    pub(super) fn leave(&self, row: ResourceRow) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match rows.iter_mut().find(|other| other.resource == row.resource) {
            // More objects of a type that has its row already.
            Some(other) => {
                other.count += row.count;
                if row.outcome == Outcome::Failed {
                    other.outcome = Outcome::Failed;
                    other.why = row.why;
                }
            }
            None => rows.push(row),
        }
    }

    /// Types, as `plural.group`, of which objects were saved and whose group is wanted.
    pub(super) fn saved_types(&self, group: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter()
            .filter(|row| row.count > 0)
            .filter(|row| row.resource.split_once('.').is_some_and(|(_, g)| group(g)))
            .map(|row| row.resource.clone())
            .collect()
    }

    /// Whether nothing of a type's objects is told by any file: Secrets, where they stand apart.
    fn hides(&self, resource: &ApiResource) -> bool {
        !self.with_secrets && resource.group_resource() == SECRETS
    }

    /// Why a request for a type was in vain. What a server says of Secrets may name them: where they stand apart, files have its code alone.
    fn stop(&self, resource: &ApiResource, mut e: ApiError) -> Stop {
        if self.hides(resource) && !point_in_time::is_fatal(&e) {
            self.apply.progress.warn(&format!("{SECRETS}: {e}"));
            let reason = e.reason.chars().filter(char::is_ascii_alphabetic);
            let reason: String = reason.take(40).collect();
            e.reason = String::new();
            e.hint = None;
            e.message = match (e.code, reason.as_str()) {
                (0, _) => "the server gave no answer".to_owned(),
                (code, "") => format!("the server answered {code}"),
                (code, reason) => format!("the server answered {code} {reason}"),
            };
        }
        e.into()
    }
}

#[cfg(test)]
mod tests;
