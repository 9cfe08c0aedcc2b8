//! Names of what exists: in the kubeconfig, in the cluster, in the location. Reads only, and as little as will do.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::path::Path;

use backup_core::catalog;
use backup_core::layout::{BACKUPS, RESTORES};
use backup_core::location::Store;
use serde::Deserialize;

use crate::commands::etcd::proposed;
use crate::commands::etcd::scope::ScopeArgs;
use crate::commands::schedule::objects;
use crate::context::Context;
use backup_cli::error::Result;

/// More namespaces are not proposed.
const MOST: usize = 1000;

/// What names are names of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Contexts,
    Clusters,
    Users,
    Namespaces,
    /// Several, with commas between.
    NamespaceLists,
    /// The same.
    ContextLists,
    Workspaces,
    Backups,
    Schedules,
    ScheduleObjects,
    Restores,
    Locations,
    /// What follows is of hosted control planes.
    HostedClusters,
    Snapshots,
    EtcdSchedules,
    EtcdRestores,
    Destinations,
}

impl Names {
    /// Whether several stand in one word, with commas between.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::NamespaceLists | Self::ContextLists)
    }
}

/// The names, sorted.
///
/// # Errors
/// Whatever keeps them from being read.
pub(super) async fn look(
    names: Names,
    context: &Context,
    scope: &ScopeArgs,
) -> Result<Vec<String>> {
    let found: BTreeSet<String> = match names {
        Names::Contexts | Names::ContextLists => {
            let all = context.kubeconfig()?.contexts.into_iter();
            all.map(|one| one.name).collect()
        }
        Names::Clusters => {
            let all = context.kubeconfig()?.clusters.into_iter();
            all.map(|one| one.name).collect()
        }
        Names::Users => {
            let all = context.kubeconfig()?.auth_infos.into_iter();
            all.map(|one| one.name).collect()
        }
        Names::Namespaces | Names::NamespaceLists => namespaces(context).await?,
        Names::Workspaces => workspaces(&context.paths.workspaces()),
        Names::Backups => folders(context, BACKUPS).await?,
        Names::Restores => folders(context, RESTORES).await?,
        Names::Schedules => {
            let mut found = BTreeSet::new();
            for place in context.every_place().await? {
                let (entries, _) = catalog::list(&place.location.store).await?;
                found.extend(entries.into_iter().filter_map(|mut entry| {
                    let labels = &mut entry.backup.metadata.labels;
                    labels.remove(catalog::SCHEDULE_NAME)
                }));
            }
            found
        }
        Names::ScheduleObjects => of(objects::names(context).await?),
        Names::Locations => {
            let all = context.sources().await?.0.into_iter();
            all.flat_map(|source| source.locations)
                .map(|location| location.metadata.name)
                .collect()
        }
        Names::HostedClusters => of(proposed::clusters(context).await?),
        Names::Snapshots => of(proposed::snapshots(context, scope).await?),
        Names::EtcdSchedules => of(proposed::schedules(context, scope).await?),
        Names::EtcdRestores => of(proposed::restores(context, scope).await?),
        Names::Destinations => of(proposed::destinations(context, scope).await?),
    };
    Ok(found.into_iter().collect())
}

fn of(names: Vec<String>) -> BTreeSet<String> {
    names.into_iter().collect()
}

/// The files of a folder that may not be there.
fn workspaces(folder: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |file: DirEntry| Some(file.file_name().to_str()?.strip_suffix(".yaml")?.to_owned());
    files.filter_map(name).collect()
}

/// Names of folders: the markers in them are not read.
async fn folders(context: &Context, root: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for place in context.every_place().await? {
        let store: &Store = &place.location.store;
        found.extend(store.folders(root).await?);
    }
    Ok(found)
}

async fn namespaces(context: &Context) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
    }
    let path = format!("/api/v1/namespaces?limit={MOST}");
    let cluster = context.cluster().await?;
    let body = cluster.get(&path).await.map_err(backup_core::Error::from)?;
    let list: List = serde_json::from_slice(&body)
        .map_err(|e| backup_core::Error::other("the answer is no list").because(e))?;
    Ok(list
        .items
        .into_iter()
        .map(|item| item.metadata.name)
        .collect())
}
