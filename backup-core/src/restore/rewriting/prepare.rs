//! What a rewrite needs to know of the target and of the backup, asked before it begins.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::super::gather::{self, Resource, Survey};
use super::super::rewrite::modifiers::{Document, Schemas};
use super::super::versions;
use super::{LARGEST_ANSWER, Rewriting};
use crate::archive::read::{Archive, Source};
use crate::cluster::{ApiError, Cluster};
use crate::discovery::{ApiResource, Served};
use crate::error::Result;
use crate::filter::{Filter, Verdict};

/// Kinds that have a storage class.
const CLASSED: [&str; 3] = [
    "persistentvolumeclaims",
    "persistentvolumes",
    "statefulsets.apps",
];

const CLASSES: &str = "storageclasses.storage.k8s.io";

/// What rewriting needs to know of the target and of the backup.
#[derive(Debug, Default)]
pub(in crate::restore) struct Prepared {
    /// Resources whose status comes back, unless an object says otherwise.
    pub(in crate::restore) status: HashSet<String>,
    /// How kinds are merged.
    pub(in crate::restore) schemas: Schemas,
    /// Resources of which objects may be sent in another version than they had, as `apiVersion`.
    pub(in crate::restore) moved: HashMap<String, String>,
}

/// Asks the target what the rewrites need. Beside it, what the user should know.
///
/// # Errors
/// The archive's; why the server is not reached.
pub(in crate::restore) async fn prepare<S: Source>(
    cluster: &Cluster,
    rewriting: &Rewriting,
    archive: &Archive<S>,
    survey: &Survey,
    served: &Served,
) -> Result<(Prepared, Vec<String>)> {
    let mut prepared = Prepared::default();
    let mut warnings = Vec::new();
    let targets = survey.resources.iter();
    let targets: Vec<_> = targets
        .filter_map(|r| Some((r, versions::target(&r.api, served)?)))
        .collect();
    prepared.moved = versions::moved(survey.resources.iter().map(|r| &r.api), served);
    if let Some(status) = &rewriting.status {
        let (bound, unknown) = gather::bind(&status.filter(), archive.index.resources(), served);
        warnings.extend(unknown.iter().map(|kind| {
            let kind = kind.trim_end_matches('.');
            format!("the backup knows no kind {kind:?} whose status could be restored")
        }));
        let wanted = survey
            .resources
            .iter()
            .filter(|r| bound.resource(&r.api) == Verdict::In);
        prepared.status = wanted.map(|r| r.name.clone()).collect();
    }
    if let Some(modifiers) = &rewriting.modifiers {
        let needing = targets.iter();
        let needing = needing.filter(|(r, _)| modifiers.needs_schema(&r.name));
        let versions: BTreeSet<String> = needing.map(|(_, api)| api.api_version()).collect();
        for version in versions {
            let document = schema(cluster, &version).await?;
            prepared.schemas.insert(&version, document);
        }
    }
    Ok((prepared, warnings))
}

/// New storage classes that the target does not have and this restore does not bring.
///
/// # Errors
/// The archive's; why the server is not reached.
pub(in crate::restore) async fn missing_classes<S: Source>(
    cluster: &Cluster,
    rewriting: &Rewriting,
    archive: &Archive<S>,
    filter: &Filter,
    survey: &Survey,
) -> Result<BTreeSet<String>> {
    let classed = |r: &Arc<Resource>| CLASSED.contains(&r.name.as_str());
    let mut wanted: BTreeSet<&String> = rewriting.storage_classes.values().collect();
    if wanted.is_empty() || !survey.resources.iter().any(classed) {
        return Ok(BTreeSet::new());
    }
    if let Some(classes) = survey.resources.iter().find(|r| r.name == CLASSES) {
        for frame in &classes.frames {
            for row in gather::rows(archive, filter, classes, *frame).await? {
                wanted.remove(&row.name);
            }
        }
    }
    let api = ApiResource {
        group: "storage.k8s.io".into(),
        version: "v1".into(),
        plural: "storageclasses".into(),
        ..ApiResource::default()
    };
    let mut missing = BTreeSet::new();
    for class in wanted {
        match cluster.get(&api.object_path(None, class)).await {
            Ok(_) => {}
            Err(e) if e.is_not_found() => drop(missing.insert(class.clone())),
            Err(e) if e.code == 0 || e.code == 401 => return Err(e.into()),
            // Who may not look goes by what the mapping says.
            Err(_) => {}
        }
    }
    Ok(missing)
}

/// The target's document of one group and version, or why there is none.
async fn schema(cluster: &Cluster, version: &str) -> Result<Result<Document, String>> {
    let root = if version.contains('/') { "apis" } else { "api" };
    let path = format!("/openapi/v3/{root}/{version}");
    Ok(match cluster.get_bounded(&path, LARGEST_ANSWER).await {
        Ok(body) => Document::read(&body).map_err(|e| e.sentence()),
        Err(e @ ApiError { code: 0 | 401, .. }) => return Err(e.into()),
        Err(e) => Err(e.to_string()),
    })
}
