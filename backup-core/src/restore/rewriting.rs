//! What a restore changes in objects on their way into the target: storage classes, images, resource modifiers, and whose status comes back.
//! From flags, from files, and from the ConfigMaps by which Velero is told the same. What is asked for is settled here before anything is
//! restored; the changes themselves are [`rewrite`](super::rewrite)'s.
//!
//! Velero's ConfigMaps stand in its namespace with the label `velero.io/plugin-config` and one of
//! - `velero.io/change-storage-class: RestoreItemAction`: each key of `data` is a class, its value the new one;
//! - `velero.io/change-image-name: RestoreItemAction`: each value of `data` is `old,new`, parts of image names. Velero takes any row that fits, here
//!   the first by key does.
//!
//! Two of a kind are refused, as Velero refuses them. Resource modifiers are in a ConfigMap of any name, the one value of its `data`, and are only
//! taken when they are asked for. A file holds such ConfigMaps, several with `---` between, or the modifiers alone. What flags and files say counts
//! for the name of the restore: one that was begun goes on only when they say the same. The two ConfigMaps are asked once, when a restore begins,
//! for it may bring such ConfigMaps itself; it goes on with the mappings that the journal's header holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::gather::{self, Resource, Survey};
use super::plan;
use super::rewrite::modifiers::{Document, Modifiers, Schemas};
use super::versions;
use crate::api::RestoreSpec;
use crate::archive::read::{Archive, Source};
use crate::cluster::{ApiError, Cluster};
use crate::discovery::{ApiResource, Served};
use crate::error::{Error, Result};
use crate::filter::{Filter, Verdict};

pub use super::rewrite::modifiers::Modifiers as ResourceModifiers;

/// No file is larger, bytes: some ConfigMaps.
pub const LARGEST_FILE: usize = 4 << 20;
/// No answer with ConfigMaps or a schema is larger, bytes.
const LARGEST_ANSWER: usize = 64 << 20;
/// Rules of one kind.
const RULES: usize = 10_000;

const STORAGE: &str = "velero.io/change-storage-class";
const IMAGES: &str = "velero.io/change-image-name";
const PLUGIN: &str = "velero.io/plugin-config";
/// The value of the other two labels.
const ACTION: &str = "RestoreItemAction";

/// Kinds that have a storage class.
const CLASSED: [&str; 3] = [
    "persistentvolumeclaims",
    "persistentvolumes",
    "statefulsets.apps",
];
const CLASSES: &str = "storageclasses.storage.k8s.io";

/// What is changed.
#[derive(Clone, Debug, Default)]
pub struct Rewriting {
    /// Old storage class to new.
    pub storage_classes: BTreeMap<String, String>,
    /// Part of an image's name and what stands in its place; the first that fits counts.
    pub images: Vec<(String, String)>,
    /// Rules that change objects.
    pub modifiers: Option<Arc<ResourceModifiers>>,
    /// The ConfigMap these rules are from, for the record.
    pub modifiers_configmap: Option<String>,
    /// Kinds whose status comes back; absent: only of objects whose annotation says so.
    pub status: Option<StatusKinds>,
}

/// Kinds whose status comes back, by names as in other filters.
#[derive(Clone, Debug, Default)]
pub struct StatusKinds {
    /// These; empty is all.
    pub included: Vec<String>,
    /// But not these.
    pub excluded: Vec<String>,
}

/// What a file or a cluster says.
#[derive(Debug, Default)]
pub struct Found {
    /// The rewrites.
    pub rewriting: Rewriting,
    /// Where each is from and what it is, a line each.
    pub told: Vec<String>,
    /// What is meant for restores and is not taken.
    pub warnings: Vec<String>,
}

impl Rewriting {
    /// With what `weaker` says on top, where this says nothing of the same class or kind of rule.
    #[must_use]
    pub fn over(mut self, weaker: Self) -> Self {
        let mut storage_classes = weaker.storage_classes;
        storage_classes.append(&mut self.storage_classes);
        self.images.extend(weaker.images);
        let (modifiers, modifiers_configmap) = match self.modifiers {
            Some(own) => (Some(own), self.modifiers_configmap),
            None => (weaker.modifiers, weaker.modifiers_configmap),
        };
        Self {
            storage_classes,
            images: self.images,
            modifiers,
            modifiers_configmap,
            status: self.status.or(weaker.status),
        }
    }

