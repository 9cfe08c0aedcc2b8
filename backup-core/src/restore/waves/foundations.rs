//! What must stand before anything can be made on it: definitions that are served, and namespaces.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use super::super::apply::Known;
use super::super::gather::{self, Resource};
use super::super::{order, plan, target};
use super::Waves;
use crate::archive::read::{Object, Source};
use crate::archive::row::{ResourceRow, Row};
use crate::cluster::Cluster;
use crate::discovery::{self, ApiResource};
use crate::error::{Error, Kind, Result};

/// How long a definition may take to be served.
const ESTABLISHED: Duration = Duration::from_secs(600);

impl<S: Source> Waves<'_, S> {
    /// Waits until the definitions of this restore are served.
    pub(super) async fn defined(&mut self) -> Result<()> {
        if self.applier.is_dry() || self.state.definitions.is_empty() {
            return Ok(());
        }
        let Some(crds) = self
            .served
            .all
            .iter()
            .find(|api| api.group_resource() == order::CRDS)
            .cloned()
        else {
            return Ok(());
        };
        self.progress.step(&format!(
            "waiting for {} definitions to be served",
            self.state.definitions.len()
        ));
        let until = Instant::now() + ESTABLISHED;
        let cluster = &self.applier.cluster;
        let late: Vec<Result<Option<String>>> =
            futures::stream::iter(self.state.definitions.iter().cloned())
                .map(|name| established(cluster, &crds, name, until))
                .buffer_unordered(8)
                .collect()
                .await;
        for name in late {
            if let Some(name) = name? {
                self.record.warn(
                    None,
                    format!("definition {name} was not established within 10 minutes"),
                )?;
            }
        }
        let wanted: Vec<Arc<Resource>> = self
            .survey
            .resources
            .iter()
            .filter(|r| self.state.definitions.contains(&r.name))
            .cloned()
            .collect();
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match discovery::discover(&self.applier.cluster).await {
                Ok(served) => self.served = served,
                Err(e) if e.kind() == Kind::Unreachable && Instant::now() < until => {}
                Err(e) => return Err(e),
            }
            if wanted.iter().all(|r| self.target(r).is_some()) || Instant::now() >= until {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Namespaces that objects need and the archive does not hold are made empty.
    pub(super) async fn plain_namespaces(&mut self) -> Result<()> {
        let held: HashSet<String> = match self
            .survey
            .resources
            .iter()
            .find(|r| r.name == order::NAMESPACES)
        {
            Some(resource) => {
                let mut held = HashSet::new();
                for frame in &resource.frames {
                    let rows = gather::rows(self.archive, self.filter, resource, *frame).await?;
                    held.extend(rows.into_iter().map(|row| row.name));
                }
                held
            }
            None => HashSet::new(),
        };
        let api = ApiResource {
            version: "v1".into(),
            plural: order::NAMESPACES.into(),
            kind: "Namespace".into(),
            verbs: vec!["create".into()],
            ..ApiResource::default()
        };
        let resource = Arc::new(Resource {
            name: order::NAMESPACES.into(),
            row: ResourceRow {
                resource: order::NAMESPACES.into(),
                version: "v1".into(),
                kind: "Namespace".into(),
                ..ResourceRow::default()
            },
            place: order::place(order::NAMESPACES),
            wanted: plan::Wanted::default(),
            count: 0,
            namespaces: BTreeSet::new(),
            frames: Vec::new(),
            children: Vec::new(),
            api: api.clone(),
        });
        let api = Arc::new(api);
        let mut made = HashSet::new();
        for old in self
            .survey
            .namespaces
            .difference(&held.into_iter().collect())
        {
            let new = self.applier.rewrite.namespace(old).to_owned();
            if self.state.fresh.contains(&new) || !made.insert(new.clone()) {
                continue;
            }
            let live = target::find_metadata(&self.applier.cluster, &api, None, &new).await;
            match live {
                Ok(Some(live)) if target::Metadata::read(&live).deletion_timestamp.is_none() => {
                    continue;
                }
                // Who may work in one namespace only: its objects will tell.
                Err(e) if e.is_forbidden() => continue,
                Err(e) => return Err(e.into()),
                Ok(_) => {}
            }
            let row = Row {
                name: old.clone(),
                ..Row::default()
            };
            let body = serde_json::json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": old}});
            let object = Object {
                body: Bytes::from(body.to_string()),
                row: row.clone(),
            };
            let ticket = self.ticket(&resource, 0, None, &row);
            self.start(ticket, api.clone(), Known::Unasked, object)
                .await?;
        }
        self.drain().await
    }
}

/// Waits for one definition; gives its name back where that took too long.
async fn established(
    cluster: &Cluster,
    crds: &ApiResource,
    name: String,
    until: Instant,
) -> Result<Option<String>> {
    let mut pause = Duration::from_millis(50);
    loop {
        let Some(body) = target::find(cluster, crds, None, &name).await? else {
            return Ok(None);
        };
        let object: serde_json::Value = serde_json::from_slice(&body)
            .map_err(|e| Error::other(format!("definition {name} can not be read")).because(e))?;
        let is = |kind: &str| {
            object["status"]["conditions"]
                .as_array()
                .is_some_and(|list| {
                    list.iter()
                        .any(|c| c["type"] == kind && c["status"] == "True")
                })
        };
        if is("Established") && is("NamesAccepted") {
            return Ok(None);
        }
        if Instant::now() >= until {
            return Ok(Some(name));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
