//! What has to be known before a backup is planned: what is served, which namespaces there are, who the cluster is. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use super::BackupOptions;
use super::policies::Policies;
use crate::cluster::{ApiError, Cluster, ServerVersion, page};
use crate::discovery::{self, Served};
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::hooks::ask::SpecHooks;
use crate::snapshot::class::Class;
use crate::snapshot::rights;

/// Objects that carry this label with the value `true` are left out; a namespace with it is left out whole.
pub const EXCLUDE_LABEL: &str = "velero.io/exclude-from-backup";

/// A namespace as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Namespace {
    /// Whether [`EXCLUDE_LABEL`] is on it.
    pub(super) excluded: bool,
}

/// By what snapshots of volumes can be made in their storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Offer {
    /// It was not asked, for nobody wants any; or the cluster has no such thing.
    #[default]
    Nothing,
    /// None can be made: why.
    Lacks(String),
    /// By these classes.
    Classes(Vec<Class>),
}

/// What a backup starts from.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    /// The uid of kube-system, where it may be read.
    pub(super) identity: Option<String>,
    /// The server's version, where it tells it.
    pub(super) version: ServerVersion,
    /// What is served.
    pub(super) served: Served,
    /// The filter, its kinds bound to what is served.
    pub(super) filter: Filter,
    /// Kinds of the filter that nothing is served under.
    pub(super) unknown_kinds: Vec<String>,
    /// All namespaces; nothing where they may not be listed.
    pub(super) namespaces: Option<BTreeMap<String, Namespace>>,
    /// Namespaces that were asked for by name and are not there.
    pub(super) missing_namespaces: Vec<String>,
    /// Which volumes are saved how.
    pub(super) policies: Option<Arc<Policies>>,
    /// By what snapshots of volumes can be made.
    pub(super) offer: Offer,
    /// Which hooks the backup's spec asks for; nothing where none are run, whatever pods say.
    pub(super) hooks: Option<Arc<SpecHooks>>,
    /// `group/version` of what other servers answer, through an APIService.
    pub(super) aggregated: BTreeSet<String>,
}

/// Asks the cluster.
///
/// # Errors
/// When the cluster is not reached, or nothing of what was asked for can be in it.
pub(super) async fn gather(cluster: &Cluster, options: &BackupOptions) -> Result<Gathered> {
    let identity = cluster.identity().await?;
    let (version, served, namespaces, aggregated) = futures::join!(
        cluster.version(),
        discovery::discover(cluster),
        list_namespaces(cluster),
        list_aggregated(cluster)
    );
    let served = served?;
    let namespaces = match namespaces {
        Ok(namespaces) => Some(namespaces),
        Err(e) if e.is_forbidden() => None,
        Err(e) => return Err(Error::from(e).context("can not list namespaces")),
    };
    let (mut filter, mut unknown_kinds) = options.filter.resolve(&served.all);
    if let Some(policies) = &options.policies {
        let (weaker, unknown) = policies.filter().resolve(&served.all);
        filter = filter.over(&weaker);
        unknown_kinds.extend(unknown);
    }
    let hooks = SpecHooks::read(&options.template.hooks)?.resolve(&served.all);
    if served.gaps.is_empty() && options.filter.names_only(&unknown_kinds) {
        return Err(Error::not_found(format!(
            "the server has none of the kinds to back up: {}",
            unknown_kinds.join(", ")
        ))
        .hint("`kubectl api-resources` lists those it has"));
    }
    let named = filter.named_namespaces();
    let mut missing_namespaces = Vec::new();
    match (&namespaces, &named) {
        (None, None) => {
            return Err(Error::new(
                Kind::Forbidden,
                "this user may not list namespaces, so neither the whole cluster nor a pattern of namespaces can be backed up",
            )
            .hint("name what you may read with -n NAMESPACE, or use a context with more rights"));
        }
        (Some(there), Some(named)) => {
            missing_namespaces = named
                .iter()
                .filter(|name| !there.contains_key(*name))
                .cloned()
                .collect();
        }
        (None, Some(named)) => {
            for name in named {
                let path = format!("/api/v1/namespaces/{name}");
                // Who may not even read it is believed.
                if cluster.get(&path).await.is_err_and(|e| e.is_not_found()) {
                    missing_namespaces.push(name.clone());
                }
            }
        }
        (Some(_), None) => {}
    }
    if let (Some(named), false) = (&named, missing_namespaces.is_empty())
        && missing_namespaces.len() == named.len()
    {
        return Err(Error::not_found(format!(
            "there is no namespace {} in this cluster",
            missing_namespaces.join(", ")
        ))
        .hint("`kubectl get namespaces` lists them; check the context as well"));
    }
    let offer = match options.may_snapshot() {
        true => {
            offer(
                cluster,
                &served,
                options.single_namespace.then_some(named).flatten(),
            )
            .await
        }
        false => Offer::Nothing,
    };
    Ok(Gathered {
        identity,
        version: version.unwrap_or_default(),
        served,
        filter,
        unknown_kinds,
        namespaces,
        missing_namespaces,
        policies: options.policies.clone(),
        offer,
        hooks: Some(Arc::new(hooks)),
        aggregated,
    })
}

