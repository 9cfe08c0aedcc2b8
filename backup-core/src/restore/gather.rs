//! What the archive holds of what was asked for: one pass over the index before anything is changed, and the few bodies on which others depend.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use super::bodies::Bodies;
use super::disks::Disks;
use super::order::{self, Place};
use super::plan::{self, Wanted};
use super::volumes::Volumes;
use crate::apart;
use crate::archive::SECRETS;
use crate::archive::read::{Archive, Source};
use crate::archive::row::{Outcome, ResourceRow, Row};
use crate::discovery::{ApiResource, Served};
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::name::Name;

pub(super) const VOLUMES: &str = "persistentvolumes";
pub(super) const CLAIMS: &str = "persistentvolumeclaims";
const PRIORITIES: &str = "priorityclasses.scheduling.k8s.io";

/// One API resource of the backup and what is wanted of it.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    /// Its name, `deployments.apps`.
    pub(super) name: String,
    /// Its line in the index.
    pub(super) row: ResourceRow,
    /// The same for filters, with the target's short names.
    pub(super) api: ApiResource,
    /// When it is restored.
    pub(super) place: Place,
    /// Which objects.
    pub(super) wanted: Wanted,
    /// How many they are.
    pub(super) count: u64,
    /// Their namespaces in the backup.
    pub(super) namespaces: BTreeSet<String>,
    /// Frames of the index that hold any of them.
    pub(super) frames: Vec<usize>,
    /// Frames that hold objects with owners.
    pub(super) children: Vec<usize>,
}

impl Resource {
    fn new(row: &ResourceRow, api: ApiResource, wanted: Wanted) -> Self {
        Self {
            name: row.resource.clone(),
            place: order::place(&row.resource),
            wanted,
            row: row.clone(),
            api,
            count: 0,
            namespaces: BTreeSet::new(),
            frames: Vec::new(),
            children: Vec::new(),
        }
    }
}

/// Everything that is wanted.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// In the order of restoring.
    pub(super) resources: Vec<Arc<Resource>>,
    /// Uids that wanted objects name as their owners.
    pub(super) owners: HashSet<Uuid>,
    /// Namespaces of wanted objects, in the backup's names.
    pub(super) namespaces: BTreeSet<String>,
    /// Volumes that are restored as they are.
    pub(super) kept_volumes: HashSet<String>,
    /// Those that are not made, for the sake of their disks, and that their claims go on to name, with why.
    pub(super) awaited_volumes: BTreeMap<String, String>,
    /// Volumes whose data the backup has.
    pub(super) volumes: Arc<Volumes>,
    /// What the backup lacks of what is wanted, and what it asks for in vain; a sentence each.
    pub(super) warnings: Vec<String>,
}

impl Survey {
    /// Objects wanted.
    pub(super) fn total(&self) -> u64 {
        self.resources.iter().map(|r| r.count).sum()
    }

    /// Claims whose volumes are not made are provisioned anew.
    pub(super) fn awaits_nothing(&mut self) {
        for name in std::mem::take(&mut self.awaited_volumes).keys() {
            self.kept_volumes.remove(name);
        }
    }