    /// With the mappings of classes and images with which a restore began: its spec has them, those of flags and files among them.
    ///
    /// # Errors
    /// `Corrupt`, when they can not be read; `Invalid`, when they can not be meant.
    pub(super) fn begun_with(mut self, spec: &RestoreSpec) -> Result<Self> {
        let bad = |e| {
            Error::corrupt("the mappings with which the restore began can not be read").because(e)
        };
        let of = |key: &str| spec.rest.get(key).cloned();
        let classes = of("storageClassMapping").map(serde_json::from_value);
        self.storage_classes = classes.transpose().map_err(bad)?.unwrap_or_default();
        let images = of("imageMapping").map(serde_json::from_value);
        self.images = images.transpose().map_err(bad)?.unwrap_or_default();
        self.validate()?;
        Ok(self)
    }

    /// `storage classes: a to b; images: c to d`; nothing where none are mapped.
    pub(super) fn mappings(&self) -> Option<String> {
        let images = self.images.iter().map(|(old, new)| (old, new));
        let classes = pairs(self.storage_classes.iter());
        let some = !(self.storage_classes.is_empty() && self.images.is_empty());
        some.then(|| format!("{CLASSES_ARE}{classes}; {IMAGES_ARE}{}", pairs(images)))
    }

    /// Refuses what can not be meant.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn validate(&self) -> Result<()> {
        for (old, new) in &self.storage_classes {
            for name in [old, new] {
                if !is_class(name) {
                    return Err(Error::invalid(format!(
                        "{name:?} can not be the name of a storage class"
                    ))
                    .hint("write the mapping as OLD:NEW"));
                }
            }
        }
        if self.images.iter().any(|(part, _)| part.is_empty()) {
            return Err(Error::invalid("an image mapping has no old name").hint("write OLD=NEW"));
        }
        match &self.status {
            Some(status) => status.filter().validate(),
            None => Ok(()),
        }
    }

    /// What of it a Restore has no field of its own for, and its digest: part of the name's hash and of the record.
    pub(super) fn record(&self) -> serde_json::Map<String, Value> {
        let mut record = serde_json::Map::new();
        if !self.storage_classes.is_empty() {
            record.insert("storageClassMapping".into(), json!(self.storage_classes));
        }
        if !self.images.is_empty() {
            record.insert("imageMapping".into(), json!(self.images));
        }
        if let Some(modifiers) = &self.modifiers {
            record.insert("resourceModifierDigest".into(), json!(modifiers.digest));
        }
        if let Some(name) = &self.modifiers_configmap {
            // As Velero's command writes it.
            let reference = json!({"apiGroup": "", "kind": "configmap", "name": name});
            record.insert("resourceModifier".into(), reference);
        }
        if let Some(status) = &self.status {
            let mut lists = serde_json::Map::new();
            for (key, list) in [
                ("includedResources", &status.included),
                ("excludedResources", &status.excluded),
            ] {
                if !list.is_empty() {
                    lists.insert(key.into(), json!(list));
                }
            }
            record.insert("restoreStatus".into(), Value::Object(lists));
        }
        record
    }
}

/// What the record of a restore says of its rewrites.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Old storage class to new.
    pub storage_classes: BTreeMap<String, String>,
    /// Part of an image's name, and what stood in its place.
    pub images: Vec<(String, String)>,
    /// The ConfigMap of the resource modifiers; empty for those of a file.
    pub modifiers: Option<String>,
    /// Kinds whose status came back, and kinds whose did not.
    pub status: Option<[Vec<String>; 2]>,
}