/// By what snapshots can be made, in these namespaces or in all.
async fn offer(cluster: &Cluster, served: &Served, namespaces: Option<Vec<String>>) -> Offer {
    let is_it = |resource: &&Arc<discovery::ApiResource>| {
        resource.group == "snapshot.storage.k8s.io"
            && resource.version == "v1"
            && resource.plural == "volumesnapshots"
    };
    if !served.all.iter().any(|resource| is_it(&resource)) {
        return Offer::Nothing;
    }
    let path = format!("/apis/{}/volumesnapshotclasses", crate::snapshot::API);
    let classes: Vec<Class> = match list_small(cluster, &path).await {
        Ok(classes) => classes,
        Err(e) => return Offer::Lacks(format!("its VolumeSnapshotClasses can not be listed: {e}")),
    };
    let places: Vec<Option<&str>> = match &namespaces {
        Some(names) => names.iter().map(|name| Some(name.as_str())).collect(),
        None => vec![None],
    };
    for place in places {
        if let Some(why) = rights::missing(cluster, place).await {
            return Offer::Lacks(why);
        }
    }
    Offer::Classes(classes)
}

impl Gathered {
    /// Whether objects of this namespace are saved.
    pub(super) fn wants_namespace(&self, name: &str) -> bool {
        self.filter.namespace(name)
            && !self
                .namespaces
                .as_ref()
                .and_then(|all| all.get(name))
                .is_some_and(|namespace| namespace.excluded)
    }

    /// The namespaces that are saved, as far as they are known; nothing where that is all of them, whatever they are.
    pub(super) fn wanted_namespaces(&self) -> Option<Vec<String>> {
        if self.filter.all_namespaces() {
            return None;
        }
        let candidates = match &self.namespaces {
            Some(all) => all.keys().cloned().collect(),
            None => self.filter.named_namespaces()?,
        };
        Some(
            candidates
                .into_iter()
                .filter(|name| self.wants_namespace(name))
                .collect(),
        )
    }
}

pub(super) async fn list_namespaces(
    cluster: &Cluster,
) -> std::result::Result<BTreeMap<String, Namespace>, ApiError> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        name: String,
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
    }
    let objects: Vec<Object> = list_small(cluster, "/api/v1/namespaces").await?;
    Ok(objects
        .into_iter()
        .map(|object| {
            let labels = object.metadata.labels.unwrap_or_default();
            let excluded = labels.get(EXCLUDE_LABEL).is_some_and(|v| v == "true");
            (object.metadata.name, Namespace { excluded })
        })
        .collect())
}

/// Which group versions are answered by other servers. Without the right to know, the revisions themselves have to tell.
async fn list_aggregated(cluster: &Cluster) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        group: String,
        version: String,
        service: Option<serde::de::IgnoredAny>,
    }
    let objects: Vec<Object> = list_small(cluster, "/apis/apiregistration.k8s.io/v1/apiservices")
        .await
        .unwrap_or_default();
    objects
        .into_iter()
        .filter(|object| object.spec.service.is_some())
        .map(|object| format!("{}/{}", object.spec.group, object.spec.version))
        .collect()
}

/// Every object of a type of which little is kept, page by page.
async fn list_small<T: for<'de> Deserialize<'de>>(
    cluster: &Cluster,
    path: &str,
) -> std::result::Result<Vec<T>, ApiError> {
    #[derive(Deserialize)]
    struct List<T> {
        #[serde(default)]
        metadata: ListMeta,
        items: Option<Vec<T>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct ListMeta {
        #[serde(rename = "continue")]
        token: String,
    }
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let body = match cluster.get(&page(path, 500, &token)).await {
            // What was seen before is as good as what the newer revision shows: only names are kept.
            Err(e) if e.is_expired() && e.continue_token.is_some() => {
                token = e.continue_token.unwrap_or_default();
                continue;
            }
            answer => answer?,
        };
        let list: List<T> = serde_json::from_slice(&body).map_err(|e| ApiError {
            message: format!("{path} answered with something that is no list: {e}"),
            ..ApiError::default()
        })?;
        all.extend(list.items.unwrap_or_default());
        if list.metadata.token.is_empty() || list.metadata.token == token {
            return Ok(all);
        }
        token = list.metadata.token;
    }
}