    /// Reads the index.
    ///
    /// # Errors
    /// `NotFound` for a single object that was asked for and is not there; the archive's.
    pub(super) async fn take<S: Source>(
        archive: &Archive<S>,
        filter: &Filter,
        served: &Served,
        mut volumes: Volumes,
    ) -> Result<Self> {
        let mut survey = Self::default();
        let mut missing: BTreeSet<&str> = filter.objects.iter().map(String::as_str).collect();
        let mut resources: BTreeMap<String, Resource> = BTreeMap::new();
        for row in archive.index.resources() {
            let api = describe(row, served);
            if plan::is_handle(&row.resource) && row.count > 0 {
                let handles = Resource {
                    frames: (0..archive.index.frames(&row.resource)).collect(),
                    ..Resource::new(row, api.clone(), Wanted::of(&Filter::default(), &api))
                };
                for_each_body(archive, &Filter::default(), &handles, |body| {
                    volumes.learn_snapshot(body)
                })
                .await?;
            }
            if plan::is_never(&row.resource) {
                continue;
            }
            if row.outcome == Outcome::Failed && wants(filter, row, &api) {
                survey.warnings.push(format!(
                    "the backup has a gap: {} could not be read{} when it was made: {}",
                    row.resource,
                    if row.count > 0 { " whole" } else { "" },
                    row.why
                ));
            }
            if row.count == 0 {
                continue;
            }
            let wanted = Wanted::of(filter, &api);
            resources.insert(row.resource.clone(), Resource::new(row, api, wanted));
        }
        for resource in resources.values_mut().filter(|r| r.wanted.by_filter) {
            survey
                .count(archive, filter, resource, &mut missing)
                .await?;
        }
        if let Some(object) = missing.first() {
            return Err(
                Error::not_found(format!("object {object:?} is not among the kinds and namespaces chosen of the backup"))
                    .hint("name it as `namespace/name`, or `name` where it has no namespace; `contents` lists what the backup holds"),
            );
        }
        let related = survey.relate(archive, filter, &resources).await?;
        for (name, names) in related {
            if let Some(resource) = resources.get_mut(name)
                && (!resource.wanted.excluded || name == order::NAMESPACES)
            {
                resource.wanted.related = names;
                survey
                    .count(archive, filter, resource, &mut missing)
                    .await?;
            }
        }
        if let Some(claims) = resources.get(CLAIMS) {
            for_each_body(archive, filter, claims, |body| volumes.learn(body)).await?;
        }
        survey.volumes = Arc::new(volumes);
        survey.resources = resources
            .into_values()
            .filter(|r| r.count > 0)
            .map(Arc::new)
            .collect();
        survey
            .resources
            .sort_by(|a, b| (a.place, &a.name).cmp(&(b.place, &b.name)));
        survey.keep_volumes(archive, filter).await?;
        Ok(survey)
    }

    /// Which volumes are restored as they are, by what is known of the target's disks.
    async fn keep_volumes<S: Source>(
        &mut self,
        archive: &Archive<S>,
        filter: &Filter,
    ) -> Result<()> {
        let mut resources = self.resources.iter();
        if let Some(resource) = resources.find(|resource| resource.name == VOLUMES) {
            let (mut kept, awaited) =
                kept_volumes(archive, filter, resource, &self.volumes).await?;
            kept.extend(awaited.keys().cloned());
            (self.kept_volumes, self.awaited_volumes) = (kept, awaited);
        }
        Ok(())
    }

    /// Learns on which disks volumes may be made again: only where a volume is to be, for nobody else needs the right to ask.
    ///
    /// # Errors
    /// The server's, and the archive's.
    pub(super) async fn look_at_disks<S: Source>(
        &mut self,
        archive: &Archive<S>,
        filter: &Filter,
        looked: impl Future<Output = Result<Disks>>,
    ) -> Result<()> {
        if self.kept_volumes.is_empty() {
            return Ok(());
        }
        Arc::make_mut(&mut self.volumes).disks = looked.await?;
        self.keep_volumes(archive, filter).await
    }

    /// Counts what is wanted of a resource.
    async fn count<S: Source>(
        &mut self,
        archive: &Archive<S>,
        filter: &Filter,
        resource: &mut Resource,
        missing: &mut BTreeSet<&str>,
    ) -> Result<()> {
        (resource.count, resource.frames, resource.children) = (0, Vec::new(), Vec::new());
        let mut asking = Vec::new();
        for frame in 0..archive.index.frames(&resource.name) {
            let (mut any, mut children) = (false, false);
            for row in archive.index.rows(&resource.name, frame).await? {
                if !resource.wanted.has(filter, &resource.api, &row) {
                    continue;
                }
                any = true;
                resource.count += 1;
                if resource.name == "configmaps"
                    && let Some(asks) = plan::asks(&row.labels)
                {
                    asking.push(format!(
                        "configmaps {} in the backup asks {asks}: a restore goes by what stands in the target when it begins",
                        row.namespace
                            .iter()
                            .chain([&row.name])
                            .cloned()
                            .collect::<Vec<_>>()
                            .join("/"),
                    ));
                }
                missing.retain(|object| !plan::names(filter, object, &row));
                for owner in &row.owners {
                    children = true;
                    if let Ok(uid) = Uuid::parse_str(owner) {
                        self.owners.insert(uid);
                    }
                }
                if let Some(namespace) = row.namespace
                    && !resource.namespaces.contains(&namespace)
                {
                    self.namespaces.insert(namespace.clone());
                    resource.namespaces.insert(namespace);
                }
            }
            if any {
                resource.frames.push(frame);
            }
            if children {
                resource.children.push(frame);
            }
        }
        self.warnings.append(&mut asking);
        Ok(())
    }

