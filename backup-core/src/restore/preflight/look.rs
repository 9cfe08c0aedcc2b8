//! Gathers what [`super::decide`] decides by: one pass over the few kinds of the archive that name something else, and a few lists of the target,
//! only of what is asked for. Where a class or a port lacks then, a second pass leaves out what stands and is left as it is. Changes nothing:
//! the one POST besides questions about rights is a trial (`dryRun=All`) of a node port that no range has, to which the server answers
//! with its range; a dry run by the client alone does without.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::super::apply::Promise;
use super::super::bodies::Bodies;
use super::super::gather::{self, Resource, Survey};
use super::super::rewrite::{Rewrite, Side};
use super::super::target::{self, Seens};
use super::super::{ExistingPolicy, order, plan, versions};
use super::{
    Brought, Found, Has, INGRESS, Kind, Lack, Needs, PRIORITY, RUNTIME, STORAGE, Services,
};
use crate::archive::read::{Archive, Object, Source};
use crate::archive::row::Row;
use crate::cluster::{ApiError, Call, Cluster};
use crate::discovery::{ApiResource, Served};
use crate::error::{self, Error, Result};
use crate::filter::Filter;

/// The kinds of which objects name something that a target may lack.
const NAMING: [&str; 10] = [
    "persistentvolumes",
    "persistentvolumeclaims",
    "services",
    "pods",
    "ingresses.networking.k8s.io",
    "deployments.apps",
    "daemonsets.apps",
    "statefulsets.apps",
    "jobs.batch",
    "cronjobs.batch",
];
/// Objects of one page of a list.
const PAGE: usize = 500;
/// Pages of a list that are looked at.
const PAGES: usize = 1000;
/// Annotations that make a storage class the default one.
const DEFAULT: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// A look at archive and target before a restore.
pub(in super::super) struct Look<'l, S> {
    pub(in super::super) cluster: &'l Cluster,
    pub(in super::super) archive: &'l Archive<S>,
    pub(in super::super) filter: &'l Filter,
    pub(in super::super) survey: &'l Survey,
    pub(in super::super) served: &'l Served,
    pub(in super::super) rewrite: &'l Rewrite,
    pub(in super::super) existing: ExistingPolicy,
    /// Whether the server may be asked to try something.
    pub(in super::super) tries: bool,
}

/// What the target has of what the archive holds, as far as that needs nothing any more.
struct Standing {
    /// By resource.
    objects: BTreeMap<String, Seens>,
    /// Namespaces, where they may be listed.
    namespaces: Seens,
    /// Volumes that no claim is bound to at the moment, as far as their promises go.
    volumes: HashMap<String, Value>,
}

