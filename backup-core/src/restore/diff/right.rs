//! The other side: the cluster, page by page, or a second backup, frame by frame.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::super::bodies::Bodies;
use super::super::gather;
use super::super::patience::patiently;
use super::super::plan::Wanted;
use super::super::versions;
use super::{Api, Body, Place};
use crate::apart;
use crate::archive::read::{Archive, Source};
use crate::archive::row::{Outcome, ResourceRow, Row};
use crate::backup::{Everything, PassedOver};
use crate::cluster::{ApiError, Cluster};
use crate::discovery::{ApiResource, Served};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::name::Name;

/// What a page should be long, and what it may be.
const AIM: usize = 4 << 20;
const LONGEST: usize = 64 << 20;
/// Objects on a first page, and at most.
const FIRST: usize = 50;
const MOST: usize = 2000;
/// Up to so many namespaces are listed one by one.
const FEW_NAMESPACES: usize = 8;

/// Objects of one page or frame.
#[derive(Default)]
pub(super) struct Batch {
    /// Those that a backup takes.
    pub(super) things: Vec<Thing>,
    /// Those that are there as well.
    pub(super) passed: Vec<PassedOver>,
}

/// An object of the other side.
pub(super) struct Thing {
    /// What is known of it.
    pub(super) row: Row,
    /// Its JSON, where it is at hand.
    body: Option<Body>,
}

impl Thing {
    /// Bytes of its body.
    pub(super) fn length(&self) -> u64 {
        self.body
            .as_ref()
            .map_or(self.row.length, |body| body.len() as u64)
    }
}

/// What a backup is compared with.
#[async_trait]
pub(super) trait Right: Send + Sync {
    /// Kinds it has.
    fn kinds(&self) -> Vec<Api>;

    /// Kinds as rows, to bind the names that a user gives.
    fn rows(&self) -> Vec<ResourceRow>;

    /// What it can not tell of what is asked for, a sentence each.
    fn gaps(&self, asked: &Filter) -> Vec<String>;

    /// Whether a kind, of which the backup has so many objects, can be compared; false where a filter left it out.
    ///
    /// # Errors
    /// Why it can not be, though nobody meant that.
    fn stands(&self, api: &ApiResource, count: u64) -> Result<bool, String>;

    /// Whether this object would be here if it had not gone.
    fn would_hold(&self, api: &ApiResource, row: &Row) -> bool;

    /// Every object of a kind, some at a time.
    fn things(&self, api: &ApiResource) -> BoxStream<'_, Result<Batch>>;

    /// The bodies of these.
    async fn bodies(
        &self,
        api: &ApiResource,
        things: &[(Option<Place>, Thing)],
    ) -> Result<Vec<Body>>;
}

/// The cluster as it is.
pub(super) struct Live<'l> {
    cluster: &'l Cluster,
    served: Served,
    everything: Everything,
    /// Where they were named one by one and are few.
    namespaces: Option<Vec<String>>,
}

impl<'l> Live<'l> {
    pub(super) async fn new(
        cluster: &'l Cluster,
        served: Served,
        namespaces: Option<Vec<String>>,
    ) -> Result<Self> {
        Ok(Self {
            everything: Everything::of(cluster, &served).await?,
            cluster,
            served,
            namespaces: namespaces.filter(|names| names.len() <= FEW_NAMESPACES),
        })
    }

    /// One page. A page that is too long is asked for again with fewer objects.
    async fn page(&self, path: &str, limit: &mut usize, token: &str) -> Result<Bytes, ApiError> {
        let mut token = token.to_owned();
        loop {
            let mut path = format!("{path}?limit={limit}");
            if !token.is_empty() {
                let token = url::form_urlencoded::byte_serialize(token.as_bytes());
                path.extend(["&continue="].into_iter().chain(token));
            }
            match patiently(|| self.cluster.get_bounded(&path, LONGEST)).await {
                Err(e) if e.too_big && *limit > 1 => *limit = (*limit / 8).max(1),
                // The rest is of a newer revision: what is compared here changes anyway.
                Err(e) if e.is_expired() && e.continue_token.is_some() && !token.is_empty() => {
                    token = e.continue_token.unwrap_or_default();
                }
                answer => return answer,
            }
        }
    }
}

/// Where a list stands.
struct Reading {
    api: ApiResource,
    /// Namespaces that are still to be listed, the one at hand last; one nothing for all of them.
    scopes: Vec<Option<String>>,
    token: String,
    limit: usize,
}