    /// Cluster-scoped objects that wanted ones need and the filter alone would not bring: their namespaces, their definitions, the volumes
    /// of claims, the priority classes of pods. (Velero brings volumes and priority classes; objects whose kind is not defined
    /// in the target could not be restored at all, hence the definitions.)
    async fn relate<S: Source>(
        &self,
        archive: &Archive<S>,
        filter: &Filter,
        resources: &BTreeMap<String, Resource>,
    ) -> Result<Vec<(&'static str, HashSet<String>)>> {
        let mut related = vec![(order::NAMESPACES, self.namespaces.iter().cloned().collect())];
        let open = |name: &str| {
            resources.get(name).is_some_and(|r| {
                !r.wanted.by_filter || !filter.objects.is_empty() || !filter.selectors.is_empty()
            })
        };
        if open(order::CRDS) {
            let kinds = resources
                .values()
                .filter(|r| r.count > 0 && r.name.contains('.'))
                .map(|r| r.name.clone());
            related.push((order::CRDS, kinds.collect()));
        }
        for (needed, by, field) in [
            (VOLUMES, CLAIMS, "volumeName"),
            (PRIORITIES, "pods", "priorityClassName"),
        ] {
            let Some(resource) = resources.get(by).filter(|r| r.count > 0 && open(needed)) else {
                continue;
            };
            let mut names = HashSet::new();
            for_each_body(archive, filter, resource, |body| {
                if let Some(name) = Specified::read(body)?.spec.remove(field)
                    && let Some(name) = name.as_str()
                {
                    names.insert(name.to_owned());
                }
                Ok(())
            })
            .await?;
            related.push((needed, names));
        }
        Ok(related)
    }
}

#[derive(Deserialize)]
struct Specified {
    #[serde(default)]
    metadata: HashMap<String, serde_json::Value>,
    #[serde(default)]
    spec: HashMap<String, serde_json::Value>,
}

impl Specified {
    fn read(body: &[u8]) -> Result<Self> {
        serde_json::from_slice(body)
            .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))
    }
}

async fn for_each_body<S: Source>(
    archive: &Archive<S>,
    filter: &Filter,
    resource: &Resource,
    mut look: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for frame in &resource.frames {
        let rows = rows(archive, filter, resource, *frame).await?;
        let mut bodies = Bodies::new(archive, rows);
        while let Some((_, object)) = bodies.next().await {
            match object.and_then(|object| look(&object.body)) {
                // Named when it should be created.
                Err(e) if e.kind() == Kind::Corrupt => {}
                other => other?,
            }
        }
    }
    Ok(())
}

async fn kept_volumes<S: Source>(
    archive: &Archive<S>,
    filter: &Filter,
    resource: &Resource,
    volumes: &Volumes,
) -> Result<(HashSet<String>, BTreeMap<String, String>)> {
    let (mut kept, mut awaited) = (HashSet::new(), BTreeMap::new());
    for_each_body(archive, filter, resource, |body| {
        let left_out = plan::left_out(VOLUMES, body, volumes)?;
        let mut volume = Specified::read(body)?;
        let Some(name) = volume.metadata.remove("name") else {
            return Ok(());
        };
        let name = name.as_str().unwrap_or_default().to_owned();
        match left_out {
            None => drop(kept.insert(name)),
            Some(why) if volumes.disks.keeps_back(&why) => drop(awaited.insert(name, why)),
            Some(_) => {}
        }
        Ok(())
    })
    .await?;
    Ok((kept, awaited))
}

/// The wanted rows of a frame.
///
/// # Errors
/// The archive's.
pub(super) async fn rows<S: Source>(
    archive: &Archive<S>,
    filter: &Filter,
    resource: &Resource,
    frame: usize,
) -> Result<Vec<Row>> {
    let mut rows = archive.index.rows(&resource.name, frame).await?;
    rows.retain(|row| resource.wanted.has(filter, &resource.api, row));
    Ok(rows)
}

