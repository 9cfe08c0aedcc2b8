//! Reads objects of a type from the server: lists page by page, wherever it is listed, or single ones. Waits out what passes by itself, and says what ended a list.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::packing::Packing;
use super::{AT_A_TIME, Run, Stop};
use crate::archive::row::ResourceRow;
use crate::backup::page::{self, Keep, Pick};
use crate::backup::page_size::{LARGEST_OBJECT, PageSize};
use crate::backup::plan::{List, Scope};
use crate::backup::point_in_time::Glance;
use crate::cluster::ApiError;
use crate::discovery::ApiResource;
use crate::error::{Kind, Result};

/// How often a list may expire half-way before it is given up.
const EXPIRIES: usize = 100;

/// One place of one type.
pub(in crate::backup) struct Listing<'a> {
    pub(in crate::backup) resource: &'a Arc<ApiResource>,
    pub(in crate::backup) place: Option<&'a str>,
    pub(in crate::backup) keep: &'a Arc<Keep>,
    pub(in crate::backup) packing: &'a mpsc::Sender<Packing>,
}

impl Run<'_> {
    /// Reads a type in each of its places. What failed comes back, forbidden or not, with the reason; the rest is in the archive.
    pub(in crate::backup) async fn read(
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
    pub(in crate::backup) async fn ask(&self, path: &str, most: usize) -> Result<Bytes, ApiError> {
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

    /// GETs single objects of a type and hands them on. Absent ones are passed over; what is forbidden or fails comes back.
    pub(in crate::backup) async fn get(
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
