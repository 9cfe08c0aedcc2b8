//! Carries a plan out: pages as raw bytes, types in parallel, members packed on other threads, everything into one writer in the order of
//! arrival. What is in flight is bounded in bytes. A type is never begun again once its pages are on their way into the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::budget::{Budget, Reserved};
use super::copies::Copying;
use super::gather::Gathered;
use super::names::Names;
use super::page::{self, Keep, Page, Pick, Seen};
use super::page_size::{LARGEST_OBJECT, PageSize};
use super::plan::{self, List, Plan, Scope};
use super::point_in_time::{self, Glance, Looked, Moment, Patience};
use super::writers::{Secrets, Writers, write};
use crate::archive::SECRETS;
use crate::archive::pack::{self, Packed};
use crate::archive::row::{Outcome, ResourceRow};
use crate::archive::write::{Sink, Totals};
use crate::cluster::{ApiError, Cluster};
use crate::discovery::ApiResource;
use crate::error::{Error, Kind, Result};
use crate::hooks::bracket::Brackets;
use crate::progress::Progress;

/// Types read at a time.
const AT_A_TIME: usize = 8;

/// So many bytes of pods that wait for their hooks are held; more are saved as they were listed.
const HELD: usize = 16 << 20;

/// How often a list may expire half-way before it is given up.
const EXPIRIES: usize = 100;

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

/// So many Secrets of a page that were not saved are told one by one.
const MOST_TOLD: usize = 20;

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