/// Whether Secrets are wanted, where it is not known yet whether there are some.
pub(super) fn wants_secrets(filter: &Filter, served: &Served) -> bool {
    let row = ResourceRow {
        resource: SECRETS.to_owned(),
        version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        namespaced: true,
        ..ResourceRow::default()
    };
    let (filter, _) = bind(filter, std::slice::from_ref(&row), served);
    Wanted::of(&filter, &describe(&row, served)).by_filter
}

/// Secrets that are encrypted, were not opened, and are wanted.
///
/// # Errors
/// `Unauthorized`, with both ways out.
pub(super) fn refuse_locked(
    filter: &Filter,
    rows: &[ResourceRow],
    served: &Served,
    backup: &Name,
) -> Result<()> {
    let locked = rows.iter().find(|row| apart::is_locked(row));
    match locked.filter(|row| Wanted::of(filter, &describe(row, served)).by_filter) {
        Some(_) => Err(apart::locked(backup)),
        None => Ok(()),
    }
}

/// Whether a gap of the backup is one of what is wanted.
fn wants(filter: &Filter, row: &ResourceRow, api: &ApiResource) -> bool {
    // A whole group: what it served is not known.
    if row.resource.starts_with('*') {
        return filter.objects.is_empty() && filter.includes_unnamed_kinds();
    }
    // Of single objects each one that is missing is an error.
    filter.objects.is_empty() && Wanted::of(filter, api).by_filter
}

/// Namespaces of the target that two of the backup would share: their objects would take each other's places.
///
/// # Errors
/// `Invalid`, naming the three.
pub(super) async fn refuse_shared<S: Source>(
    archive: &Archive<S>,
    filter: &Filter,
    survey: &Survey,
    mappings: &BTreeMap<String, String>,
) -> Result<()> {
    if mappings.is_empty() {
        return Ok(());
    }
    let mut wanted = survey.namespaces.clone();
    if let Some(resource) = survey
        .resources
        .iter()
        .find(|r| r.name == order::NAMESPACES)
    {
        for frame in &resource.frames {
            let rows = rows(archive, filter, resource, *frame).await?;
            wanted.extend(rows.into_iter().map(|row| row.name));
        }
    }
    let mut taken: HashMap<&str, &str> = HashMap::new();
    for old in &wanted {
        let new = mappings.get(old).unwrap_or(old);
        if let Some(other) = taken.insert(new, old) {
            return Err(plan::shared(other, old, new));
        }
    }
    Ok(())
}

/// The filter with every bare kind bound to one resource, as Velero binds it: the core group's, else the first of the target's, else the
/// backup's. Beside it, the kinds to include that the backup has nothing of.
pub(super) fn bind(
    filter: &Filter,
    rows: &[ResourceRow],
    served: &Served,
) -> (Filter, Vec<String>) {
    let held: Vec<Arc<ApiResource>> = rows
        .iter()
        .filter(|row| !row.resource.starts_with('*'))
        .map(|row| Arc::new(describe(row, served)))
        .collect();
    let mut all: Vec<Arc<ApiResource>> = served.preferred();
    all.extend(held.iter().cloned());
    all.sort_by_key(|api| !api.group.is_empty());
    let (bound, _) = filter.resolve(&all);
    let includes = Filter {
        resources: bound.resources.clone(),
        cluster_resources: bound.cluster_resources.clone(),
        namespaced_resources: bound.namespaced_resources.clone(),
        ..Filter::default()
    };
    let (_, mut unknown) = includes.resolve(&held);
    unknown.retain(|kind| kind != "*");
    (bound, unknown)
}

/// A resource of the backup as filters match it; short names are the target's, where it serves the same resource.
pub(super) fn describe(row: &ResourceRow, served: &Served) -> ApiResource {
    let (plural, group) = row
        .resource
        .split_once('.')
        .unwrap_or((row.resource.as_str(), ""));
    let live = served
        .all
        .iter()
        .find(|api| api.group == group && api.plural == plural);
    ApiResource {
        group: group.to_owned(),
        version: row.version.clone(),
        plural: plural.to_owned(),
        kind: row.kind.clone(),
        singular: live.map_or_else(|| row.kind.to_lowercase(), |api| api.singular.clone()),
        short_names: live.map(|api| api.short_names.clone()).unwrap_or_default(),
        namespaced: row.namespaced,
        verbs: Vec::new(),
    }
}
