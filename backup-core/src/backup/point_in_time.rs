//! One revision for all types of one store. That types share a store is proven, not assumed: a type whose revision lies between two
//! revisions of the anchor (usually ConfigMaps), taken before and after, counts by the same clock.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::budget::Budget;
use super::plan::{List, Scope};
use crate::cluster::{ApiError, Cluster};
use crate::error::{Kind, Result};

/// How many types are asked at a time.
const AT_A_TIME: usize = 8;

/// A single object is at most 1.5 MiB in etcd as it comes; servers may be told otherwise.
const LARGEST_OBJECT: usize = 64 << 20;

/// How long things may take that pass by themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until a server's cache has come to the revision.
    pub(super) cache: Duration,
    /// Until a server that is away is there again.
    pub(super) absence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            cache: Duration::from_secs(3),
            absence: Duration::from_secs(60),
        }
    }
}

/// What a first look at a type showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Glance {
    /// Its revision.
    pub(super) revision: Option<u64>,
    /// How many objects there are, where the server tells: at least so many.
    pub(super) objects: u64,
    /// The answer's length: of one object, about.
    pub(super) bytes: usize,
}

/// A type that was looked at.
#[derive(Debug)]
pub(super) struct Looked {
    /// What is listed; its scope is the one that is allowed.
    pub(super) list: List,
    /// What was seen, or why nothing was.
    pub(super) glance: Result<Glance, ApiError>,
    /// Whether it counts by the common revision.
    pub(super) common: bool,
}

/// The common revision and the one that is used now: another where the first is gone.
#[derive(Debug)]
pub(super) struct Moment {
    cluster: Cluster,
    anchor: Option<String>,
    common: Option<u64>,
    current: Mutex<Option<u64>>,
}

impl Moment {
    /// No common revision: each type is read at its own.
    pub(super) fn none(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            anchor: None,
            common: None,
            current: Mutex::new(None),
        }
    }

    /// The backup's revision.
    pub(super) fn common(&self) -> Option<u64> {
        self.common
    }

    /// The revision to read at now.
    pub(super) async fn current(&self) -> Option<u64> {
        *self.current.lock().await
    }

    /// After `gone` is no longer kept by the server: the revision that takes its place, the same for all who come.
    pub(super) async fn renew(&self, gone: u64) -> Option<u64> {
        let mut current = self.current.lock().await;
        if *current == Some(gone) {
            *current = match &self.anchor {
                Some(anchor) => glance(&self.cluster, anchor)
                    .await
                    .ok()
                    .and_then(|glance| glance.revision)
                    .filter(|fresh| *fresh > gone),
                None => None,
            };
        }
        *current
    }
}

/// Takes a first look at every type, between two looks at the anchor.
///
/// # Errors
/// When the server is not reached or does not accept us.
pub(super) async fn look(
    cluster: &Cluster,
    lists: Vec<List>,
    exact: bool,
    budget: &Budget,
) -> Result<(Moment, Vec<Looked>), ApiError> {
    let mut moment = Moment::none(cluster);
    if exact {
        for anchor in anchors(&lists) {
            match glance(cluster, &anchor).await {
                Ok(Glance {
                    revision: Some(revision),
                    ..
                }) => {
                    moment.common = Some(revision);
                    moment.anchor = Some(anchor);
                    break;
                }
                Err(e) if is_fatal(&e) => return Err(e),
                _ => {}
            }
        }
    }
    let mut looked = stream::iter(lists)
        .map(|list| look_at(cluster, list, budget))
        .buffer_unordered(AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    if let Some(fatal) = looked
        .iter()
        .find_map(|l| l.glance.as_ref().err().filter(|e| is_fatal(e)))
    {
        return Err(fatal.clone());
    }
    let after = match &moment.anchor {
        Some(anchor) => glance(cluster, anchor).await?.revision,
        None => None,
    };
    if let (Some(before), Some(after)) = (moment.common, after) {
        for looked in &mut looked {
            let revision = looked.glance.as_ref().ok().and_then(|g| g.revision);
            looked.common =
                !looked.list.apart && revision.is_some_and(|r| (before..=after).contains(&r));
        }
        *moment.current.get_mut() = Some(before);
    } else {
        moment.common = None;
    }
    Ok((moment, looked))
}

/// Whether it is of no use to ask anything more.
pub(super) fn is_fatal(e: &ApiError) -> bool {
    e.code == 401 || matches!(e.kind, Some(Kind::Unreachable | Kind::Unauthorized))
}

/// Types to count by, best first: those that every namespace has and many may read.
fn anchors(lists: &[List]) -> Vec<String> {
    ["configmaps", "serviceaccounts", "services", "pods"]
        .iter()
        .filter_map(|plural| {
            lists
                .iter()
                .find(|l| l.resource.group.is_empty() && l.resource.plural == *plural)
        })
        .flat_map(paths)
        .collect()
}

/// Where a first look at a type is taken, in the order of preference.
fn paths(list: &List) -> Vec<String> {
    let first = |namespaces: &[String]| {
        namespaces
            .first()
            .map(|namespace| list.resource.path(Some(namespace)))
    };
    match &list.scope {
        Scope::Everywhere { otherwise } => std::iter::once(list.resource.path(None))
            .chain(otherwise.as_deref().and_then(first))
            .collect(),
        Scope::In(namespaces) => first(namespaces).into_iter().collect(),
    }
}

async fn look_at(cluster: &Cluster, mut list: List, budget: &Budget) -> Looked {
    let _share = budget.reserve(1 << 20).await;
    let mut answer = Ok(Glance::default());
    for path in paths(&list) {
        answer = glance(cluster, &path).await;
        if !answer.as_ref().is_err_and(ApiError::is_forbidden) {
            break;
        }
        if let Scope::Everywhere {
            otherwise: Some(namespaces),
        } = &list.scope
        {
            list.scope = Scope::In(namespaces.clone());
        }
    }
    // One of several namespaces may be forbidden: each is asked when its turn comes.
    if let (Scope::In(namespaces), Err(e)) = (&list.scope, &answer)
        && e.is_forbidden()
        && namespaces.len() > 1
    {
        answer = Ok(Glance::default());
    }
    Looked {
        list,
        glance: answer,
        common: false,
    }
}

async fn glance(cluster: &Cluster, path: &str) -> Result<Glance, ApiError> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        metadata: Meta,
        items: Option<Vec<serde::de::IgnoredAny>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Meta {
        resource_version: String,
        remaining_item_count: Option<i64>,
    }
    let body = match cluster
        .get_bounded(&format!("{path}?limit=1"), LARGEST_OBJECT)
        .await
    {
        // Too large to look at is not too large to read.
        Err(e) if e.too_big => return Ok(Glance::default()),
        answer => answer?,
    };
    let list: List = serde_json::from_slice(&body).map_err(|e| ApiError {
        message: format!("{path} answered with something that is no list: {e}"),
        ..ApiError::default()
    })?;
    let more = list.metadata.remaining_item_count.unwrap_or_default();
    Ok(Glance {
        revision: list.metadata.resource_version.parse().ok(),
        objects: list.items.map_or(0, |items| items.len() as u64)
            + u64::try_from(more).unwrap_or_default(),
        bytes: body.len(),
    })
}