/// Reads what a restore's spec says of rewrites. A record is anybody's who may write the bucket: what is not as it should be is passed over.
pub fn recorded(spec: &RestoreSpec) -> Recorded {
    fn read<T: DeserializeOwned + Default>(value: Option<&Value>) -> T {
        value
            .and_then(|value| serde_json::from_value(value.clone()).ok())
            .unwrap_or_default()
    }
    let of = |key: &str| spec.rest.get(key);
    let by_digest = of("resourceModifierDigest").is_some();
    let modifiers = of("resourceModifier").map(|reference| read(reference.get("name")));
    Recorded {
        storage_classes: read(of("storageClassMapping")),
        images: read(of("imageMapping")),
        modifiers: modifiers.or(by_digest.then(String::new)),
        status: of("restoreStatus").map(|status| {
            ["includedResources", "excludedResources"].map(|key| read(status.get(key)))
        }),
    }
}

impl StatusKinds {
    fn filter(&self) -> Filter {
        Filter {
            resources: self.included.clone(),
            not_resources: self.excluded.clone(),
            ..Filter::default()
        }
    }
}

/// What the target's Velero is told: its ConfigMaps in this namespace. Who may not read them has none, and is warned.
///
/// # Errors
/// `Invalid` for two ConfigMaps of one kind; why they can not be read: claims of a wrong class could not be put right later.
pub async fn of_cluster(cluster: &Cluster, namespace: &str) -> Result<Found> {
    let list = |namespace: Option<&str>| {
        let path = config_maps().path(namespace);
        async move {
            let path = format!("{path}?labelSelector=velero.io%2Fplugin-config&limit=500");
            cluster.get_bounded(&path, LARGEST_ANSWER).await
        }
    };
    let answer = match list(None).await {
        Err(e) if e.is_forbidden() => list(Some(namespace)).await,
        answer => answer,
    };
    let body = match answer {
        Ok(body) => body,
        Err(e) if e.is_forbidden() || e.is_not_found() => {
            return Ok(Found {
                warnings: vec![format!(
                    "ConfigMaps of namespace {namespace} in the target may not be read: what they tell Velero of storage classes and images does not count"
                )],
                ..Found::default()
            });
        }
        Err(e) => {
            return Err(Error::from(e).context(format!(
                "the target's ConfigMaps of namespace {namespace}, which may map storage classes and images, can not be read"
            )));
        }
    };
    #[derive(Default, Deserialize)]
    struct List {
        #[serde(default)]
        items: Option<Vec<ConfigMap>>,
    }
    let list: List = serde_json::from_slice(&body)
        .map_err(|e| Error::other("the target's ConfigMaps can not be read").because(e))?;
    let mut found = Found::default();
    let (mine, others): (Vec<_>, Vec<_>) = list
        .items
        .unwrap_or_default()
        .into_iter()
        .partition(|map| map.metadata.namespace == namespace);
    for map in &others {
        if let Some(what) = plan::asks(map.labels()) {
            found.warnings.push(format!(
                "configmaps {} in the target asks {what}, which is not done: Velero is looked for in namespace {namespace} \
                 (--velero-namespace says otherwise)",
                map.path()
            ));
        }
    }
    for map in mine {
        if map.is_for(STORAGE) || map.is_for(IMAGES) {
            found.take(map)?;
        } else if let Some(what) = plan::asks(map.labels()) {
            found.warnings.push(format!(
                "configmaps {} in the target asks {what}, which is not done",
                map.path()
            ));
        }
    }
    Ok(found)
}

/// The resource modifiers of one ConfigMap of the target.
///
/// # Errors
/// `NotFound`; `Invalid` for what is no set of rules; the server's.
pub async fn modifiers_of_cluster(cluster: &Cluster, namespace: &str, name: &str) -> Result<Found> {
    let path = config_maps().object_path(Some(namespace), name);
    let body = match cluster.get_bounded(&path, LARGEST_ANSWER).await {
        Ok(body) => body,
        Err(e) if e.is_not_found() => {
            return Err(Error::not_found(format!(
                "ConfigMap {namespace}/{name} with resource modifiers is not in the target"
            ))
            .hint("--velero-namespace tells in which namespace it is"));
        }
        Err(e) => {
            return Err(Error::from(e).context(format!(
                "ConfigMap {namespace}/{name} with resource modifiers can not be read"
            )));
        }
    };
    let map: ConfigMap = serde_json::from_slice(&body).map_err(|e| {
        Error::other(format!("ConfigMap {namespace}/{name} can not be read")).because(e)
    })?;
    let mut found = Found::default();
    found.take_modifiers(&map)?;
    found.rewriting.modifiers_configmap = Some(name.to_owned());
    Ok(found)
}