impl<S: Source> Look<'_, S> {
    /// What the target lacks.
    ///
    /// # Errors
    /// The archive's; of the target, that it is not reached.
    pub(in super::super) async fn run(&self) -> Result<Found> {
        let needs = self.needs(None).await?;
        let mut brought = Brought::new();
        for resource in needs.classes() {
            brought.insert(resource, self.names(resource).await?);
        }
        let has = self.has(&needs).await?;
        let kinds = self.unserved().await?;
        let mut found = super::decide(&needs, &has, &brought, &kinds, self.served);
        if found.lacks.iter().any(Lack::is_of_objects) {
            let standing = self.standing().await?;
            let needs = self.needs(Some(&standing)).await?;
            found = super::decide(&needs, &has, &brought, &kinds, self.served);
        }
        if !self.tries && needs.has_ports() {
            found.notes.push(
                "whether node ports are in the target's range is only told with --dry-run=server"
                    .to_owned(),
            );
        }
        self.rights(&mut found).await?;
        Ok(found)
    }

    /// The kinds for which the target serves no version that fits: how many of their objects would be restored, and what a definition that
    /// comes along serves.
    async fn unserved(&self) -> Result<Vec<Kind<'_>>> {
        let resources = self.survey.resources.iter();
        let unserved = resources.filter(|resource| self.target(resource).is_none());
        let mut kinds: Vec<Kind<'_>> = Vec::new();
        for resource in unserved {
            let mut count = resource.count;
            if plan::is_judged_by_body(&resource.name) {
                count = 0;
                self.each_body(
                    resource,
                    |_| true,
                    |_, body| {
                        let out = plan::left_out(&resource.name, body, &self.survey.volumes)?;
                        count += u64::from(out.is_none());
                        Ok(())
                    },
                )
                .await?;
            }
            if count > 0 {
                kinds.push(Kind {
                    api: &resource.api,
                    count,
                    defined: None,
                    redefined: self.existing != ExistingPolicy::None,
                });
            }
        }
        let mut resources = self.survey.resources.iter();
        let Some(definitions) = resources.find(|r| r.name == order::CRDS) else {
            return Ok(kinds);
        };
        let mut defined = BTreeMap::new();
        let asked = |row: &Row| {
            kinds
                .iter()
                .any(|kind| kind.api.group_resource() == row.name)
        };
        self.each_body(definitions, asked, |row, body| {
            defined.insert(row.name.clone(), versions::defined(body));
            Ok(())
        })
        .await?;
        for kind in &mut kinds {
            kind.defined = defined.remove(&kind.api.group_resource());
        }
        Ok(kinds)
    }

    /// Shows the bodies of those of a resource's wanted objects that are `asked` for. What is damaged is named when it should be created.
    async fn each_body(
        &self,
        resource: &Resource,
        asked: impl Fn(&Row) -> bool,
        mut show: impl FnMut(&Row, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for frame in &resource.frames {
            let mut rows = gather::rows(self.archive, self.filter, resource, *frame).await?;
            rows.retain(|row| asked(row));
            let mut bodies = Bodies::new(self.archive, rows);
            while let Some((row, object)) = bodies.next().await {
                match object.and_then(|object| show(&row, &object.body)) {
                    Err(e) if e.kind() == error::Kind::Corrupt => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Names of the wanted objects of a cluster-scoped resource.
    async fn names(&self, resource: &str) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for resource in self.survey.resources.iter().filter(|r| r.name == resource) {
            for frame in &resource.frames {
                let rows = gather::rows(self.archive, self.filter, resource, *frame).await?;
                names.extend(rows.into_iter().map(|row| row.name));
            }
        }
        Ok(names)
    }

    /// What the wanted objects need; without those that stand, where that is known.
    async fn needs(&self, standing: Option<&Standing>) -> Result<Needs> {
        let mut needs = Needs::default();
        let open = Rewrite {
            missing_classes: BTreeSet::new(),
            ..self.rewrite.clone()
        };
        let naming = self.survey.resources.iter();
        for resource in naming.filter(|r| NAMING.contains(&r.name.as_str())) {
            for frame in &resource.frames {
                let mut rows = gather::rows(self.archive, self.filter, resource, *frame).await?;
                if let Some(standing) = standing {
                    rows.retain(|row| self.counts(resource, row, standing));
                }
                let mut bodies = Bodies::new(self.archive, rows);
                while let Some((row, object)) = bodies.next().await {
                    let learned = object.and_then(|object| {
                        self.learn(&mut needs, &open, resource, &row, &object, standing)
                    });
                    match learned {
                        // Named when it should be created.
                        Err(e)
                            if matches!(e.kind(), error::Kind::Corrupt | error::Kind::Invalid) => {}
                        other => other?,
                    }
                }
            }
        }
        Ok(needs)
    }

    /// What the target has of the kinds that name something else. What may not be listed is not known to stand.
    async fn standing(&self) -> Result<Standing> {
        let mut objects = BTreeMap::new();
        for resource in &self.survey.resources {
            let Some(api) = self.target(resource).filter(|_| is_left(&resource.name)) else {
                continue;
            };
            let namespaces = resource.namespaces.iter();
            let namespaces = namespaces.map(|n| self.rewrite.namespace(n).to_owned());
            let restore = &self.rewrite.restore;
            let seens = target::look_in(self.cluster, api, &namespaces.collect(), restore).await?;
            objects.extend(seens.map(|seens| (resource.name.clone(), seens)));
        }
        let mut namespaces = Seens::default();
        let mut all = self.served.all.iter();
        if let Some(api) = all.find(|api| api.group_resource() == order::NAMESPACES) {
            let none = BTreeSet::new();
            let seens = target::look_in(self.cluster, api, &none, &self.rewrite.restore).await?;
            namespaces = seens.unwrap_or_default();
        }
        let mut volumes = HashMap::new();
        self.each("persistentvolumes", |volume| {
            let (spec, phase) = (&volume["spec"], &volume["status"]["phase"]);
            if let Some(name) = volume["metadata"]["name"].as_str().filter(|_| *phase != "Bound") {
                let promise = json!({
                    "spec": {"claimRef": spec["claimRef"], "persistentVolumeReclaimPolicy": spec["persistentVolumeReclaimPolicy"]},
                    "status": {"phase": phase},
                });
                volumes.insert(name.to_owned(), promise);
            }
        })
        .await?;
        Ok(Standing {
            objects,
            namespaces,
            volumes,
        })
    }

    /// Whether an object may need anything: a claim that stands never gets another class, and others are left as they are unless something
    /// else was asked for or this restore made them.
    fn counts(&self, resource: &Resource, row: &Row, standing: &Standing) -> bool {
        let here = row.namespace.as_deref().map(|n| self.rewrite.namespace(n));
        let seens = standing.objects.get(&resource.name);
        let seen = seens.and_then(|seens| seens.get(here, &row.name));
        // What is being deleted is waited for, and made anew.
        let Some(seen) = seen.filter(|seen| !seen.going) else {
            return true;
        };
        let namespace = here.and_then(|here| standing.namespaces.get(None, here));
        if namespace.is_some_and(|namespace| namespace.going) {
            return true;
        }
        resource.name != gather::CLAIMS
            && self.existing != ExistingPolicy::None
            && !seen.is_made_from(&row.uid)
    }

    fn learn(
        &self,
        needs: &mut Needs,
        open: &Rewrite,
        resource: &Resource,
        row: &Row,
        object: &Object,
        standing: Option<&Standing>,
    ) -> Result<()> {
        let (name, body) = (&resource.name, &object.body);
        if plan::left_out(name, body, &self.survey.volumes)?.is_some() {
            return Ok(());
        }
        let unreadable = |e| Error::corrupt("not a Kubernetes object").because(e);
        let here = row.namespace.as_deref().map(|n| self.rewrite.namespace(n));
        let (shaped, refused) = match self.rewrite.shape(name, body, Side::Backup) {
            Err(e) if e.kind() == error::Kind::Invalid => {
                (open.shape(name, body, Side::Backup)?, true)
            }
            shaped => (shaped?, false),
        };
        let path = match here {
            Some(namespace) => format!("{namespace}/{}", shaped.name),
            None => shaped.name.clone(),
        };
        let body: Value = serde_json::from_slice(&shaped.object.to_vec()).map_err(unreadable)?;
        if refused {
            needs.mapped(name, &path, &body, &self.rewrite.missing_classes);
            return Ok(());
        }
        if let Some(standing) = standing.filter(|_| *name == gather::CLAIMS) {
            let claim: Value = serde_json::from_slice(&object.body).map_err(unreadable)?;
            let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
            let live = standing.volumes.get(volume);
            // It is bound to it by its name, and is not asked for its class.
            if let Some(Promise::Kept | Promise::Released) =
                live.map(|live| Promise::of(live, here, &row.name))
            {
                return Ok(());
            }
        }
        needs.learn(name, &path, &body);
        Ok(())
    }

    async fn has(&self, needs: &Needs) -> Result<Has> {
        let mut has = Has::default();
        for resource in needs.classes() {
            let mut names = BTreeSet::new();
            let mut default = false;
            let known = self
                .each(resource, |item| {
                    let metadata = &item["metadata"];
                    names.extend(metadata["name"].as_str().map(str::to_owned));
                    default |= DEFAULT
                        .iter()
                        .any(|key| metadata["annotations"][*key] == "true");
                })
                .await?;
            let names = known.then_some(names);
            match resource {
                STORAGE => (has.storage, has.default_storage) = (names, default),
                INGRESS => has.ingress = names,
                PRIORITY => has.priority = names,
                RUNTIME => has.runtime = names,
                _ => {}
            }
        }
        if needs.asks_services() {
            let mut services = Services::default();
            let known = self
                .each("services", |service| services.learn(service))
                .await?;
            has.services = known.then_some(services);
        }
        if self.tries && needs.has_ports() {
            has.range = self.range().await?;
        }
        Ok(has)
    }

    /// Shows every object of a resource of the target; false where they may not be listed.
    async fn each(&self, resource: &str, mut show: impl FnMut(&Value)) -> Result<bool> {
        let mut apis = self.served.all.iter();
        let Some(api) = apis.find(|api| api.group_resource() == resource) else {
            return Ok(true);
        };
        let mut token = String::new();
        for _ in 0..PAGES {
            let path = format!("{}?limit={PAGE}{token}", api.path(None));
            let body = match self.cluster.get(&path).await {
                Ok(body) => body,
                Err(e) => return nothing::<()>(e).map(|_| false),
            };
            let page: Value = serde_json::from_slice(&body)
                .map_err(|e| Error::other(format!("{resource} can not be read")).because(e))?;
            page["items"]
                .as_array()
                .into_iter()
                .flatten()
                .for_each(&mut show);
            match page["metadata"]["continue"].as_str() {
                Some(next) if !next.is_empty() => {
                    let next = url::form_urlencoded::byte_serialize(next.as_bytes());
                    token = format!("&continue={}", next.collect::<String>());
                }
                _ => break,
            }
        }
        Ok(true)
    }

    /// The target's range of node ports, as it tells it to who asks for a port that is in none.
    async fn range(&self) -> Result<Option<(u16, u16)>> {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"generateName": "kubectl-backup-"},
            "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": 65535}]}});
        let path = "/api/v1/namespaces/default/services?dryRun=All";
        match self
            .cluster
            .send(&Call::post(path, service.to_string().into()))
            .await
        {
            Ok(_) => Ok(None),
            Err(e) => {
                let range = read_range(&e.message);
                nothing::<()>(e)?;
                Ok(range)
            }
        }
    }

    pub(super) fn target(&self, resource: &Resource) -> Option<&ApiResource> {
        versions::target(&resource.api, self.served).map(AsRef::as_ref)
    }
}

/// Whether objects of this kind need nothing where they stand and are left alone. What a volume says of its class counts all the same.
fn is_left(resource: &str) -> bool {
    NAMING.contains(&resource) && resource != gather::VOLUMES
}

/// What the server refuses to tell is not known; a server that is gone is an error.
pub(super) fn nothing<T>(e: ApiError) -> Result<Option<T>> {
    if e.code == 0 || e.code == 401 {
        Err(e.into())
    } else {
        Ok(None)
    }
}

/// `... The range of valid ports is 30000-32767`
fn read_range(message: &str) -> Option<(u16, u16)> {
    let (_, rest) = message.split_once("The range of valid ports is ")?;
    let (first, rest) = rest.split_once('-')?;
    let last: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_range_of_node_ports_is_read_from_what_it_refuses() {
        let said = r#"Service "x" is invalid: spec.ports[0].nodePort: Invalid value: 65535: provided port is not in the valid range. The range of valid ports is 30000-32767"#;
        assert_eq!(read_range(said), Some((30000, 32767)));
        assert_eq!(read_range("forbidden"), None);
    }
}