/// A page on its way through the packing threads.
type Packing = JoinHandle<Result<(Packed, Reserved)>>;

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

    /// Reads a type in each of its places. What failed comes back, forbidden or not, with the reason; the rest is in the archive.
    pub(super) async fn read(
        &self,
        list: &List,
        glance: &Glance,
        common: bool,
        keep: &Arc<Keep>,
        row: &mut ResourceRow,
    ) -> Result<Vec<(bool, String)>> {
        let places: Vec<Option<&str>> = match &list.scope {
            Scope::Everywhere { .. } => vec![None],
            Scope::In(namespaces) => namespaces.iter().map(|n| Some(n.as_str())).collect(),
        };
        let (packing, packed) = mpsc::channel(1);
        let reading = async move {
            let mut failures = Vec::new();
            row.exact = common;
            for place in places {
                let listing = Listing {
                    resource: &list.resource,
                    place,
                    keep,
                    packing: &packing,
                };
                match self.pages_of(&listing, glance, common, row).await {
                    Ok(()) => {}
                    Err(Stop::All(e)) => return Err(e),
                    Err(Stop::Forbidden(why)) => failures.push((true, why)),
                    Err(Stop::Type(why)) => failures.push((false, why)),
                }
            }
            Ok(failures)
        };
        let (read, sent) = futures::join!(reading, self.send(packed));
        sent?;
        read
    }

    /// Hands packed pages on in the order in which they were read.
    pub(super) async fn send(&self, mut packed: mpsc::Receiver<Packing>) -> Result<()> {
        while let Some(packing) = packed.recv().await {
            let page = packing
                .await
                .map_err(|e| Error::other("packing a page broke off").because(e))??;
            self.pages.send(page).await.map_err(|_| gone())?;
        }
        Ok(())
    }

    /// Reads one type in one place, page by page.
    async fn pages_of(
        &self,
        listing: &Listing<'_>,
        glance: &Glance,
        common: bool,
        row: &mut ResourceRow,
    ) -> Result<(), Stop> {
        let patience = self.apply.patience;
        let mut at = if common {
            self.moment.current().await
        } else {
            None
        };
        let mut token = String::new();
        let mut size = PageSize::first(glance);
        let (mut waited, mut step) = (Duration::ZERO, Duration::from_millis(50));
        let mut expiries = 0;
        loop {
            let path = self.path(listing, size.limit, at, &token);
            let mut share = self.budget.reserve(size.bytes).await;
            let body = match self.ask(&path, size.bound()).await {
                Ok(body) => body,
                Err(e) if e.too_big => {
                    if !size.shrink() {
                        return Err(Stop::Type(format!(
                            "an object is larger than {} MiB",
                            LARGEST_OBJECT >> 20
                        )));
                    }
                    continue;
                }
                Err(e) if token.is_empty() && at.is_some() && e.is_too_large_revision() => {
                    drop(share);
                    if waited < patience.cache {
                        tokio::time::sleep(step).await;
                        waited += step;
                        step *= 2;
                    } else {
                        at = None;
                    }
                    continue;
                }
                Err(e) if token.is_empty() && e.is_expired() && expiries < EXPIRIES => {
                    drop(share);
                    expiries += 1;
                    at = match at {
                        Some(gone) => self.moment.renew(gone).await,
                        None => None,
                    };
                    continue;
                }
                // A server that knows nothing of exact revisions says so here.
                Err(e) if token.is_empty() && at.is_some() && matches!(e.code, 400 | 422) => {
                    at = None;
                    continue;
                }
                Err(e) if e.is_expired() && expiries < EXPIRIES => match e.continue_token {
                    Some(fresh) if fresh != token => {
                        expiries += 1;
                        row.second_resource_version.clear();
                        token = fresh;
                        continue;
                    }
                    _ => {
                        return Err(Stop::Type(
                            "the list expired half-way and the server gave no way to go on"
                                .to_owned(),
                        ));
                    }
                },
                Err(e) => return Err(self.stop(listing.resource, e)),
            };
            share.shrink(body.len());
            let length = body.len();
            let page = self.split(body, listing).await?;
            let first = token.is_empty();
            if page.token == token && !first {
                return Err(Stop::Type(
                    "the server answered with the same page again".to_owned(),
                ));
            }
            note_revision(row, &page.revision, first, at, self.moment.common());
            size.learn(length, page.sent, page.remaining);
            token.clone_from(&page.token);
            let more = !token.is_empty();
            self.hand_on(listing, page, share, length, row).await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// GETs, and waits where the server is away or goes on asking for patience.
    pub(super) async fn ask(&self, path: &str, most: usize) -> Result<Bytes, ApiError> {
        let since = Instant::now();
        loop {
            match self.apply.cluster.get_bounded(path, most).await {
                Err(e)
                    if (e.kind == Some(Kind::Unreachable) || e.code == 429)
                        && since.elapsed() < self.apply.patience.absence =>
                {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                answer => return answer,
            }
        }
    }

    fn path(&self, listing: &Listing<'_>, limit: usize, at: Option<u64>, token: &str) -> String {
        let path = listing.resource.path(listing.place);
        let mut query = url::form_urlencoded::Serializer::new(format!("{path}?"));
        query.append_pair("limit", &limit.to_string());
        if let ([selector], Pick::All) = (
            self.apply.gathered.filter.selectors.as_slice(),
            &listing.keep.pick,
        ) {
            query.append_pair("labelSelector", &selector.to_query());
        }
        // A token carries its revision; naming one beside it is refused.
        if !token.is_empty() {
            query.append_pair("continue", token);
        } else if let Some(at) = at {
            query.append_pair("resourceVersion", &at.to_string());
            query.append_pair("resourceVersionMatch", "Exact");
        }
        query.finish()
    }

    async fn split(&self, body: Bytes, listing: &Listing<'_>) -> Result<Page, Stop> {
        let resource = Arc::clone(listing.resource);
        let keep = Arc::clone(listing.keep);
        let _thread = self.threads.acquire().await;
        tokio::task::spawn_blocking(move || page::split(&body, &resource, &keep))
            .await
            .map_err(|e| Stop::All(Error::other("splitting a page broke off").because(e)))?
            .map_err(|e| match self.hides(listing.resource) {
                true => {
                    self.apply.progress.warn(&e.to_string());
                    Stop::Type("the server's answer can not be read".to_owned())
                }
                false => Stop::Type(e.to_string()),
            })
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

    /// Counts a page and gives it to the packing threads.
    pub(super) async fn hand_on(
        &self,
        listing: &Listing<'_>,
        page: Page,
        mut share: Reserved,
        length: usize,
        row: &mut ResourceRow,
    ) -> Result<(), Stop> {
        let Page {
            mut items,
            mut seen,
            ..
        } = page;
        let is_told = !self.hides(listing.resource);
        if !is_told {
            // Their names, and what of them can not be read, are in no file that is not sealed; who looks on is told.
            let more = seen.unfit.len().saturating_sub(MOST_TOLD);
            for (namespace, text) in seen.unfit.iter().take(MOST_TOLD) {
                let place = match namespace.as_str() {
                    "" => String::new(),
                    namespace => format!("in namespace {namespace}: "),
                };
                self.apply.progress.warn(&format!("{place}{text}"));
            }
            if more > 0 {
                let text = format!("{more} more Secrets were not saved");
                self.apply.progress.warn(&text);
            }
            for (_, text) in &mut seen.unfit {
                "a Secret was not saved; which one and why is told to who makes the backup alone, where Secrets are encrypted"
                    .clone_into(text);
            }
        }
        self.apply.progress.done(items.len() as u64, length as u64);
        {
            let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let held = all.hooked.len();
            all.merge(seen);
            items.extend(all.release_beyond(held, HELD));
        }
        if items.is_empty() {
            return Ok(());
        }
        row.count += items.len() as u64;
        if is_told {
            let resource = listing.resource;
            let key = format!("{}/{}", resource.api_version(), resource.kind);
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let names = names.entry(key).or_default();
            for item in &items {
                names.push(item.namespace.as_deref(), &item.name);
            }
        }
        let resource = Arc::clone(listing.resource);
        let threads = Arc::clone(&self.threads);
        let mtime = self.apply.mtime;
        let packing = tokio::spawn(async move {
            let thread = threads.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _thread = thread;
                let packed = pack::pack(&resource, &items, mtime, pack::LEVEL)?;
                drop(items);
                share.shrink(weight(&packed));
                Ok((packed, share))
            })
            .await
            .map_err(|e| Error::other("packing a page broke off").because(e))?
        });
        listing
            .packing
            .send(packing)
            .await
            .map_err(|_| Stop::All(gone()))
    }

    /// GETs single objects of a type and hands them on. Absent ones are passed over; what is forbidden or fails comes back.
    pub(super) async fn get(
        &self,
        resource: &Arc<ApiResource>,
        objects: Vec<(Option<String>, String)>,
        row: &mut ResourceRow,
    ) -> Result<Vec<(bool, String)>> {
        let keep = self.keep(Pick::Named(
            objects.iter().map(|(_, n)| n.clone()).collect(),
        ));
        let (packing, packed) = mpsc::channel(1);
        let reading = async move {
            let listing = Listing {
                resource,
                place: None,
                keep: &keep,
                packing: &packing,
            };
            let mut failures = Vec::new();
            let mut answers = stream::iter(objects)
                .map(|(namespace, name)| async move {
                    let path = resource.object_path(namespace.as_deref(), &name);
                    let share = self.budget.reserve(1 << 20).await;
                    (share, self.ask(&path, LARGEST_OBJECT).await)
                })
                .buffered(AT_A_TIME);
            while let Some((mut share, answer)) = answers.next().await {
                match answer.map_err(|e| (e.is_not_found(), self.stop(resource, e))) {
                    Ok(body) => {
                        share.shrink(body.len());
                        let page = page::single(&body, resource, &keep)?;
                        match self.hand_on(&listing, page, share, body.len(), row).await {
                            Ok(()) => {}
                            Err(Stop::All(e)) => return Err(e),
                            Err(Stop::Type(why) | Stop::Forbidden(why)) => {
                                failures.push((false, why));
                            }
                        }
                    }
                    Err((true, _)) => {}
                    Err((_, Stop::All(e))) => return Err(e),
                    Err((_, Stop::Forbidden(why))) => failures.push((true, why)),
                    Err((_, Stop::Type(why))) => failures.push((false, why)),
                }
            }
            Ok(failures)
        };
        let (read, sent) = futures::join!(reading, self.send(packed));
        sent?;
        read
    }
}

fn gone() -> Error {
    Error::other("the archive's writer is gone")
}

/// What a packed page holds on to, about: its members (a large body's bytes are shared by both copies) and its rows.
fn weight(packed: &Packed) -> usize {
    let mut last = None;
    let members: usize = packed
        .members
        .iter()
        .map(|member| {
            let here = member.bytes.as_ptr();
            let shared = last.replace(here) == Some(here);
            if shared { 0 } else { member.bytes.len() }
        })
        .sum();
    members + packed.rows.len() * 512
}

/// Notes at which revision a list was read.
fn note_revision(
    row: &mut ResourceRow,
    revision: &str,
    first: bool,
    at: Option<u64>,
    common: Option<u64>,
) {
    if revision.is_empty() {
        row.exact &= !first;
        return;
    }
    if first {
        let exact = at.is_some() && at == common && revision.parse().ok() == at;
        if row.resource_version.is_empty() {
            revision.clone_into(&mut row.resource_version);
            row.exact = exact;
        } else {
            row.exact &= exact;
        }
    }
    if revision != row.resource_version {
        revision.clone_into(&mut row.second_resource_version);
        row.exact = false;
    }
}

/// One place of one type.
pub(super) struct Listing<'a> {
    pub(super) resource: &'a Arc<ApiResource>,
    pub(super) place: Option<&'a str>,
    pub(super) keep: &'a Arc<Keep>,
    pub(super) packing: &'a mpsc::Sender<Packing>,
}

#[cfg(test)]
mod tests;