/// What a file says: ConfigMaps, or resource modifiers alone.
///
/// # Errors
/// `Invalid`, naming what is wrong.
pub fn of_file(text: &str) -> Result<Found> {
    if text.len() > LARGEST_FILE {
        return Err(Error::invalid(format!(
            "it is larger than {} MiB",
            LARGEST_FILE >> 20
        )));
    }
    let mut found = Found::default();
    let mut any = false;
    for document in text.split("\n---") {
        let value: Value = yaml(document.strip_prefix("---").unwrap_or(document))?;
        if value.is_null() {
            continue;
        }
        any = true;
        if value["kind"].is_null() {
            let modifiers = Modifiers::parse(document.strip_prefix("---").unwrap_or(document))?;
            found.modify("the file", modifiers)?;
            continue;
        }
        if value["kind"] != "ConfigMap" {
            return Err(Error::invalid(format!(
                "it holds a {}",
                value["kind"].as_str().unwrap_or("thing of no kind")
            ))
            .hint("it is to hold ConfigMaps as Velero has them, or resource modifiers alone"));
        }
        let map: ConfigMap = serde_json::from_value(value)
            .map_err(|e| Error::invalid("it holds a ConfigMap that can not be read").because(e))?;
        let labels = map.labels();
        if labels.contains_key(STORAGE) || labels.contains_key(IMAGES) {
            found.take(map)?;
        } else {
            found.take_modifiers(&map)?;
        }
    }
    if any {
        Ok(found)
    } else {
        Err(Error::invalid("it is empty"))
    }
}

impl Found {
    /// With what `weaker` found on top.
    #[must_use]
    pub fn over(mut self, mut weaker: Self) -> Self {
        self.told.append(&mut weaker.told);
        self.warnings.append(&mut weaker.warnings);
        Self {
            rewriting: self.rewriting.over(weaker.rewriting),
            ..self
        }
    }

    /// Takes a ConfigMap of classes or images.
    fn take(&mut self, map: ConfigMap) -> Result<()> {
        let labels = map.labels();
        let path = map.path();
        if labels.contains_key(STORAGE) && labels.contains_key(IMAGES) {
            return Err(Error::invalid(format!(
                "ConfigMap {path} is for storage classes and for images at once"
            ))
            .hint("make one of each"));
        }
        let data = map.data.clone().unwrap_or_default();
        if data.len() > RULES {
            return Err(Error::invalid(format!(
                "ConfigMap {path} has more than {RULES} entries"
            )));
        }
        let twice = |what: &str| {
            Error::invalid(format!("ConfigMap {path} is the second one for {what}"))
                .hint("Velero does not choose among them either: keep one")
        };
        if labels.contains_key(STORAGE) {
            if self.told.iter().any(|told| told.starts_with(CLASSES_ARE)) {
                return Err(twice("storage classes"));
            }
            let (good, bad): (BTreeMap<_, _>, BTreeMap<_, _>) = data
                .into_iter()
                .partition(|(old, new)| is_class(old) && is_class(new));
            for (old, new) in bad {
                self.warnings.push(format!(
                    "ConfigMap {path}: {old:?} to {new:?} names no storage classes, and is not done"
                ));
            }
            self.told.push(format!(
                "{CLASSES_ARE}{} (ConfigMap {path})",
                pairs(good.iter())
            ));
            self.rewriting.storage_classes = good;
            return Ok(());
        }
        if self.told.iter().any(|told| told.starts_with(IMAGES_ARE)) {
            return Err(twice("images"));
        }
        for (key, row) in data {
            match row.split_once(',') {
                Some((old, new)) if !old.trim().is_empty() && !new.is_empty() => {
                    let rule = (old.trim().to_owned(), new.trim().to_owned());
                    self.rewriting.images.push(rule);
                }
                _ => self.warnings.push(format!(
                    "ConfigMap {path}: {key:?} is not of the form old,new, and is not done"
                )),
            }
        }
        let images = self.rewriting.images.iter().map(|(old, new)| (old, new));
        let told = format!("{IMAGES_ARE}{} (ConfigMap {path})", pairs(images));
        self.told.push(told);
        Ok(())
    }