#[async_trait]
impl Right for Live<'_> {
    fn kinds(&self) -> Vec<Api> {
        self.everything.kinds.clone()
    }

    fn rows(&self) -> Vec<ResourceRow> {
        Vec::new()
    }

    fn gaps(&self, asked: &Filter) -> Vec<String> {
        if !asked.includes_unnamed_kinds() {
            return Vec::new();
        }
        let gaps = self.served.gaps.iter();
        gaps.filter(|gap| !asked.excludes_group(&gap.group))
            .map(|gap| format!("{}/{}: {}", gap.group, gap.version, gap.reason))
            .collect()
    }

    fn stands(&self, api: &ApiResource, count: u64) -> Result<bool, String> {
        let served = versions::served(api, &self.served);
        let versions: Vec<&str> = served.map(|other| other.version.as_str()).collect();
        // An API that does not answer has not lost its objects.
        let gap = self.served.gaps.iter().find(|gap| gap.group == api.group);
        if let Some(gap) = gap.filter(|_| versions.is_empty()) {
            return Err(format!("the cluster could not be asked: {}", gap.reason));
        }
        let fits = versions::target(api, &self.served).is_some();
        if count == 0 || versions.is_empty() || fits {
            return Ok(true);
        }
        Err(format!(
            "the backup holds {}, the cluster serves {}",
            api.version,
            versions.join(", ")
        ))
    }

    fn would_hold(&self, _api: &ApiResource, _row: &Row) -> bool {
        true
    }

    fn things(&self, api: &ApiResource) -> BoxStream<'_, Result<Batch>> {
        // A backup without objects of a kind may know it in a version that is gone.
        let fitting = versions::target(api, &self.served);
        let Some(api) = fitting.or_else(|| versions::served(api, &self.served).next()) else {
            return stream::empty().boxed();
        };
        let scopes = match &self.namespaces {
            Some(names) if api.namespaced => names.iter().rev().cloned().map(Some).collect(),
            _ => vec![None],
        };
        let reading = Reading {
            api: (**api).clone(),
            scopes,
            token: String::new(),
            limit: FIRST,
        };
        stream::try_unfold(reading, move |mut reading| async move {
            let Some(scope) = reading.scopes.last() else {
                return Ok(None);
            };
            let path = reading.api.path(scope.as_deref());
            let page = self.page(&path, &mut reading.limit, &reading.token).await?;
            let (items, passed, token) = self.everything.cut(&page, &reading.api)?;
            if token.is_empty() {
                reading.scopes.pop();
            } else if !items.is_empty() {
                let each = (page.len() / items.len()).max(1);
                reading.limit = (AIM / each).clamp(1, MOST);
            }
            reading.token = token;
            let things = items.into_iter().map(|item| Thing {
                row: Row {
                    namespace: item.namespace,
                    name: item.name,
                    labels: item.facts.labels,
                    sha256: item.facts.sha256,
                    ..Row::default()
                },
                body: Some(item.body),
            });
            let batch = Batch {
                things: things.collect(),
                passed,
            };
            Ok::<_, Error>(Some((batch, reading)))
        })
        .boxed()
    }

    async fn bodies(
        &self,
        _api: &ApiResource,
        things: &[(Option<Place>, Thing)],
    ) -> Result<Vec<Body>> {
        let bodies = things.iter().map(|(_, thing)| thing.body.clone());
        Ok(bodies.map(Option::unwrap_or_default).collect())
    }
}

/// Another backup.
pub(super) struct Saved<'s, B> {
    archive: &'s Archive<B>,
    name: &'s Name,
    scope: Filter,
}

impl<'s, B: Source> Saved<'s, B> {
    pub(super) fn new(archive: &'s Archive<B>, name: &'s Name, scope: Filter) -> Self {
        let (scope, _) = gather::bind(&scope, archive.index.resources(), &Served::default());
        Self {
            archive,
            name,
            scope,
        }
    }

    fn row(&self, api: &ApiResource) -> Option<&ResourceRow> {
        let name = api.group_resource();
        let mut rows = self.archive.index.resources().iter();
        rows.find(|row| row.resource == name)
    }
}

#[async_trait]
impl<B: Source> Right for Saved<'_, B> {
    fn kinds(&self) -> Vec<Api> {
        let held = self.archive.index.resources().iter();
        held.filter(|row| !row.resource.starts_with('*') && row.count > 0)
            .map(|row| gather::describe(row, &Served::default()).into())
            .collect()
    }

    fn rows(&self) -> Vec<ResourceRow> {
        self.archive.index.resources().to_vec()
    }

    fn gaps(&self, asked: &Filter) -> Vec<String> {
        let rows = self.archive.index.resources().iter();
        rows.filter(|row| row.resource.starts_with('*') && row.outcome == Outcome::Failed)
            .filter(|_| asked.includes_unnamed_kinds())
            .map(|row| {
                format!(
                    "{}: backup {} has a gap there: {}",
                    row.resource, self.name, row.why
                )
            })
            .collect()
    }

    fn stands(&self, api: &ApiResource, count: u64) -> Result<bool, String> {
        let Some(row) = self.row(api) else {
            // A backup of another tool has no rows of kinds without objects.
            return Ok(Wanted::of(&self.scope, api).by_filter);
        };
        match row.outcome {
            _ if apart::is_locked(row) => Err(format!(
                "encrypted in backup {}, and no identity opens them",
                self.name
            )),
            Outcome::Excluded => Ok(false),
            Outcome::Failed => Err(format!("backup {} has a gap there: {}", self.name, row.why)),
            Outcome::Saved if count > 0 && row.count > 0 && row.version != api.version => {
                Err(format!(
                    "one backup holds {}, backup {} {}",
                    api.version, self.name, row.version
                ))
            }
            Outcome::Saved => Ok(true),
        }
    }

    fn would_hold(&self, api: &ApiResource, row: &Row) -> bool {
        Wanted::of(&self.scope, api).has(&self.scope, api, row)
    }

    fn things(&self, api: &ApiResource) -> BoxStream<'_, Result<Batch>> {
        let name = api.group_resource();
        stream::iter(0..self.archive.index.frames(&name))
            .then(move |frame| {
                let name = name.clone();
                async move {
                    let rows = self.archive.index.rows(&name, frame).await?;
                    let things = rows.into_iter().map(|row| Thing { row, body: None });
                    Ok(Batch {
                        things: things.collect(),
                        ..Batch::default()
                    })
                }
            })
            .boxed()
    }

    async fn bodies(
        &self,
        _api: &ApiResource,
        things: &[(Option<Place>, Thing)],
    ) -> Result<Vec<Body>> {
        let rows = things.iter().map(|(_, thing)| thing.row.clone());
        let mut bodies = Bodies::new(self.archive, rows.collect());
        let mut found = Vec::with_capacity(things.len());
        while let Some((_, object)) = bodies.next().await {
            found.push(object?.body);
        }
        Ok(found)
    }
}