    fn take_modifiers(&mut self, map: &ConfigMap) -> Result<()> {
        let path = map.path();
        let data = map.data.clone().unwrap_or_default();
        let (Some(text), 1) = (data.values().next(), data.len()) else {
            return Err(Error::invalid(format!(
                "ConfigMap {path} has {} entries where resource modifiers are one",
                data.len()
            )));
        };
        let modifiers =
            Modifiers::parse(text).map_err(|e| e.context(format!("ConfigMap {path}")))?;
        self.modify(&format!("ConfigMap {path}"), modifiers)
    }

    fn modify(&mut self, from: &str, modifiers: Modifiers) -> Result<()> {
        if self.rewriting.modifiers.is_some() {
            return Err(Error::invalid("there are two sets of resource modifiers")
                .hint("put their rules into one"));
        }
        self.told.push(match modifiers.count() {
            1 => format!("resource modifiers: one rule ({from})"),
            count => format!("resource modifiers: {count} rules ({from})"),
        });
        self.rewriting.modifiers = Some(Arc::new(modifiers));
        Ok(())
    }
}

const CLASSES_ARE: &str = "storage classes: ";
const IMAGES_ARE: &str = "images: ";

fn pairs<'p>(pairs: impl Iterator<Item = (&'p String, &'p String)>) -> String {
    const MOST: usize = 8;
    let texts: Vec<String> = pairs.map(|(old, new)| format!("{old} to {new}")).collect();
    match texts.len() {
        0 => "none".to_owned(),
        n if n > MOST => format!("{} and {} more", texts[..MOST].join(", "), n - MOST),
        _ => texts.join(", "),
    }
}

fn config_maps() -> ApiResource {
    ApiResource {
        version: "v1".into(),
        plural: "configmaps".into(),
        namespaced: true,
        ..ApiResource::default()
    }
}

/// A ConfigMap, as far as rewrites look at it.
#[derive(Debug, Deserialize)]
struct ConfigMap {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl ConfigMap {
    fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    fn is_for(&self, label: &str) -> bool {
        let labels = self.labels();
        labels.contains_key(PLUGIN) && labels.get(label).is_some_and(|value| value == ACTION)
    }

    fn path(&self) -> String {
        let Metadata {
            name, namespace, ..
        } = &self.metadata;
        if namespace.is_empty() {
            name.clone()
        } else {
            format!("{namespace}/{name}")
        }
    }
}

/// The name of a storage class: a DNS subdomain.
fn is_class(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty()
        && name.len() <= 253
        && name
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(good))
}

/// One YAML document as Velero's reader has it: numbers like 0644 are octal, yes and no are booleans. Aliases, depth and size are bounded.
///
/// # Errors
/// `Invalid`, when it is not what it should be.
pub(crate) fn yaml<T: DeserializeOwned>(text: &str) -> Result<T> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: 64 },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        Error::invalid("it is not the YAML it should be").because(Error::invalid(e.to_string()))
    })
}

/// What rewriting needs to know of the target and of the backup.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Resources whose status comes back, unless an object says otherwise.
    pub(super) status: HashSet<String>,
    /// How kinds are merged.
    pub(super) schemas: Schemas,
    /// Resources that are sent in another version than the archive's, as `apiVersion`.
    pub(super) moved: HashMap<String, String>,
}

/// Asks the target what the rewrites need. Beside it, what the user should know.
///
/// # Errors
/// The archive's; why the server is not reached.
pub(super) async fn prepare<S: Source>(
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
    for (resource, target) in &targets {
        if target.version != resource.api.version {
            let moved = (resource.name.clone(), target.api_version());
            prepared.moved.extend([moved]);
        }
    }
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
pub(super) async fn missing_classes<S: Source>(
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
